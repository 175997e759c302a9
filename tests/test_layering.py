"Rooms import rooms below them only, a room's notebooks the earlier ones; what is data does not know Keras."
import ast
import re

import pytest
from conftest import ROOT

ROOMS = ["core", "models", "data", "tasks", "train", "tflite", "measure", "search", "show", "cli"]


def exported(notebook):
    "The module that a notebook exports, such as 'models.specs'."
    found = re.search(r'"#\| default_exp ([\w.]+)"', notebook.read_text())
    return found[1] if found else None


KERAS = ("models.blocks", "models.anchors") # what builds, and what matches boxes to anchors in training
PLACES = {} # module: (place of its room, number of its notebook)
for place, room in enumerate(ROOMS):
    for notebook in sorted((ROOT / "nbs" / room).glob("[0-9]*.ipynb")):
        PLACES[exported(notebook)] = place, int(notebook.stem.split("_")[0])


def imports(module):
    "Top-level names of the packages that a module imports anywhere, and the modules of ours among them."
    package = module.split(".")[:-1]
    names = []
    for node in ast.walk(ast.parse((ROOT / "edgetpu_repro" / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import): names += [a.name for a in node.names]
        if isinstance(node, ast.ImportFrom):
            base = ["edgetpu_repro", *package[:len(package) + 1 - node.level]] if node.level else []
            start = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names += [start, *(f"{start}.{a.name}" for a in node.names)]
    ours = {n.removeprefix("edgetpu_repro.") for n in names if n.startswith("edgetpu_repro.")}
    return {n.split(".")[0] for n in names}, ours & set(PLACES)


def test_every_notebook_exports_one_module_and_every_module_has_one():
    package = ROOT / "edgetpu_repro"
    modules = {".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py")}
    assert {m for m in modules if not m.endswith(("__init__", "_modidx"))} == set(PLACES)
    assert len(PLACES) == sum(len(list((ROOT / "nbs" / room).glob("[0-9]*.ipynb"))) for room in ROOMS)


@pytest.mark.parametrize("module", PLACES)
def test_imports_point_down(module):
    packages, ours = imports(module)
    upward = {m for m in ours if m != module and PLACES[m] >= PLACES[module]}
    assert not upward, f"{module} imports {upward}, which stand above it"
    room = module.split(".")[0]
    if room == "core" or room == "models" and module not in KERAS: assert not packages & {"keras", "tensorflow"}
    if room in ("core", "models"): assert "tensorflow" not in packages
    if room not in ("show", "cli"): assert not packages & {"pandas", "seaborn", "papermill", "snakemake"}
