"The explorer in a browser: every number against Python, files in and out, the address, bad input."
import json
import random
from dataclasses import replace
from functools import cache

import pytest
import typer
from conftest import ROOT

from edgetpu_repro.cli.main import app
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.latency import modelled
from edgetpu_repro.measure.coral import predict_on
from edgetpu_repro.measure.workload import spec_operators
from edgetpu_repro.models import specs
from edgetpu_repro.models.block import KINDS
from edgetpu_repro.models.costs import count
from edgetpu_repro.show.explorer import write_explorer
from edgetpu_repro.tasks.plans import ARGMAX

NAMES = [*specs.SPECS, *specs.VARIANTS]
NUMBERS = ("params", "trainable", "macs", "ms", "low", "high")
EVALUATE = """([text, argmax]) => {
    try {
        const {operators, ...result} = Model.evaluate(Model.parse(text), argmax);
        return result;
    } catch (error) {
        if (!(error instanceof Model.UsageError)) throw error;
        return error.message;
    }
}"""


@pytest.fixture(scope="session")
def explorer(tmp_path_factory):
    "The address of the page."
    return write_explorer(tmp_path_factory.mktemp("explorer")).as_uri()


@pytest.fixture
def opened(explorer, visit):
    "The explorer at an address; nothing may go wrong in it or be asked of the network."
    visits = []

    def start(fragment="", **size):
        visits.append(visit(**size))
        visits[-1].page.goto(explorer + fragment)
        return visits[-1].page

    yield start
    for one in visits: assert not one.errors and not one.outside()


def python(spec, argmax=None):
    "What Python makes of a spec: numbers, or the line of an error."
    try: return modelled(spec, argmax) | count(spec)
    except UsageError as e: return str(e)


def assert_same(page, expected):
    "Numbers to 1e-6, and what lies outside of the published models."
    assert isinstance(page, dict), page
    for name in NUMBERS: assert page[name] == pytest.approx(expected[name], rel=1e-6), name
    assert page["parts"] == pytest.approx(expected["parts"], rel=1e-6)
    assert page["extrapolated"] == expected["extrapolated"]


def shown(page):
    "What the page shows, which is what it computed last."
    return page.evaluate("() => { const {operators, ...r} = explorer.result; return r; }")


def test_every_registered_model_is_as_in_python(opened):
    page, counted = opened(), 0
    for name in NAMES:
        spec = specs.get_spec(name)
        ends = ("default", "fused4") if spec.task == "segmentation" else (None,)
        for argmax in ends:
            found = page.evaluate(EVALUATE, [specs.spec_to_json(spec), argmax])
            if specs.has_layout(spec): assert_same(found, python(spec, argmax))
            else: assert "keras.applications" in found
            counted += specs.has_layout(spec)
    assert counted > 40
    offered = page.locator("#model option").all_inner_texts()
    assert set(offered) == {name for name in NAMES if specs.has_layout(specs.get_spec(name))}


def test_every_model_on_coral_is_as_in_python(opened):
    page = opened()
    for name in ("mobilenet_edgetpu_v2_xs", "mobilenet_edgetpu_dm1p75", "spaghettinet_edgetpu_l",
                 "deeplabv3plus_mobilenet_edgetpuv2_m_ade20k_32", "ssdlite_mobiledet_edgetpu"):
        spec = specs.get_spec(name)
        found = page.evaluate("""text => {
            const {operators, ...r} = Model.evaluate(Model.parse(text), null, "", "coral");
            return r;
        }""", specs.spec_to_json(spec))
        assert_same(found, predict_on("coral", spec_operators(spec)) | count(spec))


def test_the_chip_is_a_choice_and_in_the_address(opened):
    page = opened("#model=mobilenet_edgetpu_v2_s")
    quick = shown(page)["ms"]
    page.select_option("#device", "coral")
    assert shown(page)["ms"] > 3 * quick and "device=coral" in page.url
    assert "Coral" in page.locator("#chart").inner_text()
    assert "measured cells" in page.locator("#notes").inner_text()
    again = opened(page.url[page.url.index("#"):])
    assert shown(again) == shown(page)
    assert shown(opened("#model=mobilenet_edgetpu_v2_s&device=abacus"))["ms"] == quick


