"An RO-Crate of a profile's records keeps what the specification demands."

import json
import shutil
from datetime import date, datetime

import pytest
from conftest import ROOT
from test_cli import one_line

from edgetpu_repro.core.files import Paths, sha256_file
from edgetpu_repro.show.crate import CONTEXT, CRATE, crate

PROFILES = ("default", "camvid", "cifar10", "bccd", "published")


def references(value):
    "Every @id that an entity refers to."
    if isinstance(value, list):
        return [found for v in value for found in references(v)]
    return [value["@id"]] if isinstance(value, dict) else []


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_specification_demands(profile):
    "RO-Crate 1.1, sections 3 to 5; Process Run Crate 0.5."
    paths = Paths(profile, run=False)
    document = json.loads(json.dumps(crate(paths)))
    assert set(document) == {"@context", "@graph"} and document["@context"][0] == CONTEXT
    entities = {e["@id"]: e for e in document["@graph"]}
    assert len(entities) == len(document["@graph"])
    assert all(e.get("@type") and e.get("name", CRATE) for e in entities.values())
    descriptor, root = entities[CRATE], entities["./"]
    assert descriptor["about"] == {"@id": "./"} and descriptor["@type"] == "CreativeWork"
    assert descriptor["conformsTo"] == [{"@id": "https://w3id.org/ro/crate/1.1"}]
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    date.fromisoformat(root["datePublished"])
    outside = {"https://w3id.org/ro/crate/1.1"}
    for entity in document["@graph"]:
        for value in (v for k, v in entity.items() if k != "@id"):
            assert set(references(value)) <= set(entities) | outside, entity["@id"]
    files = {e["@id"] for e in document["@graph"] if e["@type"] == "File"}
    assert files == {part["@id"] for part in root["hasPart"]}
    for name in sorted(files)[:3] + sorted(files)[-3:]:
        path = paths.results / name
        assert entities[name]["sha256"] == sha256_file(path)
        assert int(entities[name]["contentSize"]) == path.stat().st_size
    actions = [e for e in document["@graph"] if e["@type"] == "CreateAction"]
    assert {a["@id"] for a in actions} == {m["@id"] for m in root["mentions"]}
    made = [r["@id"] for a in actions for r in a["result"]]
    assert sorted(made) == sorted(n for n in files if n.startswith("records/"))
    for action in actions:
        datetime.fromisoformat(action["endTime"])
        tool = entities[action["instrument"]["@id"]]
        assert (ROOT / tool["name"]).is_file()
        assert tool["version"] != "unknown" and tool["softwareRequirements"]


def test_the_command_writes_it_once(inside, tmp_path, monkeypatch):
    for name in ("Snakefile", "settings.ini"):
        (tmp_path / name).touch()
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copytree(ROOT / "results/bccd", tmp_path / "results/bccd")
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))
    answer = inside("crate", "--profile", "bccd")
    path = tmp_path / "results/bccd" / CRATE
    assert answer.returncode == 0 and answer.stdout.strip() == str(path)
    first = path.read_text()
    assert inside("crate", "--profile", "bccd").returncode == 0
    assert path.read_text() == first, "the file does not describe itself"
    one_line(inside("crate", "--profile", "camvid"), "has no records")
    one_line(inside("crate", "--profile", "bcd"), "bccd")
    record = next((tmp_path / "results/bccd/records/evaluate").glob("*.json"))
    record.write_text("{}")
    one_line(inside("crate", "--profile", "bccd"), str(record), "lacks")
