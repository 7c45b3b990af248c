# SPDX-License-Identifier: Apache-2.0
"""Registries that want a password, images for several platforms, and what a registry may refuse."""
import base64
import json
import os

import pytest

import compare
import images
from conftest import LOGIN


def authfile(path, host, login=LOGIN):
    token = base64.b64encode(":".join(login).encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": token}}}))
    return path


def assert_pulled(coco, sample, name):
    with coco.mounted(name) as where:
        sample.assert_mounted(where)


def test_creds(coco, sample, guarded):
    name = guarded.host + "/team/sample:gzip"
    coco.pull(name, "--creds", ":".join(LOGIN))
    assert_pulled(coco, sample, name)


@pytest.mark.parametrize("scope", ["", "/team", "/team/sample"])
def test_authfile(coco, sample, guarded, work, scope):
    name = guarded.host + "/team/sample:gzip"
    coco.pull(name, "--authfile", authfile(work / "auth.json", guarded.host + scope))
    assert_pulled(coco, sample, name)


def test_authfile_for_another_place(coco, guarded, work):
    coco.pull_fails(guarded.host + "/team/sample:gzip", "--authfile",
                    authfile(work / "auth.json", guarded.host + "/tea"), code="auth")


def test_no_and_wrong_credentials(coco, guarded):
    name = guarded.host + "/team/sample:gzip"
    assert guarded.host in coco.pull_fails(name, code="auth")
    message = coco.pull_fails(name, "--creds", "puller:hunter2", code="auth")
    assert "hunter2" not in message
    assert coco.layers() == [] and coco.images() == []


def test_secrets_are_not_logged(coco, guarded):
    result = coco.try_pull(guarded.host + "/team/sample:gzip", "--creds", ":".join(LOGIN), "--log-level", "debug")
    assert result.status == 0, str(result)
    token = base64.b64encode(":".join(LOGIN).encode()).decode()
    assert LOGIN[1] not in result.out + result.err and token not in result.out + result.err


def test_unknown_names(coco, docker, sample):
    coco.pull_fails(sample.repo + ":no-such-tag", code="not_found")
    coco.pull_fails(docker.host + "/no/such/repo:tag", code=("not_found", "registry"))


@pytest.fixture(scope="module")
def platforms(scratch, sample, docker):
    """An index: an attestation first, as builders write it, then two platforms with other layers."""
    layout = images.Layout(scratch / "platforms")
    here = layout.manifest([layout.layer(sample.tars[2])])
    other = layout.manifest([layout.layer(sample.tars[3])], arch="riscv64")
    index = layout.index([
        (other, {"architecture": "unknown", "os": "unknown"}),
        (other, {"architecture": "riscv64", "os": "linux"}),
        (here, {"architecture": images.ARCH, "os": "linux"})])
    layout.tag(index, "index")
    layout.tag(layout.index([(other, {"architecture": "riscv64", "os": "linux"})]), "foreign")
    for tag in ("index", "foreign"):
        docker.push(layout.ref(tag), "platforms:" + tag, "--all")
    return layout, here, other


@pytest.mark.parametrize("transport", ["registry", "oci"])
def test_platform(new_coco, docker, platforms, sample, work, transport):
    layout, here, other = platforms
    name = docker.host + "/platforms:index" if transport == "registry" else layout.ref("index")
    coco = new_coco("here")
    assert coco.pull(name)["layers"][0]["diff_id"] == "sha256:" + compare.content(sample.tars[2])
    coco = new_coco("other")
    result = coco.pull(name, "--platform", "linux/riscv64")
    assert result["layers"][0]["diff_id"] == "sha256:" + compare.content(sample.tars[3])
    assert result["platform"] == "linux/riscv64"


def test_no_such_platform(coco, docker):
    message = coco.pull_fails(docker.host + "/platforms:foreign", code="platform")
    assert "riscv64" in message, "the error should say what there is: " + message
    coco.pull_fails(docker.host + "/platforms:index", "--platform", "linux/s390x", code="platform")


def test_usage(coco, sample):
    for args in ([], ["pull"], ["pull", sample.name, "--no-such-option"], ["pull", sample.name, "--jobs", "0"],
                 ["pull", sample.name, "--memory", "lots"], ["pull", sample.name, "--io", "magic"],
                 ["pull", sample.name, "--timeout", "-1"], ["pull", "Not A Name"], ["mount", sample.name],
                 ["pull", sample.name, "--decryption-key"], ["rm"], ["pull", "oci:"]):
        result = coco.run(*args)
        assert result.status == 2, str(result)
        assert result.err.strip() and result.out == "", str(result)
    assert not os.path.exists(os.path.join(coco.store, "layers")) or coco.layers() == []


def test_help_and_version(coco):
    for args in (["version"], ["help"], ["help", "pull"], ["help", "mount"], ["--help"]):
        result = coco.start_raw(*args).wait()
        assert result.status == 0 and result.out.strip() and not result.err, str(result)
    assert coco.start_raw("help", "no-such-command").wait().status == 2
