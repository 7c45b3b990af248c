# SPDX-License-Identifier: Apache-2.0
"""The store: sharing, listing, removing, mounting, and several processes at work in it at once."""
import os
import subprocess

import pytest

import compare
import images
import tarball
from program import hash_store, mounts_below

SNAPSHOTS = ("overlay", "erofs")


@pytest.fixture
def pair(work, sample):
    """Two images that share their lowest layer."""
    layout = images.Layout(work / "layout")
    base = layout.layer(sample.tars[0])
    layout.tag(layout.manifest([base, layout.layer(sample.tars[2])]), "one")
    layout.tag(layout.manifest([base, layout.layer(sample.tars[1])]), "two")
    return layout


def test_second_pull_fetches_nothing(coco, sample, proxy):
    name = proxy.host + "/sample:gzip"
    coco.pull(name)
    before = proxy.blob_bytes()
    result = coco.pull(name)
    assert all(la["reused"] for la in result["layers"])
    _, manifest = images.read_layout(sample.layout.path, "gzip")
    layers = {la["digest"] for la in manifest["layers"]}
    assert {d: n for d, n in proxy.blob_bytes().items() if d in layers} == {
        d: n for d, n in before.items() if d in layers}


def test_layers_are_shared(coco, pair):
    first = coco.pull(pair.ref("one"))
    second = coco.pull(pair.ref("two"))
    assert [la["reused"] for la in second["layers"]] == [True, False]
    assert first["layers"][0]["path"] == second["layers"][0]["path"]
    assert len(coco.layers()) == 3


def test_same_tar_compressed_otherwise(coco, sample):
    """What is shared is the unpacked layer: zstd and gzip of one tar are the same."""
    coco.pull(sample.layout.ref("gzip"))
    result = coco.pull(sample.layout.ref("zstd"))
    assert all(la["reused"] for la in result["layers"])
    with coco.mounted(sample.layout.ref("zstd")) as where:
        sample.assert_mounted(where)


def test_same_image_twice_at_once(coco, sample, proxy):
    """Two processes, one image, one store: both get it, and every blob goes over the wire once."""
    name, proxy.rate = proxy.host + "/sample:gzip", 20 << 20
    runs = [coco.start_pull(name), coco.start_pull(name)]
    for result in [r.wait() for r in runs]:
        assert result.status == 0, str(result)
    _, manifest = images.read_layout(sample.layout.path, "gzip")
    sent = proxy.blob_bytes()
    assert {la["digest"]: la["size"] for la in manifest["layers"]} == {
        la["digest"]: sent[la["digest"]] for la in manifest["layers"]}
    with coco.mounted(name) as where:
        sample.assert_mounted(where)
    assert coco.staging() == []


def test_one_of_two_is_killed(coco, sample, proxy):
    """The one that waits takes over when the one that works dies."""
    name, proxy.hold = proxy.host + "/sample:gzip", 300_000
    first = coco.start_pull(name)
    assert proxy.held.wait(30)
    second = coco.start_pull(name)
    assert second.pid
    first.kill()
    first.wait()
    proxy.release()
    result = second.wait()
    assert result.status == 0, str(result)
    with coco.mounted(name) as where:
        sample.assert_mounted(where)
    coco.run("prune")
    assert coco.staging() == []


def test_two_images_at_once(coco, pair, sample):
    runs = [coco.start_pull(pair.ref(tag)) for tag in ("one", "two")] + [coco.start_pull(sample.name)]
    results = [r.wait() for r in runs]
    for result in results:
        assert result.status == 0, str(result)
    assert len(coco.images()) == 3
    assert len({r.json["layers"][0]["path"] for r in results}) == 1
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)


