# SPDX-License-Identifier: Apache-2.0
"""What the figures were taken on."""
import os
import platform


def first(path, key):
    try:
        with open(path) as f:
            return next((line.partition(key[-1])[2].strip().strip('"') for line in f if line.startswith(key[:-1])), "")
    except OSError:
        return ""


def cores():
    return len(os.sched_getaffinity(0))


def describe():
    return {"cpu": first("/proc/cpuinfo", "model name:").lstrip(": ") or platform.machine(), "cores": cores(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "kernel": platform.release(),
            "system": first("/etc/os-release", "PRETTY_NAME="), "architecture": platform.machine()}


def oci_architecture():
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
