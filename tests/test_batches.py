"Files of several images a call, or of any number: what they give is what one image gives."

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL, SMALL_DETECTOR, SMALL_SEGMENTER
from PIL import Image

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.measure.predict import open_model, predictor
from edgetpu_repro.measure.workload import operators_in_file
from edgetpu_repro.models.specs import build_model
from edgetpu_repro.tflite.batches import with_any_batch
from edgetpu_repro.tflite.export import export_model
from edgetpu_repro.tflite.content import pack, unpack
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.options import ANY, ExportOptions

MASK = "resize32,argmax,resize64,squeeze"
CASES = [
    (SMALL, "none", "float"),
    (SMALL, "none", "int8"),
    (SMALL_SEGMENTER, MASK, "int8"),
    (SMALL_DETECTOR, "none", "float"),
]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (5, 64, 64, 3)).astype("float32")


def arrays(outputs):
    return [*outputs.values()] if isinstance(outputs, dict) else [outputs]


@pytest.mark.parametrize("name, method, kind", CASES, ids=lambda v: getattr(v, "stem", v))
def test_each_image_gives_what_it_gives_alone(name, method, kind, images, tmp_path):
    model, found = build_model(name, image_size=64), {}
    for size, named in ((1, ""), (4, "_batch4"), (ANY, "_batchN")):
        options = ExportOptions((method,), batch_size=size, trained=False)
        calibration = None if kind == "float" else images
        ((path, card),) = export_model(model, tmp_path, calibration, options)
        found[size] = TFLiteFile.open(path)
        assert path.name.endswith(f"{named}_{kind}.tflite")
        assert card.get("batch_size", 1) == size
        refused = card.get("refused_by_edgetpu") or []
        said = any("any number" in r for r in refused)
        assert said == (size == ANY and kind == "int8")
    alone = arrays(predictor(found[1])(images))
    four = arrays(predictor(found[4])(images))
    assert found[4].inputs[0].shape[0] == 4 and not found[4].any_batch
    assert found[ANY].inputs[0].shape[0] == 1 and found[ANY].any_batch
    together = found[ANY].predictor(images=5)(images)
    together = together if isinstance(together, list) else [together]
    assert [len(y) for y in together] == [5] * len(together)
    single = arrays(predictor(found[ANY])(images))
    for one, *others in zip(alone, four, together, single):
        for other in others:
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    "Int8 files of a classifier, by batch size."
    folder = tmp_path_factory.mktemp("batches")
    model = build_model(SMALL, num_classes=10, image_size=64)
    out = {}
    for size in (1, 3, ANY):
        options = ExportOptions(batch_size=size, trained=False)
        ((out[size], _),) = export_model(model, folder, images, options)
    return out


def test_commands_take_them(files, inside, cli, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(np.full((70, 80, 3), 90, "uint8")).save(picture)
    said = {}
    for size, path in files.items():
        answer = cli("predict", path, picture, "--json")
        assert answer.returncode == 0, answer
        (said[size],) = json.loads(answer.stdout)
    assert said[1] == said[3] == said[ANY]
    quick = ("--min_runs", 6, "--seconds", 0.01, "--max_seconds", 0.02, "--precision", 1)
    answer = cli("benchmark", *files.values(), *quick)
    assert answer.returncode == 0 and answer.stdout.count("3 images a call") == 1, answer
    assert "images a call" not in answer.stdout.replace("3 images a call", "")
    answer = cli("latency", files[3])
    assert answer.returncode == 2 and "takes 3 images a call" in answer.stderr, answer
    one, any_number = (operators_in_file(files[size]) for size in (1, ANY))
    assert [o.kind for o in one] == [o.kind for o in any_number]


def test_what_is_opened(files):
    file = open_model(files[ANY])
    assert file.inputs == (1, 64, 64, 3) and file.task.name == "classification"
    with pytest.raises(UsageError, match="takes 3 images a call, not 2"):
        TFLiteFile.open(files[3]).interpreter(images=2)
    assert TFLiteFile.open(files[3]).interpreter(images=3)
    with pytest.raises(UsageError, match="takes 3 images a call, 2 are needed"):
        with_any_batch(files[3])


@pytest.mark.parametrize("size", [0, -2])
def test_sizes_that_are_none(size):
    with pytest.raises(UsageError, match="1 or more, or -1"):
        ExportOptions(batch_size=size)


def test_a_computed_shape_is_refused(images, tmp_path):
    "Not only what our models have: a damaged or foreign graph is answered in a line."
    model = build_model(SMALL, num_classes=10, image_size=64)
    ((path, _),) = export_model(model, tmp_path, None, ExportOptions(batch_size=2, trained=False))
    content = unpack(path.read_bytes())
    graph = content.subgraphs[0]
    reshape = next(op for op in graph.operators if len(op.inputs) == 2)
    graph.tensors[reshape.outputs[0]].shape = np.array([1, 2], "int32")
    with pytest.raises(UsageError, match="without images first"):
        with_any_batch(pack(content))


def test_a_detector_with_suppression_takes_one(images, tmp_path):
    model = build_model(SMALL_DETECTOR, num_classes=3, image_size=64)
    for size in (2, ANY):
        options = replace(ExportOptions(), finalize_methods=("nms",), batch_size=size)
        with pytest.raises(UsageError, match="one picture a call"):
            export_model(model, tmp_path, None, options)
    assert not [*tmp_path.iterdir()]
