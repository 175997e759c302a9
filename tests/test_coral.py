"The latency model of the Coral Edge TPU: its cells, what streams, its errors, and bad input."

import json

import numpy as np
import pytest
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure import coral, latency, workload
from edgetpu_repro.models import references
from edgetpu_repro.models.costs import count, operators

CELLS = coral.read_cells()
HEADER = "arch_str,edgetpu_ms\n"
GOOD = "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


def network(g): return [workload.image_operator(g["image"].shape[:2]), *operators(g)]


def test_a_fifth_of_the_cells_predicts_the_others():
    _, others = coral.split(CELLS)
    some = others[::8]
    f = coral.coral_point()
    guess = latency._Problem(some, f.structure).parts(f.free)[0].sum(1)
    truth = np.array([c.ms for c in some])
    ranks = [np.argsort(np.argsort(values)) for values in (guess, truth)]
    assert np.mean(abs(guess / truth - 1)) <= 0.037 # 0.035 of all
    assert np.corrcoef(*ranks)[0, 1] >= 0.98
    assert 0.86 <= np.mean(abs(np.log(guess / truth)) <= 1.645 * coral.NOISE) <= 0.94


def test_the_kept_fits_are_those_of_the_data():
    kept = json.loads((coral.files("edgetpu_repro.measure")/"coral.json").read_text())
    assert kept["problem"] == coral.coral_hash()
    known, _ = coral.split(CELLS)
    f = latency.fit(known, coral.CORAL_ENSEMBLE[0])
    np.testing.assert_allclose(coral.coral_ensemble().fits[0].free, f.free, rtol=1e-3)


def test_a_prediction_is_that_of_the_cell():
    cell = CELLS[0]
    whole = network(references.nasbench201(coral.edges_text(cell.names)))
    result = coral.predict_coral(whole)
    assert result["ms"] == pytest.approx(sum(result["parts"].values()))
    assert result["low"] <= cell.ms * 1.1 and result["high"] >= cell.ms * 0.9
    assert result["low"] < result["mean_low"] < result["mean_high"] < result["high"]
    assert result["extrapolated"] == []


def test_weights_beyond_the_memory_stream():
    small, large = network(references.filter_net(440, 5)), network(references.filter_net(460, 5))
    assert [o.kind for o in coral.with_streaming(small)].count("stream") == 0
    (streamed,) = [o for o in coral.with_streaming(large) if o.kind == "stream"]
    assert streamed.weights == 512 * 460 * 9 # one whole layer, padded to 64 outputs
    assert coral.predict_coral(large)["parts"]["streamed_mb"] > 0
    assert coral.predict_coral(small)["parts"]["streamed_mb"] == 0
    assert "MB of weights that do not fit" in coral.predict_coral(large)["extrapolated"][-1]


def test_dead_edges_go_and_padding_is_shared():
    kinds = [o.kind for o in operators(references.nasbench201(GOOD, cells=1))]
    assert kinds.count("pad") == 3 and kinds.count("add") == 3 + 2 # cells, and residual blocks
    dead = references.live_edges(references.cell_edges(
        "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"))
    assert dead == [(0, 3, "skip_connect")]
    nothing = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    assert count(references.nasbench201(nothing))["macs"] > 0


def test_counts_are_the_published_ones():
    assert count(references.efficientnet_edgetpu("s"))["trainable"] == 5_438_392
    assert count(references.efficientnet_edgetpu("m"))["trainable"] == 6_899_496
    assert count(references.filter_net(32, 5))["macs"] == 154_533_888
    with pytest.raises(UsageError, match="unknown size"): references.efficientnet_edgetpu("xl")


def test_a_detector_takes_longer_where_it_is_larger():
    times = [coral.predict_on("coral", workload.spec_operators(f"spaghettinet_edgetpu_{s}"))["ms"]
             for s in "sml"]
    assert times == sorted(times)
    found = coral.predict_on("pixel6", workload.spec_operators("spaghettinet_edgetpu_s"))
    assert found["ms"] < times[0] / 3


def test_another_table_is_read(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(HEADER + f"{GOOD},1.25\n{GOOD},-1\n")
    (cell,) = coral.read_cells(path)
    assert cell.ms == 1.25 and coral.edges_text(cell.names) == GOOD


@pytest.mark.parametrize("text, said", [
    ("", "lacks the columns arch_str, edgetpu_ms"),
    ("arch_str\nx\n", "lacks the columns edgetpu_ms"),
    (HEADER + f"{GOOD},quick\n", "row 1: 'quick' is no latency"),
    (HEADER + f"{GOOD}\n", "row 1: 'None' is no latency"),
    (HEADER + f"{GOOD},nan\n", "is no latency"),
    (HEADER + "|conv~0|,1\n", "is no cell of NAS-Bench-201"),
    ("cell,ms\n12345,1\n", "six digits"),
    ("cell,ms\n123459,1\n", "six digits"),
    (HEADER + f"{GOOD},-1\n", "holds no network that was timed"),
])
def test_a_damaged_table_is_one_line(tmp_path, text, said):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as error: coral.read_cells(path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_table(tmp_path):
    (tmp_path / "cells.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "cells.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"): coral.read_cells(path)


def test_command_line(cli):
    answer = cli("latency", "mobilenet_edgetpu_v2_xs", "--device", "coral", "--json")
    assert answer.returncode == 0, answer
    (result,) = json.loads(answer.stdout).values()
    assert result["low"] < result["ms"] < result["high"] and result["ms"] > 2
    assert any("group convolution" in text for text in result["extrapolated"])
    said = cli("latency", "mobilenet_edgetpu_v2_xs", "--device", "coral")
    assert "outside of the measured cells" in said.stdout
    one_line(cli("latency", "mobilenet_edgetpu_v2_xs", "--device", "pixel7"), "unknown device")
