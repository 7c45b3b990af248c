# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the coco-pull program apart from progress and signals: options, results, errors, help and man page."""
import errno
import json
import os
import re
import signal
import subprocess
import termios

import pytest

from program import DIGEST, EMBEDDER, ENVIRONMENT, SOURCE, Terminal, default_signals, run, start, wait_for_line

CLASSES = {
    "internal": 1, "usage": 2, "memory": 1, "deadline": 124, "cancelled": 130, "network": 3, "stalled": 3,
    "registry": 3, "auth": 4, "not_found": 10, "manifest": 8, "media_type": 8, "platform": 8, "unsupported": 8,
    "limit": 8, "digest": 5, "size": 5, "diff_id": 5, "decompress": 8, "tar": 8, "escape": 8, "whiteout": 8,
    "xattr": 9, "key": 6, "decrypt": 6, "policy": 7, "storage": 9, "space": 9, "permission": 9,
}


@pytest.fixture
def echo(tmp_path):
    """Runs the program and returns what the library was given, by call."""
    def call(*args, env=None):
        path = tmp_path / "echo"
        path.unlink(missing_ok=True)
        done = run(*args, env={**(env or {}), "FAKE_ECHO": str(path)})
        assert done.returncode == 0, done.stderr
        return {entry["what"]: entry for entry in map(json.loads, path.read_text().splitlines())}
    return call


def refused(*args, env=None, says=()):
    """The program refuses with status 2, one line, and nothing on standard output."""
    done = run(*args, env=env)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("coco-pull: error: ") and done.stderr.count("\n") == 1
    for word in [says] if isinstance(says, str) else says:
        assert word in done.stderr
    return done.stderr


# ---- options -------------------------------------------------------------------------------------------

def test_defaults(echo):
    told = echo("quick")
    assert told["engine"] == {"what": "engine", "size_is_right": True, "store": None, "memory_bytes": 0, "jobs": 0,
                              "io": 0, "durable": False, "log_level": 1, "dumpable": 0, "core_limit": 0}
    assert told["pull"] == {"what": "pull", "size_is_right": True, "image": "quick", "platform": None,
                            "decryption_keys": [], "require_encrypted": False, "plain_http": False,
                            "tls_no_verify": False, "creds": None, "authfile": None, "cert_dir": None,
                            "timeout_ms": 0, "connections": 0, "snapshot": 0, "verity": False,
                            "dumpable": 0, "core_limit": 0}


EVERY_OPTION = [
    # name, value, call, member, what the library gets
    ("store", "/some/where", "engine", "store", "/some/where"),
    ("log-level", "debug", "engine", "log_level", 3),
    ("platform", "linux/arm64/v8", "pull", "platform", "linux/arm64/v8"),
    ("jobs", "7", "engine", "jobs", 7),
    ("connections", "12", "pull", "connections", 12),
    ("memory", "128M", "engine", "memory_bytes", 128 << 20),
    ("timeout", "20.5", "pull", "timeout_ms", 20500),
    ("decryption-key", "k.pem:pass=a:b", "pull", "decryption_keys", ["k.pem:pass=a:b"]),
    ("require-encrypted", "true", "pull", "require_encrypted", True),
    ("creds", "me:secret", "pull", "creds", "me:secret"),
    ("authfile", "/a.json", "pull", "authfile", "/a.json"),
    ("tls-verify", "false", "pull", "tls_no_verify", True),
    ("cert-dir", "/certs", "pull", "cert_dir", "/certs"),
    ("plain-http", "true", "pull", "plain_http", True),
    ("io", "sync", "engine", "io", 2),
    ("durable", "true", "engine", "durable", True),
    ("snapshot", "overlay", "pull", "snapshot", 0),
    ("snapshot", "erofs", "pull", "snapshot", 1),
    ("snapshot", "auto", "pull", "snapshot", 2),
    ("verity", "true", "pull", "verity", True),
]


