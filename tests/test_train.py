"Training as a user runs it: by name, kills, damage, bad input, several devices, other backends."

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

from edgetpu_repro.core.files import data_folder
from edgetpu_repro.train.checkpoints import keep_history

DATA = data_folder()
SMALL = (
    "--profile",
    "smoke",
    "--data_dir",
    DATA,
    "--set",
    "image_size=32",
    "--set",
    "test_images=8",
    "--set",
    "batch_size=8",
)
# Each kind of layer, in an architecture of one's own that is traced in no time.
MODEL = "small.keras"
TINY = (
    "train",
    "--experiment_type",
    ROOT / "tests/small.json",
    *SMALL,
    "--set",
    "train_images=32",
    "--set",
    "epochs=3",
    "--set",
    "dropout=0.2",
    "--set",
    "drop_connect=0.2",
    "--set",
    "flip=true",
    "--set",
    "ema=0.9",
)


def weights(path):
    "All weights of a saved model."
    from edgetpu_repro.models.blocks import load_model

    return load_model(path).get_weights()


@pytest.fixture(scope="module")
def straight(cli, tmp_path_factory):
    "A training that nobody stopped: folder, weights, curve."
    folder = tmp_path_factory.mktemp("straight")
    done = cli(*TINY, "--model_dir", folder, "--mode", "train")
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("*.history.json")), "the record is written"
    return folder, weights(folder / MODEL), curve_of(folder)


def curve_of(folder):
    return json.loads((folder / "train.json").read_text())["numbers"]["curve"]


def stopped(folder, number, step, words=TINY):
    "Start the same training, and send a signal after a checkpoint of this step; process, stderr."
    command = [BIN / "edgetpu-repro", *map(str, words), "--model_dir", folder, "--mode", "train"]
    child = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )

    def steps():
        return [int(p.stem[5:]) for p in folder.glob("*.checkpoints/step-*.npz")]

    while child.poll() is None and max(steps(), default=-1) < step:
        time.sleep(0.005)
    time.sleep(np.random.default_rng().uniform(0, 0.05))
    child.send_signal(number)
    return child, child.communicate()[1]


def test_killed_at_random_points_it_ends_with_the_same_weights(cli, straight, tmp_path):
    stopped(tmp_path, signal.SIGKILL, step=4)
    newest = max(tmp_path.glob("*.checkpoints/step-*.npz"), default=None)
    if newest:
        newest.write_bytes(newest.read_bytes()[:5000])  # and the newest checkpoint damaged
    resumed = cli(*TINY, "--model_dir", tmp_path, "--mode", "train")
    assert resumed.returncode == 0, resumed.stderr
    if newest:
        assert "is damaged" in resumed.stderr and "using the one before it" in resumed.stderr
    _, wanted, curve = straight
    for a, b in zip(wanted, weights(tmp_path / MODEL)):
        np.testing.assert_array_equal(a, b)
    assert curve_of(tmp_path) == curve


def test_a_signal_after_the_last_step_is_heard(tmp_path):
    "During the validation that follows it; then the same call has nothing more to train."
    import keras
    import tensorflow as tf

    from edgetpu_repro.core.settings import TrainSettings
    from edgetpu_repro.train.loop import train_model
    images = np.random.default_rng(0).integers(256, size=(8, 4, 4, 3), dtype="uint8")
    samples = tf.data.Dataset.from_tensor_slices((images, np.arange(8) % 2))
    heard = []

    class Late(keras.callbacks.Callback):
        def on_test_begin(self, logs=None): os.kill(os.getpid(), signal.SIGTERM)
        def on_epoch_begin(self, epoch, logs=None): heard.append(epoch)

    def trained():
        image = keras.Input((4, 4, 3))
        made = keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(image))
        settings = TrainSettings(epochs=1, batch_size=8)
        return train_model(keras.Model(image, made, name="toy"), samples, settings, 0,
                           tmp_path / "toy.keras", 0, [Late()], samples)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end: trained()
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "toy.keras").exists()
    (epoch,) = trained()
    assert np.isfinite(epoch["val_loss"]) and heard == [0] and (tmp_path / "toy.keras").is_file()


def test_a_kill_before_the_record_loses_nothing(cli, straight, tmp_path):
    folder, _, curve = straight
    for name in (MODEL, "experiment.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    keep_history(
        tmp_path / MODEL, curve, 32, 4.5
    )  # as a training does before the model gets its name
    done = cli(*TINY, "--model_dir", tmp_path, "--mode", "train")
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "train.json").read_text())["numbers"]
    assert numbers == dict(train_images=32, train_seconds=4.5, curve=curve)
    assert not list(tmp_path.glob("*.history.json"))
    assert "is trained already" in cli(*TINY, "--model_dir", tmp_path, "--mode", "train").stdout


