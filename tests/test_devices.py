"Times from readers' devices: filed where a record's numbers follow from its runs; else a line."
import json
from datetime import datetime, timedelta, timezone

import pytest
from conftest import ROOT
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.benchmark import summarize
from edgetpu_repro.measure.devices import (
    add_device_record, device_points, device_records, read_device_record)
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.show.tradeoffs import draw_devices
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions


def record():
    "A record as the demo page writes it."
    rounds = [[3.1 + 0.01 * i, 3.3, 3.2 + 0.02 * i, 3.9] for i in range(7)]
    host = dict(cpu="Mozilla/5.0 (Linux; Android 16; Pixel 6)", cores=8, memory_gib=8,
                system="Android")
    return dict(
        step="device", name="mobilenet_edgetpu_v2_s", profile="devices", seed=None,
        parameters=dict(
            kind="browser", device="Pixel 6", accelerator="wasm", threads=1, warmup_runs=5,
            min_runs=28, precision=0.02, seconds=6, max_seconds=18, file="m.tflite",
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
    "fewer runs than asked for": (("parameters", "min_runs"), 40, "28 runs, not the 40"),
    "no runs": (("numbers", "rounds_ms"), [], "not lists of times"),
    "a round without runs": (("numbers", "rounds_ms"), [[1.0]] * 6 + [[]], "not lists of times"),
    "runs of no time": (("numbers", "rounds_ms"), [[0, 0]] * 6, "above 0"),
    "negative runs": (("numbers", "rounds_ms"), [[-1.0]] * 6, "above 0"),
    "few rounds": (("numbers", "rounds_ms"), [[1.0] * 40], "1 rounds"),
    "runs that are text": (("numbers", "rounds_ms"), [["1"]] * 6, "each a number"),
    "a round that is a number": (("numbers", "rounds_ms"), [1.0] * 6, "each a list"),
    "another number": (("numbers", "top1"), 0.99, "top1"),
    "a number of another tool": (("numbers", "min_ms"), 1.0, "another tool"),
    "another step": (("step",), "evaluate", "step"),
    "another profile": (("profile",), "default", "profile"),
    "a field more": (("note",), "the best phone", "note"),
    "a seed": (("seed",), 1, "seed"),
    "a path for a name": (("name",), "../../../etc/passwd", "none of a file"),
    "parameters that are none": (("parameters",), [], "no object"),
    "an unknown kind": (("parameters", "kind"), "abacus", "abacus"),
    "no device": (("parameters", "device"), "", "1 to 60 characters"),
    "a long device": (("parameters", "device"), "x" * 500, "1 to 60 characters"),
    "a script": (("parameters", "device"), "<script>alert(1)</script>", "without < and >"),
    "a device of two lines": (("parameters", "device"), "a\nb", "in a line"),
    "a device that clears a terminal": (("parameters", "device"), "\x1b[2J", "in a line"),
    "a device written backwards": (("parameters", "device"), "\u202egnp", "in a line"),
    "a digest": (("parameters", "sha256"), "00", "sha256"),
    "a file of no bytes": (("parameters", "bytes"), 0, "from 1"),
    "an image of no size": (("parameters", "image_hw"), [0, 224], "image_hw"),
    "an image of three sides": (("parameters", "image_hw"), [1, 224, 224], "image_hw"),
    "an unknown type": (("parameters", "dtype"), "int4", "int4"),
    "another field": (("parameters", "owner"), "me", "owner"),
    "threads of text": (("parameters", "threads"), "four", "threads"),
    "threads of truth": (("parameters", "threads"), True, "threads"),
    "no threads": (("parameters", "threads"), 0, "from 1 to 1024"),
    "seconds that went back": (("parameters", "seconds"), -1, "above 0"),
    "no host": (("provenance", "host"), {}, "host"),
    "a host of script": (("provenance", "host", "cpu"), "<img onerror=x>", "without < and >"),
    "a name of a host": (("provenance", "host", "name"), "my-pc", "name"),
    "a million cores": (("provenance", "host", "cores"), 10**6, "to 4096"),
    "an address": (("provenance", "address"), "10.0.0.1", "address"),
    "a version of script": (("provenance", "versions", "x"), "<b>", "without < and >"),
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


PRINTED = dict(latency_ms=3.0, latency_low_ms=2.8, latency_high_ms=3.3, latency_p5_ms=2.5,
               latency_p95_ms=4.0, mean_ms=3.1, min_ms=2.0, max_ms=5.0, std_ms=0.4, runs=50,
               processes=6)
IMPOSSIBLE = { # what a summary says: words of the line
    "a median below its interval": (dict(latency_ms=2.6), "latency_low_ms is 2.8, more than"),
    "a median above its interval": (dict(latency_ms=3.5), "more than latency_high_ms"),
    "an interval beyond the runs": (dict(latency_high_ms=5.5), "more than max_ms"),
    "quantiles the other way round": (dict(latency_p5_ms=4.5), "more than"),
    "a mean beyond the runs": (dict(mean_ms=6.0), "more than max_ms"),
    "more scatter than there is": (dict(std_ms=4.0), "std_ms is 4"),
    "a negative time": (dict(min_ms=-1.0), "above 0"),
    "a negative scatter": (dict(std_ms=-0.1), "from 0"),
    "no runs": (dict(runs=0), "from 1"),
    "one run with many times": (dict(runs=1, processes=1), "one run, and 5 different times"),
    "fewer runs than processes": (dict(runs=5), "5 runs in 6 processes"),
    "half a run": (dict(runs=1.5), "whole number"),
    "one end of an interval": (dict(latency_low_ms=None), "one end"),
    "no median": (dict(latency_ms=None), "lack latency_ms"),
}


def printed_record(**changed):
    "A record as `benchmark --device adb` writes it."
    given = record()
    drop = ("warmup_runs", "min_runs", "precision", "seconds", "max_seconds")
    for name in drop: del given["parameters"][name]
    given["parameters"] |= dict(kind="adb", accelerator="nnapi", delegated="all")
    numbers = PRINTED | changed
    return given | dict(numbers={k: v for k, v in numbers.items() if v is not None})


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_summary_is_refused_in_a_line(what, tmp_path):
    assert read_device_record(written(tmp_path / "sound.json", printed_record()))
    changed, words = IMPOSSIBLE[what]
    with pytest.raises(UsageError) as error:
        read_device_record(written(tmp_path / "r.json", printed_record(**changed)))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "A small file of a registered model."
    built = build_model("mobilenet_edgetpu_v2_tiny", num_classes=10, image_size=64)
    folder = tmp_path_factory.mktemp("device")
    return export_model(built, folder, None, ExportOptions(trained=False))[0][0]


def test_what_a_tool_printed_becomes_a_record(inside, model, tmp_path):
    log, out = ROOT / "tests/phone/printed.txt", tmp_path / "new" / "r.json"
    words = ("records", "make", model, "--log", log, "--kind", "hosted", "--device",
             "Pixel 9 of a farm", "--output", out)
    done = inside(*words, "--accelerator", "npu")
    assert done.returncode == 0, done
    assert "Pixel 9 of a farm (hosted, npu, 1 threads)" in done.stdout
    made = read_device_record(out)
    assert made["name"] == "mobilenet_edgetpu_v2_tiny" and made["numbers"]["runs"] == 985
    assert made["parameters"]["image_hw"] == [64, 64] and made["parameters"]["delegated"] == "all"
    assert add_device_record(out, tmp_path).is_file()
    one_line(inside(*words, "--accelerator", "<b>"), "without < and >")
    one_line(inside(*words[:5], "--kind", "browser", *words[7:], "--accelerator", "cpu"), "browser")
    other = tmp_path / "cpu.txt"
    other.write_text(log.read_text().replace("be completely", "not be"))
    words = [other if word == log else word for word in words]
    one_line(inside(*words, "--accelerator", "edgetpu"), "would be the CPU's")
    assert inside(*words, "--accelerator", "cpu").returncode == 0
    other.write_text("Segmentation fault")
    one_line(inside(*words, "--accelerator", "cpu"), "cpu.txt", "no timed runs")


def test_figure_4_shows_records_with_their_device(model, tmp_path):
    "The points of a record that was filed, drawn as the notebook of the figure does."
    plt = pytest.importorskip("matplotlib.pyplot")
    add_device_record(written(tmp_path / "a.json", record()), tmp_path)
    coral = printed_record() | dict(name="mobilenet_edgetpu")
    coral["parameters"] |= dict(kind="coral", device="Coral USB, $5 cable", accelerator="edgetpu")
    add_device_record(written(tmp_path / "b.json", coral), tmp_path)
    fig, ax = plt.subplots()
    quality = dict(mobilenet_edgetpu_v2_s=75.6, mobilenet_edgetpu=74.9)
    assert draw_devices(ax, device_points(device_records(tmp_path)), quality) == 2
    drawn = {line.get_label(): line.get_xydata()[0].tolist() for line in ax.get_lines()}
    assert drawn == {r"Coral USB, \$5 cable, edgetpu": [3.0, 74.9],
                     "Pixel 6, wasm": [record()["numbers"]["latency_ms"], 75.6]}
    fig.canvas.draw() # a name is no formula
    plt.close(fig)


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