@pytest.mark.parametrize("name,value,call,member,wanted", EVERY_OPTION)
def test_option_reaches_library(echo, name, value, call, member, wanted):
    variable = "COCO_PULL_" + name.upper().replace("-", "_")
    assert echo("quick", f"--{name}={value}")[call][member] == wanted
    assert echo(f"--{name}={value}", "pull", "quick")[call][member] == wanted
    assert echo("quick", env={variable: value})[call][member] == wanted
    if value not in ("true", "false"):
        assert echo("pull", f"--{name}", value, "quick")[call][member] == wanted


def test_command_line_wins(echo):
    assert echo("quick", "--jobs", "3", env={"COCO_PULL_JOBS": "5"})["engine"]["jobs"] == 3
    assert not echo("quick", "--durable=false", env={"COCO_PULL_DURABLE": "1"})["engine"]["durable"]
    told = echo("quick", "--decryption-key=a", "--decryption-key", "b", env={"COCO_PULL_DECRYPTION_KEY": "c\nd"})
    assert told["pull"]["decryption_keys"] == ["a", "b"]


def test_repeatable_from_environment(echo):
    told = echo("quick", env={"COCO_PULL_DECRYPTION_KEY": "a:pass=x\n\nb\n"})
    assert told["pull"]["decryption_keys"] == ["a:pass=x", "b"]


def test_last_of_a_single_option_counts(echo):
    assert echo("--creds=a:b", "quick", "--creds=c:d")["pull"]["creds"] == "c:d"


def test_environment_of_other_commands_is_left_alone(echo):
    assert run("list", env={"COCO_PULL_JOBS": "many", "COCO_PULL_CREDS": "me"}).returncode == 0
    assert echo("quick", env={"COCO_PULL_JOBS": ""})["engine"]["jobs"] == 0


def test_command_words(echo):
    assert echo("pull", "list", "--timeout=60")["pull"]["image"] == "list"
    assert echo("--jobs", "2", "--", "pull", "--odd")["pull"]["image"] == "--odd"
    assert echo("pull", "--", "quick")["pull"]["image"] == "quick"


def test_tls_verify_alone_means_true(echo):
    assert not echo("quick", "--tls-verify")["pull"]["tls_no_verify"]
    assert not echo("quick", "--tls-verify", env={"COCO_PULL_TLS_VERIFY": "0"})["pull"]["tls_no_verify"]


@pytest.mark.parametrize("text,wanted", [
    ("64M", 64 << 20), ("64MiB", 64 << 20), ("64m", 64 << 20), ("1G", 1 << 30), ("1GiB", 1 << 30), ("1T", 1 << 40),
    ("65536K", 64 << 20), ("67108864", 64 << 20), ("67108864B", 64 << 20), ("8191P", None), ("0", None), ("", None),
    ("-1", None), ("+1M", None), (" 1M", None), ("1 M", None), ("64MB", None), ("1.5G", None), ("M", None),
    ("0x10", None), ("18446744073709551616", None), ("16777216T", None), ("64M ", None), ("64Mx", None),
])
def test_memory(echo, text, wanted):
    if wanted:
        assert echo("quick", f"--memory={text}")["engine"]["memory_bytes"] == wanted
    else:
        refused("ok", f"--memory={text}", says="--memory")


@pytest.mark.parametrize("text,wanted", [
    ("90", 90000), ("1.5", 1500), ("30s", 30000), ("5m", 300000), ("1h", 3600000), ("0", 0), ("60.0001", 60001),
    ("1.25m", 75000), (".5m", 30000), ("4294967.295", 4294967295), ("4294967.296", None), ("1.", None), (".", None),
    ("", None), ("s", None), ("-1", None), ("1e3", None), ("5ms", None), ("5 s", None), ("1.5.5", None),
    ("99999999999999999999", None), ("nan", None), ("1,5", None),
])
def test_timeout(echo, text, wanted):
    if wanted is not None:
        assert echo("quick", f"--timeout={text}")["pull"]["timeout_ms"] == wanted
    else:
        refused("ok", f"--timeout={text}", says="--timeout")


