# SPDX-License-Identifier: Apache-2.0
"""The two kinds of snapshot against each other: the same tree, each in its place in the store; and what only images
have, loop devices and hash trees."""
import glob
import json
import os
import shutil
import subprocess
import time

import pytest

import compare
import images

pytestmark = pytest.mark.usefixtures("needs_erofs")


@pytest.fixture
def needs_erofs(erofs_here):
    if not erofs_here:
        pytest.skip("EROFS cannot be mounted here")


def kinds(coco):
    """What `list` says of all images."""
    return [i["snapshot"] for i in coco.run("list", "--format", "json").json]


def loops_below(path):
    """Files below a path that loop devices are bound to."""
    found = []
    for name in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as f:
                found.append(f.read().rstrip("\n"))
        except OSError:  # the device has just been freed
            pass
    return [f for f in found if f.startswith(str(path))]


def no_loops_soon(path):
    """The kernel lets go of a device a little after the unmount."""
    for _ in range(100):
        if not loops_below(path):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("options", [[], ["--verity"], ["--io", "uring"], ["--verity", "--io", "uring"],
                                     ["--jobs", "1"]], ids=lambda o: "-".join(o).strip("-") or "plain")
def test_the_same_tree(new_coco, sample, options):
    """Every entry of the mounted image, the root included, is what it is on directories."""
    trees = []
    for coco, more in ((new_coco("dirs"), []), (new_coco("files"), ["--snapshot", "erofs", *options])):
        coco.pull(sample.name, *more)
        with coco.mounted(sample.name) as where:
            trees.append(compare.walk(where))
    compare.assert_same(*trees)


def test_the_same_image_every_time(new_coco, sample):
    """A layer becomes the same bytes whatever it is pulled with, unless the kernel has no say in that."""
    found = []
    for i, more in enumerate(([], ["--io", "uring"], ["--memory", "16M"], ["--jobs", "8"])):
        result = new_coco("store-%d" % i).pull(sample.name, "--snapshot", "erofs", *more)
        found.append([compare.content(la["path"]) for la in result["layers"]])
    assert all(f == found[0] for f in found) and len(set(found[0])) == len(found[0])


