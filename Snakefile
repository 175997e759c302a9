# The artifact as a graph: runs write records, paper notebooks read them. A rule is called after its
# notebook.
#
# A step depends on what its notebook says (not on the outputs saved in it), on the modules that the
# notebook imports, directly or through others, and on the settings that it reads. A comment, a cost
# or an expectation in a profile changes none of these.
# What papers read and make stands in their first cells (tools/manifest.py). A run writes below
# build/PROFILE only, so that `edgetpu-repro compare` can set it beside what is committed.

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, "tools")
from dependencies import dependencies, settings_hash, source_hash
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.models.specs import get_spec
from edgetpu_repro.tasks.base import TASKS, variant_name, variants_of
from manifest import Manifest

PROFILE = load_profile(config.get("profile", "default"))
# What a run makes lies in build/PROFILE; what is committed, in results/ and figures/, it reads only.
BUILD, RESULTS = f"build/{PROFILE.name}", f"build/{PROFILE.name}/results"
PREPARED = f"{BUILD}/prepared"
for name in PROFILE.tasks: TASKS.known(name) # another one is said before anything runs

# {task: models} by what happens to them; a model serves one task.
PAPERS = Manifest(PROFILE.name)
USED = PAPERS.used
TRAINED = {name: list(mine.models) for name, mine in USED.items() if mine.models}
REFERENCES = {name: list(mine.references) for name, mine in USED.items() if mine.references}
MODELS = PAPERS.trained()


def records(step, names):
    "The records of a step."
    return expand(f"{RESULTS}/records/{step}/{{name}}.json", name=names)


def trained_files(model):
    "The files of a trained model at the size that it was trained at."
    variants = variants_of(get_spec(model).task).exported
    names = [variant_name(name, "int8") for name in variants]
    names.append(variant_name(variants[0], "float"))
    return [f"{BUILD}/tflite/{model}_trained_{name}.tflite" for name in names]


def settings_of(model):
    "What training a model depends on."
    task = get_spec(model).task
    data, train = PROFILE.data_settings(model, task), PROFILE.train_settings(model, task)
    return PROFILE.seed, data, train


def export_settings(task):
    "What exporting the models of a task depends on."
    mine = PROFILE.task(task)
    return PROFILE.seed, mine.data, mine.data_for, mine.calibration_images, mine.timed


def backbone_weights(model):
    "The trained classifier that a segmentation model starts from, if its profile says so."
    spec = get_spec(model)
    if not PROFILE.train_settings(spec.name, spec.task).from_backbone: return []
    if spec.backbone not in MODELS:
        raise UsageError(f"{PROFILE.name}: {spec.name} starts from {spec.backbone}, "
                         "which is not among the models")
    return [f"{BUILD}/weights/{spec.backbone}.keras"]


# The executed notebook is the log: Snakemake keeps it when a job fails. The last lines of papermill
# say why.
RUN = ("TF_CPP_MIN_LOG_LEVEL=3 TF_NUM_INTRAOP_THREADS={threads} TF_NUM_INTEROP_THREADS={threads} "
       "python tools/run_notebook.py {input.notebook:q} {log:q} --no-progress-bar "
       "-p profile {params.profile:q} {params.given} "
       "> {log:q}.txt 2>&1 || {{ tail -n 3 {log:q}.txt >&2; exit 1; }}")


def source(notebook):
    "The inputs of every rule: a notebook of nbs, and the modules that it depends on."
    return dict(notebook=ancient(f"nbs/{notebook}.ipynb"), code=dependencies(notebook))


def given(notebook, settings, words=""):
    "The params of every rule: parameters, and what it depends on that is no file."
    return dict(profile=PROFILE.name, given=words, source=source_hash(notebook),
                settings=settings if callable(settings) else settings_hash(*settings))


def log_of(name):
    "The executed notebook of a rule."
    return f"{BUILD}/notebooks/{name}.ipynb"


# Timing runs alone on its host: it asks for all of `host`, every other rule for one
# (profiles/default says how much there is); on Slurm (profiles/slurm) for a node of its own.
ALONE = dict(host=100, slurm_extra="'--exclusive'")
QUICK = dict(host=1, mem_mb=1500, runtime=10)
LONG = dict(host=1, mem_mb=6000, runtime=120)

# What a profile shows: each table and figure that it has the models for.
CLASSIFIERS, RELEASED = TRAINED.get("classification", []), PAPERS.released
SHOWN = [file for paper in PAPERS.papers.values() if paper.needed for file in paper.makes]
REPORT = f"{BUILD}/report.html"


# What a profile makes: the report; or the figures of released files; or trainings again and again.
TIMED = PAPERS.files_to_time()
WORKFLOW = [REPORT, *records("train", MODELS), *TIMED]
AGAIN = PAPERS.papers["repeats"].makes if PROFILE.repeats.seeds else []


rule all:
    input: AGAIN or (SHOWN if RELEASED else WORKFLOW)
    resources: **QUICK


