# SPDX-License-Identifier: Apache-2.0
"""A large image of real layers: Debian packages, each layer the tar that its .deb holds, with whiteouts on top. Made
with apt-get and dpkg-deb from whatever this machine's apt is configured for."""
import os
import pathlib
import subprocess

import pytest

import compare
import debian
import images
import tarball

SNAPSHOTS = ("overlay", "erofs")

MIB = 1 << 20
# Big libraries, many small files, hard links (perl, git), symbolic links, set-id programs: about 500 MB unpacked.
LAYERS = [["base-files", "base-passwd", "coreutils", "dash", "libc6", "libc-bin", "login", "passwd", "tzdata"],
          ["llvm-14-dev"], ["libllvm14"], ["perl-base", "perl-modules-5.36"], ["git", "git-man"],
          ["linux-libc-dev", "libstdc++-12-dev", "python3.11-minimal"]]
REMOVED = ["usr/share/doc", "usr/lib/llvm-14/build", "usr/share/perl/5.36.0/Unicode"]


def unpack_tar(deb, out):
    with open(out, "wb") as f:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=f, check=True)
    return out


class RealImage:
    def __init__(self, where, cache, docker):
        try:
            debs = debian.download(cache, sum(LAYERS, []))
        except debian.NotThere as e:
            pytest.skip(str(e))
        self.tars = []
        for i, packages in enumerate(LAYERS):
            tar = str(where / ("%d.tar" % i))
            unpack_tar(debs[packages[0]], tar)
            for package in packages[1:]:
                more = unpack_tar(debs[package], str(where / "more.tar"))
                subprocess.run(["tar", "--concatenate", "-f", tar, more], check=True)
                os.unlink(more)
            self.tars.append(tar)
        self.tars.append(str(where / "removed.tar"))
        with tarball.Writer(self.tars[-1]) as t:
            for path in REMOVED:
                t.whiteout(path)
        self.unpacked = sum(os.path.getsize(t) for t in self.tars)
        layout = images.Layout(where / "layout")
        layout.image(self.tars, "real")
        self.tree = compare.walk(compare.umoci_unpack(layout.path, "real", str(where / "umoci")), top=False)
        subprocess.run(["rm", "-rf", where / "umoci"], check=True)
        self.key, public = images.rsa_key(str(where), "key")
        self.names = {"plain": docker.push(layout.ref("real"), "real:plain"),
                      "encrypted": docker.push(layout.ref("real"), "real:encrypted",
                                               "--encryption-key", "jwe:" + public)}
        subprocess.run(["rm", "-rf", layout.path], check=True)


@pytest.fixture(scope="module")
def real(scratch, docker):
    where = scratch / "real"
    where.mkdir()
    cache = pathlib.Path(os.environ.get("COCO_PULL_CACHE") or where / "cache")
    cache.mkdir(parents=True, exist_ok=True)
    yield RealImage(where, cache.resolve(), docker)
    subprocess.run(["rm", "-rf", where], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_real_image(coco, real, kind):
    assert real.unpacked > 300 * MIB
    options = ["--decryption-key", real.key, "--require-encrypted"] if kind == "encrypted" else []
    result = coco.try_pull(real.names[kind], *options)
    assert result.status == 0, str(result)
    assert [la["diff_id"] for la in result.json["layers"]] == ["sha256:" + compare.content(t) for t in real.tars]
    assert result.json["stats"]["bytes_unpacked"] == real.unpacked
    with coco.mounted(real.names[kind]) as where:
        compare.assert_same(real.tree, compare.walk(where, top=False))
    if not os.environ.get("COCO_PULL_SANITIZED"):
        assert result.maxrss < 96 * MIB, "peak of %d MiB" % (result.maxrss // MIB)
        assert result.json["stats"]["peak_rss_bytes"] < 96 * MIB
