# The artifact as a graph: runs write records, paper notebooks read them. One rule a step, each running a notebook.
# A step depends on what its notebook says (not on the outputs saved in it), on its profile, and on the library modules
# up to its own number. All depend on build/PROFILE/prepared, which is not committed: a fresh clone measures anew.

import hashlib
import json

from edgetpu_repro.core import load_profile

PROFILE = load_profile(config.get("profile", "default"))
BUILD, RESULTS, FIGURES = (f"{top}/{PROFILE.name}" for top in ("build", "results", "figures"))
MODELS, TIMED = list(PROFILE.models), [*PROFILE.models, *PROFILE.references]
PREPARED = f"{BUILD}/prepared"

MODULES = {0: "core", 1: "specs", 2: "published", 3: "blocks", 4: "classifiers", 10: "data", 11: "train", 12: "export",
           13: "evaluate", 14: "benchmark", 17: "plots"}
code = lambda upto: [f"config/{PROFILE.name}.yaml", *(f"edgetpu_repro/{m}.py" for n, m in MODULES.items() if n <= upto)]
says = lambda notebook: hashlib.sha256("".join(
    "".join(cell["source"]) for cell in json.load(open(f"nbs/{notebook}.ipynb"))["cells"]).encode()).hexdigest()
records = lambda step, names: expand(f"{RESULTS}/records/{step}/{{name}}.json", name=names)

# The executed notebook is the log: Snakemake keeps it when a job fails. The last lines of papermill say why.
RUN = ("TF_CPP_MIN_LOG_LEVEL=3 TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} "
       f"papermill {{input.notebook}} {{log}} --no-progress-bar -p profile {PROFILE.name} {{params.given}} "
       "> {log}.txt 2>&1 || {{ tail -n 3 {log}.txt >&2; exit 1; }}")


rule all:
    input:
        f"{RESULTS}/report.html",
        records("train", MODELS),
        expand(f"{BUILD}/weights/{{model}}.keras", model=MODELS),
        expand(f"{BUILD}/tflite/{{model}}_timed_int8.tflite", model=TIMED),


rule data:
    input: notebook=ancient("nbs/runs/data.ipynb"), code=code(10)
    output: f"{RESULTS}/records/data/{PROFILE.data.name}.json", touch(PREPARED)
    params: says=says("runs/data"), given=""
    log: f"{BUILD}/notebooks/data.ipynb"
    shell: RUN


rule train:
    input: PREPARED, notebook=ancient("nbs/runs/train.ipynb"), code=code(11)
    output: f"{BUILD}/weights/{{model}}.keras", f"{RESULTS}/records/train/{{model}}.json"
    params: says=says("runs/train"), given="-p model {model}"
    log: f"{BUILD}/notebooks/train_{{model}}.ipynb"
    priority: 1 # the longest jobs first; the short ones fill the gaps
    shell: RUN


rule export:
    input: PREPARED, f"{BUILD}/weights/{{model}}.keras", notebook=ancient("nbs/runs/export.ipynb"), code=code(13)
    output:
        expand(f"{BUILD}/tflite/{{{{model}}}}_{{file}}.tflite", file=("trained_float", "trained_int8", "timed_int8")),
        expand(f"{RESULTS}/records/export/{{{{model}}}}_{{variant}}.json", variant=("trained", "timed")),
        f"{RESULTS}/records/evaluate/{{model}}.json"
    params: says=says("runs/export"), given="-p model {model}"
    log: f"{BUILD}/notebooks/export_{{model}}.ipynb"
    wildcard_constraints: model="|".join(MODELS)
    shell: RUN


rule export_reference:
    input: PREPARED, notebook=ancient("nbs/runs/export.ipynb"), code=code(13)
    output: f"{BUILD}/tflite/{{model}}_timed_int8.tflite", f"{RESULTS}/records/export/{{model}}_timed.json"
    params: says=says("runs/export"), given="-p model {model} -p trained False"
    log: f"{BUILD}/notebooks/export_{{model}}.ipynb"
    wildcard_constraints: model="|".join(PROFILE.references) or "none"
    shell: RUN


# Timing takes all cores, so that nothing runs beside it.
rule benchmark:
    input:
        PREPARED, expand(f"{BUILD}/tflite/{{model}}_timed_int8.tflite", model=TIMED),
        notebook=ancient("nbs/runs/benchmark.ipynb"), code=code(14)
    output: records("benchmark", TIMED)
    params: says=says("runs/benchmark"), given=""
    log: f"{BUILD}/notebooks/benchmark.ipynb"
    threads: workflow.cores
    shell: RUN


rule blocks:
    input: PREPARED, notebook=ancient("nbs/runs/blocks.ipynb"), code=code(14)
    output: directory(f"{RESULTS}/records/blocks")
    params: says=says("runs/blocks"), given=""
    log: f"{BUILD}/notebooks/blocks.ipynb"
    threads: workflow.cores
    shell: RUN


rule fig1_blocks:
    input: PREPARED, notebook=ancient("nbs/paper/fig1_blocks.ipynb"), code=code(1)
    output: multiext(f"{FIGURES}/fig1_blocks", ".svg", ".png")
    params: says=says("paper/fig1_blocks"), given=""
    log: f"{BUILD}/notebooks/fig1_blocks.ipynb"
    shell: RUN


rule fig2_tradeoff:
    input: f"{RESULTS}/records/blocks", notebook=ancient("nbs/paper/fig2_tradeoff.ipynb"), code=code(1)
    output: multiext(f"{FIGURES}/fig2_tradeoff", ".svg", ".png"), multiext(f"{RESULTS}/tables/fig2_tradeoff", ".csv", ".md")
    params: says=says("paper/fig2_tradeoff"), given=""
    log: f"{BUILD}/notebooks/fig2_tradeoff.ipynb"
    shell: RUN


rule tab1_classification:
    input:
        records("train", MODELS), records("evaluate", MODELS), records("benchmark", TIMED),
        records("export", [f"{m}_timed" for m in TIMED]),
        notebook=ancient("nbs/paper/tab1_classification.ipynb"), code=code(2)
    output: multiext(f"{RESULTS}/tables/tab1_classification", ".csv", ".md")
    params: says=says("paper/tab1_classification"), given=""
    log: f"{BUILD}/notebooks/tab1_classification.ipynb"
    shell: RUN


rule report:
    input:
        rules.fig1_blocks.output, rules.fig2_tradeoff.output, rules.tab1_classification.output,
        notebook=ancient("nbs/paper/report.ipynb"), code=code(0)
    output: f"{RESULTS}/report.html"
    params: says=says("paper/report"), given=""
    log: f"{BUILD}/notebooks/report.ipynb"
    shell: RUN
