"What the workflow plans: any tasks to their report, on Slurm too, and no names as commands."
import itertools
import shutil
import sys

import pytest
import yaml
from conftest import ROOT, call

CONFIG = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def planned(folder, name):
    "What snakemake plans for a profile in a folder that has nothing but the sources."
    words = ("snakemake", "--cores", "2", "--dry-run", "--quiet", "host")
    environment = {"PYTHONPATH": str(ROOT)}
    return call(*words, "--config", f"profile={name}", cwd=folder, env=environment)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    "A checkout without results."
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Snakefile", "settings.ini"): shutil.copy(ROOT / name, folder)
    for name in ("config", "profiles", "tools", "edgetpu_repro"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("nbs/runs", "nbs/paper", "nbs/more"): shutil.copytree(ROOT / name, folder / name)
    return folder


TASKS = ("classification", "segmentation")
CHOICES = [list(some) for n in (2, 1, 0) for some in itertools.combinations(TASKS, n)]


@pytest.mark.parametrize("tasks", CHOICES, ids=lambda names: "+".join(names) or "none")
def test_profiles_of_any_tasks_reach_their_report(checkout, tasks):
    mine = {task: dict(CONFIG["tasks"][task]) for task in tasks}
    if tasks == ["segmentation"]: mine[tasks[0]]["train"] = {"epochs": 1}
    profile = dict(cost="nothing", tasks=mine, benchmark=CONFIG["benchmark"])
    (checkout / "config/tiny.yaml").write_text(yaml.safe_dump(profile))
    result = planned(checkout, "tiny")
    assert result.returncode == 0, result.stderr[-2000:]
    said = result.stdout + result.stderr
    assert "report" in said
    for task in TASKS: assert (f"benchmark_{task}" in said) == (task in tasks)


def test_the_workflow_is_read_where_no_number_of_cores_is_known(checkout):
    "On Slurm there is none; a dry run, unlike --summary, would set it."
    words = ("snakemake", "--summary", "--workflow-profile", "profiles/slurm")
    result = call(*words, "--config", "profile=smoke", cwd=checkout,
                  env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr[-2000:]
    assert "records/benchmark" in result.stdout


def test_planning_imports_no_keras():
    "It would take seconds, on Slurm twice a job."
    words = (sys.executable, "-X", "importtime", "-m", "snakemake", "--list-rules")
    result = call(*words, "--config", "profile=smoke", env={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr[-2000:]
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "edgetpu_repro.tasks.base" in imported
    assert not imported & {"keras", "tensorflow", "jax"}


def test_a_profile_is_no_command(checkout):
    name = "z; touch X; echo"
    (checkout / f"config/{name}.yaml").write_text((ROOT / "config/smoke.yaml").read_text())
    result = planned(checkout, name)
    assert result.returncode and "letters, digits" in result.stdout + result.stderr
    assert not (checkout / "X").exists()


def test_repeats_are_planned_the_first_of_every_model_before_any_second(checkout):
    mine = {"classification": dict(CONFIG["tasks"]["classification"])}
    profile = dict(CONFIG, tasks=mine, repeats={"seeds": 2, "roundings": 1})
    (checkout / "config/again.yaml").write_text(yaml.safe_dump(profile))
    result = planned(checkout, "again")
    assert result.returncode == 0, result.stderr[-2000:]
    names = ("seed0", "seed1", "rounding1")
    for model in mine["classification"]["models"]:
        assert all(f"repeat_{model}_{name}" in result.stdout for name in names), result.stdout
    assert "benchmark" not in result.stdout, "such a profile makes its repeats and nothing else"
