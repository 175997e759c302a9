"Figures that a referee would pass: labels, colours, sizes, and one kind of number an axis."
import json
import re
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from edgetpu_repro.models.specs import Block, get_spec  # noqa: E402
from edgetpu_repro.show import blocks, figures, labels, pictures, searches, tradeoffs  # noqa: E402
from edgetpu_repro.show.figures import figure_faults, label_faults  # noqa: E402
from edgetpu_repro.show.labels import label_points  # noqa: E402

pytestmark = pytest.mark.quick
PNGS = sorted((ROOT / "figures").glob("*/*.png"))
DRAWN = sorted((ROOT / "figures").glob("*/*.json"))


def name(path): return f"{path.parent.name}/{path.stem}"


def panels(figure):
    "What is drawn in a committed figure, a dict a panel: words, lines, points."
    return json.loads((ROOT / f"figures/{figure}.json").read_text())


@pytest.fixture
def axes():
    "An empty axes in the style of all figures, with names."
    figures.use_style()
    fig, ax = plt.subplots(figsize=(4, 3), layout="constrained")
    ax.set(xlabel="x", ylabel="y")
    yield ax
    plt.close(fig)


# What is committed.


@pytest.mark.parametrize("path", PNGS, ids=name)
def test_a_picture_fits_a_page(path):
    "At 200 pixels an inch, as wide as a README at most."
    width, height = Image.open(path).size
    assert width <= 200 * (figures.WIDTH + 0.25) # with its margin
    if path.stem == "claims": return # a table with pictures
    assert height <= 200 * (figures.HEIGHT + 0.25)


@pytest.mark.parametrize("path", PNGS, ids=name)
def test_no_text_is_small(path):
    "An SVG writes sizes in points."
    sizes = re.findall(r"font: (?:\w+ )*([\d.]+)px", path.with_suffix(".svg").read_text())
    small = [s for s in map(float, sizes) if s < figures.SMALLEST - 1e-6]
    exponents = [s for s in small if s >= 0.69 * figures.SMALLEST] # 10 to the power of 2
    assert len(small) == len(exponents) and (path.stem == "released" or not small)


@pytest.mark.parametrize("path", DRAWN, ids=name)
def test_no_panel_sets_one_image_size_against_another(path):
    for panel in json.loads(path.read_text()):
        _, across, up, *_ = panel["words"]
        sizes = [set(re.findall(r"\d+x\d+|(?<=at )\d+(?= pixels)", w)) for w in (across, up)]
        assert not all(sizes) or sizes[0] == sizes[1], panel["words"][:3]


@pytest.mark.parametrize("number", [3, 4])
def test_float_and_8_bit_top1_have_panels_of_their_own(number):
    files, models, newer = panels(f"default/fig{number}_frontier")
    assert "8-bit" in files["words"][2] and "float" not in files["words"][2]
    for panel in (models, newer): assert "float" in panel["words"][2]
    assert "EfficientNetV2-B0" in models["words"] and "EfficientNetV2-B0" not in files["words"]
    assert {"MobileNetV3-L", "MobileNetV1"} <= set(files["words"]) & set(models["words"])


def test_the_cpu_frontier_of_float_models_has_efficientnet():
    _, models, _ = panels("default/fig4_frontier")
    edge = models["lines"][0] # the frontier is drawn first
    assert max(edge, key=lambda point: point[1])[1] == 78.7


def test_figure_2_names_groups_above_and_below_and_every_shape_is_measured():
    found = panels("default/fig2_tradeoff")
    words = [panel["words"][3:] for panel in found]
    assert not any("not measured" in w for w in words)
    assert all("16*" in w for w in words) and len(found) == 20 # ten shapes, two devices


