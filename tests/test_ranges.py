"Ranges of an imported file: exported again with them, it says what it said."

import json

import keras
import numpy as np
import pytest
from conftest import ROOT
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.predict import predictor
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.convert import freeze, to_float
from edgetpu_repro.tflite.export import Exporter
from edgetpu_repro.tflite.options import ExportOptions
from edgetpu_repro.tflite.types import with_types
from edgetpu_repro.weights.graphs import file_graph
from edgetpu_repro.weights.ranges import file_ranges, known_ranges, ranges_beside
from edgetpu_repro.weights.start import import_released

MODEL = "mobilenet_edgetpu_v2_tiny"
SCENES = ("--dataset_name", "digit_scenes", "--data_dir", ROOT / "build/data")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "An int8 file of ours, and what `import` makes of it: (file, '.keras' file, images)."
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(-1, 1, (40, 32, 32, 3)).astype("float32")
    folder = tmp_path_factory.mktemp("ranges")
    work = Exporter(build_model(MODEL, 10, 32), images, ExportOptions(trained=False))
    ((path, _),) = work.export(folder)
    saved, _ = import_released(MODEL, path, folder, 10, 32)
    return path, saved, images


def kernels(path):
    return {sign: c.kernel for sign, c in file_graph(path).items()}


def test_a_round_trip_gives_the_same_answers(made, inside, tmp_path):
    path, saved, images = made
    wanted, found = predictor(path)(images), {}
    for kind in ("file", "calibrate"):
        export = ("export", "--model_name", MODEL, "--ckpt_path", saved, "--quantize", *SCENES,
                  "--num_calibration_steps", 8, "--image_size", 32, "--allow_degraded")
        folder = tmp_path / kind
        done = inside(*export, "--ranges", kind, "--output_dir", folder)
        assert done.returncode == 0, done
        file = folder / path.name
        card = json.loads(file.with_name(f"{file.name}.json").read_text())
        assert card.get("ranges") == ("file" if kind == "file" else None)
        own, again = kernels(path), kernels(file)
        assert own.keys() == again.keys()
        assert all(np.array_equal(own[sign], again[sign]) for sign in own)
        found[kind] = predictor(file)(images)
    assert np.array_equal(found["file"].argmax(-1), wanted.argmax(-1))
    np.testing.assert_allclose(found["file"], wanted, atol=1e-6)
    assert np.abs(found["calibrate"] - wanted).max() > 1e-3, "digits have other ranges than noise"


def test_types_at_the_ends_do_not_matter(made, tmp_path):
    path, _, _ = made
    for ends in (("uint8", "float32"), ("float32", "uint8")):
        assert file_ranges(with_types(path, *ends)).keys() == file_ranges(path).keys()
        assert file_ranges(with_types(path, *ends)) == file_ranges(path)


def test_bad_ranges(made, inside, tmp_path):
    path, saved, _ = made
    known = ranges_beside(saved)
    assert known == ranges_beside(path) and len(known) > 50
    other = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(10, 3)])
    float_file = to_float(freeze(other))
    with pytest.raises(UsageError, match="another model: they know 0 of 1 convolutions"):
        known_ranges(float_file, known)
    (tmp_path / "f.tflite").write_bytes(float_file)
    with pytest.raises(UsageError, match="it is of a float file"):
        ranges_beside(tmp_path / "f.tflite")
    with pytest.raises(UsageError, match="m.import.json of `import` is not beside it"):
        ranges_beside(tmp_path / "m.keras")
    card = tmp_path / "m.import.json"
    for bad in ("[0, NaN]", "[2, 1]", '["a", 1]', "[1]"):
        card.write_text('{"ranges": {"image": %s}}' % bad)
        with pytest.raises(UsageError, match="no pairs of finite numbers"):
            ranges_beside(tmp_path / "m.keras")
    for bad in ("{", "[]", '{"ranges": [1]}'):
        card.write_text(bad)
        with pytest.raises(UsageError, match="is not readable"): ranges_beside(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="goes with --ranges calibrate"):
        ExportOptions(equalize=True, known_ranges=dict)


@pytest.mark.parametrize("words, answer", [
    (("--ranges", "fil", "--quantize"), ("unknown ranges 'fil'", "did you mean 'file'")),
    (("--ranges", "file", "--quantize"), ("--ranges file needs --ckpt_path",)),
    (("--ranges", "file"), ("--ranges file needs --quantize",)),
])
def test_bad_words(inside, tmp_path, words, answer):
    export = ("export", "--model_name", MODEL, "--output_dir", tmp_path / "out")
    one_line(inside(*export, *words), *answer)
