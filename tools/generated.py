"""Files that are computed from others and committed: write them anew, or say which differ.

    python tools/generated.py            writes them
    python tools/generated.py --check    says which are not what they would be
"""
import csv
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def latency_fits(path) -> str:
    """Coefficients of the latency model; the file itself where it is as good as a new fit.

    The last digits of a fit depend on the machine.
    """
    from edgetpu_repro.measure import latency
    now = latency.fits_as_json()
    same = path.is_file() and as_good(json.loads(path.read_text()), json.loads(now))
    return path.read_text() if same else now


def coral_fits(path) -> str:
    """The same of Coral's fits.

    Their data are a file that is committed: they are fitted anew where that or the model changes.
    """
    from edgetpu_repro.measure import coral
    kept = path.read_text() if path.is_file() else ""
    if kept and json.loads(kept)["problem"] == coral.coral_hash(): return kept
    return coral.coral_fits_as_json()


def as_good(kept, now, relative=1e-5) -> bool:
    "Whether two documents are the same but for the last digits of their numbers."
    if isinstance(now, float): return isinstance(kept, float) and near(kept, now, relative)
    if type(kept) is not type(now): return False
    if now is None or isinstance(now, str | int): return kept == now
    if len(kept) != len(now): return False
    if isinstance(now, list): return all(as_good(a, b, relative) for a, b in zip(kept, now))
    return set(kept) == set(now) and all(as_good(kept[k], now[k], relative) for k in now)


def near(one, other, relative) -> bool:
    "Whether two numbers are the same but for their last digits."
    return abs(one - other) <= relative * max(abs(one), abs(other)) + 1e-9


def results_csv(path) -> str:
    "All models in one table; the file itself where only last digits of modelled numbers differ."
    from edgetpu_repro.show.overview import overview, overview_csv
    now = overview_csv(overview(sorted(PROFILES)))
    same = path.is_file() and as_good(cells(path.read_text()), cells(now), 2e-3)
    return path.read_text() if same else now


def cells(text) -> list: # of rows
    "A CSV table with its numbers as floats."
    return [[number(cell) for cell in row] for row in csv.reader(text.splitlines())]


def number(cell):
    "A number where it is one."
    try: return float(cell)
    except ValueError: return cell


PROFILES = ("default", "families", "cifar10", "camvid", "published", "bccd", "bccd_finetune")


CLAIMS = { # table of claims: the command whose records decide them; where it is committed
    "default/tables/claims_evidence.csv": "make reproduce",
    "default/tables/search_claims.csv": "make search",
    "cifar10/tables/search_claims.csv": "make search PROFILE=cifar10",
    "default/tables/search_ablation_claims.csv": "edgetpu-repro reproduce --step search_ablation",
    "joint/tables/search_claims.csv": "make search PROFILE=joint",
    "joint/tables/search_ablation_claims.csv":
        "edgetpu-repro reproduce --profile joint --step search_ablation",
    "published/tables/published_claims.csv": "make reproduce PROFILE=published",
    "distil/tables/distil_claims.csv":
        "edgetpu-repro reproduce --profile distil --step distil",
    "distil/tables/distil_teachers_claims.csv":
        "edgetpu-repro reproduce --profile distil --step distil_teachers",
}
BEFORE = { # what says it of evidence: the command whose records it reads besides
    "real pictures": "make reproduce PROFILE=published",
    "real features": "edgetpu-repro reproduce --profile distil --step distil",
    "on another host": "make reproduce PROFILE=camvid",
    "trained on digits": "make reproduce PROFILE=families",
    "trainings on digits": "make reproduce PROFILE=families",
    "trained on CIFAR-10": "make reproduce PROFILE=cifar10",
    "short trainings": "make search",
    "slices equal": "edgetpu-repro reproduce --step slices",
}
MINUTES = { # of two cores
    "make reproduce": "16",
    "make reproduce PROFILE=published": "20",
    "make reproduce PROFILE=camvid": "30",
    "make reproduce PROFILE=cifar10": "90",
    "make reproduce PROFILE=families": "180",
    "edgetpu-repro reproduce --step slices": "1",
    "edgetpu-repro reproduce --profile distil --step distil": "250",
    "edgetpu-repro reproduce --profile distil --step distil_teachers": "50",
    "make search": "60",
    "edgetpu-repro reproduce --profile joint --step search_ablation": "30",
}
OTHER_COSTS = { # of what is not `make reproduce`
    "edgetpu-repro reproduce --profile distil --step distil":
        "650 candidates of 18 seconds of a busy core (median), 46 networks of 4 minutes, 4 GB, "
        "a released file and pictures",
    "make search": "about an hour on two cores, 6 GB of memory, no network",
    "make test-cluster": "about 25 minutes on two cores that were busy, Slurm's packages and root",
    "make docs": "about a minute on two cores, no network",
}


def artifact(path) -> str:
    "ARTIFACT.md with its two tables: claims of the committed tables, costs of the commands."
    text, claims = path.read_text(), []
    for table, command in CLAIMS.items():
        if not (ROOT / "results" / table).is_file(): continue
        with open(ROOT / "results" / table, newline="") as f:
            claims += [claim_row(r, command) for r in csv.DictReader(f)]
    head = ["| claim | evidence | command | minutes | verdict |", "|---|---|---|---|---|"]
    text = between(text, "claims", [*head, *claims])
    costs = [*map(cost_row, PROFILES), *(f"| `{c}` | {cost} |" for c, cost in OTHER_COSTS.items())]
    return between(text, "costs", ["| command | takes |", "|---|---|", *costs])


def claim_row(row: dict, command: str) -> str:
    "A piece of evidence, the commands whose records decide it, and what they take."
    about = f"{row['kind']}: {row['against']}"
    claim = row.get("claim") or row["criterion"]
    words = f"{claim} {about}"
    commands = [c for mark, c in BEFORE.items() if mark in words and c != command] + [command]
    said = ", then ".join(f"`{c}`" for c in commands)
    minutes = " + ".join(MINUTES.get(c, "not noted") for c in commands)
    return f"| {claim} | {about} | {said} | {minutes} | {row['verdict']} |"


def cost_row(profile: str) -> str:
    "What a profile takes, as its file says."
    from edgetpu_repro.core.settings import load_profile
    option = "" if profile == "default" else f" PROFILE={profile}"
    return f"| `make reproduce{option}` | {load_profile(profile).cost} |"


def between(text: str, mark: str, lines) -> str:
    "A text with other lines between a comment and the next `<!-- end -->`."
    start = text.index("\n", text.index(f"<!-- {mark}:")) + 1
    end = text.index("<!-- end -->", start)
    return text[:start] + "".join(f"{line}\n" for line in lines) + text[end:]


GENERATED = { # path: what computes its text
    "ARTIFACT.md": artifact,
    "results/results.csv": results_csv,
    "edgetpu_repro/measure/latency.json": latency_fits,
    "edgetpu_repro/measure/coral.json": coral_fits,
}


def outdated() -> list: # of paths
    "Which files are not what they would be."
    wrong = []
    for name, made in GENERATED.items():
        path = ROOT / name
        if not path.is_file() or path.read_text() != made(path): wrong.append(name)
    return wrong


def main(words) -> int: # Exit code
    "Write, or check."
    if words not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wrong = outdated()
    for name in wrong: print(name)
    if words: return int(bool(wrong))
    for name in wrong:
        path = ROOT / name
        path.write_text(GENERATED[name](path))
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
