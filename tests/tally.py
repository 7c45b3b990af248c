# SPDX-License-Identifier: Apache-2.0
"""Adds up what tests/run left in a directory: meson's testlog.json of cmocka programs, pytest's junit XML, and `broken`,
a line for each step that did not get as far as a test. Prints a table and the closing line; exit status 0 when nothing
failed and something passed."""
import json
import os
import re
import sys
import xml.etree.ElementTree

CASE = re.compile(r"^(not ok|ok) \d+\b(.*)", re.MULTILINE)


def of_meson(path):
    """[passed, failed, skipped] of unit test programs: the cases of those that print TAP, else the program itself."""
    count = [0, 0, 0]
    with open(path) as f:
        programs = [json.loads(line) for line in f if line.strip()]
    for program in programs:
        cases = CASE.findall(program.get("stdout", "") + "\n" + program.get("stderr", ""))
        failed = sum(word == "not ok" for word, _ in cases)
        skipped = sum(word == "ok" and "# skip" in rest.lower() for word, rest in cases)
        if program["result"] not in ("OK", "SKIP", "EXPECTEDFAIL"):
            failed = max(failed, 1)     # it crashed or ran out of time, whatever its cases said until then
        elif not cases:
            skipped = int(program["result"] == "SKIP")
        good = len(cases) - failed - skipped if cases else int(not failed and not skipped)
        count = [a + b for a, b in zip(count, (max(good, 0), failed, skipped))]
    return count


def of_pytest(path):
    suite = xml.etree.ElementTree.parse(path).getroot()
    suite = suite if suite.tag == "testsuite" else suite[0]
    total, failed, skipped = int(suite.get("tests")), 0, int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return [max(total - failed - skipped, 0), failed, skipped]


def main():
    where, total = sys.argv[1], [0, 0, 0]
    for name in sorted(os.listdir(where)):
        path = os.path.join(where, name)
        if name.endswith(".json"):
            count = of_meson(path)
        elif name.endswith(".xml"):
            count = of_pytest(path)
        elif name == "broken":
            with open(path) as f:
                lines = f.read().splitlines()
            print("\n".join("  FAILED: " + line for line in lines))
            count = [0, len(lines), 0]
        else:
            continue
        print("  %-24s %5d passed %3d failed %3d skipped" % (name, *count))
        total = [a + b for a, b in zip(total, count)]
    print("%d passed, %d failed, %d skipped" % tuple(total))
    sys.exit(0 if total[0] and not total[1] else 1)


main()
