"The command line as a user meets it; bad input: one line, non-zero exit, nothing half-written."

import json
import os
import resource
import signal
import subprocess
import time

import pytest
import typer
from conftest import BIN, ROOT, call

from edgetpu_repro import __version__, list_models
from edgetpu_repro.cli.main import app

EXPORT = ("export", "--output_dir", "/dev/null/x", "--model_name")
SMALL = (
    "--image_size",
    32,
    "--num_classes",
    4,
    "--num_calibration_steps",
    2,
    "--dataset_name",
    "digit_scenes",
    "--data_dir",
    ROOT / "build/data",
)


def one_line(result, *words, code=(1, 2)):
    "The answer to a mistake."
    assert result.returncode in code, result
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("error: "), (
        result.stderr
    )
    for word in words:
        assert word in result.stderr, result.stderr


def test_help_is_quick_because_tensorflow_is_imported_late():
    loaded = call(
        BIN / "python",
        "-c",
        "import sys, edgetpu_repro, edgetpu_repro.cli.main; print(*sys.modules)",
    ).stdout.split()
    assert not {"tensorflow", "keras", "numpy", "pandas"} & set(loaded)


def test_list_and_info(installed, inside):
    listed = installed("list").stdout
    assert all(name in listed for name in list_models())
    small = inside("info", "mobilenet_edgetpu", "--image-size", 64).stdout
    assert small == inside("info", "mobilenet_edgetpu", "--image_size=64").stdout
    assert "MACs" in inside("info", "mobilenet_v2").stdout


@pytest.mark.parametrize(
    "name, line",
    [
        (
            "mobilenet_edgetpu_v2_xs",
            "4,504,393 parameters, 4,462,697 of them trainable; 707.5 M MACs",
        ),
        ("autoseg_edgetpu_xs", "2,387,224 parameters, 2,354,904 of them trainable; 1,914.2 M MACs"),
        ("seg_deeplabv3plus_mobilenet_edgetpuv2_s_ade20k", "decoder1_depthwise"),
    ],
)
def test_info_counts(inside, name, line):
    assert line in inside("info", name).stdout


def options_of(command):
    "All spellings of a command's options."
    options = [p for p in command.params if p.param_type_name == "option"]
    return sorted({o for p in options for o in (*p.opts, *p.secondary_opts)})


def test_no_option_gets_lost():
    "Every command keeps the options of the committed list; a new one is added to it."
    commands = typer.main.get_command(app).commands
    options = {name: options_of(command) for name, command in commands.items()}
    assert options == json.loads((ROOT / "tests/options.json").read_text())


def test_one_vocabulary():
    "One spelling an option in the help, `--json` wherever there is an answer, folders by one name."
    commands = typer.main.get_command(app).commands
    for command in commands.values():
        for p in command.params:
            assert p.param_type_name != "option" or len(p.opts) == 1 or "-h" in p.opts, p.opts
    options = json.loads((ROOT / "tests/options.json").read_text())
    assert {name for name, known in options.items() if "--json" not in known} == {
        "records", # its commands have it
        "reproduce",
        "search", # likewise
    }
    folders = {o for known in options.values() for o in known if o.endswith("-dir")}
    assert folders == {"--data-dir", "--model-dir", "--output-dir"}


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "m.keras", "--data_dir"),
        ("evaluate", "m.keras", "--dataset-dir"),
        ("train", "--experiment", "mobilenet_edgetpu", "--dataset_dir"),
        ("train", "--experiment_type", "mobilenet_edgetpu", "--set", "name=mine", "--data_dir"),
        ("export", "--model_name", "mobilenet_v2", "--output_dir", "/dev/null/x", "--dataset_dir"),
    ],
)
def test_a_mistyped_folder_is_said_before_a_name_is_guessed(inside, words):
    one_line(inside(*words, "tdfs"), "tdfs is not a folder")


@pytest.mark.parametrize("off", ["--no-quantize", "--noquantize", "--quantize=false"])
def test_flags_of_other_tools(inside, off):
    words = (*EXPORT, "mobilenet_edgetpu", "--quantize=true", "--format=keras", "--nocentral_crop")
    one_line(inside(*words), "holds no quantised model")
    one_line(inside(*words, off), "/dev/null")
    nnapi = ("benchmark", "m.tflite", "--use_nnapi=true", "--nnapi_accelerator=google-edgetpu")
    one_line(inside(*nnapi), "need --device adb")


