"""What the notebooks of nbs/paper and nbs/more read and make, profile by profile.

Each says so in its first cell, after title and summary:

    - step: `search`                     its rule, run when asked for; without, part of `all`
    - rule: `fig4_frontier` with chip=cpu    a rule with a parameter of its own
    - needs: `train/classification`      the rule is there if the profile has some
    - reads: `evaluate/segmentation`, `camvid:benchmark/paired`, `study`
    - figure `claims`: Claims. What it shows.
    - found `search/targets`

The Snakefile makes rules of it, the report and the site take captions from it, tools/tables.py
makes what is committed again, and a test compares it with what notebooks read.
"""
import json
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from dependencies import MAKERS, ROOT
from edgetpu_repro.core.files import Paths, repo_root
from edgetpu_repro.core.published import published
from edgetpu_repro.core.settings import load_profile
from edgetpu_repro.models.specs import get_spec
from edgetpu_repro.search.ablation import EXCHANGES
from edgetpu_repro.search.spaces import get_space
from edgetpu_repro.search.plans import planned_studies
from edgetpu_repro.tasks.base import TASKS, files_to_time, variant_name, variants_of
from edgetpu_repro.train.repeats import planned_repeats

ENDINGS = { # of a product: folder of a run's `Paths`, and its files
    "figure": ("figures", ("svg", "png", "json")),
    "table": ("tables", ("csv", "md")),
    "interactive": ("results/hover", ("html",)),
    "found": ("results/found", ("json",)),
}


@dataclass(frozen=True)
class Product:
    "A figure, a table or a file that a notebook makes, as its first cell has it."
    kind:str
    name:str      # of its files, or a reference to names such as 'search/targets'
    needs:str     # a reference that must not be empty, or ''
    caption:str   # its first sentence is the title

    @property
    def title(self) -> str:
        "What a heading calls it."
        return self.caption.partition(". ")[0] or self.name


@dataclass(frozen=True)
class Declaration:
    "The first cell of a notebook."
    source:str    # such as 'paper/claims'
    rules:dict    # {name: parameters beside the profile}
    asked:bool    # whether it is a step that runs when it is asked for
    needs:list    # references
    reads:list    # references
    products:list

    def makes(self, rule:str) -> list: # of `Product`
        "What one of its rules makes."
        return [p for p in self.products if len(self.rules) == 1 or p.name == rule]


PRODUCT = rf"^- ({'|'.join(ENDINGS)}) `([^`]+)`(?: if `([^`]+)`)?(?:: (.+))?$"


def declared(path:Path) -> Declaration:
    "What a notebook says of itself."
    head = "".join(json.loads(path.read_text())["cells"][0]["source"])
    lines = dict(re.findall(r"^- (needs|reads): (.+)$", head, flags=re.M))
    references = [re.findall("`([^`]+)`", lines.get(key, "")) for key in ("needs", "reads")]
    found = re.findall(r"^- (step|rule): `(\w+)`(?: with (\w+)=(\w+))?$", head, flags=re.M)
    rules = {name: {key: value} if key else {} for _, name, key, value in found}
    asked = any(kind == "step" for kind, *_ in found)
    products = [Product(*groups) for groups in re.findall(PRODUCT, head, flags=re.M)]
    source = f"{path.parent.name}/{path.stem}"
    return Declaration(source, rules or {path.stem: {}}, asked, *references, products)


@cache
def declarations() -> list: # of `Declaration`
    "Of every notebook that makes something, those of the page first."
    paths = [p for name in MAKERS for p in sorted((ROOT / "nbs" / name).glob("*.ipynb"))]
    return [found for found in map(declared, paths) if found.products]


def captioned(kind:str) -> dict: # {name: `Product`}
    "All figures or tables in their order."
    return {p.name: p for d in declarations() for p in d.products if p.kind == kind}


