"Folders of pictures as people have them: every layout, every odd file, what is refused and how."
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import DataSettings
from edgetpu_repro.data.coco import category_columns, read_coco
from edgetpu_repro.data.datasets import batches, open_dataset, training_batches
from edgetpu_repro.data.folders import numbered_as, open_folder
from edgetpu_repro.data.picture_folder import fingerprint, read_mask, rows_of
from edgetpu_repro.data.pictures import find_pictures, plain_bytes, read_picture, upright_bytes
from edgetpu_repro.tasks.base import TASKS
from edgetpu_repro.train.experiments import UNKNOWN, experiment, set_data_fields, set_fields

quick = pytest.mark.quick
CLASSIFICATION, SEGMENTATION = TASKS["classification"], TASKS["segmentation"]
ORIENTATION = 0x0112


def noise(seed, size=(10, 14)):
    "Pixels that no other seed has."
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), "uint8")


def photos(top, *places, start=0, **how):
    "Pictures of noise at places below a folder."
    for i, place in enumerate(places, start):
        path = Path(top) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i)).save(path, **how)
    return Path(top)


def many(*folders, count=5, ending="png"):
    "Places of pictures in folders."
    return [f"{folder}/{i}.{ending}" for folder in folders for i in range(count)]


# ---- a class a folder ----


@quick
def test_a_folder_a_class_is_split_by_a_seed(tmp_path):
    photos(tmp_path, *many("cat", "dog", "eel"))
    found = open_folder(tmp_path)
    assert found.names == ("cat", "dog", "eel") and found.drawn and not found.lines
    train, test, whole = (found.rows[name] for name in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (12, 3, 15)
    assert sorted(t for _, t in test) == [0, 1, 2], "a share of each class"
    assert {p for p, _ in train}.isdisjoint(p for p, _ in test)
    assert open_folder(tmp_path).rows == found.rows
    assert open_folder(tmp_path, seed=1).rows != found.rows
    photos(tmp_path, "dog/more.png", start=99)
    again = open_folder(tmp_path)
    moved = {p for p, _ in test} - {p for p, _ in again.rows["test"]}
    assert len(moved) <= 1, "a new picture moves no others"
    assert fingerprint(again) != fingerprint(found)


@quick
@pytest.mark.parametrize("names", [("train", "val"), ("Training", "Validation"), ("train", "test")])
def test_splits_are_found_by_the_names_of_folders(tmp_path, names):
    photos(tmp_path, *many(*(f"{split}/{c}" for split in names for c in ("a", "b")), count=2))
    found = open_folder(tmp_path)
    assert not found.drawn and len(rows_of(found, "train")) == len(rows_of(found, "test")) == 4
    assert len(rows_of(found, "train[:50%]")) == 2


@quick
def test_what_people_have_in_their_folders(tmp_path):
    photos(tmp_path, *many("cat", "dog"), "cat/deep/er/x.WEBP", "dog/y.JPEG", start=1)
    photos(tmp_path, ".trash/z.png", "dog/._y.png", "loose.png", start=50)
    for name in ("cat/Thumbs.db", "cat/notes.txt", "dog/.DS_Store"):
        (tmp_path / name).write_text("x")
    (tmp_path / "fox").mkdir()
    (tmp_path / "cat/cut.jpg").write_bytes(jpeg()[:-100])
    (tmp_path / "dog/web.jpg").write_text("<html>not found</html>")
    (tmp_path / "dog/twice.png").write_bytes((tmp_path / "dog/0.png").read_bytes())
    found = open_folder(tmp_path)
    assert found.names == ("cat", "dog") and len(found.rows["all"]) == 12
    said = "\n".join(found.lines)
    assert "1 empty classes (fox)" in said and "2 pictures that cannot be read (cat/cut.jpg" in said
    assert "1 copies of pictures, left out (dog/0.png = dog/twice.png)" in said
    assert "1 pictures in no class's folder (loose.png)" in said and len(found.lines) == 4


@quick
def test_pictures_in_two_splits_or_two_classes_are_named(tmp_path):
    photos(tmp_path, *many("train/a", "train/b", "val/a", "val/b", count=3))
    for copy, first in (("val/a/9.png", "train/a/0.png"), ("train/b/8.png", "train/a/1.png")):
        (tmp_path / copy).write_bytes((tmp_path / first).read_bytes())
    said = "\n".join(open_folder(tmp_path).lines)
    assert "1 pictures that two splits share (train/a/0.png = val/a/9.png)" in said
    assert "1 pictures that are in two classes (train/a/1.png = train/b/8.png)" in said


@quick
def test_a_wrapping_folder_and_numbers(tmp_path):
    photos(tmp_path, *many("archive/10", "archive/9", "archive/2", count=2))
    assert open_folder(tmp_path).names == ("2", "9", "10")


@quick
def test_the_classes_of_a_model_are_found_by_name(tmp_path):
    found = open_folder(photos(tmp_path, *many("dog", "cat", count=2)))
    mine = numbered_as(found, ("eel", "dog", "cat"))
    assert mine.names == ("eel", "dog", "cat")
    assert {(p.parent.name, t) for p, t in mine.rows["all"]} == {("dog", 1), ("cat", 2)}
    assert numbered_as(found, ("eel", "dog")) == found, "a name that the model lacks"


@quick
@pytest.mark.parametrize("lines", [
    ["1.png 7", "0.png 3", "2.png 7"],
    ["file,label", "0.png,3", "1.png,7", "2.png,7"],
    ["3", "7", "7"]])
def test_a_list_of_labels(tmp_path, lines):
    photos(tmp_path, "0.png", "in/1.png", "in/2.png")
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    found = open_folder(tmp_path)
    assert {p.name: t for p, t in found.rows["all"]} == {"0.png": 3, "1.png": 7, "2.png": 7}
    assert not found.names and not found.lines


# ---- masks ----


def masked(top, pairs, values=(0, 1, 2, 255), where=("images", "masks")):
    "Pictures and masks in two folders."
    photos(top, *(f"{where[0]}/{name}.jpg" for name in pairs))
    for name in pairs:
        path = top / where[1] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.resize(np.array(values, "uint8"), (10, 14))).save(path)
    return top


