# The artifact as a graph: runs write records, paper notebooks read them. One rule a step, each running a notebook.
# A step depends on what its notebook says (not on the outputs saved in it), on its profile, and on the library modules
# up to its own number. All depend on build/PROFILE/prepared, which is not committed: a fresh clone measures anew.

import hashlib
import json
from pathlib import Path

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.models.specs import get_spec

PROFILE = load_profile(config.get("profile", "default"))
BUILD, RESULTS, FIGURES = (f"{top}/{PROFILE.name}" for top in ("build", "results", "figures"))
MODELS, TIMED = list(PROFILE.models), [*PROFILE.models, *PROFILE.references]
SEGMENTATION = PROFILE.segmentation
MASKED, MASKED_TIMED = list(SEGMENTATION.models), [*SEGMENTATION.models, *SEGMENTATION.references]
PREPARED = f"{BUILD}/prepared"

ROOMS = ["core", "models", "data", "tasks", "train", "tflite", "measure", "show"]
code = lambda upto: [f"config/{PROFILE.name}.yaml", *(str(p) for room in ROOMS[:ROOMS.index(upto) + 1] for p in sorted(Path(f"edgetpu_repro/{room}").glob("*.py")))]
says = lambda notebook: hashlib.sha256("".join(
    "".join(cell["source"]) for cell in json.load(open(f"nbs/{notebook}.ipynb"))["cells"]).encode()).hexdigest()
records = lambda step, names: expand(f"{RESULTS}/records/{step}/{{name}}.json", name=names)
figure = lambda name: multiext(f"{FIGURES}/{name}", ".svg", ".png")
table = lambda name: multiext(f"{RESULTS}/tables/{name}", ".csv", ".md")
twin = lambda name: [f"{RESULTS}/hover/{name}.html"]
one_of = lambda names: "|".join(names) or "none"

# The executed notebook is the log: Snakemake keeps it when a job fails. The last lines of papermill say why.
RUN = ("TF_CPP_MIN_LOG_LEVEL=3 TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} "
       f"papermill {{input.notebook}} {{log}} --no-progress-bar -p profile {PROFILE.name} {{params.given}} "
       "> {log}.txt 2>&1 || {{ tail -n 3 {log}.txt >&2; exit 1; }}")

# What a profile shows: each table and figure that it has the models for.
SHOWN = [
    *(figure("fig1_blocks") + table("tab1_classification") + figure("accuracy") + table("accuracy") if MODELS else []),
    *(figure("fig2_tradeoff") if PROFILE.blocks else []),
    *(figure("fig3_frontier") + figure("fig4_frontier") + twin("fig3_frontier") + twin("pareto_modelled") if MODELS else []),
    table("claims"),
    *(table("tab2_parameters") if MASKED_TIMED else []),
    *(table("tab3_segmentation") + figure("fig5_segmentation") + figure("gallery") if MASKED else []),
]


rule all:
    input:
        f"{RESULTS}/report.html",
        records("train", MODELS + MASKED),
        expand(f"{BUILD}/weights/{{model}}.keras", model=MODELS + MASKED),
        expand(f"{BUILD}/tflite/{{model}}_timed_int8.tflite", model=TIMED),
        expand(f"{BUILD}/tflite/{{model}}_timed_{{argmax}}_int8.tflite", model=MASKED_TIMED, argmax=("default", "fused4")),


rule data:
    input: notebook=ancient("nbs/runs/data.ipynb"), code=code("data")
    output: records("data", ["classification"] * bool(MODELS) + ["segmentation"] * bool(MASKED)), touch(PREPARED)
    params: says=says("runs/data"), given=""
    log: f"{BUILD}/notebooks/data.ipynb"
    shell: RUN


def backbone_weights(wildcards):
    "The trained classifier that a segmentation model starts from, if its profile says so."
    spec = get_spec(wildcards.model)
    if spec.task != "segmentation" or not SEGMENTATION.train.from_backbone: return []
    if spec.backbone not in MODELS: raise UsageError(f"{PROFILE.name}: {spec.name} starts from {spec.backbone}, which is not among the models")
    return [f"{BUILD}/weights/{spec.backbone}.keras"]


