"The library's notebooks run as tests."
import pytest
from conftest import ROOT, call
from dependencies import ROOMS

LIBRARY = sorted(p for room in ROOMS for p in (ROOT / "nbs" / room).glob("[0-9]*.ipynb"))
DATA = {"EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data")}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_library_notebook_runs(path):
    "Each in a process of its own: a notebook that defines a dataset registers it in TFDS."
    result = call("nbdev_test", "--path", path, env=DATA)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
