# SPDX-License-Identifier: Apache-2.0
# Sourced by tests/demo, tests/run and bench/install: what has to be installed, and how it is built. Needs nothing but
# bash and a Debian 12 with apt; not even /sys, /dev/shm or systemd, so that a bare chroot will do.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export DEBIAN_FRONTEND=noninteractive

build_packages=(gcc libc6-dev meson ninja-build pkg-config liburing-dev libcurl4-openssl-dev libssl-dev libzstd-dev
	libxxhash-dev libjansson-dev libjose-dev zlib1g-dev libisal-dev ca-certificates)
demo_packages=(openssl skopeo umoci)
test_packages=(libcmocka-dev clang libclang-rt-14-dev python3 python3-pytest skopeo umoci docker-registry apache2-utils
	openssl acl libcap2-bin cryptsetup-bin erofs-utils zstd util-linux mount tinyproxy-bin nginx-light curl isal jq
	procps qemu-system-x86 cpio kmod e2fsprogs attr)
# What bench/run measures and what it measures with, and what bench/corpus builds with.
bench_packages=(docker-registry nginx-light podman buildah skopeo umoci containerd runc isal zstd pigz jq curl openssl
	strace python3 util-linux mount)
corpus_packages=(docker-registry buildah skopeo mmdebstrap npm openssl zstd curl jq)

say() {
	printf '\n== %s\n' "$*"
}

need_root() {
	[ "$(id -u)" = 0 ] || { echo "$0: has to be root, to install packages and to mount images" >&2; exit 2; }
}

# Installs what is missing. Services that packages bring along are not started: nobody asked for a registry on port 5000.
install_packages() {
	local missing=() package policy=/usr/sbin/policy-rc.d

	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	[ -e "$policy" ] && policy= || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; }
	apt-get -q update && apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}"
	local status=$?
	[ -z "$policy" ] || rm -f "$policy"
	return $status
}

# build_tree DIRECTORY COMPILER [MESON OPTION...]: configures anew where the options changed, and compiles.
build_tree() {
	local dir=$1 compiler=$2 want
	shift 2
	want="$compiler $*"
	if [ ! -e "$dir/build.ninja" ] || [ "$(cat "$dir/.options" 2>/dev/null)" != "$want" ]; then
		rm -rf "$dir"
		CC=$compiler meson setup "$dir" "$root" "$@" || return
		printf '%s\n' "$want" >"$dir/.options"
	fi
	ninja -C "$dir"
}
