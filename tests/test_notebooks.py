"Notebooks: the workflow runs through papermill, and what is committed is clean and in sync."

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import BIN, ROOT, call
from warm import LIBRARIES

sys.path.insert(0, str(ROOT / "tools"))
from dependencies import MAKERS, ROOMS  # noqa: E402

from edgetpu_repro.search.ablation import EXCHANGES  # noqa: E402

LIBRARY = [
    ROOT / "nbs/index.ipynb",
    *sorted(p for room in ("page", *ROOMS) for p in (ROOT / "nbs" / room).glob("*.ipynb")),
]
STEPS = sorted(p for name in ("runs", *MAKERS) for p in (ROOT / "nbs" / name).glob("*.ipynb"))
TINY = "mobilenet_edgetpu_v2_tiny"
TINY_SEGMENTER = "deeplabv3plus_mobilenet_edgetpuv2_tiny_ade20k_32"
SNAKEMAKE = (
    "snakemake",
    "--cores",
    "2",
    "--scheduler",
    "greedy",
    "--nolock",
    "--config",
    "profile=smoke",
)

# What kernels import in a run of the workflow.
KERNELS = (
    "edgetpu_repro", "ipykernel.kernelapp", "matplotlib_inline.backend_inline",
    *(name for name in LIBRARIES if name.partition(".")[0] not in ("execnb", "nbdev")),
)


@pytest.fixture(scope="module")
def warm_kernels(tmp_path_factory):
    "Variables of a workflow whose kernels are forks of one process; all else is as always."
    folder = tmp_path_factory.mktemp("kernels")
    address, spec = folder / "socket", folder / "kernels/python3/kernel.json"
    client = [sys.executable, "-IS", str(ROOT / "tests/warm_kernel.py"), str(address)]
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(
        argv=[*client, "-f", "{connection_file}"], display_name="warm", language="python")))
    like = {"TF_CPP_MIN_LOG_LEVEL": "3"} # as the Snakefile has it
    words = [sys.executable, ROOT / "tests/warm.py", "kernels", address, *KERNELS]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, **like}) as parent:
        while not address.exists() and parent.poll() is None: time.sleep(0.05)
        yield {"JUPYTER_PATH": str(folder)}
        parent.terminate()


@pytest.fixture(scope="module")
def smoke(warm_kernels):
    "Have files of the smoke profile made, or its whole workflow; what is up to date stays."

    def made(*files):
        words = ("--rerun-incomplete", "--", *(files or ("all",)))
        result = call(*SNAKEMAKE, *words, env=warm_kernels)
        assert result.returncode == 0, result.stderr[-3000:]

    return made


def test_workflow_runs_resumes_and_rests(warm_kernels):
    "It is killed with the kernels that Jupyter starts, and goes on with warm ones."
    shutil.rmtree(ROOT / "build/smoke", ignore_errors=True)
    committed = sorted([*ROOT.glob("results/*"), *ROOT.glob("figures/*")])
    killed = subprocess.Popen(
        [BIN / "edgetpu-repro", "reproduce", "--profile", "smoke"], cwd=ROOT, start_new_session=True
    )
    first = ROOT / "build/smoke/results/records/data/classification.json"
    while not (ROOT / "build/smoke/prepared").exists() and killed.poll() is None:
        time.sleep(0.5)
    time.sleep(5)  # in the middle of other steps
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    made = first.stat().st_mtime
    result = call("edgetpu-repro", "reproduce", "--profile", "smoke", env=warm_kernels)
    assert result.returncode == 0, result.stderr[-3000:]
    assert first.stat().st_mtime == made, "what was done before the kill is not done again"
    report = (ROOT / "build/smoke/report.html").read_text()
    assert "<script src" not in report and report.count("Plotly.newPlot(") >= 2, (
        "plotly.js is inside, and figures have their twins"
    )
    report = re.sub(r"<script\b.*?</script>", "", report, flags=re.S)
    shown = re.findall(r'<img alt="(\w+)" src="data:image/png', report)
    assert shown == [  # every figure that a profile of all three tasks has
        "claims", "detection_graph", "detection", "detection_gallery",
        "fig1_blocks", "fig2_tradeoff", "fig5_segmentation", "fig3_frontier", "fig4_frontier",
        "accuracy", "counterfactuals", "gallery",
    ]
    models = ("mobilenet_edgetpu_v2_tiny", "autoseg_edgetpu_xs", "spaghettinet_edgetpu_s")
    assert all(model in report for model in models)
    assert not re.search(r"""(src|href)=["']https?:""", report), "the report must open from disk"
    for record in (ROOT / "build/smoke/results/records").rglob("*.json"):
        json.loads(record.read_text())
    assert "Nothing to be done" in call(*SNAKEMAKE).stderr
    assert sorted([*ROOT.glob("results/*"), *ROOT.glob("figures/*")]) == committed, (
        "a run writes below build only"
    )


