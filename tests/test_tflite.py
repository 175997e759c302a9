"Exported files: cards, checks, formats and recipes; predictions; and files of strangers."

import hashlib
import json
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BIN, ROOT, SMALL, call
from PIL import Image
from test_cli import one_line

from edgetpu_repro import build_model
from edgetpu_repro.models.blocks import load_model
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.predict import predictor
from edgetpu_repro.tflite.convert import freeze
from edgetpu_repro.tflite.quantize import to_tflite
from edgetpu_repro.tflite.isolation import probe, run_isolated
from edgetpu_repro.tflite.content import pack
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.metadata import with_metadata
from edgetpu_repro.weights.graphs import file_graph

SCENES = ("--dataset_name", "digit_scenes", "--data_dir", ROOT / "build/data")
COMMON = ("--image_size", 32, "--num_calibration_steps", 8, *SCENES)
NAME = "small"


def exporting(folder, *words, model=SMALL):
    "The words of an export of a small model into a folder."
    return ("export", "--model_name", model, "--output_dir", folder, *words, *COMMON)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    "A model that gives clear answers: int8 of it keeps them."
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "m.keras"
    model = build_model(SMALL, 10, 32)
    kernel, bias = model.get_layer("classifier").get_weights()
    model.get_layer("classifier").set_weights([kernel * 1e-3, bias])
    model.save(path)
    return path


def card_of(path):
    return json.loads(path.with_name(path.name + ".json").read_text())


def test_an_export_has_a_card_and_metadata_and_is_the_same_file_every_time(cli, tmp_path, weights):
    for folder in ("a", "b"):
        words = ("--ckpt_path", weights, "--quantize", "--report", "--allow_degraded")
        done = cli(*exporting(tmp_path / folder, *words))
        assert done.returncode == 0 and "RANDOM" not in done.stderr, done
    file = tmp_path / f"a/{NAME}_int8.tflite"
    assert sorted(p.name for p in file.parent.iterdir()) == [
        f"{NAME}_int8{end}" for end in (".tflite", ".tflite.json", "_layers.csv", "_layers.png")
    ]
    assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    card = card_of(file)
    assert (
        card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        and card["bytes"] == file.stat().st_size
    )
    assert card["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (
        card["check"]["float_error"] <= 1e-4
        and card["check"]["images"] == 32
        and card["trained"]
        and card["refused_by_edgetpu"] == []
    )
    assert (
        card["inputs"][0]["dtype"] == card["outputs"][0]["dtype"] == "int8"
        and card["versions"]["CONV_2D"] <= 3
    )
    assert card["calibration"] == dict(
        dataset="digit_scenes", split="train", images=8, central_crop=False
    )
    assert TFLiteFile.open(file).labels == tuple("0123456789")


def test_a_degraded_file_is_kept_and_said(cli, tmp_path, weights):
    model = load_model(weights)
    kernel, bias = model.get_layer("classifier").get_weights()
    bias[0] = -1e6  # a class far below the others takes all steps of the logits
    model.get_layer("classifier").set_weights([kernel * 1e3, bias])
    model.save(tmp_path / "bad.keras")
    export = exporting(tmp_path / "out", "--ckpt_path", tmp_path / "bad.keras", "--quantize")
    one_line(cli(*export), "degraded by quantisation", "--allow_degraded", "agreement")
    file = tmp_path / "out" / f"{NAME}_int8.tflite"
    assert file.is_file() and card_of(file)["degraded"]
    allowed = cli(*export, "--allow_degraded")
    assert allowed.returncode == 0 and "WARNING: degraded" in allowed.stderr