def test_train_evaluate_export_by_name(cli, tmp_path):
    small = (*SMALL, "--set", "train_images=16")
    name = "seg_deeplabv3plus_mobilenet_edgetpuv2_tiny_ade20k_32"
    first = ("--experiment_type", name, "--experiment_name", "first_try")
    train = ("train", *first, "--model_dir", tmp_path, *small)
    trained = cli(*train)
    assert (
        trained.returncode == 0 and "mIoU" in trained.stdout and "from scratch" in trained.stderr
    ), trained
    record = json.loads((tmp_path / "evaluate.json").read_text())
    assert (
        record["name"] == "first_try"
        and 0 <= record["numbers"]["miou"] <= 1
        and set(record["numbers"]["iou"]) >= {"background"}
    )
    curve = json.loads((tmp_path / "train.json").read_text())["numbers"]["curve"]
    assert {"loss", "accuracy", "val_loss"} <= set(curve[0])
    (model,) = tmp_path.glob("*.keras")
    seen = cli(
        "evaluate",
        model,
        "--profile",
        "smoke",
        "--data_dir",
        DATA,
        "--set",
        "test_images=8",
        "--output",
        tmp_path / "e.json",
    )
    said = [line for line in trained.stdout.splitlines() if line.startswith("mIoU")]
    assert said and said[-1] in seen.stdout.splitlines(), seen
    assert json.loads((tmp_path / "e.json").read_text())["numbers"] == record["numbers"]
    again = cli(*train, "--set", "epochs=2")
    one_line(again, "holds another experiment", "train.epochs is 2, was 1")


def test_experiments_are_listed(cli):
    listed = cli("experiments").stdout
    assert (
        "seg_deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32" in listed
        and "mobilenet_edgetpu_dm1p75" in listed
    )
    assert (
        "rmsprop, staircase from 0.008 for 128 images, EMA 0.99" in listed
        and "top-1 75.79 % (published)" in listed
    )
    assert cli("experiments", cwd="/").stdout == listed, "outside of a checkout as well"


@pytest.mark.parametrize(
    "args, words",
    [
        (("--experiment_name", "mobilenet_edgetpu_v2_xxs"), ("unknown experiment", "did you mean")),
        (
            ("--experiment_name", "mobilenet_edgetpu", "--set", "epoch=3"),
            ("unknown field 'epoch'", "did you mean 'epochs'"),
        ),
        (
            ("--experiment_name", "mobilenet_edgetpu", "--set", "epochs=three"),
            ("train.epochs must be a whole number from 1",),
        ),
        (
            ("--experiment_name", "mobilenet_edgetpu", "--mode", "evaluate"),
            ("unknown mode", "did you mean 'eval'"),
        ),
        (("--experiment_name", "mobilenet_edgetpu", "--mode", "eval"), ("train it first",)),
        (
            ("--experiment_name", "mobilenet_edgetpu", "--profile", "papper"),
            ("did you mean 'paper'",),
        ),
        (
            ("--experiment_name", "mobilenet_edgetpu", "--profile", "paper", "--data_dir", "{tmp}"),
            ("imagenet2012", "is not prepared"),
        ),
        ((), ("--experiment_type",)),
        (
            ("--experiment_name", "mobilenet_edgetpu", *SMALL, "--set", "test_split=nope"),
            ("unknown split 'nope'",),
        ),
        (
            ("--experiment_name", "mobilenet_edgetpu", *SMALL, "--set", "batch_size=100000"),
            ("fewer than one batch of 100000",),
        ),
    ],
)
def test_bad_input(inside, tmp_path, args, words):
    given = [str(a).format(tmp=tmp_path) for a in args]
    one_line(inside("train", "--model_dir", tmp_path, *given), *words)
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_classes_is_refused(cli, tmp_path):
    import keras
    from edgetpu_repro import build_model

    build_model("mobilenet_edgetpu_v2_tiny", 7, 32).save(tmp_path / "m.keras")
    one_line(
        cli("evaluate", tmp_path / "m.keras", "--data_dir", DATA),
        "has 7 classes, dataset digit_scenes has 10",
    )
    one_line(cli("evaluate", tmp_path / "m.txt", "--data_dir", DATA), "m.txt is not a file")
    keras.backend.clear_session()


