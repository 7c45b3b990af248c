# SPDX-License-Identifier: Apache-2.0
"""The program under test as an object: runs coco-pull on one store, parses what it prints, undoes its mounts."""
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

LAUNCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")

# engine/base/error.c: the names and the exit status that each has to come with.
STATUS = {
    "internal": 1, "usage": 2, "memory": 1, "cancelled": 130, "deadline": 124, "network": 3, "stalled": 3,
    "registry": 3, "auth": 4, "not_found": 10, "manifest": 8, "media_type": 8, "platform": 8, "unsupported": 8,
    "limit": 8, "digest": 5, "size": 5, "diff_id": 5, "decompress": 8, "tar": 8, "escape": 8, "whiteout": 8,
    "xattr": 9, "key": 6, "decrypt": 6, "policy": 7, "storage": 9, "space": 9, "permission": 9,
}


def mounts_below(path):
    """Mount points at or below path, deepest first."""
    path = os.path.realpath(path)
    found = []
    with open("/proc/self/mountinfo", "rb") as f:
        for line in f:
            where = line.split()[4].decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
            if where == path or where.startswith(path + "/"):
                found.append(where)
    return sorted(found, key=len, reverse=True)


def unmount_all(path):
    for where in mounts_below(path):
        subprocess.run(["umount", "-l", where], check=False, stderr=subprocess.DEVNULL)


class Result:
    """How one run ended: status (negative: signal), out, err (text), maxrss (bytes), seconds."""

    def __init__(self, argv, report, out, err):
        self.argv, self.out, self.err = argv, out, err
        self.status, self.maxrss, self.seconds = report["status"], report["maxrss"], report["seconds"]

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as e:
            raise AssertionError("stdout is not one JSON document: %s\n%s" % (e, self)) from None

    @property
    def code(self):
        """Name of the error that --format json reported; it must fit the exit status."""
        error = self.json["error"]
        assert STATUS[error["code"]] == self.status == error["class"], "error and status differ\n%s" % self
        assert error["message"].strip() and "\n" not in error["message"], "message is not one line\n%s" % self
        return error["code"]

    def __str__(self):
        return "$ %s\nstatus %s after %.1f s\n-- stdout\n%s\n-- stderr\n%s" % (
            " ".join(self.argv), self.status, self.seconds, self.out[-3000:], self.err[-3000:])


class Run:
    """A run under way."""

    def __init__(self, argv, env, limits, scratch):
        self.argv = argv
        self.dir = tempfile.TemporaryDirectory(prefix="run-", dir=scratch)
        self.report_path = os.path.join(self.dir.name, "report")
        with open(os.path.join(self.dir.name, "spec"), "w") as f:
            json.dump(limits, f)
        with open(os.path.join(self.dir.name, "out"), "wb") as out, \
                open(os.path.join(self.dir.name, "err"), "wb") as err:
            self.launcher = subprocess.Popen(
                [sys.executable, "-IS", LAUNCH, f.name, self.report_path, *argv], stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, env=env, start_new_session=True)

    def report(self):
        try:
            with open(self.report_path) as f:
                return json.load(f)
        except FileNotFoundError:
            return {}

    @property
    def pid(self):
        while not self.report() and self.launcher.poll() is None:
            time.sleep(0.001)
        return self.report()["pid"]

    def running(self):
        return self.launcher.poll() is None

    def kill(self, sig=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, sig)

    def text(self, name):
        with open(os.path.join(self.dir.name, name), errors="surrogateescape") as f:
            return f.read()

    def wait(self, timeout=120):
        try:
            self.launcher.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.launcher.wait()
            raise AssertionError("still running after %d s: %s\n%s" % (
                timeout, " ".join(self.argv), self.text("err")[-3000:])) from None
        result = Result(self.argv, self.report(), self.text("out"), self.text("err"))
        self.dir.cleanup()
        check_clean_end(result)
        return result


