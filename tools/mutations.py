"""Small faults, one at a time, in a copy of the package: does a test find each?

    python tools/mutations.py                      forty faults, the rooms in turn
    python tools/mutations.py --count 4 --room tflite --seed 3
    python tools/mutations.py --notebooks          by notebooks alone: less finds less, sooner
    python tools/mutations.py --anew               forgets what earlier calls have tried

A fault is a wrong sign, a wrong bound, a number that is one too large, or two arguments in each
other's place. It is put into the module and into the notebook that the module comes from. Then run,
until something fails that does not fail without the fault: the module's notebook, those of its room
that depend on it, the room's tests, and the quick tests. A fault in a line that none of these has
run is put back, and another is drawn. What survives is printed, and is for a person to look at:
some change nothing (a bound that is never met). `build/mutations.jsonl` keeps what came of each: a
call that is stopped goes on where it was.
"""
import argparse
import ast
import json
import os
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dependencies import PACKAGE, ROOMS, closure, imports, modules
from quick import HOUSE, ROOT, Job, notebooks, tests as tests_of

COPY = ROOT / "build/mutations/copy"
TRIED = ROOT / "build/mutations.jsonl"
LEFT_OUT = (".git", ".venv", "build", "_site", ".snakemake", "__pycache__", "*.egg-info")
OPPOSITE = {ast.Add: "-", ast.Sub: "+", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
LIMIT_S = 600 # of processor time; a fault may loop for ever
SYMMETRIC = {"isinstance", "max", "min", "print", "isclose", "maximum", "minimum"}
# Not among the quick tests of a fault: they compare sources, not what these do.
SOURCES = ("layering", "notebooks", "readme", "page")


@dataclass(frozen=True)
class Fault:
    "A place in a module, and what is to stand there."
    module: str # Full name
    line: int
    column: int # In bytes, as `ast` counts
    end: int # Column behind it, in the same line
    kind: str
    text: str # What stands there in its place

    @property
    def path(self) -> Path: # Below the copy
        "The module's file."
        return COPY / modules()[self.module].relative_to(ROOT)

    @property
    def notebook(self) -> str: # In the repository
        "Where the module comes from."
        return re.search(r"^# %% \S*?(nbs/\S+\.ipynb)", self.path.read_text(), re.MULTILINE)[1]

    def changed(self, line:str, ran) -> str: # The line with the fault, which leaves a file if run
        "A faulty line."
        raw = line.encode()
        noted = f'(open({str(ran)!r}, "a").close() or ({self.text}))'
        return (raw[:self.column] + noted.encode() + raw[self.end:]).decode()

    def __str__(self):
        return f"{self.module.removeprefix(PACKAGE + '.')}:{self.line} {self.kind}: {self.text}"


@cache
def _lines(text) -> list: # of bytes
    return text.encode().split(b"\n")


def _source(text, node) -> str:
    "What a node says; a new line where it is longer than one, which no fault is."
    if node.lineno != node.end_lineno: return "\n"
    return _lines(text)[node.lineno - 1][node.col_offset:node.end_col_offset].decode()


def _sign(text, node):
    "a + b as a - b; -a as a."
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", _source(text, node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in (ast.Add, ast.Sub):
        if any(isinstance(n, ast.Constant | ast.JoinedStr | ast.Tuple | ast.List | ast.Dict)
               and not isinstance(getattr(n, "value", None), int | float)
               for n in (node.left, node.right)): return
        left, right = _source(text, node.left), _source(text, node.right)
        yield "sign", f"({left}) {OPPOSITE[type(node.op)]} ({right})"


def _bound(text, node):
    "a < b as a <= b."
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPPOSITE:
        left, right = _source(text, node.left), _source(text, node.comparators[0])
        yield "bound", f"({left}) {OPPOSITE[type(node.ops[0])]} ({right})"


def _larger(text, node):
    "A whole number that an index, a range, a sum or a comparison has, one larger."
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    counts = named and node.func.id in ("range", "enumerate")
    if not (counts or isinstance(node, ast.Subscript | ast.Slice | ast.BinOp | ast.Compare)): return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant) and type(child.value) is int:
            yield "off by one", child, str(child.value + 1)


