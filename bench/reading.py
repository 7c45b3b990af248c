# SPDX-License-Identifier: Apache-2.0
"""Reading what was pulled, through both snapshots: what a pull saves must not come back when a container starts.

For each an image is pulled into an empty store and mounted, and micro/coco-bench-tree goes through the tree:

    first   right after the pull, with what that left in the page cache
    cold    with all caches dropped
    warm    once more

Memory is what the kernel holds for all of that (memory.py): after the pull, after the first reading, and after one that
began with nothing in the cache. The pages of a tmpfs store, and its inodes and names, are there from the pull on and
cannot be dropped.
"""
import contextlib
import json
import os
import subprocess

import figures
import measure
import memory
import peers

TREE = "coco-bench-tree"
ROUNDS_MOST = 3
# (name, what the tree is gone through for, with caches dropped before)
FIRST = (("find_first", "stat", False), ("read_first", "read", False))
AGAIN = (("find_cold", "stat", True), ("find_warm", "stat", False), ("read_cold", "read", True),
         ("read_warm", "read", False))


def chosen(images):
    """One image of each repository: how its layers are compressed or encrypted makes no difference to what is read."""
    found = {}
    for image in images:
        if image.repository not in found or found[image.repository].encrypted:
            found[image.repository] = image
    return list(found.values())


def file_system(path):
    done = subprocess.run(["stat", "-f", "-c", "%T", path], stdout=subprocess.PIPE, text=True, check=True)
    name = done.stdout.strip()
    return "ext4" if name == "ext2/ext3" else name      # they have one number


class Reading:
    """One image, pulled by one snapshot into one store, mounted, and read."""

    def __init__(self, run, peer, image, stores, store, place, group):
        self.run, self.peer, self.image, self.place, self.group = run, peer, image, place, group
        self.stores, self.store = stores, store
        self.target = os.path.join(store, "m")
        self.tree = os.path.join(os.path.dirname(run.options.micro), TREE)
        self.sample = {}

    def command(self, argv):
        return measure.run(self.group.wrap(argv), self.store, self.run.scratch)

    def own(self, command, *arguments):
        return self.command([self.run.options.binary, command, *arguments, "--store", os.path.join(self.store, "s")])

    def go_through(self, what, path):
        return json.loads(self.command([self.tree, what, path])[1])

    def phase(self, name, what, cold):
        if cold:
            self.stores.settle(self.store)
            memory.drop_caches()
        before = memory.kernel_threads()
        took = self.go_through(what, self.target)
        self.sample[name + "_s"] = took["wall_s"]
        self.sample[name + "_cpu_s"] = took["cpu_s"] + memory.spent_since(before)

    def hold(self, when):
        """What is held at this time, and whose pages they are."""
        held = self.group.held()
        on_tmpfs = self.place == "tmpfs"
        self.sample["cache_%s_bytes" % when] = held["cache"]
        self.sample["kernel_%s_bytes" % when] = held["kernel"]
        # The tmpfs below an ext4 of ours is its disk, no memory.
        self.sample["memory_%s_bytes" % when] = held["cache"] + held["kernel"] + (held["shmem"] if on_tmpfs else 0)
        at_rest = held["shmem"] if on_tmpfs else self.held_by(os.path.join(self.store, "s"))
        self.sample["store_%s_bytes" % when] = at_rest
        if when != "pulled":
            self.sample["tree_%s_bytes" % when] = self.held_by(self.target)

    def held_by(self, path):
        return self.go_through("held", path)["bytes"]

    def measure(self):
        os.mkdir(self.target)
        # Programs and libraries are in the page cache then, and nobody's bill.
        measure.run([self.run.options.binary, "version"], self.store, self.run.scratch)
        job = peers.Job(self.image, self.image.host, self.store, self.run.key, self.run.options.binary, "")
        self.command(self.peer.command(job))
        self.hold("pulled")
        self.sample["mount_s"] = self.own("mount", job.reference, self.target)[0]["wall_s"]
        for phase in FIRST:
            self.phase(*phase)
        self.hold("first")
        for phase in AGAIN:
            self.phase(*phase)
        self.hold("read")
        self.own("unmount", self.target)
        return self.sample


def read_once(run, peer, image, place, stores):
    with stores.fresh() as store, contextlib.closing(memory.watch()) as group:
        return Reading(run, peer, image, stores, store, place, group).measure()


def places(run, stack):
    """[(name, stores)]: tmpfs and ext4, or where --store says."""
    if run.options.store:
        return [(file_system(run.options.store), run.stores)]
    found = [("tmpfs", run.stores)]
    try:
        disks = measure.Disks(run.scratch)
        stack.callback(disks.close)
        with disks.fresh():
            pass
        found.append(("ext4", disks))
    except (OSError, subprocess.CalledProcessError) as e:
        run.missing["reading from ext4"] = "no ext4 by a loop device: %s" % e
    return found


def cannot(run):
    """Why nothing can be read, or nothing."""
    path = os.path.join(os.path.dirname(run.options.micro), TREE)
    if not os.access(path, os.X_OK):
        return "%s is not built: %s" % (TREE, path)
    try:
        memory.drop_caches()
    except OSError as e:
        return "caches cannot be dropped: %s" % e
    return ""


def row(peer, image, place, samples, failed):
    found = {"peer": peer, "image": image, "place": place, "rounds": len(samples), "failed": failed}
    if samples and not failed:
        found.update({name: figures.summary([s[name] for s in samples]) for name in samples[0]})
    return found


def measure_all(run, say):
    """{"way", "rows"} of the document, or None with a line in run.missing."""
    why = cannot(run)
    if why:
        run.missing["reading"] = why
        return None
    with contextlib.closing(memory.watch()) as group:
        way = group.way
    samples, failed = {}, {}
    subjects = [peer for peer in run.peers if peer.name in figures.SNAPSHOTS]
    with contextlib.ExitStack() as stack:
        stands = places(run, stack)
        for n in range(min(run.options.rounds, ROUNDS_MOST)):
            for image in chosen(run.images):
                image.warm(image.host)
                for place, stores in stands:
                    for peer in subjects[n % len(subjects):] + subjects[:n % len(subjects)]:
                        at = (peer.name, image.name, place)
                        samples.setdefault(at, [])
                        if at not in failed:
                            take(run, say, at, (peer, image, place, stores), samples, failed)
    return {"way": way, "rows": [row(*at, found, failed.get(at)) for at, found in samples.items()]}


def take(run, say, at, what, samples, failed):
    try:
        sample = read_once(run, *what)
    except (measure.Failure, OSError, subprocess.CalledProcessError) as e:
        failed[at] = str(e)
        say("%-12s %-16s read from %s: failed: %s" % (at[1], at[0], at[2], e))
        return
    samples[at].append(sample)
    say("%-12s %-16s read from %-5s  find %.2f s  read %.2f s, cold" % (at[1], at[0], at[2], sample["find_cold_s"],
                                                                      sample["read_cold_s"]))
