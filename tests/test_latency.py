"Properties of the latency model, and what it makes of bad input."

import json
from dataclasses import replace

import numpy as np
import pytest
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure import latency, workload
from edgetpu_repro.models.costs import block_operators
from edgetpu_repro.models.layout import Layout
from edgetpu_repro.models.mobilenets import mobilenet_v2
from edgetpu_repro.models.specs import SPECS, Block, get_spec, has_layout, spec_to_json
from edgetpu_repro.models.costs import operators

FITS = [latency.point_fit(), *latency.ensemble().fits]


def ms(found, fixed=False):
    "The time of operators by every fit."
    return np.array([f.milliseconds(found, fixed) for f in FITS])


def block(kind, size=28, channels=64, out=64, expand=4, stride=1, kernel=3, group_size=None):
    return block_operators(
        Block(kind, kernel, expand, stride, out, group_size), channels, (size, size)
    )


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if has_layout(spec)])
def test_every_operator_that_counts_costs_something(name):
    found = workload.spec_operators(name)
    for f in FITS:
        for row in workload.operator_table(found):
            assert f.parts(row[None], fixed=False).sum() > 0, row
    result = latency.predict(found)
    assert 0 < result["low"] <= result["high"] and result["ms"] == pytest.approx(
        sum(result["parts"].values())
    )


@pytest.mark.parametrize("size, channels", [(112, 16), (56, 32), (28, 64), (14, 128), (7, 192)])
def test_a_depthwise_block_takes_longer_than_its_two_1x1_convolutions(size, channels):
    whole = block("dw", size, channels, channels)
    alone = [o for o in whole if o.kind != "depthwise"]
    assert len(alone) < len(whole) and np.all(ms(whole) > ms(alone))


def test_a_group_convolution_with_one_group_is_the_full_one():
    one = block("fused_grouped", group_size=256)
    assert one[0].groups == 1
    np.testing.assert_allclose(ms(one), ms(block("fused")))


@pytest.mark.parametrize("kind", ["dw", "fused"])
@pytest.mark.parametrize(
    "less, more",
    [
        (dict(size=28), dict(size=56)),
        (dict(channels=64), dict(channels=128)),
        (dict(out=64), dict(out=128)),
        (dict(kernel=3), dict(kernel=5)),
        (dict(expand=4), dict(expand=8)),
        (dict(stride=2), dict(stride=1)),
    ],
)
def test_time_grows_with_what_there_is_to_do(kind, less, more):
    assert np.all(ms(block(kind, **more)) > ms(block(kind, **less)))


def test_images_and_masks_cost():
    small, large = (
        ms(workload.spec_operators("mobilenet_edgetpu_v2_xs", size)) for size in (224, 256)
    )
    assert np.all(large > small)
    none, fused, default = (
        ms(workload.spec_operators("autoseg_edgetpu_s", argmax=a))
        for a in ("none", "fused4", "default")
    )
    assert np.all(none < fused) and np.all(fused < default)


def test_order_of_the_pixel_4():
    wide = mobilenet_v2(width=1.4)
    wide = [workload.image_operator((224, 224)), *operators(wide)]
    assert np.all(ms(wide, True) > ms(workload.spec_operators("mobilenet_edgetpu"), True))


def test_a_published_model_is_predicted_without_its_own_latency():
    known = latency.predict(workload.spec_operators("mobilenet_edgetpu_dm1p75"))
    assert latency.modelled_ms("mobilenet_edgetpu_dm1p75") != known["ms"]
    assert latency.modelled("mobilenet_v2") is None and latency.modelled_ms("mobilenet_v2") is None


def test_comparisons_come_out_each_way():
    grouped = dict(group_size=64, expand=8, stride=2)
    early = latency.compare(
        block("fused_grouped", 56, 32, 48, **grouped), block("dw", 56, 32, 48, 8, 2)
    )
    late = latency.compare(block("fused", 7, 192, 192), block("dw", 7, 192, 192))
    middle = latency.compare(
        block("fused_grouped", 28, 48, 96, **grouped), block("dw", 28, 48, 96, 8, 2)
    )
    assert [c["verdict"] for c in (early, middle, late)] == ["faster", "undecided", "slower"]
    same = latency.compare(block("dw"), block("dw"))
    assert [same[key] for key in ("ratio", "low", "high")] == pytest.approx([1, 1, 1])


def test_what_lies_outside_is_named():
    assert workload.outside(workload.spec_operators("mobilenet_edgetpu_v2_s")) == []
    assert "image of 96x96" in workload.outside(
        workload.spec_operators("mobilenet_edgetpu_v2_s", 96)
    )
    assert workload.outside(block("fused_grouped", group_size=16)) == ["groups of 16 outputs"]
    strange = replace(block("dw")[0], kind="hard_swish")
    assert workload.outside([strange]) == ["1 hard_swish"]


def test_nothing_takes_no_time():
    assert latency.point_fit().milliseconds([], fixed=False) == 0
    assert Layout("empty").needed() == []


