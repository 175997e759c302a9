"""The documentation's site, from notebooks, docs, results, commands and modules: `make docs`.

python tools/documentation.py [FOLDER]      builds _site (or FOLDER), with warnings as errors; open
                                   index.html from disk, or serve the folder
"""
import argparse
import base64
import hashlib
import html
import json
import logging
import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException

from dependencies import ROOMS, modules
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.show.demo import write_demo
from edgetpu_repro.show.explorer import write_explorer
from edgetpu_repro.show.litertjs import litertjs
from manifest import captioned

SOURCE = Path("build/site") # what mkdocs reads; made anew
STEPS = dict(runs="Runs", paper="Paper", more="Beyond the page")
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))|(?<=<img src=\")([^\"]+)(?=\")")
WHERE = "https?:|mailto:|#"
HOW_TO = { # page of docs/: how the navigation calls it
    "reproduce": "Reproduce all of it",
    "group_convolution": "Export my own group-convolution model",
    "export": "Train, export, import",
    "predict": "Predict",
    "layers": "Which layer loses the accuracy",
    "demo": "Your pictures, in your browser",
    "devices": "Times from your device",
    "phones": "Benchmark on a phone",
    "data": "Train on my data",
    "ade20k_32": "The 32 ADE20K classes",
    "cluster": "Run on a cluster",
    "detection": "Detect objects",
    "search": "Search architectures",
    "published": "The released files on pictures",
    "claims": "How claims are decided",
    "limits": "Limits",
    "memory": "Memory",
    "robustness": "Damaged files",
}
PROJECT = { # files of the root that have pages
    "ARTIFACT.md": "For reviewers",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changelog",
}
ORDER = ( # of tables and figures of a profile; others stand behind them by name
    "fig1_blocks", "fig2_tradeoff", "tab1_classification", "accuracy", "fig3_frontier",
    "fig4_frontier", "tab2_parameters", "tab3_segmentation", "fig5_segmentation", "detection",
    "detection_graph", "detection_gallery", "claims", "claims_evidence", "claims_sensitivity")