RATE = 0.5
BACKENDS = [b for b in ("tensorflow", "jax", "torch") if importlib.util.find_spec(b)]
# Three steps by the same code as always, for each rate, with given or fresh weights; dropout off,
# for backends draw other numbers. {setup} is run first. `test_the_updates_show` says that the
# learning rate is large enough for the updates to be seen. The model is small, to be traced in no
# time; it has each kind of layer that training treats in its own way.
CURVE = """
import os, sys
{setup}
import keras, numpy as np, tensorflow as tf
from edgetpu_repro.core.settings import TrainSettings
from edgetpu_repro.train.devices import devices
from edgetpu_repro.train.loop import train_model
rng = np.random.default_rng(0)
pixels, labels = rng.integers(0, 256, (24, 32, 32, 3)).astype("uint8"), rng.integers(0, 4, 24)
images = tf.data.Dataset.from_tensor_slices((pixels, labels))

def normed(x): return keras.layers.BatchNormalization()(x)

def build():
    image = keras.Input((32, 32, 3))
    l2 = dict(kernel_regularizer=keras.regularizers.L2(1e-4), use_bias=False)
    spatial = dict(padding="same", use_bias=False)
    x = keras.layers.Conv2D(16, 3, 2, padding="same", **l2)(image)
    x = keras.layers.ReLU()(normed(x))
    for width in (24, 32):
        y = keras.layers.ReLU()(normed(keras.layers.Conv2D(64, 1, **l2)(x)))
        y = normed(keras.layers.DepthwiseConv2D(3, 2, **spatial)(y))
        x = keras.layers.ReLU()(normed(keras.layers.Conv2D(width, 1, **l2)(y)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4, "softmax")(x), name="small")

with devices({strategy!r}):
    for rate, fresh in {runs}:
        keras.utils.set_random_seed(3)
        model = build()
        shapes = np.random.default_rng(1)
        fixed = ("gamma", "beta", "moving_mean", "moving_variance", "bias")
        weights = zip(model.weights, model.get_weights())
        drawn = []
        for v, w in weights:
            drawn.append(w if v.path.endswith(fixed) else shapes.normal(0, 0.2, w.shape))
        if not fresh: model.set_weights(drawn)
        recipe = dict(optimizer="sgd", learning_rate=rate, warmup_epochs=0.25)
        settings = TrainSettings(epochs=1, batch_size=8, **recipe)
        losses = []

        def note(batch, logs): losses.append(float(logs["loss"]))

        each = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        path = f"{{sys.argv[1]}}{{rate}}{{fresh}}.keras"
        train_model(model, images, settings, 0, path, verbose=0, callbacks=[each])
        print("CURVE", *losses)
"""
STILL = 1e-12  # a learning rate that learns nothing


def losses(output):
    return [
        [float(v) for v in line.split()[1:]]
        for line in output.splitlines()
        if line.startswith("CURVE")
    ]


GIVEN, FRESH = ((RATE, fresh) for fresh in (False, True)) # runs: (rate, whether weights are fresh)


def curves(tmp_path, backend, strategy="off", setup="", runs=(GIVEN,)):
    "For each run the loss after every step, as a running mean."
    code = CURVE.format(strategy=strategy, setup=setup, runs=runs)
    result = call(
        BIN / "python",
        "-c",
        code,
        tmp_path / f"{backend}_{strategy}",
        env={"KERAS_BACKEND": backend},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return losses(result.stdout)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    return curves(tmp_path_factory.mktemp("one"), "tensorflow", runs=(GIVEN, (STILL, False)))


@pytest.fixture(scope="module")
def on_one_device(one_device):
    return one_device[0]


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    "Given and fresh weights, in one process."
    return curves(tmp_path_factory.mktemp("jax"), "jax", runs=(GIVEN, FRESH))


def test_the_updates_show(one_device):
    learning, still = one_device
    assert len(learning) == 3 and abs(still[-1] / learning[-1] - 1) > 0.01


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "tensorflow"])
def test_backends_train_alike(tmp_path, on_one_device, backend, request):
    if backend == "jax": found = request.getfixturevalue("on_jax")
    else: found = curves(tmp_path, backend)
    np.testing.assert_allclose(found[0], on_one_device, rtol=2e-3)


TWO = {
    "tensorflow": "import tensorflow as tf; cpu = tf.config.list_physical_devices('CPU')[0]; "
    "tf.config.set_logical_device_configuration(cpu, "
    "[tf.config.LogicalDeviceConfiguration()] * 2)",
    "jax": "os.environ['XLA_FLAGS'] += ' --xla_force_host_platform_device_count=2'",
}


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b in TWO])
def test_two_devices_train_as_one(tmp_path, on_one_device, backend):
    np.testing.assert_allclose(
        curves(tmp_path, backend, "mirrored", TWO[backend])[0], on_one_device, rtol=2e-3
    )


