# SPDX-License-Identifier: Apache-2.0
"""The benchmark: its arithmetic, its page, and one short run of all of it."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.append(str(BENCH))

import bound  # noqa: E402
import change  # noqa: E402
import figures  # noqa: E402
import measure  # noqa: E402
import memory  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
import picture  # noqa: E402
import reading  # noqa: E402
import report  # noqa: E402

GIB = 1 << 30
COSTS = {"receive_s_per_gib": 0.25, "sha256_s_per_gib": 0.5, "hmac_s_per_gib": 0.5, "ctr_s_per_gib": 0.125,
         "inflate_s_per_gib_out": 1.5, "zstd_s_per_gib_out": 1.0, "create_s_per_entry": 1e-5, "write_s_per_gib": 0.25}


def layer(**changes):
    return {"digest": "sha256:0", "compression": "gzip", "encrypted": False, "blob_bytes": GIB,
            "unpacked_bytes": 2 * GIB, "data_bytes": 2 * GIB, "entries": 100000, **changes}


def sample(wall, cpu=None, rss=20 << 20):
    return {"wall_s": wall, "cpu_s": cpu or wall, "peak_rss_bytes": rss, "memory_bytes": 2 * rss, "store_bytes": rss,
            "written_bytes": rss}


def document(own=(1.0, 1.2, 1.1), other=(5.0, 7.0, 6.0)):
    """As a run makes it: one image, coco-pull, podman, containerd that failed."""
    doc = {
        "schema": 1, "started": "2026-01-01T00:00:00+00:00", "rounds": len(own), "quick": False, "store": "tmpfs",
        "machine": {"cpu": "a <CPU> & more", "cores": 2, "memory_bytes": 8 * GIB, "kernel": "6.1", "system": "Debian",
                    "architecture": "x86_64"},
        "versions": {"coco-pull": "1", "podman": "4"}, "missing": {"buildah": "not installed: buildah"},
        "spin": {"before": 1.9, "after": 1.2}, "micro": {"costs": COSTS},
        "images": {"multi:gzip": {
            "digest": "sha256:0", "compression": "gzip", "encrypted": False, "layers": [layer()],
            "blob_bytes": GIB, "unpacked_bytes": 2 * 10**9, "data_bytes": GIB, "entries": 1000,
            "bound": bound.bound([layer()], COSTS, 2)}},
        "results": [figures.result_row("coco-pull", "multi:gzip", [sample(w) for w in own]),
                    figures.result_row("podman", "multi:gzip", [sample(w) for w in other]),
                    figures.result_row("containerd", "multi:gzip", [], "no <room> & \"quotes\"")],
        "startup": {"coco_pull_s": figures.summary([0.03]), "curl_s": figures.summary([0.01]), "difference_ms": 20.0},
        "repull": {by: {"wall_s": figures.summary([0.004]), "median_ms": 4.0, "requests": n}
                   for by, n in (("tag", 1), ("digest", 0))},
    }
    doc["results"][0].update(syscalls=7000, stats={"stages": {
        "open": {"bytes": 1, "busy_ns": 10**9, "wait_input_ns": 10**8, "wait_output_ns": 0}}})
    figures.complete(doc)
    doc["targets"] = figures.targets(doc)
    return doc


def test_summary_and_ratios():
    assert figures.summary([3, 1, 2]) == {"median": 2, "min": 1, "max": 3, "values": [3, 1, 2]}
    assert figures.summary([1, 2])["median"] == 1.5
    doc = document()
    own, other, failed = doc["results"]
    assert own["ratio"]["wall_s"] == 1 and own["syscalls_per_entry"] == 7 and own["cpu_s_per_gb"] == 0.55
    assert other["ratio"]["wall_s"] == pytest.approx(6.0 / 1.1) and other["syscalls_per_entry"] is None
    assert own["bound_ratio"]["cpu_s"] == pytest.approx(1.1 / doc["images"]["multi:gzip"]["bound"]["cpu_s"])
    assert "wall_s" not in failed and figures.find(doc, "containerd", "multi:gzip") is None


def test_bound_adds_up_the_stages():
    got = bound.bound([layer()], COSTS, 2)
    assert got["parts"] == {"receive": 0.25, "sha256 of the blob": 0.5, "inflate": 3.0, "sha256 of the tar": 1.0,
                            "create": pytest.approx(1.0), "write": 0.5}
    assert got["cpu_s"] == pytest.approx(6.25)
    assert (got["wall_s"], got["chain"]) == (pytest.approx(3.125), "inflate")


def test_bound_of_one_layer_is_its_longest_stage():
    got = bound.bound([layer()], COSTS, 64)
    assert (got["wall_s"], got["chain_s"]) == (3.0, 3.0)
    # Creating files is shared by threads: it never bounds a layer alone.
    assert bound.bound([layer(entries=10**9)], COSTS, 10**6)["chain"] == "inflate"


def test_bound_of_encrypted_and_zstd_layers():
    got = bound.bound([layer(encrypted=True, compression="zstd"), layer(compression="none")], COSTS, 2)["parts"]
    assert (got["hmac"], got["ctr"], got["zstd"], got["sha256 of the tar"]) == (0.5, 0.125, 2.0, 2.0)
    assert "inflate" not in got


def test_bound_takes_what_the_blob_itself_took():
    assert bound.bound([layer(decompress_s=0.5)], COSTS, 2)["parts"]["inflate"] == 0.5


def test_bound_without_a_cost_is_not_known():
    assert bound.bound([layer()], {k: v for k, v in COSTS.items() if "write" not in k}, 2) is None


def test_targets_hold_or_not_or_were_not_measured():
    rows = {(r["what"], r["image"]): r for r in document()["targets"]}
    podman = rows["wall against podman", "multi:gzip"]
    assert podman["value"] == pytest.approx(1.1 / 6) and podman["holds"] is True
    assert rows["wall against containerd", "multi:gzip"]["holds"] is None
    assert rows["peak RSS", "multi:gzip"]["holds"] is True
    assert rows["re-pull by tag: requests", "tiny"]["holds"] is True
    slow = {r["what"]: r for r in document(own=(2.0, 2.0))["targets"]}
    assert slow["wall against podman"]["holds"] is False


def test_what_failed_itself_holds_no_target():
    doc = document()
    doc["results"][0] = figures.result_row("coco-pull", "multi:gzip", [], "blob has another digest")
    rows = {(r["what"], r["image"]): r for r in figures.targets(doc)}
    assert rows["wall against podman", "multi:gzip"]["holds"] is False
    assert rows["peak RSS", "multi:gzip"]["holds"] is False and rows["re-pull by tag", "tiny"]["holds"] is True
    assert figures.failures(doc) == [("coco-pull", "multi:gzip")] and not figures.failures(document())


def snapshots(image, own, erofs, cpu=1.0, store=100 << 20):
    """A document of one image pulled by both snapshots: their wall times, and what EROFS has of CPU and store against
    directories of 1 s and 100 MiB."""
    doc = document()
    doc["images"] = {image: doc["images"]["multi:gzip"]}
    doc["results"] = [
        figures.result_row("coco-pull", image, [{**sample(w, 1.0), "store_bytes": 100 << 20} for w in own]),
        figures.result_row("coco-pull erofs", image, [{**sample(w, cpu), "store_bytes": store} for w in erofs])]
    figures.complete(doc)
    doc["targets"] = figures.targets(doc)
    return doc, {r["what"]: r for r in doc["targets"] if r["what"].startswith("erofs: ")}


def test_targets_of_erofs_on_many_files():
    doc, rows = snapshots("many:gzip", (1.0, 1.1, 1.2), (0.5, 0.54, 0.56), 0.6, 76 << 20)
    assert [rows["erofs: %s against overlay" % w]["holds"] for w in ("wall", "CPU", "store")] == [True, True, False]
    assert rows["erofs: store against overlay"]["value"] == pytest.approx(0.76)
    doc["results"][1] = figures.result_row("coco-pull erofs", "many:gzip", [], "no")
    failed = [r for r in figures.targets(doc) if r["what"].startswith("erofs: ")]
    assert [(r["holds"], r["note"]) for r in failed] == [(False, "coco-pull erofs failed")] * 3
    del doc["results"][1]
    assert {r["holds"] for r in figures.targets(doc) if r["what"].startswith("erofs: ")} == {None}


@pytest.mark.parametrize("erofs, holds, said", [
    ((0.9, 0.8, 1.0), True, "yes"), ((1.15, 1.3, 1.4), True, "yes, within the noise"), ((1.3, 1.4, 1.5), False, "NO"),
    ((1.3, 1.4), None, "too few rounds to say")])
def test_target_of_erofs_on_a_huge_layer(erofs, holds, said):
    _, rows = snapshots("huge:zstd", (1.0, 1.1, 1.2), erofs)
    assert list(rows) == ["erofs: wall against overlay"]
    row = rows["erofs: wall against overlay"]
    assert row["holds"] is holds and report.holds(row) == said
    assert ('class="yes"' in page.table(["a"], [[said]], True)) == (holds is True)


def test_erofs_stands_beside_the_directories():
    doc, _ = snapshots("many:gzip", (1.0, 1.1, 1.2), (0.5, 0.54, 0.56))
    assert doc["results"][1]["ratio"]["store_bytes"] == 1
    assert "coco-pull erofs takes" in page.render(doc) and "coco-pull erofs" in report.overview(doc)[0]


READ = {"mount_s": 0.02, **{phase + suffix: 0.5 for phase in report.READ_PHASES for suffix in ("_s", "_cpu_s")},
        **{name + "_bytes": 300 << 20 for name in report.HELD if name.startswith("memory")},
        **{name + "_bytes": 100 << 20 for name in ("cache_pulled", "store_pulled", *report.HELD)
           if not name.startswith("memory")}}


def with_reading(doc, find_cold=(1.0, 1.1, 1.2)):
    doc["reading"] = {"way": "cgroup", "rows": [
        reading.row(peer, "multi:gzip", place, [{**READ, "find_cold_s": s} for s in find_cold], None)
        for peer in figures.SNAPSHOTS for place in ("tmpfs", "ext4")]}
    doc["reading"]["rows"].append(reading.row("coco-pull", "many:gzip", "ext4", [], "no <room>"))
    return doc


def test_reading_is_told():
    doc = with_reading(document())
    text, shown = report.text(doc), page.render(doc)
    assert "multi:gzip, ext4" in text and "1.10 · 0.50" in text and "by a control group of their own" in text
    assert "coco-pull of many:gzip not read from ext4: no <room>" in text
    root = ET.fromstring(shown.partition("\n")[2])
    assert "Reading what was pulled" in [e.text for e in root.iter("h2")] and "not read from ext4" in shown
    doc["reading"] = None
    assert "Reading what" not in page.render(doc) and "reading what" not in report.text(doc)


def test_compare_tells_of_reading():
    rows = {(r["peer"], r["image"], r["figure"]): r for r in change.compare(
        with_reading(document()), with_reading(document(), (0.5, 0.6, 0.7)))}
    cold = rows["coco-pull erofs", "multi:gzip, ext4", "find_cold_s"]
    assert cold["ratio"] == pytest.approx(0.6 / 1.1) and cold["apart"] is True
    assert rows["coco-pull", "multi:gzip, tmpfs", "memory_first_bytes"]["apart"] is False
    assert all(report.compare_cells(r) for r in rows.values())
    assert not [r for r in change.compare(document(), with_reading(document())) if "," in r["image"]]


def test_one_image_of_each_repository_is_read():
    class Image:
        def __init__(self, repository, encrypted):
            self.repository, self.encrypted = repository, encrypted
    images = [Image("multi", True), Image("multi", False), Image("multi", False), Image("huge", True)]
    assert reading.chosen(images) == [images[1], images[3]]


def test_what_the_kernel_holds_is_counted(tmp_path):
    with contextlib.closing(memory.watch()) as group:
        before = group.held()
        subprocess.run(group.wrap(["dd", "if=/dev/zero", "of=%s/file" % tmp_path, "bs=1M", "count=32"]), check=True,
                       stderr=subprocess.DEVNULL)
        held = group.held()
        (tmp_path / "file").unlink()
    more = {name: held[name] - before[name] for name in held}
    assert set(held) == {"cache", "shmem", "kernel"}
    if group.way == "cgroup":
        assert 32 << 20 <= more["cache"] + more["shmem"] < 48 << 20
    assert memory.spent_since(memory.kernel_threads()) >= 0


def test_disks_go_when_they_are_done_with(work):
    disks = measure.Disks(str(work))
    try:
        with disks.fresh() as store:
            assert reading.file_system(store) == "ext4"
            pathlib.Path(store, "file").write_bytes(b"a" * 100000)
            disks.settle(store)
    except subprocess.CalledProcessError:
        pytest.skip("no ext4 by a loop device")
    assert not os.listdir(disks.root) and store not in pathlib.Path("/proc/self/mounts").read_text()
    disks.close()
    assert not list(work.glob("coco-pull-bench-*"))


def test_a_program_without_snapshots_takes_part_once(tmp_path):
    for name, told, options in (("old", "--io", []), ("new", "--snapshot WORD", ["--snapshot", "overlay"])):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho '  %s'\n" % told)
        program.chmod(0o755)
        known = peers.known(str(program))
        assert peers.snapshot_options(str(program)) == options
        assert known["coco-pull"].missing() == "" and known["coco-pull erofs"].missing() == (
            "" if options else "%s has no --snapshot" % program)


def test_compare_tells_a_change_from_noise():
    changed = change.compare(document(), document((0.5, 0.6, 0.55), (5.0, 7.5, 6.5)))
    rows = {(r["peer"], r["figure"]): r for r in changed}
    own, other = rows["coco-pull", "wall_s"], rows["podman", "wall_s"]
    assert own["ratio"] == pytest.approx(0.5) and own["apart"] is True
    assert rows["coco-pull", "peak_rss_bytes"]["apart"] is False
    assert other["apart"] is False and ("containerd", "wall_s") not in rows


def test_compare_wants_three_rounds():
    assert {r["apart"] for r in change.compare(document(), document((0.5, 0.6), (50.0, 75.0)))} == {None}


@pytest.mark.parametrize("change_to_it", ["none", "reading", "no bound", "all failed", "compare"])
def test_page_is_well_formed_and_stands_alone(change_to_it):
    doc = document()
    if change_to_it == "no bound":
        doc["images"]["multi:gzip"]["bound"] = None
        figures.complete(doc)
    elif change_to_it == "all failed":
        doc["results"] = [figures.result_row(r["peer"], r["image"], [], "failed") for r in doc["results"]]
        doc["targets"] = figures.targets(doc)
    elif change_to_it == "reading":
        with_reading(doc)
    elif change_to_it == "compare":
        doc["compare"] = change.compare(document(), doc)
    text = page.render(json.loads(json.dumps(doc)))
    root = ET.fromstring(text.partition("\n")[2])
    assert root.tag == "html" and root.find("body/h1") is not None
    assert "<script" not in text and "src=" not in text and "@import" not in text and "url(" not in text
    # A namespace is a name, not an address that anything is fetched from.
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    charts = [e for e in root.iter() if e.tag.endswith("}svg")]
    assert len(charts) >= (2 if change_to_it == "all failed" else 4)
    for chart in charts:
        for bar in (e for e in chart.iter() if e.tag.endswith("}rect")):
            assert float(bar.get("x")) + float(bar.get("width")) <= 640
    assert ("What changed" in text) == (change_to_it == "compare")
    assert report.text(doc)


def test_pictures_stand_alone(tmp_path):
    doc = document()
    doc["results"].append(figures.result_row("coco-pull erofs", "multi:gzip", [sample(0.5), sample(0.6)]))
    figures.complete(doc)
    (tmp_path / "run.json").write_text(json.dumps(doc))
    made = subprocess.run([BENCH / "plot", tmp_path / "run.json", tmp_path], capture_output=True, text=True, check=True)
    names = ["performance-stages.svg", "performance-peers.svg", "performance-snapshots.svg"]
    assert made.stdout.split() == [str(tmp_path / name) for name in names]
    for name in names:
        text = (tmp_path / name).read_text()
        root = ET.fromstring(text)
        assert "var(" not in text and "<script" not in text and "@import" not in text and "url(" not in text
        _, _, width, height = map(float, root.get("viewBox").split())
        for box in (e for e in root.iter() if e.tag.endswith("}rect")):
            assert float(box.get("x", 0)) + float(box.get("width")) <= width
            assert float(box.get("y", 0)) + float(box.get("height")) <= height
    stages, peers_text, snapshots_text = ((tmp_path / name).read_text() for name in names)
    assert "multi:gzip, store" in snapshots_text and "0.50×" in snapshots_text and "podman" in snapshots_text
    for part in document()["images"]["multi:gzip"]["bound"]["parts"]:
        assert part in stages
    # What failed has no bar.
    assert "podman" in peers_text and "containerd" not in peers_text


def test_pictures_of_what_there_is(tmp_path):
    doc = document()
    doc["images"]["multi:gzip"]["bound"] = None
    figures.complete(doc)
    assert list(picture.pictures(doc)) == ["performance-peers.svg"]
    doc["results"] = [figures.result_row(r["peer"], r["image"], [], "failed") for r in doc["results"]]
    assert picture.pictures(doc) == {}
    (tmp_path / "run.json").write_text("[]")
    for argv, said in (([], "usage: "), ([tmp_path / "run.json", tmp_path], "bench/plot: "),
                       (["/nonexistent", tmp_path], "bench/plot: ")):
        out = subprocess.run([BENCH / "plot", *argv], capture_output=True, text=True, check=False)
        assert out.returncode and out.stderr.startswith(said) and out.stderr.count("\n") == 1


def test_report_names_what_failed_and_what_is_missing():
    text = report.text(document())
    assert 'containerd failed: no <room> & "quotes"' in text and "not there: buildah" in text


def test_strace_total():
    assert measure.strace_total("% time seconds usecs/call calls errors syscall\n------ ----\n"
                                "100.00    0.011516           9      1271        34 total\n") == 1271
    assert measure.strace_total("100.00    0.011516           9      1271           total\n") == 1271
    assert measure.strace_total("nothing here") is None


def test_placeholders_of_a_peer_are_quoted():
    class Image:
        name, encrypted, compression = "a b:gzip", False, "gzip"

        def reference(self, host):
            return host + "/" + self.name
    peer = peers.custom("mine", "pull {reference} {other} ${HOME} to {store}")
    job = peers.Job(Image(), "host:1", "/s t", "", "", "")
    assert peer.command(job)[2] == "pull 'host:1/a b:gzip' {other} ${HOME} to '/s t'"
    Image.encrypted = True
    assert not peer.can(Image()) and peers.custom("mine", "{key}").can(Image())


@pytest.mark.slow
def test_run_quick(binary, work, tmp_path):
    for program in ("curl", "igzip", "jq", "docker-registry"):
        if not shutil.which(program):
            pytest.skip("%s is not installed" % program)
    # Without the micro-benchmarks, which take their time, but with what reads the mounted trees.
    tree = pathlib.Path(binary).parents[2] / "bench" / "micro" / "coco-bench-tree"
    (tmp_path / "coco-bench-tree").symlink_to(tree)
    out = subprocess.run(
        [BENCH / "run", "--quick", "--peers", "shell,shell-verified", "--binary", binary, "--micro",
         tmp_path / "coco-bench-micro",
         "--store", work, "--json", work / "out.json", "--html", work / "out.html",
         "--peer", "mine=%s {reference} --plain-http --store {store}/s" % binary,
         "--peer", "broken=echo this is why >&2; exit 3"], capture_output=True, text=True, check=False, timeout=120)
    assert out.returncode == 0, out.stderr
    doc = json.loads((work / "out.json").read_text())
    rows = {r["peer"]: r for r in doc["results"]}
    has_erofs = ["coco-pull erofs"] if "coco-pull erofs" not in doc["missing"] else []
    assert list(rows) == ["coco-pull", *has_erofs, "shell", "shell-verified", "mine", "broken"]
    assert rows["broken"]["failed"] == "this is why" and "bound" in doc["missing"]
    for name in ("coco-pull", *has_erofs, "shell", "shell-verified", "mine"):
        assert rows[name]["failed"] is None and rows[name]["rounds"] == 2
        assert rows[name]["cpu_s"]["median"] > 0 and rows[name]["wall_s"]["median"] > 0
        assert rows[name]["written_bytes"]["median"] > 5_000_000
    image = doc["images"]["tiny:gzip"]
    assert image["entries"] >= 200 and image["unpacked_bytes"] > image["data_bytes"] > 5_000_000
    if "reading" not in doc["missing"]:
        read = {(r["peer"], r["place"]): r for r in doc["reading"]["rows"]}
        assert [peer for peer, _ in read] == ["coco-pull", *has_erofs]
        for row in read.values():
            assert row["failed"] is None and row["rounds"] == 2 and row["find_cold_s"]["median"] > 0
            assert row["tree_read_bytes"]["median"] >= image["data_bytes"]
    assert rows["coco-pull"]["stats"]["stages"] and doc["startup"]["coco_pull_s"]["median"] > 0
    if doc["repull"]["tag"]["requests"] is not None:
        assert (doc["repull"]["tag"]["requests"], doc["repull"]["digest"]["requests"]) == (1, 0)
    ET.fromstring((work / "out.html").read_text().partition("\n")[2])
    assert "this is why" in out.stdout
    # Nothing stays behind.
    assert sorted(p.name for p in work.iterdir()) == ["out.html", "out.json"]
