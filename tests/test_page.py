"The reading path: its order, its links, its pictures; and each stop runs."
import ast
import json
import re

import pytest
from conftest import ROOT, warm

from edgetpu_repro.show.committed import stops

STOPS = stops(ROOT)
EACH = [pytest.param(s, id=s.path.stem) for s in STOPS]
quick = pytest.mark.quick


def cells(path, kind):
    "Cells of a kind, as JSON has them."
    found = json.loads((ROOT / path).read_text())["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def source(path, kind):
    "All text of a kind of cell."
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, kind))


@quick
def test_the_order_is_that_of_the_folder_in_the_table_of_contents_and_in_the_readme():
    assert len(STOPS) == 9 and [s.number for s in STOPS] == [*range(1, 10)]
    for page in ("README.md", "nbs/index.ipynb"):
        text = (ROOT / page).read_text()
        found = re.findall(r"nbs/page/(\w+\.ipynb)", text)
        assert list(dict.fromkeys(found)) == [s.path.name for s in STOPS], page
        assert all(s.title in text and s.summary in text for s in STOPS), f"run {page} again"


@quick
@pytest.mark.parametrize("stop", EACH)
def test_links_of_a_stop_lead_somewhere(stop):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", source(stop.path, "markdown"))
    folder = (ROOT / stop.path).parent
    assert not [t for t in targets if not (folder / t).exists()]
    rooms = [t for t in targets if t.endswith(".ipynb") and "/" in t]
    assert len(rooms) >= 2, "a stop says where the code is"
    assert len(rooms) == len(set(rooms)), "one link a concept"


@quick
@pytest.mark.parametrize("stop", EACH)
def test_a_stop_has_its_pictures_and_verdicts_saved(stop):
    outputs = [o for cell in cells(stop.path, "code") for o in cell["outputs"]]
    kinds = [kind for o in outputs for kind in o.get("data", {})]
    assert "image/png" in kinds
    assert "verdicts(" in source(stop.path, "code") and "text/markdown" in kinds
    for heading in ("What could be wrong", "Where the code is"):
        assert f"## {heading}" in source(stop.path, "markdown")


@quick
@pytest.mark.parametrize("stop", EACH)
def test_no_plotting_code_is_in_sight(stop):
    code = "\n".join(source(stop.path, "code").splitlines())
    tree = ast.parse(code)
    names = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not [n for n in names if n.startswith(("matplotlib", "seaborn", "plotly"))]
    made = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert not [name for name in made if name.startswith(("draw", "plot"))]
    assert any(isinstance(n, ast.Assert) for n in ast.walk(tree)), "sentences have assertions"


@pytest.mark.parametrize("stop", EACH)
def test_a_stop_runs(stop):
    result = warm("notebook", ROOT / stop.path)
    said = f"{result.stdout[-1000:]}{result.stderr[-3000:]}"
    assert result.returncode == 0, f"open {stop.path}:\n{said}"
