# SPDX-License-Identifier: Apache-2.0
"""Runs the open test cases (COCO_PULL_SHARED/cases): generates each, serves it with the faults it asks for, pulls, and
lets the cases' own judge look at what came out."""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

SNAPSHOTS = ("overlay", "erofs")

CASES = pathlib.Path(os.environ.get("COCO_PULL_SHARED") or pathlib.Path(__file__).resolve().parents[3] / "shared") / "cases"

# The cases' names of kinds of errors, for the codes of engine/base/error.c. A code that is not here fits no case.
KINDS = {
    "auth": "auth", "network": "network", "registry": "network", "not_found": "network", "stalled": "timeout",
    "deadline": "timeout", "manifest": "manifest", "media_type": "media_type", "platform": "platform",
    "digest": "digest", "size": "digest", "diff_id": "diffid", "decompress": "decompress", "tar": "tar",
    "escape": "escape", "whiteout": "whiteout", "xattr": "xattr", "key": "key", "decrypt": "decrypt",
    "policy": "policy", "limit": "limit", "space": "space", "unsupported": "unsupported",
}

# What belongs to a later issue; strict, so that the line has to go when the issue is done.
LATER = {
    "23": "Keys from where a confidential guest gets them",
    "24": "Keys from where a confidential guest gets them",
    "25": "Signature policy between the manifest and the first layer byte",
}


def load_library():
    spec = importlib.util.spec_from_file_location("open_cases", CASES / "lib.py")
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def all_cases():
    params = []
    for script in sorted(CASES.glob("[0-9][0-9]-*.py")):
        reason = LATER.get(script.name[:2])
        marks = [pytest.mark.xfail(strict=True, reason=reason, raises=AssertionError)] if reason else []
        params.append(pytest.param(script, id=script.stem, marks=marks))
    return params or [pytest.param(None, marks=pytest.mark.skip(reason="no shared test cases at %s" % CASES))]


class Case:
    """One generated case: its directory and what expected.json says."""

    def __init__(self, script, where):
        self.lib, self.path = load_library(), str(where)
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, script, self.path], check=True, stdout=subprocess.DEVNULL, env=environ)
        self.doc = self.lib.load_case(self.path)
        self.input, self.always = self.doc["input"], self.doc["always"]
        assert self.doc["format"] == 1
        unknown = set(self.input) - {"layout", "repo", "tag", "digest", "platform", "transport", "server", "credentials",
                                     "keys", "policy", "port", "needs", "harness"}
        unknown |= set(self.always) - {"no_crash", "max_seconds", "max_rss_mib", "canaries", "http"}
        unknown |= set(self.harness) - {"umask", "variants", "parallel", "repeat"}
        assert not unknown, "the runner does not know %s" % unknown

    @property
    def harness(self):
        return self.input.get("harness", {})

    @property
    def log(self):
        return os.path.join(self.path, "http.log")

    def options(self):
        options = ["--platform", self.input["platform"]]
        if "credentials" in self.input:
            options += ["--creds", "%(username)s:%(password)s" % self.input["credentials"]]
        return options

    def limits(self):
        """Every set of limits that the case has to be run under, as program.Run takes them."""
        common = {"umask": int(self.harness["umask"], 8)} if "umask" in self.harness else {}
        found = []
        for variant in self.harness.get("variants", [{}]):
            limits = dict(common)
            for name, value in variant.items():
                if name.startswith("rlimit_"):
                    limits.setdefault("rlimits", {})[name[7:]] = value
                else:
                    assert name == "seccomp", "the runner does not know %s" % name
                    limits["seccomp"] = value
            found.append(limits)
        return found

    def image(self, transport, port=None, tag=None):
        name = "oci:" + os.path.join(self.path, self.input["layout"]) if transport == "oci" else "127.0.0.1:%d/%s" % (
            port, self.input["repo"])
        if "digest" in self.input and not tag:
            return "%s@%s" % (name, self.input["digest"])
        return "%s:%s" % (name, tag or self.input["tag"])