def check_clean_end(result):
    """Whatever was asked for, a crash or a sanitizer's finding is never right."""
    assert result.status not in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE,
                                 -signal.SIGPIPE), "crashed\n%s" % result
    for mark in ("AddressSanitizer", "ThreadSanitizer", "LeakSanitizer", "runtime error:", "assertion"):
        assert mark not in result.err, "%s\n%s" % (mark, result)


class Coco:
    """coco-pull with one store. `base` goes into every pull (such as --plain-http)."""

    def __init__(self, binary, store, scratch, base=()):
        self.binary, self.store, self.scratch, self.base = binary, str(store), str(scratch), list(base)

    def start(self, *args, env=None, **limits):
        return self.start_raw(*args, "--store", self.store, env=env, **limits)

    def start_raw(self, *args, env=None, **limits):
        # No proxy, option or credential of whoever runs the tests may decide over their outcome.
        environ = {k: v for k, v in os.environ.items()
                   if not k.lower().endswith("_proxy") and not k.startswith("COCO_PULL_") and k != "REGISTRY_AUTH_FILE"}
        environ.update({"HOME": self.scratch, "XDG_RUNTIME_DIR": self.scratch, "LC_ALL": "C"})
        environ.update(env or {})
        return Run([self.binary, *map(str, args)], environ, limits, self.scratch)

    def run(self, *args, timeout=120, **limits):
        return self.start(*args, **limits).wait(timeout)

    def start_pull(self, image, *options, **limits):
        return self.start("pull", image, "--format", "json", "--progress", "none", *self.base, *options, **limits)

    def try_pull(self, image, *options, timeout=120, **limits):
        return self.start_pull(image, *options, **limits).wait(timeout)

    def pull(self, image, *options, timeout=120, **limits):
        """Pulls, which must work; returns the object on stdout."""
        result = self.try_pull(image, *options, timeout=timeout, **limits)
        assert result.status == 0, str(result)
        return result.json

    def pull_fails(self, image, *options, code, timeout=120, **limits):
        """Pulls, which must fail with one of the codes; returns the message."""
        result = self.try_pull(image, *options, timeout=timeout, **limits)
        assert result.status != 0, "should have failed\n%s" % result
        assert result.code in ([code] if isinstance(code, str) else code), str(result)
        return result.json["error"]["message"]

    @contextlib.contextmanager
    def mounted(self, image, *options):
        """The image mounted on a new directory, for the length of the block."""
        where = tempfile.mkdtemp(prefix="mnt-", dir=self.scratch)
        result = self.run("mount", image, where, *options)
        try:
            assert result.status == 0, str(result)
            yield where
        finally:
            if result.status == 0:
                undo = self.run("unmount", where)
            unmount_all(where)
            os.rmdir(where)
        assert undo.status == 0, str(undo)

    def images(self):
        """References that `list` shows."""
        result = self.run("list", "--format", "json")
        assert result.status == 0, str(result)
        return [i["reference"] for i in result.json]

    def layers(self):
        """Names of what stands below layers/, the place that later runs trust."""
        try:
            return sorted(os.listdir(os.path.join(self.store, "layers")))
        except FileNotFoundError:
            return []

    def staging(self):
        """What a dead or failed run left over, with its files."""
        left = []
        for where, dirs, files in os.walk(os.path.join(self.store, "staging")):
            left += [os.path.join(where, n) for n in dirs + files]
        return left


def hash_store(store):
    """One digest over every name, type, mode, size, time and content below a store."""
    h = hashlib.sha256()
    for where, dirs, files in os.walk(os.fsencode(store)):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(where, name)
            st = os.lstat(path)
            h.update(b"%s %o %d %d %d %d\0" % (path, st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_nlink))
            if os.path.isfile(path) and not os.path.islink(path):
                h.update(b"%d" % st.st_mtime_ns)
                with open(path, "rb") as f:
                    h.update(hashlib.file_digest(f, "sha256").digest())
    return h.hexdigest()
