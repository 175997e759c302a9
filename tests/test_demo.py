"The demo page in a browser: numbers against Python, bad input, no foreign request, 390 pixels."
import json
import shutil
import signal
import struct
import subprocess
import zlib
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import BIN, ROOT, Visit
from PIL import Image
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.core.files import sha256_file
from edgetpu_repro.data.pictures import MOST_PIXELS, read_picture
from edgetpu_repro.measure.benchmark import median_interval, summarize
from edgetpu_repro.measure.devices import read_device_record
from edgetpu_repro.measure.predict import model_input, open_model
from edgetpu_repro.models.anchors import STRIDES, anchor_boxes
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.show.litertjs import UTILS, litertjs, unpack_package
from edgetpu_repro.tasks.detection import detections_of
from edgetpu_repro.tasks.finalize import finalize, finalize_methods
from edgetpu_repro.tflite.content import BUILTIN, unpack
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.options import ExportOptions
from edgetpu_repro.tflite.types import with_types

SIDE = 64 # pixels
FREE = "body[data-started]:not([data-busy])" # it is doing nothing
CLASSIFIER, SEGMENTER, DETECTOR = ("mobilenet_edgetpu_v2_tiny", "autoseg_edgetpu_xs",
                                   "spaghettinet_edgetpu_s")


@pytest.fixture(scope="module")
def runtime():
    "LiteRT.js, where the registry can be reached."
    try: return litertjs()
    except UsageError as e: pytest.skip(str(e))


def exported(folder, name, images=None, group_conv="slices", **options):
    "The files of a model with random weights."
    model = build_model(name, image_size=SIDE, group_conv=group_conv)
    return [path for path, _ in export_model(model, folder, images,
                                           ExportOptions(trained=False, **options))]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "{what it is: path}, small and of random weights."
    folder = tmp_path_factory.mktemp("demo")
    images = np.random.default_rng(0).uniform(-1, 1, (9, SIDE, SIDE, 3)).astype("float32")
    masks = exported(folder, SEGMENTER, finalize_methods=("none", f"resize{SIDE},argmax"))
    heads = exported(folder, DETECTOR, finalize_methods=("none", "nms"))
    classes = exported(folder, CLASSIFIER, group_conv="native")[0]
    int8 = exported(folder, CLASSIFIER, images)[0]
    return dict(classes=classes, int8=int8, logits=masks[0], mask=masks[1], heads=heads[0],
                boxes=heads[1])


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    "A PNG file of colours that change slowly, and sharp edges."
    rng, path = np.random.default_rng(5), tmp_path_factory.mktemp("picture") / "a.png"
    small = rng.integers(0, 256, (9, 12, 3), "uint8")
    image = np.array(Image.fromarray(small).resize((203, 151), Image.Resampling.BICUBIC))
    image[40:90, 60:130] = rng.integers(0, 256, 3)
    Image.fromarray(image).save(path)
    return path


@contextmanager
def served(files):
    "Where `demo` serves the page with some files, for a while."
    command = [BIN / "edgetpu-repro", "demo", "--no_browser", *files]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try: yield child.stdout.readline().split(",")[0]
    finally:
        child.send_signal(signal.SIGINT)
        assert child.wait() == 130


@pytest.fixture(scope="module")
def address(runtime, files):
    "Where the page is, until the tests of this module are done."
    with served(files[what] for what in ("classes", "logits", "mask", "heads")) as url: yield url


@pytest.fixture
def opened(address, visit):
    "The page; nothing may go wrong in it or be asked of anybody else."
    visits = []

    def start(**size):
        one = visit(**size)
        visits.append(one)
        one.page.goto(address)
        one.page.wait_for_selector(FREE)
        return one.page

    yield start
    for one in visits:
        assert not one.errors and not one.outside(address)
        assert one.overflow() <= 0


def look(page, file, picture, figures=1):
    "What the page finds in a picture with a file that it was started with."
    page.select_option("#model", label=file.name)
    page.set_input_files("#pictures", picture)
    page.wait_for_selector(f"figure:nth-child({figures})")
    page.wait_for_selector(FREE)
    return page.evaluate("""() => {
        const plain = (v) => ArrayBuffer.isView(v) ? Array.from(v) : v;
        const { outputs, masks, heads, ...rest } = demo.state.last;
        const each = (o) => Object.fromEntries(
            Object.entries(o ?? {}).map(([k, v]) => [k, plain(v)]));
        return { ...rest, outputs: (outputs ?? []).map(plain), masks: each(masks),
                 heads: each(heads) };
    }""")


