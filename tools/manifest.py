"""What the notebooks of nbs/paper and nbs/more read and make, profile by profile.

The Snakefile makes a rule of each, tools/tables.py makes what is committed again, and a test
compares what is declared here with what the notebooks read.
"""
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dependencies import MAKERS, ROOT
from edgetpu_repro.core.files import Paths, repo_root
from edgetpu_repro.core.published import published
from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.models.specs import get_spec
from edgetpu_repro.search.ablation import EXCHANGES
from edgetpu_repro.search.spaces import get_space
from edgetpu_repro.search.study import planned_studies
from edgetpu_repro.tasks.base import TASKS, variant_name, variants_of
from edgetpu_repro.train.repeats import planned_repeats

PAIRED = "classification", "segmentation"
FINETUNED = [f"{start}_{rate}" for start in ("random", "published") for rate in ("high", "low")]
SLICES = ("56x56x32_gc64", "28x28x48_gc64") # group convolutions of V2-XS
FRONTIERS = {"3": "edgetpu", "4": "cpu"} # figure: chip


@dataclass
class Paper:
    "A notebook of nbs/paper or nbs/more with its parameters, what it reads and what it makes."
    notebook:str
    needed:bool              # whether the profile has what it shows, and `all` makes it
    reads:list               # paths
    makes:list               # paths
    given:dict = field(default_factory=dict) # parameters beside the profile

    @property
    def source(self) -> str: # such as 'paper/claims'
        "Where the notebook is below nbs, without its ending."
        places = [f"{folder}/{self.notebook}" for folder in MAKERS]
        return next(p for p in places if (ROOT / "nbs" / f"{p}.ipynb").is_file())


def figure_files(folder, name):
    "The files of a figure: two pictures, and the numbers in them."
    return [f"{folder}/{name}.{ending}" for ending in ("svg", "png", "json")]