def test_a_search_goes_from_its_proxy_to_its_verdicts(warm_kernels):
    "On the toy: searches, finalists, scores without a training, controllers, the tables."
    search = ("edgetpu-repro", "reproduce", "--profile", "smoke", "--step", "search")
    result = call(*search, env=warm_kernels)
    assert result.returncode == 0, result.stderr[-3000:]
    records = {p.parent.name for p in (ROOT / "build/smoke/results/records").glob("search*/*.json")}
    assert records >= {"search", "search_repeat", "search_proxies", "search_controllers"}
    studies = ROOT / "build/smoke/results/records/search"
    chance, longer = (
        json.loads((studies / f"{name}.json").read_text())["numbers"]["trials"]
        for name in ("random", "longer")
    )
    assert [t["dna"] for t in longer] == [t["dna"] for t in chance[: len(longer)]]
    assert all(abs(t["ms"] / 0.83 - 1) <= 0.02 and not t["outside"] for t in chance)
    verdicts = (ROOT / "build/smoke/results/tables/search_claims.csv").read_text()
    assert verdicts.count("undecided") >= 1 and "REINFORCE" in verdicts
    assert (ROOT / "build/smoke/figures/search_frontier.png").stat().st_size > 10_000
    again = call(*search)
    assert again.stdout.strip() == "everything is there and up to date"
    refused = call(*search[:-1], "x; touch X")
    assert refused.returncode == 2 and "letters, digits" in refused.stderr


def test_the_ablation_and_other_targets_follow_a_search(warm_kernels):
    "On the toy, whose seeds are all the same: a difference is its own interval."
    for step in ("search_ablation", "search_targets"):
        words = ("reproduce", "--profile", "smoke", "--step", step)
        result = call("edgetpu-repro", *words, env=warm_kernels)
        assert result.returncode == 0, result.stderr[-3000:]
    tables = ROOT / "build/smoke/results/tables"
    with open(tables / "search_ablation.csv", newline="") as f:
        rows = {(r["of"], r["blocks"]): r for r in csv.DictReader(f)}
    xs = "mobilenet_edgetpu_v2_xs"
    assert set(EXCHANGES) == {kind for model, kind in rows if model == xs} - {"published"}
    base = float(rows[xs, "published"]["modelled latency (ms)"])
    for (model, kind), row in rows.items():
        if model != xs or not row["modelled latency (ms)"]: continue
        assert abs(float(row["modelled latency (ms)"]) / base - 1) <= 0.01, kind
    assert rows[xs, "gc128"]["seeds"] == "0" # no widths give the latency
    assert float(rows["search", "v2_plain"]["modelled latency (ms)"]) <= 0.83 * 1.02
    spec = json.loads((ROOT / "build/smoke/results/found/without.json").read_text())
    assert not any(block.get("group_size") for block in spec["blocks"])
    targets = (tables / "search_targets.csv").read_text()
    assert "mobilenet_edgetpu_v2_s," in targets and "0.83" in targets