rule data:
    input: **source("runs/data")
    output: records("data", list(USED)), touch(PREPARED)
    params: **given("runs/data", [[(name, mine.data) for name, mine in USED.items()]])
    log: log_of("data")
    resources: **QUICK
    shell: RUN


rule train:
    input: PREPARED, lambda wildcards: backbone_weights(wildcards.model), **source("runs/train")
    output: f"{BUILD}/weights/{{model}}.keras", f"{RESULTS}/records/train/{{model}}.json"
    params: **given("runs/train", lambda w: settings_hash(*settings_of(w.model)), "-p model {model}")
    log: log_of("train_{model}")
    priority: 1 # the longest jobs first; the short ones fill the gaps
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


for task, models in TRAINED.items():
    for model in models:
        rule: # one rule a model, for what it makes depends on its task
            name: f"export_{model}"
            input: PREPARED, f"{BUILD}/weights/{model}.keras", **source("runs/export")
            output:
                trained_files(model), PAPERS.files_to_time(task, [model]),
                records("export", [f"{model}_trained", f"{model}_timed"]),
                records("evaluate", [model]),
                f"{BUILD}/pictures/{model}.npz"
            params: **given("runs/export", export_settings(task), f"-p model {model}")
            log: log_of(f"export_{model}")
            threads: PROFILE.threads
            resources: **LONG
            shell: RUN


for task, models in REFERENCES.items():
    rule: # in one go: they are many, and each is done in seconds
        name: f"export_references_{task}"
        input: PREPARED, **source("runs/export")
        output:
            PAPERS.files_to_time(task, models),
            records("export", [f"{m}_timed" for m in models])
        params:
            **given("runs/export", export_settings(task),
                    f"-p model '{' '.join(models)}' -p trained False")
        log: log_of(f"export_references_{task}")
        priority: 2 # needs no training, so it goes first
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


for task in USED:
    rule:
        name: f"benchmark_{task}"
        input: PREPARED, PAPERS.files_to_time(task), **source("runs/benchmark")
        output: records("benchmark", PAPERS.timed(task))
        params:
            **given("runs/benchmark", [PROFILE.benchmark, PROFILE.task(task).timed],
                    f"-p task {task}")
        log: log_of(f"benchmark_{task}")
        priority: 1 # before the papers, two of which can run beside each other
        threads: PROFILE.benchmark.threads
        resources: mem_mb=3000, runtime=60, **ALONE
        shell: RUN


BLOCK_FILES = f"{BUILD}/blocks" # a folder


rule block_files: # needs no data: runs while they are made
    input: **source("runs/blocks")
    output: directory(BLOCK_FILES)
    params: **given("runs/blocks", [PROFILE.blocks], "-p timed False")
    log: log_of("block_files")
    priority: 2
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


rule blocks:
    input: PREPARED, BLOCK_FILES, **source("runs/blocks")
    output: directory(f"{RESULTS}/records/blocks")
    params: **given("runs/blocks", [PROFILE.blocks, PROFILE.benchmark])
    log: log_of("blocks")
    priority: 1
    threads: PROFILE.benchmark.threads
    resources: mem_mb=3000, runtime=30, **ALONE
    shell: RUN


# Trainings again, with other seeds or other rounding; the first of every model before any second.
for place, repeat in enumerate(PAPERS.repeats):
    rule:
        name: f"repeat_{repeat.name}"
        input: PREPARED, backbone_weights(repeat.model), **source("runs/repeat")
        output: records("repeat", [repeat.name])
        params:
            **given("runs/repeat", settings_of(repeat.model), f"-p model {repeat.model} "
                    f"-p seed {repeat.seed} -p rounding {repeat.rounding}")
        log: log_of(f"repeat_{repeat.name}")
        priority: len(PAPERS.repeats) - place
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# What follows needs data that is not embedded, or takes longer than it is worth each time: not part
# of `all`, its results are committed. A stamp in build/, which is not, says whether it ran here.
WEIGHTS = expand(f"{BUILD}/weights/{{model}}.keras", model=CLASSIFIERS)
STUDIES = { # {notebook of nbs/runs: (what it reads, records that it makes)}
    "training_speed": ([PREPARED], ["training_speed/mobilenet_edgetpu_v2_xs"]),
    "export_speed": ([PREPARED], ["export_speed/mobilenet_edgetpu_v2_xs"]),
    "quantizers": ([PREPARED, *WEIGHTS], ["quantizers/classification"]),
    "slices": ([], ["slices/*"]),
    "again": (TIMED + PAPERS.blocks, ["again/*"]),
    "released": ([], ["released/mobilenet_edgetpu"]),
    "finetune": ([PREPARED], ["finetune/*"]),
}
for study, (reads, made) in STUDIES.items():
    makes = PAPERS.records(*made)
    if not makes: continue
    rule:
        name: study
        input: reads, **source(f"runs/{study}")
        output: makes, touch(f"{BUILD}/done/{study}")
        params:
            **given(f"runs/{study}", [PROFILE.tasks, PROFILE.benchmark, PROFILE.seed])
        log: log_of(study)
        threads: 1000 # all of the host: Snakemake lowers it to --cores, on Slurm to max-threads
        resources: mem_mb=6000, runtime=240, **ALONE
        shell: RUN


