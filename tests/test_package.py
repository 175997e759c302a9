"What `pip install .` gives: the modules, the command, and only what the library needs at run time."

import importlib.util
import os
import re
import sys
import tomllib
import zipfile

import pytest
from conftest import BIN, BLOCK, ROOT, call
from generated import outdated

from edgetpu_repro.core.errors import EXTRAS
from edgetpu_repro.measure import latency


def test_wheel(tmp_path):
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    result = call(BIN / "python", "-m", "pip", "wheel", *options, ROOT)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("edgetpu_repro-*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        text = lambda end: files.read(next(n for n in names if n.endswith(end))).decode()
        modules = {str(p.relative_to(ROOT)) for p in (ROOT / "edgetpu_repro").rglob("*.py")}
        assert modules <= set(names)
        assert not [n for n in names if n.startswith(("nbs", "tests", "results"))]
        profiles = {f"edgetpu_repro/config/{p.name}" for p in (ROOT / "config").glob("*.yaml")}
        assert profiles <= set(names)
        assert "edgetpu_repro/measure/latency.json" in names
        assert "edgetpu_repro/show/theme.css" in names
        for page in ("explorer_page", "demo_page"):
            own = {str(p.relative_to(ROOT)) for p in ROOT.glob(f"edgetpu_repro/show/{page}/*")}
            assert own and own <= set(names)
        assert not [n for n in names if n.endswith(".wasm")]
        assert "edgetpu-repro = edgetpu_repro.cli.start:start" in text("entry_points.txt")
        about, _, description = text("METADATA").partition("\n\n")
        needed = {
            line.split(":")[1].strip()
            for line in text("METADATA").splitlines()
            if line.startswith("Requires-Dist") and "extra ==" not in line
        }
    assert not [r for r in needed if r.startswith(("nbdev", "papermill", "snakemake", "jupyter"))]
    assert not [r for r in needed if r.startswith(("tensorflow", "keras", "ai-edge", "pillow"))]
    for said in ("Author: ", "Keywords: ", "License-Expression: Apache-2.0", "Project-URL: ",
                 "Classifier: Programming Language :: Python :: 3.13",
                 "Description-Content-Type: text/markdown"):
        assert f"\n{said}" in about
    assert "example.org" not in about and "# edgetpu-repro" in description
    assert not re.findall(r"\]\((?!https://)[^)]*\)", description), "a link that leads nowhere"
    assert {"numpy", "scipy", "typer"} <= {re.split("[<>=]", r)[0] for r in needed}


@pytest.fixture(scope="module")
def registry():
    "The module setup.py."
    spec = importlib.util.spec_from_file_location("setup_of_ours", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


README = "![a picture](figures/a.png)\n\nsee [here](docs/b.md), [there](https://c.org), [up](#top)"


def test_the_registry_shows_links_that_lead_somewhere(registry):
    said = registry.long_description(README, "https://github.com/me/mine", "dev")
    assert "![a picture](https://github.com/me/mine/raw/dev/figures/a.png)" in said
    assert "[here](https://github.com/me/mine/blob/dev/docs/b.md), [there](https://c.org)" in said
    ours = registry.long_description((ROOT / "README.md").read_text(), "https://github.com/me/mine")
    assert not re.findall(r"\]\((?!https://)[^)]*\)", ours) and "/mine/blob/main/docs/" in ours
    assert registry.addresses("https://github.com/me/mine")["Source"] == "https://github.com/me/mine"


def test_no_address_is_made_up(registry):
    "While git_url of settings.ini is empty."
    said = registry.long_description(README, "")
    assert said == "\n\nsee here, [there](https://c.org), [up](#top)"
    assert set(registry.addresses("")) == {"Reproduced project", "Reproduced paper"}


def test_the_lock_pins_everything_with_hashes():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==")[0] for line in lines if line and line[0] not in " #"]
    assert all("==" in line for line in lines if line and line[0] not in " #")
    needed = "tensorflow keras snakemake papermill jupyterlab nbdev ruff pytest".split()
    assert set(needed) <= set(pins)
    assert sum("--hash=sha256" in line for line in lines) >= len(pins)


# What a Python without the extras does: as `pip install edgetpu-repro` alone gives it.
MODEL = "mobilenet_edgetpu_v2_xs"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    "The command where no extra is installed, in a folder of its own."
    folder = tmp_path_factory.mktemp("bare")
    blocked = {name for _, modules in EXTRAS.values() for name in modules} | {"PIL", "jax", "torch"}
    (folder / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
    (folder / "m.tflite").write_bytes(b"1234TFL3")
    (folder / "archive.tar.gz").write_bytes(b"1")
    path = os.pathsep.join([str(folder), str(ROOT)])
    env = {"PYTHONPATH": path, "EDGETPU_REPRO_HOME": str(ROOT)}

    def run(*words):
        return call(BIN / "edgetpu-repro", *words, cwd=folder, env=env)

    run.folder = folder
    return run


def test_what_needs_no_tensorflow(bare):
    study = ("--study", "s.journal")
    for words in (
        ("--help",),
        ("list",),
        ("list", "--json"),
        ("info", MODEL),
        ("info", "spaghettinet_edgetpu_s", "--json"),
        ("latency", MODEL, "autoseg_edgetpu_s", "spaghettinet_edgetpu_s"),
        ("experiments",),
        ("fetch", "--list"),
        ("search", "run", *study, "--target_ms", "0.8", "--trials", "4", "--space", "v2_plain"),
        ("search", "show", *study),
        ("search", "export", *study, "--output", "found.json"),
        ("info", "found.json"),
        ("latency", "found.json"),
        ("explorer", "page"),
    ):
        answer = bare(*words)
        assert answer.returncode == 0 and answer.stdout and not answer.stderr, (words, answer)


@pytest.mark.parametrize(
    "line, extra",
    [
        (f"export --model_name {MODEL} --output_dir out", "tf"),
        (f"import archive.tar.gz --model_name {MODEL} --output_dir out", "tf"),
        (f"train --experiment_type {MODEL} --model_dir out", "tf"),
        ("evaluate m.tflite", "tf"),
        ("predict m.tflite m.tflite", "tf"),
        ("benchmark m.tflite", "tf"),
        (f"benchmark {MODEL}", "tf"),
        ("compile m.tflite --soc tensor_g3 --output_dir out", "tf"),
        ("latency m.tflite", "tf"),
        ("info mobilenet_v2", "tf"),
        ("published", "tf"),
        ("search run --study t --target_ms 0.8 --evaluator train", "tf"),
        ("reproduce", "repro"),
        ("demo", "tf"),
        ("view m.tflite", "view"),
        ("view m.tflite --node_data data.json", "tf"),
        (f"card {MODEL}", "publish"),
    ],
)
def test_what_is_not_installed_is_said_in_a_line(bare, line, extra):
    before = {p.name for p in bare.folder.iterdir()}
    answer = bare(*line.split())
    assert answer.returncode == 2 and not answer.stdout, answer
    (said,) = answer.stderr.splitlines()
    command = line.split()[0]
    assert said.startswith(f"error: {command} needs"), said
    assert said.endswith(f"pip install 'edgetpu-repro[{extra}]'"), said
    assert {p.name for p in bare.folder.iterdir()} == before, "nothing half-written"


def test_the_library_says_it_too():
    path = os.pathsep.join(sys.path)
    code = "import sys; sys.modules['keras'] = None; import edgetpu_repro as e; e.build_model('{}')"
    answer = call(sys.executable, "-c", code.format(MODEL), env={"PYTHONPATH": path})
    assert "UsageError: build_model needs TensorFlow: pip install" in answer.stderr, answer


def test_every_extra_that_errors_name_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) <= set(project["optional-dependencies"])


def test_files_that_are_computed_are_in_sync():
    assert not outdated(), "run: python tools/generated.py"


def test_fits_that_are_kept_are_not_used_for_another_problem(monkeypatch):
    points = latency.published_points()
    assert latency.kept_fits()
    latency.kept_fits.cache_clear()
    monkeypatch.setattr(latency, "published_points", lambda: points[1:])
    assert latency.kept_fits() == ()
    latency.kept_fits.cache_clear()
