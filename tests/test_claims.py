"Every verdict of every claim can come out either way, also those of the page's own numbers."
import math
import re

import matplotlib.pyplot as plt
import pytest
from conftest import ROOT

from edgetpu_repro.core.published import PUBLISHED, SOURCES, published
from edgetpu_repro.show.claims import (
    FAILS, HOLDS, NOT_JUDGED, SENTENCE, TWO_PERCENT, UNDECIDED, Claim, Comparison, Every, Evidence,
    Some, Unjudged, difference, printed_latency, ratio_interval, seeds_difference, share_error)
from edgetpu_repro.show.distilled import finalists_compared
from edgetpu_repro.show.forest import draw_forest, shown
from edgetpu_repro.show.page import (
    depends_on_shape, dominance, expensive_late, faster_somewhere, gradual, improvement, is_exact,
    keeps, meets, same_difference, saves_time, smaller, worth)

pytestmark = pytest.mark.quick


def model(name, accuracy, ms, error=0.0):
    return dict(name=name, accuracy=accuracy, error=error, latency=printed_latency(ms))


def block(parameters=2.0, depthwise=(0.5, 0.6), full=(0.5, 0.6), bytes=(3, 3)):
    return dict(parameters=parameters, to_depthwise=depthwise, to_full=full, bytes=bytes)


def full(depthwise): return {"7x7": {"full": block(8, depthwise)}}


def groups(depthwise, below=(0.5, 0.6), rise=2.0):
    first = block(1.5, depthwise, below)
    return {"7x7": {"GC-32": first, "GC-64": block(1.5 * rise, depthwise, below)}}


def is_full(kind): return kind == "full"


def is_grouped(kind): return kind.startswith("GC")


FAST, OPEN, SLOW = (0.5, 0.6), (0.9, 1.1), (1.5, 1.6)
OLD, NEW = model("old", 0.756, 0.92), model("new", 0.758, 0.82)
UNSURE = model("new", 0.758, 0.82, 0.003)
LOSER = model("poor", 0.70, 0.82)
FUSED = Every("", (saves_time({"m": FAST}), keeps("m", 0.5, 0, 0.001)))


def seeds(found): return Comparison("", *seeds_difference(found, [0.5, 0.51, 0.52]), at_least=0)


def finalists(gap):
    "Two networks at one latency whose divergences on four pictures are so far apart."
    kls = dict(found=[0.1 + gap + i / 100 for i in range(4)], random=[0.2, 0.1, 0.2, 0.1])
    rows = [dict(group=g, target_ms=1.0, candidates=[g], kls=k) for g, k in kls.items()]
    return finalists_compared(rows, "found", "random", "kls", 1.0)


CASES = { # claim: findings that hold, are undecided, do not hold
    "C1": [dominance([OLD], new) for new in ([NEW], [UNSURE], [LOSER])],
    "C2": [faster_somewhere(full(r), is_full) for r in (FAST, OPEN, SLOW)],
    "C3": [expensive_late(full(r)) for r in (SLOW, OPEN, FAST)],
    "C4": [gradual(groups(FAST, r)) for r in (FAST, OPEN, SLOW)],
    "C5": [faster_somewhere(groups(r), is_grouped) for r in (FAST, OPEN, SLOW)],
    "C6": [depends_on_shape({"7x7": groups(FAST)["7x7"], "14x14": groups(r)["7x7"]}, "GC-64")
           for r in (SLOW, OPEN, FAST)],
    "C7": [finalists(gap) for gap in (-0.5, 0, 0.5)],
    "C8": [same_difference("", 2.1, 0.5, r) for r in ((2, 2.2), (0, 3), (4, 5))],
    "C9": [is_exact("", 0), None, is_exact("", 1)],
    "C10": [dominance([OLD, dict(OLD, name="b")], [m]) for m in (NEW, UNSURE, LOSER)],
    "C11": [improvement(OLD, [m]) for m in (NEW, UNSURE, LOSER)],
    "C12": [smaller({"m": (1, 2)}), None, smaller({"m": (1, 2), "n": (2, 1)})],
    "C13": [dominance([OLD], [dict(m, latency=printed_latency(0.91))], 1.02)
            for m in (NEW, UNSURE, LOSER)],
    "C14": [worth({"m": r}) for r in (FAST, OPEN, (0.99, 1.0))],
    "C15": [FUSED, saves_time({"m": OPEN}), Every("", (FUSED, keeps("m", 0.5, -0.05, 0.001)))],
    "C16": [keeps("m", 0.75, change, 0.005) for change in (0, -0.01, -0.05)],
    "C17": [meets("ms", 1.3, r) for r in ((1.29, 1.31), (1.2, 1.4), (1.5, 1.6))],
}