def test_recipes_targets_and_methods_in_one_go(cli, tmp_path):
    recipes = [word for recipe in ("a8w8", "a16w8", "dynamic") for word in ("--recipe", recipe)]
    words = ("--quantizer", "aeq", *recipes, "--rule", ":classifier=float", "--target", "cpu")
    done = cli(*exporting(tmp_path, *words))
    assert done.returncode == 0, done
    made = sorted(p.name for p in tmp_path.glob("*.tflite"))
    assert made == [f"{NAME}_cpu_{name}.tflite" for name in ("a16w8", "dynamic", "int8_aeq")]
    dtype = {p.name: card_of(p)["inputs"][0]["dtype"] for p in tmp_path.glob("*.tflite")}
    assert [dtype[name] for name in made] == ["int16", "float32", "int8"]
    assert "SPLIT" not in card_of(tmp_path / made[2])["operators"], "native group convolutions"
    assert len(file_graph(tmp_path / made[2])) > 10, (
        "its weights lie behind the table of the file, and are found"
    )


def test_less_restrictive_and_output_layer_and_formats(cli, tmp_path, weights):
    base = exporting(tmp_path, "--ckpt_path", weights)
    assert cli(*base, "--quantize_less_restrictive", "--allow_degraded").returncode == 0
    card = card_of(tmp_path / f"{NAME}_int8.tflite")
    assert (card["inputs"][0]["dtype"], card["outputs"][0]["dtype"]) == ("int8", "float32")
    assert cli(*base, "--output_layer", "block03_project").returncode == 0
    assert card_of(tmp_path / f"{NAME}_block03_project_float.tflite")["outputs"][0]["shape"][
        :3
    ] == [1, 4, 4]
    one_line(cli(*base, "--output_layer", "block3_project"), "did you mean", "'block03_project'")
    assert (
        cli(*base, "--format", "keras").returncode == 0
        and cli(*base, "--format", "saved_model").returncode == 0
    )
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    wanted = predictor(load_model(weights))(images)
    np.testing.assert_allclose(
        predictor(load_model(tmp_path / f"{NAME}.keras"))(images), wanted, atol=1e-6
    )
    import tensorflow as tf

    saved = tf.saved_model.load(str(tmp_path / f"{NAME}_saved_model"))
    np.testing.assert_allclose(saved.serve(images), wanted, atol=1e-5)


def test_the_module_by_its_original_name(tmp_path):
    command = (BIN / "python", "-m", "edgetpu_repro.export_tflite", f"--output_dir={tmp_path}")
    done = call(*command, f"--model_name={SMALL}", "--quantize=false", "--image_size=32")
    assert done.returncode == 0 and (tmp_path / f"{NAME}_float.tflite").is_file(), done
    one_line(call(*command, "--model_name=mobilenet"), "unknown model")


@pytest.mark.parametrize(
    "words, answer",
    [
        (("--quantizer", "tfl", "--quantize"), ("unknown quantizer", "did you mean 'tf'")),
        (("--recipe", "a16w8"), ("needs --quantizer aeq",)),
        (("--quantizer", "aeq", "--rule", "CONV_2D"), ("OPERATOR:REGEX=RECIPE",)),
        (("--quantizer", "aeq", "--rule", "CONV_2D:(=float"), ("no regular expression",)),
        (("--target", "tpu"), ("unknown target", "edgetpu")),
        (("--format", "onnx"), ("unknown format", "saved_model")),
        (("--format", "keras", "--quantize"), ("holds no quantised model",)),
        (("--report",), ("--report needs --quantize",)),
        (("--labels", "missing.txt", "--quantize"), ("missing.txt is not a file",)),
    ],
)
def test_bad_words(inside, tmp_path, words, answer):
    one_line(
        inside(*exporting(tmp_path, *words)), *answer
    )
    assert not list(tmp_path.iterdir())


