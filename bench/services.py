# SPDX-License-Identifier: Apache-2.0
"""The servers of a run, each on a free loopback port and ended by its own process id: docker-registry, nginx as the
least server there is, and the containerd that ctr talks to."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

import measure


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(host):
    try:
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False


def get(host, path, accept="*/*", sink=None):
    """(body, content type) of a GET; with a sink the body goes there in pieces."""
    connection = http.client.HTTPConnection(host, timeout=300)
    connection.request("GET", path, headers={"Accept": accept})
    answer = connection.getresponse()
    if answer.status != 200:
        raise measure.Failure("GET http://%s%s: status %d" % (host, path, answer.status))
    if sink is None:
        return answer.read(), answer.getheader("Content-Type", "")
    while piece := answer.read(1 << 20):
        sink(piece)
    return None, answer.getheader("Content-Type", "")


def stored_blob(storage, digest):
    """Where docker-registry keeps a blob."""
    algorithm, value = digest.split(":")
    return os.path.join(storage, "docker/registry/v2/blobs", algorithm, value[:2], value, "data")


class Server:
    """A process that answers on self.host when it is ready; another port is tried where somebody took the first."""

    name = "server"

    def __init__(self, where):
        self.where = where
        os.makedirs(where, exist_ok=True)
        for _ in range(5):
            self.host = "127.0.0.1:%d" % free_port()
            with open(os.path.join(where, "log"), "wb") as log:
                self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                start_new_session=True)
            if self.ready():
                return
            self.stop()
        with open(os.path.join(where, "log"), errors="replace") as f:
            raise measure.Failure("%s does not start: %s" % (self.name, measure.last_line(f.read())))

    def ready(self):
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            if self.is_up():
                return True
            time.sleep(0.02)
        return False

    def is_up(self):
        return answers(self.host)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def write(self, name, text):
        path = os.path.join(self.where, name)
        with open(path, "w") as f:
            f.write(text)
        return path


class Registry(Server):
    name = "docker-registry"

    def __init__(self, where, storage):
        self.storage = storage
        super().__init__(where)

    def command(self):
        return ["docker-registry", "serve", self.write("config.yml", """version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: %s}
http: {addr: "%s"}
""" % (self.storage, self.host))]


class Nginx(Server):
    """Serves the blobs and manifests of images as files. Its log holds a line for each request."""

    name = "nginx"

    def __init__(self, where):
        self.root = os.path.join(where, "root")
        self.requests = os.path.join(where, "requests")
        self.manifests = {}
        os.makedirs(os.path.join(self.root, "v2"), exist_ok=True)
        self.write_root("v2/index.html", b"{}")
        super().__init__(where)

    def command(self):
        return ["nginx", "-c", self.configuration()]

    def configuration(self):
        types = "".join('    location = %s { default_type "%s"; }\n' % (path, kind)
                        for path, kind in self.manifests.items())
        return self.write("nginx.conf", """daemon off;
master_process off;
user root;
pid {where}/pid;
error_log {where}/errors;
events {{ worker_connections 512; }}
http {{
  access_log {requests};
  client_body_temp_path {where}/t1; proxy_temp_path {where}/t2; fastcgi_temp_path {where}/t3;
  uwsgi_temp_path {where}/t4; scgi_temp_path {where}/t5;
  default_type application/octet-stream;
  sendfile on; tcp_nopush on; keepalive_requests 100000;
  server {{
    listen {host};
    root {root};
{types}  }}
}}
""".format(where=self.where, requests=self.requests, host=self.host, root=self.root, types=types))

    def write_root(self, path, data):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)

    def add(self, image, storage):
        """Takes an image over from its registry; blobs that lie in docker-registry's storage here are linked."""
        base = "v2/%s/" % image.repository
        for name in (image.tag, image.digest):
            self.write_root(base + "manifests/" + name, image.manifest_bytes)
            self.manifests["/%smanifests/%s" % (base, name)] = image.media_type
        for digest in image.blobs:
            path = os.path.join(self.root, base, "blobs", digest)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            stored = stored_blob(storage, digest)
            if os.path.lexists(path):
                continue            # images of one repository have blobs in common
            if os.path.exists(stored):
                os.symlink(os.path.abspath(stored), path)
            else:
                with open(path, "wb") as f:
                    get(image.host, "/%sblobs/%s" % (base, digest), sink=f.write)

    def restart(self):
        """With the media types of the images that were added."""
        self.stop()
        with open(os.path.join(self.where, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        if not self.ready():
            raise measure.Failure("nginx does not start again: see %s" % self.where)

    def request_count(self):
        with open(self.requests, "rb") as f:
            return sum(1 for _ in f)


class Containerd(Server):
    """A containerd of its own, all of it in one directory."""

    name = "containerd"

    def command(self):
        self.socket = os.path.join(self.where, "sock")
        return ["containerd", "-c", self.write("config.toml", """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/sock"
""".format(self.where))]

    def is_up(self):
        return os.path.exists(self.socket) and subprocess.run(
            ["ctr", "-a", self.socket, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=False).returncode == 0

    def usage(self):
        return measure.process_usage(self.process.pid)

    def stop(self):
        # Nothing of it is kept, and an orderly end would sync.
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def read_manifest(host, repository, tag):
    """(bytes, media type) of a manifest."""
    kinds = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
    data, _ = get(host, "/v2/%s/manifests/%s" % (repository, tag), ", ".join(kinds))
    kind = json.loads(data).get("mediaType", kinds[0])
    if kind not in kinds:
        raise measure.Failure("%s/%s:%s is no manifest of one image but %s" % (host, repository, tag, kind))
    return data, kind
