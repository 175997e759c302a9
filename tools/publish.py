"""From notebooks to what is committed: the package, clean notebooks, the README.

python tools/publish.py             export, clean, render (make export)
python tools/publish.py --execute --take   first run the library notebooks, and take over the outputs of the last
                                           `make reproduce`: all notebooks are committed with outputs (make outputs)
"""
import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from dependencies import ROOMS
from edgetpu_repro.core.files import write_text

NBS = Path("nbs")
os.environ.setdefault("EDGETPU_REPRO_TFDS_DIR", str(Path("build/data").resolve()))
# The executed notebook whose outputs the repository shows, where it has another name than its source: the step runs many times.
SHOWN = {"runs/train": "train_mobilenet_edgetpu_v2_xs", "runs/export": "export_deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32",
         "runs/benchmark": "benchmark_classification", "paper/frontier": "fig3_frontier",
         "paper/quantizers": "paper_quantizers", "paper/released": "paper_released"}
PROFILES = ("default", "cifar10") # whose executed notebooks to look at, in this order


def run(*command):
    "Run a command and stop with its last line if it fails."
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode: sys.exit(f"error: {' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}")


def write(notebook, path):
    "Write a notebook as Jupyter and nbdev do, whole or not at all."
    write_text(path, json.dumps(json.loads(nbformat.writes(notebook)), sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def clean(path):
    "Drop what is not worth committing: native logs, execution counts, metadata but tags."
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type != "code": continue
        cell.execution_count = None
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type == "execute_result": output["execution_count"] = None
            if "metadata" in output: output["metadata"] = {}
    write(notebook, path)


def take_outputs(path, executed):
    "Copy the outputs of an executed notebook to its source, cell by cell; papermill's own cell is left out."
    source, done = nbformat.read(path, as_version=4), nbformat.read(executed, as_version=4)
    cells = [c for c in done.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    if [c.source for c in cells] != [c.source for c in source.cells]: sys.exit(f"error: {path} changed since it ran; make reproduce first")
    for cell, run_cell in zip(source.cells, cells):
        if cell.cell_type == "code": cell.outputs = run_cell.outputs
    write(source, path)


def render_readme():
    "README.md from index.ipynb; paths there are relative to nbs/."
    config = Config(TagRemovePreprocessor=dict(enabled=True, remove_input_tags={"hide-input"}, remove_cell_tags={"hide"}))
    text, _ = MarkdownExporter(config=config).from_filename(str(NBS / "index.ipynb"))
    write_text("README.md", re.sub(r"\n{3,}", "\n\n", text).replace("](../", "](").replace('src="../', 'src="').strip() + "\n")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--execute", action="store_true", help="also run the library notebooks")
parser.add_argument("--take", action="store_true", help="also take over the outputs of the last `make reproduce`")
given = parser.parse_args()
if given.take:
    for path in sorted([*NBS.glob("runs/*.ipynb"), *NBS.glob("paper/*.ipynb")]):
        name = f"{path.parent.name}/{path.stem}"
        folders = [Path("build") / profile / "notebooks" / f"{SHOWN.get(name, path.stem)}.ipynb" for profile in PROFILES]
        take_outputs(path, next((f for f in folders if f.exists()), folders[0]))
if given.execute:
    for path in sorted(p for room in ROOMS for p in (NBS / room).glob("*.ipynb")):
        run("nbconvert", "--to", "notebook", "--execute", "--inplace", "--log-level=ERROR", str(path))
for path in sorted(NBS.rglob("*.ipynb")):
    if ".ipynb_checkpoints" not in path.parts: clean(path)
subprocess.run([Path(sys.executable).with_name("nbdev_export")], check=True)
render_readme()
