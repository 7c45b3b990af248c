# SPDX-License-Identifier: Apache-2.0
"""An image of the run: what its manifest says, and what is in it."""
import hashlib
import json
import os
import stat

import measure
import peers
import services
import unwrap


class Image:
    """NAME:TAG in a registry. facts are known after take_facts(): what each layer holds, for the bound."""

    def __init__(self, name, host):
        self.name, self.host = name, host
        self.repository, _, self.tag = name.partition(":")
        self.manifest_bytes, self.media_type = services.read_manifest(host, self.repository, self.tag)
        self.manifest = json.loads(self.manifest_bytes)
        self.digest = "sha256:" + hashlib.sha256(self.manifest_bytes).hexdigest()
        self.layers = self.manifest["layers"]
        self.blobs = list(dict.fromkeys(d["digest"] for d in [self.manifest["config"], *self.layers]))
        kinds = [layer["mediaType"] for layer in self.layers]
        self.encrypted = any(kind.endswith("+encrypted") for kind in kinds)
        # One word for an image: encoders do not mix.
        self.compression = next((c for c in ("zstd", "gzip") if any(c in kind for kind in kinds)), "none")
        self.facts = None

    def reference(self, host):
        return "%s/%s" % (host, self.name)

    def warm(self, host):
        """Reads all blobs once, so that they are in the server's page cache."""
        for digest in self.blobs:
            services.get(host, "/v2/%s/blobs/%s" % (self.repository, digest), sink=lambda _: None)

    def take_facts(self, layers, progress):
        """From what coco-pull, which has checked every diff_id, reports and left in its store."""
        unpacked = {}
        for line in progress.splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "layer":
                unpacked[event["digest"]] = event["unpacked_bytes"]
        self.facts = []
        for layer in layers:
            entries, data = count(layer["path"])
            self.facts.append({"digest": layer["digest"], "blob_bytes": layer["size"], "entries": entries,
                               "unpacked_bytes": unpacked[layer["digest"]], "data_bytes": data,
                               "encrypted": layer["encrypted"], "compression": compression(layer["media_type"])})

    def total(self, what):
        return sum(layer[what] for layer in self.facts)

    def keys_file(self, path, private_key):
        """Writes a line a layer for shell-pull: key, counter block and HMAC in hex; a dash for a plain layer."""
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as f:
            for layer in self.layers:
                f.write(" ".join(unwrap.layer_key(layer.get("annotations", {}), private_key)) + "\n")
        return path


def compression(media_type):
    return next((c for c in ("zstd", "gzip") if c in media_type), "none")


def count(root):
    """(entries, bytes of file content) below a directory; a file with several names has its content once."""
    entries, data, seen = 0, 0, set()
    for path, directories, files in os.walk(root):
        for name in directories + files:
            entries += 1
            found = os.lstat(os.path.join(path, name))
            if stat.S_ISREG(found.st_mode) and found.st_ino not in seen:
                data += found.st_size
                if found.st_nlink > 1:
                    seen.add(found.st_ino)
    return entries, data


def read_facts(image, binary, key, stores, scratch):
    """Pulls the image once, untimed, and looks at what came out."""
    with stores.fresh() as store:
        argv = [binary, "pull", image.reference(image.host), "--plain-http", "--store", os.path.join(store, "s"),
                "--format", "json", "--progress", "json", *peers.snapshot_options(binary)]
        if image.encrypted:
            argv += ["--decryption-key", key]
        _, out = measure.run(argv, store, scratch)
        with open(os.path.join(scratch, "err"), errors="replace") as f:
            image.take_facts(json.loads(out)["layers"], f.read())