# One epoch more, with the rounding of int8 and without: one record a model, so that a stopped run
# goes on.
for model in MODELS:
    rule:
        name: f"quantize_aware_{model}"
        input: PREPARED, f"{BUILD}/weights/{model}.keras", **source("runs/quantize_aware")
        output: records("quantize_aware", [model])
        params:
            **given("runs/quantize_aware", settings_of(model), f"-p model {model}")
        log: log_of(f"quantize_aware_{model}")
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# The search: hours on small hosts, its results are committed. A study is one process, so that it is
# the same to the bit each time; its journal in build/ survives whatever stops it.
PLAN, PLANNED = PROFILE.search, PAPERS.planned
SEARCHED = [PLAN, PROFILE.tasks, PROFILE.seed]


def searched_first(wildcards):
    "The search whose best a finalist is; a published model needs none."
    if wildcards.finalist in PLANNED: return records("search", [wildcards.finalist])
    return []


for study in PLANNED:
    rule:
        name: f"search_{study}"
        input: PREPARED, **source("runs/search")
        output: f"{RESULTS}/records/search/{study}.json"
        params: **given("runs/search", SEARCHED, f"-p study {study}")
        log: log_of(f"search_{study}")
        priority: 3 if study == "longer" else 2 # finalists wait for the others
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


rule search_repeat:
    input: PREPARED, searched_first, **source("runs/search_repeat")
    output: f"{RESULTS}/records/search_repeat/{{finalist}}.json"
    params: **given("runs/search_repeat", SEARCHED, "-p finalist {finalist}")
    log: log_of("search_repeat_{finalist}")
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


for model, kind in PAPERS.ablated:
    rule:
        name: f"search_ablation_{model}_{kind}"
        input: PREPARED, **source("runs/search_ablation")
        output: f"{RESULTS}/records/search_ablation/{model}_{kind}.json"
        params:
            **given("runs/search_ablation", SEARCHED, f"-p model {model} -p kind {kind}")
        log: log_of(f"search_ablation_{model}_{kind}")
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# What the training is worth and what controllers need is asked where something is trained longer.
SEARCH_STEPS = dict(search_proxies=records("search", PAPERS.longer), search_controllers=[])
for step, reads in SEARCH_STEPS.items():
    makes = PAPERS.records(f"{step}/*")
    if not makes: continue
    rule:
        name: step
        input: PREPARED, reads, **source(f"runs/{step}")
        output: makes
        params: **given(f"runs/{step}", SEARCHED)
        log: log_of(step)
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# Blocks in the places of a trained network: hours, in a study that goes on where it stopped.
if PROFILE.distil:
    rule distil_matrix:
        input: **source("runs/distil")
        output: PAPERS.records("distil/*")
        params: **given("runs/distil", [replace(PROFILE.distil, others=())])
        log: log_of("distil_matrix")
        threads: PROFILE.threads
        resources: host=1, mem_mb=6000, runtime=600
        shell: RUN


if PROFILE.distil and PROFILE.distil.others:
    rule distil_others:
        input: **source("runs/distil_teachers")
        output: PAPERS.records("distil_teachers/*")
        params: **given("runs/distil_teachers", [PROFILE.distil])
        log: log_of("distil_others")
        threads: PROFILE.threads
        resources: host=1, mem_mb=6000, runtime=600
        shell: RUN


# Released files on labelled pictures, from a folder of the user's: one record a file, so that a
# stopped run goes on.
for name in RELEASED:
    rule:
        name: f"published_{name}"
        input: **source("runs/published")
        output: records("published", [name])
        params:
            **given("runs/published", [PROFILE.released.images,
                    PROFILE.released.calibration_images], f"-p file {name}")
        log: log_of(f"published_{name}")
        threads: PROFILE.threads
        resources: mem_mb=6000, runtime=120, **ALONE
        shell: RUN


# The papers. Those that are not part of `all` are steps of `reproduce --step`.
for name, paper in PAPERS.papers.items():
    rule:
        name: name
        input: paper.reads, **source(paper.source)
        output: paper.makes, [] if paper.needed else touch(f"{BUILD}/done/{name}")
        params:
            **given(paper.source, [PROFILE.tasks, PROFILE.blocks, PLAN, PROFILE.distil],
                    " ".join(f"-p {k} {v}" for k, v in paper.given.items()))
        log: log_of(name)
        resources: **QUICK
        shell: RUN


rule report:
    input: SHOWN, **source("paper/report")
    output: REPORT
    params: **given("paper/report", [PROFILE.tasks])
    log: log_of("report")
    resources: **QUICK
    shell: RUN
