# SPDX-License-Identifier: Apache-2.0
"""Progress in all its forms, signals, and readers that go away."""
import fcntl
import json
import os
import re
import signal
import subprocess
import time

import pytest

from program import DIGEST, ENVIRONMENT, PROGRAM, Screen, Terminal, run, show, start, wait_for_line


# ---- signals and broken pipes --------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_cancels(number):
    process = start("slow", "--progress=plain", "--format=json")
    wait_for_line(process.stderr, "pulling")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=5)
    assert process.returncode == 130
    assert json.loads(stdout)["error"]["code"] == "cancelled"
    assert "coco-pull: error: pulling 'slow' was cancelled" in stderr


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_kills(second):
    process = start("stuck", "--progress=plain")
    wait_for_line(process.stderr, "pulling")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.4)
    process.send_signal(second)
    process.communicate(timeout=5)
    assert process.returncode == -second


def test_ignored_signal_stays_ignored():
    process = subprocess.Popen([PROGRAM, "slow", "--progress=plain", "--timeout=0.6"], env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for_line(process.stderr, "pulling")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 124


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_reader_of_stdout_gone():
    writer = broken_pipe()
    process = start("ok", "--progress=none", stdout=writer)
    os.close(writer)
    _, stderr = process.communicate(timeout=5)
    assert process.returncode == 1
    assert stderr == "coco-pull: error: writing to standard output: Broken pipe\n"


def test_reader_of_stderr_gone():
    for progress in ("plain", "json"):
        writer = broken_pipe()
        process = start("ok", "--progress=" + progress, "--log-level=debug", stderr=writer)
        os.close(writer)
        stdout, _ = process.communicate(timeout=5)
        assert (process.returncode, stdout) == (0, DIGEST + "\n")


def test_reader_of_stderr_stops_reading():
    process = start("slow", "--progress=json", "--log-level=error")
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    # The pipe is full after some ten events, and the program sits in write(): a signal has to get it out of there.
    time.sleep(1.2)
    process.terminate()
    # Freed of progress it cancels; only its last line may find no room until somebody reads.
    time.sleep(0.6)
    said = process.stderr.read()
    assert process.wait(timeout=5) == 130
    assert len(said) <= 4096 + 100 and said.endswith("was cancelled\n")
    process.stdout.close()
    process.stderr.close()


def test_stdout_full():
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = start("list", stdout=full)
        _, stderr = process.communicate(timeout=5)
    assert process.returncode == 1 and "No space left" in stderr


@pytest.mark.parametrize("closed,status", [(0, 0), (1, 1), (2, 0)])
def test_closed_standard_descriptors(closed, status):
    process = subprocess.Popen(["sh", "-c", f'exec "$0" ok --progress=none {closed}>&-', PROGRAM], env=ENVIRONMENT,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, _ = process.communicate(timeout=5)
    assert process.returncode == status
    assert stdout == ("" if closed == 1 else DIGEST + "\n")


# ---- progress ------------------------------------------------------------------------------------------

def test_progress_plain():
    lines = run("ok").stderr.splitlines()
    assert "coco-pull: layer 1/3 a00000000000: verified, 28.6 MiB unpacked" in lines
    assert "coco-pull: layer 2/3 a10000000000: pulling 9.5 MiB, encrypted" in lines
    assert "coco-pull: layer 3/3 a20000000000: already in the store" in lines
    assert all("\x1b" not in line for line in lines)


def test_progress_plain_repeats_for_a_long_layer():
    stderr = run("crawl").stderr
    assert len(re.findall(r"^coco-pull: layer 1/1 a00000000000: \d\.\d MiB of 9\.5 MiB, 1\.\d MiB/s$", stderr,
                          re.M)) == 1


def test_progress_json():
    events = [json.loads(line) for line in run("ok", "--progress=json").stderr.splitlines()]
    assert [event["event"] for event in events[:-1]] == ["layer"] * (len(events) - 1)
    assert events[-1]["event"] == "done" and events[-1]["manifest_digest"] == DIGEST
    states = {}
    for event in events[:-1]:
        assert event["layer_count"] == 3 and event["total_bytes"] == 10000000
        assert event["digest"].startswith("sha256:a%d" % event["layer"])
        assert event["encrypted"] == (event["layer"] == 1)
        states.setdefault(event["layer"], []).append(event["state"])
    assert [states[i][-1] for i in range(3)] == ["verified", "verified", "reused"]


def test_log_lines():
    assert "[" not in run("log", "--log-level=error", "--progress=none").stderr.replace("[error] an error line", "")
    stderr = run("log", "--log-level=debug", "--progress=none").stderr
    assert stderr.splitlines()[:4] == ["coco-pull: [error] an error line", "coco-pull: [warn] a warning",
                                       "coco-pull: [info] some information",
                                       "coco-pull: [debug] a detail \\x1b[31m"]
    assert "coco-pull: error:" not in stderr


def test_log_lines_in_json_progress():
    events = [json.loads(line) for line in run("log", "--progress=json").stderr.splitlines()]
    assert {"event": "log", "level": "warn", "message": "a warning"} in events


def test_terminal_redraws_in_place():
    terminal, screen = show("ok")
    assert terminal.status == 0
    lines = screen.lines()
    assert re.match(r"a00000000000  \[=+\] +9\.5 MiB / +9\.5 MiB +verified$", lines[0])
    assert re.match(r"a10000000000  \[=+\] .* verified$", lines[1])
    assert re.match(r"a20000000000  \[=+\] .* in store$", lines[2])
    assert lines[3].startswith("3 of 3 layers, 19.1 MiB of 19.1 MiB")
    assert lines[4].startswith("coco-pull: example.org/image:latest")
    assert DIGEST in lines
    assert screen.cursor_shown and {"32", "0"} <= screen.colors
    assert terminal.output.count("a00000000000") > 2


@pytest.mark.parametrize("columns", [200, 100, 80, 60, 45, 30, 20, 5, 1])
def test_terminal_width(columns):
    with Terminal("slow", "--timeout=0.5", columns=columns) as terminal:
        output = terminal.read_to_end()
    blocks = output.split("\x1b[?25l")[1:]
    assert len(blocks) >= 2
    screen = Screen(24, columns)
    for block in blocks:
        screen.feed(block.split("\x1b[?25h")[0])
    assert max(map(len, screen.lines())) <= max(columns - 1, 1)
    if columns >= 30:
        assert screen.lines()[0].startswith("a00000000000") and screen.lines()[0].endswith("pulling")
    assert ("[" in screen.lines()[0]) == (columns in (45, 80, 100, 200))
    assert ("9.5 MiB" in screen.lines()[0]) == (columns >= 60)


def test_terminal_many_layers():
    with Terminal("many", rows=10, columns=100) as terminal:
        output = terminal.read_to_end()
    frames = output.split("\x1b[?25l")[1:]
    screen, shown = Screen(10, 100), []
    for frame in frames:
        screen.feed(frame.split("\x1b[?25h")[0])
        lines = [line for line in screen.lines() if line]
        assert len(lines) <= 9
        layers = [line for line in lines if re.match(r"[0-9a-f]{12} ", line)]
        assert all(line.endswith(("pulling", "unpacking")) for line in layers)
        shown.append(len(layers))
        assert re.search(r"^\d+ of 60 layers, .* \(\d+ not shown\)$", lines[-1])
    assert max(shown) == 4


def test_terminal_tiny_window():
    terminal, screen = show("ok", rows=1, columns=80)
    assert terminal.status == 0


def test_terminal_made_narrower_while_running():
    with Terminal("slow", "--timeout=1", rows=24, columns=100) as terminal:
        terminal.read_until("?25h")
        terminal.resize(24, 40)
        output = terminal.read_to_end()
    # The four lines of 99 columns stand on more rows now: the next frame goes up further than four.
    ups = [int(n) for n in re.findall(r"\x1b\[(\d+)A", output)]
    assert 4 in ups and max(ups) > 4 and ups[-1] == 4


def test_terminal_failure_and_log():
    _, screen = show("fail/digest", columns=200)
    assert any(line.endswith("failed") for line in screen.lines()) and "31" in screen.colors
    assert screen.lines()[4] == "coco-pull: error: pulling 'fail/digest': digest"
    _, screen = show("log", "--log-level=debug", columns=200)
    assert screen.lines()[3] == "coco-pull: [debug] a detail \\x1b[31m"
    assert screen.lines()[4].startswith("a00000000000")


def test_no_color():
    _, screen = show("ok", columns=200, env={"NO_COLOR": "1"})
    assert not screen.colors and screen.lines()[0].endswith("verified")


@pytest.mark.parametrize("args,term", [(["ok"], "dumb"), (["ok"], ""), (["ok", "--progress=plain"], "xterm")])
def test_terminal_without_cursor_motion(args, term):
    terminal, screen = show(*args, columns=200, term=term)
    assert "\x1b" not in terminal.output
    assert "coco-pull: layer 1/3 a00000000000: verified, 28.6 MiB unpacked" in screen.lines()


def test_interrupt_on_terminal_leaves_it_in_order():
    for image, keys, status in (("slow", "\x03", 130), ("stuck", "\x03\x03", -signal.SIGINT)):
        with Terminal(image, columns=120) as terminal:
            terminal.read_until("pulling")
            for key in keys:
                terminal.write(key)
                time.sleep(0.2)
            output = terminal.read_to_end()
        assert terminal.status == status
        assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
