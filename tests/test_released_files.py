"Released files: made ones of the same structure, the real ones, and what the command says."
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from edgetpu_repro.core.errors import UsageError

DATA = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data"))
HERE = (DATA / "published").is_dir()
needs_data = pytest.mark.skipif(not HERE, reason="needs the released files (EDGETPU_REPRO_DATA)")
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")


def shaken(model):
    "The model with weights no two of which are alike."
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.1, v.shape) + ("variance" in v.path) for v in model.weights])
    return model


def test_variants_lead_to_models_but_are_not_listed():
    from edgetpu_repro import list_models
    from edgetpu_repro.models.specs import SPECS, VARIANTS, build_model, get_spec
    from edgetpu_repro.models.specs import spec_from_json, spec_to_json
    for name, variant in VARIANTS.items():
        assert name not in list_models() and variant.of in SPECS
        assert variant.source and variant.differs
        assert get_spec(name) is variant.spec
        assert spec_from_json(spec_to_json(variant.spec)) == variant.spec
        assert build_model(name, 5, 64).name == name
    with pytest.raises(UsageError, match="did you mean 'mobilenet_edgetpu_dm0p75_slim'"):
        get_spec("mobilenet_edgetpu_dm0p75_slm")


def test_a_file_of_the_slim_variant_fits_it_and_no_other(tmp_path):
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.tflite.convert import freeze
    from edgetpu_repro.weights.importer import load_tflite_weights, tensor_uses
    from edgetpu_repro.tflite.quantize import export_tflite
    model = shaken(build_model("mobilenet_edgetpu_dm0p75_slim", 7, 64))
    export_tflite(freeze(model), tmp_path / "slim.tflite")
    again = build_model("mobilenet_edgetpu_dm0p75_slim", 7, 64)
    assert load_tflite_weights(again, tmp_path / "slim.tflite").variables == len(model.weights)
    np.testing.assert_allclose(again(IMAGES), model(IMAGES), atol=1e-5)
    assert not {"unknown", "unused"} & set(tensor_uses(tmp_path / "slim.tflite"))
    page = build_model("mobilenet_edgetpu_dm0p75", 7, 64)
    before = page.get_weights()
    with pytest.raises(UsageError, match="it lacks top"):
        load_tflite_weights(page, tmp_path / "slim.tflite")
    assert all((a == b).all() for a, b in zip(before, page.get_weights()))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_channels_of_a_concatenation_find_their_place(tmp_path, order):
    "Kernels behind a concatenation of another order, depthwise ones and those behind them."
    from edgetpu_repro.models.blocks import build
    from edgetpu_repro.models.specs import layout
    from edgetpu_repro.tflite.convert import freeze
    from edgetpu_repro.weights.importer import load_tflite_weights
    from edgetpu_repro.tflite.quantize import export_tflite

    def made(order):
        g = layout("deeplabv3plus_mobilenet_v2_mlperf", 64, 5)
        for name in ("aspp_concat", "decoder_concat"):
            inputs = g[name].inputs
            g.ops[name] = replace(g[name], inputs=tuple(inputs[i] for i in order))
        return build(g)

    theirs, ours = shaken(made(order)), made((0, 1))
    export_tflite(freeze(theirs), tmp_path / "made.tflite")
    assert load_tflite_weights(ours, tmp_path / "made.tflite").variables == len(ours.weights)
    wanted = theirs(IMAGES)
    np.testing.assert_allclose(ours(IMAGES), wanted, atol=1e-4 * np.abs(wanted).max())


def test_finalize_steps_come_back_from_our_files(tmp_path):
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.tflite.convert import fold_norms, freeze
    from edgetpu_repro.weights.importer import read_finalize
    from edgetpu_repro.tflite.quantize import export_tflite
    model = build_model("deeplabv3plus_mobilenet_v2_mlperf", 5, 64)
    folded = fold_norms(model)
    methods = {"none": None, "resize64,argmax,squeeze": None, "corner64,argmax,squeeze": IMAGES}
    for method, images in methods.items():
        frozen = freeze(model, finalize_method=method, folded=folded)
        export_tflite(frozen, tmp_path / "x.tflite", images)
        assert read_finalize(tmp_path / "x.tflite") == method


@needs_data
@pytest.mark.parametrize("name", ["mobilenet_edgetpu_dm0p75", "autoseg_edgetpu_xs",
                                  "deeplab_baseline_uint8", "deeplab_baseline_int8"])
def test_released_files_are_imported_whole(name):
    from edgetpu_repro.measure.released_files import RELEASED_FILES, find_file
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.weights.importer import tensor_uses
    from edgetpu_repro.weights.start import load_released
    path, model = find_file(name, DATA), build_model(RELEASED_FILES[name].model)
    assert load_released(model, path).variables == len(model.weights)
    assert not {"unknown", "unused"} & set(tensor_uses(path))


def test_without_data_it_says_what_to_get(inside, tmp_path):
    result = inside("published", "--data", tmp_path, "--output_dir", tmp_path / "out")
    assert result.returncode == 2 and result.stderr.count("github") >= 7, result.stderr
    assert "7 of 7 released files" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    wrong = inside("published", "autoseg_edgetpu_xl", "--data", tmp_path)
    assert wrong.returncode == 2 and "did you mean 'autoseg_edgetpu_xs'" in wrong.stderr


