# SPDX-License-Identifier: Apache-2.0
"""The main job: what was pulled, decrypted and mounted is, byte for byte and attribute for attribute, what umoci or GNU
tar make of the same layers."""
import hashlib
import json
import os
import shutil
import subprocess

import pytest

import compare
import images

SNAPSHOTS = ("overlay", "erofs")


def pull_and_compare(coco, sample, image, *options, **limits):
    """Pulls, checks what is said about it, mounts, compares; returns the result's object."""
    result = coco.pull(image, *options, **limits)
    assert len(result["layers"]) == len(sample.tars)
    for layer, tar in zip(result["layers"], sample.tars):
        assert layer["diff_id"] == "sha256:" + compare.content(tar)
        assert os.path.isabs(layer["path"])
        if result["snapshot"] == "erofs":
            assert os.path.getsize(layer["path"]) == layer["file_bytes"]
        else:
            assert os.path.isdir(layer["path"]) and "file_bytes" not in layer
    with coco.mounted(image) as where:
        sample.assert_mounted(where)
    assert coco.staging() == []
    return result


@pytest.mark.parametrize("tag", ["gzip", "plain", "zstd"])
@pytest.mark.parametrize("transport", ["registry", "oci"])
def test_formats(coco, sample, tag, transport):
    image = "%s:%s" % (sample.repo, tag) if transport == "registry" else sample.layout.ref(tag)
    result = pull_and_compare(coco, sample, image)
    _, manifest = images.read_layout(sample.layout.path, tag)
    assert [(la["digest"], la["size"], la["media_type"]) for la in result["layers"]] == [
        (la["digest"], la["size"], la["mediaType"]) for la in manifest["layers"]]
    assert result["config_digest"] == manifest["config"]["digest"]
    assert not any(la["encrypted"] or la["reused"] for la in result["layers"])


def test_what_is_reported(coco, sample):
    """The JSON object of a pull has every field of the contract, with values that can be checked."""
    result = coco.pull(sample.name)
    descriptor, manifest = images.read_layout(sample.layout.path, "gzip")
    assert result["manifest_digest"] == descriptor["digest"]
    assert result["reference"].startswith(sample.name)
    assert result["platform"].startswith("linux/" + images.ARCH)
    stats = result["stats"]
    assert stats["bytes_fetched"] >= sum(la["size"] for la in manifest["layers"])
    assert stats["bytes_unpacked"] == sum(os.path.getsize(t) for t in sample.tars)
    assert stats["peak_rss_bytes"] > 1 << 20 and stats["wall_ms"] >= 0


def test_text_output(coco, sample):
    result = coco.run("pull", sample.name, "--plain-http", "--progress", "plain", "--stats")
    assert result.status == 0, str(result)
    assert images.read_layout(sample.layout.path, "gzip")[0]["digest"] in result.out + result.err
    # The verb may be left out.
    result = coco.run(sample.name, "--plain-http", "--progress", "none")
    assert result.status == 0, str(result)


@pytest.mark.parametrize("transport", ["registry", "oci"])
def test_encrypted_rsa(coco, sample, encrypted, keys, transport):
    image = encrypted.name if transport == "registry" else encrypted.ref
    result = pull_and_compare(coco, sample, image, "--decryption-key", keys.rsa[0], "--require-encrypted")
    assert all(la["encrypted"] and la["media_type"].endswith("+encrypted") for la in result["layers"])


def test_encrypted_ec(coco, sample, keys, work):
    images.encrypt(sample.layout.path, "gzip", keys.ec[1], str(work / "ec"))
    pull_and_compare(coco, sample, "oci:%s:gzip" % (work / "ec"), "--decryption-key", keys.ec[0])


def test_encrypted_zstd(coco, sample, keys, docker, work):
    images.encrypt(sample.layout.path, "zstd", keys.rsa[1], str(work / "enc"))
    name = docker.push("oci:%s:zstd" % (work / "enc"), "sample:zstdenc", "--preserve-digests")
    result = pull_and_compare(coco, sample, name, "--decryption-key", keys.rsa[0])
    assert {la["media_type"] for la in result["layers"]} == {images.MT_LAYER["zstd"] + "+encrypted"}


def test_encrypted_uncompressed(coco, sample, keys, work):
    images.encrypt(sample.layout.path, "plain", keys.rsa[1], str(work / "enc"))
    result = pull_and_compare(coco, sample, "oci:%s:plain" % (work / "enc"), "--decryption-key", keys.rsa[0])
    assert {la["media_type"] for la in result["layers"]} == {images.MT_LAYER["none"] + "+encrypted"}


def test_recompressed_by_skopeo(coco, sample, docker):
    """zstd as skopeo makes it, not as our own builder does."""
    name = docker.push(sample.layout.ref("plain"), "sample:skopeo-zstd", "--dest-compress-format", "zstd",
                       "--dest-compress")
    pull_and_compare(coco, sample, name)


