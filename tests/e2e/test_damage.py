# SPDX-License-Identifier: Apache-2.0
"""Should-fail tests: one thing is wrong with an image, the pull says which, and the store is as it was before."""
import base64
import json
import os
import shutil

import pytest

import compare
import images
import tarball
from program import hash_store, mounts_below

SNAPSHOTS = ("overlay", "erofs")

PUBOPTS = "org.opencontainers.image.enc.pubopts"
JWE = "org.opencontainers.image.enc.keys.jwe"


@pytest.fixture
def settled(coco):
    """A store that holds another image already; assert_unchanged() compares all of it."""
    layout = images.Layout(os.path.join(coco.scratch, "settled"))
    tar = os.path.join(coco.scratch, "settled.tar")
    with tarball.Writer(tar) as t:  # not one of the sample's layers: what is in the store is not fetched again
        t.file("settled", b"settled\n")
    layout.image([tar], "settled")
    coco.pull(layout.ref("settled"))
    before, shown = hash_store(coco.store), coco.images()

    def assert_unchanged():
        assert coco.staging() == []
        assert coco.images() == shown
        assert hash_store(coco.store) == before, "the failed pull left something in the store"
        assert mounts_below(coco.scratch) == []
    coco.assert_unchanged = assert_unchanged
    return coco


@pytest.fixture
def one_layer(sample, work):
    """A layout of one layer that can be damaged: (path, image)."""
    layout = images.Layout(work / "damaged")
    layout.image([sample.tars[0]], "image")
    return layout.path, layout.ref("image")