rule train:
    input: PREPARED, backbone_weights, notebook=ancient("nbs/runs/train.ipynb"), code=code("train")
    output: f"{BUILD}/weights/{{model}}.keras", f"{RESULTS}/records/train/{{model}}.json"
    params: says=says("runs/train"), given="-p model {model}"
    log: f"{BUILD}/notebooks/train_{{model}}.ipynb"
    priority: 1 # the longest jobs first; the short ones fill the gaps
    shell: RUN


rule export:
    input: PREPARED, f"{BUILD}/weights/{{model}}.keras", notebook=ancient("nbs/runs/export.ipynb"), code=code("measure")
    output:
        expand(f"{BUILD}/tflite/{{{{model}}}}_{{file}}.tflite", file=("trained_float", "trained_int8", "timed_int8")),
        expand(f"{RESULTS}/records/export/{{{{model}}}}_{{variant}}.json", variant=("trained", "timed")),
        f"{RESULTS}/records/evaluate/{{model}}.json"
    params: says=says("runs/export"), given="-p model {model}"
    log: f"{BUILD}/notebooks/export_{{model}}.ipynb"
    wildcard_constraints: model=one_of(MODELS)
    shell: RUN


rule export_references: # in one go: they are many, and each is done in seconds
    input: PREPARED, notebook=ancient("nbs/runs/export.ipynb"), code=code("measure")
    output:
        expand(f"{BUILD}/tflite/{{model}}_timed_int8.tflite", model=PROFILE.references) or f"{BUILD}/no_references",
        records("export", [f"{m}_timed" for m in PROFILE.references])
    params: says=says("runs/export"), given=f"-p model '{' '.join(PROFILE.references)}' -p trained False"
    log: f"{BUILD}/notebooks/export_references.ipynb"
    shell: RUN


rule segment:
    input: PREPARED, f"{BUILD}/weights/{{model}}.keras", notebook=ancient("nbs/runs/segment.ipynb"), code=code("measure")
    output:
        expand(f"{BUILD}/tflite/{{{{model}}}}_timed_{{argmax}}_int8.tflite", argmax=("default", "fused4")),
        expand(f"{RESULTS}/records/segment/{{{{model}}}}_{{variant}}.json", variant=("trained", "timed")),
        f"{RESULTS}/records/evaluate/{{model}}.json", f"{BUILD}/pictures/{{model}}.npz"
    params: says=says("runs/segment"), given="-p model {model}"
    log: f"{BUILD}/notebooks/segment_{{model}}.ipynb"
    wildcard_constraints: model=one_of(MASKED)
    shell: RUN


rule segment_references:
    input: PREPARED, notebook=ancient("nbs/runs/segment.ipynb"), code=code("measure")
    output:
        expand(f"{BUILD}/tflite/{{model}}_timed_{{argmax}}_int8.tflite", model=SEGMENTATION.references, argmax=("default", "fused4"))
            or f"{BUILD}/no_segmentation_references",
        records("segment", [f"{m}_timed" for m in SEGMENTATION.references])
    params: says=says("runs/segment"), given=f"-p model '{' '.join(SEGMENTATION.references)}' -p trained False"
    log: f"{BUILD}/notebooks/segment_references.ipynb"
    shell: RUN


# Timing takes all cores, so that nothing runs beside it.
rule benchmark:
    input:
        PREPARED, expand(f"{BUILD}/tflite/{{model}}_timed_int8.tflite", model=TIMED),
        notebook=ancient("nbs/runs/benchmark.ipynb"), code=code("measure")
    output: records("benchmark", TIMED) or f"{BUILD}/nothing_to_time"
    params: says=says("runs/benchmark"), given=""
    log: f"{BUILD}/notebooks/benchmark.ipynb"
    threads: workflow.cores
    shell: RUN