FIRST = "default" # profile
TOP1, PIXEL = "ImageNet top-1 (%)", "Pixel 6 Edge TPU (ms)"
EIGHT_BIT = "ImageNet top-1, 8-bit (%)" # float top-1 is another axis
INTERACTIVE = { # table: columns that name a point, titles of the axes, (legend, across, up)s
    "tab1_classification": (["model"], "MACs at 224px (M)", TOP1, [
        ("published", "measured MACs at 224px (M)", f"published {TOP1}")]),
    "tab2_parameters": (["model"], "MACs at 512px (M)", "int8 .tflite (MB)", [
        ("measured", "measured MACs at 512px (M)", "measured int8 .tflite (MB)"),
        ("fused", "measured MACs at 512px (M)", "measured fused int8 .tflite (MB)")]),
    "tab3_segmentation": (["model"], PIXEL, "mIoU (%)", [
        (f"published, {way}", f"published Pixel 6 Edge TPU, {way} (ms)",
         f"published mIoU, {way} (%)") for way in ("default", "fused")]),
    "fig2_tradeoff": (["block"], "latency (ms)", "trainable parameters", [
        ("measured", "measured latency (ms)", "trainable parameters")]),
    "fig3_frontier": (["model"], PIXEL, EIGHT_BIT, [
        (kind, f"{kind} {PIXEL}", f"published {EIGHT_BIT}") for kind in ("published", "modelled")]),
    "fig4_frontier": (["model"], "host int8 (ms)", EIGHT_BIT, [
        ("measured", "measured host int8 (ms)", f"published {EIGHT_BIT}")]),
    "accuracy": (["model"], "host int8 latency (ms)", "int8 top-1 (%)", [
        ("measured", "measured host int8 latency (ms)", "measured int8 top-1 (%)")]),
    "repeats": (["model", "differs by"], "mean (%)", "deviation of one training (points)", [
        ("measured", "measured mean", "measured deviation")]),
    "detection": (["model"], PIXEL, "COCO mAP, uint8 (%)", [
        (kind, f"{kind} {PIXEL}", "published COCO mAP, uint8 (%)")
        for kind in ("published", "modelled")]),
    "predictions": (["model"], PIXEL, "", [("modelled", f"modelled {PIXEL}", "model")]),
    "counterfactuals": (["model", "blocks changed"], "change of the latency (%)",
                        "parameters (M)", [
        ("modelled", "modelled change (%)", "parameters (M)")]),
    "quantizers": (["way"], "times as fast as float", "keeps of the float accuracy, mean (%)", [
        ("measured", "measured times as fast as float",
         "measured keeps of the float accuracy, mean (%)")]),
    "quantize_aware": (["model", "metric"], "int8 of a float epoch (%)", "int8 (%)", [
        (legend, "measured float epoch int8 (%)", f"measured {way} int8 (%)")
        for way, legend in (("aware epoch", "aware epoch"), ("start", "before"))]),
    "search": (["finalist"], "latency (ms)", "proxy, new seeds (%)", [
        ("modelled", "modelled latency (ms)", f"measured proxy {metric}, new seeds (%)")
        for metric in ("top-1", "mIoU")]),
    "search_ablation": (["of", "blocks"], "latency (ms)", "proxy (%)", [
        ("modelled", "modelled latency (ms)", f"measured proxy {metric} (%)")
        for metric in ("top-1", "mIoU")]),
    "search_targets": (["published model"], "latency (ms)", "proxy top-1 (%)", [
        (way, f"modelled {way} (ms)", f"measured {way} (%)")
        for way in ("published model", "found")]),
    "distil": (["place", "output"], "depthwise: variance left (%)", "others: variance left (%)", [
        (legend, "measured depthwise left (%)", f"measured {kind} left (%)")
        for kind, legend in (("gc64", "groups of 64"), ("full", "full"))]),
    "distil_teachers": (["teacher", "output", "trained"], "full: divergence over depthwise",
                        "divergence over depthwise", [
        (legend, "measured divergence, full", f"measured divergence, {kind}")
        for kind, legend in (("gc32", "groups of 32"), ("gc64", "groups of 64"))]),
    "distil_finalists": (["network"], "latency (ms), modelled", "top-1 (%)", [
        (legend, "modelled latency (ms)", f"measured {column}")
        for column, legend in (("top-1 (%)", "float"), ("int8 top-1 (%)", "int8"))]),
    "published": (["file", "way"], "published figure (%)", "measured sample (%)", [
        ("measured", "published figure (%)", "measured sample (%)")]),
    "published_better": (["file", "ours"], "ours like float (%)", "more than the file (points)", [
        ("measured", "measured ours like float (%)", "measured more than the file (points)")]),
}
SYMBOLS = ("circle", "diamond-open")
SHORT = {"^deeplabv3plus_mobilenet_edgetpuv2": "DeepLabV3+"} # in figures


# ---- where things are ----

def page_of(path:Path) -> Path|None: # relative to the site
    "The page that shows a file or folder of the repository; None where none does."
    parts, stem = path.parts, path.stem
    if parts == ("README.md",): return Path("index.md")
    if len(parts) == 1 and path.name in PROJECT: return Path("project", path.name)
    if parts[:1] == ("docs",) and path.suffix == ".md": return Path("howto", path.name)
    if parts[:1] == ("nbs",) and path.suffix == ".ipynb": return Path(*parts[1:-1], f"{stem}.md")
    if parts[:1] == ("nbs",) and len(parts) == 2: return Path(parts[1], "index.md")
    if parts[:1] == ("results",) and path.suffix == ".md":
        return Path("results", parts[1], path.name)
    if parts[:1] in (("results",), ("figures",)) and path.is_dir():
        return Path("results", parts[1], "index.md")
    return None