@pytest.mark.parametrize("args,says", [
    ([], "no image and no command"),
    (["--stats"], "no image and no command"),
    (["ok", "more"], ["pull IMAGE", "2 operands"]),
    (["pull"], ["pull IMAGE", "0 operands"]),
    (["mount", "a"], "mount IMAGE DIR"),
    (["mount", "a", "b", "c"], "3 operands"),
    (["list", "x"], "list"),
    (["help", "nonsense"], "nonsense"),
    ([""], "empty"),
    (["ok", "--store="], "--store"),
    (["ok", "--jobs"], "--jobs"),
    (["ok", "--jobs=0"], "--jobs"),
    (["ok", "--jobs=4294967296"], "--jobs"),
    (["ok", "--jobs=4x"], "--jobs"),
    (["ok", "--io=aio"], ["--io", "auto|uring|sync"]),
    (["ok", "--format=xml"], "text|json"),
    (["ok", "--durable=yes"], "true or false"),
    (["ok", "--tls-verify", "false"], "--tls-verify=false"),
    (["ok", "-x"], "-x"),
    (["ok", "--"[:1] + "j4"], "-j"),
])
def test_usage_errors(args, says):
    refused(*args, says=says)


@pytest.mark.parametrize("wrong,right", [
    ("--strore", "--store"), ("--job", "--jobs"), ("--tls-verfy=false", "--tls-verify"), ("--cred=a:b", "--creds"),
    ("--decrypt", "--decryption-key"), ("--version", "coco-pull version"), ("--list", "coco-pull list"),
])
def test_unknown_option_suggests(wrong, right):
    assert "a:b" not in refused("ok", wrong, says=["unknown option", right])


def test_unknown_option_far_from_all():
    assert "did you mean" not in refused("ok", "--xyzzy", says="unknown option '--xyzzy'")


@pytest.mark.parametrize("args,option", [
    (["list", "--jobs=2"], "--jobs"), (["--rw", "ok"], "--rw"), (["mount", "a", "/", "--creds=a:b"], "--creds"),
    (["version", "--store=/x"], "--store"), (["prune", "--stats"], "--stats"),
    (["help", "--store=/x"], "--store"),
])
def test_option_that_makes_no_sense(args, option):
    refused(*args, says=["has no option", option])


def test_environment_errors_name_the_variable():
    refused("ok", env={"COCO_PULL_JOBS": "many"}, says=["COCO_PULL_JOBS", "many"])
    refused("ok", env={"COCO_PULL_DURABLE": "yes"}, says="COCO_PULL_DURABLE")


def test_usage_error_as_json_wherever_format_stands():
    for args in (["--format=json", "--nonsense", "ok"], ["--nonsense", "ok", "--format", "json"]):
        done = run(*args)
        assert done.returncode == 2
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "usage" and error["class"] == 2 and "--nonsense" in error["message"]
        assert done.stderr.startswith("coco-pull: error: ")


# ---- secrets -------------------------------------------------------------------------------------------

def test_passwords_vanish_from_the_process_list():
    process = start("slow", "--creds", "me:hunter2", "--decryption-key=k.pem:pass=swordfish", "--progress=plain")
    wait_for_line(process.stderr, "pulling")
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        words = file.read()
    process.terminate()
    process.communicate()
    assert b"me:" in words and b"k.pem:" in words
    assert b"hunter2" not in words and b"swordfish" not in words


def test_creds_without_password_need_a_terminal():
    refused("ok", "--creds=me", says=["--creds", "terminal"])


def test_password_from_terminal(tmp_path):
    path = tmp_path / "echo"
    with Terminal("pull", "quick", "--creds", "me", "--progress=none", env={"FAKE_ECHO": str(path)}) as terminal:
        terminal.read_until("Password for me: ")
        assert not termios.tcgetattr(terminal.master)[3] & termios.ECHO
        terminal.write("hunter2\n")
        output = terminal.read_to_end()
        assert termios.tcgetattr(terminal.master)[3] & termios.ECHO
    assert terminal.status == 0
    assert "hunter2" not in output
    assert '"me:hunter2"' in path.read_text()