@pytest.mark.parametrize("how", ["", "pass", "file", "fd"])
def test_key_with_a_password(coco, sample, keys, work, how):
    images.encrypt(sample.layout.path, "gzip", keys.locked[1], str(work / "enc"))
    secret = work / "password"
    secret.write_text(keys.password)
    image = "oci:%s:gzip" % (work / "enc")
    if how == "fd":
        # The launcher closes what it does not know, so a shell opens the descriptor and turns into the program.
        shell = work / "with-fd"
        shell.write_text("#!/bin/sh\nexec '%s' \"$@\" 7<'%s'\n" % (coco.binary, secret))
        shell.chmod(0o755)
        coco.binary = str(shell)
    source = {"": keys.password, "pass": "pass=" + keys.password, "file": "file=%s" % secret, "fd": "fd=7"}[how]
    pull_and_compare(coco, sample, image, "--decryption-key", "%s:%s" % (keys.locked[0], source))


def test_wrong_password(coco, sample, keys, work):
    images.encrypt(sample.layout.path, "gzip", keys.locked[1], str(work / "enc"))
    message = coco.pull_fails("oci:%s:gzip" % (work / "enc"), "--decryption-key", keys.locked[0] + ":pass=battery staple",
                              code=("key", "usage"))
    assert "battery staple" not in message
    assert coco.layers() == [] and coco.staging() == []


def test_second_key_fits(coco, sample, encrypted, keys):
    pull_and_compare(coco, sample, encrypted.ref, "--decryption-key", keys.other[0], "--decryption-key", keys.rsa[0])


def test_two_recipients(coco, new_coco, sample, keys, work):
    """A layer key that is wrapped for two people can be unwrapped by either."""
    images.skopeo("--encryption-key", "jwe:" + keys.rsa[1], "--encryption-key", "jwe:" + keys.ec[1],
                  sample.layout.ref("gzip"), "oci:%s:gzip" % (work / "enc"))
    for store, key in (("one", keys.rsa[0]), ("two", keys.ec[0])):
        pull_and_compare(new_coco(store), sample, "oci:%s:gzip" % (work / "enc"), "--decryption-key", key)


def test_some_layers_encrypted(coco, sample, keys, work):
    images.skopeo("--encryption-key", "jwe:" + keys.rsa[1], "--encrypt-layer", "1", "--encrypt-layer", "-1",
                  sample.layout.ref("gzip"), "oci:%s:gzip" % (work / "enc"))
    image = "oci:%s:gzip" % (work / "enc")
    result = pull_and_compare(coco, sample, image, "--decryption-key", keys.rsa[0])
    assert [la["encrypted"] for la in result["layers"]] == [False, True, False, True]


def test_one_layer_as_tar_sees_it(coco, sample, work):
    """A single layer needs no overlay; the whole root directory has to be right as well."""
    layout = images.Layout(work / "layout")
    layout.image([sample.tars[1]], "one")
    layer, = coco.pull(layout.ref("one"))["layers"]
    want = compare.walk(compare.tar_unpack(sample.tars[1], str(work / "tar")))
    with coco.mounted(layout.ref("one")) as where:
        compare.assert_same(want, compare.walk(where))
        # EROFS counts no blocks of a file.
        taken = layer.get("file_bytes") or os.stat(os.path.join(where, "s/sparse")).st_blocks * 512
        assert taken < 2 << 20, "the hole was filled"


@pytest.mark.overlay
def test_layer_directories_are_layers(coco, sample):
    """The paths of the result can be given to overlayfs by an embedder: the lowest one, alone, is its tar."""
    result = coco.pull(sample.name)
    path = result["layers"][0]["path"]
    names = {os.path.relpath(os.path.join(w, n), path) for w, d, f in os.walk(path) for n in d + f}
    with_tar = {n.decode("utf-8", "surrogateescape") for n in sample.tree}
    assert len(names) > 1000 and names - with_tar == set()


@pytest.mark.parametrize("io", ["uring", "sync", "auto"])
def test_io_engines_agree(coco, sample, io):
    result = pull_and_compare(coco, sample, sample.name, "--io", io, "--stats")
    assert result["stats"]["io"] in (("uring", "sync") if io == "auto" else (io,))


@pytest.mark.parametrize("options", [["--jobs", "1"], ["--jobs", "8"], ["--memory", "16M"], ["--durable"]],
                         ids=lambda o: "-".join(o).strip("-"))
def test_options_that_change_nothing(coco, sample, options):
    pull_and_compare(coco, sample, sample.name, *options)


