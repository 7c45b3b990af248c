# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry on a free loopback port, and a proxy in front of it that counts and misbehaves."""
import collections
import http.client
import os
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler

import images


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def self_signed(where):
    """(CA certificate, server certificate, server key) for 127.0.0.1 and localhost."""
    ca, ca_key = os.path.join(where, "ca.crt"), os.path.join(where, "ca.key")
    crt, key, csr = (os.path.join(where, "server." + e) for e in ("crt", "key", "csr"))
    quiet = {"check": True, "stderr": subprocess.DEVNULL}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test CA",
                    "-keyout", ca_key, "-out", ca], **quiet)
    subprocess.run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key,
                    "-out", csr], **quiet)
    extensions = os.path.join(where, "server.ext")
    with open(extensions, "w") as f:
        f.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    subprocess.run(["openssl", "x509", "-req", "-in", csr, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                    "-days", "2", "-extfile", extensions, "-out", crt], **quiet)
    return ca, crt, key


class DockerRegistry:
    """docker-registry with its storage below `where`; stop() ends it. user/password: htpasswd; tls: certificates."""

    def __init__(self, where, login=None, tls=None):
        self.where, self.login, self.tls = str(where), login, tls
        os.makedirs(self.where, exist_ok=True)
        self.ca = None
        for _ in range(5):          # somebody else may take the port before the registry does
            self.port = free_port()
            self.start()
            if self.ready():
                return
            self.stop()
        with open(os.path.join(self.where, "log")) as f:
            raise AssertionError("docker-registry does not start:\n" + f.read()[-2000:])

    @property
    def host(self):
        return "127.0.0.1:%d" % self.port

    def start(self):
        lines = ["version: 0.1", "log: {level: error, accesslog: {disabled: true}}",
                 "storage: {filesystem: {rootdirectory: %s/storage}, delete: {enabled: true}}" % self.where,
                 "http:", "  addr: " + self.host]
        if self.tls:
            self.ca, crt, key = self_signed(self.where)
            lines += ["  tls: {certificate: %s, key: %s}" % (crt, key)]
        if self.login:
            path = os.path.join(self.where, "htpasswd")
            subprocess.run(["htpasswd", "-bcB", path, *self.login], check=True, stderr=subprocess.DEVNULL)
            lines += ["auth: {htpasswd: {realm: test, path: %s}}" % path]
        config = os.path.join(self.where, "config.yml")
        with open(config, "w") as f:
            f.write("\n".join(lines) + "\n")
        with open(os.path.join(self.where, "log"), "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def connect(self):
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30,
                                           context=ssl.create_default_context(cafile=self.ca))

    def ready(self):
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                connection = self.connect()
                connection.request("GET", "/v2/")
                return connection.getresponse().status in (200, 401)
            except OSError:
                time.sleep(0.05)
        return False

    def stop(self):
        self.process.kill()
        self.process.wait()

    def push(self, source, name, *options):
        """Copies an image that skopeo can read to this registry; returns HOST/NAME."""
        credentials = ["--dest-creds", ":".join(self.login)] if self.login else []
        images.skopeo("--dest-tls-verify=false", *credentials, *options, source,
                      "docker://%s/%s" % (self.host, name))
        return "%s/%s" % (self.host, name)


class Proxy:
    """Stands before a registry: counts the bytes that go out for each path, and does one of the following to blobs.
      rate     bytes per second and connection
      hold     after that many bytes of a body nothing more is sent, until release(); `held` is set then
      change   function(path, body bytes) that returns what is sent instead
    """

    def __init__(self, registry):
        self.registry = registry
        self.sent = collections.Counter()
        self.requests = collections.Counter()
        self.rate = self.hold = self.change = None
        self.held, self.released = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.port = self.server.server_address[1]
        self.host = "127.0.0.1:%d" % self.port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def blob_bytes(self):
        """{digest: bytes sent} of all blobs that were asked for."""
        with self.lock:
            return {p.rsplit("/", 1)[1]: n for p, n in self.sent.items() if "/blobs/" in p and n}

    def release(self):
        self.released.set()

    def stop(self):
        self.release()
        self.server.shutdown()
        self.server.server_close()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def handle_error(self, request, client_address):
        pass                        # a client that hangs up is what many of the tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        proxy = self.server.proxy
        with proxy.lock:
            proxy.requests[self.path] += 1
        upstream = proxy.registry.connect()
        upstream.putrequest(self.command, self.path, skip_accept_encoding=True)
        for k, v in self.headers.items():   # not as a dictionary: Accept comes several times
            if k.lower() not in ("host", "connection"):
                upstream.putheader(k, v)
        upstream.endheaders()
        answer = upstream.getresponse()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
        changed = None
        if proxy.change and self.command == "GET" and answer.status in (200, 206):
            changed = proxy.change(self.path, answer.read())
            headers["Content-Length"] = str(len(changed))
        self.send_response_only(answer.status)
        for k, v in headers.items():
            self.send_header(k, v)
        if "Content-Length" not in headers:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.body(iter([changed]) if changed is not None else iter(lambda: answer.read(1 << 16), b""))
        upstream.close()

    do_HEAD = do_GET

    def body(self, parts):
        proxy, done, blob = self.server.proxy, 0, "/blobs/" in self.path
        began = time.monotonic()
        for part in parts:
            for at in range(0, len(part), 1 << 14):
                piece = part[at:at + (1 << 14)]
                if blob and proxy.hold is not None and done >= proxy.hold:
                    proxy.held.set()
                    proxy.released.wait(300)
                self.wfile.write(piece)
                done += len(piece)
                with proxy.lock:
                    proxy.sent[self.path] += len(piece)
                if blob and proxy.rate:
                    time.sleep(max(0.0, began + done / proxy.rate - time.monotonic()))