def link_to(target:str, of:Path, page:Path) -> str:
    "A link of a file of the repository as a link of its page; other files come along."
    if re.match(WHERE, target): return target
    path, _, anchor = target.partition("#")
    there = Path(os.path.normpath(of.parent / path))
    place = page_of(there)
    if place is None:
        if not there.is_file(): raise UsageError(f"{of} links to {target}, which is no file")
        place = Path("files", *(part.lstrip(".") for part in there.parts)) # hidden: left out
        copy(there, place)
    back = os.path.relpath(place, page.parent)
    return f"{back}#{anchor}" if anchor else back


def copy(path:Path, place:Path):
    "Take a file of the repository along."
    (SOURCE / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, SOURCE / place)


def write(place:Path, text:str):
    "Write a page."
    (SOURCE / place).parent.mkdir(parents=True, exist_ok=True)
    (SOURCE / place).write_text(text.rstrip() + "\n", encoding="utf-8")


def convert(text:str, of:Path, page:Path) -> str:
    "Markdown of the repository as Markdown of its page: links and pictures."
    return LINK.sub(lambda m: link_to(m[0], of, page), text)


# ---- notebooks ----

def formula(tex:str, page:Path) -> str:
    "A formula as a picture: no script from elsewhere."
    from matplotlib import mathtext, rc_context
    from matplotlib.font_manager import FontProperties
    place = Path("assets/formulas", hashlib.sha256(tex.encode()).hexdigest()[:12] + ".svg")
    (SOURCE / place).parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "site", "mathtext.fontset": "cm"}):
        prop = FontProperties(size=12)
        mathtext.math_to_image(f"${tex}$", SOURCE / place, prop=prop, format="svg")
    alt = re.sub(r"[\[\]\n]", " ", tex).replace("\\", "\\\\")
    return f"![{alt}]({os.path.relpath(place, page.parent)}){{.formula}}"


def formulas(text:str, page:Path) -> str:
    "Formulas between dollars, where they are none of code."
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: f"\n\n{formula(m[1], page)}\n\n", text, flags=re.S)
    inline = r"(?<![`\\$\w])\$([^$`\n]+?)\$(?![\w$])"
    return re.sub(inline, lambda m: formula(m[1], page), text)


def fenced(text:str, language:str) -> str:
    "A block of code that no line of it ends."
    longest = max([2, *(len(ticks) for ticks in re.findall(r"`+", text))])
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def as_text(value) -> str: return value if isinstance(value, str) else "".join(value)


def output_text(output:dict, page:Path, name:str) -> str:
    "An output of a cell as Markdown; pictures become files."
    if output["output_type"] == "stream": shown = as_text(output["text"])
    else:
        data = output.get("data", {})
        for kind, ending in (("image/png", "png"), ("image/jpeg", "jpg")):
            if kind not in data: continue
            place = page.with_name(f"{page.stem}_{name}.{ending}")
            (SOURCE / place).write_bytes(base64.b64decode(as_text(data[kind])))
            return f"![Output]({place.name})"
        if "text/markdown" in data: return as_text(data["text/markdown"])
        shown = as_text(data.get("text/plain", ""))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    if not shown.strip(): return ""
    return f'<div class="output" markdown>\n\n{fenced(shown, "text")}\n\n</div>'


def cell_text(cell:dict, of:Path, page:Path) -> str:
    "A cell as Markdown."
    source = as_text(cell["source"])
    if cell["cell_type"] == "markdown": return formulas(convert(source, of, page), page)
    if re.match(r"#\|\s*(hide|default_exp)", source): return ""
    source = re.sub(r"^#\|.*\n", "", source, flags=re.M)
    hidden = "hide-input" in cell["metadata"].get("tags", [])
    shown = [] if hidden or not source.strip() else [fenced(source, "python")]
    outputs = enumerate(cell["outputs"])
    shown += [output_text(o, page, f"{cell['id']}_{i}") for i, o in outputs]
    return "\n\n".join(filter(None, shown))


