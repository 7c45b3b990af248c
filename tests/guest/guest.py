#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs checks under a kernel of Debian's, in QEMU: for what this machine's own kernel has not, and for older ones.

The guest is that kernel and an initramfs made here: programs of this machine with their libraries, the programs under
test, and the checks. It has no network and no disk. Results are lines of TAP on its second serial line; what the kernel
has to say is on the first.

    guest.py BUILD-DIRECTORY [CHECK...]     runs the checks by hand, and shows all that the guest wrote

    COCO_PULL_GUEST_KERNEL   the kernel's package, default linux-image-cloud-amd64
    COCO_PULL_GUEST_SUITE    where apt-get takes it from, such as bookworm-backports; default what it is configured for
    COCO_PULL_GUEST_ACCEL    as of qemu's -accel, default tcg, which emulates
    COCO_PULL_CACHE          where downloaded packages are kept
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
sys.path.insert(0, str(SOURCE / "tests" / "e2e"))

import compare  # noqa: E402
import debian  # noqa: E402
import images  # noqa: E402
import tarball  # noqa: E402

KERNEL = os.environ.get("COCO_PULL_GUEST_KERNEL") or "linux-image-cloud-amd64"
SUITE = os.environ.get("COCO_PULL_GUEST_SUITE")
# Not KVM where there is one: in some sandboxes it is there and runs nothing.
ACCEL = os.environ.get("COCO_PULL_GUEST_ACCEL") or "tcg"
# Emulated by QEMU 7.2, cmpxchg16b without a lock prefix leaves garbage in the flags; 6.12 does not survive that.
CPU = "max,-cx16"
# Unit tests that have to do with what the kernel makes of images, and the case of each that takes a minute where the
# processor is emulated without having much to do with the kernel. None of them may skip anything there.
UNITS = {"erofs_mount": "", "erofs_image": "same_bytes", "erofs_inodes": "", "erofs_merge": "sizes_and_tails",
         "erofs_stack": "", "overlay": "", "verity_device": ""}
# Loaded in the guest as they are asked for, with what they depend on.
MODULES = ("loop", "erofs", "overlay", "dm-mod", "dm-verity", "crc32c-intel", "sha256-ssse3")
# What the checks, the unit tests and init call.
TOOLS = ("awk", "b2sum", "basename", "cat", "chmod", "cmp", "cp", "cut", "dd", "diff", "dmesg", "dmsetup", "find",
         "flock", "fsck.erofs", "getfattr", "grep", "head", "ln", "losetup", "ls", "mkdir", "mkfs.ext4", "mknod",
         "mktemp", "modprobe", "mount", "mv", "nproc", "readlink", "rm", "rmdir", "sed", "seq", "sh", "sleep", "sort",
         "stat", "sync", "tail", "tar", "timeout", "touch", "truncate", "umount", "uname", "veritysetup", "wc", "xargs")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# On a machine that has nothing else to do all of it takes a minute.
CHECK_SECONDS = 300
ALL_SECONDS = 600
COMPLAINTS = re.compile(r"^.*(?:WARNING: |BUG: |Oops|general protection|Call Trace|Kernel panic).*$", re.MULTILINE)
RESULT = re.compile(r"^(not ok|ok) - (\S+)(?: # (?:SKIP (.*)|.*))?$")


class Unavailable(Exception):
    """There is no guest to be had here, and why."""


class Result:
    def __init__(self, status, text):
        self.status = status    # "passed", "failed" or "skipped"
        self.text = text        # what it wrote if it failed, why it was skipped


def which(tool):
    path = shutil.which(tool, path=SBIN)
    if not path:
        raise Unavailable("no %s here" % tool)
    return path


class Kernel:
    """Image and modules of a kernel package, unpacked below a directory."""

    def __init__(self, where, cache):
        try:
            deb = self._download(where, cache)
        except debian.NotThere as e:
            raise Unavailable(str(e))
        debian.unpack(deb, where)
        self.image = next((where / "boot").glob("vmlinuz-*"))
        self.version = self.image.name.split("-", 1)[1]
        self.where = where
        self.modules = "lib/modules/" + self.version
        self._depmod(where)

    def _download(self, where, cache):
        options = []
        if SUITE:
            options = debian.suite_options(SUITE, where / "apt")
            cache = cache / SUITE
            cache.mkdir(exist_ok=True)
        deb = debian.download(cache, [KERNEL], options)[KERNEL]
        # linux-image-cloud-amd64 has nothing in it but the name of the present version's package
        real = re.match(r"(linux-image-\d\S+)", debian.field(deb, "Depends"))
        return debian.download(cache, [real.group(1)], options)[real.group(1)] if real else deb

    def _depmod(self, where):
        subprocess.run([which("depmod"), "-b", where, self.version], check=True)

    def copy_modules(self, root, names):
        """The modules, and all that they need, to the same place below root."""
        here, there = self.where / self.modules, root / "usr" / self.modules
        wanted = {name.replace("-", "_") for name in names}
        found = set()
        for line in (here / "modules.dep").read_text().splitlines():
            path, needs = line.split(":")
            name = os.path.basename(path).split(".")[0].replace("-", "_")
            if name in wanted:
                found.update([path] + needs.split())
        for path in found:
            (there / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here / path, there / path)
        for path in here.glob("modules.builtin*"):
            shutil.copy(path, there)
        shutil.copy(here / "modules.order", there)
        self._depmod(root / "usr")


