"""Run the tests of faults by kind, and write their counts into docs/robustness.md.

python tests/faults.py                all kinds, one after another
"""
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from robustness import DOCUMENT, ROOT, commit, parts

FAULTS = "tests/test_faults.py"
KINDS = { # {kind: (file, words of which a test's name has one; all where there is none)}
    "Concurrency: several workers, trainings and workflows on one place, killed ones among them":
        (FAULTS, "worker half journal_that identity taken_up containers a_lock children "
                 "second_reproduce kernel_ends trainings_of_one_folder"),
    "Environment: full disk, clocks, rights, links, names, addresses, another repository":
        (FAULTS, "full_disk clocks passwords not_there proxy writer link rights long_name "
                 "another_repository"),
    "Memory: too little of it, files without limits, growth":
        (FAULTS, "memory own_door do_not_grow leaves_nothing_of"),
    "Honest numbers: records that cannot be, of mixed origin, of another run":
        (FAULTS, "assertion record"),
    "Calibration pictures that cannot serve, and the check of an export":
        ("tests/test_tflite.py", "bad_calibration not_calibrated_on"),
    "Names as script, in report, figures, cards, site and explorer, opened in Chromium":
        ("tests/test_hostile_text.py", ""),
}
HEAD = """
## Other faults

Not by chance but by hand: what two attacks found, each left as a test. `python tests/faults.py`
runs them and writes this table. Skipped is what the host cannot try (no Chromium, no root).

"""
COLUMNS = ("what", "tests", "passed", "failed", "skipped", "commit")


def chosen(file:str, words:str) -> list: # names of functions
    "The tests of a kind."
    names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
    return [name for name in names if not words or any(w in name for w in words.split())]


def counts(file:str, words:str) -> list: # numbers of tests, passed, failed, skipped
    "Run the tests of a kind."
    names = [f"{file}::{name}" for name in chosen(file, words)]
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.xml"
        options = ["-q", "-p", "no:cacheprovider", f"--junitxml={found}"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *names], cwd=ROOT)
        suite = ElementTree.parse(found).getroot().find("testsuite")
    tests, failed, errors, skipped = (int(suite.get(key)) for key in
                                      ("tests", "failures", "errors", "skipped"))
    return [tests, tests - failed - errors - skipped, failed + errors, skipped]


def main():
    "All kinds."
    rows = [COLUMNS, ["---", *["--:"] * (len(COLUMNS) - 1)]]
    rows += [[kind, *counts(*which), commit()] for kind, which in KINDS.items()]
    table = "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)
    DOCUMENT.write_text(parts(DOCUMENT)[0] + HEAD + table)


if __name__ == "__main__": main()
