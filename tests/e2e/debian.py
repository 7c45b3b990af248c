# SPDX-License-Identifier: Apache-2.0
"""Debian packages, downloaded with whatever this machine's apt is configured for and unpacked, not installed."""
import os
import subprocess


class NotThere(Exception):
    """apt-get cannot download it."""


def download(cache, packages, options=()):
    """Paths of the packages' .deb files. What the cache has already is not fetched again."""
    found = {}
    for package in packages:
        have = sorted(cache.glob(package + "_*.deb"))
        if not have:
            # apt drops to the user _apt for downloads when that user may write there; in our directory it may not.
            done = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", *options, "download", "-q", package],
                                  cwd=cache, capture_output=True, text=True)
            if done.returncode:
                raise NotThere("apt-get cannot download %s: %s" % (package, done.stderr.strip().splitlines()[-1:]))
            have = sorted(cache.glob(package + "_*.deb"))
        found[package] = have[-1]
    return found


def suite_options(suite, where):
    """Options for download() that have apt-get know one suite of Debian's and nothing else: of this machine's mirror,
    with lists below a directory."""
    mirror = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                             "Codename: bookworm"], capture_output=True, text=True).stdout.split("\n")[0]
    os.makedirs(where / "lists" / "partial")
    with open(where / "sources.list", "w") as f:
        f.write("deb %s %s main\n" % (mirror, suite))
    options = ["-o", "Dir::Etc::SourceList=%s/sources.list" % where, "-o", "Dir::Etc::SourceParts=-",
               "-o", "Dir::State::Lists=%s/lists" % where]
    done = subprocess.run(["apt-get", "-o", "APT::Sandbox::User=root", *options, "-q", "update"], capture_output=True,
                          text=True)
    if done.returncode:
        raise NotThere("apt-get has no %s here: %s" % (suite, done.stderr.strip().splitlines()[-1:]))
    return options


def field(deb, name):
    return subprocess.run(["dpkg-deb", "--field", deb, name], capture_output=True, text=True, check=True).stdout.strip()


def unpack(deb, where):
    subprocess.run(["dpkg-deb", "--extract", deb, where], check=True)
