# SPDX-License-Identifier: Apache-2.0
"""A large layer from a storage server that gives each connection only so much, and from one that wants few of them."""
import os
import time

import pytest

import images
import registry
import tarball

MIB = 1 << 20


class Large:
    """An image with one layer of 300 MiB, pushed as it is."""

    def __init__(self, where, docker):
        with tarball.Writer(str(where / "large.tar")) as t:
            t.file("large", images.noise(2 * MIB) * 150)
        self.bytes = os.path.getsize(where / "large.tar")
        layout = images.Layout(where / "layout")
        layout.image([str(where / "large.tar")], "large", "none")
        os.unlink(where / "large.tar")
        docker.push(layout.ref("large"), "large:plain", "--preserve-digests")
        self.digest = images.read_layout(layout.path, "large")[1]["layers"][0]["digest"]
        os.unlink(layout.blob_path(self.digest))


@pytest.fixture(scope="module")
def large(scratch, docker):
    where = scratch / "large"
    where.mkdir()
    return Large(where, docker)


@pytest.fixture
def storage(docker, large, work):
    """Makes the server: storage(rate, at_once)."""
    made = []

    def make(rate, at_once=None):
        made.append(registry.Storage(docker, work / "nginx", rate, at_once))
        return made[-1]
    yield make
    for server in made:
        server.stop()


def pull(coco, server, *options, **limits):
    result = coco.try_pull("%s/large:plain" % server.host, "--stats", *options, **limits)
    assert result.status == 0, str(result)
    coco.run("rm", "%s/large:plain" % server.host)
    return result


@pytest.mark.memory
def test_several_connections_are_faster_in_the_same_memory(coco, large, storage):
    """20 MiB/s a connection; a ratio within one run."""
    server = storage("20m")
    one = pull(coco, server, "--connections", "1")
    for _ in range(3):  # a busy machine can be the bound in place of the network
        many = pull(coco, server)
        if one.seconds / many.seconds >= 3:
            break
    assert one.json["stats"]["connections"] == 1
    assert 4 <= many.json["stats"]["connections"] <= 8
    assert one.seconds / many.seconds >= 3, "%.1f s with one, %.1f s with many" % (one.seconds, many.seconds)
    assert many.maxrss < 96 * MIB and many.maxrss < one.maxrss + 16 * MIB, "%d MiB, %d MiB with one" % (
        many.maxrss // MIB, one.maxrss // MIB)
    # nothing is fetched twice but what was under way when the first connection was given its end
    stats = many.json["stats"]
    assert stats["bytes_fetched"] >= large.bytes
    assert stats["stages"]["fetch"]["bytes"] - stats["bytes_fetched"] < 8 * MIB


@pytest.mark.memory
def test_small_memory_has_room_for_several(coco, large, storage):
    many = pull(coco, storage("60m"), "--memory", "16M", "--connections", "16")
    assert many.json["stats"]["connections"] >= 2
    assert many.maxrss < 48 * MIB


def test_one_is_enough_on_a_free_link(coco, large, storage):
    """Where the processor is the bound there is one request for the layer, and no range."""
    server = storage("0")
    assert pull(coco, server, "--memory", "24M").json["stats"]["connections"] == 1
    assert [r for r in server.requests() if r[1] >= large.bytes] == [(200, large.bytes, "-")]
    assert all(r[2] == "-" for r in server.requests())


def test_refused_connections_do_not_matter(coco, large, storage):
    """A server that answers 503 to whoever comes with a second one: it gets no third."""
    server = storage("100m", at_once=1)
    assert pull(coco, server).json["stats"]["stages"]["fetch"]["bytes"] == large.bytes
    assert [r[0] for r in server.requests()].count(503) == 1
    assert sum(r[1] >= large.bytes for r in server.requests()) == 1


def test_all_connections_break(coco, large, storage):
    """The server goes away in the middle of it and comes back."""
    server = storage("20m")
    run = coco.start_pull("%s/large:plain" % server.host, "--stats")
    while sum(r[0] == 206 for r in server.requests()) < 20 and run.running():
        time.sleep(0.02)
    server.stop()
    time.sleep(0.3)
    server.start()
    result = run.wait()
    assert result.status == 0, str(result)
    assert result.json["stats"]["bytes_fetched"] >= large.bytes
