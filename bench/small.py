# SPDX-License-Identifier: Apache-2.0
"""What a small image costs: start-up against curl, a pull of what is there, and the image that it is done with."""
import gzip
import hashlib
import http.client
import io
import json
import os
import random
import tarfile
import time
import urllib.parse

import figures
import measure
import peers

OCI = "application/vnd.oci.image."


def tiny_tar():
    """A tar whose gzip has about 3 MB: 200 files, half noise and half text, the same on every machine."""
    dice, out = random.Random(7), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for n in range(200):
            data = b"".join(dice.randbytes(1024) + b"%08d the same line again\n" % n * 32 for _ in range(14))
            member = tarfile.TarInfo("srv/%02d/%03d" % (n % 10, n))
            member.size, member.mtime, member.mode = len(data), 1700000000, 0o644
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def upload(host, repository, data):
    """Puts a blob into a registry; returns its digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("POST", "/v2/%s/blobs/uploads/" % repository)
    answer = connection.getresponse()
    answer.read()
    place = urllib.parse.urlsplit(answer.getheader("Location"))
    connection.request("PUT", "%s?%s&digest=%s" % (place.path, place.query, urllib.parse.quote(digest)), data,
                       {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    if answer.status != 201:
        raise measure.Failure("the small image cannot be put into the registry: status %d" % answer.status)
    return digest


def push_tiny(host, architecture):
    """Makes tiny:gzip in a registry."""
    tar = tiny_tar()
    blob = gzip.compress(tar, 6, mtime=0)
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
        "config": {"mediaType": OCI + "config.v1+json", "digest": upload(host, "tiny", config), "size": len(config)},
        "layers": [{"mediaType": OCI + "layer.v1.tar+gzip", "digest": upload(host, "tiny", blob), "size": len(blob)}],
    }).encode()
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("PUT", "/v2/tiny/manifests/gzip", manifest, {"Content-Type": OCI + "manifest.v1+json"})
    if connection.getresponse().status != 201:
        raise measure.Failure("the small image cannot be put into the registry")


def pull(binary, reference, store):
    return [binary, "pull", reference, "--plain-http", "--store", os.path.join(store, "s"), "--progress", "none",
            *peers.snapshot_options(binary)]


def startup(binary, image, stores, scratch, times):
    """Cold pulls and curl of the same manifest, configuration and blobs, in turn."""
    base = "http://%s/v2/%s" % (image.host, image.repository)
    urls = [base + "/manifests/" + image.tag] + [base + "/blobs/" + digest for digest in image.blobs]
    curl = ["curl", "-fsS", "-H", "Accept: " + image.media_type]
    for url in urls:
        curl += ["-o", "/dev/null", url]
    walls = {"coco_pull": [], "curl": []}
    for _ in range(times):
        with stores.fresh() as store:
            walls["curl"].append(measure.run(curl, store, scratch)[0]["wall_s"])
            walls["coco_pull"].append(measure.run(pull(binary, image.reference(image.host), store), store,
                                                  scratch)[0]["wall_s"])
    result = {name + "_s": figures.summary(values) for name, values in walls.items()}
    result["difference_ms"] = 1000 * (result["coco_pull_s"]["median"] - result["curl_s"]["median"])
    return result


def repull(binary, image, stores, scratch, times, nginx=None):
    """Pulls of an image that is there, by tag and by digest; nginx counts the requests of one."""
    result = {}
    for by, name in (("tag", image.name), ("digest", "%s@%s" % (image.repository, image.digest))):
        with stores.fresh() as store:
            # By the same name first: a store knows an image by the name that it was pulled under.
            argv = pull(binary, "%s/%s" % (image.host, name), store)
            measure.run(argv, store, scratch)
            walls = [measure.run(argv, store, scratch)[0]["wall_s"] for _ in range(times)]
        result[by] = {"wall_s": figures.summary(walls), "median_ms": 1000 * figures.summary(walls)["median"],
                      "requests": nginx and count_requests(binary, name, stores, scratch, nginx)}
    return result


def count_requests(binary, name, stores, scratch, nginx):
    with stores.fresh() as store:
        argv = pull(binary, "%s/%s" % (nginx.host, name), store)
        measure.run(argv, store, scratch)
        time.sleep(0.1)
        before = nginx.request_count()
        measure.run(argv, store, scratch)
        time.sleep(0.1)             # a line is written once the answer is out
        return nginx.request_count() - before
