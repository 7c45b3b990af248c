# SPDX-License-Identifier: Apache-2.0
"""The same result where the machine gives less: no io_uring, few descriptors, little memory."""
import pytest

import images
import tarball

SNAPSHOTS = ("overlay", "erofs")

MIB = 1 << 20


def pull_and_compare(coco, sample, *options, **limits):
    result = coco.pull(sample.name, *options, **limits)
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)
    return result


REFUSED = [{"io_uring_setup": "EPERM"}, {"io_uring_setup": "ENOSYS"}, {"io_uring_enter": "EPERM"},
           {"io_uring_register": "EPERM"}]


@pytest.mark.parametrize("calls", REFUSED, ids=lambda c: "-".join(sum(c.items(), ())))
def test_io_uring_refused(coco, sample, calls):
    """A seccomp filter as container runtimes have them: auto goes on with plain calls."""
    pull_and_compare(coco, sample, seccomp=calls)


@pytest.mark.parametrize("err", ["EPERM", "ENOSYS"])
def test_io_uring_refused_but_wanted(coco, sample, err):
    result = coco.try_pull(sample.name, "--io", "uring", seccomp={"io_uring_setup": err})
    assert result.status not in (0, 2), str(result)
    assert "io_uring" in result.json["error"]["message"]
    assert coco.images() == []


def test_sync_does_without(coco, sample):
    """--io sync never needs the ring."""
    pull_and_compare(coco, sample, "--io", "sync", seccomp={"io_uring_setup": "EPERM"})


@pytest.mark.parametrize("count", [48, 64])
def test_few_descriptors(coco, sample, count):
    pull_and_compare(coco, sample, rlimits={"nofile": count})


@pytest.mark.parametrize("count", [4, 8, 12, 13, 14, 15, 16, 17, 18, 20, 24, 28, 32, 40])
def test_hardly_any_descriptors(coco, sample, count):
    """Too few to work with is an error with a reason, not a crash and not a hang."""
    result = coco.try_pull(sample.name, rlimits={"nofile": count}, timeout=60)
    if result.status == 0:
        with coco.mounted(sample.name) as where:
            sample.assert_mounted(where)
    elif result.out:
        assert result.code
    assert result.status > 0 or result.status == 0, str(result)
    coco.pull(sample.name)
    assert coco.staging() == []


def test_no_locked_memory(coco, sample):
    pull_and_compare(coco, sample, rlimits={"memlock": 0})


@pytest.mark.memory
@pytest.mark.parametrize("mib", [512, 256])
def test_address_space(coco, sample, mib):
    pull_and_compare(coco, sample, rlimits={"as": mib * MIB})


@pytest.mark.memory
@pytest.mark.parametrize("mib", [24, 48, 64, 96, 128])
def test_too_little_address_space(coco, sample, mib):
    """Whatever does not fit: an error or success, no crash, no hang, and nothing that is left behind."""
    result = coco.try_pull(sample.name, rlimits={"as": mib * MIB}, timeout=60)
    assert result.status >= 0, str(result)
    if result.status:
        assert result.err or result.out, str(result)
    coco.pull(sample.name)
    assert coco.staging() == []
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)


def test_file_size_limit(coco, sample, work):
    """RLIMIT_FSIZE: a short write and EFBIG, never a file that is cut. SIGXFSZ is at its default, and no thread of ours
    takes it."""
    with tarball.Writer(str(work / "big.tar")) as t:
        t.file("big", images.noise(4 * MIB))
    layout = images.Layout(work / "layout")
    layout.image([str(work / "big.tar")], "big")
    result = coco.try_pull(layout.ref("big"), rlimits={"fsize": MIB})
    assert result.status == 9, str(result)
    assert '"big"' in result.json["error"]["message"] and "too large" in result.json["error"]["message"].lower()
    assert coco.images() == []
    coco.pull(layout.ref("big"))
    assert coco.staging() == []


@pytest.mark.memory
@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
def test_memory_does_not_grow_with_the_layer(coco, work, how):
    """One file of 300 MiB in one layer, half of it noise: the peak stays far below the layer's size."""
    with tarball.Writer(str(work / "huge.tar")) as t:
        t.file("huge", (images.noise(2 * MIB) + bytes(2 * MIB)) * 75)
    layout = images.Layout(work / "layout")
    layout.image([str(work / "huge.tar")], "huge", how)
    result = coco.try_pull(layout.ref("huge"))
    assert result.status == 0, str(result)
    assert result.maxrss < 96 * MIB, "peak of %d MiB" % (result.maxrss // MIB)
    assert result.json["stats"]["peak_rss_bytes"] < 96 * MIB


@pytest.mark.memory
def test_memory_does_not_grow_with_entries(coco, work):
    """A hundred thousand small files."""
    with tarball.Writer(str(work / "many.tar")) as t:
        for i in range(100):
            t.dir("d%02d" % i)
            for j in range(1000):
                t.file("d%02d/%03d" % (i, j), b"x")
    layout = images.Layout(work / "layout")
    layout.image([str(work / "many.tar")], "many")
    result = coco.try_pull(layout.ref("many"))
    assert result.status == 0, str(result)
    assert result.maxrss < 96 * MIB, "peak of %d MiB" % (result.maxrss // MIB)


def test_decompression_bomb(coco, work):
    """A gigabyte of zeros in a megabyte passes the ratio's floor; ten of them must not fill the store."""
    import gzip
    bomb = work / "bomb.gz"
    with gzip.open(bomb, "wb", 9) as g:
        with tarball.tarfile.open(fileobj=g, mode="w|", format=tarball.tarfile.PAX_FORMAT) as t:
            info = tarball.tarfile.TarInfo("zeros")
            info.size = 600 * MIB
            t.addfile(info, Zeros(info.size))
    layout = images.Layout(work / "layout")
    layer = layout.put_file(str(bomb), images.MT_LAYER["gzip"])
    layout.tag(layout.manifest([(layer, "sha256:" + "0" * 64)]), "bomb")
    result = coco.try_pull(layout.ref("bomb"))
    assert result.code in ("limit", "diff_id"), str(result)
    assert coco.layers() == [] and coco.staging() == []


class Zeros:
    """A file of zeros that is not there."""

    def __init__(self, size):
        self.left = size

    def read(self, size):
        size = min(size, self.left)
        self.left -= size
        return bytes(size)
