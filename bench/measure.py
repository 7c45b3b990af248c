# SPDX-License-Identifier: Apache-2.0
"""One measured run: a store that is empty, a command under watch.py, and what a daemon did for it meanwhile."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

WATCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "watch.py")
SAMPLE_S = 0.02


class Failure(Exception):
    """A command that did not do its work; the message is one line."""


def last_line(text):
    """The last line that says something, for a message; terminal control is made harmless."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return re.sub(r"[\x00-\x1f\x7f]", "?", lines[-1])[:300] if lines else "(nothing on standard error)"


class Stores:
    """Gives out empty stores: each a tmpfs of its own, which goes with one unmount, or a directory below `base`."""

    def __init__(self, base=None):
        self.base = base
        self.root = tempfile.mkdtemp(prefix="coco-pull-bench-", dir=base)

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)

    def settle(self, path):
        """Nothing of a store is to be left that the kernel could not read again."""

    @contextlib.contextmanager
    def fresh(self):
        path = tempfile.mkdtemp(dir=self.root)
        if not self.base:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=90%", "coco-pull-bench", path], check=True)
            # What a peer mounts inside must not show up elsewhere.
            subprocess.run(["mount", "--make-private", path], check=True)
        os.mkdir(os.path.join(path, "home"))
        try:
            yield path
        finally:
            unmount_all(path)
            shutil.rmtree(path, ignore_errors=True)


class Disks(Stores):
    """The same, each an ext4 of its own, on a disk that is a file of `base`."""

    bytes = 16 << 30                # it takes as much as is written, and a little

    @contextlib.contextmanager
    def fresh(self):
        path = tempfile.mkdtemp(dir=self.root)
        disk = path + ".disk"
        with open(disk, "wb") as f:
            f.truncate(self.bytes)
        try:
            subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
            # Nothing is to be written behind the back of what is measured.
            subprocess.run(["mount", "-o", "loop,noinit_itable", disk, path], check=True)
            subprocess.run(["mount", "--make-private", path], check=True)
            os.mkdir(os.path.join(path, "home"))
            yield path
        finally:
            unmount_all(path)
            os.unlink(disk)
            os.rmdir(path)

    def settle(self, path):
        # Its metadata stays in memory as long as only the journal has it; to freeze it is to empty the journal.
        subprocess.run(["fsfreeze", "--freeze", path], check=True)
        subprocess.run(["fsfreeze", "--unfreeze", path], check=True)


def unmount_all(path):
    """Takes down what is mounted at or below a path, deepest first."""
    path = os.path.realpath(path)
    with open("/proc/self/mountinfo", "rb") as f:
        points = [os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in f]
    for point in sorted((p for p in points if p == path or p.startswith(path + "/")), key=len, reverse=True):
        subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)


def held_bytes(path):
    stat = os.statvfs(path)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def environment(store):
    """What a measured command sees: nothing of the user's settings, temporary files in the store, no proxy."""
    keep = ("PATH", "LANG", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    home = os.path.join(store, "home")
    return {**env, "HOME": home, "TMPDIR": home, "XDG_RUNTIME_DIR": home, "LC_ALL": "C.UTF-8"}


def run(argv, store, scratch, daemon=None, timeout_s=900):
    """Runs a command to its end and returns its figures and its standard output; raises Failure."""
    paths = {name: os.path.join(scratch, name) for name in ("report", "out", "err")}
    if os.path.exists(paths["report"]):
        os.unlink(paths["report"])
    before, peak, end = held_bytes(store), 0, time.monotonic() + timeout_s
    daemon_before = daemon.usage() if daemon else {}
    with open(paths["out"], "wb") as out, open(paths["err"], "wb") as err:
        process = subprocess.Popen([sys.executable, "-IS", WATCH, paths["report"], *argv], stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=err, env=environment(store), cwd=store, start_new_session=True)
    try:
        while True:
            try:
                process.wait(SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, held_bytes(store) - before)
                if time.monotonic() > end:
                    raise Failure("not done after %d s" % timeout_s) from None
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    with open(paths["err"], errors="replace") as f:
        errors = f.read()
    if not os.path.exists(paths["report"]):
        raise Failure(last_line(errors))
    with open(paths["report"]) as f:
        figures = json.load(f)
    if figures.pop("status"):
        raise Failure(last_line(errors))
    figures["store_bytes"] = held_bytes(store) - before
    add_daemon(figures, daemon_before, daemon.usage() if daemon else {})
    figures["memory_bytes"] = figures["peak_rss_bytes"] + max(peak, figures["store_bytes"])
    with open(paths["out"], errors="replace") as f:
        return figures, f.read()


def add_daemon(figures, before, after):
    if not after:
        return
    for name in ("cpu_s", "written_bytes"):
        figures[name] += after[name] - before[name]
    figures["peak_rss_bytes"] += after["peak_rss_bytes"]


def process_usage(pid):
    """What a process and the children that it has reaped used so far."""
    with open("/proc/%d/stat" % pid) as f:
        ticks = [int(n) for n in f.read().rpartition(")")[2].split()[11:15]]
    with open("/proc/%d/status" % pid) as f:
        peak_kib = next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
    with open("/proc/%d/io" % pid) as f:
        written = next(int(line.split()[1]) for line in f if line.startswith("wchar:"))
    return {"cpu_s": sum(ticks) / os.sysconf("SC_CLK_TCK"), "peak_rss_bytes": peak_kib * 1024,
            "written_bytes": written}


def strace_total(report):
    """The number of system calls that `strace -c` counted."""
    for line in reversed(report.splitlines()):
        fields = line.split()           # share, seconds, microseconds a call, calls, errors if there were any, "total"
        if fields and fields[-1] == "total":
            return int(fields[3])
    return None


def spin(threads, seconds=0.4):
    """What a number of processes that only compute get done, as a multiple of what one gets done alone."""
    def count(n):
        script = ("import time\nend=time.monotonic()+%f\nn=0\nwhile time.monotonic()<end:\n"
                  " for _ in range(2000): n+=1\nprint(n)" % seconds)
        running = [subprocess.Popen([sys.executable, "-IS", "-c", script], stdout=subprocess.PIPE) for _ in range(n)]
        return sum(int(p.communicate()[0]) for p in running)
    return count(threads) / max(1, count(1))