class Manifest:
    "The paper notebooks of a profile."

    def __init__(
        self,
        profile:str,
        run:bool=True, # Whether paths are those of a run, or the committed ones
    ):
        self.profile, self.root = load_profile(profile), repo_root()
        self.paths = Paths(profile, self.root, run)
        self.folder = lambda path: str(path.relative_to(self.root))
        self.used = {name: self.profile.task(name) for name in TASKS
                     if self.profile.task(name).all_models}

    def trained(self, *tasks) -> list:
        "Models that are trained, of some tasks or of all."
        return [m for t in tasks or self.used if t in self.used for m in self.used[t].models]

    def timed(self, *tasks) -> list:
        "Names of what is timed, of some tasks or of all."
        return [variant_name(m, v) for t in tasks or self.used if t in self.used
                for m in self.used[t].all_models for v in variants_of(t).timed]

    # Where things are.

    def records(self, step, names) -> list:
        "Records that this profile's own rules make."
        return [self.folder(self.paths.record(step, name)) for name in names]

    def committed(self, profile, step, names=None) -> list:
        "Records that no rule before makes: a run's own that are there, else the committed ones."
        paths = Paths(profile, self.root, self.paths.run)
        found = [paths.found(step, n) for n in (paths.names(step) if names is None else names)]
        return [self.folder(path) for path in found if path.exists()]

    def figure(self, *names) -> list:
        "The files of figures."
        folder = self.folder(self.paths.figures)
        return [file for name in names for file in figure_files(folder, name)]

    def table(self, *names) -> list:
        "Both files of tables."
        folder = self.folder(self.paths.tables)
        return [f"{folder}/{name}.{ending}" for name in names for ending in ("csv", "md")]

    def interactive(self, *names) -> list:
        "The interactive forms of figures."
        return [f"{self.folder(self.paths.results)}/hover/{name}.html" for name in names]

    def found(self, names) -> list:
        "What searches found, as files that commands take."
        return [f"{self.folder(self.paths.results)}/found/{name}.json" for name in names]

    def pictures(self, task) -> list:
        "Predicted masks or boxes: in build, never committed."
        folder = self.folder(self.paths.pictures)
        return [f"{folder}/{model}.npz" for model in self.trained(task)]

    @property
    def studied(self) -> list:
        "Trainings that say how accurate the classifiers are: of another profile, committed."
        study = self.profile.task("classification").study
        if not study: return []
        paths = Paths(study, self.root, run=False)
        names = [n for n in paths.names("repeat") if paths.record("repeat", n).exists()]
        return [self.folder(paths.record("repeat", n)) for n in names]

    @property
    def blocks(self) -> list:
        "The folder of the records of blocks."
        if not self.profile.blocks: return []
        return [self.folder(self.paths.record("blocks", "x").parent)]

    @property
    def released(self) -> list:
        "Released files that the profile measures on labelled pictures."
        return list(self.profile.released.files) if self.profile.released else []

    # Steps of a task whose records several notebooks read.

    def of_task(self, task, *more) -> list:
        "Records of training, accuracy and latency of a task."
        return [*self.records("train", self.trained(task)),
                *self.records("evaluate", self.trained(task)),
                *self.records("benchmark", self.timed(task)), *more]

    @cached_property
    def papers(self) -> dict: # {rule: Paper}
        "What the profile shows: each table and figure that it has the models for."
        return self.main | self.frontiers | self.studies | self.search

    @property
    def main(self) -> dict:
        "The page, and what goes beyond it."
        r, figure, table = self.records, self.figure, self.table
        classes, masked, found = (self.trained(t) for t in (*PAIRED, "detection"))
        exported = r("export", [f"{m}_timed" for m in self.timed("classification")])
        sizes = r("export", [f"{m}_timed" for m in self.used["segmentation"].all_models]
                  if "segmentation" in self.used else [])
        classified, evaluated = self.of_task("classification"), r("evaluate", masked)
        segmented = [*evaluated, *r("benchmark", self.timed("segmentation"))]
        known = {Path(path).stem.rpartition("_")[0] for path in self.studied}
        shown_classes = [m for m in self.timed("classification") if m in known] or classes
        learnt = [*r("train", classes), *r("evaluate", classes), *self.studied,
                  *r("benchmark", shown_classes)]
        own = [variant_name(m, v) for m in masked for v in variants_of("segmentation").timed]
        detection = [*figure("detection_graph", "detection", "detection_gallery"),
                     *table("detection")]
        real = [*figure("published", "published_layers"),
                *table("published", "published_claims", "published_better")]
        shown = {
            "fig1_blocks": (classes, [], figure("fig1_blocks")),
            "fig2_tradeoff": (
                self.blocks, self.blocks, figure("fig2_tradeoff") + table("fig2_tradeoff")),
            "counterfactuals": (classes, [], figure("counterfactuals") + table("counterfactuals")),
            "predictions": (classes, [], table("predictions")),
            "tab1_classification": (
                classes, [*classified, *exported, *self.studied], table("tab1_classification")),
            "accuracy": (classes, learnt, figure("accuracy") + table("accuracy")),
            "tab2_parameters": (sizes, sizes, table("tab2_parameters")),
            "tab3_segmentation": (masked, segmented, table("tab3_segmentation")),
            "fig5_segmentation": (
                masked, [*evaluated, *r("benchmark", own)], figure("fig5_segmentation")),
            "gallery": (masked, [*self.pictures("segmentation"), *evaluated[:1]],
                        figure("gallery")),
            "detection": (found, self.of_task("detection", *self.pictures("detection")),
                          detection),
            "published": (self.released, r("published", self.released), real),
            "claims": (self.blocks and classes, self.claimed, [
                *figure("claims"), *table("claims", "claims_evidence", "claims_sensitivity")]),
        }
        return {name: Paper(name, bool(needed), reads, makes)
                for name, (needed, reads, makes) in shown.items() if needed}

    @property
    def frontiers(self) -> dict:
        "Figure 3 and, on a CPU, Figure 4."
        out = {}
        if not self.trained("classification"): return out
        known = {*published("classification"), *published("on-device")}
        names = [m for m in self.timed("classification") if m in known]
        timed = self.records("benchmark", names)
        for number, chip in FRONTIERS.items():
            name = f"fig{number}_frontier"
            makes = [*self.figure(name), *self.table(name), *self.interactive(name)]
            out[name] = Paper("frontier", True, timed, makes, dict(chip=chip))
        return out

    @property
    def studies(self) -> dict:
        "What is not part of `all`: studies whose results are committed."
        compared = self.records("quantizers", self.trained("classification"))
        imported = [*self.records("released", ["mobilenet_edgetpu"]),
                    *self.records("finetune", FINETUNED)]
        pictures = [*self.figure("released", "finetune"), *self.table("released_pictures")]
        out = {"paper_released": Paper("released", False, imported, pictures)}
        if self.repeats: out["repeats"] = self.repeated
        if not compared: return out
        makes = [*self.figure("quantizers"), *self.table("quantizers")]
        return out | {"paper_quantizers": Paper("quantizers", False, compared, makes)}

    @cached_property
    def repeats(self) -> list:
        "Trainings of the profile's models that are done again."
        again = self.profile.repeats
        return planned_repeats(self.trained(), again.seeds, again.roundings)

    @property
    def repeated(self) -> Paper:
        "What chance does to them; those that are there are shown, a run makes all."
        names = [repeat.name for repeat in self.repeats]
        reads = self.records("repeat", names)
        if not self.paths.run: reads = [path for path in reads if (self.root/path).exists()]
        if self.profile.repeats.roundings: reads += self.records("evaluate", self.trained())
        return Paper("repeats", False, reads, [*self.figure("repeats"), *self.table("repeats")])

    @property
    def claimed(self) -> list:
        "What the claims read: this profile's times, and what others measured."
        name = self.profile.name
        paired = [variant_name(get_spec(m).name, v) for m in published("segmentation")
                  for v in variants_of("segmentation").timed]
        masks = set(paired) & set(self.timed("segmentation"))
        own = [*self.records("benchmark", [*self.timed("classification"), *sorted(masks)]),
               *self.blocks]
        others = [*self.studied, *self.committed(name, "slices"),
                  *self.committed("published", "published"),
                  *self.committed("camvid", "benchmark", paired)]
        return list(dict.fromkeys([*own, *others]))

    # The search.

    @cached_property
    def plan(self):
        "The profile's plan of searches, or None."
        return self.profile.search

    @cached_property
    def planned(self) -> dict:
        "Its studies."
        return planned_studies(self.profile.name) if self.plan else {}

    @property
    def longer(self) -> list:
        "The study that trains for longer: a plan may leave it out."
        return [name for name in self.planned if name == "longer"]

    @property
    def toy(self) -> list:
        "Controllers that are compared where the search trains something for longer."
        asked = self.plan and get_space(self.plan.space).task == "classification" and self.longer
        names = ["random", "evolution", "reinforce", "nsga2", "tpe", "policy", "sweep"]
        return names if asked else []

    @property
    def ablated(self) -> list:
        "Models and the kinds that their group convolutions are exchanged for."
        return [(m, kind) for m in (self.plan.ablated if self.plan else []) for kind in EXCHANGES]

    @property
    def search(self) -> dict:
        "The paper notebooks of the search; each is a step of `reproduce --step`."
        if not self.plan: return {}
        return {name: paper for name, paper in (
            ("search", self._searched()), ("search_ablation", self._ablation()),
            ("search_targets", self._targets())) if paper.makes}

    def _searched(self) -> Paper:
        "Whether searching is worth anything."
        r, finalists = self.records, ["reference", "random", "evolution"]
        reads = [*r("search", [*self.longer, "random", "evolution"]),
                 *r("search_repeat", finalists),
                 *r("search_proxies", ["scores"] if self.toy else []),
                 *r("search_controllers", self.toy),
                 *self.studied]
        makes = [*self.figure(*(["search_proxy"] if self.longer else []),
                              *(["search_controllers"] if self.toy else []),
                              "search_frontier", "search_blocks"),
                 *self.table("search", "search_claims"), *self.found(finalists[1:])]
        return Paper("search", False, reads, makes)

    def _ablation(self) -> Paper:
        "What is lost without group convolutions."
        r, without = self.records, ["without"] if "without" in self.planned else []
        others = [m for m in self.plan.ablated if m != self.plan.reference]
        reads = [*r("search", ["evolution", *without]),
                 *r("search_repeat", ["reference", "evolution", *without, *others]),
                 *r("search_ablation", [f"{model}_{kind}" for model, kind in self.ablated])]
        makes = [*self.figure("search_ablation"),
                 *self.table("search_ablation", "search_ablation_claims"), *self.found(without)]
        return Paper("search_ablation", False, reads, makes if without else [])

    def _targets(self) -> Paper:
        "Searches at other latencies."
        r, others = self.records, [name for name in self.planned if name.endswith("ms")]
        names = ["reference", "evolution", *others, *self.plan.published]
        reads = [*r("search", ["evolution", *others]), *r("search_repeat", names)]
        makes = [*self.figure("search_targets"), *self.table("search_targets"),
                 *self.found(others)]
        return Paper("search_targets", False, reads, makes if others else [])


def committed_papers() -> list: # of (profile, rule, Paper): those of which something is committed
    "Every paper notebook whose tables or figures are in the repository."
    root, out = repo_root(), []
    for folder in sorted((root/"results").iterdir()):
        if not folder.is_dir() or folder.name == "smoke": continue
        for rule, paper in Manifest(folder.name, run=False).papers.items():
            if any((root/path).exists() for path in paper.makes if Path(path).suffix == ".md"
                   or "figures/" in path): out.append((folder.name, rule, paper))
    return out