def _swapped(text, node):
    "f(a, b) as f(b, a)."
    if not isinstance(node, ast.Call) or node.keywords or len(node.args) < 2: return
    first, second, *rest = node.args
    if not all(isinstance(a, ast.Name) for a in (first, second)) or first.id == second.id: return
    called = _source(text, node.func)
    if called.rpartition(".")[2] in SYMMETRIC: return
    more = "".join(f", {_source(text, a)}" for a in rest)
    yield "swapped", f"{called}({second.id}, {first.id}{more})"


def _within(node):
    "What runs below a function: no texts, no types, no defaults, no messages of errors."
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert): return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "defaults", "kw_defaults"): continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST): yield from _within(child)


@cache
def places(module:str) -> tuple: # of Fault
    "Every fault that a module could have."
    text = modules()[module].read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    found = {}
    for function in functions:
        for node in (n for statement in function.body for n in _within(statement)):
            for kind, *what in (f for make in (_sign, _bound, _larger, _swapped)
                                for f in make(text, node)):
                at, new = what if len(what) == 2 else (node, *what)
                if at.lineno != at.end_lineno or "\n" in new: continue
                fault = Fault(module, at.lineno, at.col_offset, at.end_col_offset, kind, new)
                found[fault.line, fault.column, kind] = fault
    return tuple(found.values())


def drawn(room:str, chance) -> list: # of Fault, all of the room
    "Faults of a room in an order of their own; kinds take turns."
    every = [f for m in modules() if m.split(".")[1] == room for f in places(m)]
    chance.shuffle(every)
    kinds = sorted({f.kind for f in every})
    chance.shuffle(kinds)
    turns = {kind: [f for f in every if f.kind == kind] for kind in kinds}
    out = []
    while any(turns.values()):
        out += [turns[kind].pop() for kind in kinds if turns[kind]]
    return out


