# SPDX-License-Identifier: Apache-2.0
"""Under a kernel of Debian's, in QEMU: unit tests and the program, see tests/guest. It is booted once, and each check
that it ran is a test here."""
import os
import pathlib
import shutil
import sys

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "guest"))

import guest  # noqa: E402

pytestmark = pytest.mark.slow


def boot(where, binary, kernel, shared, names):
    g = guest.assemble(where, pathlib.Path(binary).parents[2], kernel, shared, names)
    g.results = g.run()
    return g


@pytest.fixture(scope="module")
def booted(binary, scratch):
    where = scratch / "guest"
    where.mkdir()
    cache = pathlib.Path(os.environ.get("COCO_PULL_CACHE") or where / "cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    shared = os.environ.get("COCO_PULL_SHARED") or SOURCE.parent / "shared"
    try:
        kernel = guest.Kernel(where / "kernel", cache)
        g = boot(where, binary, kernel, shared, guest.names_of_checks())
        failed = [name for name, result in g.results.items() if result.status == "failed" and name != "kernel"]
        if failed:
            # An emulated processor that has to share its own with others may take longer than any limit of a check;
            # what fails for its own sake does so twice.
            print("again, in a guest of their own: %s" % ", ".join(failed))
            (where / "again").mkdir()
            again = boot(where / "again", binary, kernel, shared, failed).results
            g.results.update({name: again[name] for name in failed})
    except guest.Unavailable as e:
        pytest.skip("no guest: %s" % e)
    yield g
    shutil.rmtree(where)


@pytest.mark.parametrize("name", guest.names_of_checks() + ["kernel"])
def test_guest(booted, name):
    result = booted.results[name]
    if result.status == "skipped":
        pytest.skip(result.text)
    assert result.status == "passed", "%s\n\nThe kernel:\n%s" % (result.text, booted.log())