def test_interrupt_at_the_password_prompt_restores_echo():
    with Terminal("pull", "ok", "--creds", "me") as terminal:
        terminal.read_until("Password for me: ")
        terminal.write("\x03")
        output = terminal.read_to_end()
        assert termios.tcgetattr(terminal.master)[3] & termios.ECHO
    assert terminal.status == 130
    assert "coco-pull: error: cancelled" in output


# ---- pull ----------------------------------------------------------------------------------------------

def test_pull_text():
    done = run("ok")
    assert done.returncode == 0
    assert done.stdout == DIGEST + "\n"
    assert done.stderr.splitlines()[-1].startswith("coco-pull: example.org/image:latest (linux/amd64): 3 layers, 1 of")


def test_pull_quiet():
    done = run("ok", "--progress=none")
    assert (done.returncode, done.stdout, done.stderr) == (0, DIGEST + "\n", "")
    assert "3 layers" in run("ok", "--progress=none", "--log-level=info").stderr


def test_pull_json():
    done = run("ok", "--format=json")
    result = json.loads(done.stdout)
    assert list(result) == ["reference", "manifest_digest", "config_digest", "platform", "snapshot", "layers", "stats"]
    assert result["manifest_digest"] == DIGEST and result["snapshot"] == "overlay"
    assert [list(layer) for layer in result["layers"]] == \
        [["digest", "diff_id", "media_type", "size", "encrypted", "path", "reused"]] * 3
    assert [layer["encrypted"] for layer in result["layers"]] == [False, True, False]
    assert [layer["reused"] for layer in result["layers"]] == [False, False, True]
    assert result["layers"][0]["path"] == "/store/\ufffd/fs"
    assert result["stats"] == {"bytes_fetched": 20000000, "bytes_unpacked": 60000000, "wall_ms": 300,
                               "peak_rss_bytes": 2**63 - 1}


def test_pull_json_of_erofs():
    result = json.loads(run("erofs", "--format=json").stdout)
    assert result["snapshot"] == "erofs"
    assert [layer["file_bytes"] for layer in result["layers"]] == [40960, 49152, 4096]
    assert [layer.get("verity") for layer in result["layers"]] == [
        None, {"root_hash": "00ff" * 16, "data_blocks": 10, "hash_offset": 40960, "salt": "", "algorithm": "sha256"},
        None]


def test_pull_json_with_stats():
    stats = json.loads(run("ok", "--format=json", "--stats").stdout)["stats"]
    assert stats["entries"] == 1234 and stats["io"] == "uring"
    assert stats["connections"] == 4
    assert stats["stages"] == {
        "fetch": {"bytes": 20000000, "busy_ns": 777, "wait_input_ns": 888, "wait_output_ns": 999},
        "open": {"bytes": 60000000, "busy_ns": 111, "wait_input_ns": 222, "wait_output_ns": 333},
        "write": {"bytes": 60000000, "busy_ns": 444, "wait_input_ns": 555, "wait_output_ns": 666},
        "files": {"bytes": 30000000, "busy_ns": 123, "wait_input_ns": 456, "wait_output_ns": 0}}


def test_pull_text_with_stats():
    done = run("ok", "--stats", "--progress=none")
    assert done.stdout == DIGEST + "\n"
    assert re.search(r"^open +57\.2 MiB ", done.stderr, re.M) and "1234 entries, bulk writes by uring" in done.stderr
    assert re.search(r"^files +28\.6 MiB ", done.stderr, re.M)
    assert re.search(r"^fetch +19\.1 MiB ", done.stderr, re.M) and "at most 4 connections a layer" in done.stderr