@pytest.mark.parametrize(
    "given, taken",
    [
        ("mobilenet_edgetpu_xs", "mobilenet_edgetpu_v2_xs"),
        ("MobileNetEdgeTPUv2-Tiny", "mobilenet_edgetpu_v2_tiny"),
        ("MobileNetEdgeTPU dm1.5", "mobilenet_edgetpu_dm1p5"),
        ("deeplabv3plus_mobilenet_edgetpuv2_s", "deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32"),
    ],
)
def test_names_of_the_page(inside, given, taken):
    for command in ("info", "latency"):
        done = inside(command, given, "--json")
        assert done.returncode == 0 and json.loads(done.stdout), done
        assert done.stderr == f"{given} is taken for {taken}\n"
    assert inside("info", taken).stdout == inside("info", given).stdout
    assert not inside("info", taken).stderr
    train = inside("train", "--experiment_type", given, "--mode", "eval")
    assert f"{taken}.keras is not there" in train.stderr.splitlines()[-1]


def test_numbers_of_models_agree(inside):
    models = json.loads(inside("list", "--json").stdout)
    assert f"there are {len(models)}," in inside("info", "foo").stderr
    experiments = json.loads(inside("experiments", "--json").stdout)
    assert f"there are {len(experiments)}," in inside("train", "--experiment_type=foo").stderr
    assert len(list_models()) == len(models)


def test_a_training_has_a_folder_of_its_name(inside):
    words = ("train", "--experiment_type", "mobilenet_v2", "--mode", "eval", "--experiment_name")
    one_line(inside(*words, "mine"), "runs/mine/mobilenet_v2.keras is not there")
    for name in ("../mine", "..", "a/b"): one_line(inside(*words, name), "give --model_dir")


@pytest.mark.parametrize(
    "module, words",
    [
        ("export_tflite", ("--model_name=foo", "--noquantize", "--output_dir=x")),
        ("train", ("--experiment_type=foo", "--experiment_name=mine", "--mode=train_and_eval")),
    ],
)
def test_the_programs_of_the_page(module, words):
    one_line(call(BIN / "python", "-m", f"edgetpu_repro.{module}", *words), "'foo'; there are")


def test_nothing_given_prints_the_help_and_version_the_version(installed):
    bare, version = installed(), installed("--version")
    assert bare.returncode == 0 and not bare.stderr
    assert "benchmark" in bare.stdout and len(bare.stdout.splitlines()) > 10
    assert version.stdout == f"edgetpu-repro {__version__}\n"


def test_the_shell_completes(cli):
    "What bash asks when the user presses the tab key."

    def complete(words):
        count = len(words.split()) - 1
        env = dict(_EDGETPU_REPRO_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count))
        return cli(env=env).stdout.split()

    assert complete("edgetpu-repro be") == ["benchmark"]
    assert complete("edgetpu-repro benchmark --rep") == ["--repeat"]


@pytest.mark.parametrize(
    "args",
    [("list",), ("info", "mobilenet_edgetpu"), ("info", "autoseg_edgetpu_xs"), ("experiments",)],
)
def test_json_is_one_document(inside, args):
    done = inside(*args, "--json")
    assert done.returncode == 0 and json.loads(done.stdout), done


