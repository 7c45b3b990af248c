# SPDX-License-Identifier: Apache-2.0
"""Makes images: an OCI layout writer with every field in the test's hand, trees of real files, and skopeo."""
import gzip
import hashlib
import json
import os
import platform
import random
import shutil
import subprocess

import tarball

OCI = "application/vnd.oci.image."
MT_INDEX = OCI + "index.v1+json"
MT_MANIFEST = OCI + "manifest.v1+json"
MT_CONFIG = OCI + "config.v1+json"
MT_LAYER = {"none": OCI + "layer.v1.tar", "gzip": OCI + "layer.v1.tar+gzip", "zstd": OCI + "layer.v1.tar+zstd"}
REF_NAME = "org.opencontainers.image.ref.name"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def noise(size, seed=0):
    """Bytes that do not compress, the same on every run."""
    return random.Random(seed).randbytes(size)


def digest_of(data, algorithm="sha256"):
    return algorithm + ":" + hashlib.new(algorithm, data).hexdigest()


def encode(document):
    return json.dumps(document, separators=(",", ":")).encode()


def compress(path, how):
    """Path of the compressed copy of a file."""
    if how == "none":
        return path
    out = "%s.%s" % (path, how)
    if how == "zstd":
        subprocess.run(["zstd", "-q", "-f", "-3", path, "-o", out], check=True)
    else:
        with open(path, "rb") as f, gzip.GzipFile(out, "wb", 1, mtime=0) as g:
            shutil.copyfileobj(f, g, 1 << 20)
    return out


def empty_tar(path):
    with tarball.Writer(str(path)):
        pass
    return str(path)


class Layout:
    """An OCI image layout that is written file by file; index.json is always in step with the tags."""

    def __init__(self, path):
        self.path = str(path)
        self.tags = []
        os.makedirs(os.path.join(self.path, "blobs"), exist_ok=True)
        with open(os.path.join(self.path, "oci-layout"), "w") as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')
        self.write_index()

    def blob_path(self, digest):
        return os.path.join(self.path, "blobs", *digest.split(":"))

    def put(self, data, media_type, algorithm="sha256", **extra):
        """Stores bytes as a blob; returns its descriptor."""
        digest = digest_of(data, algorithm)
        os.makedirs(os.path.dirname(self.blob_path(digest)), exist_ok=True)
        with open(self.blob_path(digest), "wb") as f:
            f.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **extra}

    def put_file(self, path, media_type, algorithm="sha256", **extra):
        with open(path, "rb") as f:
            digest = algorithm + ":" + hashlib.file_digest(f, algorithm).hexdigest()
        os.makedirs(os.path.dirname(self.blob_path(digest)), exist_ok=True)
        shutil.copyfile(path, self.blob_path(digest))
        return {"mediaType": media_type, "digest": digest, "size": os.path.getsize(path), **extra}

    def layer(self, tar, how="gzip", algorithm="sha256", media_type=None):
        """Adds a tar file as a layer; returns (descriptor, diff_id)."""
        with open(tar, "rb") as f:
            diff_id = "sha256:" + hashlib.file_digest(f, "sha256").hexdigest()
        return self.put_file(compress(tar, how), media_type or MT_LAYER[how], algorithm), diff_id

    def config(self, diff_ids, arch=ARCH):
        return self.put(encode({
            "architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [{"created_by": "layer"} for _ in diff_ids]}), MT_CONFIG)

    def manifest(self, layers, arch=ARCH, config=None):
        """Descriptor of a new manifest over [(descriptor, diff_id), …], lowest first."""
        return self.put(encode({
            "schemaVersion": 2, "mediaType": MT_MANIFEST,
            "config": config or self.config([diff for _, diff in layers], arch),
            "layers": [layer for layer, _ in layers]}), MT_MANIFEST)

    def index(self, manifests):
        """Descriptor of a new index over [(manifest descriptor, platform), …]."""
        return self.put(encode({"schemaVersion": 2, "mediaType": MT_INDEX, "manifests": [
            {**m, "platform": p} for m, p in manifests]}), MT_INDEX)

    def tag(self, descriptor, name):
        self.tags = [t for t in self.tags if t["annotations"][REF_NAME] != name]
        self.tags.append({**descriptor, "annotations": {**descriptor.get("annotations", {}), REF_NAME: name}})
        self.write_index()
        return descriptor

    def image(self, tars, name, how="gzip"):
        """An ordinary image from tar files, lowest first; returns its manifest's descriptor."""
        return self.tag(self.manifest([self.layer(t, how) for t in tars]), name)

    def write_index(self):
        with open(os.path.join(self.path, "index.json"), "wb") as f:
            f.write(encode({"schemaVersion": 2, "mediaType": MT_INDEX, "manifests": self.tags}))

    def ref(self, name):
        return "oci:%s:%s" % (self.path, name)


def read_layout(path, name):
    """(descriptor, manifest) of a tag in somebody else's layout."""
    with open(os.path.join(path, "index.json"), "rb") as f:
        index = json.load(f)
    found = [m for m in index["manifests"] if m.get("annotations", {}).get(REF_NAME) == name]
    with open(os.path.join(path, "blobs", *found[0]["digest"].split(":")), "rb") as f:
        return found[0], json.load(f)


def edit_manifest(path, name, change):
    """A copy of a tag's manifest with change(manifest) done to it becomes the tag: everything that the manifest's
    digest vouches for is right again, only the changed words are not. Returns the new descriptor."""
    old, manifest = read_layout(path, name)
    change(manifest)
    layout = Layout.__new__(Layout)
    layout.path = path
    with open(os.path.join(path, "index.json"), "rb") as f:
        layout.tags = json.load(f)["manifests"]
    return layout.tag(layout.put(encode(manifest), old["mediaType"]), name)


def flip(path, offset):
    """Turns one byte of a file round."""
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 0xFF]))


