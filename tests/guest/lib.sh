# SPDX-License-Identifier: Apache-2.0
# Sourced before every check. A check begins in an empty directory of its own, on tmpfs; what it ends with is its
# result. tree() is also what the host describes trees with.
set -eu
build=/guest/build
coco=$build/engine/cli/coco-pull

skip() {
	echo "$*"
	exit 77
}

# A unit test, which may skip nothing but what wants the shared test data: this kernel has all the rest.
# unit NAME [CASE]: without that case.
unit() {
	[ $# = 1 ] || export COCO_PULL_SKIP_TEST="$2"
	CMOCKA_MESSAGE_OUTPUT=TAP "$build/tests/unit/test_$1" >out 2>&1 || { cat out; exit 1; }
	! grep -q 'skipped: no shared test data' out || skip "no shared test data"
	! grep -i skip out
}

# All that an image carries of the tree at $1, but the root directory itself: whether that is like anything is not said.
tree() {
	(
		cd "$1"
		find . -mindepth 1 -type d -printf '%P %y %m %U %G %T@\n' -o \
			-mindepth 1 -printf '%P %y %m %U %G %T@ %n %s %l\n' | sort
		find . \( -type c -o -type b \) -exec stat -c '%n %t:%T' {} + | sort
		find . -type f -exec b2sum {} + | sort -k 2
		find . -mindepth 1 -exec getfattr -h -d -m - -e hex {} + |
			awk '/^# file: /{name = $0; next} NF{print name, $0}' | sort
	)
}

# same_tree DIRECTORY TAG: is it what the image is?
same_tree() {
	tree "$1" >seen
	cmp -s "/guest/image/$2.tree" seen || { diff "/guest/image/$2.tree" seen | head -n 40; return 1; }
}

# A file system of 512 MiB at $1, as on a disk.
make_ext4() {
	mkdir "$1"
	truncate -s 512M "$1.ext4"
	mkfs.ext4 -q "$1.ext4"
	mount -o loop "$1.ext4" "$1"
	rm "$1.ext4"
}

# Devices that a store below the working directory has, of device-mapper and of loop.
mapped() {
	cat /sys/block/dm-*/dm/name 2>/dev/null | grep -c '^coco-pull-' || :
}
bound() {
	cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c "^$PWD/.*layer.erofs" || :
}

# until COMMAND...: for ten seconds; the kernel lets go of devices a little after the unmount.
until_true() {
	local i

	for i in $(seq 300); do
		! "$@" || return 0
		sleep 0.1
	done
	echo "not true after ten seconds: $*"
	return 1
}