def test_ctrl_c_is_one_line(inside, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgetpu_repro.cli.models.list_models", stopped)
    one_line(inside("list"), "interrupted", code=(130,))


def test_ctrl_c_while_a_native_module_loads_is_one_line(inside, monkeypatch):
    "pybind11 makes an ImportError of it."
    from edgetpu_repro.cli import main

    def app(args, standalone_mode):
        raise ImportError("initialization failed") from KeyboardInterrupt

    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(main, "_flags", set)
    one_line(inside("list"), "interrupted", code=(130,))


def test_what_can_be_fetched_is_listed(inside):
    listed = inside("fetch", "--list")
    assert (
        listed.returncode == 0
        and "autoseg_edgetpu_s" in listed.stdout
        and "tflite_fused" in listed.stdout
    )


@pytest.mark.parametrize("address", ["foo", "http://[::1", "file:"])
def test_what_is_no_address_is_refused(inside, tmp_path, address):
    words = ("--output_dir", tmp_path, "--base_url", address)
    one_line(inside("fetch", "autoseg_edgetpu_s", *words), "is no address of a server")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args, words",
    [
        (("info", "mobilenet_edgetpu", "--image_size", "100"), ("100", "multiples of 32")),
        (("info", "mobilenet_edgetpu", "--image_size", "many"), ("--image-size", "valid integer")),
        (("info",), ("model",)),
        (("list", "--famly", "x"), ("--famly",)),
        (("list", "--family", "mobilenet_edgetpu_v3"), ("did you mean", "mobilenet_edgetpu_v2")),
        (("exprot",), ("exprot",)),
        (("export", "--model_name", "mobilenet"), ("output-dir",)),
        (
            ("export", "--model_name", "mobilenet_edgetpu", "--output_dir", "/dev/null/x"),
            ("/dev/null",),
        ),
        (("benchmark", "."), ("is a folder",)),
        (("benchmark", "a.tflite", "--compare", "a.tflite", "b.tflite"), ("alone",)),
        (("info", "mobilenet_edgetpu", "--image_size", "0"), ("image",)),
        (("info", "mobilenet_edgetpu", "--num_classes", "-3"), ("classes",)),
        (("fetch", "mobilenet_v2", "--output_dir", "/dev/null/x"), ("released model",)),
        (("list", "--task", "detect"), ("unknown task", "detection")),
        (
            (*EXPORT, "autoseg_edgetpu_s", "--finalize_method", "resize512,argmx"),
            ("did you mean 'argmax'",),
        ),
        (
            (*EXPORT, "autoseg_edgetpu_s", "--finalize_method", "squeeze"),
            ("squeeze", "after argmax"),
        ),
        (
            (*EXPORT, "mobilenet_edgetpu", "--finalize_method", "argmax"),
            ("classification", "finalize_method"),
        ),
        (("latency", "mobilenet_edgetpu_v3"), ("did you mean",)),
        (("latency", "autoseg_edgetpu_xs", "--argmax", "fused3"), ("unknown argmax", "fused2")),
        (("benchmark", "autoseg_edgetpu_xs", "--finalize_method", "upsample"), ("unknown step",)),
        (("reproduce", "--profile", "defualt"), ("did you mean 'default'",)),
    ],
)
def test_bad_input(inside, args, words):
    one_line(inside(*args), *words)


@pytest.mark.parametrize(
    "args, words",
    [
        (("info", "mobilenet_edgetpu_v2_xxs"), ("did you mean", "mobilenet_edgetpu_v2_xs")),
        (("benchmark", "missing.tflite"), ("missing.tflite is not a file",)),
        (("latency", "missing.tflite"), ("missing.tflite is not a file",)),
    ],
)
def test_bad_input_of_the_installed_command(installed, args, words):
    one_line(installed(*args), *words)


SNAKEFILE = """
rule all:
    input: "fine.txt", "trained.txt"
rule data:
    output: "fine.txt"
    shell: "touch {output}"
rule train:
    output: "trained.txt"
    log: "train.ipynb"
    shell: "printf 'Traceback\\nValueError: no more cheese\\n' > {log}.txt; echo noise >&2; exit 1"
"""


def test_reproduce_ends_with_what_counts(cli, tmp_path):
    "The step, its last error and its notebook; the engine's text is in a log."
    (tmp_path / "settings.ini").touch()
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config").symlink_to(ROOT / "config")
    done = cli(
        "reproduce", "--profile", "smoke", "--cores", 1, env={"EDGETPU_REPRO_HOME": str(tmp_path)}
    )
    first, notebook, printed, log = done.stderr.splitlines()
    assert done.returncode == 1 and first == "step train failed: ValueError: no more cheese"
    assert notebook.endswith("train.ipynb") and printed.endswith("train.ipynb.txt")
    assert "noise" in (tmp_path / "build/reproduce.log").read_text() and "reproduce.log" in log
    assert not done.stdout or done.stdout == "1 of 3 steps done: data\n"


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_reproduce_of_an_unknown_step(cli, tmp_path, more):
    (tmp_path / "settings.ini").touch()
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config").symlink_to(ROOT / "config")
    home = {"EDGETPU_REPRO_HOME": str(tmp_path)}
    done = cli("reproduce", "--profile", "smoke", "--step", "tain", *more, env=home)
    one_line(done, "unknown step 'tain'; did you mean 'train'")


