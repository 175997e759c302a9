"The documentation's site: built with warnings as errors, walked in a browser, opened from disk."
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from conftest import ROOT, call
from dependencies import MAKERS, ROOMS

PHONE = 390 # pixels
WALK = (
    "index.html",
    "page/02_group_size.html",
    "models/13_blocks.html",
    "measure/05_latency.html",
    "results/default/fig3_frontier.html",
    "results/default/index.html",
    "howto/group_convolution.html",
    "reference/commands.html",
    "reference/models/layout.html",
    "explorer/index.html",
)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The folder of the site."
    folder = tmp_path_factory.mktemp("site") / "site"
    done = call(sys.executable, "tools/documentation.py", folder,
                env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    warned = [line for line in done.stderr.splitlines() if line.startswith("WARNING ")]
    assert not warned, warned # mkdocs's; "WARNING:" is how TensorFlow speaks of its own log
    return folder


class Links(HTMLParser):
    "What a page links to, what it loads, and where it can be linked to."

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")}
        target = given.get("href") or given.get("src")
        if target is None: return
        if tag in ("script", "img", "iframe", "link"): self.loads.append(target)
        if tag == "a": self.links.append(target)


@pytest.fixture(scope="session")
def pages(site):
    "The pages, parsed."
    found = sorted(site.rglob("*.html"))
    return {path.resolve(): Links(path.read_text()) for path in found}


def test_every_source_has_its_page(site):
    folders = [ROOT / "nbs" / name for name in ("page", *ROOMS, "runs", *MAKERS)]
    notebooks = [path for folder in folders for path in folder.glob("*.ipynb")]
    wanted = [f"{p.parent.name}/{p.stem}" for p in notebooks]
    wanted += [f"howto/{p.stem}" for p in (ROOT / "docs").glob("*.md")]
    wanted += [f"results/{p.parts[-3]}/{p.stem}" for p in (ROOT / "results").glob("*/tables/*.md")
               if p.parts[-3] != "smoke"]
    wanted += [f"reference/{p.parent.name}/{p.stem}"
               for room in ROOMS for p in (ROOT / "edgetpu_repro" / room).glob("[!_]*.py")]
    assert len(wanted) > 100
    assert not [name for name in wanted if not (site / f"{name}.html").is_file()]


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site, pages):
    broken, foreign = [], []
    for page, found in pages.items():
        if page.name == "404.html": continue # its links are those of a server's root
        foreign += [(page.name, t) for t in found.loads if urlsplit(t).scheme not in ("", "data")]
        for target in {*found.links, *found.loads}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc: continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = pages[there].anchors if there in pages else {parts.fragment}
            if not there.exists() or unquote(parts.fragment) not in anchors:
                broken.append((page.relative_to(site.resolve()).as_posix(), target))
    assert not foreign
    assert not broken, broken[:20]


def test_commands_are_those_of_the_application(site):
    from edgetpu_repro.cli.main import app
    import typer
    text = (site / "reference/commands.html").read_text()
    commands = typer.main.get_command(app).commands
    assert len(commands) > 10
    groups = {name: getattr(command, "commands", {}) for name, command in commands.items()}
    parts = {f"{name} {sub}": one for name, group in groups.items() for sub, one in group.items()}
    assert "search run" in parts
    for name, command in (commands | parts).items():
        assert f'<h2 id="{name.replace(" ", "-")}">' in text
        for p in command.params: assert all(o in text for o in p.opts if o.startswith("--"))


def test_docments_are_tables_of_parameters(site):
    text = re.sub(r"<[^>]+>", " ", (site / "reference/models/layout.html").read_text())
    words = " ".join(text.split())
    row = r"hw tuple \(height, width\) of the input"
    assert re.search(rf"Name Type Description Default .*{row}", words)
    assert "tuple (height, width) of the output" in words


def test_search_finds_a_class_from_disk(site, visit):
    one = visit()
    one.page.goto((site / "index.html").as_uri())
    one.page.locator("input.md-search__input").click()
    one.page.locator("input.md-search__input").press_sequentially("GroupConv2D")
    one.page.wait_for_selector(".md-search-result__item a", timeout=120_000)
    found = one.page.locator(".md-search-result__item a").all_inner_texts()
    assert any("GroupConv2D" in text for text in found)
    one.page.locator(".md-search-result__item a").first.click()
    one.page.wait_for_url(re.compile(r"\.html"))
    assert "GroupConv2D" in one.page.content()
    assert not one.outside() and not one.errors


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_pages_ask_nothing_of_the_network_and_fit_the_window(site, visit, width):
    one = visit(width=width)
    for name in WALK:
        one.page.goto((site / name).as_uri())
        assert one.overflow() <= 0, name
        assert one.page.locator("h1").first.inner_text()
    assert not one.outside() and not one.errors


