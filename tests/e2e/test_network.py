# SPDX-License-Identifier: Apache-2.0
"""Between the machine and the registry: TLS and its certificates, proxies, redirects, names, and hosts that are not there."""
import signal
import socket
import time

import pytest

import registry


@pytest.fixture(scope="module")
def secured(scratch, sample):
    """A registry with TLS; secured.ca is what its certificate is signed with."""
    server = registry.DockerRegistry(scratch / "secured", tls=True)
    server.push(sample.layout.ref("gzip"), "sample:gzip")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mutual(scratch, sample):
    """One that wants a certificate of its clients as well: mutual.clients."""
    server = registry.DockerRegistry(scratch / "mutual", tls=True)
    server.push(sample.layout.ref("gzip"), "sample:gzip")
    server.want_clients()
    yield server
    server.stop()


@pytest.fixture
def forward(work):
    server = registry.ForwardProxy(work / "forward")
    yield server
    server.stop()


@pytest.fixture
def tls_coco(new_coco):
    """coco-pull without --plain-http."""
    return new_coco(base=())


@pytest.fixture
def no_names(work):
    """Limits of a run for which no name server is there."""
    path = work / "resolv.conf"
    path.write_text("nameserver 127.77.0.2\noptions timeout:1 attempts:1\n")
    return {"files": {"/etc/resolv.conf": str(path)}}


def cert_dir(where, **files):
    """A --cert-dir with copies: ca_crt=PATH becomes ca.crt."""
    where.mkdir()
    for name, path in files.items():
        with open(path, "rb") as f:
            (where / name.replace("_", ".")).write_bytes(f.read())
    return where


def assert_pulled(coco, sample, name):
    with coco.mounted(name) as where:
        sample.assert_mounted(where)


# ---- certificates ----

def test_tls_with_the_ca(tls_coco, sample, secured, work):
    certs = cert_dir(work / "certs", ca_crt=secured.ca)
    for host in (secured.host, "localhost:%d" % secured.port):
        tls_coco.pull(host + "/sample:gzip", "--cert-dir", certs)
        assert_pulled(tls_coco, sample, host + "/sample:gzip")


def test_tls_not_trusted(tls_coco, secured, work):
    """Told at once, with the way out; nothing of it gets better by trying again."""
    for options in ([], ["--cert-dir", cert_dir(work / "empty")]):
        result = tls_coco.try_pull(secured.host + "/sample:gzip", *options, "--log-level", "debug")
        assert result.status == 3 and result.code == "network", str(result)
        message = result.json["error"]["message"]
        assert "certificate" in message and "--cert-dir" in message and "--tls-verify=false" in message
        assert "again from" not in result.err, str(result)
    other = work / "other"
    other.mkdir()
    certs = cert_dir(work / "certs", ca_crt=registry.authority(str(other))[0])
    assert "--cert-dir" in tls_coco.pull_fails(secured.host + "/sample:gzip", "--cert-dir", certs, code="network")


def test_tls_not_verified(tls_coco, sample, secured):
    tls_coco.pull(secured.host + "/sample:gzip", "--tls-verify=false")
    assert_pulled(tls_coco, sample, secured.host + "/sample:gzip")


def test_tls_for_another_host(tls_coco, secured, work):
    """A good certificate for another name is no certificate."""
    certs = cert_dir(work / "certs", ca_crt=secured.ca)
    (work / "hosts").write_text("127.0.0.1 localhost other.test\n")
    message = tls_coco.pull_fails("other.test:%d/sample:gzip" % secured.port, "--cert-dir", certs, code="network",
                                  files={"/etc/hosts": str(work / "hosts")})
    assert "other.test" in message and "certificate" in message


def test_client_certificate(tls_coco, sample, mutual, work):
    crt, key = mutual.clients
    certs = cert_dir(work / "certs", ca_crt=mutual.ca, client_cert=crt, client_key=key)
    tls_coco.pull(mutual.host + "/sample:gzip", "--cert-dir", certs)
    assert_pulled(tls_coco, sample, mutual.host + "/sample:gzip")


