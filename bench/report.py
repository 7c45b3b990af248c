# SPDX-License-Identifier: Apache-2.0
"""The document as text for a terminal, and the words and units that the page shares with it."""
import figures

MIB = 1 << 20


def seconds(value):
    if value is None:
        return "–"
    return "%.3f" % value if value < 0.1 else "%.2f" % value if value < 100 else "%.0f" % value


def mib(value):
    return "–" if value is None else "%.0f" % (value / MIB)


def times(value):
    return "–" if value is None else "%.2f×" % value if value < 10 else "%.1f×" % value


def number(value):
    return "–" if value is None else "%.1f" % value if value < 100 else "%.0f" % value


def table(head, rows):
    """Columns as wide as they have to be; the first to the left, numbers to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row):
        return "  ".join(cell.rjust(w) if i else cell.ljust(w)
                         for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, rows)])


def spread(row, name):
    s = row[name]
    return "%s (%s–%s)" % (seconds(s["median"]), seconds(s["min"]), seconds(s["max"]))


RESULT_HEAD = ["peer", "wall s", "CPU s", "CPU s/GB", "wall ×", "CPU ×", "CPU/bound", "RSS MiB", "RSS+store MiB",
               "store MiB", "written MiB", "calls/entry"]


def result_cells(row):
    return [row["peer"], spread(row, "wall_s"), spread(row, "cpu_s"), seconds(row["cpu_s_per_gb"]),
            times(row["ratio"]["wall_s"]), times(row["ratio"]["cpu_s"]), times(row["bound_ratio"]["cpu_s"]),
            *(mib(row[name]["median"]) for name in ("peak_rss_bytes", "memory_bytes", "store_bytes", "written_bytes")),
            number(row["syscalls_per_entry"])]


def overview(document):
    """(head, rows): wall and CPU of each peer on each image as a multiple of coco-pull's."""
    peers = list(dict.fromkeys(r["peer"] for r in document["results"] if r["peer"] != figures.SUBJECT))
    rows = []
    for image in document["images"]:
        cells = [image]
        for peer in peers:
            row = figures.find(document, peer, image)
            cells.append("%s · %s" % (times(row["ratio"]["wall_s"]), times(row["ratio"]["cpu_s"])) if row else "–")
        rows.append(cells)
    return ["wall · CPU"] + peers, rows


def image_title(name, image):
    return "%s: %.0f MB in %d layer%s, %.0f MB unpacked, %d entries%s" % (
        name, image["blob_bytes"] / 1e6, len(image["layers"]), "s" * (len(image["layers"]) != 1),
        image["unpacked_bytes"] / 1e6, image["entries"], ", encrypted" if image["encrypted"] else "")


def bound_line(bound):
    if not bound:
        return "  bound: not known"
    parts = ", ".join("%s %s" % (name, seconds(s)) for name, s in bound["parts"].items())
    return "  bound: CPU %s s (%s); wall on %d cores %s s (longest stage of a layer: %s %s)" % (
        seconds(bound["cpu_s"]), parts, bound["cores"], seconds(bound["wall_s"]), bound["chain"],
        seconds(bound["chain_s"]))


def stage_line(row):
    stages = (row.get("stats") or {}).get("stages") or {}
    parts = ["%s: busy %s s, waiting for input %s s, for output %s s" % (
        name, seconds(s["busy_ns"] / 1e9), seconds(s["wait_input_ns"] / 1e9), seconds(s["wait_output_ns"] / 1e9))
        for name, s in stages.items()]
    return "  stages of %s: %s" % (row["peer"], "; ".join(parts)) if parts else ""


def image_block(document, name):
    image, rows = document["images"][name], [r for r in document["results"] if r["image"] == name]
    lines = ["", image_title(name, image), "",
             table(RESULT_HEAD, [result_cells(r) for r in rows if not r["failed"]])]
    lines += ["  %s failed: %s" % (r["peer"], r["failed"]) for r in rows if r["failed"]]
    lines.append(bound_line(image["bound"]))
    lines += [stage_line(r) for r in rows if r["peer"] in figures.SNAPSHOTS and stage_line(r)]
    return lines


READ_PHASES = ("find_first", "read_first", "find_cold", "read_cold", "find_warm", "read_warm")
READ_HEAD = ["image, store", "pulled by", "mount ms", *(name.replace("_", ", ") for name in READ_PHASES)]
HELD_HEAD = ["image, store", "pulled by", "pulled", "kernel", "first", "cache", "kernel", "tree", "store", "read again",
             "cache", "kernel", "tree", "store"]
