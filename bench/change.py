# SPDX-License-Identifier: Apache-2.0
"""--compare: what changed between two documents of bench/run."""
import figures

COMPARED = ("wall_s", "cpu_s", "peak_rss_bytes", "memory_bytes", "store_bytes")


def compare(old, new):
    """A row for each figure that both have: {"peer", "image", "figure", "old", "new", "ratio", "apart"}."""
    rows = []
    for row in new["results"]:
        before = figures.find(old, row["peer"], row["image"])
        if row["failed"] or not before:
            continue
        for name in COMPARED:
            if name in row and name in before:
                rows.append({"peer": row["peer"], "image": row["image"], "figure": name, "old": before[name]["median"],
                             "new": row[name]["median"], "apart": figures.apart(before[name], row[name]),
                             "ratio": figures.ratio(row[name]["median"], before[name]["median"])})
    return rows
