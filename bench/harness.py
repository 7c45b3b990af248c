# SPDX-License-Identifier: Apache-2.0
"""bench/run: options, servers, the rounds, and what comes of them."""
import argparse
import contextlib
import datetime
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import bound
import change
import figures
import machine
import measure
import page
import peers
import reading
import report
import services
import small
import subject

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
IMAGES = ("small:gzip", "multi:gzip", "multi:zstd", "multi:enc", "huge:gzip", "huge:zstd", "huge:enc", "many:gzip",
          "many:zstd")
TINY = "tiny:gzip"
SCHEMA = 1


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse(argv):
    p = argparse.ArgumentParser(prog="bench/run", description="coco-pull and its peers in turn, on real images, "
                                "against what the machine can do. See bench/README.md.")
    p.add_argument("--corpus", metavar="DIR", default="/var/tmp/coco-pull-corpus",
                   help="what bench/corpus made (default %(default)s)")
    p.add_argument("--registry", metavar="HOST:PORT", help="a registry without TLS that has the images, "
                   "instead of one started over the corpus")
    p.add_argument("--images", metavar="NAME:TAG,...", help="default: all of the corpus; %s is made on the spot" % TINY)
    p.add_argument("--rounds", type=int, metavar="N", help="default 5")
    p.add_argument("--peers", metavar="NAME,...", help="default: all; coco-pull takes part always")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="one more, as a shell command "
                   "with {reference}, {registry}, {image}, {store} and {key}")
    p.add_argument("--binary", metavar="PATH", help="default: the newest build*/engine/cli/coco-pull")
    p.add_argument("--micro", metavar="PATH", help="default: bench/micro/coco-bench-micro of the same build")
    p.add_argument("--store", metavar="DIR", help="where stores go (default: a fresh tmpfs for each pull)")
    p.add_argument("--json", metavar="FILE", help="write the document")
    p.add_argument("--html", metavar="FILE", help="write the page")
    p.add_argument("--compare", metavar="OLD.json", help="show what changed since")
    p.add_argument("--no-strace", action="store_true", help="do not count system calls")
    p.add_argument("--read", action=argparse.BooleanOptionalAction, default=True,
                   help="read what coco-pull pulled, through both snapshots (default)")
    p.add_argument("--quick", action="store_true", help="a smoke test: two rounds of %s, no strace" % TINY)
    o = p.parse_args(argv)
    o.rounds = o.rounds or (2 if o.quick else 5)
    o.repeats = 3 if o.quick else 20
    o.images = o.images.split(",") if o.images else [TINY] if o.quick else None
    o.no_strace |= o.quick
    if not o.binary:
        built = sorted(glob.glob(os.path.join(SOURCE, "build*/engine/cli/coco-pull")), key=os.path.getmtime)
        o.binary = built[-1] if built else p.error("no coco-pull is built: build it, or name one with --binary")
    o.binary = os.path.abspath(o.binary)
    if not os.access(o.binary, os.X_OK):
        p.error("%s cannot be run" % o.binary)
    o.micro = o.micro or os.path.normpath(os.path.join(o.binary, "../../../bench/micro/coco-bench-micro"))
    for custom in o.peer:
        if not custom.partition("=")[2]:
            p.error("--peer wants NAME=COMMAND, not %r" % custom)
    if os.geteuid():
        p.error("has to be root, to mount stores and to unpack what belongs to others")
    return o