@quick
@pytest.mark.parametrize("pairs, where", [
    (("a", "b", "c"), ("images", "masks")),
    (("training/a", "training/b", "validation/c"), ("images", "annotations")),
    (("a", "b", "c"), ("JPEGImages", "SegmentationClass"))])
def test_masks_are_found_by_the_names_of_pictures(tmp_path, pairs, where):
    found = open_folder(masked(tmp_path, pairs, where=where))
    assert found.names == ("0", "1", "2") and found.drawn == ("/" not in pairs[0])
    assert sum(map(len, found.rows.values())) == (6 if found.drawn else 3)
    assert all(p.stem == m.stem for rows in found.rows.values() for p, m in rows)


@quick
def test_names_of_classes_of_masks(tmp_path):
    masked(tmp_path, ("a", "b"))
    (tmp_path / "labels.txt").write_text("0 sky\n1 road\n2 car\n3 bus\n")
    assert open_folder(tmp_path).names == ("sky", "road", "car", "bus")
    (tmp_path / "labels.txt").write_text("sky\nroad\n")
    with pytest.raises(UsageError, match="names 2 classes, 0 to 1; the masks hold 2"):
        open_folder(tmp_path)


@quick
@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA", "I;16"])
def test_masks_in_every_kind_of_file(tmp_path, mode):
    mask = np.array([[0, 1], [1, 0]], "uint8")
    if mode == "P":
        image = Image.fromarray(mask, "P")
        image.putpalette([9, 9, 9, 200, 0, 0])
    elif mode == "1": image = Image.fromarray(mask * 255).convert("1")
    elif mode == "I;16": image = Image.fromarray(mask.astype("uint16"))
    else: image = Image.fromarray(mask).convert(mode)
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@quick
def test_masks_that_do_not_fit(tmp_path):
    masked(tmp_path, ("a", "b"))
    Image.new("L", (4, 4)).save(tmp_path / "masks/a.png")
    misfit = "1 masks do not fit: .*a.jpg of 10x14 pixels has a mask of 4x4"
    with pytest.raises(UsageError, match=misfit): open_folder(tmp_path)
    Image.fromarray(noise(0)).save(tmp_path / "masks/a.png")
    with pytest.raises(UsageError, match="is a colour picture"): open_folder(tmp_path)
    held_by = {(0, 255): "hold 0 ", (0, 128): "hold 0, 128 ", (255,): "hold nothing"}
    for values, held in held_by.items():
        with pytest.raises(UsageError, match=held): open_folder(masked(tmp_path, "ab", values))


