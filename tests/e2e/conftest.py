# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests.

    COCO_PULL_BIN        the program under test; default: the newest build*/engine/cli/coco-pull beside the sources
    COCO_PULL_SHARED     the open test cases, default ../shared beside the sources
    COCO_PULL_SANITIZED  set when the program is a sanitizer's build: limits on memory mean nothing then
    COCO_PULL_CACHE      where downloaded packages are kept between runs, default nowhere

Everything is written below one tmpfs of our own, so that nothing of it reaches a disk and all of it goes in one
unmount, whatever happened. Root is needed: for mounts, owners, devices.
"""
import glob
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import compare  # noqa: E402
import images  # noqa: E402
import registry  # noqa: E402
from program import Coco, unmount_all  # noqa: E402

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# Of one test with its fixtures, whatever it waits for: the longest, which boots a guest, has a limit of 600 of its own
# and takes a fifth of that. What hangs must fail, and say where, while there is still time for the others.
TEST_SECONDS = 700


def stop_in_order(*_):
    """SIGTERM as Ctrl-C, so that the fixtures stop their servers and take their mounts down. Once: a second signal must
    not break into that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def descendants(pid):
    """The process and all below it."""
    out = subprocess.run(["ps", "-eo", "pid=,ppid="], check=False, capture_output=True, text=True).stdout
    parents = [tuple(map(int, line.split())) for line in out.splitlines()]
    found = [pid]
    for one in found:
        found += [child for child, parent in parents if parent == one]
    return found


def too_long(*_):
    """What each of our threads waits for, and then a failure, with the stack of whatever Python was at."""
    subprocess.run(["ps", "-Lo", "pid,ppid,lwp,stat,etime,time,wchan:24,comm,args", "-p",
                    ",".join(map(str, descendants(os.getpid())))], check=False)
    raise AssertionError("still at it after %d s" % TEST_SECONDS)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol():
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)


def pytest_configure(config):
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGTERM, stop_in_order)
    signal.signal(signal.SIGINT, stop_in_order)
    config.addinivalue_line("markers", "slow: takes long with a sanitizer's build; left out of those runs")
    config.addinivalue_line("markers", "memory: says something about memory, which a sanitizer's build cannot")
    config.addinivalue_line("markers", "overlay: says something about directories, and is not run on EROFS")


def pytest_generate_tests(metafunc):
    """A module's SNAPSHOTS are what all of its tests are run on, but those that are about directories."""
    kinds = getattr(metafunc.module, "SNAPSHOTS", None)
    if kinds and "snapshot" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("overlay"):
        metafunc.parametrize("snapshot", kinds, indirect=True)


def pytest_collection_modifyitems(items):
    if not os.environ.get("COCO_PULL_SANITIZED"):
        return
    for item in items:
        if item.get_closest_marker("memory"):
            item.add_marker(pytest.mark.skip(reason="a sanitizer's build has its own needs of memory"))


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("COCO_PULL_BIN")
    if not path:
        built = sorted(glob.glob(str(SOURCE / "build*/engine/cli/coco-pull")), key=os.path.getmtime)
        path = built[-1] if built else ""
    if not os.access(path, os.X_OK):
        pytest.exit("no coco-pull to test: build it or set COCO_PULL_BIN (%r)" % path, 2)
    if os.geteuid():
        pytest.exit("the end-to-end tests need root", 2)
    return os.path.abspath(path)


@pytest.fixture(scope="session")
def shared():
    """The directory of the open test cases, or a skip."""
    path = pathlib.Path(os.environ.get("COCO_PULL_SHARED") or SOURCE.parent / "shared")
    if not (path / "cases" / "lib.py").exists():
        pytest.skip("no shared test cases at %s" % path)
    return path


@pytest.fixture(scope="session")
def scratch():
    """A tmpfs of this session."""
    path = tempfile.mkdtemp(prefix="coco-e2e-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=6g", "coco-e2e", path], check=True)
    # What is mounted here must not show up elsewhere, and the other way round.
    subprocess.run(["mount", "--make-private", path], check=True)
    yield pathlib.Path(path)
    unmount_all(path)
    os.rmdir(path)