def test_predict(cli, tmp_path, weights):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (50, 70, 3), "uint8")).save(tmp_path / "p.jpg")
    Image.fromarray(rng.integers(0, 256, (40, 30, 4), "uint8")).save(tmp_path / "q.png")
    made = cli(*exporting(tmp_path, "--ckpt_path", weights, "--quantize", "--allow_degraded"))
    assert made.returncode == 0, made
    file = tmp_path / f"{NAME}_int8.tflite"
    said = cli("predict", file, tmp_path / "p.jpg", tmp_path / "q.png", "--top", 3)
    lines = said.stdout.splitlines()
    assert (
        said.returncode == 0 and len(lines) == 2 and all(line.count("%") == 3 for line in lines)
    ), said
    (tmp_path / "names.txt").write_text("\n".join(f"name{i}" for i in range(10)))
    assert (
        "name"
        in cli("predict", weights, tmp_path / "p.jpg", "--labels", tmp_path / "names.txt").stdout
    )
    exported = cli(*exporting(tmp_path, "--quantize", model="autoseg_edgetpu_xs"))
    assert exported.returncode == 0, exported
    mask = tmp_path / "autoseg_edgetpu_xs_resize32_argmax_int8.tflite"
    masked = cli("predict", mask, tmp_path / "p.jpg", "--output_dir", tmp_path / "masks")
    assert masked.returncode == 0, masked
    with Image.open(tmp_path / "masks/p_mask.png") as mask:
        assert mask.size == (70, 50) and mask.mode == "P"
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    one_line(cli("predict", file, tmp_path / "bad.jpg"), "bad.jpg is not a picture")
    one_line(cli("predict", file, tmp_path / "missing.jpg"), "missing.jpg is not a file")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    one_line(cli("predict", file, tmp_path / "p.jpg"), "SHA-256 differs")


@pytest.mark.parametrize("command", ["predict", "benchmark", "evaluate", "latency"])
def test_commands_survive_bad_files(inside, tmp_path, command):
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    good = to_tflite(freeze(build_model(SMALL, 10, 32)))
    after = (tmp_path / "p.png",) if command == "predict" else ()
    bad = {"empty": b"", "zero": bytes(4096), "cut": good[:5000], "text": b"not a model at all"}
    for name, content in bad.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
        one_line(inside(command, tmp_path / f"{name}.tflite", *after), f"{name}.tflite")
    (tmp_path / "folder.tflite").mkdir()
    one_line(inside(command, tmp_path / "folder.tflite", *after), "folder.tflite is not a file")
    with open(tmp_path / "huge.tflite", "wb") as f:
        f.truncate(5 * 2**30)  # sparse
    one_line(inside(command, tmp_path / "huge.tflite", *after), "huge.tflite has more than 1 GiB")


MUTATE = """
import sys, tempfile, numpy as np
from collections import Counter
from pathlib import Path
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.tflite.isolation import probe
content, fates = Path(sys.argv[1]).read_bytes(), Counter()
for seed in range(500):
    rng, damaged = np.random.default_rng(seed), np.frombuffer(content, "uint8").copy()
    kind = seed % 5
    if kind == 0: damaged = damaged[:rng.integers(0, len(damaged))] # truncated
    elif kind == 1: damaged[(at := rng.integers(0, len(damaged))):at + rng.integers(1, 400)] = 0
    else: # bits flipped: anywhere, or where the structure lies
        where = rng.integers(0, len(damaged) if kind == 2 else len(damaged) // 10, 1 + seed % 9)
        damaged[where] ^= (1 << rng.integers(0, 8, len(where))).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        path.write_bytes(damaged.tobytes())
        try: probe(path, seconds=20)
        except UsageError as e:
            assert len(str(e).splitlines()) == 1 and "m.tflite" in str(e), e
            crashed, stopped = "crashed" in str(e), "did not finish" in str(e)
            fates["crashed" if crashed else "stopped" if stopped else "refused"] += 1
        else: fates["runs"] += 1
print(dict(fates))
"""


def test_500_mutations_do_no_harm(tmp_path):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    (tmp_path / "real.tflite").write_bytes(to_tflite(freeze(build_model(SMALL, 10, 32)), images))
    done = call(BIN / "python", "-c", MUTATE, tmp_path / "real.tflite")
    fates = Counter(eval(done.stdout)) if done.returncode == 0 else None
    assert fates and sum(fates.values()) == 500 and fates["refused"] > 100 and fates["runs"] > 50, (
        done
    )


