# SPDX-License-Identifier: Apache-2.0
"""The document as one HTML page that needs nothing else: no script, no network, light and dark."""
import html

import chart
import figures
import report

STYLE = """
:root { color-scheme: light dark; %s }
@media (prefers-color-scheme: dark) { :root { %s } }
""" % (chart.variables(chart.LIGHT), chart.variables(chart.DARK)) + chart.STYLE + """\
body { margin: 0 auto; max-width: 1360px; padding: 28px 28px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 4px; }
h3 { font-size: 15px; margin: 0 0 6px; } p { margin: 6px 0; max-width: 90ch; } .soft { color: var(--soft); }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 16px; margin: 14px 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px; }
.wide { overflow-x: auto; } svg { width: 100%; height: auto; display: block; }
.key { font-size: 13px; color: var(--soft); } .key i { display: inline-block; width: 11px; height: 11px;
  border-radius: 2px; margin: 0 5px 0 12px; } .key i:first-child { margin-left: 0; }
.key .dash { height: 0; width: 18px; border-top: 2px dashed var(--mark); border-radius: 0; vertical-align: 4px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child, .left td { text-align: left; } th { color: var(--soft); font-weight: 600; }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--bad); font-weight: 600; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--soft); }
"""

STAGE_PARTS = (("busy", "busy_ns", "o"), ("waiting for input", "wait_input_ns", "p0"),
               ("waiting for output", "wait_output_ns", "p4"))
MIB = 1 << 20


def esc(text):
    return html.escape(str(text))


def table(head, rows, last_is_verdict=False):
    def cell(value, last):
        verdict = str(value).partition(",")[0] if last and last_is_verdict else ""
        kind = {"yes": ' class="yes"', "NO": ' class="no"'}.get(verdict, "")
        return "<td%s>%s</td>" % (kind, esc(value))
    body = "".join("<tr>%s</tr>" % "".join(cell(v, i == len(row) - 1) for i, v in enumerate(row)) for row in rows)
    return '<div class="wide"><table><tr>%s</tr>%s</table></div>' % (
        "".join("<th>%s</th>" % esc(h) for h in head), body)


def card(title, *inside):
    return '<div class="card"><h3>%s</h3>%s</div>' % (esc(title), "".join(inside))


def key(parts):
    return '<p class="key">%s</p>' % "".join('<i class="%s"></i>%s' % (kind, esc(name)) for name, kind in parts)


def is_own(peer):
    return peer.split("@")[0].startswith(figures.SUBJECT)


def figure_chart(rows, name, axis, mark=None):
    bars = []
    for row in rows:
        base = {"label": row["peer"], "own": is_own(row["peer"])}
        if row["failed"]:
            bars.append({**base, "value": None, "text": "failed"})
            continue
        s = row[name]
        text = report.seconds(s["median"]) + " s"
        if row["peer"] != figures.SUBJECT and row["ratio"][name]:
            text += " · " + report.times(row["ratio"][name])
        bars.append({**base, "value": s["median"], "low": s["min"], "high": s["max"], "text": text})
    told = '<p class="key"><i class="dash"></i>%s</p>' % esc(mark[1]) if mark else ""
    return chart.bars(axis, axis, bars, mark) + told


def memory_chart(rows):
    bars = []
    for row in (r for r in rows if not r["failed"]):
        rss, whole = row["peak_rss_bytes"]["median"] / MIB, row["memory_bytes"]["median"] / MIB
        bars.append({"label": row["peer"], "own": is_own(row["peer"]), "text": "%.0f + %.0f MiB" % (rss, whole - rss),
                     "parts": [("process", rss, "o"), ("store", whole - rss, "l")]})
    return chart.stacks("Peak memory", "MiB", bars, lambda v: "%.0f MiB" % v) + key(
        [("peak RSS of the largest process, with its daemon", "o"), ("most that the store held", "l")])


