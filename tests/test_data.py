"The embedded dataset: whole, deterministic, and without a digit that two splits share."

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import ROOT
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.files import data_folder
from edgetpu_repro.core.settings import DataSettings
from edgetpu_repro.data.ade20k import Ade20k
from edgetpu_repro.data.datasets import (
    Dataset,
    batches,
    dataset_builder,
    open_dataset,
    training_batches,
)
from edgetpu_repro.data.digit_scenes import SCENES, DigitScenes, scene, source_digits
from edgetpu_repro.tasks.base import TASKS
from edgetpu_repro.tasks.segmentation import load_masks

CLASSIFICATION, SEGMENTATION = TASKS["classification"], TASKS["segmentation"]


def opened(builder, **fields):
    "A prepared dataset under settings."
    return Dataset(DataSettings(name=builder.name, **fields), builder)


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
        a, b = (
            scene(np.random.default_rng([0, i]), images[deal["train"]], labels[deal["train"]])
            for _ in range(2)
        )
        assert (
            all(np.array_equal(a[k], b[k]) for k in ("image", "segmentation_mask"))
            and a["objects"] == b["objects"]
        )
        assert a["label"] == a["objects"][0][1]
        inside = np.zeros((128, 128), bool)
        for (top, left, bottom, right), label in a["objects"]:
            box = a["segmentation_mask"][top:bottom, left:right]
            assert (
                (box == label + 1).any()
                and box[0].any()
                and box[-1].any()
                and box[:, 0].any()
                and box[:, -1].any()
            )
            inside[top:bottom, left:right] = True
        assert not a["segmentation_mask"][~inside].any()


def test_tfds_reads_what_the_builder_wrote(builder):
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == SCENES
    examples = list(
        tfds.load("digit_scenes", split="test[:20]", data_dir=data_folder()).as_numpy_iterator()
    )
    images, labels, deal = source_digits()
    for i, example in enumerate(examples):
        made = scene(np.random.default_rng([2, i]), images[deal["test"]], labels[deal["test"]])
        assert example["label"] == made["label"]
        assert np.array_equal(example["segmentation_mask"], made["segmentation_mask"])
        assert np.abs(example["image"].astype(int) - made["image"]).mean() < 4  # JPEG
        boxes = np.array([box for box, _ in made["objects"]]) / 128
        np.testing.assert_allclose(example["objects"]["bbox"], boxes, atol=1e-6)


def test_a_changed_source_file_is_noticed(tmp_path, monkeypatch):
    fake = tmp_path / "digits.csv.gz"
    fake.write_bytes(b"not the digits")
    monkeypatch.setattr("edgetpu_repro.data.digit_scenes.DIGITS_FILE", str(fake))
    with pytest.raises(NonMatchingChecksumError):
        DigitScenes(data_dir=tmp_path / "data").download_and_prepare()


def test_wrong_names(builder, tmp_path):
    with pytest.raises(UsageError, match="unknown split 'valid'"):
        CLASSIFICATION.samples(opened(builder), "valid")
    with pytest.raises(UsageError, match="digit_scene'; did you mean 'digit_scenes'"):
        dataset_builder("digit_scene")
    with pytest.raises(UsageError, match="not prepared"):
        dataset_builder("cifar10", tmp_path)


def test_any_tfds_dataset_takes_the_place_of_the_embedded_one():
    "On real CIFAR-10, where it lies beside the project."
    folder = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data")) / "tfds"
    if not (folder / "cifar10").is_dir():
        pytest.skip("CIFAR-10 is not beside the project; set EDGETPU_REPRO_DATA to its folder")
    cifar = open_dataset(DataSettings(name="cifar10", data_dir=str(folder), image_size=64))
    x, y = next(iter(batches(CLASSIFICATION.samples(cifar, "test", 32), 32)))
    assert CLASSIFICATION.label_names(cifar)[3] == "cat"
    assert x.shape == (32, 64, 64, 3) and set(np.asarray(y)) <= set(range(10))