@quick
def test_masks_and_pictures_without_each_other(tmp_path):
    masked(tmp_path, ("a", "b", "c"))
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/other.png")
    (tmp_path / "masks/b.png").rename(tmp_path / "masks/b_mask.png")
    found = open_folder(tmp_path)
    assert found.lines == (
        "1 pictures without a mask (images/a.jpg)", "1 masks without a picture (masks/other.png)")


@quick
@pytest.mark.parametrize("ending, whose", [
    ("txt", "YOLO"), ("xml", "Pascal VOC"), ("json", "JSON")])
def test_annotations_of_others_are_said_to_be_theirs(tmp_path, ending, whose):
    photos(tmp_path, "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / f"labels/a.{ending}").write_text("0 0.5 0.5 1 1")
    with pytest.raises(UsageError, match=whose): open_folder(tmp_path)


# ---- COCO's JSON ----


BASE = dict(
    images=[dict(id=1, file_name="0.png", width=14, height=10)],
    categories=[dict(id=1, name="a"), dict(id=2, name="b")],
    annotations=[dict(id=1, image_id=1, category_id=2, bbox=[1, 2, 6, 5], area=30, iscrowd=0)])


def changed(images=None, annotations=None):
    "The same with fields changed; those of value ... are left out."
    new = {kind: [{k: v for k, v in (BASE[kind][0] | (fields or {})).items() if v is not ...}]
           for kind, fields in (("images", images), ("annotations", annotations))}
    return BASE | new


WRITTEN = { # as programs write it
    "float image": changed(annotations=dict(image_id=1.0)),
    "float category": changed(annotations=dict(category_id=2.0)),
    "float ids of all": changed(dict(id=1.0), dict(image_id=1.0, category_id=2.0)),
    "text ids": changed(dict(id="trap 1"), dict(image_id="trap 1")),
    "text for a number": changed(annotations=dict(image_id="1", category_id="2")),
    "no size": changed(dict(width=..., height=...)),
    "null size": changed(dict(width=None, height=0)),
    "float size": changed(dict(width=14.0, height=10.0)),
    "null area": changed(annotations=dict(area=None)),
    "NaN area": changed(annotations=dict(area=float("nan"))),
    "no area, no crowd": changed(annotations=dict(area=..., iscrowd=...)),
    "null crowd": changed(annotations=dict(iscrowd=None)),
    "null outline": changed(annotations=dict(segmentation=None)),
    "no annotation id": changed(annotations=dict(id=...)),
    "Windows": changed(dict(file_name=r"D:\photos\0.png")),
    "a folder": changed(dict(file_name="in/0.png")),
    "another folder": changed(dict(file_name="/home/me/x/0.png")),
    "an outline": changed(annotations=dict(bbox=..., segmentation=[[1, 2, 7, 2, 7, 7, 1, 7]])),
}


def annotated(top, content, encoding="utf-8"):
    "A picture and a file of annotations."
    photos(top, "0.png")
    path = top / "boxes.json"
    path.write_text(json.dumps(content), encoding=encoding)
    return path


@quick
@pytest.mark.parametrize("how", WRITTEN)
def test_annotations_as_programs_write_them(tmp_path, how):
    found = read_coco(annotated(tmp_path, WRITTEN[how]), tmp_path)
    box, picture = found["annotations"][0], found["images"][0]
    assert not found["problems"].counts
    assert box["bbox"] == [1, 2, 6, 5] and box["category_id"] == 2 and box["area"] == 30
    assert (picture["width"], picture["height"], picture["file_name"]) == (14, 10, "0.png")
    assert box["image_id"] == picture["id"]


@quick
def test_a_byte_order_mark(tmp_path):
    assert read_coco(annotated(tmp_path, BASE, "utf-8-sig"), tmp_path)["annotations"]


ROOTS = {
    "Roboflow": dict(id=0, name="things", supercategory="none"),
    "background": dict(id=0, name="_background_"),
    "as many as classes": dict(id=0, name="anything"),
}


@quick
@pytest.mark.parametrize("root", ROOTS)
def test_a_root_without_boxes_is_no_class(root):
    named = [dict(c, supercategory="things") for c in BASE["categories"]]
    columns, names = category_columns([ROOTS[root], *named], 2, {1, 2})
    assert columns == {1: 1, 2: 2} and names == ("a", "b")
    if root != "as many as classes":
        assert category_columns([ROOTS[root], *named], None, {1, 2})[1] == ("a", "b")
    assert category_columns([ROOTS[root], *named], 3, {1})[0] == {0: 1, 1: 2, 2: 3}
    assert category_columns([ROOTS[root], *named], 3, {0, 1})[0] == {0: 1, 1: 2, 2: 3}


@quick
def test_categories_by_the_names_of_a_model():
    columns, names = category_columns(BASE["categories"], 3, {2}, ("c", "b", "a"))
    assert columns == {1: 3, 2: 2} and names == ("c", "b", "a")


@quick
@pytest.mark.parametrize("layout", ["one file", "Roboflow", "folders"])
def test_boxes_for_training(tmp_path, layout):
    images = [dict(id=i, file_name=f"{i}.png") for i in range(5)]
    rows = [dict(BASE["annotations"][0], image_id=i, id=i) for i in range(5)]
    content = dict(images=images, categories=BASE["categories"], annotations=rows)
    if layout == "Roboflow":
        for split in ("train", "valid"):
            photos(tmp_path / split, *(f"{i}.png" for i in range(5)), start=5 * (split == "valid"))
            (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
        found = open_folder(tmp_path)
    else:
        folder = {"one file": "", "folders": "val/"}[layout]
        first = "train/" if folder else ""
        for i, image in enumerate(images): image["file_name"] = f"{folder if i else first}{i}.png"
        photos(tmp_path, *(image["file_name"] for image in images))
        (tmp_path / "b.json").write_text(json.dumps(content))
        found = open_folder(tmp_path, tmp_path / "b.json")
    assert found.names == ("a", "b") and found.drawn == (layout == "one file")
    objects = found.rows["train"][0][1]
    assert objects["label"].tolist() == [1]
    assert objects["bbox"][0] == pytest.approx([2 / 10, 1 / 14, 7 / 10, 7 / 14])


@quick
def test_annotations_without_a_box_are_no_result(tmp_path):
    path = annotated(tmp_path, changed(annotations=dict(bbox=[50, 50, 5, 5])))
    with pytest.raises(UsageError, match="no box .*1 boxes outside of the picture"):
        open_folder(tmp_path, path)
    with pytest.raises(UsageError, match="none of its pictures is in"):
        open_folder(tmp_path, annotated(tmp_path, changed(dict(file_name="other.png"))))


# ---- one reader of pictures ----


def jpeg(orientation=None, size=(8, 16)):
    "The bytes of a JPEG: red on the left, blue on the right."
    import io
    pixels = np.zeros((*size, 3), "uint8")
    pixels[:, :size[1] // 2, 0] = pixels[:, size[1] // 2:, 2] = 255
    exif = Image.Exif()
    if orientation: exif[ORIENTATION] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "jpeg", exif=exif, quality=95)
    return out.getvalue()


@quick
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_to_hold_a_camera(orientation):
    import tensorflow as tf
    pixels = read_picture(jpeg(orientation))
    assert pixels.shape == ((8, 16, 3) if orientation < 5 else (16, 8, 3))
    seen = tf.io.decode_image(upright_bytes(jpeg(orientation)), 3).numpy()
    assert np.abs(seen.astype(int) - pixels).max() <= 8
    first = {1: 0, 2: 2, 3: 2, 4: 0, 5: 0, 6: 0, 7: 2, 8: 2}[orientation] # red or blue
    assert pixels[0, 0].argmax() == first


def test_a_turned_picture_is_alike_in_all_that_reads_it(tmp_path):
    "Folders and TFDS, whole and as bytes for a crop, with the reader of `predict`."
    import tensorflow_datasets as tfds
    for name in ("a", "b"):
        for split in ("train", "test"):
            path = tmp_path / "p" / split / name / "x.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(jpeg(6, (8, 16 if name == "a" else 24)))
    found = tfds.ImageFolder(str(tmp_path / "p"))
    image, label = tfds.features.Image(encoding_format="jpeg"), found.info.features["label"]
    features = tfds.features.FeaturesDict(dict(image=image, label=label))
    raw = [dict(image=str(tmp_path / f"p/train/{n}/x.jpg"), label=n) for n in "ab"]

    class Turned(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        def _info(self): return tfds.core.DatasetInfo(builder=self, features=features)
        def _split_generators(self, _): return dict(train=self._generate_examples())
        def _generate_examples(self): yield from enumerate(raw)

    Turned(data_dir=tmp_path / "tfds").download_and_prepare()
    of_tfds = open_dataset(DataSettings(name="turned", data_dir=str(tmp_path / "tfds")))
    of_folder = open_dataset(DataSettings(images=str(tmp_path / "p")))
    for dataset in (of_tfds, of_folder):
        seen = {x["image"].shape for x in dataset.split("train", ("image",)).as_numpy_iterator()}
        assert seen == {(16, 8, 3), (24, 8, 3)}
        for x in dataset.split("train", ("image",), encoded=True).as_numpy_iterator():
            assert read_picture(x["image"]).shape in seen
    assert of_folder.calibration(2, 32).shape == (2, 32, 32, 3)


@quick
def test_pictures_that_pillow_opens_oddly(tmp_path):
    grey = np.arange(0, 256, dtype="uint8").reshape(16, 16)
    deep = tmp_path / "deep.png"
    Image.fromarray(grey.astype("uint16") * 257).save(deep)
    assert np.array_equal(read_picture(deep)[..., 0], grey)
    Image.fromarray(grey.astype("uint16") * 16).save(deep)
    with pytest.raises(UsageError, match="16-bit numbers of at most 4080"): read_picture(deep)
    Image.fromarray(np.zeros((4, 4), "uint16")).save(deep)
    assert not read_picture(deep).any(), "black is black"
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "c.jpg")[0, 0].astype(int) - [254, 0, 0]).max() < 5
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for ending in ("gif", "webp"):
        frames[0].save(tmp_path / f"f.{ending}", save_all=True, append_images=frames[1:])
        assert read_picture(tmp_path / f"f.{ending}")[0, 0].argmax() == 0, "the first frame"
    paletted = Image.new("P", (4, 4))
    paletted.putpalette([0, 0, 0, 255, 0, 0])
    paletted.save(tmp_path / "p.png", transparency=0)
    assert (read_picture(tmp_path / "p.png") == 255).all(), "transparent lies on white"
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "d.dds")
    assert read_picture(tmp_path / "d.dds")[0, 0].tolist() == [200, 0, 0], "an alpha nobody filled"
    (tmp_path / "e.dds").write_bytes((tmp_path / "d.dds").read_bytes()[:80] + b"\xff" * 60)
    with pytest.raises(UsageError, match="is not a picture that can be read"):
        read_picture(tmp_path / "e.dds")
    for name in ("deep.png", "c.jpg", "f.gif", "p.png"):
        content = plain_bytes((tmp_path / name).read_bytes())
        assert np.array_equal(read_picture(content), read_picture(tmp_path / name)), name


