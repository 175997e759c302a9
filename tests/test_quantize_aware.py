"Training with quantisation: what the file computes, resume, backends, bad input."

import importlib.util
import json
import shutil
import signal

import keras
import numpy as np
import pytest
from conftest import BIN, ROOT, SMALL_DETECTOR, SMALL_SEGMENTER, call, warm
from test_cli import one_line
from test_train import MODEL, SMALL, curve_of, stopped, weights

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import TrainSettings
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.export import Exporter
from edgetpu_repro.tflite.options import ExportOptions
from edgetpu_repro.train.quantize_aware import (
    check_quantize_aware, observed_ranges, quantize_aware, ranges_path)
from edgetpu_repro.weights.graphs import FilePlaces
from edgetpu_repro.weights.ranges import trained_ranges

SPEC = ROOT / "tests/small.json"
TINY = ("train", "--experiment_type", SPEC, *SMALL, "--mode", "train",
        "--set", "train_images=32", "--set", "drop_connect=0.2", "--set", "ema=0.9")
AWARE = (*TINY, "--quantize_aware", "--set", "epochs=2")
EXPORT = ("export", "--model_name", SPEC, "--quantize", "--image_size", 32, "--num_classes", 10,
          "--num_calibration_steps", 8, "--allow_degraded", "--ckpt_path")
needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")


def drawn(name, size, group_conv="slices"):
    "A model whose norms are none of identity."
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = build_model(name, 10, size, group_conv=group_conv)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization): continue
        gamma, beta, mean, variance = layer.get_weights()
        near = (rng.uniform(-0.5, 0.5, w.shape) for w in (beta, mean))
        around = [rng.uniform(0.5, 1.5, w.shape) for w in (gamma, variance)]
        layer.set_weights([around[0], *near, around[1]])
    return model, rng.uniform(-1, 1, (12, size, size, 3)).astype("float32")


def scales(graph):
    "{tensor of an activation: (scale, zero point)} but for ends of which the scale is given."
    for op in graph.operators:
        for out in map(int, op.outputs):
            q = graph.tensors[out].quantization
            if graph.kind(op) in ("SOFTMAX", "LOGISTIC") or q is None or q.scale is None: continue
            yield graph.name(out), float(q.scale[0]), int(q.zeroPoint[0])


@pytest.mark.parametrize("name, size, group_conv", [
    (SPEC, 32, "slices"), (SPEC, 32, "native"),
    (SMALL_DETECTOR, 64, "slices"), (SMALL_SEGMENTER, 64, "slices"),
])
def test_the_file_computes_what_training_does(name, size, group_conv):
    model, images = drawn(name, size, group_conv)
    if name == SPEC: # a softmax hides what the steps before it do
        model = keras.Model(model.input, model.get_layer("probabilities").input)
    network = quantize_aware(model, 10)
    network(images, training=True)
    known = observed_ranges(network)
    target = dict(slices="edgetpu", native="cpu")[group_conv]
    options = ExportOptions(trained=False, target=target,
                            known_ranges=lambda file, model: trained_ranges(file, model, known))
    exporter = Exporter(model, images, options)
    file = exporter.quantized("none", "a8w8")
    owner = {}
    for tensor, scale, zero in scales(FilePlaces(file).graph):
        same = {abs(zero + 128 + low / scale): layer for layer, (low, high) in known.items()
                if abs((high - low) / 255 / scale - 1) < 1e-5}
        assert same, f"{tensor} has a scale of its own"
        assert min(same) < 0.51, tensor # two layers may reach as far from other ends
        owner[tensor] = same[min(same)]
    if name == SPEC: compare(network, model, file, images[:1], owner) # no two scales are the same


def compare(network, model, file, image, owner):
    "What int8 computes is nearer to what training computes than that to float, in steps of int8."
    names = sorted({n for n in owner.values() if n in {layer.name for layer in model.layers}})
    outputs = [network.get_layer(f"{n}_range").output for n in names]
    aware = dict(zip(names, keras.Model(network.input, outputs)(image, training=False)))
    outputs = [model.get_layer(n).output for n in names]
    plain = dict(zip(names, keras.Model(model.input, outputs)(image, training=False)))
    far = []
    for tensor, y in file.activations()(image):
        name = owner.get(tensor)
        if name not in aware or np.size(y) != np.size(aware[name]): continue
        low, high = (float(w) for w in network.get_layer(f"{name}_range").weights[:2])
        ours, float_one = (np.abs(np.ravel(other[name]) - np.ravel(aware[name])).mean()
                           for other in ({name: y}, plain))
        far.append((ours * 255 / (high - low), float_one * 255 / (high - low)))
    assert len(far) > 10 and max(ours for ours, _ in far[:3]) < 0.1
    assert np.mean([a for a, _ in far]) < 0.7 * np.mean([b for _, b in far])


def done(result): assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture(scope="module")
def start(cli, tmp_path_factory):
    "A float model to start from."
    folder = tmp_path_factory.mktemp("float")
    done(cli(*TINY, "--model_dir", folder))
    assert not ranges_path(folder / MODEL).exists(), "a float training has none"
    return folder / MODEL


@pytest.fixture(scope="module")
def aware(start, cli, tmp_path_factory):
    "The same, trained on with quantisation."
    folder = tmp_path_factory.mktemp("aware")
    done(cli(*AWARE, "--start", start, "--model_dir", folder))
    return folder / MODEL


