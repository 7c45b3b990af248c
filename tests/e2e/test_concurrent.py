# SPDX-License-Identifier: Apache-2.0
"""Several processes at work in one store, in the shapes that could make them wait for each other."""
import time

import images
import tarball


def loose_layer(path, name, size, seed):
    """A layer whose content depends on the layers below it: directories without an entry of their own."""
    with tarball.Writer(str(path)) as t:
        t.file("implied-%s/file" % name, images.noise(size, seed))
        t.file("implied/%s" % name, b"x")
    return str(path)


def test_same_layers_in_the_other_order(coco, work, docker, proxy):
    """A over B and B over A at once: each of the two pulls has finished the one layer that the other waits for, and
    neither can commit it before it has the one below."""
    big = loose_layer(work / "big.tar", "big", 6_000_000, 1)
    small = loose_layer(work / "small.tar", "small", 2_000_000, 2)
    layout = images.Layout(work / "layout")
    layout.image([small, big], "one", "none")
    layout.image([big, small], "two", "none")
    names = []
    for tag in ("one", "two"):
        docker.push(layout.ref(tag), "orders:" + tag, "--preserve-digests")
        names.append(proxy.host + "/orders:" + tag)
    proxy.rate = 10 << 20
    first = coco.start_pull(names[0], "--jobs", "1", "--timeout", "20")
    time.sleep(0.3)
    second = coco.start_pull(names[1], "--jobs", "1", "--timeout", "20")
    for result in [first.wait(), second.wait()]:
        assert result.status == 0, str(result)
    assert coco.staging() == []
    for name in names:
        with coco.mounted(name) as where:
            for part, size in (("big", 6_000_000), ("small", 2_000_000)):
                with open("%s/implied-%s/file" % (where, part), "rb") as f:
                    assert len(f.read()) == size
