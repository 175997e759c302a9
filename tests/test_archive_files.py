"The files that archives, hubs and reviewers read say what the repository says."

import csv
import json
import re
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import ROOT

import publish
from edgetpu_repro import __version__

PAGES = [ROOT / name for name in ("ARTIFACT.md", "CHANGELOG.md", "CONTRIBUTING.md")]
MAKEFILE = (ROOT / "Makefile").read_text()
VENV = re.search(r"^VENV \?= (\S+)$", MAKEFILE, re.M)[1]
TARGETS = set(re.findall(r"^([\w./-]+):", MAKEFILE.replace("$(VENV)", VENV), re.M))


def test_citation_and_deposit_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    needed = {"cff-version", "message", "title", "authors"}  # by the schema of 1.2.0
    assert needed <= set(citation) and citation["type"] == "software"
    assert citation["version"] == deposit["version"] == __version__
    assert citation["title"] == deposit["title"] and citation["license"] == deposit["license"]
    assert [a["name"] for a in citation["authors"]] == [c["name"] for c in deposit["creators"]]
    assert {"upload_type", "description", "access_right", "keywords"} <= set(deposit)
    article = citation["references"][0]
    related = [r["identifier"] for r in deposit["related_identifiers"]]
    assert f"arXiv:{article['url'].rpartition('/')[2]}" in related
    assert all(a.get("family-names") and a.get("given-names") for a in article["authors"])


def test_changelog_keeps_its_form():
    "Keep a Changelog 1.1.0: versions from the newest, kinds of changes by their names."
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    days = [date.fromisoformat(v) for v in versions[1:]]
    assert days == sorted(days, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_and_commands(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for command in re.findall(r"make ([\w-]+)", text):
        assert command in TARGETS, command


def test_every_criterion_of_a_reviewer_has_its_commands():
    "The tables of ARTIFACT.md have every claim of the committed tables."
    text = (ROOT / "ARTIFACT.md").read_text()
    words = "holds|undecided|does not hold|not judged"
    verdict = re.compile(rf"`(make|edgetpu-repro) [^|]*\|[^|]*\| ({words})[^|]* \|$")
    rows = [line for line in text.splitlines() if verdict.search(line)]
    tables = [p for p in ROOT.glob("results/*/tables/*claims.csv") if p.parts[-3] != "smoke"]
    # of the page's claims each piece of evidence has a row
    tables = [p for p in tables if p.name != "claims.csv"]
    tables += ROOT.glob("results/*/tables/claims_evidence.csv")
    claims = [row for p in tables for row in csv.DictReader(p.open(newline=""))]
    assert len(tables) >= 3 and len(rows) == len(claims)
    for row in claims: assert (row.get("claim") or row["criterion"]) in text
    for command in re.findall(r"^\| `make ([\w-]+)", text, flags=re.M): assert command in TARGETS


def test_containers_do_what_the_makefile_does():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    instructions = [line.split()[0] for line in lines if re.match(r"[A-Z]", line)]
    assert instructions[0] == "FROM" and instructions[-1] == "CMD"
    (start,) = [json.loads(line[4:]) for line in lines if line.startswith("CMD ")]
    assert start[0] == "make" and start[1] in TARGETS
    made = [line.split()[-1] for line in lines if line.startswith("RUN make ")]
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["postCreateCommand"] == f"make {made[0]}" and set(made) <= TARGETS
    pythons = {re.search(r"python:(3\.\d+)", text)[1] for text in (lines[3], container["image"])}
    binder = (ROOT / ".binder/runtime.txt").read_text().strip()
    assert {binder.removeprefix("python-")} == pythons


REQUIRED = {  # of Croissant 1.0: the class and what it must have
    "cr:FileObject": {"name", "contentUrl", "encodingFormat", "sha256"},
    "cr:FileSet": {"name", "includes", "encodingFormat"},
    "cr:RecordSet": {"name", "field"},
}
CROISSANT = ROOT / "docs/digit_scenes.croissant.json"


def test_croissant_describes_the_embedded_dataset():
    from edgetpu_repro.data.digit_scenes import DIGITS_FILE, SCENES, DigitScenes, scene
    from edgetpu_repro.data.digit_scenes import source_digits

    document = json.loads(CROISSANT.read_text())
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert {"name", "description", "license", "url", "datePublished", "creator"} <= set(document)
    files, sets = document["distribution"], document["recordSet"]
    for entity in (*files, *sets):
        assert REQUIRED[entity["@type"]] <= set(entity), entity["name"]
    known = {e["@id"] for e in files}
    splits, scenes = sets
    assert {r["splits/name"]: r["splits/scenes"] for r in splits["data"]} == SCENES
    assert document["version"] == str(DigitScenes.VERSION)
    source = DigitScenes.url_infos[DIGITS_FILE]
    assert files[0]["sha256"] == source.checksum and files[0]["contentSize"] == f"{source.size} B"
    images, labels, _ = source_digits()
    drawn = scene(np.random.default_rng(0), images, labels)
    fields = {f["name"]: f for f in scenes["field"]}
    assert set(fields) - {"split"} == set(drawn)
    for field in (f for g in scenes["field"] for f in g.get("subField", [g])):
        assert field["source"]["fileSet"]["@id"] in known


def test_croissant_is_what_mlcroissant_takes():
    mlcroissant = pytest.importorskip("mlcroissant")
    found = mlcroissant.Dataset(jsonld=str(CROISSANT))
    assert len(list(found.records("splits"))) == 3


NAME = "nbs/models/13_blocks.ipynb"


@pytest.mark.parametrize("url", ["https://github.com/o/r", "https://github.com/o/r.git/"])
def test_notebooks_link_to_where_they_run(url):
    line = publish.links(NAME, url)
    assert f"https://colab.research.google.com/github/o/r/blob/main/{NAME}" in line
    assert f"https://mybinder.org/v2/gh/o/r/main?labpath={NAME}" in line
    assert "git+https://github.com/o/r'" in line


@pytest.mark.parametrize("url", ["", " ", "https://example.org/o/r", "https://github.com/o",
                                 "https://github.com/o/r/x", "https://github.com/o/r) [x](y"])
def test_no_link_where_the_repository_is_not_on_github(url):
    assert publish.links(NAME, url) == ""


def test_links_come_and_go_with_the_setting():
    notebook = SimpleNamespace(cells=[SimpleNamespace(source="# T\n\n> s")])
    publish.link(notebook, NAME, "https://github.com/o/r")
    once = notebook.cells[0].source
    assert once.startswith("# T\n\n> s\n\nOpen in [Colab]")
    publish.link(notebook, NAME, "https://github.com/o/r")
    assert notebook.cells[0].source == once
    publish.link(notebook, NAME, "")
    assert notebook.cells[0].source == "# T\n\n> s"
