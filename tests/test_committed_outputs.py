"What may be committed: outputs of what they show, numbers of one clean commit."
import json

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

import publish
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.records import provenance as provenance_here

COMMITTED = (
    "default", "camvid", "cifar10", "bccd", "bccd_finetune", "published", "joint", "distil")
pytestmark = pytest.mark.quick


def record(folder, step, name, commit):
    "A record that says from which commit it is."
    path = folder / "records" / step / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance = dict(provenance_here(), commit=commit)
    content = dict(step=step, name=name, profile="p", numbers={}, provenance=provenance)
    path.write_text(json.dumps(content))


def test_records_of_one_clean_commit_are_taken(tmp_path):
    for step in ("train", "evaluate"): record(tmp_path, step, "m", "0123456789ab")
    record(tmp_path, "finetune", "m", "ba9876543210")
    publish.check_commits(tmp_path)
    assert publish.commits(tmp_path) == {"workflow": {"0123456789ab"}, "finetune": {"ba9876543210"}}


@pytest.mark.parametrize("step, commit, answer", [
    ("evaluate", "ffffffffffff", "records of workflow come from several commits"),
    ("evaluate", "0123456789ab+", "records of workflow come from several commits"),
    ("finetune", "0123456789ab+", "records of finetune come from a tree that differs"),
    ("finetune", None, "records of finetune come from a tree that differs"),
])
def test_other_records_are_refused(tmp_path, step, commit, answer):
    record(tmp_path, "train", "m", "0123456789ab")
    record(tmp_path, step, "m", commit)
    with pytest.raises(UsageError, match=answer): publish.check_commits(tmp_path)


@pytest.mark.parametrize("profile", COMMITTED)
def test_what_is_committed_comes_from_clean_commits(profile):
    publish.check_commits(ROOT / "results" / profile)


@pytest.fixture
def ran(tmp_path):
    "A notebook, and the same as papermill leaves it: (path, path of the executed one)."
    defaults = 'profile = "smoke" # which one\nsteps = 3'
    parameters = new_code_cell(defaults, metadata=dict(tags=["parameters"]))
    source = new_notebook(cells=[parameters, new_code_cell("print(steps)")])
    nbformat.write(source, tmp_path / "step.ipynb")
    injected = new_code_cell("# Parameters", metadata=dict(tags=["injected-parameters"]))
    said = new_code_cell("print(steps)", outputs=[new_output("stream", text="5\n")])
    given = dict(papermill=dict(parameters=dict(profile="default", steps=5)))
    done = new_notebook(cells=[parameters, injected, said], metadata=given)
    nbformat.write(done, tmp_path / "done.ipynb")
    return tmp_path / "step.ipynb", tmp_path / "done.ipynb"


def test_outputs_belong_to_the_parameters_that_are_shown(ran):
    publish.take_outputs(*ran)
    first, second = nbformat.read(ran[0], as_version=4).cells
    assert first.source == 'profile = "default" # which one\nsteps = 5'
    assert second.outputs[0].text == "5\n"
    publish.take_outputs(*ran) # again: the parameters do not count as a change


def test_folders_of_this_host_are_left_out():
    said = "\x1b[1mDownloading dataset to /home/me/data\x1b[0m\n3 images\n"
    outputs = [new_output("stream", text=said), new_output("stream", text=said.splitlines(True)[0])]
    cell = new_code_cell("load()", outputs=outputs)
    publish.clean_cell(cell)
    assert [o.text for o in cell.outputs] == ["3 images\n"]


def test_outputs_of_another_source_are_refused(ran):
    notebook = nbformat.read(ran[0], as_version=4)
    notebook.cells[1].source = "print(steps + 1)"
    nbformat.write(notebook, ran[0])
    with pytest.raises(UsageError, match="changed since it ran"): publish.take_outputs(*ran)
