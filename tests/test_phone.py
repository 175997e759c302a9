"Phones: the command over a stand-in `adb`, and compilation without the vendor's compiler."

import importlib.util
import json
import os
import shutil
import stat
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT, SMALL
from test_cli import one_line

from edgetpu_repro import build_model
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.tflite.convert import freeze
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.quantize import to_tflite
from edgetpu_repro.measure.devices import read_device_record
from edgetpu_repro.measure.phone import FLAGS, SDK, compile_for


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    "A folder with a stand-in adb, a benchmark tool and a model."
    folder = tmp_path_factory.mktemp("phone")
    shutil.copy(ROOT / "tests/phone/adb.py", folder / "adb")
    shutil.copy(ROOT / "tests/phone/printed.txt", folder)
    (folder / "adb").chmod(stat.S_IRWXU)
    (folder / "disk/data/local/tmp").mkdir(parents=True)
    (folder / "benchmark_model").write_bytes(b"elf")
    (folder / "m.tflite").write_bytes(
        to_tflite(freeze(build_model(SMALL, 10, 32)))
    )
    return folder


def run(cli, bench, mood="", *words):
    env = dict(PATH=f"{bench}:{os.path.dirname(sys.executable)}:/bin:/usr/bin", ADB_MOOD=mood)
    return cli(
        "benchmark",
        bench / "m.tflite",
        "--device",
        "adb",
        "--benchmark_binary",
        bench / "benchmark_model",
        *words,
        env=env,
    )


def test_a_phone_is_timed(cli, bench, tmp_path):
    done = run(
        cli,
        bench,
        "",
        "--use_nnapi",
        "--nnapi_accelerator_name",
        "google-edgetpu",
        "--operators",
        "--output",
        tmp_path / "r.json",
    )
    assert (
        done.returncode == 0
        and "Pixel_6" in done.stdout
        and "0.921" in done.stdout
        and "all" in done.stdout
    ), done
    numbers = json.loads((tmp_path / "r.json").read_text())["1A2B3C"]["files"][
        str(bench / "m.tflite")
    ]
    assert numbers["runs"] == 985 and numbers["thermal_after"]["status"] == "none"
    assert (tmp_path / "m_1A2B3C.csv").is_file()
    assert "--use_nnapi=true --nnapi_accelerator_name=google-edgetpu" in numbers["command"]


@pytest.mark.parametrize(
    "mood, words, answer",
    [
        ("none", (), "sees no phone"),
        ("unauthorized", (), "has not allowed this computer"),
        ("offline", (), "is offline"),
        ("two", (), "choose with --serial"),
        ("", ("--serial", "9Z"), "unknown phone '9Z'"),
        ("disconnect", (), "not found"),
        ("crash", (), "exit code 139"),
        ("garbage", (), "no timed runs"),
        ("version", (), "sees no phone"),
        ("numbers", (), "no timed runs"),
        ("cpu", ("--use_gpu",), "took nothing of the graph"),
        ("part", ("--use_gpu", "--require_delegate"), "60 of 77 operators in 3 partitions"),
        ("", ("--require_delegate",), "needs --use_nnapi or --use_gpu"),
        ("", ("--use_gpu", "--use_nnapi"), "not both"),
        ("", ("--nnapi_accelerator_name", "x"), "needs --use_nnapi"),
    ],
)
def test_what_goes_wrong_with_phones(cli, bench, mood, words, answer):
    one_line(run(cli, bench, mood, *words), answer)


def test_what_a_delegate_took_is_said(cli, bench):
    done = run(cli, bench, "part", "--use_nnapi")
    assert done.returncode == 0, done
    assert "delegated: part, 60 of 77 operators in 3 partitions" in done.stdout
    assert run(cli, bench, "", "--use_nnapi", "--require_delegate").returncode == 0


def test_a_phone_gives_a_record_that_is_taken(cli, bench, tmp_path):
    done = run(cli, bench, "part", "--use_nnapi", "--output_dir", tmp_path / "records")
    assert done.returncode == 0, done
    (path,) = (tmp_path / "records").iterdir()
    record = read_device_record(path)
    assert record["parameters"]["device"] == "Pixel_6"
    assert record["parameters"]["delegated"] == "part"
    assert record["numbers"]["latency_ms"] == pytest.approx(0.9213)
    record["numbers"]["min_ms"] = 5
    path.write_text(json.dumps(record))
    one_line(cli("records", "check", path), "is not taken", "more than")


def left_on_the_phone(bench):
    return list((bench / "disk/data/local/tmp").iterdir())