def write_notebook(path:Path) -> tuple: # (title, page, summary)
    "A notebook as a page, with its outputs."
    page = page_of(path)
    (SOURCE / page).parent.mkdir(parents=True, exist_ok=True)
    cells = json.loads(path.read_text())["cells"]
    head = as_text(cells[0]["source"])
    title = re.search(r"^# (.+)", head, flags=re.M)[1]
    summary = re.search(r"^> (.+)", head, flags=re.M)
    write(page, "\n\n".join(filter(None, (cell_text(c, path, page) for c in cells))))
    return title, page, summary[1] if summary else ""


def write_notebooks(room:str, title:str) -> list: # of the navigation
    "The notebooks of a room, and its page."
    found = [write_notebook(path) for path in sorted(Path("nbs", room).glob("*.ipynb"))]
    rows = [f"- [{title}]({page.name}): {summary}" for title, page, summary in found]
    write(Path(room, "index.md"), f"# {title}\n\n" + "\n".join(rows))
    return [{"Overview": f"{room}/index.md"}, *({t: str(p)} for t, p, _ in found)]


# ---- results ----

def title_of(name:str) -> str:
    "What the notebook that makes a figure or a table calls it."
    found = captioned("table").get(name) or captioned("figure").get(name)
    return found.title if found else name.replace("_", " ").capitalize()


def interval(part, across:str) -> dict|None: # as plotly takes it
    "The bars of a modelled column: its table's low and high of the same unit."
    unit = across.rpartition(" ")[2] # such as (ms)
    low, high = (part.get(f"modelled {end} {unit}") for end in ("low", "high"))
    if low is None or not across.startswith("modelled"): return None
    return dict(array=high - part[across], arrayminus=part[across] - low, thickness=1)


def interactive(path:Path) -> str:
    "A figure that shows numbers under the mouse, drawn from a table; nothing where it has none."
    import plotly.graph_objects as go
    if path.stem not in INTERACTIVE: return ""
    names, across_title, up_title, series = INTERACTIVE[path.stem]
    table, figure = pd.read_csv(path), go.Figure()
    series = [(legend, x, y) for legend, x, y in series if {x, y} <= set(table)]
    if not series: return ""
    for symbol, (legend, across, up) in zip(SYMBOLS, series):
        part = table.dropna(subset=[across, up]).replace(SHORT, regex=True)
        text = part[names].astype(str).agg(", ".join, axis=1).map(html.escape)
        height = "" if up in names else ", %{y:.4g}"
        figure.add_scatter(x=part[across], y=part[up], text=text, error_x=interval(part, across),
                           mode="markers", marker=dict(size=9, symbol=symbol), name=legend,
                           hovertemplate=f"%{{text}}<br>%{{x:.3g}}{height}")
    figure.update_layout(template="simple_white", autosize=True, showlegend=True,
                         height=max(420, 22 * len(table) if not up_title else 0),
                         xaxis_title=across_title, yaxis_title=up_title,
                         legend=dict(orientation="h", y=1.02, yanchor="bottom", x=0),
                         margin=dict(l=60, r=20, t=20, b=60))
    figure.update_yaxes(automargin=True, tickfont_size=10 if not up_title else 12)
    options = dict(displaylogo=False, responsive=True)
    piece = figure.to_html(full_html=False, include_plotlyjs=False, config=options,
                           div_id=f"{path.stem}_figure") # the heading is called as the table
    return f'<script src="../../assets/plotly.min.js"></script>\n{piece}'


