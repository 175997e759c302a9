"Times from readers' devices: filed where a record's numbers follow from its runs; else a line."
import json
from datetime import datetime, timedelta, timezone

import pytest
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.benchmark import summarize
from edgetpu_repro.measure.devices import (
    add_device_record, device_points, device_records, read_device_record)


def record():
    "A record as the demo page writes it."
    rounds = [[3.1 + 0.01 * i, 3.3, 3.2 + 0.02 * i, 3.9] for i in range(7)]
    host = dict(cpu="Mozilla/5.0 (Linux; Android 16; Pixel 6)", cores=8, memory_gib=8,
                system="Android")
    return dict(
        step="device", name="mobilenet_edgetpu_v2_s", profile="devices", seed=None,
        parameters=dict(
            kind="browser", device="Pixel 6", accelerator="wasm", threads=1, warmup_runs=5,
            min_runs=30, precision=0.02, seconds=6, max_seconds=18, file="m.tflite",
            sha256="ab" * 32, bytes=5_000_000, image_hw=[224, 224], dtype="float32"),
        numbers=dict(summarize(rounds), rounds_ms=rounds),
        provenance=dict(versions=dict(litertjs="2.5.3"), commit=None, host=host,
                        time="2026-11-30T07:00:00+00:00"))


def written(path, value):
    path.write_text(json.dumps(value))
    return path


def test_a_record_is_filed_as_it_is(tmp_path):
    path = written(tmp_path / "r.json", record())
    place = add_device_record(path, tmp_path)
    assert place.parent == tmp_path / "results/devices/records/device"
    assert place.name.startswith("mobilenet_edgetpu_v2_s_pixel-6_")
    assert place.read_bytes() == path.read_bytes()
    (point,) = device_points(device_records(tmp_path))
    assert point["device"] == "Pixel 6, wasm" and point["ms"] == record()["numbers"]["latency_ms"]
    with pytest.raises(UsageError, match="is there already"): add_device_record(path, tmp_path)


TOMORROW = (datetime.now(timezone.utc) + timedelta(days=3)).isoformat(timespec="seconds")
FORGED = { # what is changed: (where, value, words of the line)
    "a faster median": (("numbers", "latency_ms"), 0.4, "its runs give"),
    "a narrower interval": (("numbers", "latency_high_ms"), 3.2, "its runs give"),
    "more runs": (("numbers", "runs"), 9000, "its runs give"),
    "no runs": (("numbers", "rounds_ms"), [], "not lists of times"),
    "runs of no time": (("numbers", "rounds_ms"), [[0, 0]] * 6, "not lists of times"),
    "few rounds": (("numbers", "rounds_ms"), [[1.0]], "1 rounds"),
    "runs that are text": (("numbers", "rounds_ms"), [["1"]] * 6, "not lists of times"),
    "another number": (("numbers", "top1"), 0.99, "top1"),
    "another step": (("step",), "evaluate", "step"),
    "another profile": (("profile",), "default", "profile"),
    "a path for a name": (("name",), "../../../etc/passwd", "none of a file"),
    "an unknown kind": (("parameters", "kind"), "abacus", "abacus"),
    "no device": (("parameters", "device"), "", "0 characters"),
    "a long device": (("parameters", "device"), "x" * 500, "500 characters"),
    "a digest": (("parameters", "sha256"), "00", "sha256"),
    "another field": (("parameters", "owner"), "me", "owner"),
    "threads of text": (("parameters", "threads"), "four", "threads"),
    "threads of truth": (("parameters", "threads"), True, "threads"),
    "no host": (("provenance", "host"), {}, "host"),
    "a time to come": (("provenance", "time"), TOMORROW, "has not come"),
    "a time of old": (("provenance", "time"), "1999-01-01T00:00:00", "before"),
    "a list": ((), [], "record"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_record_is_refused_in_a_line(what, tmp_path):
    where, value, words = FORGED[what]
    forged = record()
    if where:
        place = forged
        for key in where[:-1]: place = place[key]
        place[where[-1]] = value
    else: forged = value
    path = written(tmp_path / "r.json", forged)
    with pytest.raises(UsageError) as error: add_device_record(path, tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "results").exists()


def test_the_command(inside, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))
    path = written(tmp_path / "r.json", record())
    done = inside("records", "check", path)
    assert done.returncode == 0 and "Pixel 6 (browser, wasm, 1 threads)" in done.stdout, done
    done = inside("records", "add", path)
    assert done.returncode == 0 and "results/devices/records/device" in done.stdout, done
    assert json.loads(inside("records", "check", path, "--json").stdout)[str(path)] == record()
    one_line(inside("records", "add", path), "is there already")
    one_line(inside("records", "add", tmp_path / "no.json"), "is not a file")
    (tmp_path / "large.json").write_text(" " * 2**21)
    one_line(inside("records", "check", tmp_path / "large.json"), "too large")
    (tmp_path / "text.json").write_text("{")
    one_line(inside("records", "check", tmp_path / "text.json"), "text.json")
    assert read_device_record(path) == record()
