"A fourth task is one class: depth, where digits stand in front; trained, exported, used."
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import DataSettings, TrainSettings
from edgetpu_repro.data.datasets import batches, open_dataset
from edgetpu_repro.measure.evaluate import evaluate_model
from edgetpu_repro.measure.predict import open_model, predict_pictures
from edgetpu_repro.tasks.base import TASKS, OutputInfo, Prediction, Task, sqnr_db, task_of_model
from edgetpu_repro.tasks.base import variants_of
from edgetpu_repro.tasks.plans import Plan
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.options import ExportOptions
from edgetpu_repro.train.loop import train_model

SIZE = 64


class Depth(Task):
    "Metres for each pixel, (n, height, width, 1): 1 for what a digit covers, 2 for the ground."
    name, metric, unit, drawn = "depth", "error", "pixels", "depth"
    features, plan = ("image", "segmentation_mask"), Plan(("", "halved"), ("halved",))

    def label_names(self, dataset): return ("metres",)
    def classes(self, shapes, dtypes=()): return 1
    def matches(self, shapes, dtypes=()): return len(shapes) == 1 and shapes[0][3:] == (1,)
    def variants(self, hw): return {"": "none", "halved": "halved"}
    def check_finalize(self, method, hw): return method or "none"
    def loss(self, model, train): return "mae"
    def headline(self, result): return f"{result['error']:.2f} m"

    def samples(self, dataset, split, limit=None, encoded=False):
        def example(x):
            mask = tf.image.resize(x["segmentation_mask"], dataset.hw, "nearest")
            return dataset.resize(x["image"]), tf.where(mask > 0, 1.0, 2.0)

        return dataset.split(split, self.features, limit).map(example)

    def finalize(self, outputs, method, argmax=None):
        return outputs[:, ::2, ::2] if method == "halved" else outputs

    def output_infos(self, shapes, dtypes): return [OutputInfo("depth in metres", labels="")]

    def compare(self, wanted, got):
        return dict(agreement=float((abs(wanted - got) < 0.1).mean()), sqnr_db=sqnr_db(wanted, got))

    def evaluate(self, predict, batches, names, method=None, details=False):
        errors = [abs(predict(images) - np.asarray(truth)).mean() for images, truth in batches]
        return dict(error=float(np.mean(errors)), images=len(errors))

    def show(self, picture, output, names, top=5, hw=None):
        return Prediction(dict(nearest=float(output.min())), f"from {output.min():.2f} m on")


@pytest.fixture(scope="module")
def depth():
    "The task, known for these tests."
    yield TASKS.add(Depth())
    del TASKS.added["depth"]


@pytest.fixture(scope="module")
def made(depth, tmp_path_factory):
    "A model of it, trained a little; the data; a folder with its files, and their cards."
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 5, padding="same", activation="relu")(image)
    model = keras.Model(image, layers.Conv2D(1, 5, padding="same")(x), name="tiny_depth")
    folder = tmp_path_factory.mktemp("depth")
    dataset = open_dataset(DataSettings(name="digit_scenes", image_size=SIZE))
    train = TrainSettings(epochs=3, batch_size=8, learning_rate=0.02, warmup_epochs=0)
    history = train_model(model, depth.samples(dataset, "train", 32), train, 0,
                          folder / "depth.keras", verbose=0)
    options = ExportOptions(("none", "halved"), labels=("metres",), trained=True)
    done = export_model(model, folder, dataset.calibration(16), options)
    return model, history, dataset, dict((path.name, card) for path, card in done), folder


def test_a_model_of_it_is_told_and_trains(made, depth):
    model, history, *_ = made
    assert task_of_model(model) is depth and list(TASKS)[0] == "depth"
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_int8_files_check_themselves_by_its_comparison(made):
    *_, cards, _ = made
    assert set(cards) == {"tiny_depth_int8.tflite", "tiny_depth_halved_int8.tflite"}
    for card in cards.values():
        assert card["check"]["agreement"] > 0.95 and not card["degraded"]
        assert card["inputs"][0]["dtype"] == "int8" and "float_error" in card["check"]
    sides = [card["outputs"][0]["shape"][1] for card in cards.values()]
    assert sides == [SIZE, SIZE // 2]


def test_files_say_what_it_says_of_them(made):
    *_, folder = made
    file = TFLiteFile.open(folder / "tiny_depth_int8.tflite")
    assert file.output_names == ("depth in metres",) and file.signature
    assert json.loads((folder / "tiny_depth_int8.tflite.json").read_text())["model"] == "tiny_depth"


def test_evaluation_and_prediction_take_both_kinds_of_file(made, depth):
    _, history, dataset, _, folder = made
    found = {}
    for name in ("depth.keras", "tiny_depth_int8.tflite"):
        file = open_model(folder / name)
        assert file.task is depth
        found[name] = evaluate_model(file, dataset.settings, batch_size=16)["error"]
    assert found["depth.keras"] < history[0]["loss"] / 2
    assert found["tiny_depth_int8.tflite"] == pytest.approx(found["depth.keras"], abs=0.02)
    image = np.asarray(next(iter(batches(depth.samples(dataset, "test", 1), 1)))[0])[0]
    path = folder / "a.png"
    keras.utils.save_img(path, (image + 1) * 127.5, scale=False)
    ((_, answer, _),) = predict_pictures(file, [path])
    assert answer.line.startswith("from ") and answer.values["nearest"] < 2


def test_the_workflow_plans_by_it(depth):
    assert variants_of("depth").timed == ("halved",)
    assert depth.timed_variants((8, 8)) == {"halved": "halved"}


def test_it_may_be_asked_for_by_name_and_goes_again(depth):
    from edgetpu_repro.tasks.outputs import Outputs, kinds, task_of
    assert "depth" in kinds()
    found = Outputs(((1, 8, 8, 1),), ("float32",), hw=(8, 8))
    assert task_of(found, "depth") is depth and task_of(found) is depth
    with pytest.raises(UsageError, match="is no classification"): task_of(found, "classification")