def fresh():
    "A copy of the checkout, whose dataset is the one here."
    shutil.rmtree(COPY.parent, ignore_errors=True)
    shutil.copytree(ROOT, COPY, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (COPY / "build").mkdir()
    (COPY / "build/data").symlink_to(ROOT / "build/data")


def exported(notebook) -> str:
    "The module that a notebook exports."
    found = re.search(r'"#\| default_exp ([\w.]+)"', (ROOT / notebook).read_text())
    return f"{PACKAGE}.{found[1]}"


def checks(fault, tests:bool) -> list: # of Job
    "What may find a fault, in this order; without tests the notebooks alone."
    room, own = fault.module.split(".")[1], fault.notebook
    near = [n for n in notebooks(room) if n != own and fault.module in closure([exported(n)])]
    near.sort(key=lambda n: fault.module not in imports(exported(n)))
    if not tests: return [Job(own), *map(Job, near)]
    named = {f: f"{fault.module} import" in (ROOT / f).read_text() for f in tests_of(room)}
    of = sorted(named, key=lambda file: not named[file])
    elsewhere = [file for other in (*ROOMS, HOUSE) for file in tests_of(other)]
    quick = [f for f in elsewhere if f not in named and "quick" in (ROOT / f).read_text()
             and f.removeprefix("tests/test_").removesuffix(".py") not in SOURCES]
    return [Job(own), *map(Job, near), *map(Job, of), *(Job(f, ("-m", "quick")) for f in quick)]


class Copy:
    "The copy, with at most one fault in it."
    def __init__(self, warm, tests=True):
        self.warm, self.tests, self.ran = warm, tests, COPY.parent / "ran"
        self.sound = {} # {id of a check: whether it fails without a fault, too}

    def put(self, fault) -> list: # [(path, text before)]
        "Put a fault into module and notebook; nothing where its line is not in both, once."
        lines = fault.path.read_text().split("\n")
        old = lines[fault.line - 1]
        lines[fault.line - 1] = fault.changed(old, self.ran)
        notebook = COPY / fault.notebook
        content = json.loads(notebook.read_text())
        cells = [c for c in content["cells"] if c["cell_type"] == "code"
                 and re.match(r"#\s*\|\s*export", "".join(c["source"]).lstrip())]
        at = [(c, i) for c in cells for i, line in enumerate(c["source"])
              if line.rstrip("\n") == old]
        if len(at) != 1: return []
        cell, i = at[0]
        cell["source"][i] = cell["source"][i].replace(old, lines[fault.line - 1])
        before = [(path, path.read_text()) for path in (fault.path, notebook)]
        fault.path.write_text("\n".join(lines))
        notebook.write_text(json.dumps(content))
        return before

    def check(self, job, fault) -> bool|None: # Whether it failed; None: there is no such fault
        "Run something with a fault in the copy."
        if not (before := self.put(fault)): return None
        broken = (test for test, fails in self.sound.items() if fails)
        job.options += tuple(f"--deselect={test}" for test in broken)
        try: return job.run(self.warm, COPY, LIMIT_S).failed
        finally:
            for path, text in before: path.write_text(text)

    def fails_always(self, job) -> bool:
        "Whether what failed by a fault fails without it, too."
        failing = job.failing or job.file
        if failing not in self.sound:
            again = Job(failing, tuple(o for o in job.options if not o.startswith("--deselect")))
            self.sound[failing] = again.run(self.warm, COPY, LIMIT_S).failed
        return self.sound[failing]

    def found_by(self, fault) -> tuple: # of Job or None; whether the line ran; None: not to be put
        "The first check that fails by a fault, and whether its line ran."
        self.ran.unlink(missing_ok=True)
        for job in checks(fault, self.tests):
            while failed := self.check(job, fault):
                if not self.fails_always(job): return job, self.ran.exists()
                if not job.failing: break
            if failed is None: return None, None
        return None, self.ran.exists()


class Tried:
    "What came of each fault, by this call or an earlier one, kept as lines of JSON."
    def __init__(self, copy, path=TRIED, anew=False):
        self.copy, self.path = copy, Path(path)
        if anew: self.path.unlink(missing_ok=True)
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known = {key: (said, ran) for key, said, ran in map(json.loads, lines)}

    def __getitem__(self, fault) -> tuple: # What finds it, or None; whether its line ran
        "Try a fault where none like it has been tried."
        line = modules()[fault.module].read_text().split("\n")[fault.line - 1]
        key = f"{fault} for {line.strip()}; {'all' if self.copy.tests else 'notebooks'}"
        if key not in self.known:
            job, ran = self.copy.found_by(fault)
            self.known[key] = job and job.where(), ran
            with open(self.path, "a") as f: print(json.dumps([key, *self.known[key]]), file=f)
        return self.known[key]


def main():
    "Draw, try, and say."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=ROOMS, action="append")
    parser.add_argument("--notebooks", action="store_true")
    parser.add_argument("--anew", action="store_true")
    given = parser.parse_args()
    fresh()
    os.environ |= {"PYTHONPATH": str(COPY), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path.insert(0, str(COPY / "tests"))
    sys.modules.pop("warm")
    from warm import LIBRARIES, Warm # the copy's: what it starts is at home there
    warm, survivors = Warm(LIBRARIES), []
    chance = random.Random(given.seed)
    outcome = Tried(Copy(warm, not given.notebooks), anew=given.anew)
    rooms = given.room or list(ROOMS)
    waiting = {room: drawn(room, chance) for room in rooms}
    for number in range(given.count):
        room, tried = rooms[number % len(rooms)], None
        while not tried and waiting[room]:
            fault, began = waiting[room].pop(0), time.monotonic()
            found, tried = outcome[fault]
            if not tried: continue
            print(f"{number + 1:3} {time.monotonic() - began:4.0f} s  {fault}\n"
                  f"        {found or 'SURVIVES'}", flush=True)
            if not found: survivors.append(fault)
    warm.end()
    print(f"{given.count - len(survivors)} of {given.count} faults were found; these were not:")
    for fault in survivors: print(f"  {fault}")


if __name__ == "__main__": main()