@quick
def test_bad_folders_of_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    bad = {"gone": "is not there", "notes.txt": "is not a folder", "empty": "holds no pictures"}
    for name, why in bad.items():
        with pytest.raises(UsageError, match=why): find_pictures(tmp_path / name)


# ---- own data in commands ----


@quick
def test_own_data_are_whole_and_nothing_is_expected_of_them(tmp_path):
    e = experiment("mobilenet_edgetpu_v2_tiny", "default")
    assert e.data.train_images == 4000 and e.expect != UNKNOWN
    mine = set_fields(e, ["name=mine"])
    assert mine.data.train_images is None and mine.expect == UNKNOWN
    assert set_fields(e, ["train_images=5", "name=mine"]).data.train_images == 5
    assert set_fields(e, ["epochs=3"]).data.train_images == 4000
    photos(tmp_path, *many("a", "b"))
    mine = set_data_fields(e.data, [f"images={tmp_path}"])
    assert mine.train_images is None and mine.name == tmp_path.name


BAD = {
    "missing": ("gone", "is not there"),
    "a file": ("one.txt", "is not a folder"),
    "one class": ("one", "all its pictures are of one class, a"),
    "no picture": ("none", "holds no pictures"),
    "no classes": ("flat", "has no label"),
    "nothing to read": ("cut", "holds no picture that can be read"),
    "a class without training": ("other", "has no picture of c to train on"),
}