def python(file, picture):
    "What Python makes of it: (opened, outputs)."
    one = open_model(file)
    return one, one.predictor()(model_input(read_picture(picture), one.hw))


def test_a_picture_is_resized_as_in_python(opened, files, picture):
    page = opened()
    look(page, files["classes"], picture)
    for crop in (False, True):
        bytes_of = page.evaluate("""(crop) => Array.from(demo.vision.modelInput(
            demo.state.pictures[0], demo.state.model, crop))""", crop)
        wanted = model_input(read_picture(picture), (SIDE, SIDE), crop)
        assert np.abs(np.array(bytes_of) - wanted.ravel()).max() < 1e-6


def test_classification_is_as_in_python(opened, files, picture):
    page = opened(width=390)
    found = look(page, files["classes"], picture)
    one, wanted = python(files["classes"], picture)
    assert found["outputs"][0] == pytest.approx(wanted[0].tolist(), abs=1e-4)
    said = one.task.show(None, wanted[0], one.task.default_names(1001)).values["classes"]
    assert [r["name"] for r in found["rows"]] == [r["name"] for r in said]
    assert [r["score"] for r in found["rows"]] == pytest.approx(
        [r["probability"] for r in said], abs=1e-4)
    assert said[0]["name"] in page.locator("figure ol").inner_text()


def test_integers_with_bytes_around_them_are_as_in_python(opened, files, picture, tmp_path):
    page, path = opened(), tmp_path / "bytes.tflite"
    path.write_bytes(with_types(files["int8"], "uint8", "float32"))
    page.set_input_files("#file", path)
    page.wait_for_selector("#model option:nth-child(5)", state="attached")
    page.wait_for_selector(FREE)
    found = look(page, path, picture)
    assert found["outputs"][0] == pytest.approx(python(path, picture)[1][0].tolist(), abs=0.02)


def test_masks_are_as_in_python(opened, files, picture):
    page = opened(width=390)
    found = look(page, files["logits"], picture)
    _, logits = python(files["logits"], picture)
    assert found["outputs"][0] == pytest.approx(logits.ravel().tolist(), abs=1e-3)
    methods = finalize_methods((SIDE, SIDE))
    for title, way in (("default argmax", "default"), ("fused argmax (1/4)", "fused4")):
        wanted = np.asarray(finalize(logits, methods[way])).ravel()
        assert (wanted == found["masks"][title]).mean() > 0.998, title
    text = page.locator("figure").inner_text()
    assert "of the pixels agree" in text and page.locator("figure canvas").count() == 4
    most = np.bincount(np.array(found["masks"]["default argmax"])).argmax()
    assert found["names"][most] in text
    page.locator("#opacity").fill("20")
    opacity = "document.querySelector('.stack canvas + canvas').style.opacity"
    assert page.evaluate(opacity) == "0.2"
    again = look(page, files["mask"], picture, figures=2)
    wanted = np.asarray(python(files["mask"], picture)[1]).ravel()
    assert (wanted == again["masks"]["argmax of the file"]).mean() > 0.998
    page.select_option("#beside", label=files["logits"].name)
    page.wait_for_selector("figure:nth-child(3)")
    assert page.locator("figure").first.locator(".view").count() == 3


def same_boxes(found, wanted):
    "Boxes, classes and scores to 1e-4, in the same order."
    assert len(wanted) == len(found) > 5
    assert np.array([b["score"] for b in found]) == pytest.approx(wanted.scores, abs=1e-4)
    assert np.array([b["box"] for b in found]) == pytest.approx(wanted.boxes, abs=1e-4)
    assert [b["class"] for b in found] == wanted.classes.tolist()


def test_boxes_are_as_in_python(opened, files, picture):
    page = opened(width=390)
    found = look(page, files["heads"], picture)
    _, heads = python(files["heads"], picture)
    codes, classes = heads["box_encodings"], heads["class_logits"]
    near = dict(rel=1e-4, abs=1e-4 * float(np.abs(classes).max()))
    assert np.array(found["heads"]["codes"]) == pytest.approx(codes.ravel(), **near)
    assert np.array(found["heads"]["classes"]) == pytest.approx(classes.ravel(), **near)
    codes = np.array(found["heads"]["codes"], "float32").reshape(codes.shape)
    classes = np.array(found["heads"]["classes"], "float32").reshape(classes.shape)
    given = dict(box_encodings=codes, class_logits=classes)
    same_boxes(found["boxes"], detections_of(given, (SIDE, SIDE), "nms")[0])
    assert "%" in page.locator("figure ol").inner_text()
    page.select_option("#method", "nms_regular")
    page.wait_for_selector("figure:nth-child(2)")


