"""From notebooks to what is committed: the package, clean notebooks, the README.

python tools/publish.py            export, clean, render (make export)
python tools/publish.py --execute --take
                                   first run the library notebooks, and take over the outputs of
                                   the last `make reproduce` (make outputs). What does not come
                                   from one clean commit is refused.
"""
import argparse
import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from dependencies import MAKERS, ROOMS
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.files import write_text
from edgetpu_repro.core.records import read_record

NBS = Path("nbs")
KERNEL = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
# The executed notebook whose outputs the repository shows, where its name is not the source's:
# the step runs many times.
SHOWN = {
    "runs/train": "train_mobilenet_edgetpu_v2_xs",
    "runs/export": "export_deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32",
    "runs/benchmark": "benchmark_classification",
    "runs/search": "search_evolution",
    "runs/search_repeat": "search_repeat_evolution",
    "runs/distil": "distil_matrix",
    "runs/distil_teachers": "distil_others",
    "runs/quantize_aware": "quantize_aware_mobilenet_edgetpu_v2_xs",
    "runs/search_ablation": "search_ablation_mobilenet_edgetpu_v2_xs_dw",
}
# Whose executed notebooks to look at, in this order.
PROFILES = ("default", "bccd", "published", "cifar10")
# Steps outside of the workflow: run on their own, each from a commit of its own.
STUDIES = (
    "training_speed",
    "export_speed",
    "quantizers",
    "quantize_aware",
    "slices",
    "again",
    "released",
    "finetune",
    "search",
    "search_proxies",
    "search_controllers",
    "search_ablation",
    "search_targets",
    "distil",
    "distil_teachers",
)
FIRST_SEARCH = ("longer", "random", "evolution", "reference") # with its finalists, one run


def group_of(path) -> str:
    "Which run a record belongs to: the name of a study, or 'workflow'."
    step = path.parent.name
    if step in ("search", "search_repeat"):
        if path.stem in FIRST_SEARCH: return "search"
        return "search_ablation" if path.stem == "without" else "search_targets"
    if step == "repeat": return f"repeat {path.stem}" # one by one, over days
    return step if step in STUDIES else "workflow"


def commits(results) -> dict:
    "Commits that the records of a profile come from: {'workflow' or the name of a study: set}."
    found = {}
    for path in sorted((Path(results) / "records").rglob("*.json")):
        found.setdefault(group_of(path), set()).add(read_record(path)["provenance"].get("commit"))
    return found


def check_commits(results):
    "Raise a `UsageError` unless the workflow's records, and each study's, are of a clean commit."
    for group, names in commits(results).items():
        said = ", ".join(sorted(map(str, names)))
        if len(names) > 1:
            raise UsageError(f"{results}: records of {group} come from several commits ({said})")
        if not re.fullmatch(r"[0-9a-f]{7,40}", said):
            raise UsageError(f"{results}: records of {group} come from a tree that differs from "
                             f"its commit ({said}); commit, then make reproduce again")


def run(*command):
    "Run a module and stop with its last line if it fails."
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if not done.returncode: return
    last = done.stderr.strip().splitlines()[-1:]
    raise UsageError(f"{' '.join(command)}: {''.join(last)}")


def write(notebook, path):
    "Write a notebook as Jupyter and nbdev do, whole or not at all."
    content = json.loads(nbformat.writes(notebook))
    write_text(path, json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


BOLD = "\x1b[1m" # how lines begin in which TFDS tells of its folders on this host


def without_bold(text: str) -> str:
    "A text without the lines that are printed bold."
    return "".join(line for line in text.splitlines(True) if not line.startswith(BOLD))


def clean_cell(cell):
    "Drop a code cell's native logs, TFDS's progress, counts and metadata."
    cell.execution_count = None
    for output in cell.outputs:
        if "text" in output: output["text"] = without_bold(output["text"])
    cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and o.get("text") != ""]
    for output in cell.outputs:
        output.pop("execution_count", None)
        if output.output_type == "execute_result": output["execution_count"] = None
        if "metadata" in output: output["metadata"] = {}


def links(path, url: str) -> str:
    """A line that opens a notebook in Colab or Binder; empty where the repository is not on GitHub.

    `url` is `git_url` of settings.ini, the one place that knows where the repository is public.
    """
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", url.strip())
    if not found: return ""
    place, name = "/".join(found.groups()), Path(path).as_posix()
    colab = f"https://colab.research.google.com/github/{place}/blob/main/{name}"
    binder = f"https://mybinder.org/v2/gh/{place}/main?labpath={name}"
    install = f"`!pip install 'edgetpu-repro[repro] @ git+https://github.com/{place}'`"
    return f"{OPEN}[Colab]({colab}) (there first {install}) · [Binder]({binder})"


