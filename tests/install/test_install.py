# SPDX-License-Identifier: Apache-2.0
"""What `meson install` leaves behind: the header by itself in each language it is for, the library and its names, and
the example embedder built with what pkg-config says, against the shared library and against the archive."""
import os
import re
import shlex
import shutil
import subprocess

import pytest

BUILD = os.environ["COCO_PULL_BUILD_DIR"]
SOURCE = os.environ["COCO_PULL_SOURCE"]
PREFIX = os.environ["COCO_PULL_PREFIX"].lstrip("/")
CC = shlex.split(os.environ["COCO_PULL_CC"])
EMBED = os.path.join(SOURCE, "tests/example/embed.c")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]

native = pytest.mark.skipif(not os.environ["COCO_PULL_NATIVE"], reason="a cross build runs nothing here")
plain = pytest.mark.skipif(not os.environ["COCO_PULL_PLAIN"], reason="sanitizers and LTO need more than pkg-config says")


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, "%s\n%s" % (" ".join(command), done.stdout)
    return done.stdout


class Installed:
    def __init__(self, root):
        self.prefix = os.path.join(root, PREFIX)
        self.libdir = os.path.join(self.prefix, os.environ["COCO_PULL_LIBDIR"])
        self.header = os.path.join(self.prefix, "include", "coco_pull.h")

    def flags(self, *options):
        """What pkg-config says to one who finds the files here and not in the prefix they were made for."""
        path = os.path.join(self.libdir, "pkgconfig")
        return shlex.split(run("pkg-config", "--define-variable=prefix=" + self.prefix, *options, "cocopull",
                               env=dict(os.environ, PKG_CONFIG_PATH=path)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("dest"))
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
    yield Installed(root)
    shutil.rmtree(root)


def declared(installed):
    """The functions of the header."""
    with open(installed.header) as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.DOTALL)
    names = set(re.findall(r"\b(cpull_\w+)\(", text))
    assert "cpull_pull_start" in names and "cpull_unmount" in names
    return names


def defined(*command):
    """Global names that nm finds; a symbol version is no name."""
    lines = [line.split() for line in run(*command).splitlines()]
    return {words[2].split("@")[0] for words in lines if len(words) == 3 and words[1] != "A"}


def test_files(installed):
    for name in ("lib/libcocopull.so", "lib/libcocopull.so.0", "lib/libcocopull.a", "lib/pkgconfig/cocopull.pc"):
        assert os.path.exists(os.path.join(installed.libdir, name[4:])), name
    for name in ("bin/coco-pull", "include/coco_pull.h", "share/man/man1/coco-pull.1", "share/man/man3/libcocopull.3"):
        assert os.path.exists(os.path.join(installed.prefix, name)), name
    library = os.path.join(installed.libdir, "libcocopull.so")
    assert "soname: [libcocopull.so.0]" in run("readelf", "-d", library)
    with open(os.path.join(installed.libdir, "pkgconfig/cocopull.pc")) as f:
        assert SOURCE not in f.read()


@pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
def test_header_in_c(installed, standard, tmp_path):
    source = tmp_path / "one.c"
    source.write_text("#include <coco_pull.h>\nint main(void) { return CPULL_OK; }\n")
    run(*CC, "-std=" + standard, *WARNINGS, "-fsyntax-only", "-I", os.path.dirname(installed.header), str(source))


@pytest.mark.parametrize("standard", ["c++11", "c++17"])
def test_header_in_cxx(installed, standard, tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("no C++ compiler")
    source = tmp_path / "one.cc"
    source.write_text("#include <coco_pull.h>\nint main() { return cpull_version() == nullptr; }\n")
    run(compiler, "-std=" + standard, *WARNINGS, "-fsyntax-only", "-I", os.path.dirname(installed.header), str(source))


def test_shared_library_exports_the_header(installed):
    library = os.path.join(installed.libdir, "libcocopull.so")
    assert defined("nm", "-D", "--defined-only", library) == declared(installed)


@plain
def test_archive_has_no_other_global_name(installed):
    """An archive knows no visibility: a queue_push of ours would meet the embedder's."""
    archive = os.path.join(installed.libdir, "libcocopull.a")
    assert defined("nm", "-g", "--defined-only", archive) == declared(installed)


def embedder(installed, tmp_path, *options):
    """Built as a stranger would: a copy of the one file, the flags of pkg-config, and names that the library has too."""
    source = shutil.copy(EMBED, tmp_path)
    mine = tmp_path / "mine.c"
    mine.write_text("int queue_push = 1;\nint log_line = 2;\nint error_set = 3;\nint ring_new = 4;\n")
    program = str(tmp_path / "embed")
    run(*CC, "-std=gnu11", *WARNINGS, source, str(mine), "-o", program, *installed.flags("--cflags", "--libs", *options))
    return program


def check_embedder(program, tmp_path, libdir):
    """It gets as far as an image that is not there, and says so."""
    done = subprocess.run([program, str(tmp_path / "store"), "oci:" + str(tmp_path / "nothing")], text=True,
                          capture_output=True, env=dict(os.environ, LD_LIBRARY_PATH=libdir))
    assert done.returncode == 10, done.stderr
    assert "not_found" in done.stderr and "nothing" in done.stderr


@native
@plain
def test_embedder_with_the_shared_library(installed, tmp_path):
    program = embedder(installed, tmp_path)
    assert "libcocopull.so.0" in run("readelf", "-d", program)
    check_embedder(program, tmp_path, installed.libdir)


@native
@plain
def test_embedder_with_the_archive(installed, tmp_path):
    aside = tmp_path / "aside"
    aside.mkdir()
    names = [name for name in os.listdir(installed.libdir) if ".so" in name]
    for name in names:
        os.rename(os.path.join(installed.libdir, name), str(aside / name))
    try:
        program = embedder(installed, tmp_path, "--static")
    finally:
        for name in names:
            os.rename(str(aside / name), os.path.join(installed.libdir, name))
    assert "libcocopull" not in run("readelf", "-d", program)
    check_embedder(program, tmp_path, "")
