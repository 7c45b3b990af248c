# SPDX-License-Identifier: Apache-2.0
"""Makes the tar files of layers: from this machine's Debian packages, from a tree with everything that is special
about files, and entry by entry."""
import io
import os
import subprocess
import tarfile

LONG = "long-" * 51                 # 255 bytes, the longest name that a file system takes
MTIME = 1_700_000_000
LIVE = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp")    # base-files owns them; they change while tar reads


def of_packages(tar, packages):
    """The files of installed packages, as GNU tar writes them. Paths go through realpath first, because dpkg knows
    /bin/ls and the directory /bin is a symbolic link on a merged system."""
    listed = subprocess.run(["dpkg", "-L", *packages], check=True, capture_output=True, text=True).stdout
    names = set()
    for name in listed.splitlines():
        if not name.startswith("/") or name == "/." or name in LIVE or not os.path.lexists(name):
            continue
        name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        while name != "/":
            names.add("." + name)
            name = os.path.dirname(name)
    assert len(names) > 100, "dpkg knows no files of %s" % (packages,)
    subprocess.run(["tar", "--no-recursion", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax",
                    "--null", "-C", "/", "-T", "-", "-cf", tar],
                   input="\0".join(sorted(names)).encode(), check=True)
    return tar


def of_specials(tree, tar):
    """One of everything, packed by GNU tar with fractions of seconds, attributes and holes."""
    os.makedirs(tree)

    def put(name, data=b"x\n", mode=0o644, owner=(0, 0)):
        path = os.path.join(tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        os.chown(path, *owner)
        os.chmod(path, mode)
        return path

    put("s/setuid", mode=0o4755)
    put("s/setgid", mode=0o2755, owner=(0, 50))
    put("s/none", mode=0)
    put("s/empty", b"")
    put("s/owner", owner=(3_000_000_000, 2_500_000_000))
    os.mkdir(os.path.join(tree, "s/sticky"))
    os.chmod(os.path.join(tree, "s/sticky"), 0o1777)
    os.mkdir(os.path.join(tree, "s/inherit"))
    os.chown(os.path.join(tree, "s/inherit"), 7, 8)
    os.chmod(os.path.join(tree, "s/inherit"), 0o2770)
    subprocess.run(["setcap", "cap_net_raw,cap_net_bind_service+ep", put("s/caps", mode=0o755)], check=True)
    subprocess.run(["setfacl", "-m", "u:1234:r,g:70000:rwx", put("s/acl")], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", os.path.join(tree, "s/inherit")], check=True)
    try:
        os.setxattr(put("s/xattr"), "user.note", b"\0binary\xff")
    except OSError:
        pass                        # tmpfs before Linux 6.6 has no user.* attributes: then neither has the image
    os.mkfifo(os.path.join(tree, "s/fifo"), 0o620)
    os.mknod(os.path.join(tree, "s/null"), 0o20666, os.makedev(1, 3))
    os.mknod(os.path.join(tree, "s/block"), 0o60640, os.makedev(7, 300))
    with open(os.path.join(tree, "s/sparse"), "wb") as f:
        f.seek(1 << 20)
        f.write(b"island")
        f.truncate(8 << 20)
    first = put("s/hard1", b"shared\n")
    os.link(first, os.path.join(tree, "s/hard2"))
    os.makedirs(os.path.join(tree, "s/elsewhere"))
    os.link(first, os.path.join(tree, "s/elsewhere/hard3"))
    os.symlink("hard1", os.path.join(tree, "s/link"))
    os.symlink("/nowhere/at all", os.path.join(tree, "s/dangling"))
    os.symlink("../" * 30 + "etc", os.path.join(tree, "s/outward"))
    os.symlink("t" * 300, os.path.join(tree, "s/longtarget"))
    os.lchown(os.path.join(tree, "s/link"), 1000, 1000)
    put("s/" + LONG)
    put("s/" + "/".join("directory-%02d" % i for i in range(40)) + "/deep")
    put("s/ünïcode ☂")
    put(b"s/not\xffutf8\nnewline".decode("utf-8", "surrogateescape"))
    put("s/.hidden")
    os.utime(put("s/old"), ns=(0, -86_400 * 10**9))
    os.utime(put("s/fraction"), ns=(0, MTIME * 10**9 + 123_456_789))
    os.utime(os.path.join(tree, "s/sticky"), ns=(0, MTIME * 10**9 + 1))
    subprocess.run(["tar", "--sparse", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=pax",
                    "--sort=name", "-C", tree, "-cf", tar, "."], check=True)
    return tar


class Writer:
    """A tar file, entry by entry. Every method returns the writer, so that entries can be chained."""

    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tar.close()

    def add(self, name, kind, data=b"", **fields):
        info = tarfile.TarInfo(name)
        info.type, info.size, info.mtime = kind, len(data), MTIME
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name, data=b"", mode=0o644, **fields):
        return self.add(name, tarfile.REGTYPE, data, mode=mode, **fields)

    def dir(self, name, mode=0o755, **fields):
        return self.add(name, tarfile.DIRTYPE, mode=mode, **fields)

    def symlink(self, name, target):
        return self.add(name, tarfile.SYMTYPE, linkname=target, mode=0o777)

    def whiteout(self, path):
        return self.file(os.path.join(os.path.dirname(path), ".wh." + os.path.basename(path)), mode=0)

    def opaque(self, directory):
        return self.file(directory + "/.wh..wh..opq", mode=0)