def test_every_argmax(opened):
    page, spec = opened(), specs.get_spec("autoseg_edgetpu_s")
    for argmax in ARGMAX:
        found = page.evaluate(EVALUATE, [specs.spec_to_json(spec), argmax])
        assert_same(found, python(spec, argmax))


def test_changed_models_are_as_in_python(opened):
    "Forty random changes of classifiers: the same numbers, or the same error."
    page, rng, outcomes = opened(), random.Random(0), []
    families = ("mobilenet_edgetpu_v1", "mobilenet_edgetpu_v2")
    names = [n for family in families for n in specs.list_models(family)]
    for i in range(40):
        plain = json.loads(specs.spec_to_json(specs.get_spec(rng.choice(names))))
        plain |= dict(name=f"changed{i}", image_size=rng.choice([160, 224, 256]))
        for block in rng.sample(plain["blocks"], 3):
            block["kind"] = rng.choice(list(KINDS))
            block["group_size"] = rng.choice([None, 16, 32, 48, 64])
            block |= dict(kernel=rng.choice([3, 5, 7]), expand=rng.choice([1, 3, 4, 8]),
                          stride=rng.choice([1, 2]), out=rng.choice([24, 48, 64, 96, 0]))
        text = json.dumps(plain)
        try: expected = python(specs.spec_from_json(text))
        except UsageError as e: expected = str(e)
        found = page.evaluate(EVALUATE, [text, None])
        if isinstance(expected, str): assert found == expected
        else: assert_same(found, expected)
        outcomes.append(type(expected))
    assert min(outcomes.count(str), outcomes.count(dict)) >= 5, "one outcome is not tried"


@pytest.mark.parametrize("path", sorted((ROOT / "results/default/found").glob("*.json")),
                         ids=lambda path: path.stem)
def test_a_found_spec_is_opened_and_given_back(opened, path, tmp_path):
    page, spec = opened(), specs.read_spec(path)
    page.set_input_files("#file", path)
    page.wait_for_function("name => explorer.state.spec.name === name", arg=spec.name)
    assert_same(shown(page), python(spec))
    with page.expect_download() as download: page.click("#download")
    download.value.save_as(tmp_path / "again.json")
    assert specs.read_spec(tmp_path / "again.json") == spec
    assert page.locator("#params").inner_text() == f"{count(spec)['params']:,}"


CLASSIFIER = dict(zip(("class", "name", "family", "stem", "stem_kernel", "blocks", "top",
                       "dropout", "drop_connect"),
                      ("Classifier", "x", "x", 16, 3, [], 64, 0.1, 0.1)))
FUSED = dict(kind="fused", out=16) | {"class": "Block"}


def classifier(*blocks, **fields):
    return json.dumps(CLASSIFIER | dict(blocks=list(blocks)) | fields)


BAD = {
    "no JSON": "{",
    "a list": "[]",
    "a block": json.dumps(FUSED),
    "an unknown class": '{"class": "Transformer"}',
    "no class": "{}",
    "a prototype's name": '{"class": "constructor"}',
    "no fields": '{"class": "Classifier", "name": "x"}',
    "no blocks": classifier(),
    "another field": classifier(FUSED, colour="red"),
    "an unknown kind": classifier(FUSED | dict(kind="attention")),
    "a text for a number": classifier(FUSED | dict(kernel="3")),
    "a kernel of nothing": classifier(FUSED | dict(kernel=0)),
    "half a channel": classifier(FUSED, stem=0.5),
    "an odd size": classifier(FUSED, image_size=225),
    "a name with a slash": classifier(FUSED, name="a/b"),
    "no group size": classifier(FUSED | dict(kind="grouped")),
    "a group that does not divide": classifier(
        FUSED | dict(kind="fused_grouped", group_size=48)),
    "no output channels": classifier(FUSED | dict(out=0)),
    "an unknown backbone": json.dumps({"class": "DeepLab", "name": "x", "backbone": "nothing"}),
    "a detector as backbone": json.dumps(
        {"class": "DeepLab", "name": "x", "backbone": "spaghettinet_edgetpu_s"}),
    "deep nesting": "[" * 100_000,
}