def test_fsck_accepts_every_image(coco, sample):
    for layer in coco.pull(sample.name, "--snapshot", "erofs")["layers"]:
        done = subprocess.run(["fsck.erofs", layer["path"]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_hash_trees(coco, sample):
    """The trees are what veritysetup verifies, and they find a changed byte."""
    result = coco.pull(sample.name, "--snapshot", "erofs", "--verity")
    inspected = coco.run("inspect", sample.name, "--format", "json").json
    for layer, again in zip(result["layers"], inspected["layers"]):
        verity = layer["verity"]
        assert again["verity"] == verity and verity["salt"] == "" and verity["algorithm"] == "sha256"
        assert verity["hash_offset"] == verity["data_blocks"] * 4096 < layer["file_bytes"]
        assert os.path.getsize(layer["path"]) == layer["file_bytes"]
        command = ["veritysetup", "verify", layer["path"], layer["path"], "--hash-offset=%d" % verity["hash_offset"],
                   verity["root_hash"]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        images.flip(layer["path"], verity["hash_offset"] // 2)
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
        with open(os.path.join(os.path.dirname(layer["path"]), "layer.json"), encoding="utf-8") as f:
            facts = json.load(f)
        assert facts["snapshot"] == "erofs" and facts["verity"] == verity and facts["blocks"] == verity["data_blocks"]
    assert verity["root_hash"] in coco.run("inspect", sample.name).out


def test_verity_wants_images(coco, sample):
    coco.pull_fails(sample.name, "--verity", code="usage")
    coco.pull_fails(sample.name, "--verity", "--snapshot", "overlay", code="usage")


def test_auto_takes_images(coco, sample):
    result = coco.pull(sample.name, "--snapshot", "auto")
    assert result["snapshot"] == "erofs"
    assert all(la["reused"] for la in coco.pull(sample.name, "--snapshot", "erofs")["layers"])
    assert all(la["reused"] for la in coco.pull(sample.name, "--snapshot", "auto")["layers"])


def test_another_kind_is_pulled_anew(coco, sample):
    """The record has one kind at a time; what the other one leaves behind is pruned."""
    count = len(sample.tars)
    for step, (options, reused, kind) in enumerate((
            ([], False, "overlay"), (["--snapshot", "erofs"], False, "erofs"), (["--snapshot", "erofs"], True, "erofs"),
            ([], True, "overlay"), (["--snapshot", "auto"], True, "erofs"))):
        result = coco.pull(sample.name, *options)
        assert [la["reused"] for la in result["layers"]] == [reused] * count, step
        assert kinds(coco) == [kind] and result["snapshot"] == kind
        with coco.mounted(sample.name) as where:
            sample.assert_mounted(where)
    assert len(coco.layers()) == 2 * count
    assert coco.run("prune").out == "removed 0 images and %d layers\n" % count
    assert [name.endswith(".erofs") for name in coco.layers()] == [True] * count
    assert coco.run("rm", sample.name).status == 0
    assert coco.layers() == []


def test_a_tree_is_had_by_pulling_anew(coco, sample):
    """An image without hash trees does not serve who wants them; the other way round it does."""
    assert not any("verity" in la for la in coco.pull(sample.name, "--snapshot", "erofs")["layers"])
    result = coco.pull(sample.name, "--snapshot", "erofs", "--verity")
    assert not any(la["reused"] for la in result["layers"]) and all("verity" in la for la in result["layers"])
    assert "erofs+verity" in coco.run("list").out
    coco.run("prune")
    result = coco.pull(sample.name, "--snapshot", "erofs")
    assert all(la["reused"] and "verity" in la for la in result["layers"])


def test_encrypted_layers(coco, sample, encrypted, keys):
    """What was decrypted into an image is for who has the key, as on directories."""
    options = ["--snapshot", "erofs", "--verity", "--decryption-key", keys.rsa[0]]
    coco.pull(encrypted.ref, *options)
    assert all(la["reused"] for la in coco.pull(encrypted.ref, *options)["layers"])
    coco.pull_fails(encrypted.ref, "--snapshot", "erofs", code="key")
    with coco.mounted(encrypted.ref) as where:
        sample.assert_mounted(where)


@pytest.mark.parametrize("options", [[], ["--rw"]], ids=["ro", "rw"])
@pytest.mark.parametrize("how", ["unmount", "umount", "umount -l"])
def test_loop_devices_go_with_the_mount(coco, sample, work, options, how):
    coco.pull(sample.name, "--snapshot", "erofs")
    where = work / "mnt"
    where.mkdir()
    assert coco.run("mount", sample.name, where, *options).status == 0
    assert len(loops_below(coco.store)) == len(sample.tars)  # the store is on tmpfs
    sample.assert_mounted(where)
    if how == "unmount":
        assert coco.run("unmount", where).status == 0
    else:
        subprocess.run([*how.split(), where], check=True)
    assert no_loops_soon(coco.store)
    coco.run("prune")
    assert os.listdir(os.path.join(coco.store, "mounts")) == []


def test_removed_while_it_is_in_use(coco, sample, work):
    """What holds a mount open after a lazy unmount reads on, whatever is removed meanwhile."""
    coco.pull(sample.name, "--snapshot", "erofs")
    where = work / "mnt"
    where.mkdir()
    assert coco.run("mount", sample.name, where).status == 0
    with open(where / "opt/keep", "rb") as f:
        subprocess.run(["umount", "-l", where], check=True)
        assert coco.run("rm", sample.name).status == 0
        assert coco.layers() == [] and loops_below(coco.store)
        assert f.read() == b"k"
    assert no_loops_soon(coco.store)


@pytest.fixture
def ext4(work):
    """A directory on a file system whose files the kernel may mount without loop devices."""
    where = work / "ext4"
    where.mkdir()
    image = work / "ext4.img"
    subprocess.run(["truncate", "-s", "400M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, where], check=False).returncode:
        pytest.skip("no loop-mounted ext4 here")
    return where


@pytest.mark.parametrize("io", ["sync", "uring"])
def test_on_ext4(new_coco, sample, ext4, io):
    coco = new_coco("ext4/store")
    result = coco.pull(sample.name, "--snapshot", "erofs", "--verity", "--durable", "--io", io, "--stats")
    if io == "uring":
        assert result["stats"]["io"] == "uring+direct"
    with coco.mounted(sample.name, "--rw") as where:
        sample.assert_mounted(where)
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)
    assert no_loops_soon(coco.store)


def test_without_loop_devices(coco, sample, work):
    """On tmpfs there is no other way, and the message says what to do."""
    coco.pull(sample.name, "--snapshot", "erofs")
    (work / "dev").mkdir()
    (work / "mnt").mkdir()
    # It may have been built below /dev.
    shutil.copy(coco.binary, work / "program")
    shell = work / "without-loop"
    shell.write_text("#!/bin/sh\nmount --bind '%s' /dev && exec '%s' \"$@\"\n" % (work / "dev", work / "program"))
    shell.chmod(0o755)
    # the program makes sure of its standard descriptors
    for name, number in (("null", 3), ("urandom", 9)):
        os.mknod(work / "dev" / name, 0o20666, os.makedev(1, number))
    binary, coco.binary = coco.binary, "/usr/bin/unshare"
    try:
        result = coco.start_raw("--mount", shell, "mount", sample.name, work / "mnt", "--store", coco.store).wait()
        auto = coco.start_raw("--mount", shell, "pull", sample.name, *coco.base, "--snapshot", "auto",
                              "--format", "json", "--store", coco.store).wait()
        verity = coco.start_raw("--mount", shell, "pull", sample.name, *coco.base, "--snapshot", "auto", "--verity",
                                "--format", "json", "--store", coco.store).wait()
    finally:
        coco.binary = binary
    assert result.status == 9 and "loop" in result.err and "--snapshot overlay" in result.err, str(result)
    assert auto.status == 0 and auto.json["snapshot"] == "overlay", str(auto)
    assert verity.status == 8 and verity.code == "unsupported" and "loop" in verity.err, str(verity)
