"""Processor seconds of the last session of tests, from `build/seconds`.

    python tools/seconds.py            by file, a table for CONTRIBUTING
    python tools/seconds.py --tests    the tests that took over five seconds
"""
import csv
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOW_S = 5.0


def by_test(folder) -> dict: # {id of a test: seconds}
    "What each test took, of all workers."
    out = Counter()
    for path in sorted(Path(folder).glob("*.csv")):
        with open(path, newline="") as f:
            for test, seconds in csv.reader(f): out[test] += float(seconds)
    return dict(out)


def by_file(seconds) -> dict: # {file: (tests, seconds)}, the longest first
    "What each file took."
    numbers, sums = Counter(), Counter()
    for test, taken in seconds.items():
        file = test.partition("::")[0]
        numbers[file] += 1
        sums[file] += taken
    return {file: (numbers[file], taken) for file, taken in sums.most_common()}


def main(*words):
    "Print one of both."
    seconds = by_test(ROOT / "build/seconds")
    if "--tests" in words:
        for test, taken in sorted(seconds.items(), key=lambda row: -row[1]):
            if taken > SLOW_S: print(f"{taken:7.1f} s  {test}")
        return
    print("| file | tests | s |\n| --- | --: | --: |")
    for file, (number, taken) in by_file(seconds).items():
        print(f"| `{Path(file).stem}` | {number} | {taken:.0f} |")
    print(f"| all | {len(seconds)} | {sum(seconds.values()):.0f} |")


if __name__ == "__main__": main(*sys.argv[1:])