def test_probe_and_predictor_agree_on_a_good_file(tmp_path):
    content = to_tflite(freeze(build_model(SMALL, 10, 32)))
    (tmp_path / "m.tflite").write_bytes(content)
    probe(tmp_path / "m.tflite")
    image = np.zeros((1, 32, 32, 3), "float32")
    predictors = [
        TFLiteFile.open(tflite).predictor() for tflite in (content, tmp_path / "m.tflite")
    ]
    assert np.array_equal(*(predict(image) for predict in predictors))
    with pytest.raises(UsageError, match="is not a file"):
        probe(tmp_path / "x.tflite")


def test_shapes_that_a_file_does_not_store_come_from_the_interpreter(tmp_path):
    "As the published MobileNetEdgeTPU has it: no shape of an activation in the file."
    whole = TFLiteFile.open(to_tflite(freeze(build_model(SMALL, 10, 64))))
    model = whole.unpack()
    graph = model.subgraphs[0]
    made = {int(t) for op in graph.operators for t in op.outputs}
    for i in made:
        graph.tensors[i].shape = np.zeros(0, "int32")
    rows = TFLiteFile.open(pack(model)).operators
    assert rows == whole.operators and all(r["output"] for r in rows)


ORPHAN = """
import os, sys, time
from edgetpu_repro.tflite.isolation import run_isolated
def work():
    open(sys.argv[1], "w").write(str(os.getpid()) + " ")
    time.sleep(60)
run_isolated(work)
"""


def running(pid):
    "Whether a process runs; one that is dead and not yet collected does not."
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_dies_with_its_parent(tmp_path):
    note = tmp_path / "pid"
    parent = subprocess.Popen([BIN / "python", "-c", ORPHAN, note])
    while not (note.exists() and note.read_text().endswith(" ")):
        time.sleep(0.05)
    child = int(note.read_text())
    assert running(child)
    parent.kill()
    parent.wait()
    for _ in range(200):
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def test_the_limit_that_was_hit_is_said():
    with pytest.raises(UsageError, match="a file needs more than the 0.5 GiB of memory"):
        run_isolated(bytearray, 2**30, memory=2**29, what="a file")
    with pytest.raises(UsageError, match="a file did not finish within 0.1 s"):
        run_isolated(time.sleep, 30, seconds=0.1, what="a file")


class Unsendable(Exception):
    "An exception that does not survive a pipe."

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def raise_unsendable():
    raise Unsendable("this", "that")


def test_any_exception_of_a_child_comes_back():
    with pytest.raises(UsageError, match="Unsendable: this that"):
        run_isolated(raise_unsendable)


def test_a_killed_child_leaves_no_temporary_file():
    before = set(Path(tempfile.gettempdir()).iterdir())
    with pytest.raises(UsageError):
        run_isolated(keep_and_sleep, seconds=1)
    left = set(Path(tempfile.gettempdir()).iterdir()) - before
    assert not [p for p in left if p.name.startswith("edgetpu-repro.")]


def keep_and_sleep():
    Path(tempfile.mkdtemp(), "kept").write_text("kept")
    time.sleep(30)


def test_a_batch_of_zero_images_is_refused_in_a_line(inside, tmp_path):
    file = TFLiteFile.open(to_tflite(freeze(build_model(SMALL, 10, 32))))
    model = file.unpack()
    image = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    image.shape = np.array([0, *image.shape[1:]], "int32")
    (tmp_path / "empty.tflite").write_bytes(pack(model))
    with pytest.raises(UsageError, match="empty.tflite"):
        probe(tmp_path / "empty.tflite")
    one_line(inside("benchmark", tmp_path / "empty.tflite"), "empty.tflite")


def test_labels_of_a_hostile_archive_are_not_read():
    content = with_metadata(to_tflite(freeze(build_model(SMALL, 10, 32))), NAME, labels=("a", "b"))
    assert TFLiteFile.open(content).labels == ("a", "b")
    end = content.rfind(b"PK\x05\x06")
    many = bytearray(content)
    many[end + 10 : end + 12] = (60_000).to_bytes(2, "little")
    assert TFLiteFile.open(bytes(many)).labels == ()
    assert TFLiteFile.open(content[:-3]).labels == ()


