"The library's notebooks run as tests."
import pytest
from conftest import ROOT, call

LIBRARY = sorted((ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_library_notebook_runs(path):
    "Each in a process of its own: the data notebook registers a dataset that the package registers too."
    result = call("nbdev_test", "--path", path, env={"EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data")})
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