def test_blocks_are_judged_in_the_places_of_a_small_network():
    "Eight candidates of a network with random weights on drawn pictures: the map to the verdicts."
    step = ("edgetpu-repro", "reproduce", "--profile", "smoke", "--step", "distil")
    result = call(*step)
    assert result.returncode == 0, result.stderr[-3000:]
    results = ROOT / "build/smoke/results"
    matrix = json.loads((results / "records/distil/matrix.json").read_text())["numbers"]["rows"]
    assert len(matrix) == 8 and all(row["kl"] >= 0 for row in matrix)
    verdicts = (results / "tables/distil_claims.csv").read_text()
    assert "not judged" in verdicts and "reinforce beats chance" in verdicts
    for name in ("matrix", "worths", "frontier"):
        assert (ROOT / f"build/smoke/figures/distil_{name}.png").stat().st_size > 10_000
    assert call(*step).stdout.strip() == "everything is there and up to date"
    others = call(*step[:-1], "distil_teachers")
    assert others.returncode == 0, others.stderr[-3000:]
    found = json.loads((results / "records/distil_teachers/few.json").read_text())
    assert found["parameters"]["learn"] == 20 and found["parameters"]["plain"]
    rows = found["numbers"]["rows"]
    assert [(r["place"], r["candidate"], r["seed"]) for r in rows] == [
        (2, f"{kind}_k3_e4", seed) for seed in (0, 1) for kind in ("depthwise", "full")]
    assert "not judged" in (results / "tables/distil_teachers_claims.csv").read_text()
    assert (ROOT / "build/smoke/figures/distil_pictures.png").stat().st_size > 10_000


def test_changing_a_figure_runs_only_that_figure_again(smoke):
    smoke()
    notebook = ROOT / "nbs/paper/fig1_blocks.ipynb"
    before = notebook.read_text()

    def put(text): # at once: tests of a cluster may copy the checkout
        (ROOT / "build/changed.ipynb").write_text(text)
        os.replace(ROOT / "build/changed.ipynb", notebook)

    try:
        changed = nbformat.from_dict(json.loads(before))
        changed.cells.append(nbformat.v4.new_markdown_cell("One more sentence.", id="one-more"))
        put(nbformat.writes(changed))
        dry = call(*SNAKEMAKE, "--dry-run")
        planned = set(re.findall(r"rule (\w+):", dry.stdout + dry.stderr))
    finally:
        put(before)
    assert planned == {"fig1_blocks", "report", "all"}


@pytest.mark.parametrize(
    "parameter, value, answer",
    [
        ("profil", "smoke", "unknown parameter 'profil'; did you mean 'profile'?"),
        ("profile", "3", "parameter profile must be str like 'default', not 3"),
        ("profile", "smok", "unknown profile 'smok'; did you mean 'smoke'?"),
    ],
)
def test_wrong_parameters_are_refused(tmp_path, warm_kernels, parameter, value, answer):
    words = ("nbs/paper/fig1_blocks.ipynb", tmp_path / "out.ipynb", "-p", parameter, value)
    result = call("papermill", *words, env=warm_kernels)
    assert result.returncode != 0 and f"error: {answer}" in result.stderr, result.stderr[-2000:]


def test_a_damaged_record_is_named(tmp_path, warm_kernels):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for file in ("Snakefile", "settings.ini"):
        shutil.copy(ROOT / file, tmp_path)
    record = tmp_path / "results/smoke/records/blocks/x.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"half": ')
    result = call(
        "papermill",
        "nbs/paper/fig2_tradeoff.ipynb",
        tmp_path / "out.ipynb",
        "-p",
        "profile",
        "smoke",
        env={"EDGETPU_REPRO_HOME": str(tmp_path), **warm_kernels},
    )
    assert result.returncode != 0 and re.search(
        r"error: record \S+x\.json is not JSON", result.stderr
    ), result.stderr[-2000:]
    assert not (tmp_path / "figures").exists()