@pytest.mark.parametrize("code,status", CLASSES.items())
def test_exit_status_of_each_code(code, status):
    done = run(f"fail/{code}", "--format=json")
    assert done.returncode == status
    assert json.loads(done.stdout) == {"error": {"code": code, "class": status,
                                                 "message": f"pulling 'fail/{code}': {code}"}}
    assert done.stderr.splitlines()[-1] == f"coco-pull: error: pulling 'fail/{code}': {code}"


def test_every_code_of_the_header_is_tested():
    with open(os.path.join(SOURCE, "engine/coco_pull.h"), encoding="utf-8") as file:
        assert len(re.findall(r"^\tCPULL_ERR_", file.read(), re.M)) == len(CLASSES)


def test_failure_text_has_empty_stdout():
    done = run("fail/digest", "--progress=none")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "coco-pull: error: pulling 'fail/digest': digest\n"


def test_errno_and_http_status():
    assert json.loads(run("sys", "--format=json").stdout)["error"]["errno"] == errno.ENOSPC
    error = json.loads(run("http", "--format=json").stdout)["error"]
    assert error["http_status"] == 503 and "errno" not in error


def test_engine_error():
    done = run("list", "--store=/refused", "--format=json")
    assert done.returncode == 9
    assert json.loads(done.stdout)["error"]["code"] == "permission"


def test_hostile_message_is_one_harmless_line():
    done = run("hostile", "--progress=none")
    assert done.stderr == \
        "coco-pull: error: entry 'a\\x1b[2J\\x0a\\xc2\\x9b\\xe2\\x80\\xae\\xff' leaves its layer\n"
    done = run("hostile", "--format=json", "--progress=none")
    assert done.stdout.count("\n") == 1 and "\x1b" not in done.stdout
    assert json.loads(done.stdout)["error"]["message"].startswith("entry 'a\x1b[2J\n\x9b\u202e\ufffd'")


def test_message_cut_within_a_character():
    assert json.loads(run("cut", "--format=json").stdout)["error"]["message"] == "entry 'caf\ufffd"


def test_deadline():
    assert run("slow", "--timeout=0.2").returncode == 124


# ---- the other commands --------------------------------------------------------------------------------

def test_list():
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["REFERENCE", "DIGEST", "PLATFORM", "SNAPSHOT", "LAYERS", "SIZE", "PULLED"]
    assert lines[1].split()[:7] == ["registry.example.org/debian:12", "001122334455", "linux/amd64", "overlay", "2",
                                    "3.5", "KiB"]
    assert lines[2].split()[3:5] == ["erofs+verity", "1"]
    assert lines[2].split()[-3:] == ["2", "hours", "ago"]
    assert len({line.index(word) for line, word in zip(lines, ("DIGEST", "001122334455", "001122334455"))}) == 1


def test_list_json():
    images = json.loads(run("list", "--format=json").stdout)
    assert [image["reference"] for image in images] == ["registry.example.org/debian:12",
                                                        "example.org/a/much/longer/name:tag"]
    assert images[0]["pulled_at"] == "2025-11-25T01:41:00Z" and images[0]["size"] == 3584
    assert images[0]["durable"] is True and len(images[0]["layers"]) == 2
    assert [image["snapshot"] for image in images] == ["overlay", "erofs"]
    assert images[1]["layers"][0]["verity"]["root_hash"] == "00ff" * 16 and "verity" not in images[0]["layers"][0]


def test_list_empty():
    assert run("list", env={"FAKE_EMPTY": "1"}).stdout.count("\n") == 1
    assert json.loads(run("list", "--format=json", env={"FAKE_EMPTY": "1"}).stdout) == []


def test_inspect_json():
    image = json.loads(run("inspect", "registry.example.org/debian:12", "--format=json").stdout)
    assert image["manifest"] == {"schemaVersion": 2, "layers": []}
    assert image["config"]["config"]["Labels"]["evil"] == "\x1b[2Jname"
    assert image["layers"][1]["encrypted"] is True and image["layers"][0]["path"] == "/store/layers/a/fs"


