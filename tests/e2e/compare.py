# SPDX-License-Identifier: Apache-2.0
"""Compares two file trees in everything that an image carries, and makes the trees to compare with.

    python3 compare.py A B      prints the differences, exit status 1 if there are any

The judges are other people's unpackers: umoci for whole images, GNU tar for single layers.
"""
import hashlib
import os
import stat
import subprocess
import sys

# The overlay's own marks, in case a layer's directory is looked at directly.
HIDDEN = ("trusted.overlay.", "user.overlay.")


def content(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def xattrs(path):
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        if not name.startswith(HIDDEN):
            found[name] = os.getxattr(path, name, follow_symlinks=False).hex()
    return found


def entry(path):
    st = os.lstat(path)
    found = {"type": stat.S_IFMT(st.st_mode), "mode": stat.S_IMODE(st.st_mode), "owner": (st.st_uid, st.st_gid),
             "mtime": st.st_mtime_ns, "xattrs": xattrs(path)}
    if stat.S_ISREG(st.st_mode):
        found["size"], found["content"] = st.st_size, content(path)
    elif stat.S_ISLNK(st.st_mode):
        found["target"] = os.readlink(path)
    elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        found["rdev"] = st.st_rdev
    return found, (st.st_dev, st.st_ino, st.st_nlink)


def walk(root, top=True):
    """{path: what lstat, readlink, listxattr and the bytes say}; "links" lists the other names of the file.
    With top=False the root directory itself is left out: not every image says what it is like."""
    root = os.fsencode(root)
    tree, inodes = {}, {}

    def add(path, name):
        found, (dev, ino, links) = entry(path)
        tree[name] = found
        if not stat.S_ISDIR(found["type"]) and links > 1:
            inodes.setdefault((dev, ino), []).append(name)

    if top:
        add(root, b".")

    def fail(error):
        raise error

    for where, dirs, files in os.walk(root, onerror=fail):
        for name in dirs + files:
            path = os.path.join(where, name)
            add(path, os.path.relpath(path, root))
    for names in inodes.values():
        for name in names:
            tree[name]["links"] = sorted(names)
    return tree


def show(key, value):
    if key in ("mode", "type") and value is not None:
        return "%o" % value
    return repr(value)


def differences(want, have, ignore=()):
    """One line for each difference between two results of walk(); `ignore` names keys."""
    lines = ["missing: %r" % p for p in sorted(set(want) - set(have))]
    lines += ["unexpected: %r" % p for p in sorted(set(have) - set(want))]
    for path in sorted(set(want) & set(have)):
        for key in sorted(set(want[path]) | set(have[path])):
            a, b = want[path].get(key), have[path].get(key)
            if a != b and key not in ignore:
                lines.append("%r: %s is %s, should be %s" % (path, key, show(key, b), show(key, a)))
    return lines


def assert_same(want, have, ignore=()):
    assert want, "nothing to compare"
    lines = differences(want, have, ignore)
    assert not lines, "%d differences\n%s" % (len(lines), "\n".join(lines[:40]))


def umoci_unpack(layout, tag, where):
    """Unpacks a gzip or plain image of an OCI layout with umoci; returns the root file system's directory."""
    subprocess.run(["umoci", "unpack", "--image", "%s:%s" % (layout, tag), where], check=True,
                   stdout=subprocess.DEVNULL)
    return os.path.join(where, "rootfs")


def tar_unpack(tar, where):
    """Unpacks one layer with GNU tar, everything kept. Not --acls: with it tar waits for its own SCHILY.acl records and
    drops the system.posix_acl attributes; without --delay-directory-restore a directory that is left and entered
    again keeps the time of the last write."""
    os.makedirs(where, exist_ok=True)
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--numeric-owner",
                    "--warning=no-timestamp", "-xpf", tar, "-C", where], check=True)
    return where


def main():
    lines = differences(walk(sys.argv[1]), walk(sys.argv[2]))
    print("\n".join(lines))
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