def test_reproduce_outside_of_a_checkout(cli, tmp_path):
    one_line(cli("reproduce", cwd=tmp_path), "not inside a checkout")


def test_export_and_benchmark(installed, cli, tmp_path):
    exported = installed(
        "export",
        "--model_name",
        "mobilenet_edgetpu_v2_tiny",
        "--output_dir",
        tmp_path / "new",
        "--quantize",
        *SMALL,
    )
    assert exported.returncode == 0 and "RANDOM weights" in exported.stderr, exported
    path = tmp_path / "new" / "mobilenet_edgetpu_v2_tiny_int8.tflite"
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
    timed = cli(
        "benchmark",
        path,
        "mobilenet_edgetpu_dm0p75",
        "--image-size",
        32,
        "--seconds",
        0.1,
        "--output",
        tmp_path / "t.json",
    )
    assert timed.returncode == 0, timed
    numbers = json.loads((tmp_path / "t.json").read_text())
    assert set(numbers) == {str(path), "mobilenet_edgetpu_dm0p75"} and all(
        n["latency_ms"] > 0 for n in numbers.values()
    )


def test_export_of_a_segmentation_model(cli, tmp_path):
    exported = cli(
        "export",
        "--model_name",
        "autoseg_edgetpu_xs",
        "--output_dir",
        tmp_path,
        "--quantize",
        *SMALL,
        "--finalize_method",
        "resize16,argmax,resize32,squeeze",
    )
    assert exported.returncode == 0, exported
    (file,) = tmp_path.glob("*.tflite")
    assert file.name == "autoseg_edgetpu_xs_resize16_argmax_resize32_squeeze_int8.tflite"
    assert "1 ARG_MAX" in exported.stdout and "TILE" in exported.stdout
    modelled = cli("latency", file, "mobilenet_v3_large", "mobilenet_edgetpu_v2_s")
    assert modelled.returncode == 0 and len(modelled.stdout.splitlines()) >= 4, modelled
    assert "outside of the published models: image of 32x32" in modelled.stdout
    assert "hard_swish" in modelled.stdout, "an operator that no published model has is named"


def test_bad_files(cli, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"TFL3 is not enough")
    one_line(cli("benchmark", bad), "bad.tflite is not a TFLite model")
    (tmp_path / "bad.keras").write_bytes(b"PK")
    common = ("export", "--model_name", "mobilenet_edgetpu", "--output_dir", tmp_path / "out")
    one_line(cli(*common, "--ckpt_path", tmp_path / "bad.keras"), "bad.keras")
    missing = cli(*common, "--quantize", "--dataset_name", "cifar10", "--dataset_dir", tmp_path)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
    assert (
        "error: dataset 'cifar10' is not prepared" in missing.stderr
        and "download_and_prepare" in missing.stderr
    )
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_no_half_file(cli, tmp_path):
    limit = lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)
    )  # beyond 1 MB a write fails
    result = cli(
        "export",
        "--model_name",
        "mobilenet_edgetpu_v2_tiny",
        "--output_dir",
        tmp_path,
        *SMALL[:4],
        preexec_fn=limit,
    )
    assert (
        result.returncode == 1
        and "error: File too large" in result.stderr
        and "Traceback" not in result.stderr
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_export_leaves_no_half_file(tmp_path, stop):
    command = [
        BIN / "edgetpu-repro",
        "export",
        "--model_name",
        "mobilenet_edgetpu_v2_l",
        "--output_dir",
        tmp_path,
        "--image_size",
        "64",
    ]
    heard = lambda: signal.signal(
        stop, signal.SIG_DFL
    )  # a test run in the background of a shell ignores SIGINT, and so would its children
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=heard
    )
    for line in child.stderr:  # random weights are announced when the work begins
        if "RANDOM" in line:
            break
    time.sleep(1)
    child.send_signal(stop)
    _, error = child.communicate(timeout=120)
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop], error
    assert "Traceback" not in error and not list(tmp_path.iterdir())
    if stop == signal.SIGINT:
        assert error.strip() == "error: interrupted; nothing half-written was left"
