"`compare`: a run beside what is committed, number by number and verdict by verdict."
import json
import re
import shutil

import pytest
from conftest import ROOT

from edgetpu_repro.core.records import broken_promises
from edgetpu_repro.core.settings import load_profile

pytestmark = pytest.mark.quick


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "A checkout whose run of bccd gave what is committed."
    for name in ("Snakefile", "settings.ini"): (tmp_path / name).touch()
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for profile in ("bccd", "camvid", "default"):
        kept = tmp_path / "results" / profile
        shutil.copytree(ROOT / "results" / profile, kept)
        shutil.copytree(kept, tmp_path / "build" / profile / "results")
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))
    return tmp_path


def change(path, **numbers):
    "Write other numbers into a record."
    record = json.loads(path.read_text())
    record["numbers"] |= numbers
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("profile", ["bccd", "camvid", "default"])
def test_a_run_that_gave_the_same_is_reproduced(checkout, inside, profile):
    answer = inside("compare", "--profile", profile)
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.startswith(f"{profile}: reproduced: ") and answer.stdout.count("\n") == 1
    whole = inside("compare", "--profile", profile, "--all").stdout.splitlines()
    assert len(whole) > 5 and all(": inside" in line for line in whole[:-1])


def test_a_count_that_differs_is_outside(checkout, inside):
    name = "spaghettinet_edgetpu_s"
    path = checkout / f"build/bccd/results/records/export/{name}_timed.json"
    change(path, params=1)
    answer = inside("compare", "--profile", "bccd")
    assert f"{name}_timed: params: " in answer.stdout and "OUTSIDE" in answer.stdout


def test_too_many_accuracies_outside_are_an_error(checkout, inside):
    folder = checkout / "build/default/results/records/evaluate"
    change(folder / "mobilenet_edgetpu_v2_xs.json", float_top1=0.1)
    assert inside("compare").returncode == 0, "some of many miss by chance"
    for path in folder.glob("*.json"):
        numbers = json.loads(path.read_text())["numbers"]
        change(path, **{k: 0.1 for k in numbers if k.endswith(("_top1", "_miou", "_map"))})
    answer = inside("compare")
    assert answer.returncode == 1 and "NOT reproduced" in answer.stdout
    assert "float_top1: 0." in answer.stdout


def test_a_verdict_that_differs_is_an_error(checkout, inside):
    table = checkout / "build/default/results/tables/claims.csv"
    text = table.read_text()
    table.write_text(text.replace("undecided\n", "holds\n", 1))
    assert table.read_text() != text
    answer = inside("compare", "--json")
    found = json.loads(answer.stdout)
    assert answer.returncode == 1 and not found["reproduced"] and found["different"] == 1
    (row,) = [r for r in found["rows"] if r["inside"] is False]
    assert (row["committed"], row["yours"], row["kind"]) == ("undecided", "holds", "verdict")


def test_ratios_of_another_host_are_not_compared(checkout, inside):
    for path in (checkout / "build/default/results/records").glob("b*/*.json"):
        record = json.loads(path.read_text())
        record["provenance"]["host"]["cpu"] = "Another CPU"
        if "latency_ms" in record["numbers"] and "fused4" in path.stem:
            for key in ("latency_ms", "latency_low_ms", "latency_high_ms"):
                record["numbers"][key] *= 3
        path.write_text(json.dumps(record))
    answer = inside("compare", "--json")
    found = json.loads(answer.stdout)
    assert answer.returncode == 0 and found["elsewhere"] > 50
    assert not [r for r in found["rows"] if r["kind"] == "ratio" and r["inside"] is not None]


def test_what_cannot_be_compared_is_said(checkout, inside):
    shutil.rmtree(checkout / "build/bccd")
    answer = inside("compare", "--profile", "bccd")
    assert answer.returncode == 2 and "no run of bccd is here" in answer.stderr
    answer = inside("compare", "--profile", "smoke")
    assert answer.returncode == 2 and "no results of smoke are committed" in answer.stderr
    assert inside("compare", "--profile", "bcd").returncode == 2


def test_a_run_is_compared_with_what_its_profile_promises(checkout):
    assert broken_promises(load_profile("default")) == []
    path = checkout / "build/default/results/records/evaluate/mobilenet_edgetpu_v2_xs.json"
    change(path, float_top1=0.1)
    (first, *_) = broken_promises(load_profile("default"))
    assert first.startswith("mobilenet_edgetpu_v2_xs: float_top1 0.1, not ")
    assert broken_promises(load_profile("default"), committed=True) == []


def test_every_promise_says_why():
    "A bound has its reason beside it, in the profile."
    for path in sorted((ROOT / "config").glob("*.yaml")):
        _, found, rest = path.read_text().partition("\nexpect:")
        if not found: continue
        text = rest.partition("\ntasks:")[0]
        blocks = re.split(r"\n  (?=\w)", text)[1:] # one a task
        reasons = text.partition("\n")[0], *blocks
        assert blocks and all("#" in block for block in blocks) or "#" in reasons[0], path.name
