"Every command of the README and of docs/ runs as it is written; of long ones the options exist."

import itertools
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from conftest import ROOT, call, warm

from edgetpu_repro.cli.app import _normalized

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LONG = ("make ",)  # checked by a dry run


def commands(page, kind):
    "The commands of all blocks of a kind, continued lines joined, comments dropped."
    texts = [text for found, text in BLOCK.findall(page.read_text()) if found == kind]
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].split(" # ")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A scratch copy of the checkout, with what is committed only."
    folder = tmp_path_factory.mktemp("readme") / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not (ROOT / name).exists():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    pictures(folder / "pictures")
    return folder


def pictures(folder):
    "A few pictures in folders of classes, as docs/data.md starts from them."
    for split, name, i in itertools.product(("train", "test"), ("cat", "dog"), range(2)):
        path = folder / split / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (99 * i, 50, 50)).save(path)


def run_there(copy, *command):
    "In the copy; our own command starts warm, from this checkout, which is the same package."
    home = {"EDGETPU_REPRO_HOME": str(copy)}
    if command[0] == "edgetpu-repro": return warm("command", *command[1:], cwd=copy, env=home)
    return call(*command, cwd=copy, env={"PYTHONPATH": str(copy), **home}, timeout=300)


def test_the_readme_fits_on_a_screen_and_a_half():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 6_000
    assert "pip install" in text[:3000] and text.count("![") == 1 and text.count("<img ") == 9


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_point_to_files(page):
    for target in re.findall(r'(?:\]\(|src=")(?!https?:)([^)#"]+)[)"]', page.read_text()):
        assert (page.parent / target).exists(), target


def test_python_of_the_readme_runs(copy):
    blocks = [
        text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "python"
    ]
    assert blocks
    for text in blocks:
        result = run_there(copy, sys.executable, "-c", text)
        assert result.returncode == 0 and result.stdout, result.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_run_as_written(copy, page):
    "Python of a page first: it writes what the commands take."
    blocks = [text for kind, text in BLOCK.findall(page.read_text()) if kind == "python"]
    for text in blocks if page.parent.name == "docs" else ():
        result = run_there(copy, sys.executable, "-c", text)
        assert result.returncode == 0, result.stderr[-2000:]
    for command in commands(page, ""):
        words = shlex.split(command)
        if command.startswith(LONG):
            words.insert(1, "--dry-run")
        result = run_there(copy, *words)
        assert result.returncode == 0, f"{command}\n{result.stderr[-2000:]}"


def command_of(words):
    "The command that a line means, and the words behind it."
    while words[0] != "edgetpu-repro" and not words[0].startswith("edgetpu_repro."): words.pop(0)
    name = words[1] if words[0] == "edgetpu-repro" else words[0].partition(".")[2]
    return {"export_tflite": "export"}.get(name, name), words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_long_commands_have_their_options(page, cli):
    for command in commands(page, "dry"):
        name, words = command_of(shlex.split(command))
        part = [words[2]] if name in ("records", "search") else []
        known = cli(name, *part, "--help").stdout
        given = [_normalized(w[2:].split("=")[0]) for w in words if w.startswith("--")]
        for option in given:
            assert re.search(rf"--{option}\b", known), f"{name} has no {option}"


def test_a_dataset_of_folders_is_a_dataset(copy):
    "What the Python of docs/data.md leaves."
    from edgetpu_repro.core.settings import DataSettings
    from edgetpu_repro.data.datasets import open_dataset
    if not (copy / "tfds/mine").exists(): test_commands_run_as_written(copy, ROOT / "docs/data.md")
    found = open_dataset(DataSettings(name="mine", data_dir=str(copy / "tfds"), image_size=32))
    assert found.label_names == ("cat", "dog") and found.sizes == {"train": 4, "test": 4}