def bound_chart(bound, own):
    """The bound above what coco-pull took; own: its rows, by each snapshot."""
    if not bound:
        return '<p class="soft">Not known: there are no micro-benchmarks in this run.</p>'
    parts = [(name, s, chart.PARTS[name]) for name, s in bound["parts"].items()]
    rows = [{"label": "bound", "parts": parts, "own": False, "text": report.seconds(bound["cpu_s"]) + " s"}]
    for row in own:
        cpu = row["cpu_s"]["median"]
        rows.append({"label": row["peer"], "parts": [("CPU", cpu, "o")], "own": True,
                     "text": "%s s · %s" % (report.seconds(cpu), report.times(row["bound_ratio"]["cpu_s"]))})
    said = "On %d cores no less than %s s of wall: %s" % (
        bound["cores"], report.seconds(bound["wall_s"]), "a %s share of the CPU time" % ("1/%d" % bound["cores"])
        if bound["wall_s"] > bound["chain_s"] else "%s of the largest layer, which cannot be split" % bound["chain"])
    said += "".join("; %s takes %s" % (row["peer"], report.times(row["bound_ratio"]["wall_s"])) for row in own) + "."
    return chart.stacks("CPU against the bound", "CPU seconds", rows, lambda v: report.seconds(v) + " s") + key(
        [(name, kind) for name, _, kind in parts]) + '<p class="soft">%s</p>' % esc(said)


def stage_chart(row):
    stages = (row.get("stats") or {}).get("stages")
    if not stages:
        return '<p class="soft">No --stats of %s in this run.</p>' % esc(row["peer"])
    rows = []
    for name, stage in stages.items():
        parts = [(what, stage.get(field, 0) / 1e9, kind) for what, field, kind in STAGE_PARTS]
        rows.append({"label": name, "parts": parts, "own": False, "text": "%s s busy" % report.seconds(parts[0][1])})
    return chart.stacks("Stages", "seconds of %s, summed over the layers, of the last round" % row["peer"], rows,
                        lambda v: report.seconds(v) + " s") + key([(what, kind) for what, _, kind in STAGE_PARTS])


def image_section(document, name):
    image, rows = document["images"][name], [r for r in document["results"] if r["image"] == name]
    own, bound = [r for r in rows if r["peer"] in figures.SNAPSHOTS and not r["failed"]], image["bound"]
    cards = [
        card("Wall time", figure_chart(rows, "wall_s", "seconds", bound and (
            bound["wall_s"], "the bound on %d cores, %s s" % (bound["cores"], report.seconds(bound["wall_s"]))))),
        card("CPU time, all processes and the daemon", figure_chart(rows, "cpu_s", "CPU seconds", bound and (
            bound["cpu_s"], "the bound, %s s" % report.seconds(bound["cpu_s"])))),
        card("Peak memory", memory_chart(rows)) if any(not r["failed"] for r in rows) else "",
        card("coco-pull's CPU time against the bound, and its stages", bound_chart(bound, own),
             *map(stage_chart, own)),
    ]
    failed = "".join("<p>%s failed: %s</p>" % (esc(r["peer"]), esc(r["failed"])) for r in rows if r["failed"])
    title, _, rest = report.image_title(name, image).partition(": ")
    return '<h2>%s</h2><p class="soft">%s</p>%s<div class="grid2">%s</div><details><summary>All figures</summary>%s' \
        '</details>' % (esc(title), esc(rest), failed, "".join(cards), table(
            report.RESULT_HEAD, [report.result_cells(r) for r in rows if not r["failed"]]))


def read_label(row, what):
    return "erofs" if row["peer"] == figures.EROFS else what


def read_chart(rows):
    """Wall times of going through one tree, phase by phase, for each snapshot."""
    bars = []
    for phase in report.READ_PHASES:
        for row in rows:
            s = row[phase + "_s"]
            bars.append({"label": read_label(row, phase.replace("_", ", ")),
                         "own": row["peer"] == figures.EROFS, "value": s["median"], "low": s["min"], "high": s["max"],
                         "text": "%s s" % report.seconds(s["median"])})
    return chart.bars("Going through the tree", "seconds of wall time", bars)