def test_what_was_measured_is_said_line_by_line(capsys):
    from edgetpu_repro.cli.released import _measure
    records = ROOT / "results/published/records/published"
    record = _measure("spaghettinet_edgetpu_s", None, None, records, quiet=False)
    lines = capsys.readouterr().out.splitlines()
    shown = len(record["numbers"]["ways"]) + len(record["numbers"]["readings"])
    assert len(lines) == 1 + shown and not any("\\n" in line for line in lines)


def write_pictures(folder, count=4):
    "A folder as a user has it, of made pictures."
    from PIL import Image
    rng = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (folder / "ade20k" / part / "validation").mkdir(parents=True)
    for i in range(count):
        hw = 40 + 10 * i, 64
        photo = Image.fromarray(rng.integers(0, 256, (*hw, 3)).astype("uint8"))
        photo.save(folder / f"ade20k/images/validation/P{i}.jpg")
        mask = Image.fromarray(rng.integers(0, 40, hw).astype("uint8"))
        mask.save(folder / f"ade20k/annotations/validation/P{i}.png")
    return folder


def test_masks_are_counted_at_both_sizes(tmp_path):
    from edgetpu_repro.measure.picture_runs import Pixels, run_masks
    from edgetpu_repro.measure.picture_scores import agreement, mean_iou
    from edgetpu_repro.data.labelled import open_pictures
    pictures = open_pictures("ade20k", write_pictures(tmp_path))
    assert len(pictures) == 4
    perfect = {}

    def run(image):
        "Masks that are right, as far as the model's size goes; and masks of nothing."
        return {"none": np.zeros((1, 64, 64), "uint8")}

    for reading in ("stretched", "padded"):
        scores = run_masks(pictures, (64, 64), reading, run)["none"]
        assert scores.all() == {"miou": 0.0, "miou_own_size": 0.0} and scores.n == 4
        perfect[reading] = Pixels((64, 64), reading)
    truth = np.full((32, 64), 3, "uint8")
    mask = np.zeros((64, 64), "uint8")
    mask[:32] = 3
    perfect["padded"].add(mask, truth) # what lies outside of the picture does not count
    assert perfect["padded"].scores().all() == {"miou": 1.0, "miou_own_size": 1.0}
    perfect["stretched"].add(mask, truth)
    assert perfect["stretched"].scores().all() == {"miou": 0.5, "miou_own_size": 0.5}
    assert mean_iou(np.diag([5, 1, 2])) == 1.0
    other, elsewhere = Pixels((64, 64), "padded"), mask.copy()
    elsewhere[40:] = 7 # where there is no picture
    other.add(elsewhere, truth)
    assert agreement(perfect["padded"].scores(), other.scores()) == 1.0
    elsewhere[:16] = 7
    other = Pixels((64, 64), "padded")
    other.add(elsewhere, truth)
    assert agreement(perfect["padded"].scores(), other.scores()) == 0.5


def test_bootstrap_is_paired_and_knows_the_binomial_error():
    from edgetpu_repro.measure.bootstrap import paired
    from edgetpu_repro.measure.picture_scores import label_scores
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 400)
    said = np.where(rng.random(400) < 0.75, labels, (labels + 1) % 5)
    one, same = (label_scores(np.eye(5)[s], labels) for s in (said, said))
    assert paired(one, same, "top1") == {"difference": 0.0, "se": 0.0}
    other = label_scores(np.eye(5)[np.where(np.arange(400) < 8, (labels + 2) % 5, said)], labels)
    found = paired(one, other, "top1")
    assert 0 < found["difference"] <= 0.02 and 0.002 < found["se"] < 0.01


MEASURED = (ROOT / "results/published/records").is_dir()
measured = pytest.mark.skipif(not MEASURED, reason="the profile `published` has no results here")


@measured
def test_committed_records_are_whole_and_of_one_commit():
    from edgetpu_repro.core.records import read_records
    from edgetpu_repro.core.settings import load_profile
    from edgetpu_repro.measure.picture_runs import HEADLINES
    from edgetpu_repro.measure.released_files import RELEASED_FILES
    records = {r["name"]: r for r in read_records("published", "published", committed=True)}
    known = load_profile("published").released.files
    assert list(records) == sorted(known) == sorted(RELEASED_FILES)
    assert len({r["provenance"]["commit"] for r in records.values()}) == 1
    for name, r in records.items():
        numbers, parameters = r["numbers"], r["parameters"]
        metric = HEADLINES[parameters["pictures"]]
        assert parameters["sha256"] == RELEASED_FILES[name].sha256 and parameters["images"] >= 100
        assert not {"unknown", "unused"} & set(numbers["tensors"])
        for way in numbers["ways"].values():
            assert 0.1 < way[metric] < 1 and 0 < way[f"{metric}_se"] < 0.05
            assert 0.7 < way["agreement"] <= 1
        if parameters["model"] is None: continue
        unknown = [row["layer"] for row in numbers["layers"] if row["sqnr_db"] is None]
        assert numbers["variables"] and set(unknown) <= {"classifier"}, unknown # it is the output


@measured
def test_our_float_model_does_what_the_released_file_does():
    "Within three standard errors of the paired difference, where the file ends as float does."
    from edgetpu_repro.core.records import read_records
    for r in read_records("published", "published", committed=True):
        file = r["numbers"]["ways"]["file"]
        minus = [file[k] for k in file if k.startswith("minus_float")]
        if minus: assert abs(minus[0]) < 3 * minus[1] + 0.005, (r["name"], minus)
