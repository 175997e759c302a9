"""What a notebook depends on: modules of the package that it imports, directly or through others.

Read from the source. The Snakefile asks for the inputs of each rule, the layering test for the
arrows of the house.
"""
import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "edgetpu_repro"
MAKERS = ("paper", "more") # folders of what makes tables and figures: of the page, and beyond it
ROOMS = ("core", "models", "data", "tasks", "train", "tflite", "weights",
         "measure", "search", "show", "cli")


def _imported(tree, package: str):
    "Full names of what a parsed source imports anywhere; `package` is where it lies."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            upwards = parts[:len(parts) - node.level + 1] if node.level else []
            base = ".".join([*upwards, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _lazily(text: str):
    "Rooms whose modules a source imports by a computed name."
    return re.findall(rf'import_module\(f"{PACKAGE}\.(\w+)\.', text)


@cache
def modules() -> dict:
    "Every module of the package: {full name: path}."
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    subjects = [p for p in files if p.name not in ("__init__.py", "_modidx.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in subjects}


def named(text: str, package: str) -> set:
    "Modules of the package that a source imports by name, within functions too."
    names = set(_imported(ast.parse(text), package))
    if PACKAGE in names:  # the package's own names: build_model, list_models, load_released
        names |= {f"{PACKAGE}.models.specs"}
    return names & set(modules())


def registered(text: str) -> set:
    "Modules that a source may import by a computed name: all of the rooms where it looks."
    return {m for room in _lazily(text) for m in modules() if m.startswith(f"{PACKAGE}.{room}.")}


def _ours(text: str, package: str) -> set:
    "Modules of the package that a source imports, by name or by a computed one."
    return named(text, package) | registered(text)


@cache
def imports(module: str) -> frozenset:
    "Modules of the package that a module imports, lazy imports included."
    text = modules()[module].read_text()
    return frozenset(_ours(text, module.rpartition(".")[0]) - {module})


def closure(names) -> set:
    "These modules and all that they import, through any number of others."
    found, waiting = set(), list(names)
    while waiting:
        module = waiting.pop()
        if module in found: continue
        found.add(module)
        waiting += imports(module)
    return found


def code_of(notebook: str) -> str:
    "The code cells of a notebook, without magics."
    cells = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def dependencies(notebook: str) -> list:
    """Paths in the repository of the modules that a notebook such as 'runs/train' depends on.

    NAME.json beside NAME.py belongs to it.
    """
    found = [modules()[m] for m in closure(_ours(code_of(notebook), PACKAGE))]
    kept = [path.with_suffix(".json") for path in found if path.with_suffix(".json").is_file()]
    return sorted(str(path.relative_to(ROOT)) for path in [*found, *kept])


def source_hash(notebook: str) -> str:
    "A hash of what a notebook says, whatever outputs are saved in it."
    cells = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text())["cells"]
    return hashlib.sha256("\0".join("".join(c["source"]) for c in cells).encode()).hexdigest()


def settings_hash(*parts) -> str:
    "A hash of settings; comments, costs and expectations of a profile are in none."
    return hashlib.sha256(repr(parts).encode()).hexdigest()