def test_records_keep_what_the_model_needs():
    found = workload.spec_operators("spaghettinet_edgetpu_s")
    again = workload.operators_from_json(json.loads(json.dumps(workload.operators_to_json(found))))
    assert np.array_equal(workload.operator_table(again), workload.operator_table(found))
    assert workload.outside(again) == workload.outside(found)


def test_bad_settings():
    with pytest.raises(UsageError, match="unknown overlap"):
        latency.Structure(overlap="both")
    with pytest.raises(UsageError, match="did you mean 'fused4'"):
        workload.spec_operators("autoseg_edgetpu_s", argmax="fused44")


def test_command_line(cli, tmp_path):
    spec = tmp_path / "mine.json"
    spec.write_text(spec_to_json(replace(get_spec("mobilenet_edgetpu_v2_xs"), name="mine")))
    answer = cli("latency", "mobilenet_edgetpu_v2_xs", spec, "--json")
    assert answer.returncode == 0, answer
    result = json.loads(answer.stdout)
    assert set(result) == {"mobilenet_edgetpu_v2_xs", str(spec)}
    first, second = result.values()
    assert first == second and set(first) == {"ms", "low", "high", "mean_low", "mean_high", "parts",
                                                "extrapolated"}


def test_bad_files(cli, tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"a": 1}')
    one_line(cli("latency", wrong), "wrong.json")
    wrong.write_text("no JSON")
    one_line(cli("latency", wrong), "wrong.json")
    one_line(cli("latency", tmp_path / "none.json"), "none.json is not a file")
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"TFL3 is not enough")
    one_line(cli("latency", bad), "bad.tflite is not a TFLite model")


def test_a_mixture_is_what_its_draws_are():
    found = workload.spec_operators("autoseg_edgetpu_s", argmax="fused4")
    known, drawn = latency.ensemble().time(found), latency.ensemble().sample(found)
    for p in (0.025, 0.5, 0.975):
        assert known.quantile(p) == pytest.approx(np.quantile(drawn, p), rel=0.01)
        assert known.below(known.quantile(p)) == pytest.approx(p)
    one, other = (workload.spec_operators("autoseg_edgetpu_s", argmax=a) for a in ("none", None))
    drawn = latency.ensemble().sample(one) / latency.ensemble().sample(other)
    known = latency.ensemble().ratio(one, other, fixed=True)
    assert known.quantile(0.025) == pytest.approx(np.quantile(drawn, 0.025), rel=0.01)


def test_a_predictive_interval_contains_that_of_the_mean_and_the_noise():
    result = latency.predict(workload.spec_operators("mobilenet_edgetpu_v2_s"))
    assert result["low"] < result["mean_low"] < result["mean_high"] < result["high"]
    width = np.log([result["high"] / result["low"], result["mean_high"] / result["mean_low"]])
    assert width[0] >= 2 * 1.96 * latency.POINT.noise * 0.9 # it is not narrower than the noise
    assert width[0] == pytest.approx(np.hypot(width[1], 2 * 1.96 * 0.0252), rel=0.1)


def test_predictive_intervals_hold_the_published_latencies():
    inside = 0
    for p in workload.published_points():
        known = latency.predictive(latency.ensemble(p.model).time(p.operators), p.rounding_ms)
        _, low, high = latency.interval(known)
        inside += low <= p.ms <= high
    assert 20 <= inside <= 23


def test_priors_alone_and_what_they_decide():
    late = block("fused", 7, 192, 192), block("dw", 7, 192, 192)
    middle = block("fused", 28), block("dw", 28)
    decided, found = latency.compare_with_prior(*late), latency.compare_with_prior(*middle)
    assert decided["by_prior"] and decided["prior"]["verdict"] == decided["verdict"] == "slower"
    assert found["verdict"] == "slower" and not found["by_prior"]
    for c in (decided, found):
        assert c["prior"]["low"] < c["low"] < c["high"] < c["prior"]["high"]
    only = latency.fit([], latency.ENSEMBLE[0]) # without data the priors are what is known
    assert np.allclose(only.free, latency.ENSEMBLE[0].prior[0])


def test_another_prior_of_the_depthwise_rate():
    operators = block("fused", 28), block("dw", 28)
    among = (latency.with_prior("depthwise", median) for median in (0.03, 1))
    slow, fast = (latency.compare(*operators, e) for e in among)
    assert slow["ratio"] < latency.compare(*operators)["ratio"] < fast["ratio"]
    with pytest.raises(UsageError, match="unknown coefficient"):
        latency.with_prior("depth", 0.1)


def test_a_verdict_says_what_its_interval_says():
    for one, other in ((block("fused", 56, 32, 32), block("dw", 56, 32, 32)),
                       (block("fused_grouped", group_size=64), block("dw")),
                       (block("fused", 112, 16, 32, 8, 2), block("dw", 112, 16, 32, 8, 2))):
        c = latency.compare(one, other)
        outside = "faster" if c["high"] < 1 else "slower" if c["low"] > 1 else "undecided"
        assert c["verdict"] == outside