@pytest.fixture
def work(scratch):
    """A directory of this test; what it left mounted goes with it."""
    path = tempfile.mkdtemp(prefix="test-", dir=scratch)
    yield pathlib.Path(path)
    unmount_all(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture(scope="session")
def erofs_here(binary, scratch):
    """Can images be mounted as EROFS? coco-pull tells by what it takes for auto."""
    layout = images.Layout(scratch / "auto")
    layout.tag(layout.manifest([layout.layer(images.empty_tar(scratch / "auto.tar"))]), "auto")
    result = Coco(binary, scratch / "auto-store", scratch).pull(layout.ref("auto"), "--snapshot", "auto")
    return result["snapshot"] == "erofs"


@pytest.fixture
def snapshot(request):
    """What layers become: directories, unless the test is run on something else."""
    kind = getattr(request, "param", "overlay")
    if kind == "erofs" and not request.getfixturevalue("erofs_here"):
        pytest.skip("EROFS cannot be mounted here")
    return kind


@pytest.fixture
def coco(new_coco):
    """coco-pull with a fresh store, for a registry without TLS."""
    return new_coco()


@pytest.fixture
def new_coco(binary, work, snapshot):
    """Makes more of them: new_coco(store name, options of every pull)."""
    return lambda name="store", base=("--plain-http",): Coco(
        binary, work / name, work, [*base, *(["--snapshot", snapshot] if snapshot != "overlay" else [])])


@pytest.fixture(scope="session")
def docker(scratch):
    """A plain registry for the whole session."""
    server = registry.DockerRegistry(scratch / "registry")
    yield server
    server.stop()


@pytest.fixture
def proxy(docker):
    server = registry.Proxy(docker)
    yield server
    server.stop()


class Sample:
    """An image of real files with all that is special about files: layout, its tar files, the tree it has to give."""

    def __init__(self, where, docker):
        self.tars = images.sample_layers(str(where / "layers"))
        self.layout = images.Layout(where / "layout")
        self.layout.image(self.tars, "gzip")
        self.layout.image(self.tars, "plain", "none")
        self.layout.image(self.tars, "zstd", "zstd")
        self.tree = compare.walk(compare.umoci_unpack(self.layout.path, "gzip", str(where / "umoci")), top=False)
        self.name = docker.push(self.layout.ref("gzip"), "sample:gzip")
        for tag in ("plain", "zstd"):
            # As it is: on the way to a registry skopeo would compress what is not compressed.
            docker.push(self.layout.ref(tag), "sample:" + tag, "--preserve-digests")
        self.repo = self.name.rsplit(":", 1)[0]

    def assert_mounted(self, where):
        compare.assert_same(self.tree, compare.walk(where, top=False))


@pytest.fixture(scope="session")
def sample(scratch, docker):
    where = scratch / "sample"
    where.mkdir()
    return Sample(where, docker)


LOGIN = ("puller", "s3cret:with colon")


@pytest.fixture(scope="session")
def guarded(scratch, sample):
    """A registry that wants a password: guarded.login."""
    server = registry.DockerRegistry(scratch / "guarded", login=LOGIN)
    server.push(sample.layout.ref("gzip"), "team/sample:gzip")
    yield server
    server.stop()


class Keys:
    """RSA key, EC key, RSA key with a password, and one that opens nothing; each (private, public)."""

    password = "correct horse"

    def __init__(self, where):
        self.rsa = images.rsa_key(where, "rsa")
        self.ec = images.ec_key(where, "ec")
        self.locked = images.rsa_key(where, "locked", self.password)
        self.other = images.rsa_key(where, "other")


@pytest.fixture(scope="session")
def keys(scratch):
    where = scratch / "keys"
    where.mkdir()
    return Keys(str(where))


class Encrypted:
    """The sample with its layers encrypted to the RSA key: a layout, and the same in the registry."""

    def __init__(self, where, sample, keys, docker):
        self.layout = str(where)
        images.encrypt(sample.layout.path, "gzip", keys.rsa[1], self.layout)
        self.ref = "oci:%s:gzip" % self.layout
        self.name = docker.push(self.ref, "sample:encrypted")


@pytest.fixture(scope="session")
def encrypted(scratch, sample, keys, docker):
    return Encrypted(scratch / "encrypted", sample, keys, docker)
