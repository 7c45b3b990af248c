# SPDX-License-Identifier: Apache-2.0
"""--compare: what changed between two documents of bench/run."""
import figures

COMPARED = ("wall_s", "cpu_s", "peak_rss_bytes", "memory_bytes", "store_bytes")
READ = ("find_first_s", "read_first_s", "find_cold_s", "read_cold_s", "find_warm_s", "read_warm_s",
        "memory_pulled_bytes", "memory_first_bytes", "memory_read_bytes")


def changes(before, after, names, image):
    for name in (n for n in names if n in after and n in before):
        yield {"peer": after["peer"], "image": image, "figure": name, "old": before[name]["median"],
               "new": after[name]["median"], "apart": figures.apart(before[name], after[name]),
               "ratio": figures.ratio(after[name]["median"], before[name]["median"])}


def read_rows(document):
    """{(peer, image, place): row} of what was read."""
    rows = (document.get("reading") or {"rows": []})["rows"]
    return {(row["peer"], row["image"], row["place"]): row for row in rows if not row["failed"]}


def compare(old, new):
    """A row for each figure that both have: {"peer", "image", "figure", "old", "new", "ratio", "apart"}."""
    rows = []
    for row in new["results"]:
        before = figures.find(old, row["peer"], row["image"])
        if before and not row["failed"]:
            rows += changes(before, row, COMPARED, row["image"])
    once = read_rows(old)
    for at, row in read_rows(new).items():
        if at in once:
            rows += changes(once[at], row, READ, "%s, %s" % at[1:])
    return rows