def test_a_bad_spec_is_one_line_and_changes_nothing(opened):
    page = opened()
    before = shown(page)
    page.locator("#json summary").click()
    for case, text in BAD.items():
        with pytest.raises(UsageError) as error: specs.spec_from_json(text)
        page.fill("#text", text)
        page.click("#apply")
        said = page.locator("#message").inner_text()
        assert said and "\n" not in said and len(said) < 400, case
        if case not in ("no JSON", "deep nesting", "an unknown backbone", "no class"):
            assert said.split(";")[0] == str(error.value).split(";")[0], case
        assert shown(page) == before, case
        page.locator(".stem input").fill("48") # a good change takes the line away
        assert page.locator("#message").is_hidden(), case
        page.click("#reset")


def test_an_edited_table_is_in_the_address(opened):
    page = opened("#model=mobilenet_edgetpu_v2_s")
    rows = page.locator("#tables tbody tr")
    assert rows.count() == len(specs.get_spec("mobilenet_edgetpu_v2_s").blocks)
    rows.nth(2).locator("[data-field=kernel]").fill("5")
    rows.nth(4).locator("button").first.click()
    spec = specs.spec_from_json(page.input_value("#text"))
    base = specs.get_spec("mobilenet_edgetpu_v2_s")
    blocks = list(base.blocks)
    blocks[2] = replace(blocks[2], kernel=5)
    blocks.insert(5, blocks[4])
    assert spec == replace(base, name=f"{base.name}_edited", blocks=tuple(blocks))
    assert_same(shown(page), python(spec))
    again = opened(page.url[page.url.index("#"):])
    assert specs.spec_from_json(again.input_value("#text")) == spec
    assert shown(again) == shown(page)
    again.click("#reset")
    assert specs.spec_from_json(again.input_value("#text")) == base
    assert again.url.endswith("#model=mobilenet_edgetpu_v2_s")


def test_a_changed_back_model_has_its_name_again(opened):
    page = opened("#model=mobilenet_edgetpu")
    cell = page.locator("#tables tbody tr").first.locator("[data-field=out]")
    old = cell.input_value()
    cell.fill("24")
    assert page.input_value(".name input") == "mobilenet_edgetpu_edited"
    cell.fill(old)
    assert page.input_value(".name input") == "mobilenet_edgetpu"


def test_the_row_of_an_error_is_marked(opened):
    page = opened()
    cell = page.locator("#tables tbody tr").nth(2).locator("[data-field=group_size]")
    cell.fill("60")
    assert "not divisible by group size 60" in page.locator("#message").inner_text()
    assert page.locator("tr.bad").get_attribute("data-row") == "2"
    cell.fill("32")
    assert page.locator("#message").is_hidden() and page.locator("tr.bad").count() == 0


def test_a_segmentation_model_with_blocks_of_its_own(opened):
    name = "deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32"
    page = opened(f"#model={name}&argmax=fused4")
    assert_same(shown(page), python(name, "fused4"))
    page.click("#edit-body")
    page.locator("#tables tbody tr").nth(1).locator("[data-field=expand]").fill("6")
    page.select_option("#argmax", "fused2")
    spec = specs.spec_from_json(page.input_value("#text"))
    assert spec.backbone.name == "mobilenet_edgetpu_v2_xs_edited"
    assert spec.backbone.blocks[1].expand == 6
    assert_same(shown(page), python(spec, "fused2"))
    again = opened(page.url[page.url.index("#"):])
    assert shown(again) == shown(page)


@pytest.mark.parametrize("name", ["spaghettinet_edgetpu_l", "ssdlite_mobiledet_edgetpu",
                                  "ssd_mobilenet_edgetpu"])
def test_detectors_are_edited_too(opened, name):
    page = opened(f"#model={name}")
    page.locator(".image_size input").fill("384")
    if name != "ssd_mobilenet_edgetpu":
        cell = page.locator("#tables tbody tr").nth(1).locator("input.long")
        cell.fill(cell.input_value().replace("3,8", "5,8"))
    spec = specs.spec_from_json(page.input_value("#text"))
    assert spec.image_size == 384 and spec != specs.get_spec(name)
    assert_same(shown(page), python(spec))


@pytest.mark.parametrize("fragment", ["#model=nothing", "#model=mobilenet_edgetpu&spec=@@",
                                      "#model=mobilenet_edgetpu&spec=eyJhIjoxfQ"])