def held_chart(rows):
    """What is held after the pull, after the first reading, and after one that began with dropped caches."""
    bars = []
    for when in ("pulled", "first", "read"):
        for row in rows:
            whole, cache, kernel = (row["%s_%s_bytes" % (name, when)]["median"] / MIB
                                    for name in ("memory", "cache", "kernel"))
            bars.append({"label": read_label(row, when), "own": row["peer"] == figures.EROFS,
                         "text": "%.0f MiB" % whole, "parts": [("store on tmpfs", whole - cache - kernel, "l"),
                                                               ("page cache", cache, "p0"),
                                                               ("inodes and names", kernel, "p4")]})
    return chart.stacks("Memory held", "MiB", bars, lambda v: "%.0f MiB" % v) + key(
        [("store on tmpfs", "l"), ("page cache, which can be dropped", "p0"), ("the kernel's inodes and names", "p4")])


def read_section(document):
    rows, failed = report.read_rows(document), report.read_failures(document)
    if not rows and not failed:
        return []
    cards = []
    for name in dict.fromkeys(report.read_name(r) for r in rows):
        same = [r for r in rows if report.read_name(r) == name]
        cards += [card(name, read_chart(same)), card(name + ": memory held", held_chart(same))]
    return ["<h2>Reading what was pulled</h2>", READ_TOLD, *("<p>%s</p>" % esc(line) for line in failed),
            '<div class="grid2">%s</div>' % "".join(cards), "<details><summary>All figures</summary>",
            table(report.READ_HEAD, map(report.read_cells, rows)),
            *(["<p>%s</p>" % esc(report.held_title(document)), table(report.HELD_HEAD, map(report.held_cells, rows))]
              if rows else []), "</details>"]


READ_TOLD = """<p>Each image is pulled, mounted, and gone through by one small program: every entry looked at
(find), every file read (read). First is right after the pull, with what that left in the page cache; cold with all caches dropped;
warm once more. The upper bar of two is that of directories.</p>"""
READING = """<p>Bars are medians of the rounds, whiskers the least and the most; × is against coco-pull. Peers run
in turn within each round, each into an empty store, with the blobs in the server's page cache. The dashed line is the
bound: what the stages that cannot be left out take on this machine, each alone on one core, added up; for the
wall on all cores, shared evenly, but never less than the longest single stage of one layer. Names with @nginx
pull from nginx, which costs the machine least; the others from docker-registry. The spin factor says how much
two busy threads get done against one: where it is well below 2, wall times say more about the neighbours than
about the program, and CPU times are the ones to compare.</p>"""


def verdict(targets):
    counts = [sum(1 for t in targets if t["holds"] is v) for v in (True, False, None)]
    return "%d hold, %d do not; not measured: %d" % tuple(counts)


def render(document):
    parts = ["<h1>coco-pull against its peers</h1>", '<p class="soft">%s</p>' % esc(report.machine_line(document)),
             '<p class="soft">%s · %d rounds · stores on %s</p>' % (
                 esc(document["started"]), document["rounds"], esc(document["store"])), READING]
    if document["missing"]:
        parts.append("<p>Not there: %s.</p>" % esc("; ".join("%s (%s)" % i for i in document["missing"].items())))
    if document.get("compare"):
        parts += ["<h2>What changed</h2>", table(report.COMPARE_HEAD, map(report.compare_cells, document["compare"]))]
    parts += ["<h2>At a glance</h2>", '<p class="soft">wall and CPU as a multiple of what coco-pull takes</p>',
              table(*report.overview(document))]
    parts += ["<h2>Targets</h2>", '<p class="soft">%s</p>' % verdict(document["targets"]),
              table(report.TARGET_HEAD, map(report.target_cells, document["targets"]), True)]
    parts += [image_section(document, name) for name in document["images"]]
    parts += read_section(document)
    parts += ["<h2>Small things</h2>"] + ["<p>%s</p>" % esc(line) for line in report.small_lines(document)]
    parts += ["<h2>Versions</h2>", table(["peer", "version"], [v for v in document["versions"].items() if v[1]])
              .replace("<table>", '<table class="left">')]
    return '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" ' \
        'content="width=device-width, initial-scale=1"/><title>coco-pull against its peers</title><style>%s</style>' \
        '</head><body>%s</body></html>\n' % (STYLE, "\n".join(parts))