def ade_tree(top, masks, folder="training"):
    "ADEChallengeData2016 as it is unpacked: a photograph and a mask for each of `masks`."
    for i, mask in enumerate(masks):
        for kind, picture, ending in (
            ("images", np.full((48, 64, 3), 9 * i, "uint8"), "jpg"),
            ("annotations", mask, "png"),
        ):
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
    rows, columns = (
        (2 * np.arange(32) + 1) * 48 // 64,
        (2 * np.arange(64) + 1) * 64 // 128,
    )  # nearest pixels of 32 x 64
    for labels, keeps in (("ade20k_32", 32), ("ade20k", 151)):
        _, mask = next(
            iter(load_masks(opened(made, image_size=(32, 64), mask_labels=labels), "validation"))
        )
        assert np.array_equal(mask, np.where((ids > 0) & (ids < keeps), ids, 255)[rows][:, columns])


def test_ade20k_without_its_files(tmp_path):
    with pytest.raises(UsageError, match="holds no .jpg"):
        prepare_ade(tmp_path)
    ade_tree(tmp_path, [np.zeros((48, 64), "uint8")])
    (tmp_path / "ADEChallengeData2016/annotations/training/ADE_training_00000000.png").unlink()
    with pytest.raises(UsageError, match="has no mask"):
        prepare_ade(tmp_path)


def test_masks_that_do_not_fit_are_said_in_words(tmp_path, builder):
    ade_tree(tmp_path, [np.zeros((48, 60), "uint8")])
    ade_tree(tmp_path, [np.full((48, 64), 200, "uint8")], "validation")
    made = opened(prepare_ade(tmp_path), image_size=32, mask_labels="ade20k_32")

    def guess(images):
        return np.ones(images.shape[:3], int)

    def evaluated(split):
        with made.reading():
            return SEGMENTATION.evaluate(
                guess, batches(load_masks(made, split), 1), SEGMENTATION.label_names(made)
            )

    with pytest.raises(
        UsageError, match="^bad example in ade20k: image of 48x64 pixels has a mask of 48x60$"
    ):
        evaluated("train")
    with pytest.raises(UsageError, match="label 200 is none of 32 classes"):
        evaluated("validation")
    with pytest.raises(UsageError, match="'train\\[:0\\]' of dataset 'digit_scenes' is empty"):
        load_masks(opened(builder), "train[:0]")


class ColourMasks(tfds.core.GeneratorBasedBuilder):
    "A dataset whose masks are colour pictures."

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = lambda: tfds.features.Image(shape=(8, 8, 3))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(dict(image=image(), segmentation_mask=image())),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield (
            0,
            dict(
                image=np.zeros((8, 8, 3), "uint8"), segmentation_mask=np.zeros((8, 8, 3), "uint8")
            ),
        )


def test_masks_have_one_channel(tmp_path):
    made = ColourMasks(data_dir=tmp_path)
    made.download_and_prepare()
    with pytest.raises(UsageError, match="masks of dataset 'colour_masks' have 3 channels"):
        load_masks(opened(made, mask_labels="ade20k"), "train")
    with pytest.raises(UsageError, match="has no label; it has image, segmentation_mask"):
        CLASSIFICATION.samples(opened(made), "train")


def test_camvid():
    "Real photographs, where they lie beside the project."
    folder = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data")) / "tfds"
    if not (folder / "camvid").is_dir():
        pytest.skip("CamVid is not beside the project; set EDGETPU_REPRO_DATA to its folder")
    camvid = open_dataset(DataSettings(name="camvid", data_dir=str(folder), image_size=(192, 256)))
    names = SEGMENTATION.label_names(camvid)
    images, masks = next(iter(batches(load_masks(camvid, "test", limit=8), 8)))
    assert images.shape == (8, 192, 256, 3) and set(np.unique(masks)) <= {*range(11), 255}
    always_road = SEGMENTATION.evaluate(lambda x: np.full(x.shape[:3], 3), [(images, masks)], names)
    assert 0.1 < always_road["pixel_accuracy"] < 0.5 and always_road["iou"]["sky"] == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A small sound dataset of the embedded kind, to be damaged in copies."
    folder = tmp_path_factory.mktemp("whole")
    few = tfds.download.DownloadConfig(max_examples_per_split=6)
    DigitScenes(data_dir=folder).download_and_prepare(download_config=few)
    return folder


def flip(content):
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


def first_records(content):  # cut between two records, where no checksum is wrong
    length = int.from_bytes(content[:8], "little")
    return content[: 12 + length + 4]