class Run:
    """What a run has: options, stores, servers, images, peers."""

    def __init__(self, options, stack):
        self.options = options
        self.key = os.path.abspath(os.path.join(options.corpus, "keys/priv.pem"))
        self.stores = measure.Stores(options.store)
        stack.callback(self.stores.close)
        # On a tmpfs in any case: what is measured must not wait for the disk of what measures.
        own = measure.Stores()
        stack.callback(own.close)
        self.scratch = stack.enter_context(own.fresh())
        self.stack = stack
        self.missing = {}
        self.start_registries()
        self.images = self.find_images()
        self.peers = self.find_peers()
        self.nginx = self.start_nginx()

    def start(self, server):
        self.stack.callback(server.stop)
        return server

    def start_registries(self):
        o = self.options
        if not shutil.which("docker-registry"):
            raise measure.Failure("docker-registry is missing: run bench/install")
        self.own = self.start(services.Registry(self.scratch + "/tiny", self.scratch + "/tiny/storage"))
        small.push_tiny(self.own.host, machine.oci_architecture())
        self.storage = os.path.abspath(os.path.join(o.corpus, "registry"))
        if o.registry:
            self.registry = o.registry
        elif os.path.isdir(self.storage):
            self.registry = self.start(services.Registry(self.scratch + "/registry", self.storage)).host
        elif o.images == [TINY]:
            self.registry = None
        else:
            raise measure.Failure("%s is no corpus: make one with bench/corpus, or name a registry" % o.corpus)

    def find_images(self):
        """The images that there are; one that was asked for has to be there."""
        found = [subject.Image(TINY, self.own.host)]
        self.tiny = found[0]
        for name in self.options.images or IMAGES:
            if name == TINY:
                continue
            try:
                found.append(subject.Image(name, self.registry))
            except (measure.Failure, OSError) as e:
                if self.options.images:
                    raise
                self.missing[name] = str(e)
        wanted = self.options.images or [image.name for image in found[1:]]
        found = [image for image in found if image.name in wanted]
        for image in found:
            if image.encrypted and not os.path.exists(self.key):
                raise measure.Failure("%s is encrypted and its key is not at %s" % (image.name, self.key))
        return found

    def find_peers(self):
        known = peers.known(self.options.binary)
        for text in self.options.peer:
            name, _, command = text.partition("=")
            known[name] = peers.custom(name, command)
        custom = [text.partition("=")[0] for text in self.options.peer]
        wanted = self.options.peers.split(",") + custom if self.options.peers else list(known)
        for name in wanted:
            if name not in known:
                raise measure.Failure("no peer is called %s: there are %s" % (name, ", ".join(known)))
        found = []
        for name in dict.fromkeys([*figures.SNAPSHOTS, *wanted]):
            why = known[name].missing()
            if why:
                self.missing[name] = why
            else:
                found.append(known[name])
        return found

    def start_nginx(self):
        if not shutil.which("nginx"):
            self.missing.setdefault("nginx", "not installed: nginx")
            return None
        nginx = self.start(services.Nginx(self.scratch + "/nginx"))
        images = self.images if any(p.server == "nginx" for p in self.peers) else []
        for image in [self.tiny, *(i for i in images if i is not self.tiny)]:
            nginx.add(image, self.storage)
        nginx.restart()
        return nginx

    def pull(self, peer, image, wrap=None):
        """One pull of a peer into a fresh store: (figures, standard output)."""
        with self.stores.fresh() as store, contextlib.ExitStack() as stack:
            daemon = None
            if peer.daemon:
                daemon = services.Containerd(store + "/containerd")
                stack.callback(daemon.stop)
            job = peers.Job(image, self.nginx.host if peer.server == "nginx" else image.host, store, self.key,
                            self.options.binary, self.keys_file(image), daemon)
            argv = peer.command(job)
            if wrap:
                return wrap(argv, store, daemon)
            return measure.run(argv, store, self.scratch, daemon)

    def keys_file(self, image):
        path = os.path.join(self.scratch, "keys-" + image.name.replace("/", "-"))
        if image.encrypted and not os.path.exists(path):
            image.keys_file(path, self.key)
        return path

    def count_calls(self, peer, image):
        """The number of system calls of one pull, by strace -c, or None."""
        path = os.path.join(self.scratch, "strace")
        trace = ["strace", "-f", "-c", "-o", path]

        def wrap(argv, store, daemon):
            if not daemon:
                return measure.run([*trace, *argv], store, self.scratch)
            tracer = subprocess.Popen([*trace, "-p", str(daemon.process.pid)], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                time.sleep(0.5)         # it has to be there before there is something to count
                return measure.run(argv, store, self.scratch)
            finally:
                tracer.send_signal(signal.SIGINT)
                tracer.wait()
        try:
            self.pull(peer, image, wrap)
            with open(path) as f:
                return measure.strace_total(f.read())
        except (measure.Failure, OSError) as e:
            say("%-12s %-16s system calls not counted: %s" % (image.name, peer.name, e))
            return None


def rounds(run):
    """{(peer, image): samples}, {(peer, image): why it failed}, {(peer, image): coco-pull's last --stats}."""
    samples, failed, stats = {}, {}, {}
    for n in range(run.options.rounds):
        for image in run.images:
            image.warm(image.host)
            order = [peer for peer in run.peers if peer.can(image)]
            # Another one goes first each round, so that nobody always runs behind the same neighbour.
            turn = n % len(order)
            for peer in order[turn:] + order[:turn]:
                at = (peer.name, image.name)
                if at in failed:
                    continue
                try:
                    sample, out = run.pull(peer, image)
                except measure.Failure as e:
                    failed[at] = str(e)
                    say("%-12s %-16s round %d  failed: %s" % (image.name, peer.name, n + 1, e))
                    continue
                samples.setdefault(at, []).append(sample)
                say("%-12s %-16s round %d  %7.2f s  %7.2f CPU s" % (image.name, peer.name, n + 1, sample["wall_s"],
                                                                    sample["cpu_s"]))
                if peer.stats:
                    stats[at] = json.loads(out)["stats"]
    return samples, failed, stats


def run_micro(run, blobs):
    """The document of the micro-benchmarks, or None; they decompress these blobs too."""
    path = run.options.micro
    if not os.access(path, os.X_OK):
        run.missing["bound"] = "the micro-benchmarks are not built: %s" % path
        return None
    say("micro-benchmarks")
    with run.stores.fresh() as store:
        out = os.path.join(run.scratch, "micro.json")
        argv = [path, "--json", out, "--dir", store, "--bound-only"] + (["--quick"] if run.options.quick else [])
        for name in blobs:
            argv += ["--blob", name]
        try:
            measure.run(argv, store, run.scratch)
            with open(out) as f:
                return json.load(f)
        except (measure.Failure, OSError, ValueError) as e:
            run.missing["bound"] = "the micro-benchmarks failed: %s" % e
            return None


def blob_files(run):
    """{digest: file} of the plain layers that lie in the storage of a registry here."""
    found = {}
    for image in run.images:
        for layer in image.layers:
            path = services.stored_blob(run.storage if image is not run.tiny else run.own.storage, layer["digest"])
            if os.path.exists(path) and not layer["mediaType"].endswith("+encrypted"):
                found[layer["digest"]] = path
    return found


def add_decompression(run, micro, files):
    """Takes over how long each blob itself took to decompress. What is encrypted is known by its plain twin: the layers
    of NAME:gzip, where they have the same sizes."""
    took = {blob["file"]: blob["unpack_s"]["median"] for blob in micro.get("blobs", [])}
    for image in run.images:
        for layer in image.facts:
            if files.get(layer["digest"]) in took:
                layer["decompress_s"] = took[files[layer["digest"]]]
    plain = {i.name: i.facts for i in run.images if not i.encrypted}
    for image in (i for i in run.images if i.encrypted):
        twin = plain.get(image.repository + ":" + image.compression, [])
        if [t["blob_bytes"] for t in twin] == [f["blob_bytes"] for f in image.facts]:
            for layer, same in zip(image.facts, twin):
                layer.update({k: same[k] for k in ("decompress_s",) if k in same})


def image_entry(image, costs):
    facts = image.facts
    entry = {"digest": image.digest, "compression": image.compression, "encrypted": image.encrypted,
             **{what: image.total(what) for what in ("blob_bytes", "unpacked_bytes", "data_bytes", "entries")},
             "layers": facts, "bound": costs and bound.bound(facts, costs, machine.cores())}
    return entry


def measure_all(run):
    """The document of a run."""
    o = run.options
    document = {
        "schema": SCHEMA, "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(), "rounds": o.rounds, "quick": o.quick, "store": o.store or "tmpfs",
        "versions": {peer.name: peer.version_text() for peer in run.peers}, "missing": run.missing,
        "spin": {"before": measure.spin(2)},
    }
    files = blob_files(run)
    micro = document["micro"] = run_micro(run, files.values())
    for image in run.images:
        image.warm(image.host)
        subject.read_facts(image, o.binary, run.key, run.stores, run.scratch)
    if micro:
        add_decompression(run, micro, files)
    samples, failed, stats = rounds(run)
    document["images"] = {i.name: image_entry(i, micro and micro["costs"]) for i in run.images}
    document["results"] = []
    for image in run.images:
        for peer in (p for p in run.peers if p.can(image)):
            at = (peer.name, image.name)
            row = figures.result_row(*at, samples.get(at, []), failed.get(at))
            row["stats"] = stats.get(at)
            # What differs from another peer only by its server or its memory makes the same calls.
            if not (o.no_strace or row["failed"] or peer.variant):
                row["syscalls"] = run.count_calls(peer, image)
            document["results"].append(row)
    document["reading"] = None
    if o.read:
        say("reading what was pulled")
        document["reading"] = reading.measure_all(run, say)
    say("start-up and re-pull")
    document["startup"] = small.startup(o.binary, run.tiny, run.stores, run.scratch, o.repeats)
    document["repull"] = small.repull(o.binary, run.tiny, run.stores, run.scratch, o.repeats, run.nginx)
    document["spin"]["after"] = measure.spin(2)
    figures.complete(document)
    document["targets"] = figures.targets(document)
    return document


def stop(*_):
    """SIGTERM as Ctrl-C, once: a second must not break into the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv):
    options = parse(argv)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        old = None
        if options.compare:
            with open(options.compare) as f:
                old = json.load(f)
        with contextlib.ExitStack() as stack:
            document = measure_all(Run(options, stack))
        if old:
            document["compare"] = change.compare(old, document)
        if options.json:
            with open(options.json, "w") as f:
                json.dump(document, f, indent=1)
                f.write("\n")
        if options.html:
            with open(options.html, "w") as f:
                f.write(page.render(document))
        print(report.text(document))
        if figures.failures(document):
            say("bench/run: coco-pull did not pull everything")
            return 1
    except KeyboardInterrupt:
        say("bench/run: stopped")
        return 130
    except (measure.Failure, OSError, ValueError, subprocess.CalledProcessError) as e:
        say("bench/run: %s" % e)
        return 1
    return 0