@pytest.mark.parametrize("found, verdict", [
    ([0.7, 0.71, 0.72], "holds"),
    ([0.5, 0.51, 0.53], "undecided"),
    ([0.3, 0.31, 0.32], "does not hold"),
])
def test_seeds_decide_each_way(found, verdict): assert seeds(found).verdict == verdict


@pytest.mark.parametrize("number", CASES)
def test_every_verdict_comes_out_each_way(number):
    for finding, verdict in zip(CASES[number], (HOLDS, UNDECIDED, FAILS)):
        if finding is None: continue # what is counted is never undecided
        evidence = Evidence("modelled", "", "", finding)
        claim = Claim(number, "", "", SENTENCE, (evidence, Evidence("", "", "", Unjudged("why"))))
        assert claim.verdict == verdict, (number, str(finding))
        beside = Evidence("measured", "", "", CASES["C9"][2], decides=False)
        assert Claim(number, "", "", SENTENCE, (evidence, beside)).verdict == verdict
    alone = Claim(number, "", "", SENTENCE, (Evidence("", "", "", Unjudged("no labels")),))
    assert alone.words == "not judged: no labels"


def test_all_claims_of_the_page_are_judged_or_say_why_not():
    lines = (ROOT / "results/default/tables/claims.md").read_text().splitlines()
    rows = [line.strip("| ").split("|") for line in lines[2:] if line.startswith("|")]
    assert [row[0].strip() for row in rows] == list(CASES)
    for row in rows:
        verdict = row[-1].strip()
        words = rf"({HOLDS}|{FAILS})(, by prior)?|{UNDECIDED}|{NOT_JUDGED}: .+"
        assert re.fullmatch(words, verdict)
        assert SENTENCE in row[-2] or TWO_PERCENT in row[-2], "where the bound is from"


def test_the_page_can_fail():
    page = published("classification")
    def verdict(rows):
        models = [model(m, r["top1"] / 100, r["edgetpu_ms"], share_error(r["top1"] / 100, 50_000))
                  for m, r in rows.items()]
        v2 = [m for m in models if "_v2_" in m["name"]]
        return dominance([m for m in models if m not in v2], v2).verdict
    assert verdict(page) == UNDECIDED, "0.2 points of top-1 are within the error of the pictures"
    better = {m: dict(r, top1=r["top1"] + 2 * ("_v2_" in m)) for m, r in page.items()}
    assert verdict(better) == HOLDS
    assert verdict(better | {"mobilenet_edgetpu": dict(top1=75.6, edgetpu_ms=0.5)}) == FAILS


@pytest.mark.parametrize("low, high, verdict", [
    (0.5, 0.9, HOLDS), (1.0, 1.0, HOLDS), (1.1, 2.0, FAILS), (0.9, 1.1, UNDECIDED),
    (math.nan, math.nan, NOT_JUDGED),
])
def test_a_comparison_with_either_bound(low, high, verdict):
    assert Comparison("x", low, high, at_most=1).verdict == verdict
    assert Comparison("x", -high, -low, at_least=-1, unit="points").verdict == verdict


