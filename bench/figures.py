# SPDX-License-Identifier: Apache-2.0
"""What the runs come to: medians with their range, ratios, and whether the targets hold. Nothing here measures."""
import statistics

GB = 1e9
MIB = 1 << 20
MEASURED = ("wall_s", "cpu_s", "peak_rss_bytes", "memory_bytes", "store_bytes", "written_bytes")
SUBJECT, EROFS = "coco-pull", "coco-pull erofs"
SNAPSHOTS = (SUBJECT, EROFS)
# A difference is beyond the noise where the ranges of so many rounds do not touch.
ROUNDS_LEAST = 3


def summary(values):
    """{"median", "min", "max", "values"} of what one figure was in each round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}


def median(row, name):
    """A figure of a row, or None where there is none."""
    return row[name]["median"] if row and row.get(name) else None


def ratio(a, b):
    return a / b if a is not None and b else None


def apart(one, other):
    """Do the ranges of two summaries not touch? Then it is not just the noise of the rounds; None: too few to say."""
    if min(len(one["values"]), len(other["values"])) < ROUNDS_LEAST:
        return None
    return one["max"] < other["min"] or one["min"] > other["max"]


def find(document, peer, image):
    """The row of a peer and an image, or None: not run, or failed."""
    for row in document["results"]:
        if row["peer"] == peer and row["image"] == image and not row["failed"]:
            return row
    return None


def result_row(peer, image, samples, failed=None):
    """One row of the document out of the samples of each round."""
    row = {"peer": peer, "image": image, "rounds": len(samples), "failed": failed}
    if samples and not failed:
        row.update({name: summary([s[name] for s in samples]) for name in MEASURED})
    return row


def complete(document):
    """Adds to each row what follows from other rows and from the image: per GB, per file, ratios, the bound."""
    for row in document["results"]:
        if row["failed"]:
            continue
        image = document["images"][row["image"]]
        base = find(document, SUBJECT, row["image"])
        row["cpu_s_per_gb"] = ratio(median(row, "cpu_s"), image["unpacked_bytes"] / GB)
        row["syscalls_per_entry"] = ratio(row.get("syscalls"), image["entries"])
        row["ratio"] = {name: ratio(median(row, name), median(base, name))
                        for name in ("wall_s", "cpu_s", "peak_rss_bytes", "memory_bytes", "store_bytes")}
        bound = image.get("bound") or {}
        row["bound_ratio"] = {"cpu_s": ratio(median(row, "cpu_s"), bound.get("cpu_s")),
                              "wall_s": ratio(median(row, "wall_s"), bound.get("wall_s"))}


def target(what, image, value, limit, unit="", note=""):
    """A row of the targets: holds is None where nothing was measured."""
    return {"what": what, "image": image, "value": value, "limit": limit, "unit": unit, "note": note,
            "holds": None if value is None else value <= limit}


def peer_targets(document, image):
    own = find(document, SUBJECT, image)
    for peer, figure, limit in (("podman", "wall_s", 1 / 5), ("containerd", "wall_s", 1 / 5),
                                ("containerd", "cpu_s", 1 / 3), ("shell", "wall_s", 0.8)):
        other = find(document, peer, image)
        yield target("%s against %s" % ({"wall_s": "wall", "cpu_s": "CPU"}[figure],
                                        "unverified shell" if peer == "shell" else peer), image,
                     ratio(median(own, figure), median(other, figure)), limit)
    yield target("CPU against the bound", image, own and own["bound_ratio"]["cpu_s"], 1.25)


def not_worse(what, image, own, other, figure):
    """A target of at most 1 that still holds where it is missed by less than the noise of the rounds."""
    row = target(what, image, ratio(median(own, figure), median(other, figure)), 1.0)
    if row["holds"] is False:
        beyond = apart(own[figure], other[figure])
        row.update(holds=None if beyond is None else not beyond,
                   note="too few rounds to say" if beyond is None else "" if beyond else "within the noise")
    return row


def snapshot_targets(document, image):
    """What EROFS has to bring against directories."""
    own, base = find(document, EROFS, image), find(document, SUBJECT, image)
    if image.startswith("huge:"):
        yield not_worse("erofs: wall against overlay", image, own, base, "wall_s")
        return
    for what, figure, limit in (("wall", "wall_s", 0.5), ("CPU", "cpu_s", 0.6), ("store", "store_bytes", 0.75)):
        yield target("erofs: %s against overlay" % what, image, ratio(median(own, figure), median(base, figure)), limit)


def memory_targets(document, image):
    own, small = find(document, SUBJECT, image), find(document, SUBJECT + "-24M", image)
    for row, what, limit in ((own, "peak RSS", 96), (small, "peak RSS with --memory 24M", 48)):
        value = median(row, "peak_rss_bytes")
        yield target(what, image, value and value / MIB, limit, "MiB")
    yield target("wall with --memory 24M against the default", image,
                 ratio(median(small, "wall_s"), median(own, "wall_s")), 1.3)


def failures(document):
    """(peer, image) of all that coco-pull itself, by any way, did not pull."""
    return [(row["peer"], row["image"]) for row in document["results"]
            if row["failed"] and row["peer"].startswith(SUBJECT)]


def targets(document):
    """Every row of the table of targets that this document can say something about, or should have. What is not
    measured because coco-pull failed does not hold."""
    rows, failed = target_rows(document), failures(document)
    for row in rows:
        wanted = [EROFS, SUBJECT] if "erofs" in row["what"] else [SUBJECT + "-24M" if "24M" in row["what"] else SUBJECT]
        peer = next((peer for peer in wanted if (peer, row["image"]) in failed), None)
        if row["holds"] is None and peer:
            row.update(holds=False, note=peer + " failed")
    return rows


def target_rows(document):
    names, rows = list(document["images"]), []
    for image in names:
        name, _, tag = image.partition(":")
        if name in ("multi", "huge", "many") and tag in ("gzip", "zstd"):
            rows += peer_targets(document, image)
        if name in ("huge", "many") and tag in ("gzip", "zstd"):
            rows += snapshot_targets(document, image)
        if tag == "enc" and name + ":gzip" in names:
            rows.append(target("CPU encrypted against plain", image,
                               ratio(median(find(document, SUBJECT, image), "cpu_s"),
                                     median(find(document, SUBJECT, name + ":gzip"), "cpu_s")), 1.10))
        rows += memory_targets(document, image)
    start, again = document.get("startup") or {}, document.get("repull") or {}
    rows.append(target("start-up: wall above curl of the blobs", "tiny", start.get("difference_ms"), 30, "ms"))
    for by, requests in (("tag", 1), ("digest", 0)):
        rows.append(target("re-pull by " + by, "tiny", again.get(by, {}).get("median_ms"), 10, "ms"))
        rows.append(target("re-pull by %s: requests" % by, "tiny", again.get(by, {}).get("requests"), requests))
    rows.append(target("200 pulls in one process: growth", "–", None, 0, note="see the soak test"))
    return rows
