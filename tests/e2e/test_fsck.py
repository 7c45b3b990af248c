# SPDX-License-Identifier: Apache-2.0
"""fsck: a sound store is found sound, and whatever is changed in one is found and named, one thing at a time."""
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import stat
import time

import pytest

import images
import tarball
from program import hash_store


def noise(size, seed):
    return images.noise(size, seed)


@pytest.fixture(scope="session")
def pulled(binary, scratch, sample):
    """Stores by snapshot, with two images that share a layer; never changed."""
    from program import Coco
    where = scratch / "fsck"
    where.mkdir()
    layout = images.Layout(where / "layout")
    base = layout.layer(sample.tars[0])
    special = os.path.join(where, "special.tar")
    with tarball.Writer(special) as t:
        t.dir("d").file("d/file", noise(300_000, 7)).file("d/small", b"small\n").file("d/empty", b"")
        t.dir("d/sub", mode=0o750, uid=5, gid=6).file("d/sub/owned", b"owned", uid=5, gid=6, mode=0o640)
        t.symlink("d/link", "file").file("d/name\n\x1b", b"odd name").dir("d/deep")
        t.dir("d/deep/er").file("d/deep/er/f", b"f")
    layers = [base, layout.layer(sample.tars[1]), layout.layer(sample.tars[2]), layout.layer(sample.tars[3]),
              layout.layer(special)]
    layout.tag(layout.manifest(layers), "one")
    layout.tag(layout.manifest([base]), "two")
    stores = {}
    for kind, options in (("overlay", []), ("erofs", ["--snapshot", "erofs"]),
                          ("verity", ["--snapshot", "erofs", "--verity"])):
        coco = Coco(binary, where / kind, where)
        for tag in ("one", "two"):
            coco.pull(layout.ref(tag), *options)
        stores[kind] = coco
    stores["layout"] = layout
    return stores


@pytest.fixture
def store(pulled, new_coco, work):
    """A copy of one of them, to be damaged: store(snapshot)."""
    def copy(kind="overlay"):
        coco = new_coco(kind, [])
        os.system("cp -a --reflink=auto %s %s" % (pulled[kind].store, coco.store))
        coco.layout = pulled["layout"]
        return coco
    return copy


def fsck(coco, *args, status=None):
    result = coco.run("fsck", *args, "--format", "json", "--progress", "none")
    report = result.json
    assert result.status == (0 if report["sound"] else 5), str(result)
    assert report["sound"] == (not report["problems"]) == ("error" not in report)
    if status is not None:
        assert result.status == status, str(result)
    return report


def found(coco, *args):
    """What is wrong: {(layer or "", path or ""): what}."""
    report = fsck(coco, *args, status=5)
    for p in report["problems"]:
        assert p["what"] and p["advice"] and "\n" not in p["what"] + p["advice"]
        assert p["layer"] or p["path"]
    assert report["error"]["code"] == "digest" and report["problem_total"] == len(report["problems"])
    return {(p["layer"] or "", p["path"]): p["what"] for p in report["problems"]}


def layer_with(coco, name):
    """(key, path of the file) of the directory layer that has a file of the name."""
    hits = glob.glob("%s/layers/*/fs/%s" % (coco.store, name))
    assert len(hits) == 1, (name, hits)
    return hits[0].split("/layers/")[1].split("/")[0], hits[0]


def everything(where):
    """All paths below a directory, none by way of a symlink: those of a layer lead anywhere on this machine."""
    assert os.path.realpath(where) == str(where)
    return [os.path.join(d, n) for d, dirs, files in os.walk(where) for n in sorted(dirs + files)]


def regular(where, size=1):
    return [p for p in everything(where) if stat.S_ISREG(os.lstat(p).st_mode) and os.lstat(p).st_size >= size]


# ---- sound ----

