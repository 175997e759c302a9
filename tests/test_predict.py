"`predict` of a file as people use it: folders, overlays, boxes, names, without TensorFlow."
import json
import os

import keras
import numpy as np
import pytest
from conftest import BIN, BLOCK, ROOT, call
from PIL import Image
from test_cli import one_line

from edgetpu_repro.data.coco import COCO_NAMES
from edgetpu_repro.tasks.boxes import Detections
from edgetpu_repro.tasks.detection import SEEN, coco_id, draw_boxes
from edgetpu_repro.tasks.segmentation import color_mask, draw_overlay
from edgetpu_repro.tflite.content import argmax_classes
from edgetpu_repro.tflite.convert import freeze
from edgetpu_repro.tflite.quantize import export_tflite

HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "sklearn", "pycocotools", "jax",
         "litert_quantizer", "matplotlib", "pandas", "seaborn")


def classifier():
    "Bright or dark."
    inputs = keras.Input((32, 32, 3))
    dense = keras.layers.Dense(3, activation="softmax", name="classifier")
    model = keras.Model(inputs, dense(keras.layers.GlobalAveragePooling2D()(inputs)), name="light")
    dense.set_weights([np.array([[2, -2, 0]] * 3, "float32"), np.zeros(3, "float32")])
    return model


def segmenter():
    "Of 32 classes, 1 where a picture is bright and 4 where it is dark."
    inputs = keras.Input((32, 32, 3))
    conv = keras.layers.Conv2D(32, 1, strides=2, name="logits")
    model = keras.Model(inputs, conv(inputs), name="halves")
    kernel, bias = np.zeros((1, 1, 3, 32), "float32"), np.full(32, -9, "float32")
    kernel[..., 1], kernel[..., 4], bias[[1, 4]] = 1, -1, 0
    conv.set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    "Files of both, and a folder of pictures whose left half is bright."
    folder = tmp_path_factory.mktemp("predict")
    export_tflite(freeze(classifier()), folder / "light.tflite")
    export_tflite(freeze(segmenter()), folder / "logits.tflite")
    steps = "resize32,argmax"
    export_tflite(freeze(segmenter(), finalize_method=steps), folder / "mask.tflite")
    pixels = np.full((48, 64, 3), 20, "uint8")
    pixels[:, :32] = 230
    for name in ("b.png", "a/c.jpg", "a/deep/d.png"):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (folder / "pictures/a/notes.txt").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK.format(blocked=HEAVY))
    return folder


@pytest.fixture
def bare(there):
    "The command where LiteRT and Pillow are, and none of what is heavy."
    env = {"PYTHONPATH": os.pathsep.join([str(there), str(ROOT)])}
    return lambda *words: call(BIN / "edgetpu-repro", *words, cwd=there, env=env)


@pytest.mark.parametrize("file", ["logits.tflite", "mask.tflite"])
def test_masks_without_tensorflow(bare, there, tmp_path, file):
    done = bare("predict", file, "pictures", "--json", "--output_dir", tmp_path)
    assert done.returncode == 0 and not done.stderr, done
    answers = json.loads(done.stdout)
    names = [a["image"] for a in answers]
    assert names == ["pictures/a/c.jpg", "pictures/a/deep/d.png", "pictures/b.png"]
    for answer in answers:
        assert {row["name"] for row in answer["classes"]} == {"wall", "floor"}
        mask = np.asarray(Image.open(answer["mask"]))
        assert mask.shape == (48, 64) and mask[10, 10] == 1 and mask[10, 60] == 4
        overlay = Image.open(answer["overlay"])
        assert overlay.width == 64 and overlay.height > 48


def test_classes_without_tensorflow_are_those_of_litert(bare, there):
    from ai_edge_litert.interpreter import Interpreter
    done = bare("predict", "light.tflite", "pictures/b.png", "--json")
    assert done.returncode == 0, done
    (answer,) = json.loads(done.stdout)
    interpreter = Interpreter(str(there / "light.tflite"))
    interpreter.allocate_tensors()
    # the picture is constant along columns but for its middle, whose mean stays
    mean = (230 + 20) / 2 / 127.5 - 1
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], np.full((1, 32, 32, 3), mean, "float32"))
    interpreter.invoke()
    wanted = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    for row in answer["classes"]:
        assert row["probability"] == pytest.approx(wanted[row["class"]], abs=0.01)
    assert len(answer["classes"]) == 3


def test_what_needs_keras_is_said(bare, there):
    classifier().save(there / "light.keras")
    one_line(bare("predict", "light.keras", "pictures/b.png"), "edgetpu-repro[tf]")


def test_folders_that_hold_nothing(cli, there, tmp_path):
    one_line(cli("predict", there / "light.tflite", there / "empty"), "holds no pictures")
    one_line(cli("predict", there / "light.tflite", there / "nowhere"), "is not a file")
    given = (there / "pictures/b.png", there / "pictures", there / "missing.png")
    done = cli("predict", there / "light.tflite", *given)
    assert done.returncode == 2 and len(done.stdout.splitlines()) == 3, done
    assert "1 of 4 pictures" in done.stderr


def test_how_many_classes_a_mask_has(there):
    assert argmax_classes((there / "mask.tflite").read_bytes()) == 32


@pytest.mark.parametrize("size", [(1, 1), (7, 200), (2000, 40)])
def test_an_overlay_of_any_size(size):
    picture = np.full((*size[::-1], 3), 200, "uint8")
    mask = np.arange(size[0] * size[1]).reshape(size[::-1]) % 40
    image = draw_overlay(picture, color_mask(mask), ("background", "x" * 300))
    assert image.width == size[0] and image.height > size[1]
    assert image.getpixel((0, 0)) == (200, 200, 200), "background has no colour"


@pytest.mark.parametrize("side", [4, 64, 1500])
def test_boxes_are_readable_at_any_size(side):
    boxes = np.array([[0, 0, 0.5, 0.5], [0.9, 0.9, 1, 1], [0.5, 0.2, 0.4, 0.1]], "float32")
    found = Detections(boxes, np.array([0, 7, 19]), np.array([0.9, 0.8, 0.1], "float32"))
    plain = np.full((side, side, 3), 128, "uint8")
    drawn = np.asarray(draw_boxes(plain, found, ("a dog",)))
    assert drawn.shape == plain.shape and (drawn != plain).any()
    if side == 64: return
    thick = (drawn[side // 4, : side // 20 + 1] != 128).any(-1).sum()
    assert side == 4 or thick >= side // 300, "a line is as wide as a picture wants it"


def test_numbers_of_coco():
    fridge = COCO_NAMES.index("refrigerator")
    assert (fridge, coco_id(COCO_NAMES, fridge)) == (81, 82)
    assert coco_id(SEEN, SEEN.index("refrigerator")) == 82
    assert [coco_id(SEEN, c) for c in (0, 11, 79)] == [1, 13, 90]
    assert coco_id(("red cell", "white cell"), 0) is None and coco_id((), 3) is None
    ours = tuple("???" if n == "unused" else n for n in COCO_NAMES)
    assert coco_id(ours, 81) == 82
