# The artifact as a graph: runs write records, paper notebooks read them. A rule is called after its
# notebook.
#
# A step depends on what its notebook says (not on the outputs saved in it), on the modules that the
# notebook imports, directly or through others, and on the settings that it reads. A comment, a cost
# or an expectation in a profile changes none of these.
# What papers read and make is in tools/manifest.py. A run writes below build/PROFILE only, so that
# `edgetpu-repro compare` can set it beside what is committed.

import sys
from pathlib import Path

sys.path.insert(0, "tools")
from dependencies import dependencies, settings_hash, source_hash
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.models.specs import get_spec
from edgetpu_repro.tasks.base import TASKS, variant_name, variants_of
from manifest import FINETUNED, SLICES, Manifest

PROFILE = load_profile(config.get("profile", "default"))
# What a run makes lies in build/PROFILE; what is committed, in results/ and figures/, it reads only.
BUILD, RESULTS = f"build/{PROFILE.name}", f"build/{PROFILE.name}/results"
PREPARED = f"{BUILD}/prepared"
for name in PROFILE.tasks: TASKS.known(name) # another one is said before anything runs

# {task: settings} and models by what happens to them; a model serves one task.
USED = {name: PROFILE.task(name) for name in TASKS if PROFILE.task(name).all_models}
TRAINED = {name: list(mine.models) for name, mine in USED.items() if mine.models}
REFERENCES = {name: list(mine.references) for name, mine in USED.items() if mine.references}
MODELS = [model for models in TRAINED.values() for model in models]


def records(step, names):
    "The records of a step."
    return expand(f"{RESULTS}/records/{step}/{{name}}.json", name=names)


def timed(task, models=None):
    "What is timed of a task, or of some of its models: {record: file}."
    out = {}
    if task not in USED: return out
    for model in models or USED[task].all_models:
        for variant in variants_of(task).timed:
            file = variant_name(model, "timed", variant, "int8")
            out[variant_name(model, variant)] = f"{BUILD}/tflite/{file}.tflite"
    return out


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
    return settings_hash(PROFILE.seed, data, train)


def export_settings(task):
    "What exporting the models of a task depends on."
    mine = PROFILE.task(task)
    parts = (mine.data, mine.data_for, mine.calibration_images, mine.timed)
    return settings_hash(PROFILE.seed, *parts)


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
       "EDGETPU_REPRO_LOAD_LESS=1 "
       "python tools/run_notebook.py {input.notebook:q} {log:q} --no-progress-bar "
       "-p profile {params.profile:q} {params.given} "
       "> {log:q}.txt 2>&1 || {{ tail -n 3 {log:q}.txt >&2; exit 1; }}")


def code(notebook):
    "The modules that a notebook depends on."
    return dependencies(notebook)


# Timing runs alone on its host: it asks for all of `host`, every other rule for one
# (profiles/default says how much there is); on Slurm (profiles/slurm) for a node of its own.
ALONE = dict(host=100, slurm_extra="'--exclusive'")
QUICK = dict(host=1, mem_mb=1500, runtime=10)
LONG = dict(host=1, mem_mb=6000, runtime=120)

# What a profile shows: each table and figure that it has the models for.
PAPERS = Manifest(PROFILE.name)
CLASSIFIERS, RELEASED = TRAINED.get("classification", []), PAPERS.released
SHOWN = [file for paper in PAPERS.papers.values() if paper.needed for file in paper.makes]
REPORT = f"{BUILD}/report.html"


# What a profile makes: the report; or the figures of released files; or trainings again and again.
FILES = {name: file for task in USED for name, file in timed(task).items()}
TIMED = list(FILES.values())
WORKFLOW = [REPORT, *records("train", MODELS), *TIMED]
AGAIN = PAPERS.papers["repeats"].makes if PROFILE.repeats.seeds else []


rule all:
    input: AGAIN or (SHOWN if RELEASED else WORKFLOW)
    resources: **QUICK