@dataclass
class Paper:
    "A rule of a notebook: its parameters, what it reads and what it makes."
    source:str               # such as 'paper/claims'
    needed:bool              # whether `all` makes it
    reads:list               # paths
    makes:list               # paths
    given:dict = field(default_factory=dict) # parameters beside the profile


class Manifest:
    "The notebooks of a profile that has what they show."

    def __init__(
        self,
        profile:str,
        run:bool=True, # Whether paths are those of a run, or the committed ones
    ):
        self.profile, self.root = load_profile(profile), repo_root()
        self.paths = Paths(profile, self.root, run)
        self.used = {name: self.profile.task(name) for name in TASKS
                     if self.profile.task(name).all_models}
        self.plan = self.profile.search

    def path(self, path:Path) -> str:
        "Relative to the checkout."
        return str(path.relative_to(self.root))

    def trained(self, *tasks) -> list:
        "Models that are trained, of some tasks or of all."
        return [m for t in tasks or self.used if t in self.used for m in self.used[t].models]

    def timed(self, *tasks) -> list:
        "Names of what is timed, of some tasks or of all."
        return [variant_name(m, v) for t in tasks or self.used if t in self.used
                for m in self.used[t].all_models for v in variants_of(t).timed]

    def files_to_time(self, task=None, models=None) -> list: # of paths
        "The files that are timed, of a task or of some of its models."
        return [self.path(file) for name, mine in self.used.items() if task in (None, name)
                for file in files_to_time(self.paths, name, models or mine.all_models).values()]

    @cached_property
    def groups(self) -> dict: # {reference: names of records}
        "What the references that are neither of a task nor of one record stand for."
        masked, paired = self.trained("segmentation"), variants_of("segmentation").timed
        printed = {*published("classification"), *published("on-device")}
        return {
            "again/*": self.timed(),
            "benchmark/masked": [variant_name(m, v) for m in masked for v in paired],
            "benchmark/published": [m for m in self.timed("classification") if m in printed],
            "benchmark/studied": self.studied,
            "benchmark/paired": self.paired,
            "distil/*": ["matrix", "networks"] if self.profile.distil else [],
            "distil_teachers/*":
                [s.name for s in self.profile.distil.others] if self.profile.distil else [],
            "evaluate/first": masked[:1],
            "evaluate/rounded": self.trained() if self.profile.repeats.roundings else [],
            "finetune/*": FINETUNED,
            "published/files": self.released,
            "quantize_aware/*": self.trained(),
            "repeat/*": [repeat.name for repeat in self.repeats],
            "search/*": [*self.planned],
            "search/longer": self.longer,
            "search/targets": [name for name in self.planned if name.endswith("ms")],
            "search/without": [name for name in self.planned if name == "without"],
            "search_ablation/*": [f"{model}_{kind}" for model, kind in self.ablated],
            "search_controllers/*": self.toy,
            "search_proxies/*": ["scores"] if self.toy else [],
            "search_repeat/ablated": [m for m in self.plan.ablated if m != self.plan.reference]
            if self.plan else [],
            "search_repeat/published": list(self.plan.published) if self.plan else [],
            "slices/*": SLICES,
        }

    def names(self, reference:str) -> list:
        "Names of records, such as those of 'benchmark/classification'."
        step, _, of = reference.partition("/")
        if reference in self.groups: return list(self.groups[reference])
        if f"search/{of}" in self.groups: return list(self.groups[f"search/{of}"])
        if of not in TASKS: return [of]
        if step == "benchmark": return self.timed(of)
        if step != "export": return self.trained(of)
        return [f"{m}_timed" for m in (self.used[of].all_models if of in self.used else [])]

    def read(self, reference:str) -> list: # of paths
        """Records that a reference stands for.

        Those of another profile, and slices, are made by no rule before: a run's own where they
        are there, else the committed ones.
        """
        profile, _, reference = reference.rpartition(":")
        step = reference.partition("/")[0]
        if reference == "study": return self.study
        if reference == "blocks": return self.blocks
        if profile: return Manifest(profile, self.paths.run).committed(reference)
        if step == "slices": return self.committed(reference)
        if step == "pictures":
            return [self.path(self.paths.pictures/f"{n}.npz") for n in self.names(reference)]
        found = self.records(reference)
        if step == "repeat" and not self.paths.run:
            found = [path for path in found if (self.root/path).exists()]
        return found

    def records(self, *references) -> list: # of paths
        "Records that a step makes."
        return [self.path(self.paths.record(reference.partition("/")[0], name))
                for reference in references for name in self.names(reference)]

    def committed(self, reference:str) -> list: # of paths
        "Records that are there."
        step, _, of = reference.partition("/")
        names = self.paths.names(step) if of == "*" else self.names(reference)
        found = [self.paths.found(step, name) for name in names]
        return [self.path(path) for path in found if path.exists()]

    def files(self, product:Product) -> list: # of paths
        "The files of a product that the profile has."
        if product.needs and not self.read(product.needs): return []
        folder, endings = ENDINGS[product.kind]
        place, _, below = folder.partition("/")
        names = self.names(product.name) if "/" in product.name else [product.name]
        there = self.path(getattr(self.paths, place)/below)
        return [f"{there}/{name}.{ending}" for name in names for ending in endings]

    @cached_property
    def papers(self) -> dict: # {rule: Paper}
        "What the profile shows: each table and figure that it has the models for."
        out = {}
        for d in declarations():
            if not all(map(self.read, d.needs)): continue
            reads = list(dict.fromkeys(path for ref in d.reads for path in self.read(ref)))
            for rule, given in d.rules.items():
                makes = [path for product in d.makes(rule) for path in self.files(product)]
                out[rule] = Paper(d.source, not d.asked, reads, makes, given)
        return out

    # Names that settings decide.

    @cached_property
    def study(self) -> list: # of paths
        "Trainings that say how accurate the classifiers are: of another profile, committed."
        study = self.profile.task("classification").study
        if not study: return []
        paths = Paths(study, self.root, run=False)
        found = [paths.record("repeat", name) for name in paths.names("repeat")]
        return [self.path(path) for path in found if path.exists()]

    @property
    def studied(self) -> list:
        "Classifiers that are timed and in that study; without one, those that are trained."
        known = {Path(path).stem.rpartition("_")[0] for path in self.study}
        return [m for m in self.timed("classification") if m in known] or \
            self.trained("classification")

    @property
    def paired(self) -> list:
        "Timed segmentation models whose latency the page prints, each way."
        names = {variant_name(get_spec(m).name, v) for m in published("segmentation")
                 for v in variants_of("segmentation").timed}
        return sorted(names & {*self.timed("segmentation")})

    @property
    def blocks(self) -> list: # of paths
        "The folder of the records of blocks."
        if not self.profile.blocks: return []
        return [self.path(self.paths.record("blocks", "x").parent)]

    @property
    def released(self) -> list:
        "Released files that the profile measures on labelled pictures."
        return list(self.profile.released.files) if self.profile.released else []

    @cached_property
    def repeats(self) -> list:
        "Trainings of the profile's models that are done again."
        again = self.profile.repeats
        return planned_repeats(self.trained(), again.seeds, again.roundings)

    @cached_property
    def planned(self) -> dict:
        "The studies of its search."
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


FINETUNED = [f"{start}_{rate}" for start in ("random", "published") for rate in ("high", "low")]
SLICES = ("56x56x32_gc64", "28x28x48_gc64") # group convolutions of V2-XS


def committed_papers() -> list: # of (profile, rule, Paper): those of which something is committed
    "Every notebook whose tables or figures are in the repository."
    root, out = repo_root(), []
    for folder in sorted((root/"results").iterdir()):
        if not folder.is_dir() or folder.name == "smoke": continue
        for rule, paper in Manifest(folder.name, run=False).papers.items():
            if any((root/path).exists() for path in paper.makes if Path(path).suffix == ".md"
                   or "figures/" in path): out.append((folder.name, rule, paper))
    return out
