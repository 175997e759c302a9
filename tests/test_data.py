"The embedded dataset: whole, deterministic, and without a digit that two splits share."
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from PIL import Image

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.files import data_folder
from edgetpu_repro.data.labels import MASK_LABELS
from edgetpu_repro.data.ade20k import Ade20k
from edgetpu_repro.data.digit_scenes import SCENES, DigitScenes, scene, source_digits
from edgetpu_repro.data.datasets import batches, dataset_builder, load_images, num_classes
from edgetpu_repro.data.masks import load_masks
from edgetpu_repro.measure.evaluate import evaluate_segmenter


@pytest.fixture(scope="module")
def builder():
    "The prepared dataset of the checkout; made on the first call."
    return dataset_builder(data_dir=data_folder())


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
    examples = list(tfds.load("digit_scenes", split="test[:20]", data_dir=data_folder()).as_numpy_iterator())
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
    monkeypatch.setattr("edgetpu_repro.data.digit_scenes.DIGITS_FILE", str(fake))
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


def ade_tree(top, masks, folder="training"):
    "ADEChallengeData2016 as it is unpacked: a photograph and a mask of class ids for each of `masks`."
    for i, mask in enumerate(masks):
        for kind, picture, ending in (("images", np.full((48, 64, 3), 9 * i, "uint8"), "jpg"), ("annotations", mask, "png")):
            path = top / "ADEChallengeData2016" / kind / folder / f"ADE_{folder}_{i:08d}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def prepare_ade(tmp_path):
    "Ade20k over the tree in `tmp_path`, prepared."
    made = Ade20k(data_dir=tmp_path / "tfds")
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path))
    return dataset_builder("ade20k", tmp_path / "tfds")


def test_ade20k_with_32_classes(tmp_path):
    ids = np.arange(48 * 64, dtype="int64").reshape(48, 64) % 151
    ade_tree(tmp_path, [ids.astype("uint8"), np.full((48, 64), 31, "uint8")])
    ade_tree(tmp_path, [ids.astype("uint8")], "validation")
    made = prepare_ade(tmp_path)
    assert {k: v.num_examples for k, v in made.info.splits.items()} == {"train": 2, "validation": 1}
    original = next(iter(made.as_dataset(split="validation")))["segmentation_mask"].numpy()[..., 0]
    assert np.array_equal(original, ids)
    rows, columns = (2 * np.arange(32) + 1) * 48 // 64, (2 * np.arange(64) + 1) * 64 // 128 # nearest pixels of 32 x 64
    for labels, keeps in (("ade20k_32", 32), ("ade20k", 151)):
        _, mask = next(iter(load_masks(made, "validation", (32, 64), MASK_LABELS[labels])))
        assert np.array_equal(mask, np.where((ids > 0) & (ids < keeps), ids, 255)[rows][:, columns])


def test_ade20k_without_its_files(tmp_path):
    with pytest.raises(UsageError, match="holds no .jpg"): prepare_ade(tmp_path)
    ade_tree(tmp_path, [np.zeros((48, 64), "uint8")])
    (tmp_path / "ADEChallengeData2016/annotations/training/ADE_training_00000000.png").unlink()
    with pytest.raises(UsageError, match="has no mask"): prepare_ade(tmp_path)


def test_masks_that_do_not_fit_are_said_in_words(tmp_path, builder):
    ade_tree(tmp_path, [np.zeros((48, 60), "uint8")])
    ade_tree(tmp_path, [np.full((48, 64), 200, "uint8")], "validation")
    made, labels = prepare_ade(tmp_path), MASK_LABELS["ade20k_32"]
    guess = lambda images: np.ones(images.shape[:3], int)
    with pytest.raises(UsageError, match="^bad example in ade20k: image of 48x64 pixels has a mask of 48x60$"):
        evaluate_segmenter(guess, batches(load_masks(made, "train", 32, labels), 1), labels.names)
    with pytest.raises(UsageError, match="label 200 is none of 32 classes"):
        evaluate_segmenter(guess, batches(load_masks(made, "validation", 32, labels), 1), labels.names)
    with pytest.raises(UsageError, match="'train\\[:0\\]' of dataset 'digit_scenes' is empty"):
        load_masks(builder, "train[:0]", 32, MASK_LABELS["digit_scenes"])


class ColourMasks(tfds.core.GeneratorBasedBuilder):
    "A dataset whose masks are colour pictures."
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        image = lambda: tfds.features.Image(shape=(8, 8, 3))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(image=image(), segmentation_mask=image())))
    def _split_generators(self, dl_manager): return {"train": self._generate_examples()}
    def _generate_examples(self): yield 0, dict(image=np.zeros((8, 8, 3), "uint8"), segmentation_mask=np.zeros((8, 8, 3), "uint8"))


def test_masks_have_one_channel(tmp_path):
    made = ColourMasks(data_dir=tmp_path)
    made.download_and_prepare()
    with pytest.raises(UsageError, match="masks of dataset 'colour_masks' have 3 channels"):
        load_masks(made, "train", 32, MASK_LABELS["ade20k"])
    with pytest.raises(UsageError, match="has no label; it has image, segmentation_mask"):
        load_images(made, "train", 32)


def test_camvid():
    "Real photographs, where they lie beside the project."
    folder = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data")) / "tfds"
    if not (folder / "camvid").is_dir(): pytest.skip("CamVid is not beside the project; set EDGETPU_REPRO_DATA to its folder")
    labels = MASK_LABELS["camvid"]
    images, masks = next(iter(batches(load_masks(dataset_builder("camvid", folder), "test", (192, 256), labels, limit=8), 8)))
    assert images.shape == (8, 192, 256, 3) and set(np.unique(masks)) <= {*range(11), 255}
    always_road = evaluate_segmenter(lambda x: np.full(x.shape[:3], 3), [(images, masks)], labels.names)
    assert 0.1 < always_road["pixel_accuracy"] < 0.5 and always_road["iou"]["sky"] == 0
