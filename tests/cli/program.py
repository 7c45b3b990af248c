# SPDX-License-Identifier: Apache-2.0
"""Running the coco-pull program under test, with pipes or on a terminal.

COCO_PULL_PROGRAM names the program, linked against the played library of fake_library.c; COCO_PULL_EMBEDDER the example
of tests/example linked against the same; COCO_PULL_SOURCE the source tree (for the man page and the header).
"""
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

PROGRAM = os.environ["COCO_PULL_PROGRAM"]
EMBEDDER = os.environ["COCO_PULL_EMBEDDER"]
SOURCE = os.environ["COCO_PULL_SOURCE"]
DIGEST = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
ENVIRONMENT = {k: v for k, v in os.environ.items()
               if not k.startswith(("COCO_PULL_", "FAKE_")) and k not in ("NO_COLOR", "TERM")}


def default_signals():
    # A shell that runs this in the background has SIGINT ignored, and the program rightly leaves it so.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(*args, env=None, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([PROGRAM, *args], env={**ENVIRONMENT, **(env or {})}, capture_output=True, text=True,
                          timeout=30, preexec_fn=default_signals, **kw)


def start(*args, env=None, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([PROGRAM, *args], env={**ENVIRONMENT, **(env or {})}, text=True,
                            preexec_fn=default_signals, **kw)


def wait_for_line(stream, needle):
    for line in stream:
        if needle in line:
            return
    pytest.fail(f"no line with {needle!r}")


class Terminal:
    """Runs the program on a pseudo terminal of its own."""

    def __init__(self, *args, rows=24, columns=80, env=None, term="xterm"):
        try:
            pid, self.master = pty.fork()
        except OSError as e:
            pytest.skip("no pseudo terminal to be had: %s" % e)
        if not pid:
            try:
                default_signals()
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.execve(PROGRAM, [PROGRAM, *args], {**ENVIRONMENT, "TERM": term, **(env or {})})
            finally:
                os._exit(99)
        self.pid, self.output, self.status = pid, "", None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()
        os.close(self.master)

    def reap(self):
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, text):
        os.write(self.master, text.encode())

    def read_some(self):
        assert select.select([self.master], [], [], 10)[0], "the program is silent"
        try:
            data = os.read(self.master, 65536)
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            return False
        self.output += data.decode()
        return bool(data)

    def read_until(self, needle):
        begin = len(self.output)
        while needle not in self.output[begin:]:
            assert self.read_some(), self.output

    def read_to_end(self):
        while self.read_some():
            pass
        self.reap()
        return self.output


class Screen:
    """As much of a terminal as the progress needs: printing with wrapping, newline, cursor up, erase, colours."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells, self.row, self.column = [[]], 0, 0
        self.cursor_shown = True
        self.colors = set()

    def feed(self, text):
        for match in re.finditer(r"\x1b\[([?0-9;]*)([A-Za-z])|(.|\n|\r)", text):
            if match[3] is None:
                self.control(match[1], match[2])
            elif match[3] == "\n":
                self.row += 1
                while len(self.cells) <= self.row:
                    self.cells.append([])
            elif match[3] == "\r":
                self.column = 0
            else:
                assert match[3] >= " ", repr(match[3])
                if self.column == self.columns:
                    self.feed("\r\n")
                line = self.cells[self.row]
                line.extend(" " * (self.column + 1 - len(line)))
                line[self.column] = match[3]
                self.column += 1

    def control(self, parameter, letter):
        if letter == "A":
            assert int(parameter) < self.rows, "moved above the window"
            self.row -= int(parameter)
            assert self.row >= 0
        elif letter == "K":
            del self.cells[self.row][self.column:]
        elif letter == "J":
            del self.cells[self.row][self.column:]
            del self.cells[self.row + 1:]
        elif letter in "lh":
            assert parameter == "?25"
            self.cursor_shown = letter == "h"
        elif letter == "m":
            self.colors.add(parameter)
        else:
            pytest.fail(f"unexpected escape {parameter}{letter}")

    def lines(self):
        return ["".join(line).rstrip() for line in self.cells]


def show(*args, rows=24, columns=80, **kw):
    with Terminal(*args, rows=rows, columns=columns, **kw) as terminal:
        output = terminal.read_to_end()
    screen = Screen(rows, columns)
    screen.feed(output)
    return terminal, screen