@pytest.mark.parametrize("kind", ["overlay", "erofs", "verity"])
def test_sound(pulled, kind):
    coco = pulled[kind]
    before = hash_store(coco.store)
    report = fsck(coco, status=0)
    assert report["images"] == 2 and len(report["layers"]) == 5 and report["problem_total"] == 0
    assert {la["check"] for la in report["layers"]} == {"verity" if kind == "verity" else "sums"}
    assert {la["snapshot"] for la in report["layers"]} == {"overlay" if kind == "overlay" else "erofs"}
    assert report["checked_bytes"] == sum(la["checked_bytes"] for la in report["layers"]) > 10_000_000
    assert sorted(len(la["images"]) for la in report["layers"]) == [1, 1, 1, 1, 2]
    assert hash_store(coco.store) == before, "fsck changed something"
    text = coco.run("fsck")
    assert text.status == 0 and re.fullmatch(r"sound: 2 images, 5 layers, [0-9.]+ MiB checked\n", text.out), str(text)


@pytest.mark.parametrize("kind", ["overlay", "erofs", "verity"])
def test_by_image(store, kind):
    """Damage in a layer that an image has not is not its business."""
    coco = store(kind)
    one, two = coco.layout.ref("one"), coco.layout.ref("two")
    assert len(fsck(coco, two, status=0)["layers"]) == 1
    digest = next(i for i in coco.run("list", "--format", "json").json if len(i["layers"]) == 1)["manifest_digest"]
    assert len(fsck(coco, digest, status=0)["layers"]) == 1
    assert len(fsck(coco, one, two, status=0)["layers"]) == 5
    for report in (fsck(coco, one), fsck(coco)):
        big = max((la for la in report["layers"] if len(la["images"]) == 1 or report["images"] == 1),
                  key=lambda la: la["checked_bytes"])
    content = "%s/layers/%s" % (coco.store, big["name"])
    if kind == "overlay":
        where = regular(content + "/fs", 1000)[0]
    else:
        where = content + "/layer.erofs"
    images.flip(where, 900)
    fsck(coco, two, status=0)
    report = fsck(coco, one, status=5)
    assert {p["layer"] for p in report["problems"]} == {big["name"]}
    assert coco.run("fsck", "oci:/nowhere:x").status == 10


def test_empty_store(new_coco):
    coco = new_coco("empty")
    report = fsck(coco, status=0)
    assert report["images"] == 0 and report["layers"] == []
    assert coco.run("fsck", "nothing").status == 10


# ---- a directory layer ----