rule benchmark_segmentation:
    input:
        PREPARED, expand(f"{BUILD}/tflite/{{model}}_timed_{{argmax}}_int8.tflite", model=MASKED_TIMED, argmax=("default", "fused4")),
        notebook=ancient("nbs/runs/benchmark.ipynb"), code=code("measure")
    output: records("benchmark", [f"{m}_{argmax}" for m in MASKED_TIMED for argmax in ("default", "fused4")]) or f"{BUILD}/nothing_to_segment"
    params: says=says("runs/benchmark"), given="-p task segmentation"
    log: f"{BUILD}/notebooks/benchmark_segmentation.ipynb"
    threads: workflow.cores
    shell: RUN


rule blocks:
    input: PREPARED, notebook=ancient("nbs/runs/blocks.ipynb"), code=code("measure")
    output: directory(f"{RESULTS}/records/blocks")
    params: says=says("runs/blocks"), given=""
    log: f"{BUILD}/notebooks/blocks.ipynb"
    threads: workflow.cores
    shell: RUN


rule training_speed: # not part of `all`: it says how fast training is, no published number depends on it
    input: PREPARED, notebook=ancient("nbs/runs/training_speed.ipynb"), code=code("train")
    output: f"{RESULTS}/records/training_speed/mobilenet_edgetpu_v2_xs.json"
    params: says=says("runs/training_speed"), given=""
    log: f"{BUILD}/notebooks/training_speed.ipynb"
    threads: workflow.cores
    shell: RUN


rule export_speed: # like training_speed
    input: PREPARED, notebook=ancient("nbs/runs/export_speed.ipynb"), code=code("tflite")
    output: f"{RESULTS}/records/export_speed/mobilenet_edgetpu_v2_xs.json"
    params: says=says("runs/export_speed"), given=""
    log: f"{BUILD}/notebooks/export_speed.ipynb"
    threads: workflow.cores
    shell: RUN


# What follows needs data that is not embedded, or takes longer than it is worth each time: not part of `all`, its results are committed.
rule quantizers:
    input: PREPARED, expand(f"{BUILD}/weights/{{model}}.keras", model=MODELS + MASKED), notebook=ancient("nbs/runs/quantizers.ipynb"), code=code("measure")
    output: records("quantizers", MODELS + MASKED)
    params: says=says("runs/quantizers"), given=""
    log: f"{BUILD}/notebooks/quantizers.ipynb"
    threads: workflow.cores
    shell: RUN


rule compare_quantizers:
    input: rules.quantizers.output, notebook=ancient("nbs/paper/quantizers.ipynb"), code=code("models")
    output: figure("quantizers"), table("quantizers")
    params: says=says("paper/quantizers"), given=""
    log: f"{BUILD}/notebooks/compare_quantizers.ipynb"
    shell: RUN


rule released:
    input: notebook=ancient("nbs/runs/released.ipynb"), code=code("tflite")
    output: f"{RESULTS}/records/released/mobilenet_edgetpu.json"
    params: says=says("runs/released"), given=""
    log: f"{BUILD}/notebooks/released.ipynb"
    shell: RUN


rule finetune:
    input: PREPARED, notebook=ancient("nbs/runs/finetune.ipynb"), code=code("train")
    output: records("finetune", [f"{start}_{rate}" for start in ("random", "published") for rate in ("high", "low")])
    params: says=says("runs/finetune"), given=""
    log: f"{BUILD}/notebooks/finetune.ipynb"
    threads: workflow.cores
    shell: RUN


rule released_weights:
    input: rules.released.output, rules.finetune.output, notebook=ancient("nbs/paper/released.ipynb"), code=code("models")
    output: figure("released"), figure("finetune"), table("released_pictures")
    params: says=says("paper/released"), given=""
    log: f"{BUILD}/notebooks/released_weights.ipynb"
    shell: RUN


rule fig1_blocks:
    input: PREPARED, notebook=ancient("nbs/paper/fig1_blocks.ipynb"), code=code("models")
    output: figure("fig1_blocks")
    params: says=says("paper/fig1_blocks"), given=""
    log: f"{BUILD}/notebooks/fig1_blocks.ipynb"
    shell: RUN


