# SPDX-License-Identifier: Apache-2.0
"""Several processes at work in one store, in the shapes that could make them wait for each other."""
import collections
import os
import random
import subprocess
import threading
import time

import images
import tarball
from program import unmount_all

SNAPSHOTS = ("overlay", "erofs")


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


class Worker(threading.Thread):
    """Runs commands on the store until the time is up, and notes what must not be."""

    def __init__(self, coco, images_of, number, until):
        super().__init__()
        self.coco, self.images, self.until = coco, images_of, until
        self.random = random.Random(number)
        self.dir = os.path.join(coco.scratch, "mnt-%d" % (number % 3))  # some share a mount point
        self.killed = number % 4 == 3
        self.faults, self.runs = [], collections.Counter()
        os.makedirs(self.dir, exist_ok=True)

    def command(self, *args, fine=(), **limits):
        """Exit status; only those that the race may lead to are fine."""
        run = self.coco.start(*args, **limits)
        if self.killed and self.random.random() < 0.5:
            time.sleep(self.random.random() * 0.1)
            run.kill()
        result = run.wait(60)
        self.runs[args[0], result.status] += 1
        if result.status and result.status not in fine and not (self.killed and result.status < 0):
            self.faults.append(str(result))
        return result.status

    def step(self):
        name = self.random.choice(sorted(self.images))
        what = self.random.random()
        if what < 0.35:
            self.command("pull", name, "--progress", "none", "--jobs", str(self.random.randint(1, 4)))
        elif what < 0.5:
            self.command("rm", name, fine=(2, 10))          # mounted · not there
        elif what < 0.6:
            self.command("prune")
        elif what < 0.65:
            self.command("list")
        else:
            self.look(name)

    def look(self, name):
        """What could be mounted is whole, whatever the others remove."""
        args = ["--rw"] if self.random.random() < 0.3 else []
        if self.command("mount", name, self.dir, *args, fine=(2, 10)):  # mounted already · not there
            return
        for path, content in self.images[name].items():
            try:
                with open(os.path.join(self.dir, path), "rb") as f:
                    got = f.read()
            except OSError as e:
                got = e
            # another worker may have taken the mount down, and mounted another image there
            if got != content and self.coco.run("unmount", self.dir).status == 0 and not self.shared():
                self.faults.append("%s: %s is %.40r" % (name, path, got))
                return
        self.command("unmount", self.dir, fine=(2, 10))                 # still in use · another one was faster

    def shared(self):
        return True

    def run(self):
        while time.monotonic() < self.until and not self.faults:
            self.step()


class LonelyWorker(Worker):
    """Has its mount point to itself, so that it can tell what has to be there."""

    def __init__(self, coco, images_of, number, until):
        super().__init__(coco, images_of, number, until)
        self.dir = os.path.join(coco.scratch, "own-%d" % number)
        self.killed = False
        os.makedirs(self.dir, exist_ok=True)

    def shared(self):
        return False


def test_many_processes(coco, work):
    """Pulls, removals, prunes, mounts and unmounts of several processes, some of them killed: whatever could be mounted has every
    file, nobody fails for anything but what the race means, and nothing is left at the end."""
    layout, contents = images.Layout(work / "layout"), {}
    tars = []
    for i in range(5):
        path = str(work / ("layer%d.tar" % i))
        with tarball.Writer(path) as t:
            for k in range(40):
                t.file("implied-%d/file-%d" % (i % 2, k if i < 2 else 100 * i + k), b"%d.%d" % (i, k))
            t.file("big-%d" % i, images.noise(300_000, i))
        tars.append(path)
    for name, order in {"a": (0, 1, 2), "b": (1, 0, 2), "c": (2, 3), "d": (3, 2, 4, 0)}.items():
        layout.image([tars[i] for i in order], name, "none")
        contents[layout.ref(name)] = {"big-%d" % i: images.noise(300_000, i) for i in order}
    until = time.monotonic() + float(os.environ.get("COCO_PULL_STRESS_SECONDS", "8"))
    workers = [(LonelyWorker if i < 3 else Worker)(coco, contents, i, until) for i in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not [f for w in workers for f in w.faults]
    done = sum((w.runs for w in workers), collections.Counter())
    assert done["pull", 0] and done["mount", 0] and done["unmount", 0] and done["rm", 0] and done["prune", 0], done
    for name in contents:
        coco.pull(name)
    unmount_all(coco.scratch)
    for name in contents:
        assert coco.run("rm", name).status == 0
    assert coco.run("prune").status == 0
    assert coco.staging() == [] and coco.layers() == [] and os.listdir(os.path.join(coco.store, "mounts")) == []


def test_mount_of_another_mount_namespace(coco, work, sample):
    """What cannot be seen from here is not taken for gone: neither unmount nor prune takes away what a writable mount holds."""
    name, where = sample.layout.ref("plain"), work / "elsewhere"
    coco.pull(name)
    where.mkdir()
    inside = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", '"$@" && echo kept >"$0/kept" && echo ready && read x && cat "$0/kept"', where,
         coco.binary, "mount", name, where, "--rw", "--format", "json", "--store", coco.store],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "read_write" in inside.stdout.readline() and inside.stdout.readline() == "ready\n"
    result = coco.run("unmount", where)
    assert result.status == 2 and "namespace" in result.err, str(result)
    assert coco.run("prune").status == 0
    assert coco.run("rm", name).status == 2
    out, _ = inside.communicate("x\n", timeout=30)
    assert out == "kept\n"