def test_client_certificate_missing_and_unknown(tls_coco, mutual, work):
    other = work / "other"
    other.mkdir()
    crt, key = registry.certificate(str(other), "stranger", registry.authority(str(other)))
    for name, pair in (("none", {}), ("stranger", {"client_cert": crt, "client_key": key})):
        certs = cert_dir(work / name, ca_crt=mutual.ca, **pair)
        result = tls_coco.try_pull(mutual.host + "/sample:gzip", "--cert-dir", certs, "--log-level", "debug")
        assert result.code == "network" and "again from" not in result.err, str(result)
        assert "X.cert" in result.json["error"]["message"], str(result)


def test_client_pair_that_does_not_fit(tls_coco, mutual, work):
    certs = cert_dir(work / "certs", ca_crt=mutual.ca, client_cert=mutual.clients[0], client_key=mutual.key)
    assert "client certificate or key" in tls_coco.pull_fails(mutual.host + "/sample:gzip", "--cert-dir", certs,
                                                              code="network")


# ---- plain HTTP ----

def test_http_only_when_asked_for(tls_coco, sample, docker, proxy):
    """A registry without TLS must not be talked to without TLS unless the caller said so."""
    assert "--plain-http" in tls_coco.pull_fails(sample.name, code="network")
    assert "--plain-http" in tls_coco.pull_fails(proxy.host + "/sample:gzip", code="network")
    assert not proxy.requests


def test_plain_http_to_a_server_with_tls(coco, secured):
    assert "HTTP" in coco.pull_fails(secured.host + "/sample:gzip", code=("network", "registry"))


# ---- redirects ----

def test_redirect_to_another_host_without_credentials(coco, sample, guarded, docker):
    docker.push(sample.layout.ref("gzip"), "team/sample:gzip")
    front, storage = registry.Proxy(guarded), registry.Proxy(docker)
    front.redirect = "http://" + storage.host
    try:
        coco.pull(front.host + "/team/sample:gzip", "--creds", ":".join(guarded.login))
        assert_pulled(coco, sample, front.host + "/team/sample:gzip")
        assert any("/blobs/" in path and n for path, n in front.authorized.items())
        assert any("/blobs/" in path for path in storage.requests), "nothing was redirected"
        assert not any(storage.authorized.values()), "credentials went to another host: %s" % storage.authorized
    finally:
        front.stop()
        storage.stop()


def test_redirect_from_http_to_https(coco, sample, docker, secured, work):
    front = registry.Proxy(docker)
    front.redirect = "https://localhost:%d" % secured.port
    try:
        coco.pull(front.host + "/sample:gzip", "--cert-dir", cert_dir(work / "certs", ca_crt=secured.ca))
        assert_pulled(coco, sample, front.host + "/sample:gzip")
        assert not front.blob_bytes()
    finally:
        front.stop()


@pytest.mark.parametrize("plain", [False, True])
def test_redirect_from_https_to_http(new_coco, docker, sample, secured, work, plain):
    """Never followed: not even where plain HTTP was allowed, since this registry speaks better."""
    storage = registry.Proxy(docker)
    front = registry.Proxy(docker, tls=(secured.crt, secured.key))
    outer = registry.Proxy(docker)
    front.redirect = "http://" + storage.host
    outer.redirect = "https://" + front.host
    try:
        certs = cert_dir(work / "certs", ca_crt=secured.ca)
        host = outer.host if plain else front.host
        message = new_coco(base=["--plain-http"] if plain else []).pull_fails(
            host + "/sample:gzip", "--cert-dir", certs, code="registry")
        assert "HTTP" in message, message
        assert not storage.requests
    finally:
        for server in (outer, front, storage):
            server.stop()


# ---- proxies ----