OPEN = "Open in " # how the line begins


def git_url() -> str:
    "Where the repository is public; empty while it is nowhere."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read("settings.ini")
    return settings["DEFAULT"].get("git_url") or ""


def link(notebook, path, url):
    "Let the first cell end in the line of `links`, or in none."
    first = notebook.cells[0]
    lines = [line for line in first.source.split("\n") if not line.startswith(f"{OPEN}[Colab]")]
    text, line = "\n".join(lines).rstrip(), links(path, url)
    first.source = f"{text}\n\n{line}" if line else text


def clean(path):
    "Drop what is not worth committing: native logs, execution counts, metadata but tags."
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = KERNEL
    if path.name != "index.ipynb": link(notebook, path, git_url())
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code": clean_cell(cell)
    write(notebook, path)


def said(cell) -> str:
    "What a cell says; of the parameters, that there are some: their values come from outside."
    return "parameters" if "parameters" in cell.metadata.get("tags", []) else cell.source


def take_outputs(path, executed):
    "Copy the outputs of an executed notebook to its source; papermill's own cell is left out."
    source, done = (nbformat.read(p, as_version=4) for p in (path, executed))
    cells = [c for c in done.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    if list(map(said, cells)) != list(map(said, source.cells)):
        raise UsageError(f"{path} changed since it ran; make reproduce first")
    for cell, run_cell in zip(source.cells, cells):
        if cell.cell_type == "code": cell.outputs = run_cell.outputs
    show_parameters(source, done)
    write(source, path)


def given_parameters(notebook) -> dict:
    "What papermill passed to an executed notebook."
    return notebook.metadata.get("papermill", {}).get("parameters", {})


def show_parameters(source, done):
    "Let the cell of parameters say with which ones the outputs were made, comments kept."
    cell = next(c for c in source.cells if "parameters" in c.metadata.get("tags", []))
    for name, value in given_parameters(done).items():
        text = json.dumps(value) if isinstance(value, str) else repr(value)
        line = rf"^({name} = )(\"[^\"]*\"|[^#\n]*?)( +#.*)?$"
        new = re.sub(line, lambda m, t=text: m[1] + t + (m[3] or ""), cell.source, flags=re.M)
        cell.source = new


def executed(path) -> Path|None:
    "Where a run left a notebook with its outputs; None where none has run it here."
    from manifest import declarations # of modules that are exported before
    rules = SHOWN | {d.source: next(iter(d.rules)) for d in declarations()}
    name = rules.get(f"{path.parent.name}/{path.stem}", path.stem)
    places = [Path("build") / profile / "notebooks" / f"{name}.ipynb" for profile in PROFILES]
    return next((p for p in places if p.exists()), None)


def take_all():
    "Outputs of runs and paper notebooks, each from the profile that ran it."
    paths = sorted(path for folder in ("runs", *MAKERS) for path in (NBS / folder).glob("*.ipynb"))
    steps = {path: executed(path) for path in paths}
    for profile in {done.parts[1] for done in steps.values() if done}:
        check_commits(Path("results") / profile)
    for path, done in steps.items():
        if done: take_outputs(path, done)
        else: print(f"{path} was not run here: its outputs stay as they are")


def execute_all():
    "Run the library notebooks, and the reading path on what is committed."
    data = str(Path("build/data").resolve())
    os.environ.setdefault("EDGETPU_REPRO_TFDS_DIR", data)
    how = ("nbconvert", "--to", "notebook", "--execute", "--inplace", "--log-level=ERROR")
    for room in (*ROOMS, "page"):
        for path in sorted((NBS / room).glob("*.ipynb")): run(*how, str(path))


def render_readme():
    "README.md from index.ipynb; paths there are relative to nbs/."
    hidden = dict(enabled=True, remove_input_tags={"hide-input"}, remove_cell_tags={"hide"})
    exporter = MarkdownExporter(config=Config(TagRemovePreprocessor=hidden))
    text, _ = exporter.from_filename(str(NBS / "index.ipynb"))
    text = re.sub(r"\n{3,}", "\n\n", text)
    text = text.replace("](../", "](").replace('src="../', 'src="')
    write_text("README.md", text.strip() + "\n")


def main():
    "What the command line asks for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="also run the library notebooks")
    parser.add_argument("--take", action="store_true", help="also take the workflow's last outputs")
    given = parser.parse_args()
    if given.take: take_all()
    if given.execute: execute_all()
    for path in sorted(NBS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts: clean(path)
    subprocess.run([Path(sys.executable).with_name("nbdev_export")], check=True)
    render_readme()


if __name__ == "__main__":
    try: main()
    except UsageError as e: sys.exit(f"error: {e}")