def test_one_that_nobody_beats_refutes_dominance():
    frontier = model("frontier", 0.79, 0.1)
    assert dominance([OLD, frontier], [NEW]).verdict == FAILS
    assert dominance([OLD, frontier], [NEW]).leading.what == "frontier"
    assert dominance([OLD], []).verdict == NOT_JUDGED


def test_parameters_that_do_not_rise_refute_gradual():
    assert gradual(groups(FAST, rise=0.9)).verdict == FAILS
    assert faster_somewhere({"7x7": {"GC-8": block(0.9)}}, is_grouped).verdict == NOT_JUDGED
    assert expensive_late(full(SLOW), "bytes").verdict == HOLDS


def test_by_prior_needs_the_same_verdict():
    yes, open_ = (Comparison("time", *r, at_most=1) for r in (FAST, OPEN))
    said = [Evidence("modelled", "", "", f, prior=p).words for f, p in
            ((yes, yes), (yes, open_), (yes, None), (open_, open_))]
    assert said == ["holds, by prior", "holds", "holds", "undecided"]


def test_the_worst_of_every_and_the_best_of_some_decide():
    parts = tuple(Comparison(f"{h}", h / 2, h, at_most=1) for h in (0.4, 0.9, 0.7))
    assert Every("", parts).deciding.what == "0.9" and Some("", parts).deciding.what == "0.4"
    fails = tuple(Comparison(f"{h}", h, h + 1, at_most=1) for h in (1.2, 3.0))
    assert Every("", parts + fails).deciding.what == "3.0"
    assert Some("", fails).deciding.what == "1.2"


def test_intervals():
    assert ratio_interval((2, 2, 2), (4, 4, 4)) == (0.5, 0.5)
    low, high = difference(0.6, 0.5, share_error(0.6, 400), share_error(0.5, 400))
    assert low < 10 < high
    assert high - 10 == pytest.approx(196 * math.sqrt((0.24 + 0.25) / 400))
    value, low, high = printed_latency(0.92)
    assert (value - low) / value == pytest.approx(0.0207, abs=1e-3)


def test_every_source_of_a_published_number_is_known():
    assert {p.source for p in PUBLISHED} <= set(SOURCES)
    nano = published("jetson-nano")
    saved = [1 - r[f"nano_{k}_fused_ms"] / r[f"nano_{k}_default_ms"]
             for r in nano.values() for k in ("fp16", "fp32")]
    assert len(nano) == 5 and min(saved) > 0.14 and max(saved) < 0.29
    assert "MIT" in SOURCES["tsukamoto"]


def test_the_forest_shows_every_row():
    claims = [Claim(n, "a claim", "", SENTENCE, tuple(
        Evidence("modelled", "x", "", f) for f in found if f)) for n, found in CASES.items()]
    fig = draw_forest(claims)
    words = [t.get_text() for t in fig.axes[0].texts]
    assert all(any(w.startswith(f"{n}  ") for w in words) for n in CASES)
    assert shown(claims[0].evidence[0]).verdict == HOLDS
    plt.close(fig)


@pytest.mark.parametrize("low, high, bound, unit, slack", [
    (1, 2, dict(at_most=5), "points", 3), # holds by its upper end
    (6, 8, dict(at_most=5), "points", -1), # fails by its lower end
    (4, 8, dict(at_most=5), "points", -3), # undecided by its upper end
    (3, 4, dict(at_least=1), "points", 2),
    (1, 2, dict(at_most=5, at_least=0), "points", 1),
    (1.0, 1.1, dict(at_most=1.21), "times", 100 * math.log(1.1)),
    (1, 2, {}, "points", math.inf),
])
def test_slack_is_the_room_of_the_end_that_decides(low, high, bound, unit, slack):
    assert Comparison("", low, high, unit=unit, **bound).slack == pytest.approx(slack)
