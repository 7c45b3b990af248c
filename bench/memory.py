# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds for some processes: page cache, tmpfs, and its own records of files and names.

By a memory control group of their own, where one can be made: each page and each record is charged to the group whose
process made it, whatever else the machine does meanwhile. Else by what /proc/meminfo has more than before, which counts
the neighbours' too.
"""
import os
import tempfile
import time

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"


def read_fields(path):
    with open(path) as f:
        return {name.rstrip(":"): int(value) for name, value, *_ in map(str.split, f)}


class Group:
    """A control group, of either version."""

    way = "cgroup"

    def __init__(self):
        self.v2 = os.path.exists(V2 + "/cgroup.controllers")
        if self.v2:
            with open(V2 + "/cgroup.subtree_control", "w") as f:
                f.write("+memory")
        elif not os.path.exists(V1 + "/cgroup.procs"):
            raise OSError("no memory control groups")
        self.path = tempfile.mkdtemp(prefix="coco-pull-bench-", dir=V2 if self.v2 else V1)

    def wrap(self, argv):
        """The command, as one of the group."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', os.path.join(self.path, "cgroup.procs"), *argv]

    def held(self):
        """{"cache", "shmem", "kernel"} in bytes: page cache other than tmpfs, tmpfs, and the kernel's records."""
        stat = read_fields(os.path.join(self.path, "memory.stat"))
        if self.v2:
            return {"cache": stat["file"] - stat["shmem"], "shmem": stat["shmem"], "kernel": stat["slab"]}
        with open(os.path.join(self.path, "memory.kmem.usage_in_bytes")) as f:
            kernel = int(f.read())
        return {"cache": stat["total_cache"] - stat["total_shmem"], "shmem": stat["total_shmem"], "kernel": kernel}

    def close(self):
        for _ in range(50):
            try:
                return os.rmdir(self.path)
            except OSError:             # what was ended a moment ago is still in it
                time.sleep(0.02)


class Machine:
    """All of the machine, against what it held at first."""

    way = "meminfo"

    def __init__(self):
        self.before = self.now()

    def wrap(self, argv):
        return argv

    def now(self):
        info = {name: kib * 1024 for name, kib in read_fields("/proc/meminfo").items()}
        return {"cache": info["Cached"] + info["Buffers"] - info["Shmem"], "shmem": info["Shmem"],
                "kernel": info["Slab"]}

    def held(self):
        return {name: max(0, value - self.before[name]) for name, value in self.now().items()}

    def close(self):
        pass


def watch():
    """A group, or the whole machine where none can be made."""
    try:
        return Group()
    except OSError:
        return Machine()


def drop_caches():
    """Lets the kernel forget all that it can read again. OSError where that is not ours to ask for."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")


def kernel_threads():
    """{process id: CPU seconds so far} of the kernel's own threads, which do part of the work of loop devices."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                fields = f.read().rpartition(")")[2].split()
            if fields[1] == "2":            # the parent, kthreadd
                with open("/proc/%s/schedstat" % pid) as f:
                    found[pid] = int(f.read().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            pass                            # ended meanwhile, or a kernel that does not say
    return found


def spent_since(before):
    """CPU seconds of the kernel's threads since kernel_threads() gave `before`."""
    return sum(max(0, seconds - before.get(pid, 0)) for pid, seconds in kernel_threads().items())