def test_it_is_an_ordinary_model_with_ranges_beside(start, aware):
    before, after = weights(start), weights(aware)
    assert [w.shape for w in before] == [w.shape for w in after]
    assert any((a != b).any() for a, b in zip(before, after)) and len(curve_of(aware.parent)) == 2
    record = json.loads((aware.parent / "train.json").read_text())
    assert record["parameters"]["train"]["quantize_aware"] is True
    note = json.loads(ranges_path(aware).read_text())
    assert note["model"] == "small"
    assert all(low <= 0 <= high for low, high in note["ranges"].values())


STOPPED = """
import sys
from edgetpu_repro.cli.main import main
from edgetpu_repro.train import loop
original = loop._Keeper.on_train_batch_end

def stop(self, batch, logs=None):
    original(self, batch, logs)
    if self.step != 6: return
    self.save()
    sys.exit(7) # as a kill, in the middle of an epoch

loop._Keeper.on_train_batch_end = stop
main(sys.argv[1:])
"""


def test_stopped_and_gone_on_it_is_the_same(start, aware, cli, tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    words = (*AWARE, "--start", start, "--model_dir", tmp_path)
    assert warm("script", tmp_path / "stopped.py", *words).returncode == 7
    assert list(tmp_path.glob("*.checkpoints/step-000000006.npz"))
    done(cli(*words))
    for a, b in zip(weights(aware), weights(tmp_path / MODEL)): np.testing.assert_array_equal(a, b)
    assert ranges_path(tmp_path / MODEL).read_text() == ranges_path(aware).read_text()
    assert curve_of(tmp_path) == curve_of(aware.parent)


def test_killed_and_gone_on_it_is_the_same(start, aware, cli, tmp_path):
    words = (*AWARE, "--start", start)
    child, said = stopped(tmp_path, signal.SIGKILL, 4, words)
    assert child.returncode == -signal.SIGKILL and not (tmp_path / "train.json").exists(), said
    done(cli(*words, "--model_dir", tmp_path))
    for a, b in zip(weights(aware), weights(tmp_path / MODEL)): np.testing.assert_array_equal(a, b)
    assert ranges_path(tmp_path / MODEL).read_text() == ranges_path(aware).read_text()


def test_export_takes_the_ranges(aware, cli, tmp_path):
    done(cli(*EXPORT, aware, "--output_dir", tmp_path))
    (path,) = tmp_path.glob("*.tflite")
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["ranges"] == "file"
    known = json.loads(ranges_path(aware).read_text())["ranges"].values()
    steps = np.array([(high - low) / 255 for low, high in known])
    for tensor, scale, _ in scales(FilePlaces(path).graph):
        assert np.abs(steps / scale - 1).min() < 1e-5, tensor
    done(cli(*EXPORT, aware, "--ranges", "calibrate", "--output_dir", tmp_path / "other"))
    assert (tmp_path / "other" / path.name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize("ranges, words", [
    ('{"ranges": {"image": [0, NaN]}}', "no pairs of finite numbers"),
    ('{"ranges": {"image": [-1, 1]}}', "the ranges are of another model than small"),
    ("[]", "is not readable as the ranges of a training"),
])
def test_bad_ranges(aware, cli, tmp_path, ranges, words):
    path = tmp_path / MODEL
    for name in (MODEL, "experiment.json"): shutil.copy(aware.with_name(name), tmp_path / name)
    ranges_path(path).write_text(ranges)
    one_line(cli(*EXPORT, path, "--output_dir", tmp_path / "out"), words)


def test_bad_starts(start, cli, tmp_path):
    alone = cli(*AWARE, "--model_dir", tmp_path / "a")
    one_line(alone, "starts from a trained model", "--start")
    model = keras.saving.load_model(start, compile=False)
    model.weights[0].assign(model.weights[0] * np.nan)
    model.save(tmp_path / "bad.keras")
    words = (*AWARE, "--start", tmp_path / "bad.keras", "--model_dir", tmp_path / "b")
    one_line(cli(*words), "has weights that are not finite")
    changes = (("precision=mixed_bfloat16", "float32"), ("freeze_body=true", "all layers"))
    for change, said in changes:
        words = (*AWARE, "--start", start, "--model_dir", tmp_path / "c", "--set", change)
        one_line(cli(*words), "quantize_aware", said)


def test_what_int8_is_not_known_of_is_refused():
    image = keras.Input((32, 32, 3))
    odd = keras.Model(image, keras.layers.Conv2D(4, 3, activation="swish", name="odd")(image))
    with pytest.raises(UsageError, match=r"what int8 makes of odd"): quantize_aware(odd, 1)
    with pytest.raises(UsageError, match="not the head alone"):
        check_quantize_aware(TrainSettings(quantize_aware=True, freeze_body=True))


@needs_jax
def test_the_notebook_runs_on_jax():
    "Rounding, ranges, gradients and what is kept, as the notebook asserts it."
    notebook = json.loads((ROOT / "nbs/train/06_quantize_aware.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    env = {"KERAS_BACKEND": "jax", "MPLBACKEND": "agg"}
    done = call(BIN / "python", "-c", "\n\n".join(cells), env=env)
    assert done.returncode == 0, done.stderr[-2000:]
