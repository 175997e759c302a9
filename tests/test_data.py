"The embedded dataset: whole, deterministic, and without a digit that two splits share."
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from edgetpu_repro.core import Paths, UsageError
from edgetpu_repro.data import SCENES, DigitScenes, batches, dataset_builder, load_images, num_classes, scene, source_digits


@pytest.fixture(scope="module")
def builder():
    "The prepared dataset of the checkout; made on the first call."
    return dataset_builder(data_dir=Paths("smoke").data)


def test_splits_share_no_source_digit():
    images, labels, deal = source_digits()
    ids = np.concatenate(list(deal.values()))
    assert sorted(ids) == list(range(len(labels))) == list(range(1797))
    assert all(len(set(labels[chosen])) == 10 for chosen in deal.values())


def test_scenes_are_deterministic_and_agree_with_their_boxes():
    images, labels, deal = source_digits()
    for i in range(50):
        a, b = (scene(np.random.default_rng([0, i]), images[deal["train"]], labels[deal["train"]]) for _ in range(2))
        assert all(np.array_equal(a[k], b[k]) for k in ("image", "segmentation_mask")) and a["objects"] == b["objects"]
        assert a["label"] == a["objects"][0][1]
        inside = np.zeros((128, 128), bool)
        for (top, left, bottom, right), label in a["objects"]:
            box = a["segmentation_mask"][top:bottom, left:right]
            assert (box == label + 1).any() and box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
            inside[top:bottom, left:right] = True
        assert not a["segmentation_mask"][~inside].any()


def test_tfds_reads_what_the_builder_wrote(builder):
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == SCENES
    examples = list(tfds.load("digit_scenes", split="test[:20]", data_dir=Paths("smoke").data).as_numpy_iterator())
    images, labels, deal = source_digits()
    for i, example in enumerate(examples):
        made = scene(np.random.default_rng([2, i]), images[deal["test"]], labels[deal["test"]])
        assert example["label"] == made["label"]
        assert np.array_equal(example["segmentation_mask"], made["segmentation_mask"])
        assert np.abs(example["image"].astype(int) - made["image"]).mean() < 4 # JPEG
        boxes = np.array([box for box, _ in made["objects"]]) / 128
        np.testing.assert_allclose(example["objects"]["bbox"], boxes, atol=1e-6)


def test_a_changed_source_file_is_noticed(tmp_path, monkeypatch):
    fake = tmp_path / "digits.csv.gz"
    fake.write_bytes(b"not the digits")
    monkeypatch.setattr("edgetpu_repro.data.DIGITS_FILE", str(fake))
    with pytest.raises(NonMatchingChecksumError):
        DigitScenes(data_dir=tmp_path / "data").download_and_prepare()


def test_wrong_names(builder, tmp_path):
    with pytest.raises(UsageError, match="unknown split 'valid'"): load_images(builder, "valid", 32)
    with pytest.raises(UsageError, match="digit_scene'; did you mean 'digit_scenes'"): dataset_builder("digit_scene")
    with pytest.raises(UsageError, match="not prepared"): dataset_builder("cifar10", tmp_path)


def test_any_tfds_dataset_takes_the_place_of_the_embedded_one():
    "On real CIFAR-10, where it lies beside the project."
    folder = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data")) / "tfds"
    if not (folder / "cifar10").is_dir(): pytest.skip("CIFAR-10 is not beside the project; set EDGETPU_REPRO_DATA to its folder")
    cifar = dataset_builder("cifar10", folder)
    images = load_images(cifar, "test", 64, limit=32)
    x, y = next(iter(batches(images, 32)))
    assert num_classes(cifar) == 10 and x.shape == (32, 64, 64, 3) and set(np.asarray(y)) <= set(range(10))