class Root:
    """The guest's file system, put together in a directory."""

    def __init__(self, where):
        self.path = where
        for name in ("usr/bin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "etc", "guest/checks"):
            (where / name).mkdir(parents=True)
        for name, to in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"),
                         ("usr/sbin", "bin")):
            (where / name).symlink_to(to)
        (where / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (where / "etc" / "group").write_text("root:x:0:\n")

    def _put(self, path, to):
        to = self.path / to
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists():
            shutil.copy(path, to)
            to.chmod(0o755)

    def add_program(self, path, to):
        """A program and the libraries that it is linked with."""
        self._put(path, to)
        done = subprocess.run(["ldd", path], capture_output=True, text=True)
        if "not found" in done.stdout:
            raise Unavailable("%s: %s" % (path, done.stdout))
        for library in re.findall(r"(?:=> |^\s*)(/\S+) \(", done.stdout, re.MULTILINE):
            self._put(library, library.lstrip("/"))

    def add_tools(self, names):
        for name in names:
            self.add_program(which(name), "usr/bin/" + name)

    def pack(self, out):
        with open(out, "wb") as f:
            names = subprocess.Popen(["find", ".", "-mindepth", "1", "-print0"], cwd=self.path, stdout=subprocess.PIPE)
            subprocess.run([which("cpio"), "--quiet", "-o", "-0", "-H", "newc"], cwd=self.path, stdin=names.stdout,
                           stdout=f, check=True)
            names.stdout.close()
            names.wait()
        return out


class Guest:
    """A guest that is put together, booted once, and then has results."""

    def __init__(self, where, build, kernel):
        self.where = where
        self.build = pathlib.Path(build)
        self.kernel = kernel
        self.root = Root(where / "root")
        self.console = where / "console"
        self.tap = where / "tap"
        self.names = []
        self.complaint = ""     # of qemu, or about it
        self.seconds = self.cpu_seconds = None

    def add_data(self, path, name):
        """A directory, which is /guest/NAME there."""
        shutil.copytree(path, self.root.path / "guest" / name, symlinks=True, dirs_exist_ok=True)

    def add_images(self):
        """Images with all that is special about files, of few layers and of many; TAG.tree beside them is what each is
        when it is unpacked."""
        layout = images.Layout(self.where / "layout")
        small = images.sample_layers(str(self.where / "layers"), ("base-files", "tzdata"))
        layout.image(small, "small")
        layout.image(small[1:] + [self._layer(i) for i in range(21)], "many")
        for tag in ("small", "many"):
            unpacked = compare.umoci_unpack(layout.path, tag, str(self.where / tag))
            with open(layout.path + "/" + tag + ".tree", "wb") as f:
                subprocess.run(["sh", "-c", '. "$0"; tree "$1"', HERE / "lib.sh", unpacked], stdout=f, check=True,
                               env={**os.environ, "LC_ALL": "C.UTF-8"})
            shutil.rmtree(self.where / tag)
        self.add_data(layout.path, "image")
        for name in ("layers", "layout"):
            shutil.rmtree(self.where / name)

    def _layer(self, i):
        """One of many: adds, replaces and removes."""
        path = str(self.where / "layers" / ("%d.tar" % i))
        with tarball.Writer(path) as t:
            t.dir("many").file("many/last", b"%d\n" % i).file("many/%d" % i, images.noise(5000, i))
            t.dir("many/%d.d" % (i % 5)).file("many/%d.d/%d" % (i % 5, i), b"%d" % i)
            if i > 2:
                t.whiteout("many/%d" % (i - 2))
            if i == 11:
                t.opaque("many/2.d")
        return path

    def add_unit(self, name):
        """A program of tests/unit."""
        program = "tests/unit/test_" + name
        self.root.add_program(self.build / program, "guest/build/" + program)
        self._add_check("unit-" + name, "unit %s %s\n" % (name, UNITS.get(name, "")))

    def add_check(self, file):
        """A script; what it takes of the build is on its lines "# build: PATH"."""
        text = file.read_text()
        for path in re.findall(r"^# build: (\S+)$", text, re.MULTILINE):
            self.root.add_program(self.build / path, "guest/build/" + path)
        self._add_check(file.stem, text)

    def _add_check(self, name, text):
        self.names.append(name)
        (self.root.path / "guest" / "checks" / (name + ".sh")).write_text(". /guest/lib.sh\n" + text)

    def run(self):
        """Boots it and waits for its end. A dictionary of results by name."""
        self.root.add_tools(TOOLS)
        self.kernel.copy_modules(self.root.path, MODULES)
        shutil.copy(HERE / "init", self.root.path / "init")
        for name in ("check", "lib.sh"):
            shutil.copy(HERE / name, self.root.path / "guest" / name)
        (self.root.path / "guest" / "limit").write_text("%d\n" % CHECK_SECONDS)
        initrd = self.root.pack(self.where / "initrd")
        shutil.rmtree(self.root.path)
        began, used = time.monotonic(), os.times().children_user
        self._boot(initrd)
        self.seconds = time.monotonic() - began
        self.cpu_seconds = os.times().children_user - used
        initrd.unlink()
        return self._results()

    def _boot(self, initrd):
        # util-linux's setpriv has qemu end with this process, however that ends
        command = [which("setpriv"), "--pdeathsig", "KILL", which("qemu-system-x86_64"), "-nodefaults",
                   "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none", "-machine", "q35",
                   "-accel", ACCEL, "-cpu", CPU, "-smp", "2", "-m", "1536", "-kernel", self.kernel.image,
                   "-initrd", initrd, "-append", "console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=1",
                   "-serial", "file:%s" % self.console, "-serial", "file:%s" % self.tap]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as qemu:
            try:
                said = qemu.communicate(timeout=ALL_SECONDS)[1]
                self.complaint = said if qemu.returncode else ""
            except subprocess.TimeoutExpired:
                self.complaint = "it was not at its end after %d seconds" % ALL_SECONDS
            finally:
                qemu.kill()

    def _text(self, path):
        return path.read_text(errors="replace").replace("\r", "") if path.exists() else ""

    def _results(self):
        results, said = {}, []
        for line in self._text(self.tap).splitlines():
            match = RESULT.match(line)
            if not match:
                said.append(line)
                continue
            status, name, why = match.groups()
            results[name] = Result("skipped" if why else "passed" if status == "ok" else "failed",
                                   why or "\n".join(said))
            said = []
        for name in self.names:
            results.setdefault(name, Result("failed", "the guest did not get there\n" + "\n".join(said)))
        complaints = COMPLAINTS.findall(self._text(self.console))
        results["kernel"] = Result("failed" if complaints or self.complaint else "passed",
                                   "\n".join([self.complaint] + complaints))
        return results

    def log(self):
        """The end of what the kernel wrote."""
        return "".join(self._text(self.console).splitlines(True)[-40:])


def names_of_checks():
    return ["unit-" + name for name in UNITS] + sorted(file.stem for file in (HERE / "checks").glob("*.sh"))


def assemble(where, build, kernel, shared, names):
    """A guest with the checks of these names, an image, and what there is of the shared test data."""
    if not (pathlib.Path(build) / "tests" / "unit").is_dir():
        raise Unavailable("no tests were built in %s" % build)
    guest = Guest(where, build, kernel)
    guest.add_images()
    vectors = pathlib.Path(shared) / "vectors" / "erofs"
    if vectors.is_dir():
        guest.add_data(vectors, "shared/vectors/erofs")
    for name in names:
        if name.startswith("unit-"):
            guest.add_unit(name[5:])
        else:
            guest.add_check(HERE / "checks" / (name + ".sh"))
    return guest


def main():
    build, names = sys.argv[1], sys.argv[2:] or names_of_checks()
    shared = os.environ.get("COCO_PULL_SHARED") or SOURCE.parent / "shared"
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        where = pathlib.Path(scratch)
        cache = pathlib.Path(os.environ.get("COCO_PULL_CACHE") or where / "cache").resolve()
        cache.mkdir(parents=True, exist_ok=True)
        guest = assemble(where, build, Kernel(where / "kernel", cache), shared, names)
        results = guest.run()
        print(guest.console.read_text(errors="replace") + guest.tap.read_text(errors="replace"))
        for name, result in results.items():
            print("%-30s %s%s" % (name, result.status, ": " + result.text if result.status != "passed" else ""))
        print("%.1f seconds, %.1f of a CPU" % (guest.seconds, guest.cpu_seconds))
    sys.exit(any(result.status == "failed" for result in results.values()))


if __name__ == "__main__":
    try:
        main()
    except Unavailable as e:
        sys.exit("guest.py: %s" % e)