DAMAGE = {  # what is done to which file: what is said
    "changed": ("*train.tfrecord*", flip, "train.tfrecord-00000-of-00001 is damaged"),
    "cut": (
        "*train.tfrecord*",
        lambda c: c[: len(c) // 2],
        "train.tfrecord-00000-of-00001 is damaged",
    ),
    "cut between examples": ("*train.tfrecord*", first_records, "holds 1 of 6 examples"),
    "empty": ("*train.tfrecord*", lambda c: b"", "train.tfrecord-00000-of-00001 is empty"),
    "missing": ("*train.tfrecord*", lambda c: None, "train.tfrecord-00000-of-00001 is missing"),
    "info cut": ("dataset_info.json", lambda c: c[:50], "dataset_info.json is damaged"),
    "info empty": ("dataset_info.json", lambda c: b"", "dataset_info.json is damaged"),
    "info a list": ("dataset_info.json", lambda c: b"[]", "dataset_info.json is damaged"),
    "info of another kind": (
        "dataset_info.json",
        lambda c: b'{"splits": 3}',
        "dataset_info.json is damaged",
    ),
    "info missing": ("dataset_info.json", lambda c: None, "dataset_info.json is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_said_with_the_file_and_what_makes_it_anew(whole, tmp_path, kind):
    pattern, change, words = DAMAGE[kind]
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.rglob(pattern)
    content = change(path.read_bytes())
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError) as said:
        scenes = open_dataset(DataSettings(data_dir=str(tmp_path)))
        with scenes.reading():
            list(batches(CLASSIFICATION.samples(scenes, "train"), 4))
    assert (
        words in str(said.value)
        and f"delete {path.parent}" in str(said.value)
        and "\n" not in str(said.value)
    )


def test_damage_is_said_within_training(whole, tmp_path):
    import keras
    from edgetpu_repro.core.settings import TrainSettings
    from edgetpu_repro.train.loop import train_model

    shutil.copytree(whole, tmp_path / "data")
    (path,) = (tmp_path / "data").rglob("*train.tfrecord*")
    path.write_bytes(flip(path.read_bytes()))
    scenes = open_dataset(DataSettings(data_dir=str(tmp_path / "data"), image_size=32))
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(10, "softmax")(x))
    with (
        pytest.raises(UsageError, match="train.tfrecord-00000-of-00001 is damaged"),
        scenes.reading(),
    ):
        train_model(
            model,
            CLASSIFICATION.samples(scenes, "train"),
            TrainSettings(batch_size=2),
            0,
            tmp_path / "m.keras",
            0,
        )
    assert not list(tmp_path.glob("*.keras")), "nothing half-trained is left"


def test_preparing_says_one_line_where_there_is_no_terminal(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        "edgetpu_repro.data.digit_scenes.SCENES", dict(train=2, validation=1, test=1)
    )
    dataset_builder("digit_scenes", tmp_path)
    said = [
        line
        for line in capfd.readouterr().err.splitlines()
        if "absl" not in line and not line.startswith(("I0", "W0"))
    ]
    assert len(said) == 1 and said[0].startswith("preparing digit_scenes in "), said


def test_targets_may_be_boxes():
    "A task with several targets of one picture goes through the same batches."
    boxes = np.arange(48, dtype="float32").reshape(4, 3, 4)
    examples = (
        (np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3) % 256).astype("uint8"),
        dict(boxes=boxes, labels=np.arange(12).reshape(4, 3)),
    )
    images = tf.data.Dataset.from_tensor_slices(examples)

    def mirrored(image, target, seed):
        return image[:, ::-1], dict(target, boxes=-target["boxes"])

    def doubled(image, target):
        return image, dict(target, labels=2 * target["labels"])

    x, y = next(iter(training_batches(images, 2, 0, mirrored, encode=doubled)))
    assert (
        x.shape == (2, 8, 8, 3)
        and y["boxes"].shape == (2, 3, 4)
        and (y["boxes"].numpy() <= 0).all()
    )
    assert (y["labels"].numpy() % 2 == 0).all()
    _, plain = next(iter(batches(images, 4, doubled)))
    np.testing.assert_array_equal(plain["labels"], 2 * examples[1]["labels"])


def test_an_example_is_made_once_however_often_it_is_mapped():
    from edgetpu_repro.data.arrays import Examples
    made = []
    pairs = Examples(lambda i: made.append(i) or (i, i), 3)
    assert pairs.map(lambda a, b: a + b + 1).map(lambda x: 2 * x)[1] == 6
    assert made == [1]
