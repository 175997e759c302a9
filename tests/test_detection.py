"""Detectors against the released code's outputs, where the data are there.

The same functions on small made-up data.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SMALL_DETECTOR
from test_quantize_aware import scales

from edgetpu_repro.models.anchors import anchors_for, anchors_of
from edgetpu_repro.tasks.boxes import (
    box_loss,
    class_loss,
    decode_boxes,
    detect,
    match_anchors,
    targets_of,
)
from edgetpu_repro.weights.graphs import FilePlaces

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
FOLDERS = [os.environ.get("EDGETPU_REPRO_DATA"), BESIDE]
DATA = next((Path(f) for f in FOLDERS if f and (Path(f) / "tfod").is_dir()), None)
NAMES = sorted(p.name for p in (DATA / "tfod").iterdir()) if DATA else ["(data folder)"]
MISSING = "EDGETPU_REPRO_DATA is not set and ../shared/data is not there"
needs_data = pytest.mark.skipif(DATA is None, reason=MISSING)


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
    localization = float(box_loss(wanted, z["box_encodings"]))
    assert localization == pytest.approx(float(z["localization_loss"]), rel=1e-5)
    classification = float(class_loss(columns, z["class_logits"]))
    assert classification == pytest.approx(float(z["classification_loss"]), rel=1e-5)


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
    from edgetpu_repro.weights.detectors import load_tf1
    folder, z, known = golden(name)
    model = build_model(name)
    assert load_tf1(model, folder).left_model == ()
    rng = np.random.default_rng(int(z["input_seed"]))
    images = rng.uniform(-1, 1, z["input_shape"]).astype("float32")
    outputs = model(images, training=False)
    close(outputs["box_encodings"], z["box_encodings"])
    close(outputs["class_logits"], z["class_logits"])
    scales = [round(v.regularizer.l2 * 2, 9) for v in model.trainable_variables if v.regularizer]
    grouped = [l for l in model.layers if getattr(l, "implementation", None)]
    slices = sum(l.groups - 1 for l in grouped)
    assert len(scales) + slices == len(known["l2"])
    assert set(scales) == {round(v, 9) for v in known["l2"].values()}


@needs_data
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regular", [False, True])
def test_operator_gives_what_the_released_one_gives(name, regular):
    "The operator alone behind the released raw outputs."
    import tensorflow as tf
    from edgetpu_repro.tasks.base import TASKS
    from edgetpu_repro.tasks.heads import suppression_operator
    from edgetpu_repro.tflite.file import TFLiteFile
    from edgetpu_repro.tflite.graph import with_operator, with_signature
    task = TASKS["detection"]
    _, z, _ = golden(name)
    codes, logits = tf.constant(z["box_encodings"]), tf.constant(z["class_logits"])

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 2, 3))])
    def heads(image):
        zero = tf.reduce_sum(image) * 0
        return codes + zero, tf.sigmoid(logits) + zero
    concrete = [heads.get_concrete_function()]
    content = tf.lite.TFLiteConverter.from_concrete_functions(concrete).convert()
    content = with_signature(content, lambda shapes: task.signature(shapes, "nms"))
    operator = suppression_operator((codes.shape, logits.shape), anchors_of(name), 100, regular)
    file = TFLiteFile.open(with_operator(content, operator))
    got = task.runner(file)(np.zeros((1, 2, 2, 3), "float32"))
    kind = "regular" if regular else "fast"
    assert np.array_equal(got["detection_classes"], z[f"tflite_{kind}_classes"])
    assert np.abs(got["detection_boxes"] - z[f"tflite_{kind}_boxes"]).max() < 1e-5
    assert np.abs(got["detection_scores"] - z[f"tflite_{kind}_scores"]).max() < 1e-6


# ---- bad input: named, counted, nothing lost ----


def coco_json(folder, boxes, pictures=(("a.png", 100, 50),), categories=((7, "cup"),), more=()):
    "A file of annotations and its pictures: `boxes` are (picture number, category, box)."
    from PIL import Image
    for name, width, height in pictures:
        Image.new("RGB", (width, height)).save(folder / name)
    rows, images = [], []
    for i, (picture, category, box) in enumerate(boxes, 1):
        rows.append(dict(id=i, image_id=picture, category_id=category, bbox=box))
    for i, (name, width, height) in enumerate(pictures, 1):
        images.append(dict(id=i, file_name=name, width=width, height=height))
    named = [dict(id=i, name=name) for i, name in categories]
    content = dict(images=[*images, *more], annotations=rows, categories=named)
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


BAD_BOXES = {
    "boxes outside of the picture": (1, 7, [200, 5, 3, 3]),
    "empty boxes": (1, 7, [5, 5, 0, 2]),
    "reversed boxes": (1, 7, [5, 5, -3, 2]),
    "boxes that are not four numbers": (1, 7, [5, 5, "x", 2]),
    "boxes of unknown categories": (1, 8, [5, 5, 3, 2]),
    "boxes of missing pictures": (9, 7, [5, 5, 3, 2]),
    "boxes clipped to the picture": (1, 7, [90, 40, 50, 50]),
}


@pytest.mark.parametrize("problem", BAD_BOXES)
def test_bad_boxes_are_named_and_counted(tmp_path, problem):
    from edgetpu_repro.data.coco import read_coco
    good = (1, 7, [10, 10, 20, 20])
    found = read_coco(coco_json(tmp_path, [good, BAD_BOXES[problem]]), tmp_path)
    assert found["problems"].counts == {problem: 1}
    assert found["problems"].lines() == [f"1 {problem} (annotation 2)"]
    kept = 2 if "clipped" in problem else 1
    assert len(found["annotations"]) == kept and found["annotations"][0]["bbox"] == good[2]


def test_pictures_that_are_missing_are_named(tmp_path):
    from edgetpu_repro.core.errors import UsageError
    from edgetpu_repro.data.coco import read_coco
    gone = [dict(id=5, file_name="gone.png", width=10, height=10)]
    found = read_coco(coco_json(tmp_path, [(5, 7, [1, 1, 2, 2])], more=gone), tmp_path)
    assert found["problems"].lines() == [
        "1 pictures that are not in the folder (gone.png)",
        "1 boxes of missing pictures (annotation 1)",
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="none of its pictures is in"):
        read_coco(tmp_path / "boxes.json", empty)


def test_a_thousand_boxes_and_more(tmp_path):
    "COCO's JSON has no limit; targets of TFDS have one, and count what is over it."
    from edgetpu_repro.data.boxes import ROWS, box_target
    from edgetpu_repro.data.coco import category_columns, coco_target, read_coco
    boxes = [(1, 7, [i % 90, i % 40, 5, 5]) for i in range(1200)]
    found = read_coco(coco_json(tmp_path, boxes), tmp_path)
    columns, _ = category_columns(found["categories"], 1)
    target = coco_target(found["images"][0], found["annotations"], columns)
    assert len(target["boxes"]) == len(target["columns"]) == 1200
    assert not found["problems"].counts
    ours = box_target(target["boxes"], target["columns"], (50, 100))
    assert int(ours["lost"]) == 1200 - ROWS
    assert int((ours["columns"] > 0).numpy().sum()) == ROWS


class Found:
    "A model that puts out given detections, one list of (box, class, score) a picture."
    def __init__(self, pictures): self.pictures = list(pictures)

    def predict_on_batch(self, images):
        rows, self.pictures = self.pictures[:len(images)], self.pictures[len(images):]
        boxes = np.zeros((len(rows), 5, 4), "float32")
        classes = np.zeros((len(rows), 5), "float32")
        scores = np.zeros((len(rows), 5), "float32")
        for i, found in enumerate(rows):
            for j, (box, column, score) in enumerate(found):
                boxes[i, j] = box
                classes[i, j] = column
                scores[i, j] = score
        return dict(
            detection_boxes=boxes,
            detection_classes=classes,
            detection_scores=scores,
            num_detections=np.array([len(found) for found in rows], "float32"),
        )


def evaluated(folder, path, pictures):
    "The metrics of given detections."
    from edgetpu_repro.data.input_range import InputRange
    from edgetpu_repro.measure.evaluate import evaluate_annotated
    from edgetpu_repro.measure.predict import ModelFile
    from edgetpu_repro.tasks.base import TASKS
    shapes = ((1, 5, 4), (1, 5), (1, 5), (1,))
    kinds = ("float32",) * 4
    path_and_model = Path("found.tflite"), Found(pictures)
    about = TASKS["detection"], InputRange()
    file = ModelFile(*path_and_model, (1, 32, 32, 3), shapes, kinds, *about)
    return evaluate_annotated(file, path, folder, batch_size=2)


RIGHT = ([0.2, 0.1, 0.6, 0.3], 0, 0.9)  # ymin, xmin, ymax, xmax of the box below
BOX = [10, 10, 20, 20]
TWO = (("a.png", 100, 50), ("b.png", 100, 50))


def test_a_picture_without_boxes_counts(tmp_path):
    path = coco_json(tmp_path, [(1, 7, BOX)], TWO)
    assert evaluated(tmp_path, path, [[RIGHT], []])["map"] == pytest.approx(1)
    wrong = ([0.5, 0.5, 0.9, 0.9], 0, 0.95)  # more sure than what is right
    result = evaluated(tmp_path, path, [[RIGHT], [wrong]])
    assert result["map"] == pytest.approx(0.5) and result["images"] == 2 and result["boxes"] == 1


def test_crowds_are_neither_right_nor_wrong(tmp_path):
    path = coco_json(tmp_path, [(1, 7, BOX), (1, 7, [50, 5, 40, 40])])
    content = json.loads(path.read_text())
    content["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    inside = ([0.2, 0.6, 0.4, 0.8], 0, 0.99)
    assert evaluated(tmp_path, path, [[RIGHT, inside]])["map"] == pytest.approx(1)
    content["annotations"][1]["iscrowd"] = 0
    path.write_text(json.dumps(content))
    assert evaluated(tmp_path, path, [[RIGHT, inside]])["map"] < 0.6


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    path = coco_json(tmp_path, [(1, 7, BOX), (2, 7, BOX)], TWO)
    (tmp_path / "b.png").write_bytes(b"no picture")
    result = evaluated(tmp_path, path, [[RIGHT]])
    problem, = result["problems"]
    assert result["images"] == 1 and "b.png" in problem


def test_wrong_number_of_classes(tmp_path):
    from edgetpu_repro.core.errors import UsageError
    from edgetpu_repro.data.coco import category_columns
    few = "the model has 3 classes, the annotations have 1 categories"
    with pytest.raises(UsageError, match=few):
        category_columns([dict(id=7, name="cup")], 3)
    with pytest.raises(UsageError, match="the model has 90 classes"):
        category_columns([dict(id=1, name="RBC"), dict(id=2, name="WBC")], 90)


def test_evaluate_wants_both_annotations_and_images(cli, tmp_path):
    model = tmp_path / "m.tflite"
    model.write_bytes(b"x" * 8)
    alone = ("--annotations", "x.json")
    both = (*alone, "--images", str(tmp_path))
    for given, said in ((alone, "--annotations needs --images"), (both, "x.json is not a file")):
        done = cli("evaluate", str(model), *given)
        assert done.returncode == 2 and said in done.stderr
        assert len(done.stderr.splitlines()) == 1


# ---- from the command line: train, evaluate, export, predict, benchmark ----

MODEL, TIMED = "small_detector", "spaghettinet_edgetpu_s"
SMALL = (
    "image_size=64",
    "train_images=16",
    "test_images=6",
    "epochs=2",
    "batch_size=8",
    "flip=true",
    "crop_area=[0.5,1]",
)


def answered(*words):
    "A command within this process, which has TensorFlow already."
    from edgetpu_repro.cli.main import answer
    assert answer([str(word) for word in words]) == 0, words


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A detector that has seen a few pictures of the embedded dataset."
    folder = tmp_path_factory.mktemp("detector")
    changes = [word for change in SMALL for word in ("--set", change)]
    training = ("train", "--experiment_type", SMALL_DETECTOR, "--profile", "smoke")
    answered(*training, "--model_dir", folder, *changes)
    return folder


def test_training_writes_the_curve_and_coco_metrics(trained):
    curve = json.loads((trained / "train.json").read_text())["numbers"]["curve"]
    assert len(curve) == 2
    assert {"box_encodings_loss", "class_logits_loss", "val_loss"} <= set(curve[0])
    numbers = json.loads((trained / "evaluate.json").read_text())["numbers"]
    assert {"map", "ap50", "ap75", "map_small", "map_medium", "map_large", "ar100"} <= set(numbers)
    assert numbers["images"] == 6
    assert len(numbers["ap"]) == 10
    assert numbers["boxes_left_out"] == 0


def test_a_training_may_start_from_a_detector_of_other_classes(trained, capfd):
    from edgetpu_repro.models.blocks import load_model
    from edgetpu_repro.models.specs import build_model
    from edgetpu_repro.tasks.detection import TASK
    ours, theirs = build_model(SMALL_DETECTOR, 3, 64), load_model(trained / f"{MODEL}.keras")
    assert TASK.initial_weights(ours, theirs) == [f"class{i}" for i in range(5)]
    for name in ("stem", "c0n4_0_projection", "box2", "class3_depthwise"):
        got = ours.get_layer(name).get_weights()[0]
        wanted = theirs.get_layer(name).get_weights()[0]
        assert np.array_equal(got, wanted)


def test_a_detector_trains_with_the_rounding_in_its_way(trained, cli, tmp_path):
    changes = [word for change in SMALL for word in ("--set", change)]
    done = cli("train", "--experiment_type", SMALL_DETECTOR, "--profile", "smoke",
               "--quantize_aware", "--start", trained / f"{MODEL}.keras", "--model_dir", tmp_path,
               *changes, "--set", "epochs=1")
    assert done.returncode == 0, done.stderr
    curve = json.loads((tmp_path / "train.json").read_text())["numbers"]["curve"]
    assert np.isfinite(curve[0]["loss"]) and len(curve) == 1
    reach = json.loads((tmp_path / f"{MODEL}.ranges.json").read_text())["ranges"]
    steps = np.array([(high - low) / 255 for low, high in reach.values()])
    done = cli("export", "--model_name", SMALL_DETECTOR, "--ckpt_path", tmp_path / f"{MODEL}.keras",
               "--output_dir", tmp_path, "--image_size", 64, "--num_classes", 10, "--quantize",
               "--num_calibration_steps", 4, "--allow_degraded",
               "--finalize_method", "none", "--finalize_method", "nms")
    assert done.returncode == 0, done.stderr
    for kind in ("int8", "nms_int8"):
        path = tmp_path / f"{MODEL}_{kind}.tflite"
        assert json.loads(path.with_name(f"{path.name}.json").read_text())["ranges"] == "file"
        inside = list(scales(FilePlaces(path).graph))
        assert len(inside) > 20
        for tensor, scale, _ in inside: assert np.abs(steps / scale - 1).min() < 1e-5, tensor


@pytest.fixture(scope="module")
def exported(trained, cli):
    "The files of that detector."
    datasets = os.environ.get("EDGETPU_REPRO_TFDS_DIR", ROOT / "build/data")
    common = (
        "export", "--model_name", SMALL_DETECTOR, "--ckpt_path", trained / f"{MODEL}.keras",
        "--output_dir", trained, "--image_size", 64,
        "--data_dir", datasets, "--dataset_name", "digit_scenes",
        "--num_calibration_steps", 4, "--allow_degraded",
    )
    both = ("--finalize_method", "none", "--finalize_method", "nms")
    first = cli(*common, "--quantize", *both, "--max_detections", 7, "--report")
    other = ("--quantizer", "aeq", "--recipe", "a16w8", "--rule", ":class0=float")
    second = cli(*common, *other, "--batch_size", 2, "--target", "cpu")
    assert first.returncode == second.returncode == 0, (first, second)
    return trained


def test_options_of_an_export_are_honoured(exported):
    from edgetpu_repro.tflite.file import read_labels
    cards = {}
    for path in exported.glob("*.tflite.json"):
        cards[path.name.removesuffix(".tflite.json")] = json.loads(path.read_text())
    assert set(cards) == {f"{MODEL}_int8", f"{MODEL}_nms_int8", f"{MODEL}_cpu_batch2_a16w8"}
    inside = cards[f"{MODEL}_nms_int8"]
    assert not any("DEQUANTIZE" in refused for refused in inside["refused_by_edgetpu"])
    assert inside["max_detections"] == 7
    assert inside["outputs"][0]["shape"] == [1, 7, 4]
    wide = cards[f"{MODEL}_cpu_batch2_a16w8"]
    assert wide["inputs"][0]["shape"][0] == 2
    assert wide["rules"] == [":class0=float"]
    assert "SPLIT" not in wide["operators"]
    assert (exported / f"{MODEL}_int8_layers.csv").exists()
    for name, card in cards.items():
        labels = read_labels((exported / f"{name}.tflite").read_bytes())
        assert labels == tuple("0123456789")
        assert 0 <= card["check"]["agreement"] <= 1
        assert card["check"]["sqnr_db"] > 5


def test_suppression_takes_one_picture_a_call(inside, trained):
    export = ("export", "--model_name", SMALL_DETECTOR, "--output_dir", trained / "no")
    done = inside(*export, "--image_size", 64, "--finalize_method", "nms", "--batch_size", 2)
    assert done.returncode == 2
    assert "takes one picture a call" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["int8", "nms_int8", "cpu_batch2_a16w8"])
def test_evaluate_takes_every_kind_of_file(cli, exported, tmp_path, kind):
    boxes = [(1, 7, [10, 10, 20, 20])]
    ten = coco_json(tmp_path, boxes, TWO, [(i, str(i)) for i in range(1, 11)])
    given, images = ("--profile", "smoke", "--set", "test_images=6"), 6
    if kind == "cpu_batch2_a16w8": given, images = ("--annotations", ten, "--images", tmp_path), 2
    done = cli("evaluate", exported / f"{MODEL}_{kind}.tflite", *given, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["suppression"] == ("in the file" if kind == "nms_int8" else "nms_regular")
    assert result["images"] == images


def test_predict_draws_boxes(cli, exported, tmp_path):
    from PIL import Image
    picture, model = tmp_path / "white.png", exported / f"{MODEL}_nms_int8.tflite"
    Image.new("RGB", (80, 60), "white").save(picture)
    done = cli("predict", model, picture, "--output_dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    answer, = json.loads(done.stdout)
    assert answer["detections"].endswith("white_detections.png")
    assert Image.open(answer["detections"]).size == (80, 60)
    for box in answer["boxes"]:
        assert set(box) == {"class", "name", "score", "box"}
        assert box["name"] in "0123456789"


def test_a_detector_is_timed_by_name_with_its_suppression(cli):
    quick = ("--image_size", 64, "--min_runs", 3, "--seconds", 0, "--max_seconds", 0.5, "--json")
    done = cli("benchmark", TIMED, *quick, "--finalize_method", "nms")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[TIMED]["latency_ms"] > 0