def write_table(path:Path) -> tuple: # (title, page)
    "A table of a profile, with its figure."
    page, title = page_of(path), title_of(path.stem)
    profile, shown = path.parts[1], [f"---\nhide: [toc]\n---\n# {title}"] # wide tables
    picture = Path("figures", profile, f"{path.stem}.png")
    figure = interactive(path.with_suffix(".csv"))
    if picture.exists(): shown.append(picture_of(picture, page))
    if figure: shown.append(figure)
    shown.append(convert(path.read_text(), path, page))
    data = Path("files", path.with_suffix(".csv"))
    copy(path.with_suffix(".csv"), data)
    shown.append(f"[As CSV]({os.path.relpath(data, page.parent)}), of the profile `{profile}`. "
                 "A click on a heading sorts.")
    write(page, "\n\n".join(shown))
    return title, page


def picture_of(picture:Path, page:Path) -> str:
    "A figure of the repository on a page."
    place = Path("files") / picture
    copy(picture, place)
    return f"![{title_of(picture.stem)}]({os.path.relpath(place, page.parent)})"


def in_order(path:Path) -> tuple: # to sort by
    "Where a table or a figure stands among the others."
    return ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem


def gallery(tables:list, pictures:dict, page:Path) -> str:
    "Tables with a figure as pictures that lead to them."
    cards = []
    for title, table in tables:
        if table.stem not in pictures: continue
        source = os.path.relpath(Path("files", pictures[table.stem]), page.parent)
        cards.append(f'<a href="{table.stem}.html"><img src="{source}" alt="" loading="lazy">'
                     f"<span>{html.escape(title)}</span></a>")
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def write_results(profile:str) -> list: # of the navigation
    "The tables and figures of a profile, pictures first."
    found = sorted(Path("results", profile, "tables").glob("*.md"), key=in_order)
    tables = [write_table(p) for p in found]
    page, names = Path("results", profile, "index.md"), {p.stem for _, p in tables}
    files = sorted(Path("figures", profile).glob("*.png"), key=in_order)
    pictures = {path.stem: path for path in files}
    plain = [f"- [{title}]({table.name})" for title, table in tables if table.stem not in pictures]
    others = [f"## {title_of(name)}\n\n{picture_of(picture, page)}"
              for name, picture in pictures.items() if name not in names]
    cards, rows = gallery(tables, pictures, page), "\n".join(plain)
    shown = [cards, rows, *others] if cards else [*others, rows]
    write(page, "\n\n".join([f"# Profile {profile}", *filter(None, shown)]))
    return [{"Overview": str(page)}, *({title: str(table)} for title, table in tables)]


# ---- reference ----

def write_commands():
    "Every command and its options, from the application itself."
    import typer
    from edgetpu_repro.cli.main import app
    shown = ["# Commands", "`edgetpu-repro COMMAND --help` says the same. Options are written with "
             "`-` or with `_`."]
    for name, command in sorted(typer.main.get_command(app).commands.items()):
        shown.append(command_text(name, command))
        group = getattr(command, "commands", {}) # as `search run`
        shown += [command_text(f"{name} {sub}", one) for sub, one in sorted(group.items())]
    write(Path("reference/commands.md"), "\n\n".join(shown))


def command_text(name:str, command) -> str:
    "A command: what it does, how it is called, a table of options."
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = ["| option | what it is | default |", "|---|---|---|"]
    for p in command.params:
        record = getattr(p, "get_help_record", lambda _: None)(context)
        said = record[1] if record else getattr(p, "help", "") or ""
        said = re.sub(r"\s*\[(default|required)[^\]]*\]", "", said)
        names = ", ".join(dict.fromkeys([*p.opts, *p.secondary_opts]))
        if p.param_type_name == "argument": names = p.name.upper()
        default = "" if callable(p.default) or p.default in (None, False, ()) else f"`{p.default}`"
        if p.required: default = "required"
        rows.append(f"| `{names}` | {escape(said)} | {escape(default)} |".replace("| `` |", "| |"))
    table = "\n".join(rows) if command.params else ""
    text = re.sub(r"\s+", " ", command.help or "")
    return f"## {name}\n\n{escape(text)}\n\n```text\nedgetpu-repro {name} {usage}\n```\n\n{table}"