@quick
@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_said_in_a_line(inside, tmp_path, what):
    (tmp_path / "one.txt").write_text("x")
    photos(tmp_path, *many("one/a", "flat", "other/train/a", "other/train/b", "other/val/c"))
    for name in ("none", "cut/a", "cut/b"): (tmp_path / name).mkdir(parents=True)
    for name in ("cut/a/x.jpg", "cut/b/y.jpg"): (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    folder, why = BAD[what]
    said = inside("train", "--experiment_type", "mobilenet_edgetpu_v2_tiny", "--model_dir",
                  tmp_path / "out", "--images", tmp_path / folder)
    assert said.returncode and why in said.stderr
    assert said.stderr.splitlines()[-1].startswith("error: ") and not (tmp_path / "out").exists()


def test_an_export_is_not_calibrated_on_digits_unasked(inside, cli, tmp_path):
    "Nothing is written into a folder that a user names, and trained weights need pictures."
    from edgetpu_repro import build_model
    build_model("mobilenet_edgetpu_v2_tiny", 3, 32).save(tmp_path / "m.keras")
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    common = ("export", "--model_name", "mobilenet_edgetpu_v2_tiny", "--output_dir", out,
              "--image_size", 32, "--quantize")
    trained = (*common, "--ckpt_path", tmp_path / "m.keras")
    one_line(cli(*trained), "nothing beside", "--images")
    one_line(inside(*common, "--data_dir", data), "say which dataset of", "--dataset_name")
    one_line(inside(*common, "--data_dir", tmp_path / "gone"), "gone")
    one_line(inside(*common, "--dataset_name", "digit_scenes", "--data_dir", data),
             "nothing is written there")
    one_line(cli(*trained, "--images", tmp_path / "gone"), "is not a folder")
    assert not [*data.iterdir()] and not out.exists()


def test_a_folder_is_called_by_its_own_name():
    "In records, captions and what a training is said to take; not by the embedded dataset's."
    e = experiment("mobilenet_edgetpu_v2_xs", "families_tiny_imagenet")
    assert e.data.title == "tiny_imagenet" and e.cost == "20 epochs"
    e = experiment("mobilenet_edgetpu_v2_xs", "families")
    assert e.data.title == "digit_scenes" and "of 4,000 images" in e.cost


def test_batches_of_a_folder_go_on_where_they_stopped(tmp_path):
    photos(tmp_path, *many("a", "b", ending="jpg"))
    dataset = open_dataset(DataSettings(images=str(tmp_path), image_size=32))
    images = CLASSIFICATION.samples(dataset, "train")
    assert len(images) == 8 and CLASSIFICATION.label_names(dataset) == ("a", "b")
    whole = training_batches(images, 3, 5).as_numpy_iterator()
    whole = [next(whole) for _ in range(5)]
    late = next(training_batches(images, 3, 5, start=4).as_numpy_iterator())
    for x, y in zip(whole[4], late): np.testing.assert_array_equal(x, y)
    seen = sum(len(y) for _, y in batches(CLASSIFICATION.samples(dataset, "all"), 4))
    assert seen == 10, "the last batch as well"
    assert len(CLASSIFICATION.samples(dataset, "all[:50%]")) == 5


def test_masks_of_a_folder_and_grey_pictures(tmp_path):
    masked(tmp_path, "abcdef")
    for path in (tmp_path / "images").iterdir():
        Image.open(path).convert("L").save(path)
    dataset = open_dataset(DataSettings(images=str(tmp_path), image_size=32))
    image, mask = next(iter(SEGMENTATION.samples(dataset, "train").as_numpy_iterator()))
    assert image.shape == (32, 32, 3) and set(np.unique(mask)) == {0, 1, 2, 255}
    assert SEGMENTATION.label_names(dataset) == ("0", "1", "2")
    assert SEGMENTATION.names_for(dataset.builder, 3) == ("0", "1", "2")
    named = DataSettings(images=str(tmp_path), image_size=32, mask_labels="ade20k_32")
    assert len(SEGMENTATION.label_names(open_dataset(named))) == 32


def test_grey_pictures_and_own_masks_of_tfds(tmp_path):
    "As MNIST has them, and as docs/data.md describes them."
    import tensorflow_datasets as tfds
    grey = np.arange(28 * 28, dtype="int64").reshape(28, 28, 1).astype("uint8")
    mask = np.resize(np.array([0, 1, 255], "uint8"), (28, 28, 1))

    class Greyset(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = dict(
                image=tfds.features.Image(shape=(28, 28, 1)),
                label=tfds.features.ClassLabel(names=["x", "y"]),
                segmentation_mask=tfds.features.Image(shape=(28, 28, 1)))
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return dict(train=self._generate_examples(), validation=self._generate_examples())

        def _generate_examples(self):
            for i in range(3): yield i, dict(image=grey, label=i % 2, segmentation_mask=mask)

    Greyset(data_dir=tmp_path).download_and_prepare()
    dataset = open_dataset(DataSettings(name="greyset", data_dir=str(tmp_path), image_size=64))
    image, _ = next(iter(CLASSIFICATION.samples(dataset, "train").as_numpy_iterator()))
    assert image.shape == (64, 64, 3) and (image[..., 0] == image[..., 2]).all()
    assert len(CLASSIFICATION.samples(dataset, "test")) == 3, "validation where there is no test"
    assert dataset.calibration(2).shape == (2, 64, 64, 3)
    assert SEGMENTATION.label_names(dataset) == ("0", "1")
    _, seen = next(iter(SEGMENTATION.samples(dataset, "train").as_numpy_iterator()))
    assert set(np.unique(seen)) == {0, 1, 255}


def test_labels_of_a_list_count_as_the_model_counts(tmp_path):
    from types import SimpleNamespace
    from edgetpu_repro.measure.evaluate import as_model_counts
    photos(tmp_path, "0.png", "1.png", "2.png")
    (tmp_path / "labels.txt").write_text("0.png 3\n1.png 7\n2.png 999\n")
    dataset = open_dataset(DataSettings(images=str(tmp_path), image_size=32))

    def counted(classes):
        return as_model_counts(dataset, SimpleNamespace(labels=(), classes=classes))

    found, lines = counted(1001)
    assert found.settings.background and "background" in lines[0]
    assert sorted(int(y) for _, y in CLASSIFICATION.samples(found, "all")) == [4, 8, 1000]
    assert len(CLASSIFICATION.label_names(found)) == 1001
    assert not counted(1000)[0].settings.background
    with pytest.raises(UsageError, match="label 999 .* none of the model's 10 classes"): counted(10)


# ---- fine-tuning ----


def test_a_body_or_its_norms_are_frozen():
    from edgetpu_repro import build_model
    from edgetpu_repro.core.settings import TrainSettings
    from edgetpu_repro.train.recipes import compile_model
    for fields, left in ((dict(freeze_body=True), {"classifier"}), (dict(freeze_norms=True), None)):
        model = build_model("mobilenet_edgetpu_v2_tiny", 3, 32)
        compile_model(model, TrainSettings(**fields), 2)
        names = {layer.name for layer in model.layers if layer.trainable_weights}
        assert names == left or (left is None and not any(n.endswith("_norm") for n in names))
        assert names


def test_from_a_folder_to_an_int8_file(cli, tmp_path):
    "A folder of few pictures, weights to start from, the head first; what is unseen is evaluated."
    from edgetpu_repro import build_model
    colours = dict(blue=2, green=1, red=0)
    for name, channel in colours.items():
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(10):
            pixels = noise([channel, i], (24, 20)) // 4
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.JPG")
    before = sorted((tmp_path / "mine").rglob("*"))
    build_model("mobilenet_edgetpu_v2_tiny", 9, 32).save(tmp_path / "start.keras")
    out = tmp_path / "out"
    name = "mobilenet_edgetpu_v2_tiny"
    trained = cli("train", "--profile", "finetune", "--experiment_type", name,
                  "--images", tmp_path / "mine", "--start", tmp_path / "start.keras", "--model_dir",
                  out, "--set", "image_size=32", "--set", "epochs=1", "--set", "batch_size=64")
    assert trained.returncode == 0, trained
    first = next(line for line in trained.stdout.splitlines() if "to train on" in line)
    assert "24 images to train on, 6 to evaluate on, 3 classes" in first and UNKNOWN in first
    assert "24 images are fewer than a batch of 64: batches of 24" in trained.stdout
    assert "a first head gets 100.0%" in trained.stdout
    assert "of 6 images" in trained.stdout
    note = json.loads((out / "experiment.json").read_text())
    assert note["classes"] == [*colours] and note["data"]["images"] == str(tmp_path / "mine")
    exported = cli("export", "--model_name", name, "--quantize",
                   "--ckpt_path", out / f"{name}.keras", "--output_dir", out)
    assert exported.returncode == 0, exported
    file = out / f"{name}_int8.tflite"
    card = json.loads(Path(f"{file}.json").read_text())
    assert card["calibration"]["dataset"] == "mine" and card["calibration"]["images"] == 24
    assert card["inputs"][0]["shape"] == [1, 32, 32, 3] and card["labels"] == 3
    seen = cli("evaluate", file, "--images", tmp_path / "mine", "--json")
    result = json.loads(seen.stdout)
    assert result["images"] == 6 and "set aside" in result["pictures"]
    assert sorted((tmp_path / "mine").rglob("*")) == before, "nothing is written there"