HELD = ("memory_pulled", "kernel_pulled", *(name + when for when in ("_first", "_read")
                                            for name in ("memory", "cache", "kernel", "tree", "store")))


def read_name(row):
    return "%s, %s" % (row["image"], row["place"])


def read_cells(row):
    def took(phase):
        return "%s · %s" % (seconds(row[phase + "_s"]["median"]), seconds(row[phase + "_cpu_s"]["median"]))
    return [read_name(row), row["peer"], "%.0f" % (1000 * row["mount_s"]["median"]), *map(took, READ_PHASES)]


def held_cells(row):
    return [read_name(row), row["peer"], *(mib(row[name + "_bytes"]["median"]) for name in HELD)]


HELD_BY = {"cgroup": "by a control group of their own", "meminfo": "by what the whole machine has more than before"}


def read_rows(document, failed=False):
    reading = document.get("reading") or {"rows": []}
    return [row for row in reading["rows"] if bool(row["failed"]) == failed]


def read_failures(document):
    return ["%s of %s not read from %s: %s" % (row["peer"], row["image"], row["place"], row["failed"])
            for row in read_rows(document, failed=True)]


def held_title(document):
    return "memory held, MiB, " + HELD_BY[document["reading"]["way"]]


def read_block(document):
    """What reading took, and what was held afterwards."""
    rows, lines = read_rows(document), ["  " + line for line in read_failures(document)]
    if rows:
        lines = ["", "reading what was pulled, wall · CPU s", "", table(READ_HEAD, map(read_cells, rows)), "",
                 held_title(document), "", table(HELD_HEAD, map(held_cells, rows)), *lines]
    return lines


def holds(row):
    note = row["note"]
    return {True: "yes" + (", " + note if note else ""), False: "NO", None: note or "not measured"}[row["holds"]]


def target_cells(row):
    value = "–" if row["value"] is None else "%.3g" % row["value"]
    return [row["what"], row["image"], value, "%.3g" % row["limit"], row["unit"], holds(row)]


TARGET_HEAD = ["target", "image", "measured", "at most", "unit", "holds"]
COMPARE_NAMES = {"wall_s": "wall s", "cpu_s": "CPU s", "peak_rss_bytes": "RSS MiB", "memory_bytes": "RSS+store MiB",
                 "store_bytes": "store MiB", **{phase + "_s": phase.replace("_", ", ") + " s" for phase in READ_PHASES},
                 "memory_pulled_bytes": "held, pulled, MiB", "memory_first_bytes": "held, first, MiB",
                 "memory_read_bytes": "held, read again, MiB"}
COMPARE_HEAD = ["peer", "image", "figure", "old", "new", "new/old", "beyond the noise"]


def compare_cells(row):
    show = mib if row["figure"].endswith("_bytes") else seconds
    return [row["peer"], row["image"], COMPARE_NAMES[row["figure"]], show(row["old"]), show(row["new"]),
            times(row["ratio"]), {True: "yes", False: "no", None: "too few rounds"}[row["apart"]]]


def machine_line(document):
    m, spin = document["machine"], document["spin"]
    return "%s, %d cores, %.0f GiB, %s, kernel %s; two spinning threads get %s of one before, %s after" % (
        m["cpu"], m["cores"], m["memory_bytes"] / 2**30, m["system"], m["kernel"], times(spin["before"]),
        times(spin["after"]))


def small_lines(document):
    start, again = document.get("startup"), document.get("repull")
    if start:
        yield "start-up (3 MB image): coco-pull %s s, curl of its blobs %s s, difference %.1f ms" % (
            seconds(start["coco_pull_s"]["median"]), seconds(start["curl_s"]["median"]), start["difference_ms"])
    for by in ("tag", "digest") if again else ():
        requests = again[by]["requests"]
        yield "re-pull by %s: %.1f ms, %s" % (by, again[by]["median_ms"], "requests not counted" if requests is None
                                              else "%d request%s" % (requests, "s" * (requests != 1)))


def text(document):
    lines = [machine_line(document), "%d rounds, medians (least–most), store on %s; × is against coco-pull" % (
        document["rounds"], document["store"])]
    lines += ["not there: %s (%s)" % item for item in document["missing"].items()]
    for name in document["images"]:
        lines += image_block(document, name)
    lines += read_block(document)
    lines += ["", table(*overview(document)), "", *small_lines(document), "",
              table(TARGET_HEAD, [target_cells(r) for r in document["targets"]])]
    if document.get("compare"):
        lines += ["", table(COMPARE_HEAD, [compare_cells(r) for r in document["compare"]])]
    return "\n".join(lines)
