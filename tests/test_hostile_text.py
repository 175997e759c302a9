"What others wrote, names of classes, files and hosts, is text in every page: opened in Chromium."
import ast
import io
import json
import shutil

import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from edgetpu_repro.core.errors import in_markdown
from edgetpu_repro.core.files import Paths, write_text

SCRIPT = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
HOSTILE = [SCRIPT, f'"><svg onload="window.pwned=1">{SCRIPT}', f"</script>{SCRIPT}",
           f"a|b\n\n{SCRIPT}\n", "[click](javascript:window.pwned=1)", f"`{SCRIPT}",
           f"--> {SCRIPT}",
           f"\x1b]0;x\x07{SCRIPT}", "<a href='javascript:window.pwned=1'>click</a>"]


def harmless(visit, path):
    "A page that ran nothing, whose links lead nowhere but to pages."
    one = visit()
    one.page.goto(path.resolve().as_uri())
    one.page.wait_for_timeout(300)
    for link in one.page.query_selector_all("a[href]"):
        assert not link.get_attribute("href").lower().startswith("javascript")
    assert one.page.evaluate("window.pwned === undefined"), path
    assert not one.page.query_selector_all("img[onerror], svg[onload]")
    return one


@pytest.fixture
def home(tmp_path, monkeypatch):
    "A checkout of its own, with a profile."
    for name in ("Snakefile", "settings.ini"): (tmp_path / name).touch()
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config/smoke.yaml", tmp_path / "config")
    monkeypatch.setenv("EDGETPU_REPRO_HOME", str(tmp_path))
    return Paths("smoke")


def table(paths, name="tab1_classification"):
    "A table and its page in Markdown, with hostile names."
    from edgetpu_repro.show.tables import save_table
    frame = pd.DataFrame({("", "model"): HOSTILE, ("measured", "top-1 (%)"): 81.6})
    return save_table(frame, paths, name, {"top-1 (%)": "{:.1f}"}, f"Measured on {SCRIPT}.")


def run(notebook, **parameters):
    "The code of a paper's notebook in this process."
    cells = json.loads((ROOT / "nbs" / f"{notebook}.ipynb").read_text())["cells"]
    scope = {}
    for cell in cells:
        source = "".join(cell["source"]).replace("check_parameters()", "")
        if cell["cell_type"] == "code": exec(source, scope)
        scope |= parameters


def origin():
    from edgetpu_repro.core.records import provenance
    found = provenance()
    found["host"] |= dict(cpu=SCRIPT, system=f"</p>{SCRIPT}")
    found["versions"] |= {SCRIPT: SCRIPT}
    return found


def test_the_report_and_the_notebooks_beside_it(home, visit):
    record = dict(step="data", name="x", profile="smoke", numbers={}, provenance=origin())
    write_text(home.record("data", "x"), json.dumps(record))
    table(home)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "png")
    (home.figures).mkdir(parents=True)
    (home.figures / "accuracy.png").write_bytes(picture.getvalue())
    hover(home, "pareto_measured")
    outputs = [dict(output_type="display_data", metadata={}, data={kind: text})
               for text in HOSTILE for kind in ("text/plain", "text/markdown", "text/html")]
    outputs += [dict(output_type="stream", name="stdout", text=SCRIPT)]
    cell = dict(cell_type="code", id="a", metadata={}, execution_count=1, source=SCRIPT,
                outputs=outputs)
    text = dict(cell_type="markdown", id="b", metadata={}, source="\n\n".join(HOSTILE))
    notebook = dict(cells=[cell, text], metadata={}, nbformat=4, nbformat_minor=5)
    write_text(home.build / "notebooks" / "<b onclick=x>.ipynb", json.dumps(notebook))
    run("paper/report", profile="smoke")
    one = harmless(visit, next(home.root.rglob("report.html")))
    assert "onerror" in one.page.inner_text("table") and "81.6" in one.page.inner_text("table")
    harmless(visit, next((home.build / "notebooks").glob("*.html")))


def hover(paths, name):
    from edgetpu_repro.show.figures import save_hover
    frame = pd.DataFrame(dict(model=HOSTILE, x=1.0, y=range(len(HOSTILE)), kind="measured",
                              family=HOSTILE, where=HOSTILE))
    return save_hover(frame, paths, name, "x", "y", "family", "kind", ["where"], SCRIPT)


def test_figures_that_show_names_under_the_mouse(home, visit, tmp_path):
    from plotly.offline import get_plotlyjs
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><script>{get_plotlyjs()}</script>"
                    + hover(home, "x").read_text())
    one = harmless(visit, page)
    for box in one.page.query_selector_all(".point"):
        box.hover(force=True)
        one.page.wait_for_timeout(50)
    assert one.page.evaluate("window.pwned === undefined")


def test_tables_as_markdown_and_cards(home, visit, tmp_path, monkeypatch):
    import mistune
    from edgetpu_repro.show import cards
    rows = [(text, text) for text in HOSTILE]
    card = dict(weights=dict(file=SCRIPT), finalize_method=SCRIPT, target="[x](javascript:y)",
                bytes=SCRIPT, check=dict(agreement=1.0, images=SCRIPT),
                inputs=[dict(name=SCRIPT, shape=[1], dtype=SCRIPT, scale=1.0, zero_point=SCRIPT)])
    lines = [*cards._table(("a", "b"), rows), *cards._about(card), *cards._compared(card)]
    body = cards._card(dict(name=SCRIPT), lines).split("---\n", 2)[2] # behind the YAML
    document = "\n".join([table(home), "", body])
    body = mistune.create_markdown(escape=False, plugins=["table"])(document)
    page = tmp_path / "card.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8>{body}")
    one = harmless(visit, page)
    assert len(one.page.query_selector_all("tr")) > 2 * len(HOSTILE)
    name = 'x"); import os; os.abort(); ("\n```\n'
    used = cards.USE.format(file=json.dumps(name))
    code = used.split("```python\n")[1].split("\n```")[0] # no name leaves its line
    assert name in [n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)]


def test_the_site_and_the_explorer(visit, tmp_path, monkeypatch):
    import documentation
    from plotly.offline import get_plotlyjs

    from edgetpu_repro.show import explorer
    name, (columns, *rest) = next(iter(documentation.INTERACTIVE.items()))
    across, up, series = rest
    frame = pd.DataFrame({**{c: HOSTILE for c in columns}})
    for _, x, y in series:
        for column in {x, y} - set(columns): frame[column] = 1.0
    path = tmp_path / f"{name}.csv"
    frame.to_csv(path, index=False)
    page = tmp_path / "figure.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><script>{get_plotlyjs()}</script>"
                    + documentation.interactive(path).partition("\n")[2])
    harmless(visit, page)
    found = explorer.explorer_data()
    for row, text in zip(found["published"], HOSTILE): row["model"] = text
    model = next(iter(found["specs"]))
    found["specs"] = {**found["specs"], SCRIPT: {**found["specs"][model], "name": SCRIPT}}
    found["aliases"] = {**found["aliases"], SCRIPT: SCRIPT}
    monkeypatch.setattr(explorer, "explorer_data", lambda *_: found)
    harmless(visit, explorer.write_explorer(tmp_path / "explorer"))


@pytest.mark.quick
@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_markdown_stays_in_its_cell(text):
    written = in_markdown(text)
    assert "<" not in written and "](" not in written and "\n" not in written
    assert "|" not in written.replace("\\|", "") and "`" not in written
