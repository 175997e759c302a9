"What is committed in results/ belongs to its profile, and quantisation kept what it should keep."

import pytest
from conftest import ROOT

from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.core.records import read_records, unexpected
from edgetpu_repro.models.specs import get_spec

pytestmark = pytest.mark.quick
COMMITTED = ("default", "camvid", "cifar10", "bccd", "bccd_finetune")


def evaluated(task):
    "The committed accuracies of one task: (profile, model, numbers)."
    return [
        (profile, r["name"], r["numbers"])
        for profile in COMMITTED
        for r in read_records(profile, "evaluate", committed=True)
        if get_spec(r["name"]).task == task
    ]


@pytest.mark.parametrize("profile", COMMITTED)
def test_every_model_of_a_profile_has_its_records(profile):
    settings = load_profile(profile)
    classification, segmentation = settings.task("classification"), settings.task("segmentation")
    detection = settings.task("detection")
    trained = {*classification.models, *segmentation.models, *detection.models}
    timed = {
        *classification.all_models,
        *(f"{m}{ending}" for m in detection.all_models for ending in ("", "_nms")),
    }
    assert (
        {r["name"] for r in read_records(profile, "train", committed=True)}
        == {r["name"] for r in read_records(profile, "evaluate", committed=True)}
        == trained
    )
    masked = segmentation.all_models
    timed |= {f"{m}_{argmax}" for m in masked for argmax in ("default", "fused4")}
    assert {r["name"] for r in read_records(profile, "benchmark", committed=True)} == timed
    for record in read_records(profile, "train", committed=True):
        task = get_spec(record["name"]).task
        assert (
            record["parameters"]["epochs"] == settings.train_settings(record["name"], task).epochs
        )
        size = settings.data_settings(record["name"], task).image_size
        assert record["parameters"]["image_size"] == (size if isinstance(size, int) else list(size))


@pytest.mark.parametrize("profile", COMMITTED)
def test_numbers_are_as_the_profile_promises(profile):
    settings, records = load_profile(profile), read_records(profile, "evaluate", committed=True)
    assert set(settings.expect) == set(settings.tasks), "a profile says what to expect of each task"
    for task, mine in settings.tasks.items():
        of_task = [r for r in records if r["name"] in mine.models]
        assert all(settings.expected(r["name"], task) for r in of_task), "of each model"
        assert not (broken := unexpected(settings, of_task, task)), broken


def test_the_files_of_a_profile_are_there():
    for profile in COMMITTED:
        for folder in (ROOT / "results" / profile / "tables", ROOT / "figures" / profile):
            assert list(folder.iterdir())


def test_int8_segmentation_keeps_96_percent_of_miou():
    "The bar of MLPerf Mobile."
    kept = {
        (profile, m): n["int8_default_miou"] / n["keras_default_miou"]
        for profile, m, n in evaluated("segmentation")
    }
    assert len(kept) >= 4 and min(kept.values()) >= 0.96, kept


def test_int8_classification_keeps_98_percent_of_top1():
    "The bar of MLPerf Mobile: over all classifiers, and for each one within two standard errors."
    kept = {
        (profile, m): n["int8_top1"] / n["float_top1"]
        for profile, m, n in evaluated("classification")
    }
    for r in read_records("families", "repeat", committed=True):
        kept["families", r["name"]] = r["numbers"]["int8_top1"] / r["numbers"]["keras_top1"]
    assert len(kept) >= 27 and sum(kept.values()) / len(kept) >= 0.98, kept
    for profile, m, n in evaluated("classification"):
        error = (n["float_top1"] * (1 - n["float_top1"]) / n["test_images"]) ** 0.5
        assert n["int8_top1"] >= 0.98 * n["float_top1"] - 2 * error, (profile, m, n)


def test_the_default_quantizer_was_measured_on_every_classifier():
    records = read_records("default", "quantizers", committed=True)
    assert {r["name"] for r in records} == set(
        load_profile("default").task("classification").models
    )
    kept = [
        r["numbers"]["tf a8w8"]["accuracy"] / r["numbers"]["float"]["accuracy"] for r in records
    ]
    assert sum(kept) / len(kept) >= 0.98


def test_quantize_aware_started_from_the_weights_that_were_evaluated():
    "And took no more than a quarter longer for a step."
    found = {r["name"]: r for r in read_records("default", "quantize_aware", committed=True)}
    evaluated = {r["name"]: r for r in read_records("default", "evaluate", committed=True)}
    assert set(found) == set(evaluated)
    for name, r in found.items():
        metric, numbers = r["parameters"]["metric"], evaluated[name]["numbers"]
        variant = "default_" if metric == "miou" else ""
        for kind in ("float", "int8"):
            start = r["numbers"]["ways"][f"start {kind}"][metric]
            assert abs(start - numbers[f"{kind}_{variant}{metric}"]) < 1e-6, (name, kind)
        seconds = [r["numbers"]["trained"][f"{kind} epoch"]["step_cpu_seconds"]
                   for kind in ("aware", "float")]
        assert seconds[0] < 1.25 * seconds[1], name


def test_published_weights_are_a_better_start():
    best = {}
    for r in read_records("cifar10", "finetune", committed=True):
        start = r["parameters"]["start"]
        best[start] = max(best.get(start, 0), r["numbers"]["curve"][-1]["val_accuracy"])
    assert best["published weights"] > best["random weights"]