def blob(path, descriptor):
    return os.path.join(path, "blobs", *descriptor["digest"].split(":"))


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_flipped_byte_in_a_layer(settled, one_layer, where):
    """Wherever the byte is: a gzip header, the stream or its trailer. The digest is what counts, so what the
    decompressor or the tar reader say of the damage must not be the answer when the blob's digest is wrong."""
    path, image = one_layer
    layer = images.read_layout(path, "image")[1]["layers"][0]
    images.flip(blob(path, layer), {"first": 0, "middle": layer["size"] // 2, "last": layer["size"] - 1}[where])
    settled.pull_fails(image, code=("digest", "decompress", "tar", "diff_id") if where != "middle" else
                       ("digest", "decompress", "tar"))
    settled.assert_unchanged()


def test_flipped_byte_in_an_uncompressed_layer(settled, sample, work):
    """Nothing but the digest can notice a changed byte of a file's content."""
    layout = images.Layout(work / "damaged")
    layout.image([sample.tars[2]], "other")
    layout.image([sample.tars[0], sample.tars[2]], "image", "none")
    layer = images.read_layout(layout.path, "image")[1]["layers"][0]
    with open(sample.tars[0], "rb") as f:
        data = f.read()
    images.flip(blob(layout.path, layer), data.index(b"\x7fELF") + 100)
    message = settled.pull_fails(layout.ref("image"), code="digest")
    assert layer["digest"] in message or layer["digest"][7:19] in message
    settled.assert_unchanged()


def test_flipped_byte_on_the_wire(settled, sample, proxy):
    """The registry has it right, something between does not."""
    _, manifest = images.read_layout(sample.layout.path, "plain")
    target = manifest["layers"][0]["digest"]
    with open(sample.tars[0], "rb") as f:
        at = f.read().index(b"\x7fELF") + 100

    def change(path, body):
        if path.endswith(target):
            return body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        return body
    proxy.change = change
    settled.pull_fails(proxy.host + "/sample:plain", code="digest")
    # Layers that were right may stay for the next pull; no image may, and the next pull must work.
    assert len(settled.images()) == 1 and settled.staging() == []
    proxy.change = None
    settled.pull(proxy.host + "/sample:plain")
    with settled.mounted(proxy.host + "/sample:plain") as where:
        sample.assert_mounted(where)


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_flipped_byte_in_a_document(settled, one_layer, what):
    path, image = one_layer
    descriptor, manifest = images.read_layout(path, "image")
    target = blob(path, descriptor if what == "manifest" else manifest["config"])
    with open(target, "rb") as f:
        data = f.read()
    # Still JSON, and still the same meaning: only the digest can tell.
    at = data.index(b"sha256") if what == "manifest" else data.index(b"/bin/sh") + 1
    images.flip(target, at)
    with open(target, "r+b") as f:
        f.seek(at)
        f.write(b"S" if what == "manifest" else b"B")
    settled.pull_fails(image, code="digest")
    settled.assert_unchanged()


@pytest.mark.parametrize("pinned", [False, True])
def test_manifest_changed_on_the_wire(settled, sample, proxy, pinned):
    """Another manifest than the pinned one; with a tag alone, another than the answer's own digest header says."""
    digest = images.read_layout(sample.layout.path, "gzip")[0]["digest"]
    proxy.change = lambda path, body: body + b"\n" if "/manifests/" in path else body
    message = settled.pull_fails("%s/sample%s" % (proxy.host, "@" + digest if pinned else ":gzip"), code="digest")
    assert digest in message and ("Docker-Content-Digest" in message) != pinned
    settled.assert_unchanged()


@pytest.mark.parametrize("part", [0, 1, 0.5, -1])
def test_truncated_layer(settled, one_layer, part):
    path, image = one_layer
    layer = images.read_layout(path, "image")[1]["layers"][0]
    size = {0: 0, 1: 1, 0.5: layer["size"] // 2, -1: layer["size"] - 1}[part]
    os.truncate(blob(path, layer), size)
    settled.pull_fails(image, code=("size", "digest"))
    settled.assert_unchanged()


def test_layer_with_more_bytes(settled, one_layer):
    path, image = one_layer
    layer = images.read_layout(path, "image")[1]["layers"][0]
    with open(blob(path, layer), "ab") as f:
        f.write(b"\0")
    settled.pull_fails(image, code=("size", "digest"))
    settled.assert_unchanged()


def test_truncated_before_the_push(settled, sample, work):
    """Digest and size fit, but the gzip stream has no end: not complete, whatever came out of it."""
    layout = images.Layout(work / "damaged")
    layer, diff = layout.layer(sample.tars[2])
    with open(layout.blob_path(layer["digest"]), "rb") as f:
        data = f.read()
    layout.tag(layout.manifest([(layout.put(data[:-6], images.MT_LAYER["gzip"]), diff)]), "cut")
    settled.pull_fails(layout.ref("cut"), code="decompress")
    settled.assert_unchanged()


@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
def test_tar_cut_in_a_file(settled, sample, work, how):
    """The stream is whole, diff_id included, but the tar inside it ends in a file."""
    cut = work / "cut.tar"
    with open(sample.tars[2], "rb") as f:
        cut.write_bytes(f.read()[:300_000])
    layout = images.Layout(work / "damaged")
    layout.image([str(cut)], "cut", how)
    settled.pull_fails(layout.ref("cut"), code="tar")
    settled.assert_unchanged()


def test_wrong_diff_id(settled, sample, work):
    layout = images.Layout(work / "damaged")
    layers = [layout.layer(t) for t in sample.tars[2:]]
    swapped = [(layers[0][0], layers[1][1]), (layers[1][0], layers[0][1])]
    layout.tag(layout.manifest(swapped), "swapped")
    settled.pull_fails(layout.ref("swapped"), code="diff_id")
    settled.assert_unchanged()


def test_diff_ids_of_another_number(settled, sample, work):
    layout = images.Layout(work / "damaged")
    layers = [layout.layer(t) for t in sample.tars[:2]]
    for diffs in ([layers[0][1]], [d for _, d in layers] * 2, []):
        layout.tag(layout.manifest(layers, config=layout.config(diffs)), "count")
        settled.pull_fails(layout.ref("count"), code="manifest")
    settled.assert_unchanged()


@pytest.fixture
def damaged(encrypted, work):
    """A copy of the encrypted layout: (path, image)."""
    path = str(work / "damaged")
    shutil.copytree(encrypted.layout, path)
    return path, "oci:%s:gzip" % path


def options(layer):
    return json.loads(base64.b64decode(layer["annotations"][PUBOPTS]))


def set_options(layer, value):
    layer["annotations"][PUBOPTS] = base64.b64encode(images.encode(value)).decode()


def flip_hmac(layer):
    value = options(layer)
    mac = bytearray(base64.b64decode(value["hmac"]))
    mac[7] ^= 1
    set_options(layer, {**value, "hmac": base64.b64encode(bytes(mac)).decode()})


ENCRYPTION_FAULTS = {
    "hmac-flipped": flip_hmac,
    "hmac-missing": lambda la: set_options(la, {k: v for k, v in options(la).items() if k != "hmac"}),
    "hmac-short": lambda la: set_options(la, {**options(la), "hmac": "AAAA"}),
    "hmac-empty": lambda la: set_options(la, {**options(la), "hmac": ""}),
    "cipher-unknown": lambda la: set_options(la, {**options(la), "cipher": "AES_256_CTR"}),
    "options-not-base64": lambda la: la["annotations"].update({PUBOPTS: "%%%"}),
    "options-not-json": lambda la: la["annotations"].update({PUBOPTS: base64.b64encode(b"{").decode()}),
    "options-missing": lambda la: la["annotations"].pop(PUBOPTS),
    "wrap-not-base64": lambda la: la["annotations"].update({JWE: "%%%"}),
    "wrap-not-jwe": lambda la: la["annotations"].update({JWE: base64.b64encode(b"{}").decode()}),
    "wrap-missing": lambda la: la["annotations"].pop(JWE),
    "annotations-missing": lambda la: la.pop("annotations"),
}


@pytest.mark.parametrize("fault", ENCRYPTION_FAULTS)
def test_encryption_annotations(settled, damaged, keys, fault):
    path, image = damaged
    images.edit_manifest(path, "gzip", lambda m: ENCRYPTION_FAULTS[fault](m["layers"][0]))
    code = ("key", "decrypt") if fault.startswith(("wrap", "annotations")) else "decrypt"
    settled.pull_fails(image, "--decryption-key", keys.rsa[0], "--jobs", "1", code=code)
    assert len(settled.images()) == 1 and settled.staging() == []


@pytest.mark.parametrize("tag", ["plain", "gzip"])
def test_ciphertext_changed_and_all_digests_made_to_fit(settled, sample, keys, work, tag):
    """Counter mode: whoever turns a bit of the ciphertext turns that bit of the plaintext. Only the HMAC notices."""
    source = images.Layout(work / "source")
    source.image([sample.tars[2]], tag, "none" if tag == "plain" else "gzip")
    path = str(work / "enc")
    images.encrypt(source.path, tag, keys.rsa[1], path)

    def change(manifest):
        layer = manifest["layers"][0]
        with open(blob(path, layer), "rb") as f:
            data = bytearray(f.read())
        data[len(data) // 2] ^= 1
        layer["digest"] = images.digest_of(bytes(data))
        with open(blob(path, layer), "wb") as f:
            f.write(data)
    images.edit_manifest(path, tag, change)
    settled.pull_fails("oci:%s:%s" % (path, tag), "--decryption-key", keys.rsa[0], code="decrypt")
    settled.assert_unchanged()


def test_encrypted_blob_damaged(settled, damaged, keys):
    path, image = damaged
    layer = images.read_layout(path, "gzip")[1]["layers"][0]
    images.flip(blob(path, layer), layer["size"] // 3)
    settled.pull_fails(image, "--decryption-key", keys.rsa[0], "--jobs", "1", code=("digest", "decrypt"))
    assert len(settled.images()) == 1 and settled.staging() == []


def test_wrapped_key_of_another_layer(settled, damaged, keys):
    """Annotations of two layers swapped: keys that unwrap well, and belong elsewhere."""
    path, image = damaged

    def swap(manifest):
        one, two = manifest["layers"][:2]
        one["annotations"], two["annotations"] = two["annotations"], one["annotations"]
    images.edit_manifest(path, "gzip", swap)
    settled.pull_fails(image, "--decryption-key", keys.rsa[0], code="decrypt")
    assert len(settled.images()) == 1 and settled.staging() == []


def test_missing_key(settled, encrypted, keys):
    """No key, a key that does not fit, a file that is no key: three reasons, and no layer byte is kept."""
    messages = {settled.pull_fails(encrypted.ref, code="key"),
                settled.pull_fails(encrypted.ref, "--decryption-key", keys.other[0], code="key")}
    assert len(messages) == 2
    for message in messages:
        assert "sha256:" in message or "layer" in message
    result = settled.try_pull(encrypted.ref, "--decryption-key", keys.rsa[1])
    assert result.status in (2, 6), str(result)
    result = settled.try_pull(encrypted.ref, "--decryption-key", os.path.join(settled.scratch, "absent.pem"))
    assert result.status in (2, 6, 9, 10), str(result)
    assert "absent.pem" in result.json["error"]["message"]
    settled.assert_unchanged()


def test_missing_key_asks_for_no_layer(coco, proxy, encrypted):
    """Without a key there is nothing to gain from the layers, so none is fetched."""
    coco.pull_fails(proxy.host + "/sample:encrypted", code="key")
    _, manifest = images.read_layout(encrypted.layout, "gzip")
    sent = proxy.blob_bytes()
    assert not [la for la in manifest["layers"] if sent.get(la["digest"])], "layers were fetched without a key"


def test_require_encrypted(settled, sample, keys, work):
    """A plain image, or one plain layer, put in place of the encrypted one."""
    settled.pull_fails(sample.layout.ref("gzip"), "--require-encrypted", code="policy")
    images.skopeo("--encryption-key", "jwe:" + keys.rsa[1], "--encrypt-layer", "0", sample.layout.ref("gzip"),
                  "oci:%s:gzip" % (work / "mixed"))
    settled.pull_fails("oci:%s:gzip" % (work / "mixed"), "--require-encrypted", "--decryption-key", keys.rsa[0],
                       code="policy")
    settled.assert_unchanged()


HOSTILE = {
    "dot-dot": lambda t: t.file("../outside", b"x"),
    "dot-dot-deep": lambda t: t.dir("a").file("a/../../outside", b"x"),
    "link-to-outside": lambda t: t.add("h", tarball.tarfile.LNKTYPE, linkname="../../outside"),
    "whiteout-of-nothing": lambda t: t.file("a/.wh.", mode=0),
    "whiteout-of-parent": lambda t: t.file("a/.wh...", mode=0),
    "root-is-a-link": lambda t: t.symlink(".", "/tmp"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_entries(settled, work, fault):
    """Entries that point out of their layer are refused, or kept inside; in no case is anything written outside."""
    tar = str(work / "hostile.tar")
    with tarball.Writer(tar) as t:
        HOSTILE[fault](t.file("good", b"good\n"))
    layout = images.Layout(work / "hostile")
    layout.image([tar], "image")
    outside = {p for w, d, f in os.walk(work) for p in (os.path.join(w, n) for n in d + f) if "outside" in p}
    result = settled.try_pull(layout.ref("image"))
    if result.status == 0:
        with settled.mounted(layout.ref("image")) as where:
            assert b"good" in compare.walk(where, top=False)
        settled.run("rm", layout.ref("image"))
    else:
        assert result.code in ("escape", "tar", "whiteout"), str(result)
        settled.assert_unchanged()
    assert outside == {p for w, d, f in os.walk(work) for p in (os.path.join(w, n) for n in d + f) if "outside" in p}


@pytest.mark.parametrize("how", ["gzip", "none"])
@pytest.mark.parametrize("where", ["registry", "oci"])
@pytest.mark.parametrize("flipped", [False, True])
def test_bad_entry_with_much_behind_it(settled, work, docker, how, where, flipped, snapshot):
    """The tar is refused at its first entry, and the rest of the blob does not fit into the memory there is. It has to
    be read on all the same: only at its end is it clear whether the image is bad or has been tampered with."""
    tar = str(work / "bad.tar")
    with tarball.Writer(tar) as t:
        # The registry keeps a blob once, and a flipped one for all that follow.
        t.file("../outside", snapshot.encode()).file("much", images.noise(40 << 20))
    layout = images.Layout(work / "bad")
    layout.image([tar], "image", how)
    image = layout.ref("image")
    layer = images.read_layout(layout.path, "image")[1]["layers"][0]
    if where == "registry":
        name = "bad-%s-%s:x" % (how, "flipped" if flipped else "whole")
        image = docker.push(image, name, "--preserve-digests")
    if flipped:
        hexes = layer["digest"].split(":")[1]
        path = blob(layout.path, layer) if where == "oci" else os.path.join(
            docker.where, "storage/docker/registry/v2/blobs/sha256", hexes[:2], hexes, "data")
        images.flip(path, layer["size"] - 12_000)
    settled.pull_fails(image, "--memory", "16M", "--jobs", "1", timeout=30,
                       code=("digest", "decompress") if flipped else ("escape", "tar"))
    settled.assert_unchanged()


DOCUMENTS = {
    "not-json": b"<html>Forbidden</html>",
    "empty": b"",
    "list": b"[]",
    "trailing": b'{"schemaVersion":2}{}',
    "deep": b"[" * 100_000,
    "no-layers": b'{"schemaVersion":2,"mediaType":"%s"}' % images.MT_MANIFEST.encode(),
    "schema1": b'{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[],"signatures":[]}',
}


@pytest.mark.parametrize("fault", DOCUMENTS)
def test_documents_that_are_no_manifest(settled, work, fault):
    layout = images.Layout(work / "layout")
    layout.tag(layout.put(DOCUMENTS[fault], images.MT_MANIFEST), "image")
    settled.pull_fails(layout.ref("image"), code=("manifest", "media_type", "unsupported", "limit"))
    settled.assert_unchanged()


def test_too_many_layers(settled, sample, work):
    """overlayfs takes 500 lower directories; more is refused before anything is unpacked."""
    layout = images.Layout(work / "layout")
    layout.tag(layout.manifest([layout.layer(sample.tars[3])] * 501), "image")
    settled.pull_fails(layout.ref("image"), code="limit")
    settled.assert_unchanged()
