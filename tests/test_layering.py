"Imports of the package point to lower-numbered notebooks only; model code does not know TensorFlow."
import ast
import re

import pytest
from conftest import ROOT

MODULES = {}
for notebook in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
    number, name = re.match(r"(\d+)_(\w+)", notebook.stem).groups()
    MODULES[name] = int(number)


def imports(module):
    "Top-level names of the packages that a module imports anywhere, and the modules of ours among them."
    tree = ast.parse((ROOT / "edgetpu_repro" / f"{module}.py").read_text())
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = {n.split(".")[1] for n in names if n.startswith("edgetpu_repro.")}
    return {n.split(".")[0] for n in names}, ours


def test_every_notebook_exports_one_module_and_every_module_has_one():
    modules = {p.stem for p in (ROOT / "edgetpu_repro").glob("*.py")} - {"__init__", "_modidx"}
    assert modules == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    packages, ours = imports(module)
    upward = {m for m in ours if MODULES[m] >= MODULES[module]}
    assert not upward, f"{module} imports {upward}, which have no lower number"
    if MODULES[module] <= 2: assert not packages & {"keras", "tensorflow"}
    if 3 <= MODULES[module] <= 8: assert "tensorflow" not in packages
    if MODULES[module] <= 8: assert not packages & {"pandas", "seaborn", "papermill", "snakemake"}