READS = dict.fromkeys( # of what the workflow makes
    ("quantizers", "quantize_aware"), f"build/smoke/weights/{TINY}.keras")


@pytest.mark.parametrize(
    "step, parameters, answer",
    [
        ("quantizers", dict(model=TINY, test_images=40), "aeq weight_only"),
        ("quantize_aware", dict(model=TINY, train_images=32), "aware epoch int8 - start int8"),
        ("repeat", dict(model=TINY, rounding=1), "int8   top-1"),
        (
            "export_speed",
            dict(model=TINY, segmenter=TINY_SEGMENTER, image_size=32, images=4, large=64, few=2,
                 rounds=1),
            "times as fast",
        ),
        (
            "training_speed",
            dict(model=TINY, image_size=32, batch_size=8, steps=4, rounds=1, large=32),
            "times the images per second",
        ),
        (
            "released",
            dict(file="/nowhere/m.tflite"),
            "skipped, because the published file and its ten pictures are not here",
        ),
        (
            "finetune",
            dict(init="/nowhere/m.tflite"),
            "skipped, because the published file is not here",
        ),
    ],
)
def test_runs_that_the_workflow_leaves_out(tmp_path, warm_kernels, smoke, step, parameters, answer):
    if step in READS: smoke(READS[step])
    given = [word for k, v in parameters.items() for word in ("-p", k, v)]
    environment = {"EDGETPU_REPRO_TFDS_DIR": str(ROOT / "build/data"), **warm_kernels}
    result = call(
        "papermill",
        f"nbs/runs/{step}.ipynb",
        tmp_path / "out.ipynb",
        "-p",
        "profile",
        "smoke",
        *given,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    said = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
    assert answer in said, said[-2000:]


@pytest.mark.quick
@pytest.mark.parametrize("path", LIBRARY + STEPS, ids=lambda p: p.stem)
def test_committed_notebooks_are_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 600_000
    title, *_ = notebook.cells
    assert re.match(r"# .+\n+> .+", title.source), (
        "a notebook opens with its title and one line of summary"
    )
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            assert output.get("name") != "stderr" and output.output_type != "error", cell.source
            text = json.dumps(
                {
                    k: v
                    for k, v in output.get("data", {"text": output.get("text")}).items()
                    if k != "image/png"
                }
            )
            assert not re.search(
                r"(?<!/data/local)/(home|root|work|tmp|Users)/|(WARNING|INFO):(tensorflow|absl)",
                text,
            ), text[:300]
    assert any(c.cell_type == "code" and c.outputs for c in notebook.cells), "outputs are committed"
    if path in STEPS:
        assert ["parameters"] in [c.metadata.get("tags") for c in notebook.cells]


@pytest.mark.quick
@pytest.mark.parametrize("path", STEPS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_opened_notebook_shows_its_figures(path):
    "Without running it: what a cell draws or tabulates for the page is saved with it."
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    outputs = [o for c in cells for o in c.outputs]
    kinds = {kind for o in outputs for kind in o.get("data", ())}
    source = "\n".join(c.source for c in cells)
    if "save_figure(" in source: assert "image/png" in kinds
    if "save_table(" in source: assert kinds & {"text/markdown", "image/png"}
    if path.parent.name in MAKERS: assert outputs



@pytest.mark.quick
def test_exporting_again_changes_nothing(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(
            ".venv", "build", ".git", ".snakemake", "results", "figures", "*.egg-info"
        ),
    )
    result = call(BIN / "python", "tools/publish.py", cwd=copy)
    assert result.returncode == 0, result.stderr[-2000:]
    for path in [*(ROOT / "edgetpu_repro").rglob("*.py"), *LIBRARY, *STEPS, ROOT / "README.md"]:
        assert (copy / path.relative_to(ROOT)).read_text() == path.read_text(), (
            f"{path.name}: run `make export`"
        )


def test_ruff():
    result = call("ruff", "check", ".")
    assert result.returncode == 0, result.stdout
