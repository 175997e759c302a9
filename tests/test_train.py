"Training as a user runs it: experiments by name, kills and damage, bad input, several devices, other backends."
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import BIN, ROOT, call
from test_cli import one_line

DATA = ROOT / "build/data"
TINY = ("train", "--experiment_name", "mobilenet_edgetpu_v2_tiny", "--profile", "smoke", "--data_dir", DATA, "--set", "epochs=3",
        "--set", "batch_size=8", "--set", "dropout=0.2", "--set", "drop_connect=0.2", "--set", "flip=true", "--set", "ema=0.9")


def weights(path):
    "All weights of a saved model, in a process of its own."
    code = ("import sys, numpy as np; from edgetpu_repro.models.blocks import load_model; "
            "np.savez(sys.argv[2], *load_model(sys.argv[1]).get_weights())")
    assert call(BIN / "python", "-c", code, path, f"{path}.npz").returncode == 0
    with np.load(f"{path}.npz") as file: return [file[name] for name in file.files]


def test_killed_at_random_points_it_ends_with_the_same_weights(cli, tmp_path):
    straight = cli(*TINY, "--model_dir", tmp_path / "a", "--mode", "train")
    assert straight.returncode == 0, straight.stderr
    again, random = (*TINY, "--model_dir", tmp_path / "b", "--mode", "train"), np.random.default_rng()
    for epoch in (1, 2): # killed some time after the end of this epoch
        child = subprocess.Popen([BIN / "edgetpu-repro", *map(str, again)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not list((tmp_path / "b").glob(f"*.checkpoints/step-{8 * epoch:09d}.npz")): time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        child.send_signal(signal.SIGKILL)
        child.wait()
    newest = max((tmp_path / "b").glob("*.checkpoints/step-*.npz"), default=None)
    if newest: newest.write_bytes(newest.read_bytes()[:5000]) # and the newest checkpoint damaged
    resumed = cli(*again)
    assert resumed.returncode == 0, resumed.stderr
    if newest: assert "is damaged" in resumed.stderr and "using the one before it" in resumed.stderr
    both = [weights(tmp_path / folder / "mobilenet_edgetpu_v2_tiny.keras") for folder in "ab"]
    for a, b in zip(*both): np.testing.assert_array_equal(a, b)
    curves = [json.loads((tmp_path / folder / "train.json").read_text())["numbers"]["curve"] for folder in "ab"]
    assert curves[0] == curves[1]


def test_train_evaluate_export_by_name(cli, tmp_path):
    small = ("--profile", "smoke", "--data_dir", DATA, "--set", "train_images=16", "--set", "batch_size=8")
    name = "seg_deeplabv3plus_mobilenet_edgetpuv2_tiny_ade20k_32"
    trained = cli("train", "--experiment_type", name, "--experiment_name", "first_try", "--model_dir", tmp_path, *small)
    assert trained.returncode == 0 and "mIoU" in trained.stdout and "from scratch" in trained.stderr, trained
    record = json.loads((tmp_path / "evaluate.json").read_text())
    assert record["name"] == "first_try" and 0 <= record["numbers"]["miou"] <= 1 and set(record["numbers"]["iou"]) >= {"background"}
    curve = json.loads((tmp_path / "train.json").read_text())["numbers"]["curve"]
    assert {"loss", "accuracy", "val_loss"} <= set(curve[0])
    model, = tmp_path.glob("*.keras")
    seen = cli("evaluate", model, "--profile", "smoke", "--data_dir", DATA, "--output", tmp_path / "e.json")
    assert seen.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1], seen
    assert json.loads((tmp_path / "e.json").read_text())["numbers"] == record["numbers"]
    again = cli("train", "--experiment_type", name, "--experiment_name", "first_try", "--model_dir", tmp_path, *small, "--set", "epochs=2")
    one_line(again, "holds another experiment", "train.epochs is 2, was 1")


def test_experiments_are_listed(cli):
    listed = cli("experiments").stdout
    assert "seg_deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32" in listed and "mobilenet_edgetpu_dm1p75" in listed
    assert "rmsprop, staircase from 0.008 for 128 images, EMA 0.99" in listed and "top-1 75.79 % (published)" in listed
    assert cli("experiments", cwd="/").stdout == listed, "outside of a checkout as well"


@pytest.mark.parametrize("args, words", [
    (("--experiment_name", "mobilenet_edgetpu_v2_xxs"), ("unknown experiment", "did you mean")),
    (("--experiment_name", "mobilenet_edgetpu", "--set", "epoch=3"), ("unknown field 'epoch'", "did you mean 'epochs'")),
    (("--experiment_name", "mobilenet_edgetpu", "--set", "epochs=three"), ("epochs must be int",)),
    (("--experiment_name", "mobilenet_edgetpu", "--mode", "evaluate"), ("unknown mode", "did you mean 'eval'")),
    (("--experiment_name", "mobilenet_edgetpu", "--mode", "eval"), ("train it first",)),
    (("--experiment_name", "mobilenet_edgetpu", "--profile", "papper"), ("did you mean 'paper'",)),
    (("--experiment_name", "mobilenet_edgetpu", "--profile", "paper", "--data_dir", "{tmp}"), ("imagenet2012", "is not prepared")),
    ((), ("--experiment_type",)),
])
def test_bad_input(cli, tmp_path, args, words):
    one_line(cli("train", "--model_dir", tmp_path, *(a.format(tmp=tmp_path) for a in args)), *words)
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_classes_is_refused(cli, tmp_path):
    import keras
    from edgetpu_repro import build_model
    build_model("mobilenet_edgetpu_v2_tiny", 7, 32).save(tmp_path / "m.keras")
    one_line(cli("evaluate", tmp_path / "m.keras", "--data_dir", DATA), "has 7 classes, dataset digit_scenes has 10")
    one_line(cli("evaluate", tmp_path / "m.txt", "--data_dir", DATA), "m.txt is not a file")
    keras.backend.clear_session()


RATE = 3e-4
BACKENDS = [b for b in ("tensorflow", "jax", "torch") if importlib.util.find_spec(b)]
# Three steps by the same code as always; dropout off, for backends draw other numbers. {setup} is run first. Rounding grows from
# step to step, so the learning rate is small; `test_the_updates_show` says that it is not too small to be seen.
CURVE = """
import os, sys
{setup}
import keras, numpy as np, tensorflow as tf
from edgetpu_repro.core.settings import TrainSettings
from edgetpu_repro import build_model
from edgetpu_repro.train.devices import devices
from edgetpu_repro.train.loop import train_model
rng = np.random.default_rng(0)
images = tf.data.Dataset.from_tensor_slices((rng.integers(0, 256, (24, 64, 64, 3)).astype("uint8"), rng.integers(0, 4, 24)))
with devices({strategy!r}):
    model = build_model("mobilenet_edgetpu_v2_tiny", 4, 64, dropout=0.0, drop_connect=0.0)
    shapes = np.random.default_rng(1)
    model.set_weights([w if "norm" in v.path else shapes.normal(0, 0.05, w.shape) for v, w in zip(model.weights, model.get_weights())])
    settings = TrainSettings(epochs=1, batch_size=8, optimizer="sgd", learning_rate={rate}, warmup_epochs=0.25)
    losses = []
    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(float(logs["loss"])))
    train_model(model, images, settings, 0, sys.argv[1], verbose=0, callbacks=[each])
print("CURVE", *losses)
"""


def curve(tmp_path, backend, strategy="off", setup="", rate=RATE):
    "The loss after every step, as a running mean."
    code = CURVE.format(strategy=strategy, setup=setup, rate=rate)
    result = call(BIN / "python", "-c", code, tmp_path / f"{backend}_{strategy}.keras", env={"KERAS_BACKEND": backend})
    assert result.returncode == 0, result.stderr[-2000:]
    return [float(v) for v in result.stdout.split("CURVE")[1].split()]


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory): return curve(tmp_path_factory.mktemp("one"), "tensorflow")