def test_a_bad_address_is_one_line(opened, fragment):
    page = opened(fragment)
    assert "\n" not in page.locator("#message").inner_text().strip() != ""
    assert shown(page)["params"] > 0


def test_rows_and_other_parts_add_up(opened):
    "What the tables show is the whole time, to their three digits."
    for name in ("mobilenet_edgetpu_v2_m", "spaghettinet_edgetpu_s", "autoseg_edgetpu_xs",
                 "ssdlite_mobiledet_edgetpu"):
        page = opened(f"#model={name}")
        cells = page.locator("td.bar").all_inner_texts()
        parts = page.locator("#parts td.bar").all_inner_texts()
        total = sum(float(text or 0) for text in cells) - sum(map(float, parts))
        assert total == pytest.approx(shown(page)["ms"], abs=0.0006 * len(cells))


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_no_part_leaves_the_window(explorer, visit, width):
    for name in ("mobilenet_edgetpu_v2_xs", "spaghettinet_edgetpu_m",
                 "deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32"):
        one = visit(width=width)
        one.page.goto(f"{explorer}#model={name}")
        assert one.overflow() <= 0


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_time_of_a_block_is_in_sight_while_it_is_edited(opened, width):
    for name in ("mobilenet_edgetpu_v2_xs", "spaghettinet_edgetpu_m"):
        page = opened(f"#model={name}", width=width)
        box = page.locator(".rows td.bar").first.bounding_box()
        assert box["x"] + box["width"] <= width, name
    wide = page.evaluate("document.querySelector('.wide').scrollWidth")
    assert width < 1280 or wide <= page.evaluate("document.querySelector('.wide').clientWidth")


NEUTRAL = ("class", "name", "family", "dropout", "drop_connect")


def edits(a, b, whole=4):
    "The fewest changed fields that make the blocks b of the blocks a; a block more counts 4."
    @cache
    def left(i, j):
        if i == len(a) or j == len(b): return whole * (len(a) - i + len(b) - j)
        changed = min(sum(a[i][key] != b[j][key] for key in a[i]), 2 * whole)
        return min(changed + left(i + 1, j + 1), whole + left(i + 1, j), whole + left(i, j + 1))

    return left(0, 0)


def nearest_classifier(spec):
    "(cost, names) of the registered classifiers that the fewest changes lead from."
    wanted, costs = json.loads(specs.spec_to_json(spec)), {}
    for name in specs.list_models():
        plain = json.loads(specs.spec_to_json(specs.get_spec(name)))
        if plain["class"] != "Classifier": continue
        fields = [key for key in plain if key not in (*NEUTRAL, "blocks")]
        costs[name] = (sum(plain[key] != wanted[key] for key in fields)
                       + edits(plain["blocks"], wanted["blocks"]))
    least = min(costs.values())
    return least, [name for name, cost in costs.items() if cost == least]


def nearest(page, spec):
    return page.evaluate("text => Model.nearest(Model.parse(text))", specs.spec_to_json(spec))


def test_the_nearest_published_model_is_the_one_that_the_fewest_changes_lead_to(opened):
    page, rng = opened(), random.Random(1)
    for name in NAMES:
        if not specs.has_layout(specs.get_spec(name)) or name in specs.VARIANTS: continue
        found = nearest(page, specs.get_spec(name))
        assert found["cost"] == 0 and found["changes"] == [], (name, found)
    for name in ("mobilenet_edgetpu_v2_m", "mobilenet_edgetpu_dm1p25", "mobilenet_edgetpu_v2_tiny"):
        spec = specs.get_spec(name)
        for _ in range(4):
            blocks = list(spec.blocks)
            for _ in range(rng.randint(1, 9)):
                i = rng.randrange(len(blocks))
                how = dict(kernel=rng.choice([3, 5, 7]), id_skip=rng.random() > 0.3)
                blocks[i] = replace(blocks[i], **how)
            i = rng.choice([i for i in range(1, len(blocks)) if blocks[i - 1].out == blocks[i].out])
            blocks.insert(i, blocks[i])
            changed = replace(spec, blocks=tuple(blocks), stem=rng.choice([spec.stem, 40]))
            found, (cost, names) = nearest(page, changed), nearest_classifier(changed)
            assert found["cost"] == cost and found["model"] in names