def test_list_and_inspect(coco, pair):
    assert coco.images() == []
    results = {tag: coco.pull(pair.ref(tag)) for tag in ("two", "one")}
    assert coco.images() == sorted(r["reference"] for r in results.values())
    result = coco.run("inspect", pair.ref("one"), "--format", "json")
    assert result.status == 0, str(result)
    for key in ("reference", "manifest_digest", "config_digest", "platform"):
        assert result.json[key] == results["one"][key]
    assert [la["diff_id"] for la in result.json["layers"]] == [la["diff_id"] for la in results["one"]["layers"]]
    for name in (results["one"]["manifest_digest"], results["one"]["manifest_digest"].split(":")[1][:12]):
        assert coco.run("inspect", name).status == 0
    assert coco.run("inspect", pair.ref("none")).status == 10
    text = coco.run("list")
    assert text.status == 0 and all(r["reference"] in text.out for r in results.values())


def test_remove(coco, pair):
    """A layer goes with the last image that uses it."""
    coco.pull(pair.ref("one"))
    coco.pull(pair.ref("two"))
    assert coco.run("rm", pair.ref("one")).status == 0
    assert len(coco.layers()) == 2 and len(coco.images()) == 1
    with coco.mounted(pair.ref("two")) as where:
        assert os.path.exists(os.path.join(where, "s/setuid"))
    assert coco.run("rm", pair.ref("one")).status == 10
    assert coco.run("rm", pair.ref("two")).status == 0
    assert coco.layers() == [] and coco.images() == []


def test_remove_what_is_mounted(coco, pair):
    coco.pull(pair.ref("one"))
    with coco.mounted(pair.ref("one")) as where:
        assert coco.run("rm", pair.ref("one")).status == 2
        assert coco.run("prune").status == 0
        assert os.path.exists(os.path.join(where, "opt/app"))
    assert coco.run("rm", pair.ref("one")).status == 0


def test_prune_takes_leftovers_only(coco, pair):
    coco.pull(pair.ref("one"))
    before = coco.layers()
    for name in ("layers/sha256:" + "0" * 64, "staging/dead"):
        os.makedirs(os.path.join(coco.store, name, "fs"))
    assert coco.run("prune").status == 0
    assert coco.layers() == before and coco.staging() == []
    with coco.mounted(pair.ref("one")):
        pass


def test_prune_during_a_pull(coco, sample, proxy):
    """What a running pull has staged, or put in place before its record is there, belongs to it."""
    name, proxy.hold = proxy.host + "/sample:gzip", 300_000
    run = coco.start_pull(name)
    assert proxy.held.wait(30)
    assert coco.run("prune").status == 0
    proxy.release()
    result = run.wait()
    assert result.status == 0, str(result)
    with coco.mounted(name) as where:
        sample.assert_mounted(where)


def test_mount_is_read_only(coco, sample):
    coco.pull(sample.name)
    with coco.mounted(sample.name) as where:
        with pytest.raises(OSError):
            open(os.path.join(where, "new"), "w")
        with pytest.raises(OSError):
            os.unlink(os.path.join(where, "opt/keep"))


@pytest.mark.parametrize("layers", [1, 4])
def test_mount_read_write(coco, sample, work, layers):
    """Writes are private to the mount and gone after it; the layers stay as they are."""
    layout = images.Layout(work / "layout")
    layout.image(sample.tars[-layers:], "rw")
    coco.pull(layout.ref("rw"))
    before = hash_store(coco.store)
    with coco.mounted(layout.ref("rw"), "--rw") as where:
        st = os.stat(where)
        with open(os.path.join(where, "new"), "w") as f:
            f.write("private\n")
        os.unlink(os.path.join(where, "opt/app/old/new"))
        with coco.mounted(layout.ref("rw"), "--rw") as other:
            assert not os.path.exists(os.path.join(other, "new"))
            assert os.path.exists(os.path.join(other, "opt/app/old/new"))
            assert (os.stat(other).st_mode, os.stat(other).st_uid) == (st.st_mode, st.st_uid)
    with coco.mounted(layout.ref("rw")) as where:
        assert not os.path.exists(os.path.join(where, "new"))
        assert os.path.exists(os.path.join(where, "opt/app/old/new"))
    assert hash_store(coco.store) == before, "a mount left something in the store"