rule fig2_tradeoff:
    input: f"{RESULTS}/records/blocks", notebook=ancient("nbs/paper/fig2_tradeoff.ipynb"), code=code("show")
    output: figure("fig2_tradeoff"), table("fig2_tradeoff")
    params: says=says("paper/fig2_tradeoff"), given=""
    log: f"{BUILD}/notebooks/fig2_tradeoff.ipynb"
    shell: RUN


rule frontier: # Figure 3 and, on a CPU, Figure 4
    input: records("benchmark", TIMED), notebook=ancient("nbs/paper/frontier.ipynb"), code=code("show")
    output: figure("fig{number}_frontier"), table("fig{number}_frontier"), twin("fig{number}_frontier")
    params: says=says("paper/frontier"), given=lambda wildcards: f"-p chip {dict([('3', 'edgetpu'), ('4', 'cpu')])[wildcards.number]}"
    log: f"{BUILD}/notebooks/fig{{number}}_frontier.ipynb"
    wildcard_constraints: number="3|4"
    shell: RUN


rule claims:
    input:
        rules.benchmark.output, rules.benchmark_segmentation.output, records("evaluate", MODELS + MASKED), [f"{RESULTS}/records/blocks"] if PROFILE.blocks else [],
        notebook=ancient("nbs/paper/claims.ipynb"), code=code("show")
    output: table("claims")
    params: says=says("paper/claims"), given=""
    log: f"{BUILD}/notebooks/claims.ipynb"
    shell: RUN


rule tab1_classification:
    input:
        records("train", MODELS), records("evaluate", MODELS), records("benchmark", TIMED),
        records("export", [f"{m}_timed" for m in TIMED]),
        notebook=ancient("nbs/paper/tab1_classification.ipynb"), code=code("models")
    output: table("tab1_classification")
    params: says=says("paper/tab1_classification"), given=""
    log: f"{BUILD}/notebooks/tab1_classification.ipynb"
    shell: RUN


rule accuracy:
    input:
        records("train", MODELS), records("evaluate", MODELS), records("benchmark", TIMED),
        notebook=ancient("nbs/paper/accuracy.ipynb"), code=code("show")
    output: figure("accuracy"), table("accuracy"), twin("pareto_measured"), twin("pareto_modelled")
    params: says=says("paper/accuracy"), given=""
    log: f"{BUILD}/notebooks/accuracy.ipynb"
    shell: RUN


rule tab2_parameters:
    input:
        records("segment", [f"{m}_timed" for m in MASKED_TIMED]),
        notebook=ancient("nbs/paper/tab2_parameters.ipynb"), code=code("models")
    output: table("tab2_parameters")
    params: says=says("paper/tab2_parameters"), given=""
    log: f"{BUILD}/notebooks/tab2_parameters.ipynb"
    shell: RUN


SEGMENTED = [*records("evaluate", MASKED), *records("train", MASKED), *rules.benchmark_segmentation.output] # what Table 3 and Figure 5 read


rule tab3_segmentation:
    input: SEGMENTED, notebook=ancient("nbs/paper/tab3_segmentation.ipynb"), code=code("show")
    output: table("tab3_segmentation")
    params: says=says("paper/tab3_segmentation"), given=""
    log: f"{BUILD}/notebooks/tab3_segmentation.ipynb"
    shell: RUN


rule fig5_segmentation:
    input: SEGMENTED, notebook=ancient("nbs/paper/fig5_segmentation.ipynb"), code=code("models")
    output: figure("fig5_segmentation")
    params: says=says("paper/fig5_segmentation"), given=""
    log: f"{BUILD}/notebooks/fig5_segmentation.ipynb"
    shell: RUN


rule gallery:
    input: expand(f"{BUILD}/pictures/{{model}}.npz", model=MASKED), notebook=ancient("nbs/paper/gallery.ipynb"), code=code("models")
    output: figure("gallery")
    params: says=says("paper/gallery"), given=""
    log: f"{BUILD}/notebooks/gallery.ipynb"
    shell: RUN


rule report:
    input: SHOWN, notebook=ancient("nbs/paper/report.ipynb"), code=code("core")
    output: f"{RESULTS}/report.html"
    params: says=says("paper/report"), given=""
    log: f"{BUILD}/notebooks/report.ipynb"
    shell: RUN
