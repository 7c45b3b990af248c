# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared, each as the command that pulls one image into an empty store."""
import dataclasses
import functools
import os
import re
import shlex
import shutil
import subprocess
import typing

import figures
import measure

HERE = os.path.dirname(os.path.abspath(__file__))
ALL = ("gzip", "zstd", "none", "encrypted")


@dataclasses.dataclass(frozen=True)
class Job:
    """One pull: of this image, from this server, into this store, with the key that opens it."""
    image: object
    host: str
    store: str
    key: str
    binary: str
    keys_file: str
    daemon: object = None

    @property
    def reference(self):
        return self.image.reference(self.host)


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    programs: tuple
    does: tuple                     # of ALL
    command: typing.Callable        # Job -> argv
    version: tuple = ()             # command that tells it
    server: str = "registry"
    daemon: bool = False            # has containerd do it
    stats: bool = False             # prints coco-pull's --stats
    lacks: str = ""                 # why it cannot take part, where that is no missing program

    @property
    def variant(self):
        return "@" in self.name or self.name.endswith("-24M")

    def missing(self):
        """Why it cannot take part, or nothing."""
        missing = [p for p in self.programs if not shutil.which(p)]
        return "not installed: " + " ".join(missing) if missing else self.lacks

    def can(self, image):
        return image.compression in self.does and (not image.encrypted or "encrypted" in self.does)

    def version_text(self):
        if not self.version:
            return ""
        done = subprocess.run(self.version, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return measure.last_line(done.stdout.strip().splitlines()[0])[:60] if done.stdout.strip() else ""


@functools.cache
def knows_snapshots(binary):
    """Does this coco-pull write layers in more than one way?"""
    done = subprocess.run([binary, "pull", "--help"], capture_output=True, text=True, check=False)
    return "--snapshot " in done.stdout


def snapshot_options(binary, kind="overlay"):
    return ["--snapshot", kind] if knows_snapshots(binary) else []


def coco_pull(*options):
    def command(job):
        argv = [job.binary, "pull", job.reference, "--plain-http", "--store", os.path.join(job.store, "s"),
                "--progress", "none", "--format", "json", "--stats", *options]
        return argv + (["--decryption-key", job.key] if job.image.encrypted else [])
    return command


def containers_storage(program, *options):
    """podman and buildah have their options in common."""
    def command(job):
        argv = [program, "--root", job.store + "/root", "--runroot", job.store + "/run", "--storage-driver", "overlay",
                *(o.format(store=job.store) for o in options), "pull", "-q", "--tls-verify=false",
                "--signature-policy", policy(job.store)]
        return argv + (["--decryption-key", job.key] if job.image.encrypted else []) + [job.reference]
    return command


def policy(store):
    """None of the peers has signatures to check."""
    path = os.path.join(store, "home", "policy.json")
    with open(path, "w") as f:
        f.write('{"default":[{"type":"insecureAcceptAnything"}]}')
    return path


def ctr(job):
    return ["ctr", "-a", job.daemon.socket, "images", "pull", "--plain-http", "--snapshotter", "overlayfs",
            job.reference]


def skopeo_umoci(job):
    key = "--decryption-key " + shlex.quote(job.key) if job.image.encrypted else ""
    return ["sh", "-ec", "skopeo --insecure-policy copy -q --src-tls-verify=false {key} docker://{ref} oci:{at}/oci:x\n"
            "exec umoci unpack --image {at}/oci:x {at}/bundle".format(
                key=key, ref=shlex.quote(job.reference), at=shlex.quote(job.store))]


def shell(*options):
    def command(job):
        keys = ["-k", job.keys_file] if job.image.encrypted else []
        return [os.path.join(HERE, "shell-pull"), *options, *keys, job.host, job.image.repository, job.image.tag,
                os.path.join(job.store, "s")]
    return command


def custom(name, command):
    """--peer NAME=COMMAND: a shell command with placeholders."""
    def argv(job):
        values = {"image": job.image.name, "registry": job.host, "reference": job.reference, "store": job.store,
                  "key": job.key or ""}
        return ["bash", "-c", re.sub(r"\{(%s)\}" % "|".join(values), lambda m: shlex.quote(values[m[1]]), command)]
    does = ALL if "{key}" in command else ALL[:3]
    return Peer(name, ("bash",), does, argv)


SHELL_PROGRAMS = ("curl", "igzip", "zstd", "tar", "jq")
PLAIN = ("gzip", "zstd", "none")


def known(binary):
    """All peers by name, in the order of the report."""
    own, overlay = (binary, "version"), snapshot_options(binary)
    peers = [
        Peer(figures.SUBJECT, (binary,), ALL, coco_pull(*overlay), own, stats=True),
        Peer(figures.EROFS, (binary,), ALL, coco_pull("--snapshot", "erofs"), own, stats=True,
             lacks="" if overlay else "%s has no --snapshot" % binary),
        Peer("coco-pull-24M", (binary,), ALL, coco_pull(*overlay, "--memory", "24M"), own, stats=True),
        Peer("coco-pull@nginx", (binary, "nginx"), ALL, coco_pull(*overlay), own, server="nginx", stats=True),
        Peer("shell", SHELL_PROGRAMS, PLAIN, shell(), ("curl", "--version")),
        Peer("shell@nginx", (*SHELL_PROGRAMS, "nginx"), PLAIN, shell(), ("curl", "--version"), server="nginx"),
        Peer("shell-verified", (*SHELL_PROGRAMS, "sha256sum", "openssl"), ALL, shell("-v"), ("igzip", "--version")),
        Peer("containerd", ("containerd", "ctr"), PLAIN, ctr, ("containerd", "--version"), daemon=True),
        Peer("podman", ("podman",), PLAIN, containers_storage(
            "podman", "--tmpdir={store}/tmp", "--events-backend=none", "--cgroup-manager=cgroupfs"),
            ("podman", "--version")),
        Peer("buildah", ("buildah",), ALL, containers_storage("buildah"), ("buildah", "--version")),
        Peer("skopeo-umoci", ("skopeo", "umoci"), ("gzip", "none", "encrypted"), skopeo_umoci,
             ("skopeo", "--version")),
    ]
    return {peer.name: peer for peer in peers}
