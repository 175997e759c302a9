"Released files on real pictures in the page, against Python; none of them is part of the project."
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from test_demo import FREE, look, python, runtime, served # noqa: F401, a fixture

from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tasks.detection import detections_of
from edgetpu_repro.tasks.finalize import finalize, finalize_methods
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions
from edgetpu_repro.weights.start import load_released

DATA = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data"))
THERE = all((DATA / name).is_dir() for name in ("published", "real"))
pytestmark = pytest.mark.skipif(not THERE, reason="needs released files and real pictures "
                                "(EDGETPU_REPRO_DATA)")
CLASSIFIER = DATA / "published/mobilenet_edgetpu_0.75_224_post_training_quant.tflite"
RELEASED = { # what it is: (file, model, classes)
    "masks": ("autoseg-edgetpu_fused_argmax_xs_1.tflite", "autoseg_edgetpu_xs", 32),
    "boxes": ("spaghettinet_edgetpu_s.tflite", "spaghettinet_edgetpu_s", 90),
}
RAW = ExportOptions(finalize_methods=("none",))
PICTURES = 3 # of each kind


def some(folder):
    "Photographs of a folder, far from each other."
    every = (DATA / "real" / folder).rglob("*")
    found = sorted(path for path in every if path.suffix.lower() in (".jpg", ".jpeg"))
    return found[::max(1, len(found) // PICTURES)][:PICTURES]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "{what it is: path}: the classifier as it is, the others again, in float with raw outputs."
    found, folder = dict(classes=CLASSIFIER), tmp_path_factory.mktemp("released")
    for what, (file, name, classes) in RELEASED.items():
        model = build_model(name, classes)
        load_released(model, DATA / "published" / file)
        found[what] = export_model(model, folder, None, RAW)[0][0]
    return found


@pytest.fixture(scope="module")
def address(runtime, files): # noqa: F811
    "Where `demo` serves the page with these files."
    with served(files.values()) as url: yield url


@pytest.fixture
def page(address, visit):
    "The page; it asks nobody for anything."
    one = visit()
    one.page.goto(address)
    one.page.wait_for_selector(FREE)
    yield one.page
    assert not one.errors and not one.outside(address)


def test_classes(page, files):
    for i, picture in enumerate(some("imagenet"), 1):
        found = look(page, files["classes"], picture, figures=i)
        one, wanted = python(files["classes"], picture)
        said = one.task.show(None, wanted[0], one.task.default_names(1001)).values["classes"]
        assert [r["name"] for r in found["rows"]][0] == said[0]["name"]
        off = np.abs(np.array(found["outputs"][0]) - wanted[0])
        print(picture.name, said[0]["name"], f"probabilities within {off.max():.4f}")
        assert off.max() < 0.05


def test_masks(page, files):
    for i, picture in enumerate(some("ade20k"), 1):
        found = look(page, files["masks"], picture, figures=i)
        one, logits = python(files["masks"], picture)
        methods = finalize_methods(one.hw)
        for title, way in (("default argmax", "default"), ("fused argmax (1/4)", "fused4")):
            wanted = np.asarray(finalize(logits, methods[way])).ravel()
            same = (wanted == np.array(found["masks"][title])).mean()
            print(picture.name, title, f"{100 * same:.3f} % of the pixels as in Python")
            assert same > 0.995


def test_boxes(page, files):
    for i, picture in enumerate(some("coco"), 1):
        found = look(page, files["boxes"], picture, figures=i)
        one, heads = python(files["boxes"], picture)
        off = {}
        for ours, theirs in (("codes", "box_encodings"), ("classes", "class_logits")):
            off[theirs] = np.abs(np.array(found["heads"][ours]) - heads[theirs].ravel()).max()
        wanted = detections_of(heads, one.hw, "nms")[0]
        sure = wanted.scores > 0.3
        print(picture.name, off, f"{sure.sum()} boxes from 0.3")
        assert max(off.values()) < 0.02
        boxes = [b for b in found["boxes"] if b["score"] > 0.3]
        assert np.array([b["box"] for b in boxes]) == pytest.approx(wanted.boxes[sure], abs=1e-3)
        assert [b["class"] for b in boxes] == wanted.classes[sure].tolist()