def skopeo(*args):
    """skopeo copy without a signature policy: none is installed on a bare machine."""
    done = subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *args], capture_output=True, text=True)
    assert done.returncode == 0, "skopeo %s\n%s" % (" ".join(args), done.stderr)


def rsa_key(where, name, password=None):
    """(private, public) PEM files. A password makes the kind of PEM that the Go implementation reads."""
    private, public = os.path.join(where, name + ".pem"), os.path.join(where, name + ".pub")
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True,
                   stderr=subprocess.DEVNULL)
    if password:
        locked = private + ".locked"
        subprocess.run(["openssl", "rsa", "-in", private, "-aes256", "-traditional", "-passout", "pass:" + password,
                        "-out", locked], check=True, stderr=subprocess.DEVNULL)
        os.rename(locked, private)
    return private, public


def ec_key(where, name, curve="P-256"):
    private, public = os.path.join(where, name + ".pem"), os.path.join(where, name + ".pub")
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve,
                    "-out", private], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


def encrypt(layout, name, public, to):
    """A copy of oci:layout:name, its layers encrypted, in a layout of its own at `to` under the same name. By way of a
    directory, because there alone skopeo does not compress what is not compressed."""
    skopeo("--encryption-key", "jwe:" + public, "oci:%s:%s" % (layout, name), "dir:%s.dir" % to)
    skopeo("--preserve-digests", "dir:%s.dir" % to, "oci:%s:%s" % (to, name))
    shutil.rmtree("%s.dir" % to)


def sample_layers(where, packages=("coreutils", "bash", "libc-bin", "base-files", "tzdata", "perl-base")):
    """Tar files of a small image of real files: packages of this machine, what is special about files, whiteouts."""
    os.makedirs(where)
    base = tarball.of_packages(os.path.join(where, "base.tar"), packages)
    special = tarball.of_specials(os.path.join(where, "special"), os.path.join(where, "special.tar"))
    more = os.path.join(where, "more.tar")
    with tarball.Writer(more) as t:
        t.dir("opt").dir("opt/app", mode=0o750, uid=1000, gid=1000)
        t.file("opt/app/blob", noise(700_000, 1), uid=1000, gid=1000)
        t.dir("opt/app/old").file("opt/app/old/a", b"a\n").dir("opt/app/old/sub").file("opt/app/old/sub/b", b"b\n")
        t.dir("opt/turns").file("opt/turns/file-to-dir", b"x").dir("opt/turns/dir-to-file")
        t.file("opt/turns/dir-to-file/inside", b"x").symlink("opt/turns/link-to-file", "dir-to-file")
        t.dir("opt/gone").file("opt/gone/x", b"x").file("opt/gone/y", b"y").file("opt/keep", b"k")
    changes = os.path.join(where, "changes.tar")
    with tarball.Writer(changes) as t:
        t.dir("opt/app", mode=0o755, uid=0, gid=0).whiteout("opt/app/blob")
        t.dir("opt/app/old").file("opt/app/old/new", b"new\n").opaque("opt/app/old")
        t.dir("opt/turns").whiteout("opt/turns/link-to-file").file("opt/turns/link-to-file", b"now a file\n")
        t.dir("opt/turns/file-to-dir").file("opt/turns/file-to-dir/inside", b"y")
        t.file("opt/turns/dir-to-file", b"now a file\n").whiteout("opt/gone")
    return [base, special, more, changes]