def test_paper_notebooks_draw_with_functions_of_the_room():
    for path in [p for name in ("paper", "more") for p in (ROOT / "nbs" / name).glob("*.ipynb")]:
        cells = json.loads(path.read_text())["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        assert not re.search(r"def \w+\(ax\b|add_patch|\.annotate\(", code), path.name


# Labels.


@pytest.mark.parametrize("seed", range(6))
def test_curves_have_their_names_in_their_order(axes, seed):
    rng = np.random.default_rng(seed)
    ends = rng.normal(75, 4, 10)
    curves = {f"m{i}": [20, 40, end] for i, end in enumerate(ends)}
    axes.set_ylim(0, 100)
    tradeoffs.draw_curves(axes, curves, "tab:blue")
    heights = {t.get_text(): t.get_position()[1] for t in axes.texts}
    assert sorted(curves, key=heights.get) == sorted(curves, key=lambda m: curves[m][-1])
    assert figures.crossing_ties(axes) == 0 and not figure_faults(axes.figure)


@pytest.mark.parametrize("seed", range(8))
def test_labels_stand_at_their_own_points(axes, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.5, 2, 14), rng.uniform(70, 80, 14)
    x[1], y[1] = x[0] + 0.02, y[0] - 0.3 # two marks beside each other
    axes.plot(x, y, "o")
    axes.plot([0.5, 2], [71, 79], lw=4, color="0.8")
    axes.margins(0.15)
    label_points(axes, x, y, [f"model {i}" for i in range(14)])
    assert not label_faults(axes)


def test_a_label_may_touch_the_frame_and_not_cross_it(axes):
    axes.figure.draw_without_rendering()
    frame, none = axes.get_window_extent().extents, np.zeros((0, 2))

    def costs(box): # of this place, wherever it is tried
        boxes = np.tile(box, (len(labels.REACH) * len(labels.TURNS), 1))
        return labels._alone(boxes, frame[:2], axes, none, none, 1)

    outwards = np.array([-1, -1, 1, 1])
    assert (costs(frame) == costs(frame - outwards)).all(), "touching is inside"
    for side in range(4):
        across = frame + outwards * (np.arange(4) == side)
        assert (costs(across) == costs(frame) + labels.BAD).all()


def test_exchanged_labels_are_seen(axes):
    axes.plot([1, 1.2], [1, 1], "o")
    axes.margins(0.5)
    first, second = label_points(axes, [1, 1.2], [1, 1], ["a", "b"])
    assert not label_faults(axes)
    first.labelled, second.labelled = second.labelled, first.labelled
    found = label_faults(axes)
    assert found == ["'a' stands at the mark of another", "'b' stands at the mark of another"]


@pytest.mark.parametrize("ends, crossing", [(([0, 1], [1, 0]), 1), (([0, 1], [0.5, 1.5]), 0)])
def test_crossing_ties_are_seen(axes, ends, crossing):
    for heights in ends: axes.plot([0, 1], heights, gid=figures.TIE)
    found = [fault for fault in label_faults(axes) if "cross" in fault]
    assert len(found) == crossing


def test_small_print_and_large_pictures_are_seen(axes):
    axes.set_title("small", fontsize=6)
    axes.figure.set_size_inches(10, 8)
    found = figure_faults(axes.figure)
    assert "'small' has 6 points" in found
    assert [f.split(" inches ")[1] for f in found if "inches" in f] == [
        "wide, more than 9.2", "high, more than 7"]


def test_a_label_in_the_legend_is_seen(axes):
    axes.plot([0, 1], [0, 1], "o", label="points")
    axes.legend(loc="upper left")
    axes.text(0.05, 0.93, "covered", transform=axes.transAxes)
    assert "'covered' lies over the legend" in label_faults(axes)


# Colours.

# From linear RGB to what is seen without one kind of cones: Machado, Oliveira, Fernandes 2009.
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, sight=None):
    "A colour in CIE Lab, as it is seen."
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if sight: linear = np.clip(np.array(BLIND[sight]) @ linear, 0, 1)
    x, y, z = np.cbrt(np.array(XYZ) @ linear / np.array(XYZ).sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


VOCABULARIES = {
    "classifiers": lambda: list(figures.family_colors().values())[:4],
    "segmentation": lambda: [figures.family_colors()[f] for f in (
        "deeplabv3plus", "autoseg_edgetpu", "reference")],
    "detection": lambda: [figures.family_colors()[f] for f in ("spaghettinet_edgetpu", "ssdlite")],
    "operators": lambda: list(figures.operator_colors().values()),
    "verdicts": lambda: list(figures.verdict_colors().values()),
    "ways": lambda: list(figures.way_colors().values()),
    "searches": lambda: list(figures.search_colors().values()),
}


@pytest.mark.parametrize("sight", [None, *BLIND])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_colours_of_one_figure_can_be_told_apart(vocabulary, sight):
    seen = [lab(color, sight) for color in VOCABULARIES[vocabulary]()]
    apart = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
    assert apart > 10, f"{apart:.0f}" # a difference of 2 is just seen side by side


def test_a_kind_of_block_has_one_colour_in_all_figures():
    "Figure 1's boxes and the strips of searches."
    figures.use_style()
    kinds = {"full": Block("fused", kernel=3, expand=4, out=64),
             "depthwise": Block("dw", kernel=3, expand=4, out=64),
             "grouped": Block("fused_grouped", kernel=3, expand=4, out=64, group_size=64)}
    for kind, block in kinds.items():
        fig, (left, right) = plt.subplots(1, 2)
        blocks.draw_block(left, kind, block, 64, 28)
        blocks.draw_strip(right, [block], 64)
        fill, = {tuple(p.get_facecolor()[:3]) for p in right.patches}
        assert fill == figures.pale(figures.operator_colors()[kind])
        assert fill in {tuple(p.get_facecolor()[:3]) for p in left.patches}
        plt.close(fig)


def test_every_kind_in_a_registered_model_has_a_colour():
    for model in ("mobilenet_edgetpu_v2_xs", "mobilenet_edgetpu", "autoseg_edgetpu_backbone_s"):
        kinds = {figures.operator_of(b.kind) for b in get_spec(model).blocks}
        assert kinds <= set(blocks.KIND_NAMES)


def test_background_is_the_quietest_colour():
    colors = pictures.class_colors(["background", *"0123456789"])
    light, chroma = zip(*((lab(c)[0], np.hypot(*lab(c)[1:])) for c in colors))
    assert light[0] == max(light) and chroma[0] == min(chroma)
    assert len(set(colors)) == 11


# Axes.


def test_found_networks_share_their_scale():
    figures.use_style()
    networks = {n: get_spec(f"mobilenet_edgetpu_v2_{n}").blocks for n in ("xs", "l")}
    fig = searches.draw_found(networks)
    assert len({ax.get_ylim() for ax in fig.axes}) == 1 == len({ax.get_xlim() for ax in fig.axes})
    plt.close(fig)


def test_losses_start_at_zero_on_a_linear_axis(axes):
    model = "spaghettinet_edgetpu_s"
    tradeoffs.draw_losses(axes, {model: [5.8, 0.9, 0.7]}, {model: "spaghettinet_edgetpu"})
    assert (axes.get_yscale(), axes.get_ylim()[0]) == ("linear", 0)
    assert axes.lines[0].get_marker() == "o", "three points are shown as points"