def test_what_changed_against_the_nearest_is_in_words(opened):
    page = opened("#model=mobilenet_edgetpu_v2_s")
    assert "mobilenet_edgetpu_v2_s" in page.locator("#nearest").inner_text()
    assert "as published" in page.locator("#nearest").inner_text()
    rows = page.locator("#tables tbody tr")
    rows.nth(2).locator("[data-field=kernel]").fill("5")
    rows.nth(4).locator("button").first.click()
    page.locator(".stem input").fill("40")
    text = page.locator("#nearest").inner_text()
    assert "is the nearest, with 3 changes" in text and "published: " in text
    before, kernel = python("mobilenet_edgetpu_v2_s"), specs.get_spec("mobilenet_edgetpu_v2_s")
    assert f"block 2: kernel {kernel.blocks[2].kernel} → 5" in text
    assert f"stem {kernel.stem} → 40" in text and "block 5 is new" in text
    change = 100 * (shown(page)["params"] / before["params"] - 1)
    assert f"parameters +{change:.1f} %" in text
    page.select_option("#model", "mobilenet_edgetpu_v2_m") # another one comes nearer
    page.locator("#tables tbody tr").nth(3).get_by_label("Delete").click()
    text = page.locator("#nearest").inner_text()
    assert "mobilenet_edgetpu_v2_m" in text and "of it is gone" in text


def test_the_nearest_of_other_tasks(opened):
    page = opened("#model=spaghettinet_edgetpu_m")
    page.locator("#tables tbody tr").nth(1).locator("[data-field=width]").fill("24")
    assert "spaghettinet_edgetpu_m" in page.locator("#nearest").inner_text()
    assert "width" in page.locator("#nearest").inner_text()
    page = opened("#model=deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32")
    page.click("#edit-body")
    page.locator("#tables tbody tr").nth(1).locator("[data-field=expand]").fill("6")
    text = page.locator("#nearest").inner_text()
    assert "deeplabv3plus_mobilenet_edgetpuv2_xs_ade20k_32" in text and "→ 6" in text
    assert "1 change:" in text


THUMB = 44 # pixels


@pytest.mark.parametrize("name", ["mobilenet_edgetpu_v2_xs", "spaghettinet_edgetpu_m",
                                  "deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32"])
def test_a_thumb_can_use_it(explorer, visit, name):
    one = visit(width=390, height=844)
    page = one.page
    page.goto(f"{explorer}#model={name}")
    page.locator("#json summary").click()
    sizes = page.evaluate("""() => [...document.querySelectorAll(
        "select, button, .button, input:not([hidden]), textarea, summary")]
        .filter((control) => control.checkVisibility())
        .map((control) => [control.outerHTML.slice(0, 60), control.getBoundingClientRect()])
        .map(([text, box]) => [text, box.width, box.height])""")
    assert len(sizes) > 12
    assert not [row for row in sizes if min(row[1:]) < THUMB]
    assert one.overflow() <= 0
    strips = page.evaluate("""() => [...document.querySelectorAll(".wide")].map((strip) => {
        strip.scrollLeft = 1e6;
        return [strip.scrollWidth - strip.clientWidth, strip.scrollLeft];
    })""")
    assert all(moved == pytest.approx(room, abs=1) for room, moved in strips)
    if name != "deeplabv3plus_mobilenet_edgetpuv2_s_ade20k_32": assert strips[0][0] > 0
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    box = page.locator("#ms").bounding_box() # the number stays while rows are edited
    assert 0 <= box["y"] < 100 and not one.errors


def test_the_commands_that_the_page_names_are_commands(opened):
    commands = typer.main.get_command(app).commands
    named = opened().locator("#json p code").all_text_contents()
    assert len(named) == 3 and all(line.endswith("FILE.json") for line in named)
    for line in named:
        words = line.removeprefix("edgetpu-repro ").split()
        parameters = commands[words[0]].params
        names = {o.replace("-", "_") for p in parameters for o in p.opts if o.startswith("--")}
        if len(words) == 3: assert words[1].replace("-", "_") in names
        else: assert parameters[0].param_type_name == "argument"
