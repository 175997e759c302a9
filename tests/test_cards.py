"Model cards that huggingface_hub takes, each kind of number in its place; the table of all models."

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from conftest import ROOT
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.files import card_path, sha256_file
from edgetpu_repro.core.published import published
from edgetpu_repro.core.records import write_record
from edgetpu_repro.models.specs import SPECS, build_model, get_spec
from edgetpu_repro.show import cards
from edgetpu_repro.show.overview import profiles_with_records
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions

huggingface_hub = pytest.importorskip("huggingface_hub")
PROFILES = profiles_with_records(ROOT)


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    "name", ["mobilenet_edgetpu_v2_xs", "autoseg_edgetpu_xs", "spaghettinet_edgetpu_s",
             "mobilenet_v2", "ssd_mobilenet_edgetpu", "mobilenet_edgetpu_dm0p75"]
)
def test_card_of_a_model(name, inside, tmp_path):
    readme = tmp_path / "card" / "README.md"
    answer = inside("card", name, "--output", readme)
    assert answer.returncode == 0 and str(readme) in answer.stdout, answer
    text = readme.read_text()
    card = huggingface_hub.ModelCard.load(readme)
    assert card.data.library_name == "litert" and card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == cards.HUB_TASKS[get_spec(name).task]
    results = card.data.eval_results or []
    for result in results:
        kind = result.metric_name.split(",")[0]
        assert kind in ("measured", "published")
        assert (result.source_url == cards.PAGE) == (kind == "published")
        assert 0 <= result.metric_value <= 100
        in_text = text.split("\n## ")
        (section,) = [part for part in in_text if part.lower().startswith(kind)]
        assert str(result.metric_value) in section
    assert not [m for m in results if "ms" in m.metric_type], "a latency is no evaluation"


def test_results_are_those_of_the_records():
    name = "mobilenet_edgetpu_v2_xs"
    results = front(cards.model_card(name, PROFILES))["model-index"][0]["results"]
    values = {m["name"]: m["value"] for r in results for m in r["metrics"]}
    record = json.loads((ROOT / f"results/default/records/evaluate/{name}.json").read_text())
    words = "measured, int8: top-1 (%, 1000 images, weights of the profile default)"
    assert values[words] == pytest.approx(100 * record["numbers"]["int8_top1"])
    page = published("classification")[name]["top1"]
    assert values["published, of the original weights: top-1 (%)"] == page
    without = cards.model_card(name)
    assert "## Measured" not in without and "## Published" in without


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    model = build_model("mobilenet_edgetpu_v2_tiny", num_classes=10, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    about = dict(weights="random", image_size=64, calibration=dict(images=3, dataset="noise"))
    options = ExportOptions(trained=False, about=about, labels=tuple("abcdefghij"))
    ((path, _),) = export_model(model, tmp_path_factory.mktemp("card"), images, options)
    return path


def evaluated(path, folder, file=None):
    numbers = dict(task="classification", top1=0.5, top5=0.9, images=40)
    parameters = dict(name="digit_scenes", file=file or path.name)
    write_record(folder / "r.json", "evaluate", path.stem, "default", parameters, numbers)
    return folder / "r.json"


def test_card_of_a_file(file, inside, tmp_path):
    record = evaluated(file, tmp_path)
    answer = inside("card", file, "--record", record, "--output", tmp_path / "README.md")
    assert answer.returncode == 0, answer
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_value, result.dataset_type) == (50.0, "digit_scenes")
    assert "this file" in result.metric_name and "40 images" in result.metric_name
    for words in ("The weights are random", "3 images of noise", "## Published", "## Modelled"):
        assert words in card.text
    printed = inside("card", file).stdout
    assert "model-index" not in front(printed) and cards.check_card(printed) == 0


def modelled_ms(text):
    "Of the row of a card's table of modelled latencies."
    section = text.split("## Modelled")[1].split("\n## ")[0]
    (row,) = [line for line in section.splitlines() if re.search(r"\| [\d.]+ \| [\d.]+ to", line)]
    return float(row.split(" | ")[1])


def test_what_is_modelled_is_the_file(file, inside):
    "Of its size and classes, not the registered model's."
    card = inside("card", file).stdout
    alone = json.loads(inside("latency", file, "--json").stdout)[str(file)]
    assert modelled_ms(card) == round(alone["ms"], 2)
    assert modelled_ms(card) < 0.7 * modelled_ms(cards.model_card("mobilenet_edgetpu_v2_tiny"))
    assert "outside of these (image of 64x64" in card


def test_a_file_of_ones_own_spec_has_a_card(inside, tmp_path):
    spec = replace(get_spec("mobilenet_edgetpu_v2_tiny"), name="mine", num_classes=10)
    options = ExportOptions(trained=False)
    model = build_model(spec, image_size=64)
    ((path, _),) = export_model(model, tmp_path, None, options)
    text = inside("card", path).stdout
    assert front(text)["pipeline_tag"] == "image-classification" and cards.check_card(text) == 0
    assert "mine, a classification model" in text and "## Published" not in text
    assert "## Modelled" not in text, "a float file"


def test_bad_input(file, inside, tmp_path):
    one_line(inside("card", "mobilenet_edgetpu_v2_xss"), "did you mean")
    one_line(inside("card", tmp_path / "no.tflite"), "is not a file")
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(file.read_bytes())
    one_line(inside("card", alone), "export` writes one")
    card_path(alone).write_text(card_path(file).read_text().replace('"sha256": "', '"sha256": "0'))
    one_line(inside("card", alone), "is not the file")
    card_path(alone).write_text("[]")
    one_line(inside("card", alone), "must hold an object")
    strange = dict(model="mobilenet_v2", inputs=[1], sha256=sha256_file(alone))
    card_path(alone).write_text(json.dumps(strange))
    one_line(inside("card", alone), "is no card as export writes it")
    other = evaluated(file, tmp_path, "other.tflite")
    one_line(inside("card", file, "--record", other), "is of other.tflite")
    one_line(inside("card", file, "--record", tmp_path / "no.json"), "does not exist")
    one_line(inside("card", "mobilenet_edgetpu", "--record", other), "is for a file")
    with pytest.raises(UsageError, match="lacks license"):
        cards.check_card("no card at all")
    with pytest.raises(UsageError, match="does not take"):
        cards.check_card("---\n- 1\n---\n")


def test_a_name_cannot_leave_its_line(file, tmp_path):
    "A card that others wrote is material, not markup of the page's front."
    path = tmp_path / "m.tflite"
    path.write_bytes(file.read_bytes())
    card = json.loads(card_path(file).read_text())
    card["finalize_method"] = "none\n---\nlicense: other\x1b[2J"
    card_path(path).write_text(json.dumps(card))
    text = cards.file_card(path)
    assert front(text)["license"] == "apache-2.0" and "\x1b" not in text
    assert "\n---\nlicense: other" not in text


def test_the_table_of_all_models():
    with open(ROOT / "results/results.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["model"] for r in rows} == set(SPECS)
    assert len({(r["model"], r["profile"]) for r in rows}) == len(rows)
    kinds = {"published", "modelled", "measured"}
    numbers = [c for c in rows[0] if c.endswith("_ms") or c.endswith(("_low", "_high"))]
    assert all(c.split("_")[0] in kinds for c in numbers)
    for r in rows:
        if r["modelled_edgetpu_ms"]:
            low, high = (float(r[f"modelled_edgetpu_ms_{end}"]) for end in ("low", "high"))
            assert 0 < low < high
        assert bool(r["measured_int8"]) == bool(r["measured_dataset"])
        assert not r["measured_dataset"] or r["profile"] and r["commit"]