rule data:
    input: notebook=ancient("nbs/runs/data.ipynb"), code=code("runs/data")
    output: records("data", list(USED)), touch(PREPARED)
    params:
        profile=PROFILE.name, given="", source=source_hash("runs/data"),
        settings=settings_hash([(name, mine.data) for name, mine in USED.items()])
    log: f"{BUILD}/notebooks/data.ipynb"
    resources: **QUICK
    shell: RUN


rule train:
    input:
        PREPARED, lambda wildcards: backbone_weights(wildcards.model),
        notebook=ancient("nbs/runs/train.ipynb"), code=code("runs/train")
    output: f"{BUILD}/weights/{{model}}.keras", f"{RESULTS}/records/train/{{model}}.json"
    params:
        profile=PROFILE.name, given="-p model {model}", source=source_hash("runs/train"),
        settings=lambda wildcards: settings_of(wildcards.model)
    log: f"{BUILD}/notebooks/train_{{model}}.ipynb"
    priority: 1 # the longest jobs first; the short ones fill the gaps
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


for task, models in TRAINED.items():
    for model in models:
        rule: # one rule a model, for what it makes depends on its task
            name: f"export_{model}"
            input:
                PREPARED, f"{BUILD}/weights/{model}.keras",
                notebook=ancient("nbs/runs/export.ipynb"), code=code("runs/export")
            output:
                trained_files(model), list(timed(task, [model]).values()),
                records("export", [f"{model}_trained", f"{model}_timed"]),
                records("evaluate", [model]),
                f"{BUILD}/pictures/{model}.npz"
            params:
                profile=PROFILE.name, given=f"-p model {model}", source=source_hash("runs/export"),
                settings=export_settings(task)
            log: f"{BUILD}/notebooks/export_{model}.ipynb"
            threads: PROFILE.threads
            resources: **LONG
            shell: RUN


for task, models in REFERENCES.items():
    rule: # in one go: they are many, and each is done in seconds
        name: f"export_references_{task}"
        input: PREPARED, notebook=ancient("nbs/runs/export.ipynb"), code=code("runs/export")
        output:
            list(timed(task, models).values()),
            records("export", [f"{m}_timed" for m in models])
        params:
            profile=PROFILE.name, given=f"-p model '{' '.join(models)}' -p trained False",
            source=source_hash("runs/export"), settings=export_settings(task)
        log: f"{BUILD}/notebooks/export_references_{task}.ipynb"
        priority: 2 # needs no training, so it goes first
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


for task in USED:
    rule:
        name: f"benchmark_{task}"
        input:
            PREPARED, list(timed(task).values()),
            notebook=ancient("nbs/runs/benchmark.ipynb"), code=code("runs/benchmark")
        output: records("benchmark", list(timed(task)))
        params:
            profile=PROFILE.name, given=f"-p task {task}", source=source_hash("runs/benchmark"),
            settings=settings_hash(PROFILE.benchmark, PROFILE.task(task).timed)
        log: f"{BUILD}/notebooks/benchmark_{task}.ipynb"
        priority: 1 # before the papers, two of which can run beside each other
        threads: PROFILE.benchmark.threads
        resources: mem_mb=3000, runtime=60, **ALONE
        shell: RUN


BLOCK_FILES = f"{BUILD}/blocks" # a folder


rule block_files: # needs no data: runs while they are made
    input: notebook=ancient("nbs/runs/blocks.ipynb"), code=code("runs/blocks")
    output: directory(BLOCK_FILES)
    params:
        profile=PROFILE.name, given="-p timed False", source=source_hash("runs/blocks"),
        settings=settings_hash(PROFILE.blocks)
    log: f"{BUILD}/notebooks/block_files.ipynb"
    priority: 2
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


