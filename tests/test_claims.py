"Every verdict of a claim can come out either way, also those of the page's own numbers."

import copy
import math

import pytest

from edgetpu_repro.core.published import published
from edgetpu_repro.show.claims import (
    FAILS,
    FUSION,
    HOLDS,
    UNDECIDED,
    Claim,
    Comparison,
    dominance,
    fusion,
    group_convolution,
    published_fusion,
    published_models,
    ratio_interval,
    share_difference,
)


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.5, 0.9, HOLDS),
        (1.0, 1.0, HOLDS),
        (1.1, 2.0, FAILS),
        (0.9, 1.1, UNDECIDED),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_a_comparison_with_an_upper_bound(low, high, verdict):
    assert Comparison("x", low, high, at_most=1).verdict == verdict
    assert Comparison("x", -high, -low, at_least=-1).verdict == verdict


def model(name, accuracy, latency, images=math.inf, error=0.0):
    return dict(
        name=name,
        accuracy=accuracy,
        images=images,
        latency=(latency, latency * (1 - error), latency * (1 + error)),
    )


@pytest.mark.parametrize(
    "v2, verdict",
    [
        ([model("fast", 0.75, 0.9)], HOLDS),
        ([model("slow", 0.80, 1.1)], FAILS),
        ([model("poor", 0.70, 0.5)], FAILS),
        ([model("slow", 0.80, 1.1), model("fast", 0.75, 0.9)], HOLDS),
        ([model("unsure", 0.75, 0.99, error=0.05)], UNDECIDED),
        ([], UNDECIDED),
    ],
)
def test_dominance_comes_out_each_way(v2, verdict):
    assert dominance([model("old", 0.74, 1.0)], v2).verdict == verdict


def test_few_test_images_leave_dominance_open():
    new, old = model("new", 0.75, 0.9), model("old", 0.74, 1.0, images=1000)
    assert dominance([old], [new]).verdict == UNDECIDED
    assert dominance([{**old, "images": 1_000_000}], [new]).verdict == HOLDS


def test_one_model_that_nobody_beats_refutes_dominance():
    olds = [model("beaten", 0.70, 1.0), model("frontier", 0.79, 0.1)]
    assert dominance(olds, [model("new", 0.75, 0.9)]).verdict == FAILS


def test_the_page_on_dominance_can_fail():
    page = published("classification")
    assert dominance(*published_models(page)).verdict == HOLDS
    for change in (dict(edgetpu_ms=0.5), dict(top1=80.0)):
        mutated = copy.deepcopy(page)
        mutated["mobilenet_edgetpu"].update(change)
        assert dominance(*published_models(mutated)).verdict == FAILS, change


@pytest.mark.parametrize(
    "change, verdict",
    [
        (dict(), HOLDS),
        (dict(edgetpu_fused_ms=5.0), FAILS),
        (dict(edgetpu_fused_ms=1.0), FAILS),
        (dict(miou_fused=61.27), FAILS),
    ],
)
def test_the_page_on_fusing_can_fail(change, verdict):
    page = copy.deepcopy(published("segmentation"))
    page["autoseg_edgetpu_s"].update(change)
    assert fusion(published_fusion(page), FUSION["saves_ms"]).verdict == verdict


def test_the_bound_is_what_the_page_loses():
    assert (
        max(r["loses"][0] for r in published_fusion(published("segmentation")).values())
        == FUSION["loses_points"]
    )


@pytest.mark.parametrize(
    "saves, loses, verdict",
    [
        ((5, 9), (0.02, 0.02), HOLDS),
        ((5, 9), (0.05, 0.05), FAILS),
        ((-9, -5), (0.02, 0.02), FAILS),
        ((-1, 1), (0.02, 0.02), UNDECIDED),
        ((5, 9), (0.0, 0.1), UNDECIDED),
        ((-1, 1), (0.05, 0.05), FAILS),
    ],
)
def test_saving_time_at_no_loss_looks_at_both(saves, loses, verdict):
    assert fusion({"m": dict(saves=saves, loses=loses)}).verdict == verdict


@pytest.mark.parametrize(
    "ratio, parameters, verdict",
    [
        ((0.8, 0.9), 1.5, HOLDS),
        ((1.8, 2.1), 1.5, FAILS),
        ((0.9, 1.1), 1.5, UNDECIDED),
        ((0.8, 0.9), 0.9, UNDECIDED),
    ],
)
def test_group_convolutions_come_out_each_way(ratio, parameters, verdict):
    assert group_convolution({"7x7": [("group size 8", parameters, ratio)]}).verdict == verdict


def test_one_shape_is_enough_for_group_convolutions():
    slow, fast = [("a", 2, (1.5, 1.6))], [("b", 2, (0.7, 0.8))]
    assert group_convolution({"7x7": slow, "14x14": fast}).verdict == HOLDS
    assert group_convolution({"7x7": slow, "14x14": slow}).verdict == FAILS


def test_intervals():
    assert ratio_interval((2, 2, 2), (4, 4, 4)) == (0.5, 0.5)
    low, high = share_difference(0.6, 0.5, 400)
    assert low < 10 < high and high - 10 == pytest.approx(
        1.96 * 100 * math.sqrt((0.24 + 0.25) / 400)
    )


def test_a_row_shows_counts_interval_and_verdict():
    claim = Claim(
        "text",
        "readme",
        "measured",
        "host",
        "faster",
        dominance([model("old", 0.74, 1.0)], [model("new", 0.75, 0.9)]),
    )
    row = {key: value for (_, key), value in claim.row().items()}
    assert (
        row["verdict"] == HOLDS
        and "new" in row["numbers (interval)"]
        and "0.90" in row["numbers (interval)"]
    )
