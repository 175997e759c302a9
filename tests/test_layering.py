"The house drawn from its imports: no arrow upwards, no circle; what is data does not know Keras."
import ast
import json
import re

import fastcore.test
import pytest
from conftest import BIN, ROOT, call
from dependencies import MAKERS, PACKAGE, ROOMS, code_of, dependencies, modules, named, registered

pytestmark = pytest.mark.quick
# What builds, what matches boxes to anchors in training, and private names of Keras.
KERAS = tuple(f"{PACKAGE}.{m}" for m in ("models.blocks", "models.anchors", "core.compat"))


def exported(notebook):
    "The module that a notebook exports, such as 'edgetpu_repro.models.specs'."
    found = re.search(r'"#\| default_exp ([\w.]+)"', notebook.read_text())
    return f"{PACKAGE}.{found[1]}" if found else None


NOTEBOOKS = [p for room in ROOMS for p in sorted((ROOT / "nbs" / room).glob("[0-9]*.ipynb"))]
PLACES = {} # module: (place of its room, number of its notebook)
for path in NOTEBOOKS:
    PLACES[exported(path)] = ROOMS.index(path.parent.name), int(path.stem.split("_")[0])


def imports(module):
    "The modules of ours that a module imports by name, within functions too."
    return named(modules()[module].read_text(), module.rpartition(".")[0]) - {module}


def packages(module):
    "Top-level names of what a module imports anywhere."
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import): names |= {a.name.split(".")[0] for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level: names.add(node.module.split(".")[0])
    return names


def test_every_notebook_exports_one_module_and_every_module_has_one():
    assert set(modules()) == set(PLACES)
    assert len(PLACES) == len(NOTEBOOKS), "two notebooks export the same module"


@pytest.mark.parametrize("room", ["core", "models", "data", "train", "search", "cli"])
def test_numbers_are_the_reading_order(room):
    numbers = [path.stem.split("_")[0] for path in NOTEBOOKS if path.parent.name == room]
    assert len(set(numbers)) == len(numbers), f"two notebooks of {room} have the same number"


def test_every_folder_of_notebooks_is_a_room_or_a_set_of_steps():
    folders = {p.parent.name for p in (ROOT / "nbs").glob("*/*.ipynb")}
    assert folders - {"runs", "page", *MAKERS} <= set(ROOMS)


@pytest.mark.parametrize("module", PLACES)
def test_imports_point_down(module):
    upward = {m for m in imports(module) if PLACES[m] >= PLACES[module]}
    assert not upward, f"{module} imports {upward}, which stand above it"
    room, found = module.split(".")[1], packages(module)
    plain = room in ("core", "models") and module not in KERAS
    if plain: assert not found & {"keras", "tensorflow"}
    if room == "models": assert "tensorflow" not in found
    if room in ("show", "cli"): return
    assert not found & {"pandas", "seaborn", "papermill", "snakemake"}


def test_an_arrow_upwards_would_be_seen():
    "Lazy and relative imports count."
    source = "def f():\n    from ..cli import main\n    import edgetpu_repro.show.figures"
    seen = named(source, f"{PACKAGE}.core")
    assert {f"{PACKAGE}.cli.main", f"{PACKAGE}.show.figures"} <= seen


def test_a_registry_imports_its_own_room_only():
    "`TASKS[name]` and a family's builder are imported by computed names, from their own room."
    looks = {m: registered(path.read_text()) for m, path in modules().items()}
    assert any(looks.values())
    for module, found in looks.items():
        assert {m.split(".")[1] for m in found} <= {module.split(".")[1]}, module


def test_no_circle():
    done = set()
    while left := set(PLACES) - done:
        ready = {m for m in left if imports(m) <= done}
        assert ready, f"these import each other: {sorted(left)}"
        done |= ready


@pytest.mark.parametrize("step", ["runs/train", "paper/fig1_blocks", "paper/claims", "runs/blocks"])
def test_a_step_depends_on_what_it_imports(step):
    found = set(dependencies(step))
    named = set(re.findall(rf"from ({PACKAGE}(?:\.\w+)+) import", code_of(step)))
    assert named and {f"{m.replace('.', '/')}.py" for m in named} <= found
    assert not [f for f in found if f.startswith(f"{PACKAGE}/cli/")], "no step needs the command"


def test_every_name_in_a_notebook_comes_from_somewhere():
    "The one star import is of `fastcore.test`, which ruff cannot look into."
    found = call(BIN / "ruff", "check", "--isolated", "--select", "F405,F821",
                 "--output-format", "json", "nbs").stdout
    unknown = [(x["filename"], x["cell"], x["message"]) for x in json.loads(found)
               if x["message"].split("`")[1] not in dir(fastcore.test)]
    assert not unknown