def test_inspect_text():
    done = run("inspect", "registry.example.org/debian:12")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "Reference:  registry.example.org/debian:12"
    assert 'Entrypoint: ["/bin/sh","-c"]' in lines
    assert "Labels:     evil=\\x1b[2Jname" in lines
    assert any("2.0 KiB" in line and "encrypted" in line for line in lines)
    assert "Snapshot:   overlay" in lines


def test_inspect_text_of_erofs():
    lines = run("inspect", "example.org/a/much/longer/name:tag").stdout.splitlines()
    assert "Snapshot:   erofs, with hash trees" in lines
    assert "       48.0 KiB on disk, root hash " + "00ff" * 16 in lines


def test_inspect_unknown():
    done = run("inspect", "nothing", "--format=json")
    assert done.returncode == 10 and json.loads(done.stdout)["error"]["code"] == "not_found"


def test_rm_and_prune():
    assert run("rm", "x").stdout == "removed 1 image and 2 layers\n"
    assert json.loads(run("rm", "x", "--format=json").stdout) == {"images": 1, "layers": 2}
    assert run("prune").stdout == "removed 0 images and 1 layer\n"
    assert run("rm", "mounted").returncode == 2


def test_fsck_text():
    done = run("fsck", "--progress=plain")
    assert done.returncode == 0
    assert done.stdout == ("sound: 2 images, 2 layers, 5.5 KiB checked; of 1 layer nothing is recorded to check it by: "
                           "pulled by an older version\n")
    assert done.stderr == "coco-pull: layer 2/2 sha256-bb.verity.erofs: sound, 4.0 KiB\n"
    done = run("fsck", "bad", "--progress=none")
    assert done.returncode == 5 and done.stderr == "coco-pull: error: checking the store: 131 problems\n"
    assert done.stdout.splitlines() == [
        "images/x.json", "  the record is no JSON", "  -> pull it again",
        "layers/sha256-aa (registry.example.org/debian:12, example.org/\\x1bevil:1)",
        "  its content is missing", "  /: another time", "  etc/\\xff\\x1b[2J: other data", "  and 127 more",
        "  -> do something",
        "damaged: 2 images, 2 layers, 5.5 KiB checked; of 1 layer nothing is recorded to check it by: pulled by an "
        "older version"]


def test_fsck_json():
    done = run("fsck", "--format=json", "--progress=json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["sound"] and report["problems"] == [] and "error" not in report
    assert report["layers"][1] == {"name": "sha256-bb.verity.erofs", "diff_id": None, "snapshot": "erofs",
                                   "images": ["registry.example.org/debian:12", "example.org/\x1bevil:1"],
                                   "check": "verity", "checked_bytes": 4096, "problems": 0}
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events] == ["layer", "layer", "done"]
    assert events[1] == {"event": "layer", "layer": 1, "layer_count": 2, "name": "sha256-bb.verity.erofs",
                         "state": "sound", "checked_bytes": 4096, "total_bytes": 4096, "problems": 0}
    assert events[2] == {"event": "done", "layers": 2, "problems": 0, "checked_bytes": 5632, "wall_ms": 7}
    done = run("fsck", "bad", "--format=json", "--progress=none")
    report = json.loads(done.stdout)
    assert done.returncode == 5 and not report["sound"] and report["problem_total"] == 131
    assert report["error"] == {"code": "digest", "class": 5, "message": "checking the store: 131 problems"}
    assert report["problems"][0] == {"images": [], "layer": None, "path": "images/x.json",
                                     "what": "the record is no JSON", "advice": "pull it again"}
    assert report["problems"][3]["path"] == "etc/\ufffd\x1b[2J" and len(report["problems"]) == 4
    done = run("fsck", "none", "--format=json")
    assert done.returncode == 10 and json.loads(done.stdout)["error"]["code"] == "not_found"


def test_fsck_takes_many_images():
    assert run("fsck", *["x"] * 64).returncode == 0
    assert run("fsck", *["x"] * 65).returncode == 2