def test_the_start_page_leads_to_the_explorer_and_back(site, visit):
    one = visit()
    one.page.goto((site / "index.html").as_uri())
    one.page.locator(".md-tabs__link", has_text="Explorer").click()
    one.page.wait_for_url("**/explorer/index.html*") # the explorer itself
    one.page.wait_for_function("window.explorer")
    assert one.page.locator("#params").inner_text() == "4,504,393"
    one.page.click("#home")
    one.page.wait_for_url("**/site/index.html")
    assert not one.outside() and not one.errors


def test_results_lead_with_their_figure(site):
    led = 0
    for page in (site / "results").rglob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        found = re.findall(r"<(img|table|ul)\b|(plotly-graph-div)", article)
        kinds = [kind or figure for kind, figure in found]
        if not {"img", "plotly-graph-div"} & set(kinds): continue
        assert kinds[0] in ("img", "plotly-graph-div"), page
        led += 1
    assert led > 30


def test_wide_tables_scroll_within_themselves(site, visit):
    one = visit(width=PHONE)
    one.page.goto((site / "results/default/tab1_classification.html").as_uri())
    moved = one.page.evaluate("""() => [...document.querySelectorAll("article table")]
        .map((table) => table.closest(".md-typeset__scrollwrap"))
        .map((strip) => { strip.scrollLeft = 1e6; return strip.scrollLeft; })""")
    assert moved and min(moved) > 100 and one.overflow() <= 0


def test_lines_of_code_are_whole_on_a_phone(site, visit):
    one = visit(width=PHONE)
    one.page.goto((site / "models/13_blocks.html").as_uri())
    whole = one.page.evaluate("""() => [...document.querySelectorAll("pre > code")]
        .filter((code) => !code.closest(".output")) // tables of text scroll
        .map((code) => code.scrollWidth <= code.clientWidth + 1)""")
    assert len(whole) > 5 and all(whole)


def test_a_demo_from_disk_says_what_to_run(site, visit):
    if not (site / "demo").is_dir(): pytest.skip("LiteRT.js could not be fetched for this site")
    assert len(list((site / "demo").rglob("*.wasm"))) == 1
    one = visit(width=PHONE)
    one.page.goto((site / "index.html").as_uri())
    assert one.page.locator(".md-tabs__link", has_text="Demo").count() == 1
    one.page.goto((site / "demo/index.html").as_uri())
    assert "edgetpu-repro demo" in one.page.locator("body").inner_text()
    assert one.overflow() <= 0 and not one.outside()


def test_tables_sort_and_figures_show_numbers(site, visit):
    one = visit()
    one.page.goto((site / "results/default/fig3_frontier.html").as_uri())
    assert one.page.locator(".plotly-graph-div .point").count() > 10
    column = "article table tbody tr td:nth-child(2)"
    one.page.locator("article table th").nth(1).click()
    cells = [text for text in one.page.locator(column).all_inner_texts() if text not in ("", "-")]
    numbers = [float(text) for text in cells]
    assert len(numbers) > 5 and numbers == sorted(numbers)
    one.page.locator("article table th").nth(1).click()
    again = [text for text in one.page.locator(column).all_inner_texts() if text not in ("", "-")]
    assert [float(text) for text in again] == numbers[::-1]
    assert not one.errors


def test_every_table_of_numbers_has_a_figure(site, visit):
    one, drawn = visit(), 0
    for path in sorted(ROOT.glob("results/*/tables/*.csv")):
        if path.parts[-3] == "smoke": continue
        numbers = pd.read_csv(path).select_dtypes("float").dropna(axis=1, how="all")
        if numbers.shape[1] < 2: continue
        page = site / "results" / path.parts[-3] / f"{path.stem}.html"
        one.page.goto(page.as_uri())
        assert one.page.locator(".plotly-graph-div .point").count() > 1, page
        drawn += 1
    assert drawn > 10 and not one.errors