@pytest.mark.parametrize("method", ["nms", "nms_regular"])
@pytest.mark.parametrize("side", [64, 320])
def test_suppression_is_as_in_python(opened, method, side):
    "Of heads with all kinds of scores; both families of anchors."
    page, rng = opened(), np.random.default_rng(side)
    for strides in STRIDES.values():
        count = len(anchor_boxes([(-(-side // s),) * 2 for s in strides]))
        codes = rng.normal(0, 2, (1, count, 4)).astype("float32")
        classes = rng.normal(-2, 3, (1, count, 6)).astype("float32")
        found = page.evaluate("""([codes, classes, side, method]) => demo.vision.detect(
            { codes: Float32Array.from(codes), classes: Float32Array.from(classes), columns: 6 },
            [side, side], method)""", [codes.ravel().tolist(), classes.ravel().tolist(), side,
                                       method])
        given = dict(box_encodings=codes, class_logits=classes)
        same_boxes(found, detections_of(given, (side, side), method)[0])


def test_a_sample_and_a_dropped_file(opened, files):
    page = opened()
    page.click("#sample")
    page.wait_for_selector("figure")
    page.evaluate("""async () => {
        const content = demo.models[0].content, moved = new DataTransfer();
        moved.items.add(new File([content], "dropped.tflite"));
        dispatchEvent(new DragEvent("drop", { dataTransfer: moved }));
    }""")
    page.wait_for_selector("#model option:nth-child(5)", state="attached")
    page.wait_for_selector(FREE)
    assert page.evaluate("demo.state.model.file") == "dropped.tflite"
    assert page.evaluate("demo.state.model.task") == "classification"
    assert page.evaluate("demo.state.model.range.source") == "metadata"
    assert page.evaluate("demo.models[0].range.low") == -1
    page.click("#sample")
    page.wait_for_selector("figure:nth-child(2)")
    texts = page.locator("figure ol").all_inner_texts()
    assert texts[0] == texts[1], "the same as the served file"


def refused(page, what, path):
    "The line for a file or a picture."
    page.set_input_files(what, path)
    page.wait_for_selector("#message:not([hidden])")
    page.wait_for_selector(FREE)
    line = page.locator("#message").inner_text()
    assert line and "\n" not in line
    return line


def huge_jpeg(path):
    "A JPEG file whose head says more pixels than are allowed."
    side = int(MOST_PIXELS**0.5) + 1
    Image.new("RGB", (8, 8)).save(path)
    content = path.read_bytes()
    at = content.index(b"\xff\xc0") + 5
    path.write_bytes(content[:at] + struct.pack(">HH", side, side) + content[at + 4:])
    return path


def huge(path):
    "A PNG file whose head says more pixels than are allowed."
    side = int(MOST_PIXELS**0.5) + 1
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
                     + struct.pack(">I", zlib.crc32(head)))
    return path


def test_what_the_page_refuses_is_a_line_with_what_to_do(opened, files, picture, tmp_path, inside):
    page = opened(width=390)
    line = refused(page, "#file", files["int8"])
    assert "takes int8" in line and "--quantize --input_type uint8" in line
    assert f"--model_name {CLASSIFIER}" in line
    assert "--finalize_method none" in refused(page, "#file", files["boxes"])
    assert "--finalize_method none" in refused(page, "#pictures", picture), "it is not run"
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(files["classes"].read_bytes()[:200])
    assert "damaged" in refused(page, "#file", damaged)
    damaged.write_bytes(b"no model at all")
    assert "lacks the mark TFL3" in refused(page, "#file", damaged)
    page.select_option("#model", label=files["classes"].name)
    page.wait_for_selector("#message", state="hidden")
    for path in (huge(tmp_path / "huge.png"), huge_jpeg(tmp_path / "huge.jpg")):
        assert "are allowed: make it smaller" in refused(page, "#pictures", path)
    (tmp_path / "text.png").write_text("no picture")
    assert "not a picture" in refused(page, "#pictures", tmp_path / "text.png")
    page.click("#camera")
    page.wait_for_selector("#message:not([hidden])")
    line = page.locator("#message").inner_text()
    assert "no picture from the camera" in line and ("open a picture" in line or "allow it" in line)
    ways = page.locator("#accelerator option").all_inner_texts()
    assert ("WebGPU" in ways) != page.locator("#gpu").inner_text().startswith("No WebGPU: ")


@contextmanager
def another(browser, address, *args):
    "The page in a Chromium with other options."
    name = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    launched = browser.browser_type.launch(executable_path=shutil.which(name),
                                           args=["--no-sandbox", *args])
    try:
        one = Visit(launched)
        one.page.goto(address)
        one.page.wait_for_selector(FREE)
        yield one.page
        assert not one.errors and not one.outside(address)
    finally: launched.close()


def test_a_camera_is_looked_at_until_it_is_stopped(address, browser):
    options = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
    with another(browser, address, *options) as page:
        page.click("#camera")
        page.wait_for_selector("figure figcaption:has-text('camera')")
        page.click("#camera")
        assert page.evaluate("demo.state.stream") is None


WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
          "--use-vulkan=swiftshader", "--use-angle=swiftshader") # on the CPU


def test_webgpu_gives_the_same_where_there_is_one(address, browser, files, picture):
    with another(browser, address, *WEBGPU) as page:
        line = page.locator("#gpu").inner_text()
        if line: pytest.skip(f"this Chromium has no WebGPU in software: {line}")
        wanted = look(page, files["classes"], picture)["outputs"][0]
        page.select_option("#accelerator", "webgpu")
        found = look(page, files["classes"], picture, figures=2)["outputs"][0]
        assert page.locator("#message").is_hidden()
        assert found == pytest.approx(wanted, abs=1e-3) and max(found) > 0


def test_the_policy_lets_nothing_out(address, visit):
    one = visit()
    one.page.goto(address)
    one.page.wait_for_selector(FREE)
    sent = """async (where) => {
        try { await fetch(where, { method: "POST", body: "a picture", mode: "no-cors" }); }
        catch { return "refused"; }
        return "sent";
    }"""
    assert one.page.evaluate(sent, "http://127.0.0.1:9/") == "refused"
    assert one.page.evaluate(sent, "https://example.org/") == "refused"
    assert one.page.evaluate("crossOriginIsolated") is True


def test_times_are_summarised_as_in_python(opened, files, tmp_path):
    page = opened(width=390)
    page.select_option("#model", label=files["classes"].name)
    page.fill("#seconds", "1")
    page.fill("#device", "A <b>test")
    page.click("#benchmark")
    page.wait_for_selector("#record:not([disabled])")
    with page.expect_download() as download: page.click("#record")
    download.value.save_as(tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    numbers = record["numbers"]
    rounds = numbers.pop("rounds_ms")
    assert numbers == pytest.approx(summarize(rounds), abs=1e-4) and numbers["processes"] >= 6
    assert record["name"] == CLASSIFIER and record["parameters"]["device"] == "A b test"
    assert read_device_record(tmp_path / "record.json")
    assert f"{numbers['latency_ms']:.2f} ms" in page.locator("#times").inner_text()
    rng = np.random.default_rng(0)
    for count in (6, 7, 12, 30):
        rounds = rng.gamma(3, 2, (count, 5)).round(4).tolist()
        found = page.evaluate("(rounds) => demo.summarize(rounds)", rounds)
        assert found == pytest.approx(summarize(rounds), abs=1e-4)
        medians = [float(np.median(r)) for r in rounds]
        assert found["latency_low_ms"] == pytest.approx(median_interval(medians)[0], abs=1e-4)


def drawn(page, name, address, folder):
    "The file that the explorer writes of a model at 64 pixels."
    page.goto(f"{address}explorer/index.html#model={name}")
    page.locator(".image_size input").fill(str(SIDE))
    with page.expect_download() as download: page.click("#tflite")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


HOW = ("padding", "strideW", "strideH", "dilationWFactor", "dilationHFactor", "depthMultiplier",
       "fusedActivationFunction", "filterWidth", "filterHeight", "keepDims", "alignCorners",
       "halfPixelCenters")


def operators_of(path):
    "How often a file has each operator: kind, shapes of maps and kernels, options."
    model = unpack(path.read_bytes())
    graph, found = model.subgraphs[0], Counter()
    shape = [() if t.shape is None else tuple(map(int, t.shape)) for t in graph.tensors]
    for o in graph.operators:
        code = model.operatorCodes[o.opcodeIndex]
        kind = BUILTIN[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind in ("RESHAPE", "ADD"): continue # of maps of one pixel the converter makes vectors
        how = tuple((name, int(getattr(o.builtinOptions, name))) for name in HOW
                    if hasattr(o.builtinOptions, name))
        maps = tuple(shape[i] for i in o.inputs if len(shape[i]) > 2)
        found[kind, maps, shape[o.outputs[0]], how] += 1
    return found


def test_the_explorer_writes_the_operators_of_an_export(address, visit, files, tmp_path):
    one = visit()
    for what, name in dict(classes=CLASSIFIER, logits=SEGMENTER).items():
        path = drawn(one.page, name, address, tmp_path)
        ours, theirs = operators_of(path), operators_of(files[what])
        assert ours == theirs and sum(ours.values()) > 50, name
    ours, theirs = (operators_of(f) for f in (drawn(one.page, DETECTOR, address, tmp_path),
                                              files["heads"]))
    sliced = {kind for kind, *_ in theirs - ours} # there group convolutions are slices
    assert sliced == {"SPLIT", "CONV_2D", "CONCATENATION"}
    assert {kind for kind, *_ in ours - theirs} == {"CONV_2D"} and (ours & theirs).total() > 100
    assert not one.errors and not one.outside(address)


def test_the_explorer_hands_its_model_over(address, visit, picture, tmp_path):
    one = visit(width=390)
    one.page.goto(f"{address}explorer/index.html#model=mobilenet_edgetpu_v2_tiny")
    one.page.locator("#tables [data-field=kernel]").nth(2).fill("5")
    fragment = one.page.url.partition("explorer/index.html#model=")[2]
    path = drawn(one.page, fragment, address, tmp_path)
    with one.page.context.expect_page() as opened: one.page.click("#time")
    page = opened.value
    page.wait_for_selector("#facts:not(:empty)") # its policy forbids the eval of wait_for_function
    page.wait_for_selector(FREE)
    name = "mobilenet_edgetpu_v2_tiny_edited"
    assert page.evaluate("demo.state.model.file") == path.name == f"{name}.tflite"
    found = look(page, path, picture)
    assert found["outputs"][0] == pytest.approx(python(path, picture)[1][0].tolist(), abs=1e-4)
    page.fill("#seconds", "1")
    page.click("#benchmark")
    page.wait_for_selector("#record:not([disabled])")
    with page.expect_download() as download: page.click("#record")
    download.value.save_as(tmp_path / "record.json")
    record = read_device_record(tmp_path / "record.json")
    assert record["name"] == name and record["parameters"]["image_hw"] == [SIDE, SIDE]
    assert record["parameters"]["sha256"] == sha256_file(path)
    assert not one.errors and not one.outside(address)


THUMB = 44 # pixels


def test_a_thumb_can_use_it(opened, files):
    page = opened(width=390, height=844)
    for what in ("classes", "logits", "heads"):
        page.select_option("#model", label=files[what].name)
        page.wait_for_selector(FREE)
        sizes = page.evaluate("""() => [...document.querySelectorAll(
            "select, button, .button, header a, input:not([hidden]):not([type=checkbox]), .check")]
            .filter((control) => control.checkVisibility())
            .map((control) => [control.outerHTML.slice(0, 60), control.getBoundingClientRect()])
            .map(([text, box]) => [text, box.width, box.height])""")
        assert len(sizes) > 12
        assert not [row for row in sizes if min(row[1:]) < THUMB]


def test_bad_words(inside, installed, tmp_path, files):
    one_line(inside("demo", tmp_path / "no.tflite"), "is not a file")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(files["classes"].read_bytes()[:3000])
    one_line(installed("demo", damaged, "--no_browser"), "damaged.tflite") # and no server
    other = tmp_path / "a.txt"
    other.write_text("x")
    one_line(inside("demo", other), "is no .tflite file")
    one_line(inside("demo", "--port", 70000), "port")
    with pytest.raises(UsageError, match="sent something else"):
        unpack_package(b"no tarball", UTILS, tmp_path)


def test_without_a_network_it_is_a_line(cli, tmp_path):
    env = dict(EDGETPU_REPRO_HOME=str(tmp_path), https_proxy="http://127.0.0.1:9",
               HTTPS_PROXY="http://127.0.0.1:9")
    answer = cli("demo", "--no_browser", env=env)
    assert answer.stderr.startswith("fetching https://registry.npmjs.org/"), answer
    error = answer.stderr.splitlines()[-1]
    assert error.startswith("error: LiteRT.js 2.5.3 is missing") and "cannot be reached" in error
    assert not list((tmp_path / "build").iterdir()), "nothing half-written"
