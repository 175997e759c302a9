"The artifact on a Slurm of two virtual nodes; `make test-cluster`. A node is killed in the middle."
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import BIN, ROOT, call
from slurm import Slurm, free_ports, until, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Slurm(tmp_path_factory.mktemp("slurm")) as cluster: yield cluster


def batch(folder, *words):
    "Submit a job that runs a command of the environment; its number."
    script = folder / "job.sh"
    command = " ".join(map(str, words))
    script.write_text(f"#!/bin/sh\nexport PATH={BIN}:$PATH\n{command}\n")
    options = ("--parsable", "--requeue", "--chdir", ROOT, "--output", folder / "%a.out")
    done = call("sbatch", *options, "--array=0-1", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def shown(study):
    result = call(BIN / "edgetpu-repro", "search", "show", "--study", study, "--json")
    return json.loads(result.stdout) if result.returncode == 0 else {"states": {"complete": 0}}


def test_a_search_array_survives_the_loss_of_a_node(slurm, tmp_path):
    study, trials = tmp_path / "study.journal", 400
    run = ("edgetpu-repro", "search", "run", "--study", study, "--target_ms", "0.83",
           "--trials", trials)
    job = batch(tmp_path, *run)
    until(lambda: shown(study)["states"]["complete"] > 20, "twenty trials")
    assert list(slurm.jobs("-j", job).values()) == ["RUNNING"] * 2 # one worker a node
    slurm.kill("n2")
    assert shown(study)["states"]["complete"] < trials
    until(lambda: set(slurm.jobs("-j", job).values()) <= ENDED, "the end of the array", 600)
    found = shown(study)
    assert found["states"]["complete"] == trials and not found["states"]["running"]
    assert sorted(t["index"] for t in found["trials"]) == list(range(trials)) # each of them once
    slurm.start("n2")
    until(lambda: slurm.nodes("idle") == 2, "the node's return")


def curve(folder):
    numbers = json.loads((folder / "train.json").read_text())["numbers"]
    return [epoch["loss"] for epoch in numbers["curve"]]


def test_training_over_two_nodes_follows_that_on_one(slurm, tmp_path):
    words = ("train", "--experiment_type", "mobilenet_edgetpu_v2_tiny", "--profile", "smoke",
             "--distribution_strategy", "jax", "--mode", "train", "--set", "epochs=1",
             "--set", "dropout=0", "--set", "drop_connect=0", "--set", "optimizer=sgd",
             "--set", "learning_rate=1e-6", "--model_dir")
    one, two = tmp_path / "one", tmp_path / "two"
    alone = call(BIN / "edgetpu-repro", *words, one)
    assert alone.returncode == 0, alone.stderr[-2000:]
    address = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}"} # n1 is no host's name
    both = call("srun", "-N2", "-n2", BIN / "edgetpu-repro", *words, two, env=address)
    assert both.returncode == 0, both.stderr[-2000:]
    assert both.stdout.count("2 processes") == 2, both.stdout
    # at a larger rate, fresh weights amplify the rounding of sums: docs/cluster.md
    assert curve(two) == pytest.approx(curve(one), rel=2e-3)


def copied(folder):
    "The repository as a checkout of its own, where the profile smoke has not run."
    leave = shutil.ignore_patterns("__pycache__", ".*", "build", "_site", "smoke", "shared")
    shutil.copytree(ROOT, folder, ignore=leave)
    return folder


def test_the_workflow_survives_the_loss_of_a_node(slurm, tmp_path):
    "All of the profile smoke, from the dataset to the report; the node comes back in its time."
    checkout = copied(tmp_path / "checkout")
    words = (ROOT / "tests/cluster/often.py", "--workflow-profile", "profiles/slurm",
             "--max-threads", "1", "--config", "profile=smoke")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(checkout)}
    before = slurm.restarts()
    with open(tmp_path / "said", "w") as said:
        child = subprocess.Popen([sys.executable, *words], cwd=checkout, env=environment,
                                 stdout=said, stderr=said)
    try:
        def trainings():
            lines = slurm.say("squeue", "-h", "-t", "R", "-o", "%N %k").splitlines()
            return [line for line in lines if "train" in line]

        until(lambda: child.poll() is not None or len(trainings()) == 2, "two trainings", 900)
        slurm.kill("n2")
        until(lambda: slurm.nodes("down") == 1, "the loss of the node")
        slurm.start("n2")
        assert child.wait() == 0, (tmp_path / "said").read_text()[-3000:]
    finally: child.kill()
    assert "autoseg_edgetpu_xs" in (checkout / "build/smoke/report.html").read_text()
    assert slurm.restarts() == before + 1