needs_jax = pytest.mark.skipif(
    "jax" not in BACKENDS, reason="several processes are JAX's; it is not installed"
)


def two_processes(folder, *command, **environment):
    "Run a command in two processes that train together on JAX; what each printed."
    port, children = np.random.default_rng().integers(20000, 50000), []
    for i in range(2):
        env = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(i),
            **environment,
        }
        words = [str(word).format(process=i) for word in command]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(subprocess.Popen(words, env=env, cwd=ROOT, **pipes))
    found = []
    for child in children:
        out, err = child.communicate(timeout=900)
        assert child.returncode == 0, err[-2000:]
        found.append(out)
    return found


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory):
    "What each process computes of both runs."
    folder = tmp_path_factory.mktemp("two")
    script = folder / "train.py"
    script.write_text(CURVE.format(strategy="mirrored", setup="", runs=(GIVEN, FRESH)))
    each = two_processes(folder, sys.executable, script, folder / "{process}")
    return [losses(out) for out in each]


@needs_jax
@pytest.mark.parametrize("fresh", [False, True], ids=["given weights", "fresh weights"])
def test_two_processes_train_as_one(on_one_device, on_jax, in_two_processes, fresh):
    wanted = on_jax[1] if fresh else on_one_device
    for found in in_two_processes: np.testing.assert_allclose(found[fresh], wanted, rtol=2e-3)


# A host with JAX alone.
NO_TENSORFLOW = """
import importlib.util, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "tensorflow": return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "tensorflow" else find(name, *a)
"""
JAX_ALONE = (
    *TINY[:-6],
    *("--set", "test_images=9", "--set", "dropout=0", "--set", "drop_connect=0"),
    *("--set", "epochs=1", "--set", "flip=true", "--distribution_strategy", "jax"),
)


@pytest.fixture
def no_tensorflow(tmp_path):
    "Variables of a process that finds no TensorFlow, and no prepared dataset."
    (tmp_path / "sitecustomize.py").write_text(NO_TENSORFLOW)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {"PYTHONPATH": path, "EDGETPU_REPRO_HOME": str(ROOT)}


@needs_jax
def test_jax_trains_without_tensorflow(tmp_path, no_tensorflow):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = call(BIN / "edgetpu-repro", *JAX_ALONE, "--model_dir", one, env=no_tensorflow)
    assert alone.returncode == 0 and "top-1" in alone.stdout, alone.stderr[-2000:]
    words = (BIN / "edgetpu-repro", *JAX_ALONE, "--mode", "train", "--model_dir", two)
    assert all("2 processes" in out for out in two_processes(tmp_path, *words, **no_tensorflow))
    start = ("--quantize_aware", "--start", one / MODEL, "--model_dir", tmp_path / "aware")
    aware = call(BIN / "edgetpu-repro", *JAX_ALONE, *start, env=no_tensorflow)
    assert aware.returncode == 0 and "top-1" in aware.stdout, aware.stderr[-2000:]
    ranges = json.loads((tmp_path / "aware/small.ranges.json").read_text())["ranges"].values()
    assert len(ranges) > 10 and all(low <= 0 < high for low, high in ranges)
    for folder in (one, two, tmp_path / "aware"):
        (epoch,) = curve_of(folder)
        assert np.isfinite(epoch["loss"])
        assert all(np.isfinite(w).all() for w in weights(folder / MODEL))


@needs_jax
@pytest.mark.parametrize(
    "changes, words",
    [
        (("policy=autoaugment",), ("policy 'autoaugment' needs TensorFlow", "[tf]")),
        (("test_split=nope",), ("unknown split 'nope'",)),
    ],
)
def test_what_needs_tensorflow_is_said(tmp_path, no_tensorflow, changes, words):
    given = [word for change in changes for word in ("--set", change)]
    folder = tmp_path / "m"
    env = {**no_tensorflow, "KERAS_BACKEND": "jax"}
    said = call(BIN / "edgetpu-repro", *JAX_ALONE, *given, "--model_dir", folder, env=env)
    one_line(said, *words)
    assert not folder.exists() or not list(folder.iterdir())


@needs_jax
@pytest.mark.parametrize("order", ["tensorflow, keras", "keras, tensorflow"])
def test_the_backend_of_keras_own_file_is_not_hidden(tmp_path, order):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    code = (f"from edgetpu_repro.core.compat import load_less; load_less(); import {order}; "
            "import jax; print(keras.config.backend())")
    env = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": ""}
    done = call(BIN / "python", "-c", code, env=env)
    assert done.stdout.strip() == "jax", done.stderr[-2000:]
