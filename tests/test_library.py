"The library's notebooks run as tests: each in a process of its own, which starts warm."
import nbformat
import pytest
from conftest import ROOT, call, warm
from dependencies import ROOMS

LIBRARY = sorted(p for room in ROOMS for p in (ROOT / "nbs" / room).glob("[0-9]*.ipynb"))
NAMES = [p.relative_to(ROOT / "nbs").as_posix() for p in LIBRARY]
EACH = [pytest.param(p, id=name) for p, name in zip(LIBRARY, NAMES)]
ENVIRONMENT = {"EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data")}


@pytest.mark.parametrize("path", EACH)
def test_library_notebook_runs(path):
    "As `nbdev_test` runs it."
    result = warm("notebook", path, env=ENVIRONMENT)
    assert result.returncode == 0, f"open {path}:\n{result.stdout[-1000:]}{result.stderr[-3000:]}"


def test_a_notebook_that_fails_is_named(tmp_path):
    path = tmp_path / "00_bad.ipynb"
    cells = [nbformat.v4.new_code_cell(source, id=f"c{i}")
             for i, source in enumerate(["#| eval: false\nraise SystemExit(3)", "1 / 0"])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    result = warm("notebook", path)
    assert result.returncode == 1 and f"ZeroDivisionError in {path}" in result.stderr


def test_a_reader_tests_a_notebook_by_nbdev():
    result = call("nbdev_test", "--path", LIBRARY[0], "--n_workers", "0")
    assert result.returncode == 0 and "Success." in result.stdout, result.stderr[-3000:]