def test_the_updates_show(tmp_path, on_one_device):
    assert abs(curve(tmp_path, "tensorflow", rate=0.0)[-1] / on_one_device[-1] - 1) > 0.01


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "tensorflow"])
def test_backends_train_alike(tmp_path, on_one_device, backend):
    np.testing.assert_allclose(curve(tmp_path, backend), on_one_device, rtol=2e-3)


TWO = {"tensorflow": "import tensorflow as tf; tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0], "
                     "[tf.config.LogicalDeviceConfiguration()] * 2)",
       "jax": "os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=2'"}


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b in TWO])
def test_two_devices_train_as_one(tmp_path, on_one_device, backend):
    np.testing.assert_allclose(curve(tmp_path, backend, "mirrored", TWO[backend]), on_one_device, rtol=2e-3)


@pytest.mark.skipif("jax" not in BACKENDS, reason="several processes are JAX's; it is not installed")
def test_two_processes_train_as_one(tmp_path, on_one_device):
    port, children = np.random.default_rng().integers(20000, 50000), []
    for i in range(2):
        env = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
               "KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "KERAS_DISTRIBUTION_PROCESS_ID": str(i)}
        code = CURVE.format(strategy="mirrored", setup="", rate=RATE)
        children.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"{i}.keras")], env=env, text=True, cwd=ROOT,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    for child in children:
        out, err = child.communicate(timeout=600)
        assert child.returncode == 0, err[-2000:]
        np.testing.assert_allclose([float(v) for v in out.split("CURVE")[1].split()], on_one_device, rtol=2e-3)
