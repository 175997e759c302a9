"Types at the ends of a file: the same numbers inside, and every command takes them."

import json

import keras
import numpy as np
import pytest
from conftest import ROOT, SMALL, SMALL_DETECTOR, SMALL_SEGMENTER
from PIL import Image
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.predict import open_model, predictor
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.export import Exporter
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.options import ANY, ENDS, ExportOptions
from edgetpu_repro.weights.graphs import file_graph

TINY = "mobilenet_edgetpu_v2_tiny"
MASK = "resize32,argmax,resize64,squeeze"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (6, 64, 64, 3)).astype("float32")


def on_grid(images, file):
    "Pictures that an 8-bit input holds exactly."
    image = file.inputs[0]
    return (np.round(images / image.scale).clip(-127, 127) * image.scale).astype("float32")


def arrays(outputs):
    "The outputs; of detections those that were found: the rest of the tensors is not written."
    if not isinstance(outputs, dict): return [outputs]
    found = [*outputs.values()]
    counts = [y for y in found if y.ndim == 1]
    if not counts: return found
    rows = [(int(n), [y[i] for y in found if y.ndim > 1]) for i, n in enumerate(counts[0])]
    return [counts[0], *(y[:n] for n, several in rows for y in several if n)]


def exporter(name, images, classes=10):
    "An export whose options can be changed on the way: what is converted once is kept."
    keras.utils.set_random_seed(0)
    return Exporter(build_model(name, classes, 64), images, ExportOptions(trained=False))


def exported(work, folder, method="none", **options):
    work.options = ExportOptions((method,), trained=False, **options)
    work.recipes = work.options.recipes
    ((path, card),) = work.export(folder)
    return TFLiteFile.open(path), card


def same(file, other, images):
    pictures = on_grid(images, file)
    pairs = list(zip(arrays(predictor(file)(pictures)), arrays(predictor(other)(pictures))))
    assert pairs
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(np.abs(a).max(), 1e-9))


CASES = [
    (SMALL, (("none", "float32"),)),
    (SMALL_SEGMENTER, (("none", "uint8"), (MASK, "uint8"), (MASK, "float32"))),
    (SMALL_DETECTOR, (("none", "uint8"), ("nms", "float32"))),
]


@pytest.mark.parametrize("name, ends", CASES, ids=lambda v: getattr(v, "stem", ""))
def test_the_numbers_inside_are_the_same(name, ends, images, tmp_path):
    work = exporter(name, images)
    for method, given in ends:
        plain, _ = exported(work, tmp_path, method)
        for taken in ("uint8", "float32"):
            types = dict(input_type=taken, output_type=given)
            file, card = exported(work, tmp_path, method, **types)
            assert file.path.name == plain.path.name.replace(
                ".tflite", f"_input_{taken}_output_{given}.tflite")
            assert (card["input_type"], card["output_type"]) == (taken, given)
            assert card["inputs"][0]["dtype"] == taken
            assert {o["dtype"] for o in card["outputs"]} == {given}
            assert card["refused_by_edgetpu"] == []
            said = file.unpack().description.decode()
            assert said.endswith(f"a8w8 by tf, input_type {taken}, output_type {given}")
            assert file.signature == plain.signature and file.output_names == plain.output_names
            same(plain, file, images)
            assert open_model(file.path).task.name == open_model(plain.path).task.name


def test_files_for_any_number_have_them_too(images, tmp_path):
    types = dict(input_type="uint8", output_type="float32")
    one, _ = exported(exporter(SMALL, images), tmp_path, **types)
    file, card = exported(exporter(SMALL, images), tmp_path, batch_size=ANY, **types)
    assert file.any_batch and card["batch_size"] == ANY
    pictures = on_grid(images, one)
    wanted = predictor(one)(pictures)
    np.testing.assert_allclose(file.predictor(images=6)(pictures), wanted, atol=1e-6)


def test_the_other_quantiser(images, tmp_path):
    work = exporter(SMALL, images)
    wide = dict(quantizer="aeq", recipes=("a16w8",))
    file, _ = exported(work, tmp_path, input_type="float32", output_type="float32", **wide)
    plain, _ = exported(work, tmp_path, **wide)
    assert plain.inputs[0].dtype == "int16" and file.inputs[0].dtype == "float32"
    np.testing.assert_allclose(predictor(file)(images), predictor(plain)(images), atol=1e-4)
    with pytest.raises(UsageError, match="input of this file is int16, which does not become"):
        exported(work, tmp_path, input_type="uint8", **wide)
    with pytest.raises(UsageError, match="input of this file is float32"):
        exported(work, tmp_path, input_type="uint8", quantizer="aeq", recipes=("dynamic",))


def test_what_cannot_be(images, tmp_path):
    work = exporter("ssd_mobilenet_edgetpu", images, classes=3)
    with pytest.raises(UsageError, match="output of this file is float32"):
        exported(work, tmp_path, "nms", output_type="uint8")
    with pytest.raises(UsageError, match="unknown input_type 'uint16'"):
        ExportOptions(input_type="uint16")
    with pytest.raises(UsageError, match="int32 of 200 classes, which does not become int8"):
        exported(exporter(SMALL_SEGMENTER, images, 200), tmp_path, MASK, output_type="int8")


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    folder, out, work = tmp_path_factory.mktemp("types"), {}, exporter(SMALL, images)
    for taken, given in zip(ENDS, reversed(ENDS)):
        file, _ = exported(work, folder, input_type=taken, output_type=given)
        out[taken, given] = file.path
    return out


def test_commands_take_them(files, inside, cli, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 80, 3), "uint8")).save(picture)
    said = set()
    for path in files.values():
        answer = cli("predict", path, picture, "--json")
        assert answer.returncode == 0, answer
        said.add(json.dumps([c["class"] for c in json.loads(answer.stdout)[0]["classes"]]))
        assert len(file_graph(path)) > 10, "all of its weights are found"
    assert len(said) == 1
    quick = ("--min_runs", 6, "--seconds", 0.01, "--max_seconds", 0.02, "--precision", 1)
    answer = cli("benchmark", *files.values(), *quick)
    assert answer.returncode == 0, answer
    ends = files["float32", "int8"]
    scenes = ("--dataset_name", "digit_scenes", "--data_dir", ROOT / "build/data")
    answer = inside("evaluate", ends, *scenes, "--set", "test_images=20", "--json")
    assert answer.returncode == 0 and "top1" in json.loads(answer.stdout), answer


def test_import_takes_them(images, cli, tmp_path):
    "Which knows names of the registry only."
    ends = dict(input_type="float32", output_type="int8")
    file, _ = exported(exporter(TINY, images), tmp_path, **ends)
    answer = cli("import", file.path, "--model_name", TINY, "--image_size", 64,
                 "--num_classes", 10, "--output_dir", tmp_path)
    assert answer.returncode == 0, answer


@pytest.mark.parametrize("words, answer", [
    (("--input_type", "uint16", "--quantize"), ("unknown input_type", "did you mean 'uint8'")),
    (("--output_type", "uint8"), ("--output_type uint8 needs --quantize",)),
])
def test_bad_words(inside, tmp_path, words, answer):
    export = ("export", "--model_name", SMALL, "--output_dir", tmp_path, "--image_size", 64)
    one_line(inside(*export, *words), *answer)
    assert not list(tmp_path.iterdir())
