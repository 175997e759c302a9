"Committed tables and figures say what the committed records say, and every read is declared."
import pytest
from conftest import ROOT, warm

from manifest import Manifest, committed_papers
from tables import as_printed, chosen, declared

PROFILES = sorted({profile for profile, _, _ in committed_papers()})


@pytest.mark.parametrize("profile", PROFILES)
def test_tables_and_figures_are_functions_of_records(profile):
    "Each notebook again, in one process a profile."
    mine = [f"{p}/{rule}" for p, rule, _ in committed_papers() if p == profile]
    result = warm("script", ROOT / "tools/tables.py", "--check", *mine)
    assert result.returncode == 0, f"{result.stdout}{result.stderr[-2000:]}"
    assert result.stdout.count(" s\n") == len(mine)


@pytest.mark.quick
def test_all_that_is_committed_is_made_by_a_notebook():
    made = {path for _, _, paper in committed_papers() for path in paper.makes}
    folders = "results/*/tables/*", "figures/*/*", "results/*/found/*"
    kept = [path for folder in folders for path in ROOT.glob(folder)]
    assert kept and not {str(p.relative_to(ROOT)) for p in kept} - made
    assert set(PROFILES) == {p.parent.name for p in ROOT.glob("results/*/records")}


@pytest.mark.quick
@pytest.mark.parametrize("kept, now, same", [
    ("| 3.14 | holds |", "| 3.14 | holds |", True),
    ("| 3.14 | holds |", "| 3.15 | holds |", True), # the last digit of a fit
    ("| 3.14 | holds |", "| 3.16 | holds |", False),
    ("| 3.14 | holds |", "| 3.14 | undecided |", False),
    ("right on 4 of 5 pairs", "right on 3 of 5 pairs", False), # a count is a count
    ("1,024 images", "1,025 images", False),
    ("-0.10 to 0.2", "-0.11 to 0.2", True),
])
def test_numbers_are_compared_as_they_are_printed(kept, now, same):
    assert as_printed(kept, now) == same


@pytest.mark.quick
def test_a_run_writes_below_build_only():
    for profile in PROFILES:
        for paper in Manifest(profile).papers.values():
            assert all(path.startswith(f"build/{profile}/") for path in paper.makes)


@pytest.mark.quick
def test_an_unknown_notebook_is_refused():
    with pytest.raises(SystemExit, match="unknown: default/clams"): chosen(["default/clams"])
    (_, _, paper), = chosen(["default/claims"])
    assert declared(paper) and all("/records/" in path for path in declared(paper))