def test_docker_schema2(coco, sample, docker):
    name = docker.push(sample.layout.ref("gzip"), "sample:schema2", "--format", "v2s2")
    result = pull_and_compare(coco, sample, name)
    assert result["layers"][0]["media_type"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"


def test_sha512(coco, sample, work):
    """Digests of another algorithm: of the layers and, as a pinned one, of the manifest."""
    layout = images.Layout(work / "layout")
    layers = [layout.layer(t, "gzip", "sha512") for t in sample.tars]
    descriptor = layout.tag(layout.manifest(layers), "sha512")
    result = pull_and_compare(coco, sample, layout.ref("sha512"))
    assert result["layers"][0]["digest"].startswith("sha512:")
    with open(layout.blob_path(descriptor["digest"]), "rb") as f:
        body = f.read()
    assert hashlib.sha256(body).hexdigest() in result["manifest_digest"]


def test_pinned_digest(coco, sample):
    digest = images.read_layout(sample.layout.path, "gzip")[0]["digest"]
    for name in ("%s@%s" % (sample.repo, digest), "%s@%s" % (sample.name, digest)):
        assert pull_and_compare(coco, sample, name)["manifest_digest"] == digest
    wrong = "sha256:" + "0" * 64
    coco.pull_fails("%s@%s" % (sample.repo, wrong), code="not_found")


def test_the_same_layer_twice(coco, sample, work):
    layout = images.Layout(work / "layout")
    layers = [layout.layer(t) for t in (sample.tars[0], sample.tars[2], sample.tars[0], sample.tars[2])]
    layout.tag(layout.manifest(layers), "twice")
    coco.pull(layout.ref("twice"))
    want = compare.walk(compare.umoci_unpack(layout.path, "twice", str(work / "umoci")), top=False)
    with coco.mounted(layout.ref("twice")) as where:
        compare.assert_same(want, compare.walk(where, top=False))


def test_130_layers(coco, work):
    """More layers than fit into one page of mount options as absolute paths."""
    import tarball
    layout, tars = images.Layout(work / "layout"), []
    for i in range(130):
        tars.append(str(work / ("%d.tar" % i)))
        with tarball.Writer(tars[-1]) as t:
            t.dir("d").file("d/own-%03d" % i, b"%d\n" % i).file("d/common", b"layer %d\n" % i)
            if i % 10 == 9:
                t.whiteout("d/own-%03d" % (i - 5))
    layout.image(tars, "many")
    coco.pull(layout.ref("many"))
    want = compare.walk(compare.umoci_unpack(layout.path, "many", str(work / "umoci")), top=False)
    assert len(want) == 1 + 130 - 13 + 1
    with coco.mounted(layout.ref("many")) as where:
        compare.assert_same(want, compare.walk(where, top=False))


def test_progress_json(coco, sample):
    """One JSON object a line on stderr, and the last word on every layer is that it is verified."""
    result = coco.run("pull", sample.name, "--plain-http", "--progress", "json", "--format", "json")
    assert result.status == 0, str(result)
    events = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    last = {e["layer"]: e for e in events if "layer" in e}
    assert sorted(last) == list(range(len(sample.tars))), result.err
    for i, event in last.items():
        assert event["state"] == "verified"
        assert event["digest"] == result.json["layers"][i]["digest"]
        assert event["fetched_bytes"] == event["total_bytes"] == result.json["layers"][i]["size"]
    again = coco.run("pull", sample.name, "--plain-http", "--progress", "json", "--format", "json")
    states = {e["state"] for e in map(json.loads, again.err.splitlines()) if "layer" in e}
    assert states == {"reused"}


def test_umask_of_the_caller(coco, sample):
    pull_and_compare(coco, sample, sample.name, umask=0o777)


def test_layout_without_a_name(coco, sample, work):
    """oci:DIR means the only image there is; with several it has to be said which."""
    layout = images.Layout(work / "layout")
    layout.image([sample.tars[2]], "only")
    coco.pull("oci:" + layout.path)
    layout.image([sample.tars[3]], "second")
    coco.pull_fails("oci:" + layout.path, code=("usage", "not_found", "manifest", "unsupported"))
    coco.pull_fails(layout.ref("third"), code="not_found")


def test_layout_away_after_the_pull(coco, sample, work):
    """Nothing of the source is needed once an image is in the store."""
    shutil.copytree(sample.layout.path, work / "layout")
    image = "oci:%s:gzip" % (work / "layout")
    coco.pull(image)
    shutil.rmtree(work / "layout")
    with coco.mounted(image) as where:
        sample.assert_mounted(where)


@pytest.mark.overlay
def test_embedding_example(coco, sample, binary):
    """The example program of the library: what it prints is what overlayfs wants for lowerdir."""
    embed = os.path.join(os.path.dirname(binary), "../../tests/example/embed")
    if not os.path.exists(embed):
        pytest.skip("the example is not built")
    done = subprocess.run([embed, coco.store, sample.layout.ref("gzip")], capture_output=True, text=True, check=True)
    lowers = done.stdout.splitlines()
    assert len(lowers) == len(sample.tars)
    where = os.path.join(coco.scratch, "by-hand")
    os.mkdir(where)
    subprocess.run(["mount", "-t", "overlay", "-o", "ro,lowerdir=" + ":".join(lowers), "overlay", where], check=True)
    sample.assert_mounted(where)
    assert coco.images() == ["oci:%s:gzip" % sample.layout.path]
