"Detectors against the released code's outputs, where the data are there; the same functions on small made-up data."
import json
import os
from pathlib import Path

import numpy as np
import pytest

from edgetpu_repro.models.anchors import anchors_for, anchors_of
from edgetpu_repro.tasks.boxes import box_loss, class_loss, decode_boxes, detect, match_anchors, targets_of

FOLDERS = [os.environ.get("EDGETPU_REPRO_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data"]
DATA = next((Path(f) for f in FOLDERS if f and (Path(f) / "tfod").is_dir()), None)
NAMES = sorted(p.name for p in (DATA / "tfod").iterdir()) if DATA else ["(data folder)"]
needs_data = pytest.mark.skipif(DATA is None, reason="EDGETPU_REPRO_DATA is not set and ../shared/data is not there")


def golden(name):
    folder = DATA / "tfod" / name
    return folder, np.load(folder / "golden.npz"), json.loads((folder / "vars.json").read_text())


def close(ours, theirs, share=1e-4):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= share * np.abs(theirs).max()


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_anchors_codes_and_matching(name):
    _, z, _ = golden(name)
    anchors = anchors_of(name)
    assert np.abs(anchors - z["anchors"]).max() <= 1e-6
    assert np.array_equal(anchors, anchors_for((320, 320), len(anchors)))
    close(decode_boxes(z["box_encodings"], anchors), z["raw_boxes"], 1e-5)
    match = match_anchors(z["gt_boxes"][None], np.ones((1, 6), bool), anchors)
    assert np.array_equal(match, z["match"])


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_losses(name):
    _, z, _ = golden(name)
    columns, codes = targets_of(z["gt_boxes"][None], z["gt_classes"][None], anchors_of(name))
    matched = np.asarray(columns)[..., None] > 0
    close(np.where(matched, codes, 0), z["reg_targets"], 1e-5)
    wanted = np.concatenate([codes, matched], -1)
    assert float(box_loss(wanted, z["box_encodings"])) == pytest.approx(float(z["localization_loss"]), rel=1e-5)
    assert float(class_loss(columns, z["class_logits"])) == pytest.approx(float(z["classification_loss"]), rel=1e-5)


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_suppression(name):
    _, z, _ = golden(name)
    found = detect(z["box_encodings"], z["class_logits"], anchors_of(name))[0]
    assert np.array_equal(found.classes, z["detection_classes"][0])
    assert np.abs(found.scores - z["detection_scores"][0]).max() < 1e-5
    assert np.abs(found.boxes - z["detection_boxes"][0]).max() < 1e-5
    fast = detect(z["box_encodings"], z["class_logits"], anchors_of(name), "nms")[0]
    assert np.array_equal(fast.classes, z["tflite_fast_classes"][0])
    assert np.abs(fast.boxes - z["tflite_fast_boxes"][0].clip(0, 1)).max() < 1e-5


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_released_checkpoint_gives_released_outputs(name):
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.tflite.detectors import load_tf1
    folder, z, known = golden(name)
    model = build_model(name)
    assert load_tf1(model, folder).left_model == ()
    images = np.random.default_rng(int(z["input_seed"])).uniform(-1, 1, z["input_shape"]).astype("float32")
    outputs = model(images, training=False)
    close(outputs["box_encodings"], z["box_encodings"])
    close(outputs["class_logits"], z["class_logits"])
    scales = [round(v.regularizer.l2 * 2, 9) for v in model.trainable_variables if v.regularizer]
    slices = sum(l.groups - 1 for l in model.layers if getattr(l, "realisation", getattr(l, "implementation", None)))
    assert len(scales) + slices == len(known["l2"]) and set(scales) == {round(v, 9) for v in known["l2"].values()}


@needs_data
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regular", [False, True])
def test_operator_gives_what_the_released_one_gives(name, regular):
    "The operator alone behind the released raw outputs."
    import tensorflow as tf
    from edgetpu_repro.tflite.file import pack, unpack
    from edgetpu_repro.tflite.postprocess import detector_runner, with_postprocess
    _, z, _ = golden(name)
    codes, logits = tf.constant(z["box_encodings"]), tf.constant(z["class_logits"])

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 2, 3))])
    def heads(image):
        zero = tf.reduce_sum(image) * 0
        return codes + zero, tf.sigmoid(logits) + zero
    content = tf.lite.TFLiteConverter.from_concrete_functions([heads.get_concrete_function()]).convert()
    content = with_postprocess(pack(unpack(content)), anchors_of(name), 100, regular)
    got = detector_runner(content)(np.zeros((1, 2, 2, 3), "float32"))
    kind = "regular" if regular else "fast"
    assert np.array_equal(got["detection_classes"], z[f"tflite_{kind}_classes"])
    assert np.abs(got["detection_boxes"] - z[f"tflite_{kind}_boxes"]).max() < 1e-5
    assert np.abs(got["detection_scores"] - z[f"tflite_{kind}_scores"]).max() < 1e-6
