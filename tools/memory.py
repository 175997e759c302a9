"""Peak memory of each command, measured: `python tools/memory.py` writes docs/memory.md.

Each command runs in a process of its own, from nothing loaded. The number is the largest resident
set of that process or of any child that it waited for.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from edgetpu_repro.core.records import host

ROOT = Path(__file__).resolve().parent.parent
MODEL, SEGMENTER = "mobilenet_edgetpu_v2_xs", "deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32"
DETECTOR = "spaghettinet_edgetpu_s"
LIMIT = 3.0 # GB that all but training stay under
COMMAND = "from edgetpu_repro.cli.main import main; main()"
DATA = ("--set", "data.image_size=64", "--set", "data.train_images=256",
        "--set", "data.test_images=64")
TRAIN = ("--set", "train.epochs=1", "--set", "train.batch_size=64")


def commands(folder) -> dict:
    "What is measured: {words for people: words of the command}; later ones use earlier files."
    folder, data = Path(folder), ("--data_dir", ROOT / "build/data")
    file, picture = folder / f"{MODEL}_int8.tflite", ROOT / "figures/default/gallery.png"
    weights = folder / "trained"
    scenes = ("--dataset_name", "digit_scenes", *data)
    export = ("export", "--output_dir", folder, "--quantize", "--allow_degraded", *scenes)
    train = ("train", "--experiment_type", MODEL, "--profile", "default", *DATA, *TRAIN, *data)
    return {
        "`list`": ("list",),
        "`info`": ("info", MODEL),
        "`latency`": ("latency", MODEL),
        "`search` run on the toy, 20 trials": (
            "search", "run", "--study", folder / "study.log", "--evaluator", "toy",
            "--trials", 20, "--target_ms", 0.83),
        "`train`, V2-XS at 64, batch 64": (*train, "--model_dir", weights),
        "`export --quantize`, V2-XS at 224, 100 pictures": (*export, "--model_name", MODEL),
        "`export --quantize`, DeepLabV3+ XS at 512, 20 pictures": (
            *export, "--model_name", SEGMENTER, "--num_classes", 11,
            "--num_calibration_steps", 20),
        "`predict`, a picture": ("predict", file, picture),
        "`benchmark`, an int8 file": ("benchmark", file),
        "`evaluate`, the trained model": (
            "evaluate", weights / f"{MODEL}.keras", "--profile", "default", *DATA, *data),
        "`export --quantize`, SpaghettiNet S at 320, 20 pictures": (
            *export, "--model_name", DETECTOR, "--num_calibration_steps", 20),
        "`evaluate`, the int8 segmentation file, 64 pictures": (
            "evaluate", folder / f"{SEGMENTER}_resize512_argmax_int8.tflite",
            "--profile", "default", *DATA, *data),
        "`import`, the int8 classifier": (
            "import", file, "--model-name", MODEL,
            "--output-dir", folder / "imported"),
        "`explorer`": ("explorer", folder / "explorer"),
        "`search` run, short trainings, `train`": (
            "search", "run", "--study", folder / "trained.log", "--evaluator", "train",
            "--trials", 4, "--target_ms", 0.83, "--profile", "default"),
        "`reproduce`, its largest step, profile smoke, `train`": (
            "reproduce", "--profile", "smoke", "--cores", 1),
    }


def peak_gb(words) -> float:
    "Run a command to its end; raises where it fails."
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise RuntimeError(f"{' '.join(map(str, words))}: {said[-500:]}")
    return usage.ru_maxrss / 2**20


def page(peaks:dict) -> str:
    "The table as Markdown."
    lines = ["# Peak memory of each command", ""]
    lines += ["Measured by `python tools/memory.py`: the largest resident set of the command's "
              "process, or of a child that it waited for.", ""]
    where = host()
    lines += [f"Host: {where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB, "
              f"{where['system']}.", ""]
    lines += ["| command | GB |", "|---|--:|"]
    lines += [f"| {name} | {gb:.2f} |" for name, gb in peaks.items()]
    return "\n".join(lines) + "\n"


def main(only=()):
    "Measure, write the page, and fail where a command that trains nothing crosses the limit."
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands(folder).items():
            if only and words[0] not in only: continue
            peaks[name] = peak_gb(words)
            print(f"{peaks[name]:6.2f} GB  {name}", flush=True)
    over = [n for n, gb in peaks.items() if gb > LIMIT and "`train`" not in n]
    if not only: (ROOT / "docs/memory.md").write_text(page(peaks))
    if over: sys.exit(f"over {LIMIT} GB: {', '.join(over)}")


if __name__ == "__main__": main(sys.argv[1:])