def test_fsck_is_cancelled():
    done = start("fsck", "slow", "--format=json", "--progress=json")
    wait_for_line(done.stderr, "checking")
    done.send_signal(signal.SIGINT)
    out, _ = done.communicate(timeout=20)
    assert done.returncode == 130 and json.loads(out)["error"]["code"] == "cancelled"


def test_mount(echo, tmp_path):
    assert run("mount", "x", str(tmp_path)).stdout == f"{tmp_path}\n"
    assert json.loads(run("mount", "x", str(tmp_path), "--rw", "--format=json").stdout) == \
        {"image": "x", "dir": str(tmp_path), "read_write": True}
    assert echo("mount", "x", str(tmp_path))["mount"]["read_write"] is False
    assert echo("mount", "x", str(tmp_path), env={"COCO_PULL_RW": "1"})["mount"]["read_write"] is True
    assert run("mount", "x", str(tmp_path / "missing")).returncode == 10
    assert run("unmount", str(tmp_path)).stdout == f"{tmp_path}\n"
    assert run("unmount", "/nothing").returncode == 10


def test_version():
    assert run("version").stdout.startswith("coco-pull ")
    version = json.loads(run("version", "--format=json").stdout)
    assert version["library_version"] == "9.8.7" and re.match(r"\d+\.\d+\.\d+$", version["version"])
    assert "zstd" in version["features"]


# ---- help and man page ---------------------------------------------------------------------------------

def help_options(*args):
    return set(re.findall(r"^  (--[a-z-]+)", run("help", *args).stdout, re.M))


def test_help():
    for args in (["help"], ["-h"], ["--help"]):
        done = run(*args)
        assert done.returncode == 0 and done.stdout.startswith("Usage: coco-pull") and done.stderr == ""
    assert run("pull", "--help").stdout == run("help", "pull").stdout == run("ok", "-h").stdout
    assert help_options("mount") == {"--store", "--format", "--log-level", "--rw"}
    assert "--rw" not in help_options("pull") and len(help_options()) == 22
    assert max(map(len, run("help").stdout.splitlines())) <= 90


def test_no_option_is_untested():
    tested = {"--" + option[0] for option in EVERY_OPTION}
    assert help_options() - tested == {"--format", "--progress", "--stats", "--rw"}


def test_man_page_names_everything():
    with open(os.path.join(SOURCE, "docs/coco-pull.1"), encoding="utf-8") as file:
        page = file.read()
    documented = {name.replace("\\-", "-") for name in re.findall(r"^\.It Fl -([a-z\\-]+)", page, re.M)}
    assert {"--" + name for name in documented} == help_options() | {"--help"}
    commands = set(re.findall(r"^  ([a-z]+) ", run("help").stdout.split("Commands:")[1].split("Options")[0], re.M))
    assert commands == set(re.findall(r"^\.It Cm ([a-z]+)", page, re.M))
    for status in set(CLASSES.values()) | {0}:
        assert re.search(rf"^\.It (Li )?{status}\b", page, re.M), status


# ---- the example embedder ------------------------------------------------------------------------------

def embed(*args):
    return subprocess.run([EMBEDDER, *args], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=10)


def test_embedder_prints_lowerdirs():
    done = embed("/store", "ok")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [b"/store/layers/x/fs", b"/store/layers/x/fs", b"/store/\xff/fs"]
    assert b"layer 2/3 verified: 10000000 of 10000000 bytes" in done.stderr


def test_embedder_fails_as_the_library_does():
    assert embed("/store", "slow", "200").returncode == 124
    assert embed("/store", "fail/digest").returncode == 5
    assert embed("/refused", "ok").returncode == 9
    assert embed("/store").returncode == 2


def test_embedder_cancels_from_another_thread():
    process = subprocess.Popen([EMBEDDER, "/store", "slow"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
                               preexec_fn=default_signals)
    wait_for_line(process.stderr, "pulling")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=5)
    assert process.returncode == 130 and "embed: cancelled: " in stderr
