"Scores of each class, what is mistaken for what, and how long it still takes."
import csv
import io
import json
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT  # noqa: F401 (sets the environment of Keras)
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.show.classes import SHOWN, class_lines, draw_classes, mistakes, write_classes
from edgetpu_repro.tasks.base import TASKS
from edgetpu_repro.tasks.classification import class_scores, count_pairs
from edgetpu_repro.tflite.export import steps
from edgetpu_repro.train import loop

NAMES = ("cat", "dog", "cow", "owl")


@pytest.fixture
def guesses():
    "Labels of four classes, the last of which never occurs, and what was predicted."
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, 60), rng.integers(0, 4, 60)


def test_scores_are_scikit_learns(guesses):
    counts = count_pairs(*guesses, 4)
    assert (counts == confusion_matrix(*guesses, labels=range(4))).all()
    wanted = precision_recall_fscore_support(*guesses, labels=range(3), zero_division=0)
    for i, row in enumerate(class_scores(counts, NAMES)[:3]):
        got = row["precision"], row["recall"], row["f1"], row["images"]
        assert got == pytest.approx([values[i] for values in wanted])
    owl = class_scores(counts, NAMES)[3]
    assert owl["recall"] is None and owl["precision"] == 0 and owl["images"] == 0


def test_evaluation_in_detail(guesses):
    labels, predicted = guesses
    batch = [(np.zeros((60, 8, 8, 3)), labels)]
    task, answer = TASKS["classification"], lambda x: np.eye(4)[predicted]
    plain, detailed = (task.evaluate(answer, batch, NAMES, None, d) for d in (False, True))
    assert set(detailed) - set(plain) == {"per_class", "confusion"}, "records stay as they are"
    counts = np.array(detailed["confusion"])
    assert counts.sum() == 60 and counts.trace() / 60 == plain["top1"]
    with pytest.raises(UsageError, match="do not fit a model of 4 classes"):
        task.evaluate(answer, [(batch[0][0], labels + 5)], NAMES, None, True)


def test_top5_of_three_classes_says_nothing():
    result = dict(top1=0.5, top5=1.0, images=4)
    headline = TASKS["classification"].headline
    assert headline(dict(result, classes=3)) == "top-1 50.00% of 4 images"
    assert "top-5 100.00%" in headline(dict(result, classes=10))


def test_masks_in_detail():
    task, masks = TASKS["segmentation"], np.array([[[0, 0, 1, 255]]])
    batch = [(np.zeros((1, 1, 4, 3)), masks)]
    guess = lambda x: np.array([[[0, 1, 1, 1]]])
    result = task.evaluate(guess, batch, ("sky", "sea"), "none", True)
    sky, sea = result["per_class"]
    assert (sky["iou"], sky["pixels"], sky["recall"]) == (0.5, 2, 0.5)
    assert (sea["iou"], sea["precision"], sea["recall"]) == (0.5, 0.5, 1)
    assert result["confusion"] == [[1, 1], [0, 1]]


def test_many_classes_show_the_worst():
    rows = [{"class": f"c{i}", "images": 1, "precision": 1.0, "recall": i / 100, "f1": i / 100}
            for i in range(100)]
    head, _, first, *_ = lines = list(class_lines(rows))
    assert "100 classes" in head and len(lines) == SHOWN + 2 and first.startswith("c0 ")
    assert mistakes(np.eye(3), NAMES) == [] and mistakes([[0, 2], [1, 0]], NAMES) == [
        (2, "cat", "dog"), (1, "dog", "cat")]


@pytest.mark.parametrize("count", [3, 30, 120])
def test_files_of_an_evaluation(tmp_path, count):
    "Names may hold what matplotlib and CSV take for their own."
    names = ["a,b", "$x_{", "two\nlines", *map(str, range(count - 3))]
    counts = np.eye(count, dtype=int)
    result = dict(per_class=class_scores(counts, names), confusion=counts.tolist())
    table, matrix, picture = write_classes(result, tmp_path, "m")
    with open(table, newline="") as f: assert [r["class"] for r in csv.DictReader(f)] == names
    with open(matrix, newline="") as f: assert len(list(csv.reader(f))) == count + 1
    assert min(Image.open(picture).size) > 300


def test_boxes_are_bars():
    rows = [{"class": "cat", "boxes": 3, "ap": 0.5}, {"class": "cow", "boxes": 0, "ap": None}]
    assert len(draw_classes(dict(per_class=rows)).axes[0].patches) == 2


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    "A Keras model that tells bright from dark, and pictures of both in folders."
    folder = tmp_path_factory.mktemp("photographs")
    inputs = keras.Input((32, 32, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(2, activation="softmax", name="classifier")
    model = keras.Model(inputs, dense(mean), name="light")
    dense.set_weights([np.array([[4, -4]] * 3, "float32"), np.zeros(2, "float32")])
    model.save(folder / "light.keras")
    for name, value in (("bright", 220), ("dark", 30)):
        for i in range(3):
            shade = 255 - value if (name, i) == ("dark", 0) else value
            for split, side in (("train", 40), ("test", 44)):
                path = folder / "pictures" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (side, 36 + i), (shade,) * 3).save(path)
    return folder


def test_evaluate_says_what_it_wrote(cli, photographs):
    words = ("evaluate", photographs / "light.keras", "--images", photographs / "pictures")
    out = photographs / "out"
    done = cli(*words, "--output_dir", out, "--output", out / "record.json")
    assert done.returncode == 0, done
    for word in ("bright", "dark", "precision", "recall", "dark for bright 1"):
        assert word in done.stdout, done.stdout
    assert all(str(p) in done.stdout for p in out.iterdir()) and len(list(out.iterdir())) == 4
    answer = json.loads(cli(*words, "--json").stdout)
    assert answer["confusion"] == [[3, 0], [1, 2]]
    assert [row["recall"] for row in answer["per_class"]] == pytest.approx([1, 2 / 3])
    assert "confusion" not in json.loads((out / "record.json").read_text())["numbers"]


class Terminal(io.StringIO):
    "What a user looks at."
    def isatty(self): return True


@pytest.mark.parametrize("screen, shown", [(Terminal, True), (io.StringIO, False)])
def test_bars_are_for_terminals(monkeypatch, screen, shown):
    monkeypatch.setattr(sys, "stderr", screen())
    with steps(2) as step:
        step("converting")
        step("comparing")
    training = type("Training", (), dict(steps=8, settings=type("S", (), dict(epochs=2))))
    with loop._shown(training, 4, 2) as (verbose, callbacks):
        assert verbose == (0 if shown else 2) and len(callbacks) == shown
        for bar in callbacks:
            bar.on_train_batch_end(0, dict(loss=1.0))
            bar.on_epoch_end(0, dict(loss=1.0))
    said = sys.stderr.getvalue()
    assert ("comparing" in said and "5/8" in said) if shown else not said
