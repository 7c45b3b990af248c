# SPDX-License-Identifier: Apache-2.0
"""Runs one command and writes what it took to a file, as JSON.

    python3 -IS watch.py REPORT.json PROGRAM [ARGUMENT...]

A process of its own, and a small one: as the reaper of all that the command leaves behind it counts every process
of it, and ru_maxrss of a child is never less than the memory of the one that started it. wall_s ends with the
command, not with what it left behind. SIGTERM ends the command and all of its session.
"""
import ctypes
import json
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def stop(*_):
    os.killpg(0, signal.SIGKILL)


def written():
    """Bytes that this process and all it has reaped gave to write calls."""
    with open("/proc/self/io") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("wchar:"))


def main():
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, stop)
    began = time.monotonic()
    pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, setsigdef=[signal.SIGTERM, signal.SIGPIPE])
    status, wall_s = 0, 0.0
    while True:
        try:
            child, result = os.wait()
        except ChildProcessError:
            break
        if child == pid:
            wall_s = time.monotonic() - began
            status = os.waitstatus_to_exitcode(result)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(sys.argv[1], "w") as f:
        json.dump({"status": status, "wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime,
                   "peak_rss_bytes": usage.ru_maxrss * 1024, "written_bytes": written()}, f)


main()