def test_mount_refuses(coco, sample, work):
    assert coco.run("mount", sample.name, work / "absent").status in (2, 9, 10)
    (work / "dir").mkdir()
    assert coco.run("mount", sample.name, work / "dir").status == 10
    assert coco.run("unmount", work / "dir").status in (2, 9, 10)
    coco.pull(sample.name)
    assert coco.run("mount", sample.name, work / "absent").status in (2, 9, 10)
    (work / "file").write_text("x")
    assert coco.run("mount", sample.name, work / "file").status in (2, 9, 10)
    assert mounts_below(work) == []


def test_unmount_leaves_other_mounts_alone(coco, sample, work):
    """A directory where somebody else mounted something is not for us to unmount."""
    coco.pull(sample.name)
    (work / "theirs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "theirs", work / "theirs"], check=True)
    assert coco.run("unmount", work / "theirs").status != 0
    assert mounts_below(work / "theirs") == [str(work / "theirs")]


def test_store_behind_a_strange_path(new_coco, sample, work):
    """Commas, colons and backslashes mean something in mount options; blanks and escapes in mountinfo."""
    coco = new_coco("a store, with:odd\\names \n and more")
    coco.pull(sample.name)
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)
    with coco.mounted(sample.name, "--rw") as where:
        with open(os.path.join(where, "new"), "w", encoding="utf-8") as file:
            file.write("written")


def test_changed_store_is_found(coco, sample):
    """A record that was tampered with is not trusted."""
    coco.pull(sample.name)
    images_dir = os.path.join(coco.store, "images")
    changed = 0
    for where, _, files in os.walk(images_dir):
        for name in files:
            path = os.path.join(where, name)
            data = open(path, "rb").read()
            if b"sha256:" in data:
                at = data.index(b"sha256:") + 10
                open(path, "wb").write(data[:at] + b"zz" + data[at + 2:])
                changed += 1
    assert changed, "no record found below images/"
    assert coco.run("mount", sample.name, coco.scratch).status != 0
    assert mounts_below(coco.scratch) == []
    result = coco.pull(sample.name)
    assert len(result["layers"]) == len(sample.tars)
    with coco.mounted(sample.name) as where:
        sample.assert_mounted(where)


def test_hard_link_into_a_lower_layer(coco, work):
    """The tar of the upper layer has the link only; the content is in the layer below."""
    layout, tars = images.Layout(work / "layout"), [str(work / "a.tar"), str(work / "b.tar")]
    with tarball.Writer(tars[0]) as t:
        t.dir("d").file("d/target", b"below\n", mode=0o640)
    with tarball.Writer(tars[1]) as t:
        t.add("d/link", tarball.tarfile.LNKTYPE, linkname="d/target", mode=0o640)
    layout.image(tars, "link")
    coco.pull(layout.ref("link"))
    with coco.mounted(layout.ref("link")) as where:
        tree = compare.walk(where, top=False)
        assert tree[b"d/link"]["content"] == tree[b"d/target"]["content"]
        assert tree[b"d/link"]["mode"] == 0o640


def test_warm_store_gives_nothing_without_the_key(coco, sample, encrypted, keys, work):
    """Whoever writes a manifest that names the diff_ids of an encrypted image, with plain layers, gets nothing of what
    another pull has decrypted; whoever has the content without a key does, and leaves the layers open to all."""
    coco.pull(encrypted.ref, "--decryption-key", keys.rsa[0])
    assert all(la["reused"] for la in coco.pull(encrypted.ref, "--decryption-key", keys.rsa[0])["layers"])
    coco.pull_fails(encrypted.ref, code="key")
    claimed = images.Layout(work / "claimed")
    descriptor, manifest = images.read_layout(sample.layout.path, "gzip")
    for blob in (descriptor, manifest["config"]):
        with open(sample.layout.blob_path(blob["digest"]), "rb") as f:
            claimed.put(f.read(), blob["mediaType"])
    claimed.tag(descriptor, "t")
    coco.pull_fails(claimed.ref("t"), code="not_found")
    plain = sample.layout.ref("gzip")
    assert not any(la["reused"] for la in coco.pull(plain)["layers"])
    assert all(la["reused"] for la in coco.pull(claimed.ref("t"))["layers"])
    with coco.mounted(encrypted.ref) as where:
        sample.assert_mounted(where)
