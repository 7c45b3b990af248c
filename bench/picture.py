# SPDX-License-Identifier: Apache-2.0
"""bench/plot: pictures of a document as SVG files that stand alone, for pages that show no HTML of ours."""
import json
import os
import sys

import chart
import figures
import report

STAGES, PEERS = "performance-stages.svg", "performance-peers.svg"
SNAPSHOTS = "performance-snapshots.svg"
# Of all images the bars of the peers would fill pages.
PEER_IMAGES = ("multi:gzip", "multi:enc", "huge:gzip", "many:gzip")
SNAPSHOT_IMAGES = ("many:gzip", "many:zstd", "multi:gzip", "huge:gzip")
SNAPSHOT_FIGURES = (("wall_s", "wall", lambda v: report.seconds(v) + " s"),
                    ("cpu_s", "CPU", lambda v: report.seconds(v) + " s"),
                    ("store_bytes", "store", lambda v: report.mib(v) + " MiB"))


def stages(document):
    """For each image the bound, part by part, above what coco-pull took. None where no bound is known."""
    rows, there = [], set()
    for name, image in document["images"].items():
        if not image["bound"]:
            continue
        bound, own = image["bound"]["parts"], figures.find(document, figures.SUBJECT, name)
        rows.append({"label": name, "own": True, "text": report.seconds(sum(bound.values())) + " s",
                     "parts": [(part, s, chart.PARTS[part]) for part, s in bound.items()]})
        there.update(bound)
        if own:
            cpu = own["cpu_s"]["median"]
            rows.append({"label": figures.SUBJECT, "own": False, "parts": [(figures.SUBJECT, cpu, "o")],
                         "text": "%s s · %s" % (report.seconds(cpu), report.times(own["bound_ratio"]["cpu_s"]))})
    if not rows:
        return None
    names = {}
    for part, kind in chart.PARTS.items():
        if part in there:
            names.setdefault(kind, []).append(part)
    key = [(" or ".join(same), kind) for kind, same in names.items()]
    return chart.stacks("CPU seconds of each image: the bound, part by part, and what coco-pull took",
                        "CPU seconds, of the bound and of coco-pull", rows, lambda v: report.seconds(v) + " s",
                        key + [(figures.SUBJECT, "o")])


def is_shown(row):
    return not row["failed"] and "@" not in row["peer"] and row["peer"] != figures.SUBJECT + "-24M"


def peers(document):
    """Wall time of the peers, image by image. None where none of the images was pulled."""
    rows = []
    for name in (n for n in PEER_IMAGES if n in document["images"]):
        shown = [r for r in document["results"] if r["image"] == name and is_shown(r)]
        if not shown:
            continue
        rows.append({"label": name, "own": True, "value": None, "text": ""})
        for row in shown:
            wall = row["wall_s"]
            text = report.seconds(wall["median"]) + " s"
            if row["peer"] != figures.SUBJECT and row["ratio"]["wall_s"]:
                text += " · " + report.times(row["ratio"]["wall_s"])
            rows.append({"label": row["peer"], "own": row["peer"] == figures.SUBJECT, "value": wall["median"],
                         "low": wall["min"], "high": wall["max"], "text": text})
    if not rows:
        return None
    return chart.bars("Wall time of a pull, coco-pull and its peers", "seconds of wall time, median and range",
                      rows, alone=True)


def best_peer(document, image, figure):
    """Of all others that were pulled by, the one that takes least of something."""
    rows = [r for r in document["results"]
            if r["image"] == image and is_shown(r) and r["peer"] not in figures.SNAPSHOTS]
    return min(rows, key=lambda r: r[figure]["median"], default=None)


def snapshots(document):
    """EROFS images against directories, and the best of the peers. None where no image was pulled by both."""
    rows = []
    for image in SNAPSHOT_IMAGES:
        own = [figures.find(document, peer, image) for peer in figures.SNAPSHOTS]
        if not all(own):
            continue
        for figure, name, show in SNAPSHOT_FIGURES:
            rows.append({"label": "%s, %s" % (image, name), "own": True, "value": None, "text": ""})
            for row in filter(None, [*own, best_peer(document, image, figure)]):
                s = {k: row[figure][k] / own[0][figure]["median"] for k in ("median", "min", "max")}
                rows.append({"label": row["peer"], "own": row["peer"] == figures.EROFS, "value": s["median"],
                             "low": s["min"], "high": s["max"],
                             "text": "%s · %s" % (show(row[figure]["median"]), report.times(s["median"]))})
    if not rows:
        return None
    return chart.bars("Layers as EROFS images against layers as directories, and the best of the peers",
                      "of what coco-pull takes with directories, median and range", rows, alone=True)


def pictures(document):
    """{file name: text} of those that the document has figures for."""
    made = {STAGES: stages(document), PEERS: peers(document), SNAPSHOTS: snapshots(document)}
    return {name: text for name, text in made.items() if text}


def main(argv):
    if len(argv) != 2 or argv[0].startswith("-"):
        print("usage: bench/plot RUN.json DIRECTORY", file=sys.stderr)
        return 2
    try:
        with open(argv[0]) as f:
            made = pictures(json.load(f))
        for name, text in made.items():
            with open(os.path.join(argv[1], name), "w") as f:
                f.write(text + "\n")
            print(os.path.join(argv[1], name))
    except OSError as e:
        print("bench/plot: %s" % e, file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError):
        print("bench/plot: %s is not what bench/run --json writes" % argv[0], file=sys.stderr)
        return 1
    return 0
