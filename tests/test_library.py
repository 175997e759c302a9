"The library's notebooks run as tests."
import pytest
from conftest import ROOT, call
from dependencies import ROOMS

LIBRARY = sorted(p for room in ROOMS for p in (ROOT / "nbs" / room).glob("[0-9]*.ipynb"))
ENVIRONMENT = {
    "EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data"),
    "EDGETPU_REPRO_LOAD_LESS": "1", # as the command does: two seconds of each notebook
}
# Rooms whose notebooks run in one process, which loads TensorFlow once. In the others a notebook
# registers a dataset in TFDS, or forks a child, which a process with TensorFlow cannot.
TOGETHER = ("core", "models", "tasks", "measure", "show")
ALONE = [p for p in LIBRARY if p.parent.name not in TOGETHER]
RUNS = [*ALONE, *(ROOT / "nbs" / room for room in TOGETHER)]


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_library_notebook_runs(path):
    "A notebook, or all of a room one after the other."
    result = call("nbdev_test", "--path", path, "--n_workers", "0", env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def test_every_notebook_is_run():
    rooms = {path.name for path in RUNS if path.is_dir()}
    assert all(p in RUNS or p.parent.name in rooms for p in LIBRARY) and rooms == set(TOGETHER)