FULL = """
import resource, sys
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro import build_model
from edgetpu_repro.tflite.formats import write_saved_model
model = build_model("tests/small.json", 10, 32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try: write_saved_model(model, sys.argv[1])
except UsageError as e: print(e)
"""


def test_a_saved_model_that_cannot_be_written_is_one_line(tmp_path):
    done = call(BIN / "python", "-c", FULL, tmp_path / "saved")
    assert done.returncode == 0 and "could not be written" in done.stdout, done
    assert "File too large" in done.stdout and "{{" not in done.stdout
    assert len(done.stdout.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def small():
    "A trained network, as far as its export knows, and pictures of its size."
    import keras
    from edgetpu_repro import build_model
    keras.utils.set_random_seed(0)
    pictures = np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype("float32")
    return build_model(SMALL, 4, 32), pictures


def exported(small, folder, pictures, **options):
    from edgetpu_repro.tflite.export import export_model
    from edgetpu_repro.tflite.options import ExportOptions
    ((_, card),) = export_model(small[0], folder, pictures, ExportOptions(**options))
    return card


@pytest.mark.parametrize("make, words", [
    (lambda p: 0 * p[:8] - 1, "8 of 8 calibration images are of one colour"),
    (lambda p: p[:1], "1 different calibration images, at least 8 are needed"),
    (lambda p: np.repeat(p[:2], 16, 0), "2 different calibration images"),
    (lambda p: 127.5 * (p + 1), "to 255, not from -1 to 1"),
    (lambda p: (127.5 * (p + 1)).astype("uint8"), "reach from 0 to 25"),
    (lambda p: (p + 1) / 2, "scaled to 0..1 in place of -1..1?"),
    (lambda p: p / 255, "only"),
])
def test_bad_calibration_pictures_are_named_and_degrade(small, tmp_path, make, words):
    card = exported(small, tmp_path, make(small[1]))
    assert any(words in line for line in card["degraded"]), card["degraded"]
    assert card["check"]["source"] == "generated"


def test_a_file_is_checked_on_pictures_that_it_was_not_calibrated_on(small, tmp_path, monkeypatch):
    from edgetpu_repro.tflite import export as module
    seen, before = [], module.activation_ranges

    def ranges(file, images, *more):
        seen.append(images)
        return before(file, images, *more)

    monkeypatch.setattr(module, "activation_ranges", ranges)
    for pictures, options, numbers in ((64, {}, (48, 16)), (40, dict(calibrate_on=30), (30, 10)),
                                       (12, dict(calibrate_on=100), (9, 3))):
        check = exported(small, tmp_path, small[1][:pictures], **options)["check"]
        assert (len(seen[-1]), check["images"]) == numbers
        assert (check["source"], check["problems"]) == ("held-out", [])
        assert np.array_equal(seen[-1], small[1][:numbers[0]])


@pytest.mark.parametrize("pictures, words", [
    (np.zeros((8, 48, 48, 3)), "(8, 48, 48, 3), not (n, 32, 32, 3)"),
    (np.zeros((32, 32, 3)), "(32, 32, 3), not (n, 32, 32, 3)"),
    (np.zeros((8, 32, 32, 1)), "not (n, 32, 32, 3)"),
    (np.zeros((0, 32, 32, 3)), "no calibration images"), ([], "no calibration images"),
    (np.full((8, 32, 32, 3), np.nan), "NaN or infinity"), ("pictures", "no array of numbers"),
])
def test_pictures_that_are_none_for_the_model_are_one_line(small, tmp_path, pictures, words):
    from edgetpu_repro.core.errors import UsageError
    from edgetpu_repro.tflite.convert import freeze
    from edgetpu_repro.tflite.quantize import export_tflite
    for way in (lambda: exported(small, tmp_path, pictures),
                lambda: export_tflite(freeze(small[0]), tmp_path / "m.tflite", pictures)):
        with pytest.raises(UsageError) as e: way()
        assert words in str(e.value)
    assert not [*tmp_path.iterdir()]