def test_forward_proxy(tls_coco, sample, secured, forward, work):
    """Only a tunnel is asked for; what goes through it is nobody's business."""
    certs = cert_dir(work / "certs", ca_crt=secured.ca)
    name = secured.host + "/sample:gzip"
    tls_coco.pull(name, "--cert-dir", certs, env={"https_proxy": forward.url})
    assert_pulled(tls_coco, sample, name)
    heads = forward.heads()
    assert heads and all(head.startswith("CONNECT %s HTTP/1.1\r\n" % secured.host) for head in heads)
    assert not any("authorization" in head.lower() or "/v2/" in head for head in heads)


def test_forward_proxy_and_credentials(tls_coco, sample, forward, work):
    """The registry gets the credentials, the proxy never does."""
    server = registry.DockerRegistry(work / "both", login=("puller", "pass"), tls=True)
    try:
        server.push(sample.layout.ref("gzip"), "sample:gzip")
        certs = cert_dir(work / "certs", ca_crt=server.ca)
        tls_coco.pull(server.host + "/sample:gzip", "--cert-dir", certs, "--creds", "puller:pass",
                      env={"HTTPS_PROXY": forward.url})
        heads = forward.heads()
        assert heads and not any("authorization" in head.lower() for head in heads)
    finally:
        server.stop()


@pytest.mark.parametrize("exception", ["127.0.0.1", "example.com,127.0.0.0/8", "*"])
def test_no_proxy(tls_coco, sample, secured, forward, work, exception):
    certs = cert_dir(work / "certs", ca_crt=secured.ca)
    tls_coco.pull(secured.host + "/sample:gzip", "--cert-dir", certs,
                  env={"https_proxy": forward.url, "no_proxy": exception})
    assert forward.heads() == []


def test_proxy_that_is_not_there(tls_coco, secured):
    result = tls_coco.try_pull(secured.host + "/sample:gzip", "--tls-verify=false",
                               env={"https_proxy": "http://127.0.0.1:%d" % registry.free_port()})
    assert result.code == "network" and result.seconds < 3, str(result)


def test_proxy_that_gets_nowhere(tls_coco, forward):
    result = tls_coco.try_pull("127.0.0.1:%d/sample:gzip" % registry.free_port(), env={"https_proxy": forward.url})
    assert result.code == "network" and result.seconds < 3, str(result)
    assert "proxy" in result.json["error"]["message"], str(result)


def test_proxy_without_a_name(tls_coco, secured, no_names):
    result = tls_coco.try_pull(secured.host + "/sample:gzip", env={"https_proxy": "http://proxy.invalid:3128"},
                               **no_names)
    assert result.code == "network" and "https_proxy" in result.json["error"]["message"], str(result)


# ---- hosts that are not there ----

def test_nobody_listens(coco):
    result = coco.try_pull("127.0.0.1:%d/sample:gzip" % registry.free_port())
    assert result.status == 3 and result.code == "network" and result.seconds < 2.5, str(result)
    assert "Connection refused" in result.json["error"]["message"], str(result)


def test_name_that_cannot_be_resolved(coco, no_names):
    result = coco.try_pull("registry.invalid/sample:gzip", "--log-level", "debug", **no_names)
    assert result.status == 3 and result.code == "network", str(result)
    assert "registry.invalid" in result.json["error"]["message"]
    assert "cannot be resolved" in result.json["error"]["message"]
    assert "again from" not in result.err, str(result)


@pytest.mark.parametrize("how", ["signal", "timeout"])
def test_stopped_while_a_name_is_looked_up(coco, work, how):
    """The name server never answers; the C library would ask it for half a minute."""
    path = work / "resolv.conf"
    path.write_text("nameserver 127.77.0.1\noptions timeout:15 attempts:2\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.77.0.1", 53))
        silent.settimeout(20)
        run = coco.start_pull("registry.example.net/sample:gzip", *(["--timeout", "1"] if how == "timeout" else []),
                              files={"/etc/resolv.conf": str(path)})
        assert silent.recv(512)
        began = time.monotonic()
        if how == "signal":
            run.kill(signal.SIGINT)
        result = run.wait(60)
    assert time.monotonic() - began < (1 if how == "signal" else 2), str(result)
    assert result.code == ("cancelled" if how == "signal" else "deadline"), str(result)