@pytest.mark.parametrize("mood", ["", "crash", "garbage", "cpu"])
def test_nothing_stays_on_the_phone(cli, bench, mood):
    run(cli, bench, mood, "--use_gpu")
    assert not left_on_the_phone(bench)


def test_names_are_no_commands_on_the_phone(cli, bench):
    "`adb shell` hands one line to a shell: file names and options must not become commands there."
    odd = bench / "m; touch HACKED $(touch HACKED2).tflite"
    odd.write_bytes((bench / "m.tflite").read_bytes())
    env = dict(PATH=f"{bench}:{os.path.dirname(sys.executable)}:/bin:/usr/bin", ADB_MOOD="")
    words = ("--device", "adb", "--benchmark_binary", bench / "benchmark_model", "--use_nnapi")
    done = cli("benchmark", odd, *words, "--nnapi_accelerator_name", "x; rm -rf /", env=env)
    assert done.returncode == 0, done
    log = (bench / "disk.log").read_text()
    assert "HACKED" not in log and "'--nnapi_accelerator_name=x; rm -rf /'" in log
    assert not list(bench.rglob("HACKED*")) and not left_on_the_phone(bench)


def test_two_phones(cli, bench):
    done = run(cli, bench, "two", "--serial", "1A2B3C", "--serial", "9Z8Y7X")
    assert done.returncode == 0 and "Pixel_6" in done.stdout and "Pixel_7" in done.stdout, done


def test_bad_words(cli, bench):
    one_line(cli("benchmark", bench / "m.tflite", "--device", "phone"), "unknown device", "adb")
    one_line(cli("benchmark", bench / "m.tflite", "--use_nnapi"), "need --device adb")
    one_line(
        cli(
            "benchmark",
            bench / "m.tflite",
            "--device",
            "adb",
            env=dict(PATH=os.path.dirname(sys.executable)),
        ),
        "adb is not here",
    )
    one_line(
        cli("compile", bench / "m.tflite", "--soc", "tensor_g2", "--output_dir", bench),
        "unknown soc",
        "tensor_g3",
    )
    if not importlib.util.find_spec(SDK):
        one_line(
            cli("compile", bench / "m.tflite", "--soc", "tensor_g4", "--output_dir", bench / "out"),
            "Google's Tensor SDK is missing",
        )
        assert not list((bench / "out").iterdir())


def test_a_chip_gets_the_flags_that_it_needs(bench, tmp_path, monkeypatch):
    from ai_edge_litert.aot import aot_compile
    seen = []

    def compiled(*_, **given):
        seen.append({k: v for k, v in given.items() if k.startswith("google_tensor_")})
        return SimpleNamespace(models=[], failed_backends=[])

    monkeypatch.setattr(aot_compile, "aot_compile", compiled)
    for soc in ("tensor_g3", "tensor_g4"):
        with pytest.raises(UsageError): compile_for(bench / "m.tflite", soc, tmp_path)
    assert seen == [{}, FLAGS["tensor_g4"]] and "half" in seen[1].values()


def test_what_was_not_compiled_is_said(bench, tmp_path, monkeypatch):
    "With a compiler that takes nothing: the file is kept, and every operator is named."
    from ai_edge_litert.aot import aot_compile

    model = SimpleNamespace(
        save=lambda path, export_only: open(path, "wb").write((bench / "m.tflite").read_bytes())
    )
    monkeypatch.setattr(
        aot_compile,
        "aot_compile",
        lambda *a, **k: SimpleNamespace(models=[model], failed_backends=[]),
    )
    path, left = compile_for(bench / "m.tflite", "tensor_g5", tmp_path)
    assert path.name == "m_tensor_g5.tflite" and path.is_file()
    assert left["CONV_2D"] == TFLiteFile.open(bench / "m.tflite").operator_counts["CONV_2D"] > 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_profile_behind_the_timed_runs_is_not_taken_for_them():
    from edgetpu_repro.measure.phone import parse_benchmark
    text = "\n".join([
        "count=10 first=900 curr=700 min=690 max=900 avg=720 std=9 p5=695 median=705 p95=880",
        "count=50 first=700 curr=701 min=680 max=990 avg=711.5 std=8 p5=690 median=702 p95=760",
        "Inference timings in us: Init: 12000, First inference: 900, Warmup (avg): 720, "
        "Inference (avg): 711.5",
        "Timings (microseconds): count=50 first=600 curr=600 min=590 max=700 avg=610 std=7",
        "Memory (bytes): count=0",
    ])
    found = parse_benchmark(text)
    assert (found["runs"], found["latency_kind"]) == (50, "median")
    times = [found[name] for name in ("latency_ms", "mean_ms", "latency_p95_ms")]
    assert times == pytest.approx([0.702, 0.7115, 0.76])