def escape(text:str) -> str:
    "A text of the command line in a cell of Markdown."
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def write_api() -> list: # of the navigation
    "A page a module, by room."
    rooms = {}
    for module in modules():
        *_, room, name = module.split(".")
        if room not in ROOMS: continue # what the room cli stands for under its old name
        page = Path("reference", room, f"{name}.md")
        write(page, f"::: {module}")
        rooms.setdefault(room, []).append({name: str(page)})
    return [{room: sorted(rooms[room], key=lambda row: next(iter(row)))} for room in ROOMS]


# ---- the whole ----

def write_assets():
    "Scripts and styles; plotly.js comes from its package."
    from plotly.offline import get_plotlyjs
    for path in sorted(Path("docs/site").iterdir()): copy(path, Path("assets", path.name))
    write(Path("assets/plotly.min.js"), get_plotlyjs())


def write_start():
    "The README is the start page."
    readme = Path("README.md")
    write(Path("index.md"), convert(readme.read_text(), readme, Path("index.md")))


def write_how_to() -> list: # of the navigation
    "What is in docs/."
    rows, pages = [], {path.stem: path for path in sorted(Path("docs").glob("*.md"))}
    for name in [*(n for n in HOW_TO if n in pages), *(n for n in pages if n not in HOW_TO)]:
        path, page = pages[name], page_of(pages[name])
        write(page, convert(path.read_text(), path, page))
        rows.append({HOW_TO.get(name, title_of(name)): str(page)})
    return rows


def write_project() -> list: # of the navigation
    "Files of the root."
    for name in PROJECT:
        path, page = Path(name), page_of(Path(name))
        write(page, convert(path.read_text(), path, page))
    return [{title: str(page_of(Path(name)))} for name, title in PROJECT.items()]


def write_all(runtime) -> list: # the navigation
    "All pages; a demo where LiteRT.js is there."
    shutil.rmtree(SOURCE, ignore_errors=True)
    write_assets()
    write_start()
    write_commands()
    profiles = sorted(p.name for p in Path("results").iterdir()
                      if (p / "tables").is_dir() and p.name not in (FIRST, "smoke"))
    results = [{name: write_results(name)} for name in (FIRST, *profiles)]
    page = write_notebooks("page", "The page in nine stops")
    rooms = [{room: write_notebooks(room, room.capitalize())} for room in ROOMS]
    steps = [{title: write_notebooks(name, title)} for name, title in STEPS.items()]
    return [
        {"Start": "index.md"},
        {"The page": page},
        {"Explorer": "explorer/index.html"}, # no page of mkdocs: written below
        *([{"Demo": "demo/index.html"}] if runtime else []),
        {"How-to": write_how_to()},
        {"Results": results},
        {"Rooms": rooms},
        {"Workflow": steps},
        {"Reference": [{"Commands": "reference/commands.md"}, *write_api()]},
        {"Project": write_project()},
    ]


def main():
    "What the command line asks for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="_site", help="_site if not given")
    folder = Path(parser.parse_args().folder).resolve()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    try: runtime = litertjs()
    except UsageError as e:
        print(f"no demo in the site: {e}")
        runtime = None
    nav = write_all(runtime)
    build(load_config("mkdocs.yml", nav=nav, site_dir=str(folder)))
    for path in folder.rglob("*.map"): path.unlink() # of scripts, for their developers
    demo = "../demo/index.html" if runtime else None
    write_explorer(folder / "explorer", home="../index.html", demo=demo)
    if runtime:
        write_demo(folder / "demo", runtime, home="../index.html",
                   explorer="../explorer/index.html")
    print(f"site: {folder / 'index.html'}")


if __name__ == "__main__":
    try: main()
    except (MkDocsException, UsageError) as e: sys.exit(f"error: {e}")
