"What is for those who change the house: the tests of a room, small faults, seconds of a session."
import ast
import random
import re
import sys

import nbformat
import pytest
from conftest import ROOT, call
from warm import Warm

import mutations
import quick
import seconds
from dependencies import ROOMS, modules


def test_every_file_of_tests_belongs_to_one_room():
    named = [file for room in (*ROOMS, quick.HOUSE) for file in quick.tests(room)]
    assert sorted(named) == sorted(f"tests/{p.name}" for p in (ROOT / "tests").glob("test_*.py"))
    assert set(quick.TESTS) == set(ROOMS) and "tests/test_layering.py" in quick.tests(quick.HOUSE)


def test_a_room_takes_what_is_quick_and_what_was_edited():
    tests = {f"tests/test_tflite.py::test_{i}": float(i) for i in range(4)}
    seconds = {**tests, "nbs/tflite/00_content.ipynb": 9.0, "nbs/tflite/01_file.ipynb": 9.5,
               "tests/test_batches.py::test_a": 20.0, "nbs/core/00_errors.ipynb": 0.1}
    files = len(quick.tests("tflite"))
    waiting, absent = quick.jobs("tflite", seconds, 15.0 + files * quick.FILE_S)
    assert absent == {"nbs/tflite/01_file.ipynb", "tests/test_batches.py::test_a"}
    run = {job.file: job.options for job in waiting}
    assert run["tests/test_tflite.py"] == () and "nbs/tflite/00_content.ipynb" in run
    assert "tests/test_batches.py" not in run and "tests/test_strangers.py" in run # unknown: runs
    edited = ["nbs/tflite/01_file.ipynb"]
    few, absent = quick.jobs("tflite", seconds, 3.0 + files * quick.FILE_S, edited)
    assert "nbs/tflite/00_content.ipynb" in absent
    run = {job.file: job.options for job in few}
    assert run["tests/test_tflite.py"] == ("--deselect=tests/test_tflite.py::test_3",)
    assert "nbs/tflite/01_file.ipynb" in run, "edited"
    every, none = quick.jobs("tflite", seconds, float("inf"))
    assert not none and len(every) == files + len(quick.notebooks("tflite"))


@pytest.fixture
def warm():
    parent = Warm(())
    yield parent
    parent.end()


def test_what_fails_says_which_file_to_open(warm, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text("def test_a():\n    one = 1\n    assert one == 2\n")
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    (tmp_path / "nbs").mkdir()
    cell = nbformat.v4.new_code_cell("1 / 0", id="c1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "nbs/00_a.ipynb")
    said = [quick.Job(file).run(warm, tmp_path) for file in ("tests/test_a.py", "nbs/00_a.ipynb")]
    assert all(job.failed for job in said)
    tests, notebook = (job.where() for job in said)
    assert tests == "open tests/test_a.py:3: AssertionError"
    assert re.match("open nbs/00_a.ipynb: ZeroDivisionError", notebook)


def test_what_loops_for_ever_is_ended(warm, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_a.py").write_text("def test_a():\n    while True: pass\n")
    job = quick.Job("tests/test_a.py").run(warm, tmp_path, limit=3)
    assert job.failed and job.where() == "open tests/test_a.py: it ended by signal 9"


def test_a_room_that_is_none_is_one_line():
    done = call(sys.executable, "tools/quick.py", "tflight")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "tflite" in done.stderr and "tflight" in done.stderr


def test_faults_are_small_and_decided_by_the_seed():
    order = [mutations.drawn("measure", random.Random(seed)) for seed in (3, 3, 4)]
    assert order[0] == order[1] != order[2]
    assert len({fault.kind for fault in order[0][:4]}) == 4
    for room in ROOMS:
        for fault in mutations.drawn(room, random.Random(0))[:3]:
            lines = modules()[fault.module].read_text().split("\n")
            before = ast.dump(ast.parse("\n".join(lines)))
            lines[fault.line - 1] = fault.changed(lines[fault.line - 1], "ran")
            assert ast.dump(ast.parse("\n".join(lines))) != before, fault


@pytest.mark.parametrize("source, wanted", [
    ("def f(a, b): return a - b", {"(a) + (b)"}),
    ("def f(a): return -a", {"a"}),
    ("def f(a, b): return a <= b", {"(a) < (b)"}),
    ("def f(a): return a[1]", {"2"}),
    ("def f(a, b): return g(a, b)", {"g(b, a)"}),
    ("def f(a, b): return max(a, b)", set()),
    ("def f(a, n:int=1): raise ValueError(a + 1)", set()),
    ('def f(a): return f"{a + 1}" + "b"', set()),
])
def test_faults_of_a_line(source, wanted, tmp_path, monkeypatch):
    path = tmp_path / "m.py"
    path.write_text(source)
    monkeypatch.setattr(mutations, "modules", lambda: {"m": path})
    mutations.places.cache_clear()
    assert {fault.text for fault in mutations.places("m")} == wanted
    mutations.places.cache_clear()


def test_seconds_are_summed_by_file(tmp_path):
    (tmp_path / "gw0.csv").write_text("tests/a.py::one,1.50\n\"tests/b.py::two[x, y]\",4\n")
    (tmp_path / "gw1.csv").write_text("tests/a.py::three,0.25\n")
    found = seconds.by_file(seconds.by_test(tmp_path))
    assert found == {"tests/b.py": (1, 4.0), "tests/a.py": (2, 1.75)}
    assert list(found) == ["tests/b.py", "tests/a.py"]
