"Ranges of an imported file: exported again with them, it says what it said."

import json

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import ROOT
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.predict import predictor
from edgetpu_repro.models.blocks import load_model
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.content import WITH_WEIGHTS
from edgetpu_repro.tflite.convert import freeze, to_float
from edgetpu_repro.tflite.export import Exporter
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.graph import TYPES, Graph
from edgetpu_repro.tflite.options import RECIPES, ExportOptions
from edgetpu_repro.tflite.quantize import activation_ranges, quantize_tflite
from edgetpu_repro.tflite.types import with_types
from edgetpu_repro.weights.graphs import file_graph
from edgetpu_repro.weights.integers import steps_beside, with_integers
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


def test_a_round_trip_gives_the_same_answers(made, cli, tmp_path):
    path, saved, images = made
    wanted, found = predictor(path)(images), {}
    for kind in ("file", "calibrate"):
        export = ("export", "--model_name", MODEL, "--ckpt_path", saved, "--quantize", *SCENES,
                  "--num_calibration_steps", 8, "--image_size", 32, "--allow_degraded")
        folder = tmp_path / kind
        done = cli(*export, "--ranges", kind, "--output_dir", folder)
        assert done.returncode == 0, done
        file = folder / path.name
        card = json.loads(file.with_name(f"{file.name}.json").read_text())
        assert card.get("ranges") == ("file" if kind == "file" else None)
        own, again = kernels(path), kernels(file)
        assert own.keys() == again.keys()
        assert all(np.array_equal(own[sign], again[sign]) for sign in own)
        found[kind] = predictor(file)(images)
    np.testing.assert_array_equal(found["file"], wanted)
    assert np.abs(found["calibrate"] - wanted).max() > 1e-3, "digits have other ranges than noise"


def test_types_at_the_ends_do_not_matter(made, tmp_path):
    path, _, _ = made
    for ends in (("uint8", "float32"), ("float32", "uint8")):
        assert file_ranges(with_types(path, *ends)).keys() == file_ranges(path).keys()
        assert file_ranges(with_types(path, *ends)) == file_ranges(path)


def test_bad_ranges(made, tmp_path):
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
    for bad in ('"0.1"', '["0"]', '["0.1 nan"]', '["x"]', "[0.1]"):
        card.write_text('{"steps": {"a": %s}}' % bad)
        with pytest.raises(UsageError, match="no positive numbers"):
            steps_beside(tmp_path / "m.keras")
    card.write_text('{"steps": 1}')
    with pytest.raises(UsageError, match="is not readable"): steps_beside(tmp_path / "m.keras")
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


def rms(x): return float(np.sqrt(np.mean(np.square(x))))


def other_axes(kernel):
    "All axes of a kernel but that of its output channels."
    return (0, 1, 3) if kernel.shape[3] == 1 else (0, 1, 2)


def as_uint8(path):
    "An int8 file as training leaves it: uint8, one step and a zero point a kernel."
    graph = Graph(path.read_bytes())
    kernels = {op.inputs[1]: op for op in graph.operators if graph.kind(op) in WITH_WEIGHTS}
    for index, op in kernels.items():
        tensor, bias = graph.tensors[index], graph.tensors[op.inputs[2]]
        weights, floats = graph.floats(index), graph.floats(op.inputs[2])
        low, high = min(weights.min(), 0), max(weights.max(), 0)
        step = np.float32((high - low) / 255)
        zero = int(np.round(-low / step))
        values = np.clip(np.round(weights / step) + zero, 0, 255).astype("uint8")
        taken = graph.tensors[op.inputs[0]].quantization.scale[0]
        for t, data, scale, z in ((tensor, values, step, zero),
                                  (bias, np.round(floats / (taken * step)).astype("int32"),
                                   taken * step, 0)):
            t.buffer = len(graph.model.buffers)
            graph.model.buffers.append(schema.BufferT())
            graph.model.buffers[-1].data = np.frombuffer(data.tobytes(), "uint8")
            t.quantization.scale = np.array([scale], "float32")
            t.quantization.zeroPoint = np.array([z], "int64")
    for index, tensor in enumerate(graph.tensors):
        if TYPES[tensor.type] != "int8": continue
        tensor.type = schema.TensorType.UINT8
        if index not in kernels: tensor.quantization.zeroPoint = tensor.quantization.zeroPoint + 128
    for code in graph.model.operatorCodes: code.version = 1
    return graph.pack()


@pytest.fixture(scope="module")
def uint8(made, tmp_path_factory):
    "A uint8 file, and what `import` makes of it: (file, '.keras' file, images)."
    folder = tmp_path_factory.mktemp("uint8")
    path = folder / "m.tflite"
    path.write_bytes(as_uint8(made[0]))
    return path, import_released(MODEL, path, folder, 10, 32)[0], made[2]


def exported(cli, saved, folder, *words):
    export = ("export", "--model_name", MODEL, "--ckpt_path", saved, "--quantize", *SCENES,
              "--num_calibration_steps", 8, "--image_size", 32, "--allow_degraded")
    done = cli(*export, *words, "--output_dir", folder)
    assert done.returncode == 0, done
    file, = folder.glob("*.tflite")
    return file, json.loads(file.with_name(f"{file.name}.json").read_text()), done


def test_integers_of_uint8_are_kept(uint8, cli, tmp_path):
    path, saved, images = uint8
    assert {str(t.dtype) for t in (TFLiteFile.open(path).inputs)} == {"uint8"}
    file, card, _ = exported(cli, saved, tmp_path, "--ranges", "file")
    counts = card["integers"]
    assert counts["kernels"] == counts["recovered"] > 30
    assert 0 < counts["rounded"] < 0.1 * counts["channels"], "those that reach beyond 127"
    own, again = kernels(path), kernels(file)
    same = sum((own[sign] == again[sign]).all(other_axes(own[sign])).sum() for sign in own)
    assert same >= counts["channels"] - counts["rounded"]
    source = Exporter(load_model(saved)).float_file().content
    ranges = activation_ranges(source, images[:4]) | known_ranges(source, ranges_beside(saved))
    plain = quantize_tflite(source, ranges)
    wanted = TFLiteFile.open(source).predictor()(images)
    kept, rounded = (rms(wanted - TFLiteFile.open(f).predictor()(images)) for f in (file, plain))
    assert kept < 0.9 * rounded, (kept, rounded)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_integers(uint8, recipe):
    _, saved, images = uint8
    source, known = Exporter(load_model(saved)).float_file().content, ranges_beside(saved)
    ranges = activation_ranges(source, images[:4]) | known_ranges(source, known)
    plain = quantize_tflite(source, ranges, recipe, "aeq")
    content, counts = with_integers(plain, source, steps_beside(saved), known)
    assert counts["recovered"] == counts["kernels"] > 30, counts
    wanted = TFLiteFile.open(source).predictor()(images)
    kept, rounded = (rms(wanted - TFLiteFile.open(f).predictor()(images)) for f in (content, plain))
    assert kept < 0.9 * rounded, (kept, rounded)