rule blocks:
    input:
        PREPARED, BLOCK_FILES,
        notebook=ancient("nbs/runs/blocks.ipynb"), code=code("runs/blocks")
    output: directory(f"{RESULTS}/records/blocks")
    params:
        profile=PROFILE.name, given="", source=source_hash("runs/blocks"),
        settings=settings_hash(PROFILE.blocks, PROFILE.benchmark)
    log: f"{BUILD}/notebooks/blocks.ipynb"
    priority: 1
    threads: PROFILE.benchmark.threads
    resources: mem_mb=3000, runtime=30, **ALONE
    shell: RUN


# Trainings again, with other seeds or other rounding; the first of every model before any second.
for place, repeat in enumerate(PAPERS.repeats):
    rule:
        name: f"repeat_{repeat.name}"
        input:
            PREPARED, backbone_weights(repeat.model),
            notebook=ancient("nbs/runs/repeat.ipynb"), code=code("runs/repeat")
        output: records("repeat", [repeat.name])
        params:
            profile=PROFILE.name, source=source_hash("runs/repeat"),
            given=f"-p model {repeat.model} -p seed {repeat.seed} -p rounding {repeat.rounding}",
            settings=settings_of(repeat.model)
        log: f"{BUILD}/notebooks/repeat_{repeat.name}.ipynb"
        priority: len(PAPERS.repeats) - place
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# What follows needs data that is not embedded, or takes longer than it is worth each time: not part
# of `all`, its results are committed. A stamp in build/, which is not, says whether it ran here.
WEIGHTS = expand(f"{BUILD}/weights/{{model}}.keras", model=CLASSIFIERS)
COMPARED = records("quantizers", CLASSIFIERS)
STUDIES = { # {notebook of nbs/runs: (what it reads, what it makes, what it is given)}
    "training_speed": ([PREPARED], records("training_speed", ["mobilenet_edgetpu_v2_xs"]), ""),
    "export_speed": ([PREPARED], records("export_speed", ["mobilenet_edgetpu_v2_xs"]), ""),
    "quantizers": ([PREPARED, *WEIGHTS], COMPARED, ""),
    "slices": ([], records("slices", SLICES), ""),
    "again": (TIMED + PAPERS.blocks, records("again", FILES), ""),
    "released": ([], records("released", ["mobilenet_edgetpu"]), ""),
    "finetune": ([PREPARED], records("finetune", FINETUNED), ""),
}
for study, (reads, makes, given) in STUDIES.items():
    if not makes: continue
    rule:
        name: study
        input:
            reads,
            notebook=ancient(f"nbs/runs/{study}.ipynb"), code=code(f"runs/{study}")
        output: makes, touch(f"{BUILD}/done/{study}")
        params:
            profile=PROFILE.name, given=given, source=source_hash(f"runs/{study}"),
            settings=settings_hash(PROFILE.tasks, PROFILE.benchmark, PROFILE.seed)
        log: f"{BUILD}/notebooks/{study}.ipynb"
        threads: 1000 # all of the host: Snakemake lowers it to --cores, on Slurm to max-threads
        resources: mem_mb=6000, runtime=240, **ALONE
        shell: RUN


# The search: hours on small hosts, its results are committed. A study is one process, so that it is
# the same to the bit each time; its journal in build/ survives whatever stops it.
PLAN, PLANNED, LONGER, TOY = PROFILE.search, PAPERS.planned, PAPERS.longer, PAPERS.toy
SEARCHED = settings_hash(PLAN, PROFILE.tasks, PROFILE.seed)


def searched_first(wildcards):
    "The search whose best a finalist is; a published model needs none."
    if wildcards.finalist in PLANNED: return records("search", [wildcards.finalist])
    return []


for study in PLANNED:
    rule:
        name: f"search_{study}"
        input: PREPARED, notebook=ancient("nbs/runs/search.ipynb"), code=code("runs/search")
        output: f"{RESULTS}/records/search/{study}.json"
        params:
            profile=PROFILE.name, given=f"-p study {study}", source=source_hash("runs/search"),
            settings=SEARCHED
        log: f"{BUILD}/notebooks/search_{study}.ipynb"
        priority: 3 if study == "longer" else 2 # finalists wait for the others
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


