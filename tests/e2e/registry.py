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


def connect_when_up(port, process, name):
    """A connection to a server that has just been started."""
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < end and process.poll() is None, name + " does not start"
            time.sleep(0.02)


def authority(where):
    """(certificate, key) of a new CA in `where`."""
    ca, key = os.path.join(where, "ca.crt"), os.path.join(where, "ca.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test CA",
                    "-keyout", key, "-out", ca], check=True, stderr=subprocess.DEVNULL)
    return ca, key


def certificate(where, name, issuer, extensions=""):
    """(certificate, key), NAME.crt and NAME.key in `where`, signed by an authority()."""
    crt, key, csr, ext = (os.path.join(where, name + e) for e in (".crt", ".key", ".csr", ".ext"))
    quiet = {"check": True, "stderr": subprocess.DEVNULL}
    subprocess.run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", key,
                    "-out", csr], **quiet)
    with open(ext, "w") as f:
        f.write(extensions)
    subprocess.run(["openssl", "x509", "-req", "-in", csr, "-CA", issuer[0], "-CAkey", issuer[1], "-CAcreateserial",
                    "-days", "2", "-extfile", ext, "-out", crt], **quiet)
    return crt, key


def self_signed(where):
    """(CA certificate, server certificate, server key) for 127.0.0.1 and localhost."""
    issuer = authority(where)
    return issuer[0], *certificate(where, "server", issuer, "subjectAltName=DNS:localhost,IP:127.0.0.1\n")


class DockerRegistry:
    """docker-registry with its storage below `where`; stop() ends it. user/password: htpasswd; tls: certificates,
    and with want_clients() also of those who ask."""

    def __init__(self, where, login=None, tls=None):
        self.where, self.login, self.tls = str(where), login, tls
        os.makedirs(self.where, exist_ok=True)
        self.clients = None
        self.ca, self.crt, self.key = self_signed(self.where) if tls else (None, None, None)
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
            lines += ["  tls: {certificate: %s, key: %s%s}" % (
                self.crt, self.key, ", clientcas: [%s]" % self.ca if self.clients else "")]
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
        context = ssl.create_default_context(cafile=self.ca)
        if self.clients:
            context.load_cert_chain(*self.clients)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)

    def want_clients(self):
        """From now on only those with a certificate of this registry's own CA; returns (certificate, key) of one."""
        self.clients = certificate(self.where, "client", (self.ca, os.path.join(self.where, "ca.key")))
        self.stop()
        self.start()
        assert self.ready()
        return self.clients

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
    """Stands before a registry, with TLS if it is given (certificate, key): counts the bytes that go out for each path,
    and does one of the following to blobs.
      rate     bytes per second and connection
      hold     after that many bytes of a body nothing more is sent, until release(); `held` is set then
      change   function(path, body bytes) that returns what is sent instead
      redirect URL of the registry that has them
    """

    def __init__(self, registry, tls=None):
        self.registry = registry
        self.sent = collections.Counter()
        self.requests = collections.Counter()
        self.authorized = collections.Counter()
        self.rate = self.hold = self.change = self.redirect = None
        self.held, self.released = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.server.context = None
        if tls:
            self.server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.server.context.load_cert_chain(*tls)
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

    def finish_request(self, request, client_address):
        # The handshake is the connection's thread's business, not that of the one that accepts.
        super().finish_request(self.context.wrap_socket(request, server_side=True) if self.context else request,
                               client_address)

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
            proxy.authorized[self.path] += "Authorization" in self.headers
        upstream = proxy.registry.connect()
        upstream.putrequest(self.command, self.path, skip_accept_encoding=True)
        for k, v in self.headers.items():   # not as a dictionary: Accept comes several times
            if k.lower() not in ("host", "connection"):
                upstream.putheader(k, v)
        upstream.endheaders()
        answer = upstream.getresponse()
        if proxy.redirect and "/blobs/" in self.path and answer.status == 200:
            answer.read()
            self.send_response_only(307)
            self.send_header("Location", proxy.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
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


class Storage:
    """nginx before a DockerRegistry: blobs come from the registry's own files, `rate` (nginx's way of writing it) for
    each request, the rest is passed on. at_once: so many requests for blobs at a time, 503 to the others."""

    def __init__(self, registry, where, rate, at_once=None):
        self.where, self.port = str(where), free_port()
        os.makedirs(self.where, exist_ok=True)
        self.host = "127.0.0.1:%d" % self.port
        temporary = " ".join("%s_temp_path %s/%s;" % (kind, self.where, kind)
                             for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.log = os.path.join(self.where, "access.log")
        with open(os.path.join(self.where, "nginx.conf"), "w") as f:
            f.write("""
user root; worker_processes 1; daemon off; pid %(where)s/pid; error_log %(where)s/error.log;
events { worker_connections 256; }
http {
    %(temporary)s
    log_format short '$status $body_bytes_sent $http_range'; access_log %(where)s/access.log short;
    limit_conn_zone $server_port zone=all:1m;
    server {
        listen %(host)s; tcp_nodelay on; default_type application/octet-stream;
        location / { proxy_pass http://%(registry)s; }
        location ~ ^/v2/.*/blobs/sha256:(..)(.*)$ {
            limit_rate %(rate)s; %(limit)s
            alias %(storage)s/storage/docker/registry/v2/blobs/sha256/$1/$1$2/data;
        }
    }
}
""" % {"where": self.where, "host": self.host, "registry": registry.host, "rate": rate, "storage": registry.where,
       "temporary": temporary, "limit": "limit_conn all %d;" % at_once if at_once else ""})
        self.start()

    def start(self):
        self.process = subprocess.Popen(["nginx", "-c", os.path.join(self.where, "nginx.conf"), "-p", self.where],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        connect_when_up(self.port, self.process, "nginx (see %s/error.log)" % self.where).close()

    def requests(self):
        """[(status, bytes, value of the Range field)] of all requests so far."""
        with open(self.log) as f:
            return [(int(s), int(n), r.strip()) for s, n, r in (line.split(" ", 2) for line in f)]

    def stop(self):
        """At once: what is under way breaks off."""
        self.process.terminate()
        self.process.wait()


class ForwardProxy:
    """tinyproxy, behind something that keeps all that clients send to it."""

    def __init__(self, where):
        self.where, self.port, self.seen = str(where), free_port(), []
        os.makedirs(self.where, exist_ok=True)
        config = os.path.join(self.where, "tinyproxy.conf")
        with open(config, "w") as f:
            f.write("Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Error\n" % self.port)
        with open(os.path.join(self.where, "log"), "wb") as log:
            self.process = subprocess.Popen(["tinyproxy", "-d", "-c", config], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        self.server = Server(("127.0.0.1", 0), Tap)
        self.server.proxy, self.server.context = self, None
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.connect().close()

    def connect(self):
        return connect_when_up(self.port, self.process, "tinyproxy")

    def heads(self):
        """Everything that was sent, one text a connection; after a CONNECT it is TLS and says nothing."""
        return [b"".join(parts).decode("latin-1") for parts in list(self.seen)]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.process.kill()
        self.process.wait()


class Tap(socketserver.BaseRequestHandler):
    def handle(self):
        parts = []
        self.server.proxy.seen.append(parts)
        with self.server.proxy.connect() as behind:
            threading.Thread(target=self.copy, args=(behind, self.request), daemon=True).start()
            self.copy(self.request, behind, parts)

    @staticmethod
    def copy(source, target, keep=None):
        try:
            while data := source.recv(1 << 16):
                if keep is not None:
                    keep.append(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
