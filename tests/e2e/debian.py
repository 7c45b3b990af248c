# SPDX-License-Identifier: Apache-2.0
"""Debian packages, downloaded with whatever this machine's apt is configured for and unpacked, not installed."""
import subprocess


class NotThere(Exception):
    """apt-get cannot download it."""


def download(cache, packages):
    """Paths of the packages' .deb files. What the cache has already is not fetched again."""
    found = {}
    for package in packages:
        have = sorted(cache.glob(package + "_*.deb"))
        if not have:
            # apt drops to the user _apt for downloads when that user may write there; in our directory it may not.
            done = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", "download", "-q", package], cwd=cache,
                                  capture_output=True, text=True)
            if done.returncode:
                raise NotThere("apt-get cannot download %s: %s" % (package, done.stderr.strip().splitlines()[-1:]))
            have = sorted(cache.glob(package + "_*.deb"))
        found[package] = have[-1]
    return found


def field(deb, name):
    return subprocess.run(["dpkg-deb", "--field", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def unpack(deb, where):
    subprocess.run(["dpkg-deb", "--extract", deb, where], check=True)