def flip(path):
    images.flip(path, os.path.getsize(path) // 2)


def keep_time(path, change):
    st = os.lstat(path)
    change(path)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def in_parent(path, change):
    """Without a trace in the directory's time."""
    parent = os.path.dirname(path)
    st = os.stat(parent)
    change(path)
    os.utime(parent, ns=(st.st_atime_ns, st.st_mtime_ns))


def relink(path):
    os.unlink(path)
    os.symlink("elsewhere", path)


def swap_kind(path):
    os.unlink(path)
    os.mkdir(path)


@pytest.mark.parametrize("name, change, what", [
    ("d/file", lambda p: keep_time(p, flip), r"^other data$"),
    ("d/small", lambda p: keep_time(p, flip), r"^other data$"),
    ("d/file", lambda p: keep_time(p, lambda q: os.truncate(q, 299_999)), r"^299999 bytes and not 300000$"),
    ("d/empty", lambda p: keep_time(p, lambda q: os.truncate(q, 1)), r"^1 bytes and not 0$"),
    ("d/small", lambda p: os.chmod(p, 0o4755), r"^mode 4755 and not 0644$"),
    ("d/sub/owned", lambda p: os.chown(p, 7, 6), r"^owner 7:6 and not 5:6$"),
    ("d/small", lambda p: os.utime(p, (1, 1)), r"^another time$"),
    ("d/small", lambda p: os.setxattr(p, "security.capability", bytes.fromhex("0100000200240000" + "00" * 12)),
     r"^extended attributes that it had not$"),
    ("d/sub", lambda p: os.chmod(p, 0o755), r"^mode 0755 and not 0750$"),
    ("d/sub", lambda p: os.setxattr(p, "trusted.overlay.opaque", b"y"), r"^extended attributes that it had not$"),
    ("d/link", lambda p: in_parent(p, lambda q: keep_time(q, relink)), r"^another target$"),
    ("d/small", lambda p: in_parent(p, os.unlink), r"^missing$"),
    ("d/deep", lambda p: in_parent(p, shutil.rmtree), r"^missing$"),
    ("d/small", lambda p: in_parent(p, swap_kind), r"^a directory and not a file$"),
    ("d/name\n\x1b", lambda p: keep_time(p, flip), r"^other data$"),
    ("", lambda p: os.chown(p, 1, 1), r"^owner 1:1 and not 0:0$"),
])
def test_damaged_file(store, name, change, what):
    coco = store()
    key, _ = layer_with(coco, "d/file")
    change(os.path.join(coco.store, "layers", key, "fs", name))
    hits = found(coco)
    assert list(hits) == [(key, name)], hits
    assert re.search(what, hits[key, name]), hits


def test_one_too_many(store):
    coco = store()
    key, path = layer_with(coco, "d/sub/owned")
    in_parent(os.path.dirname(path) + "/new", os.mkdir)
    with open(os.path.dirname(path) + "/new/inside", "w"):
        pass
    assert found(coco) == {(key, "d/sub"): "another time", (key, "d/sub/new"): "not written by the pull"} or \
        found(coco) == {(key, "d/sub/new"): "not written by the pull"}


def test_devices_and_whiteouts(store):
    coco = store()
    paths = everything(coco.store + "/layers")
    whiteout = next(p for p in paths if stat.S_ISCHR(os.lstat(p).st_mode) and os.lstat(p).st_rdev == 0)
    fifo = next(p for p in paths if stat.S_ISFIFO(os.lstat(p).st_mode))
    in_parent(whiteout, os.unlink)
    in_parent(fifo, os.unlink)
    in_parent(fifo, lambda p: os.mknod(p, 0o020644, os.makedev(1, 3)))
    hits = found(coco)
    what = {os.path.join(coco.store, "layers", k, "fs", p): w for (k, p), w in hits.items()}
    assert what == {whiteout: "missing", fifo: "a character device and not a fifo"}


def test_many_problems(store):
    """They are counted, and as many listed as somebody may want to read, always the same ones."""
    coco = store()
    for path in max((regular("%s/layers/%s/fs" % (coco.store, k)) for k in coco.layers()), key=len):
        os.utime(path, (1, 1))
    first = fsck(coco, "--jobs", "1", status=5)
    assert len(first["problems"]) == 128 < first["problem_total"]
    assert all(p["path"] < q["path"] for p, q in zip(first["problems"], first["problems"][1:]))
    assert fsck(coco, "--jobs", "7")["problems"] == first["problems"]
    text = coco.run("fsck", "--progress", "none")
    assert "and %d more" % (first["problem_total"] - 128) in text.out and text.status == 5


# ---- images ----

def image_of(coco):
    """Key and file of the image with the special layer."""
    for key in coco.layers():
        path = "%s/layers/%s/layer.erofs" % (coco.store, key)
        with open(path, "rb") as f:
            if noise(300_000, 7)[:4096] in f.read():
                return key, path
    raise AssertionError("no layer has the file")


def data_offset(path):
    with open(path, "rb") as f:
        return f.read().index(noise(300_000, 7)[:4096])


@pytest.mark.parametrize("kind", ["erofs", "verity"])
def test_damaged_data_block(store, kind):
    coco = store(kind)
    key, path = image_of(coco)
    at = data_offset(path) + 5000
    images.flip(path, at)
    hits = found(coco)
    assert (key, "d/file") in hits and (key, None) in hits and {k for k, _ in hits} == {key}
    assert re.search("data (is|are) in damaged blocks", hits[key, "d/file"])
    if kind == "verity":
        assert hits == {(key, "d/file"): "its data is in damaged blocks",
                        (key, None): "block %d does not match its hash" % (at // 4096)}


@pytest.mark.parametrize("kind", ["erofs", "verity"])
def test_damaged_metadata_block(store, kind):
    coco = store(kind)
    key, path = image_of(coco)
    with open(path, "rb") as f:
        at = f.read().index(b"owned")
    images.flip(path, at)
    hits = found(coco)
    assert {k for k, _ in hits} == {key} and (key, None) in hits
    assert any(p and p.startswith("d") for _, p in hits), hits


@pytest.mark.parametrize("kind", ["erofs", "verity"])
def test_damaged_superblock(store, kind):
    coco = store(kind)
    key, path = image_of(coco)
    images.flip(path, 1024)
    hits = found(coco)
    assert list(hits) == [(key, None)], hits
    assert re.search(r"\bblocks? 0\b", hits[key, None])


def test_damaged_hash_tree(store):
    coco = store("verity")
    key, path = image_of(coco)
    with open("%s/layers/%s/layer.json" % (coco.store, key)) as f:
        facts = json.load(f)
    end = os.path.getsize(path)
    assert facts["verity"]["hash_offset"] < end
    for at in (facts["verity"]["hash_offset"], facts["verity"]["hash_offset"] + 4096, end - 4096):
        images.flip(path, at)
        hits = found(coco)
        assert {k for k, _ in hits} == {key} and "hash tree" in hits[key, None], hits
        images.flip(path, at)
    fsck(coco, status=0)


@pytest.mark.parametrize("kind", ["erofs", "verity"])
def test_cut_image(store, kind):
    coco = store(kind)
    key, path = image_of(coco)
    os.truncate(path, os.path.getsize(path) - 4096)
    assert found(coco) == {(key, None): "its image has not the size that it was written with"}
    assert "pull" in fsck(coco)["problems"][0]["advice"]


def test_image_without_sums(store):
    """Of an image that nothing is recorded of it is known whether it can be read."""
    coco = store("erofs")
    key, path = image_of(coco)
    forget_contents(coco, key)
    report = fsck(coco, status=0)
    assert [la["check"] for la in report["layers"] if la["name"] == key] == ["structure"]
    with open(path, "rb") as f:
        at = f.read().index(b"owned") - 64
    images.flip(path, at)  # the format of its inode
    hits = found(coco)
    assert list(hits) == [(key, "d/sub/owned")], hits


# ---- records ----

def forget_contents(coco, key):
    facts_path = "%s/layers/%s/layer.json" % (coco.store, key)
    with open(facts_path) as f:
        facts = json.load(f)
    del facts["contents"]
    with open(facts_path, "w") as f:
        json.dump(facts, f)
    os.unlink("%s/layers/%s/contents" % (coco.store, key))


def test_layer_of_an_older_version(store):
    coco = store()
    key, path = layer_with(coco, "d/small")
    forget_contents(coco, key)
    flip(path)
    report = fsck(coco, status=0)
    assert [la["check"] for la in report["layers"] if la["name"] == key] == ["none"]
    assert report["unchecked_layers"] == 1
    text = coco.run("fsck", "--progress", "none")
    assert text.status == 0 and "nothing is recorded" in text.out


@pytest.mark.parametrize("kind", ["overlay", "erofs"])
def test_list_itself(store, kind):
    coco = store(kind)
    key = layer_with(coco, "d/small")[0] if kind == "overlay" else image_of(coco)[0]
    path = "%s/layers/%s/contents" % (coco.store, key)
    for at in (0, os.path.getsize(path) // 2, os.path.getsize(path) - 1):
        images.flip(path, at)
        hits = found(coco)
        assert list(hits) == [(key, None)] and "damaged" in hits[key, None], hits
        images.flip(path, at)
    fsck(coco, status=0)
    os.truncate(path, os.path.getsize(path) - 1)
    assert list(found(coco)) == [(key, None)]
    os.unlink(path)
    assert list(found(coco)) == [(key, None)]


def test_root_hash_of_the_record(store):
    """An image that was changed along with its layer.json is not the one that was pulled."""
    coco = store("verity")
    path, record = record_of(coco, 1)
    (layer,) = record["layers"]
    old = layer["verity"]["root_hash"]
    layer["verity"]["root_hash"] = "00" * 32
    with open(path, "w") as f:
        json.dump(record, f)
    hits = found(coco)
    assert list(hits) == [(layer["key"], None)] and "record" in hits[layer["key"], None] and old != "00" * 32
    fsck(coco, coco.layout.ref("one"), status=0)


def test_layer_gone(store):
    coco = store()
    key = max(fsck(coco)["layers"], key=lambda la: len(la["images"]))["name"]
    shutil.rmtree("%s/layers/%s" % (coco.store, key))
    report = fsck(coco, status=5)
    assert [(p["layer"], p["what"], len(p["images"])) for p in report["problems"]] == [
        (key, "the layer is missing", 2)]
    coco.pull(coco.layout.ref("one"))
    assert fsck(coco)["sound"]


def test_layer_without_content(store):
    coco = store()
    key, _ = layer_with(coco, "d/small")
    shutil.rmtree("%s/layers/%s/fs" % (coco.store, key))
    assert found(coco) == {(key, None): "its content is missing"}
    coco.pull(coco.layout.ref("one"))
    fsck(coco, status=0)


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b'{"diff_id": 1}'])
def test_layer_facts(store, text):
    coco = store()
    key, _ = layer_with(coco, "d/small")
    with open("%s/layers/%s/layer.json" % (coco.store, key), "wb") as f:
        f.write(text)
    assert found(coco) == {(key, None): "its layer.json is missing or makes no sense"}
    coco.pull(coco.layout.ref("one"))
    fsck(coco, status=0)


def record_of(coco, layer_count):
    for path in glob.glob(coco.store + "/images/*.json"):
        with open(path) as f:
            record = json.load(f)
        if len(record["layers"]) == layer_count:
            return path, record
    raise AssertionError("no such record")


@pytest.mark.parametrize("change, what", [
    (lambda r: r.update(manifest=r["manifest"].replace("sha256:", "sha256:0", 1)), "manifest"),
    (lambda r: r.update(config=r["config"] + " "), "configuration"),
    (lambda r: r["layers"][0].pop("key"), "layers"),
    (lambda r: r.pop("platform"), "member"),
    (lambda r: r["layers"][0].update(key=r["layers"][0]["key"] + ".erofs"), "layers"),
    (lambda r: r.update(reference="example.org/other:1"), "another image"),
])
def test_record(store, change, what):
    coco = store()
    path, record = record_of(coco, 5)
    change(record)
    with open(path, "w") as f:
        json.dump(record, f)
    name = "images/" + os.path.basename(path)
    hits = found(coco)
    assert list(hits) == [("", name)] and what in hits["", name], hits
    assert list(found(coco, coco.layout.ref("one"))) == [("", name)]
    fsck(coco, coco.layout.ref("two"), status=0)
    coco.pull(coco.layout.ref("one"))
    if what != "another image":
        fsck(coco, status=0)


def test_record_that_is_no_json(store):
    coco = store()
    path, _ = record_of(coco, 5)
    os.truncate(path, 100)
    assert found(coco) == {("", "images/" + os.path.basename(path)): "the record is no JSON"}
    assert coco.run("prune").status == 0
    fsck(coco, status=0)


def test_records_of_another_boot(store):
    """Nobody trusts them, and nobody is to blame."""
    coco = store()
    for path in glob.glob(coco.store + "/images/*.json") + glob.glob(coco.store + "/layers/*/layer.json"):
        with open(path) as f:
            record = json.load(f)
        record["boot_id"] = "00000000-0000-0000-0000-000000000000"
        with open(path, "w") as f:
            json.dump(record, f)
    result = coco.run("fsck", "--log-level", "info", "--progress", "none")
    assert result.status == 0 and result.err.count("leftover: images/") == 2, str(result)
    assert result.err.count("leftover: layers/") == 5


def test_mount_record(store):
    coco = store()
    with coco.mounted(coco.layout.ref("two")):
        fsck(coco, status=0)
        (path,) = glob.glob(coco.store + "/mounts/*/mount.json")
        with open(path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write("{")
        name = path[len(coco.store) + 1:]
        assert found(coco) == {("", name): "the mount's record makes no sense"}
        with open(path, "w") as f:
            f.write(re.sub(r'"sha256-[0-9a-f]+', '"sha256-' + "0" * 64, text))
        assert list(found(coco)) == [("", name)]
        with open(path, "w") as f:
            f.write(text)


# ---- how to mend it ----

def test_advice(store):
    """What it says to do mends it."""
    coco = store()
    key = max(fsck(coco)["layers"], key=lambda la: len(la["images"]))["name"]
    flip(regular("%s/layers/%s/fs" % (coco.store, key))[0])
    (problem,) = fsck(coco, status=5)["problems"]
    one, two = sorted([coco.layout.ref("one"), coco.layout.ref("two")])
    assert [i.rpartition("/")[2] for i in problem["images"]] == [i.rpartition("/")[2] for i in (one, two)]
    assert "rm" in problem["advice"] and all(i in problem["advice"] for i in problem["images"])
    for image in (one, two):
        assert coco.run("rm", image).status == 0
    for image in (one, two):
        coco.pull(image)
    fsck(coco, status=0)


def test_layer_that_nothing_uses(store):
    coco = store()
    key, path = layer_with(coco, "d/small")
    os.unlink(record_of(coco, 5)[0])
    flip(path)
    (problem,) = fsck(coco, status=5)["problems"]
    assert problem["layer"] == key and problem["images"] == [] and "prune" in problem["advice"]
    assert coco.run("prune").status == 0
    fsck(coco, status=0)


# ---- how it goes ----

@pytest.mark.parametrize("kind", ["overlay", "erofs", "verity"])
def test_parallel_is_serial(store, kind):
    coco = store(kind)
    paths = regular(coco.store + "/layers")
    if kind != "overlay":
        paths = [p for p in paths if p.endswith("/layer.erofs")]
    for n, path in enumerate(p for p in paths if "/fs/" in p or kind != "overlay"):
        if kind != "overlay":
            images.flip(path, 5000 * (n + 1) % os.path.getsize(path))
        elif n % 30 == 0:
            os.utime(path, (n, n))
    reports = [fsck(coco, "--jobs", jobs, status=5) for jobs in ("1", "2", "8")]
    for report in reports:
        report.pop("wall_ms")
    assert reports[0] == reports[1] == reports[2]


def test_progress(pulled):
    result = pulled["overlay"].run("fsck", "--progress", "json", "--format", "json", "--jobs", "2")
    events = [json.loads(line) for line in result.err.splitlines()]
    assert events[-1] == {"event": "done", "layers": 5, "problems": 0, "checked_bytes": result.json["checked_bytes"],
                          "wall_ms": result.json["wall_ms"]}
    ends = {}
    for e in events[:-1]:
        assert e["event"] == "layer" and e["layer_count"] == 5
        assert e["state"] in ("checking", "sound") and ends.get(e["layer"]) != "sound"
        ends[e["layer"]] = e["state"]
    assert set(ends.values()) == {"sound"} and len(ends) == 5
    plain = pulled["overlay"].run("fsck", "--progress", "plain")
    assert len([li for li in plain.err.splitlines() if re.match(r"coco-pull: layer \d/5 .*: sound, ", li)]) == 5


def test_problems_as_text(store):
    coco = store()
    key, path = layer_with(coco, "d/small")
    flip(path)
    result = coco.run("fsck", "--progress", "none")
    assert result.status == 5
    lines = result.out.splitlines()
    assert lines[0].startswith("layers/%s (" % key) and lines[1].startswith("  d/small: ")
    assert lines[2].startswith("  -> ") and lines[3].startswith("damaged: 2 images, 5 layers")
    assert result.err.startswith("coco-pull: error: ") and "d/small" in result.err


def test_interrupt(store):
    """SIGINT ends it soon, with 130 and without a report."""
    coco = store()
    # It cannot get far: each layer is looked up with the store locked.
    with open(coco.store + "/lock", "r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = coco.start("fsck", "--format", "json", "--progress", "none")
        time.sleep(0.5)
        assert run.running()
        run.kill(signal.SIGINT)
        time.sleep(0.3)
        fcntl.flock(lock, fcntl.LOCK_UN)
        result = run.wait(20)
    assert result.status == 130 and result.code == "cancelled", str(result)


def test_while_others_pull(store, sample):
    """Images come and go while the store is checked."""
    coco = store()
    runs = [coco.start("fsck", "--format", "json", "--progress", "none") for _ in range(3)]
    coco.pull(sample.layout.ref("plain"))
    assert coco.run("rm", sample.layout.ref("plain")).status == 0
    runs += [coco.start("fsck", "--format", "json", "--progress", "none")]
    for result in [r.wait() for r in runs]:
        assert result.status == 0, str(result)


def test_after_a_reboot(new_coco, pulled, work):
    """A durable store is checked in any boot."""
    coco = new_coco("durable", [])
    coco.pull(pulled["layout"].ref("two"), "--durable")
    for path in glob.glob(coco.store + "/images/*.json") + glob.glob(coco.store + "/layers/*/layer.json"):
        with open(path) as f:
            record = json.load(f)
        record["boot_id"] = "00000000-0000-0000-0000-000000000000"
        with open(path, "w") as f:
            json.dump(record, f)
    report = fsck(coco, status=0)
    assert report["images"] == 1 and report["layers"][0]["check"] == "sums"
