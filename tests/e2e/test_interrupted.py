# SPDX-License-Identifier: Apache-2.0
"""Pulls that end before they are done: killed, interrupted, late, without space. What they leave is never trusted."""
import os
import random
import signal
import subprocess
import time

import pytest

import images
from program import mounts_below

SNAPSHOTS = ("overlay", "erofs")


def space_used(path):
    st = os.statvfs(path)
    return (st.f_blocks - st.f_bfree) * st.f_frsize


def test_killed_at_any_moment(new_coco, sample, proxy):
    """kill -9 at twenty moments of a pull: afterwards nothing shows, the next pull works, the tree is right, and what
    the dead one left in staging is swept. The moments are spread over the time that a whole pull takes here."""
    name, proxy.rate = proxy.host + "/sample:gzip", 60 << 20
    whole = new_coco("whole")
    began = time.monotonic()
    whole.pull(name)
    length = time.monotonic() - began
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    reached = 0
    for i in range(20):
        coco = new_coco("store-%d" % i)
        run = coco.start_pull(name)
        time.sleep(max(0.0, length * (i + moments.random()) / 20 - 0.05))
        run.kill(signal.SIGKILL)
        result = run.wait()
        what = "kill %d of seed %d" % (i, seed)
        if result.status != 0:
            assert result.status == -signal.SIGKILL, what
            reached += os.path.isdir(coco.store)
            assert len(coco.images()) in (0, 1), what
        assert len(coco.pull(name)["layers"]) == len(sample.tars), what
        assert coco.staging() == [], what
        with coco.mounted(name) as where:
            sample.assert_mounted(where)
        subprocess.run(["rm", "-rf", coco.store], check=True)
    assert reached >= 5, "the kills came before or after the pulls: only %d of 20 hit one" % reached


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(coco, sample, proxy, sig):
    name, proxy.hold = proxy.host + "/sample:gzip", 200_000
    run = coco.start_pull(name)
    assert proxy.held.wait(30)
    time.sleep(0.2)
    began = time.monotonic()
    run.kill(sig)
    result = run.wait(20)
    assert result.status == 130, str(result)
    assert result.code == "cancelled"
    assert time.monotonic() - began < 3
    assert coco.images() == [] and coco.staging() == [] and mounts_below(coco.scratch) == []
    assert coco.run("mount", name, coco.scratch).status == 10
    proxy.release()
    proxy.hold = None
    coco.pull(name)
    with coco.mounted(name) as where:
        sample.assert_mounted(where)


def test_timeout(coco, proxy, sample):
    name, proxy.hold = proxy.host + "/sample:gzip", 200_000
    began = time.monotonic()
    result = coco.try_pull(name, "--timeout", "1", timeout=30)
    assert result.status == 124 and result.code == "deadline", str(result)
    assert 0.9 < time.monotonic() - began < 5
    assert coco.images() == [] and coco.staging() == []


def test_timeout_that_is_not_reached(coco, sample):
    coco.pull(sample.name, "--timeout", "100")


def test_only_what_is_missing_is_fetched_again(coco, sample, proxy):
    """Layers that were whole when another one failed are not fetched a second time."""
    _, manifest = images.read_layout(sample.layout.path, "gzip")
    last = manifest["layers"][-1]["digest"]
    proxy.change = lambda path, body: b"\0" * len(body) if path.endswith(last) else body
    name = proxy.host + "/sample:gzip"
    result = coco.try_pull(name, "--jobs", "1")
    assert result.status != 0
    proxy.change = None
    before = proxy.blob_bytes()
    kept = len(coco.layers())
    result = coco.pull(name)
    assert sum(la["reused"] for la in result["layers"]) == kept
    again = [d for d, n in proxy.blob_bytes().items() if n != before.get(d) and d in {
        la["digest"] for la in manifest["layers"]}]
    assert len(again) == len(sample.tars) - kept


@pytest.fixture
def small_disk(work):
    """A store on a file system of 8 MiB."""
    where = work / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", where], check=True)
    return where


@pytest.mark.parametrize("io", ["uring", "sync"])
def test_disk_full(new_coco, small_disk, sample, work, io):
    import tarball
    with tarball.Writer(str(work / "big.tar")) as t:
        for i in range(4):
            t.file("big-%d" % i, images.noise(4 << 20, i))
    layout = images.Layout(work / "layout")
    layout.image([str(work / "big.tar")], "big")
    coco = new_coco("small/store")
    before = space_used(small_disk)
    message = coco.pull_fails(layout.ref("big"), "--io", io, code="space")
    assert "space" in message.lower()
    assert coco.layers() == [] and coco.staging() == [] and coco.images() == []
    assert space_used(small_disk) - before < 256 << 10, "the failed pull left its bytes behind"
    # The store is usable: an image that fits is pulled.
    layout.image([sample.tars[2]], "fits")
    coco.pull(layout.ref("fits"), "--io", io)
    with coco.mounted(layout.ref("fits")) as where:
        assert os.path.getsize(os.path.join(where, "opt/app/blob")) == 700_000


def test_no_inodes_left(new_coco, work, sample, snapshot):
    where = work / "few"
    where.mkdir()
    # An image of files takes one inode.
    count = {"overlay": 500, "erofs": 15}[snapshot]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m,nr_inodes=%d" % count, "few", where], check=True)
    coco = new_coco("few/store")
    coco.pull_fails(sample.name, code="space")
    assert coco.images() == [] and coco.staging() == []


def test_store_that_cannot_be_written(new_coco, work, sample):
    where = work / "ro"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "ro", where], check=True)
    coco = new_coco("ro/store")
    coco.pull_fails(sample.name, code=("permission", "storage"))
