"The viewer's server, the numbers for another viewer, and bad input."

import csv
import json
import signal
import subprocess
import urllib.request

import numpy as np
import pytest
from conftest import BIN, ROOT, SMALL
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure import nodes
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions

# Fields of `GraphNodeData` and its parts in ai-edge-model-explorer 0.1.34 that are used here.
FIELDS = {"results": {"value"}, "gradient": {"stop", "bgColor"}, "name": None}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    "An int8 file with its report."
    model = build_model(SMALL, num_classes=10, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    folder = tmp_path_factory.mktemp("view")
    ((path, _),) = export_model(model, folder, images, ExportOptions(report=True, trained=False))
    return path


def test_the_graph_is_served_until_it_is_stopped(file):
    pytest.importorskip("netron")
    command = [BIN / "edgetpu-repro", "view", file, "--no_browser"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = child.stdout.readline()
        address = line.split(" ")[1].rstrip(",\n")
        assert str(file) in line and address.startswith("http://localhost:")
        with urllib.request.urlopen(address) as page:
            assert b"netron" in page.read().lower()
        with urllib.request.urlopen(f"{address}/data/{file.name}") as served:
            assert served.read() == file.read_bytes()
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait() in (0, 130)


def test_numbers_of_nodes(file, inside, tmp_path):
    answer = inside("view", file, "--node_data", tmp_path / "new" / "data.json")
    assert answer.returncode == 0, answer
    found = [json.loads(open(line).read()) for line in answer.stdout.splitlines()]
    assert len(found) == 2
    for data in found:
        assert set(data) == set(FIELDS)
        assert all(set(r) == FIELDS["results"] for r in data["results"].values())
        assert all(isinstance(r["value"], float) for r in data["results"].values())
        assert all(set(g) == FIELDS["gradient"] for g in data["gradient"])
        assert [g["stop"] for g in data["gradient"]] == [0, 1]
    ms, sqnr = ({name: r["value"] for name, r in data["results"].items()} for data in found)
    assert set(sqnr) <= set(ms) and min(ms.values()) == 0 < max(ms.values())
    with open(nodes.report_path(file)) as f:
        rows = {row["name"]: float(row["sqnr_db"]) for row in csv.DictReader(f)}
    worst = min(sqnr, key=sqnr.get)
    assert sqnr[worst] == min(rows.values()) == rows[worst.split(";")[-1]]


def test_without_a_report_there_is_no_sqnr(file, inside, tmp_path):
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(file.read_bytes())
    answer = inside("view", alone, "--node_data", tmp_path / "data.json")
    assert answer.returncode == 0 and "no SQNR" in answer.stdout, answer
    assert not (tmp_path / "data_sqnr.json").exists()
    nodes.report_path(alone).write_text("a,b\n1,2\n")
    one_line(inside("view", alone, "--node_data", tmp_path / "data.json"), "is no table of")


def test_bad_input(file, inside, tmp_path):
    one_line(inside("view", tmp_path / "no.tflite"), "is not a file")
    other = tmp_path / "a.txt"
    other.write_text("x")
    one_line(inside("view", other), "is no .tflite or .keras file")
    keras = tmp_path / "m.keras"
    keras.write_bytes(b"x")
    one_line(inside("view", keras, "--node_data", tmp_path / "d.json"), "is no .tflite file")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(file.read_bytes()[:3000])
    answer = one_line(inside("view", damaged, "--node_data", tmp_path / "d.json"), "damaged.tflite")
    assert not (tmp_path / "d.json").exists(), answer
    one_line(inside("view", keras, "--no_browser"), "m.keras", "damaged")
    for cut in (0, 40, 3000): # no server starts
        damaged.write_bytes(file.read_bytes()[:cut])
        one_line(inside("view", damaged, "--no_browser"), "damaged.tflite")
    one_line(inside("view", file, "--port", 70000), "port")


def test_a_batch_is_not_modelled(tmp_path):
    model = build_model(SMALL, num_classes=10, image_size=64)
    ((path, _),) = export_model(model, tmp_path, None, ExportOptions(batch_size=2, trained=False))
    with pytest.raises(UsageError, match="of one image"):
        nodes.operator_ms(path)
