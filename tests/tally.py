# SPDX-License-Identifier: Apache-2.0
"""Adds up what tests/run left in a directory: meson's testlog.json (programs that print TAP, and pytest), pytest's junit
XML, and `broken`, a line for each step that did not get as far as a test. Prints a table and the closing line; exit
status 0 when nothing failed and something passed."""
import json
import os
import re
import sys
import xml.etree.ElementTree

TAP = re.compile(r"^(not ok|ok) \d+\b(.*)", re.MULTILINE)
PYTEST = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", re.MULTILINE)
PYTEST_WORDS = {"passed": 0, "xpassed": 1, "failed": 1, "error": 1, "errors": 1, "skipped": 2, "xfailed": 2}


def cases_of(output):
    """[passed, failed, skipped] of one program's output."""
    count = [0, 0, 0]
    for word, rest in TAP.findall(output):
        # cmocka calls a skipped test "not ok 3 # SKIP name".
        count[2 if "# skip" in rest.lower() else 1 if word == "not ok" else 0] += 1
    for line in PYTEST.findall(output):
        for number, word in re.findall(r"(\d+) ([a-z]+)", line):
            if word in PYTEST_WORDS:
                count[PYTEST_WORDS[word]] += int(number)
    return count


def of_meson(path):
    """The cases of each program; one that does not tell its cases counts as one."""
    total = [0, 0, 0]
    with open(path) as f:
        programs = [json.loads(line) for line in f if line.strip()]
    for program in programs:
        count = cases_of(program.get("stdout", "") + "\n" + program.get("stderr", ""))
        if program["result"] not in ("OK", "SKIP", "EXPECTEDFAIL"):
            count[1] = max(count[1], 1)     # it crashed or ran out of time, whatever its cases said until then
        elif not any(count):
            count[2 if program["result"] == "SKIP" else 0] = 1
        total = [a + b for a, b in zip(total, count)]
    return total


def of_junit(path):
    suite = xml.etree.ElementTree.parse(path).getroot()
    suite = suite if suite.tag == "testsuite" else suite[0]
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    skipped = int(suite.get("skipped"))
    return [max(int(suite.get("tests")) - failed - skipped, 0), failed, skipped]


def main():
    where, total = sys.argv[1], [0, 0, 0]
    for name in sorted(os.listdir(where)):
        path = os.path.join(where, name)
        if name.endswith(".json"):
            count = of_meson(path)
        elif name.endswith(".xml"):
            count = of_junit(path)
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