def check_needs(case, work):
    """The conditions of the machine. One that is not known here is a failure: it must not pass unseen."""
    for need in case.input.get("needs", []):
        if need == "root":
            assert os.geteuid() == 0
        elif need == "64-bit file times on the target filesystem":
            probe = work / "time"
            probe.write_text("")
            os.utime(probe, (0, 5_000_000_000))
            if os.stat(probe).st_mtime != 5_000_000_000:
                pytest.skip("the file system has no 64-bit times")
        else:
            raise AssertionError("the runner does not know the need %r" % need)


def judge(case, coco, image, result, log):
    """The case's verdict on one finished pull; an image must not be there after a failure."""
    if "max_rss_mib" in case.always and not os.environ.get("COCO_PULL_SANITIZED"):
        assert result.maxrss < case.always["max_rss_mib"] << 20, str(result)
    assert result.seconds < case.always["max_seconds"], str(result)
    if result.status != 0:
        kind = KINDS.get(result.code, "none of the cases': " + result.code)
        bad = case.lib.judge(case.path, error=kind, log=log)
        assert coco.images() == [] and coco.staging() == [], str(result)
    else:
        with coco.mounted(image) as where:
            bad = case.lib.judge(case.path, root=where, log=log)
    assert not bad, "%s\n%s" % ("\n".join(bad), result)


def run_once(case, coco, transport, limits):
    timeout = case.always["max_seconds"] + 10
    if transport == "oci":
        image = case.image("oci")
        judge(case, coco, image, coco.try_pull(image, *case.options(), timeout=timeout, **limits), None)
        return
    with case.lib.Registry(case.path, case.input.get("port", 0), case.log) as server:
        image = case.image("registry", server.port)
        result = coco.try_pull(image, *case.options(), timeout=timeout, **limits)
        judge(case, coco, image, result, case.log)


def run_parallel(case, coco):
    """Several pulls into one store at once; the case's tree is that of its own tag."""
    with case.lib.Registry(case.path, case.input.get("port", 0), case.log) as server:
        steps = case.harness["parallel"]
        runs = [coco.start_pull(case.image("registry", server.port, s["tag"]), *case.options()) for s in steps]
        results = [r.wait(case.always["max_seconds"] + 10) for r in runs]
        for step, result in zip(steps, results):
            assert (result.status == 0) == (step["want"] == "ok"), str(result)
            if step["tag"] == case.input["tag"]:
                judge(case, coco, case.image("registry", server.port), result, case.log)
        assert len(coco.images()) == sum(s["want"] == "ok" for s in steps)


def run_all(case, new_coco):
    """Every turn, variant and way in, each with a store of its own."""
    for turn in range(case.harness.get("repeat", 1)):
        if "parallel" in case.harness:
            run_parallel(case, new_coco("store-%d" % turn))
            continue
        for variant, limits in enumerate(case.limits()):
            for transport in ("registry", "oci") if case.input["transport"] == "any" else ("registry",):
                run_once(case, new_coco("store-%d-%d-%s" % (turn, variant, transport)), transport, limits)


@pytest.mark.parametrize("script", all_cases())
def test_case(script, new_coco, work):
    case = Case(script, work / "case")
    check_needs(case, work)
    case.lib.setup_canaries(case.path)
    try:
        run_all(case, new_coco)
    finally:
        for canary in case.always.get("canaries", []):
            subprocess.run(["rm", "-rf", canary["path"]], check=True)


def test_the_judge_can_say_no(work):
    """The runner's own check: a wrong tree and a wrong error do not pass."""
    if not CASES.exists():
        pytest.skip("no shared test cases at %s" % CASES)
    case = Case(CASES / "01-pax-size-hides-inner-archive.py", work / "case")
    (work / "root").mkdir()
    assert case.lib.judge(case.path, root=str(work / "root"))
    assert case.lib.judge(case.path, error="tar")
    assert json.loads((work / "case" / "expected.json").read_text())["accept"]
