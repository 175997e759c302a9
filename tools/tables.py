"""Committed tables and figures are functions of committed records: make them again, or compare.

    python tools/tables.py                    all of them, into results/ and figures/
    python tools/tables.py --check            says which would differ, and undeclared reads
    python tools/tables.py default/claims ... only these

One process runs the code cells of each notebook; papermill would take minutes.
Galleries need predicted pictures, which are not committed: what comes after them is left out.
"""
import builtins
import contextlib
import gc
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from generated import as_good, cells  # noqa: E402
from manifest import Paper, committed_papers  # noqa: E402

RELATIVE = 2e-3 # last digits of a modelled number: a fit ends elsewhere on another machine


class NoPicture(Exception):
    "A notebook wants pictures that are not committed."


@contextlib.contextmanager
def traced(read: set):
    "Note every record that is read."
    from edgetpu_repro.core import records
    whole = records.read_record

    def note(path):
        read.add(str(Path(path).resolve()))
        return whole(path)

    records.read_record = note
    try: yield
    finally: records.read_record = whole


@contextlib.contextmanager
def notebook_like():
    "What IPython gives a notebook, pictures drawn nowhere, in another checkout."
    import matplotlib
    matplotlib.rcdefaults() # what another notebook set
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    shell = types.SimpleNamespace(user_ns={"In": []})
    load = np.load

    def picture(path, *args, **options):
        if str(path).endswith(".npz"): raise NoPicture(path)
        return load(path, *args, **options)

    builtins.get_ipython, np.load = (lambda: shell), picture
    builtins.display = lambda *args, **options: None
    try: yield
    finally:
        del builtins.get_ipython, builtins.display
        np.load = load
        plt.close("all")


def execute(profile: str, paper: Paper, read: set) -> bool: # Whether all of it could run
    "Run the code cells of a paper notebook here, to the end or to where it wants pictures."
    path = ROOT / "nbs" / f"{paper.source}.ipynb"
    given = dict(profile=profile, **paper.given)
    names = {"__name__": "__main__"}
    with traced(read), notebook_like(), contextlib.redirect_stdout(io.StringIO()):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] != "code": continue
            try: exec(compile("".join(cell["source"]), path.name, "exec"), names)
            except NoPicture: return False
            if "parameters" in cell["metadata"].get("tags", []): names |= given
    gc.collect()
    return True


@contextlib.contextmanager
def checkout():
    "A folder that has the committed records and nothing else to read."
    before = os.environ.get("EDGETPU_REPRO_HOME")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config", "Snakefile", "settings.ini"):
            (Path(folder) / name).symlink_to(ROOT / name)
        for records in ROOT.glob("results/*/records"):
            there = Path(folder) / records.relative_to(ROOT)
            there.parent.mkdir(parents=True)
            there.symlink_to(records)
        os.environ["EDGETPU_REPRO_HOME"] = folder
        try: yield Path(folder)
        finally:
            os.environ.pop("EDGETPU_REPRO_HOME")
            if before: os.environ["EDGETPU_REPRO_HOME"] = before


NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


def as_printed(kept: str, now: str) -> bool:
    "Whether two texts say the same, numbers to one unit of their last printed digit."
    if kept == now: return True
    if NUMBER.sub("#", kept) != NUMBER.sub("#", now): return False
    return all(near(a, b) for a, b in zip(NUMBER.findall(kept), NUMBER.findall(now)))


def near(one: str, other: str) -> bool:
    "Whether two printed numbers have the same digits but for one unit of the last."
    digits = [len(n.partition(".")[2]) for n in (one, other)]
    apart = abs(float(one.replace(",", "")) - float(other.replace(",", "")))
    if not any(digits) and apart: return False # a count is a count
    return digits[0] == digits[1] and apart <= 1.01 * 10.0 ** -digits[0]


def same(kept: Path, now: Path) -> bool:
    "Whether what is committed says what the records say."
    if not kept.is_file(): return False
    one, other = (path.read_text() for path in (kept, now))
    if kept.suffix == ".md": return as_printed(one, other)
    if kept.suffix == ".csv": return as_good(cells(one), cells(other), RELATIVE)
    return as_good(floats(json.loads(one)), floats(json.loads(other)), RELATIVE)


def floats(value):
    "A document with its numbers as floats."
    if isinstance(value, list): return [floats(v) for v in value]
    if isinstance(value, dict): return {k: floats(v) for k, v in value.items()}
    return float(value) if isinstance(value, int | float) else value


def declared(paper: Paper) -> set:
    "The records that a rule names; a folder stands for all in it."
    paths = [ROOT / path for path in paper.reads if "/records/" in path]
    return {str(file.resolve()) for path in paths
            for file in (path.glob("*.json") if path.is_dir() else [path])}


def made(folder: Path, path: str) -> Path:
    "Where a run in another checkout makes what is committed at a path."
    top, profile, *rest = Path(path).parts
    return folder.joinpath("build", profile, top, *rest)


def compared(folder: Path, profile: str, paper: Paper): # Iterator of text
    "What is wrong with the committed files of a notebook and with its declared inputs."
    read = set()
    whole = execute(profile, paper, read)
    files = [p for p in paper.makes if Path(p).suffix in (".csv", ".md", ".json")]
    if whole: assert all(made(folder, p).is_file() for p in paper.makes), paper.source
    for path in files:
        if made(folder, path).is_file() and not same(ROOT / path, made(folder, path)):
            yield f"{path} is not what the records say"
    given = declared(paper)
    for path in sorted(read - given): yield f"{paper.source} reads {path}, undeclared"
    for path in sorted(given - read) if whole else (): yield f"{paper.source} reads no {path}"


def chosen(names) -> list:
    "Of all committed ones, or those that are asked for."
    papers = committed_papers()
    known = {f"{profile}/{rule}" for profile, rule, _ in papers}
    if wrong := set(names) - known: sys.exit(f"unknown: {', '.join(sorted(wrong))}")
    return [p for p in papers if not names or f"{p[0]}/{p[1]}" in names]


def main(words) -> int: # Exit code
    "Write, or check."
    check, wrong = "--check" in words, []
    papers = chosen([w for w in words if w != "--check"])
    with checkout() as folder:
        for profile, rule, paper in papers:
            start = time.perf_counter()
            found = list(compared(folder, profile, paper))
            wrong += found
            print(f"{profile}/{rule}: {time.perf_counter() - start:.1f} s", *found, sep="\n  ",
                  flush=True)
            if check: continue
            stale = [p for p in paper.makes if made(folder, p).is_file() and "/hover/" not in p]
            if not any("not what the records say" in f for f in found): continue
            for path in stale:
                (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(made(folder, path), ROOT / path)
    return int(bool(wrong)) if check else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
