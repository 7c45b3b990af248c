# SPDX-License-Identifier: Apache-2.0
"""Runs one program under limits and reports how it ended.

    python3 -IS launch.py SPEC.json REPORT.json PROGRAM [ARGUMENT...]

A process of its own because two things cannot be had from inside pytest: ru_maxrss of a child counts the memory that
its parent had at the fork (so the parent has to be small), and a seccomp filter or rlimit set in a preexec_fn of a
process with threads may hang. SPEC may hold umask, rlimits {name: number}, seccomp {system call: errno name}, files {path: what is there instead}.
REPORT gets {"pid"} at once and {"pid","status","maxrss","seconds"} at the end; status is negative for a signal.
"""
import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
import time

# The numbers are the same on x86_64 and aarch64: they come from the table that both share since 5.1.
SYSCALLS = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
BPF_LD_W_ABS, BPF_JEQ_K, BPF_RET_K = 0x20, 0x15, 0x06


def refuse(calls):
    """Installs a filter that lets the named system calls fail with the named errno."""
    code = struct.pack("<HBBI", BPF_LD_W_ABS, 0, 0, 0)
    for name, err in calls.items():
        code += struct.pack("<HBBI", BPF_JEQ_K, 0, 1, SYSCALLS[name])
        code += struct.pack("<HBBI", BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | getattr(errno, err))
    code += struct.pack("<HBBI", BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(text)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def replace_files(files):
    """Mounts over what is there, where nobody else sees it."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps = [lambda: libc.unshare(CLONE_NEWNS), lambda: libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)]
    steps += [lambda p=p, s=s: libc.mount(os.fsencode(s), os.fsencode(p), None, MS_BIND, None) for p, s in files.items()]
    for step in steps:
        if step():
            raise OSError(ctypes.get_errno(), "mounting over files")


def become(spec, argv):
    """In the child: takes the limits and turns into the program."""
    if spec.get("files"):
        replace_files(spec["files"])
    for name, value in spec.get("rlimits", {}).items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name.upper()), (value, value))
    if "umask" in spec:
        os.umask(spec["umask"])
    if spec.get("seccomp"):
        refuse(spec["seccomp"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(argv[0], argv)


def write(path, report):
    with open(path + ".tmp", "w") as f:
        json.dump(report, f)
    os.rename(path + ".tmp", path)


def main():
    with open(sys.argv[1]) as f:
        spec = json.load(f)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            become(spec, sys.argv[3:])
        except BaseException as e:
            os.write(2, b"launch: %r\n" % e)
            os._exit(125)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    write(sys.argv[2], {"pid": pid})
    _, status, usage = os.wait4(pid, 0)
    write(sys.argv[2], {"pid": pid, "status": os.waitstatus_to_exitcode(status), "maxrss": usage.ru_maxrss * 1024,
                        "seconds": time.monotonic() - began})


main()