rule search_repeat:
    input:
        PREPARED, searched_first,
        notebook=ancient("nbs/runs/search_repeat.ipynb"), code=code("runs/search_repeat")
    output: f"{RESULTS}/records/search_repeat/{{finalist}}.json"
    params:
        profile=PROFILE.name, given="-p finalist {finalist}",
        source=source_hash("runs/search_repeat"), settings=SEARCHED
    log: f"{BUILD}/notebooks/search_repeat_{{finalist}}.ipynb"
    threads: PROFILE.threads
    resources: **LONG
    shell: RUN


for model, kind in PAPERS.ablated:
    rule:
        name: f"search_ablation_{model}_{kind}"
        input:
            PREPARED,
            notebook=ancient("nbs/runs/search_ablation.ipynb"), code=code("runs/search_ablation")
        output: f"{RESULTS}/records/search_ablation/{model}_{kind}.json"
        params:
            profile=PROFILE.name, given=f"-p model {model} -p kind {kind}",
            source=source_hash("runs/search_ablation"), settings=SEARCHED
        log: f"{BUILD}/notebooks/search_ablation_{model}_{kind}.ipynb"
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# What the training is worth and what controllers need is asked where something is trained longer.
SCORED = records("search_proxies", ["scores"] if TOY else [])
SEARCH_STEPS = { # {notebook of nbs/runs: (what it reads, what it makes)}
    "search_proxies": ([PREPARED, *records("search", LONGER)], SCORED),
    "search_controllers": ([PREPARED], records("search_controllers", TOY)),
}
for step, (reads, makes) in SEARCH_STEPS.items():
    if not makes: continue
    rule:
        name: step
        input:
            reads,
            notebook=ancient(f"nbs/runs/{step}.ipynb"), code=code(f"runs/{step}")
        output: makes
        params:
            profile=PROFILE.name, given="", source=source_hash(f"runs/{step}"), settings=SEARCHED
        log: f"{BUILD}/notebooks/{step}.ipynb"
        threads: PROFILE.threads
        resources: **LONG
        shell: RUN


# Released files on labelled pictures, from a folder of the user's: one record a file, so that a
# stopped run goes on.
for name in RELEASED:
    rule:
        name: f"published_{name}"
        input: notebook=ancient("nbs/runs/published.ipynb"), code=code("runs/published")
        output: records("published", [name])
        params:
            profile=PROFILE.name, given=f"-p file {name}", source=source_hash("runs/published"),
            settings=settings_hash(PROFILE.released.images, PROFILE.released.calibration_images)
        log: f"{BUILD}/notebooks/published_{name}.ipynb"
        threads: PROFILE.threads
        resources: mem_mb=6000, runtime=120, **ALONE
        shell: RUN


# The papers. Those that are not part of `all` are steps of `reproduce --step`.
for name, paper in PAPERS.papers.items():
    rule:
        name: name
        input:
            paper.reads,
            notebook=ancient(f"nbs/{paper.source}.ipynb"), code=code(paper.source)
        output: paper.makes, [] if paper.needed else touch(f"{BUILD}/done/{name}")
        params:
            profile=PROFILE.name, given=" ".join(f"-p {k} {v}" for k, v in paper.given.items()),
            source=source_hash(paper.source),
            settings=settings_hash(PROFILE.tasks, PROFILE.blocks, PLAN)
        log: f"{BUILD}/notebooks/{name}.ipynb"
        resources: **QUICK
        shell: RUN


rule report:
    input: SHOWN, notebook=ancient("nbs/paper/report.ipynb"), code=code("paper/report")
    output: REPORT
    params:
        profile=PROFILE.name, given="",
        source=source_hash("paper/report"), settings=settings_hash(PROFILE.tasks)
    log: f"{BUILD}/notebooks/report.ipynb"
    resources: **QUICK
    shell: RUN
