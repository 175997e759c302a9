"Specs as values, bad specs and bad JSON, layouts against Keras, and the package's lazy names."

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.models.costs import count, operators
from edgetpu_repro.models.layout import Layout
from edgetpu_repro.models.specs import (
    MAX_JSON,
    SPECS,
    Autoseg,
    Block,
    Classifier,
    DeepLab,
    Reference,
    build_model,
    get_spec,
    has_layout,
    layout,
    list_models,
    resolve_spec,
    spec_from_json,
    spec_to_json,
)

XS = get_spec("mobilenet_edgetpu_v2_xs")
SMALL = replace(XS, name="small", blocks=XS.blocks[:4])


def refused(function, *args, **options):
    "The message of the `UsageError`: one short line."
    with pytest.raises(UsageError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    return message


@pytest.mark.parametrize(
    "fields",
    [
        dict(kind="depthwise"),
        dict(kind=3),
        dict(kind="dw", kernel=0),
        dict(kind="dw", kernel="3"),
        dict(kind="dw", kernel=3.0),
        dict(kind="dw", kernel=True),
        dict(kind="dw", kernel=10**500),
        dict(kind="dw", stride=3),
        dict(kind="dw", stride=-1),
        dict(kind="dw", expand=0),
        dict(kind="dw", out=-8),
        dict(kind="dw", id_skip=1),
        dict(kind="dw", id_skip=None),
        dict(kind="grouped"),
        dict(kind="fused_grouped", group_size=0),
        dict(kind="fused", expand=1, stride=2),
        dict(kind=["dw"]),
    ],
)
def test_impossible_blocks(fields):
    refused(Block, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        dict(name=""),
        dict(name="../up"),
        dict(name="a b"),
        dict(name="x" * 200),
        dict(name=5),
        dict(name="ü\n"),
        dict(stem=0),
        dict(stem=2.5),
        dict(blocks=()),
        dict(blocks=("dw",)),
        dict(blocks=XS.blocks * 50),
        dict(blocks=(Block("dw"),)),
        dict(blocks=(Block("grouped", out=8, group_size=48),)),
        dict(top=-1),
        dict(dropout=1.0),
        dict(dropout=float("nan")),
        dict(dropout=float("inf")),
        dict(dropout="0.1"),
        dict(drop_connect=-0.1),
        dict(num_classes=0),
        dict(num_classes=True),
        dict(image_size=100),
        dict(image_size=0),
        dict(image_size=10**9),
    ],
)
def test_impossible_classifiers(fields):
    refused(replace, XS, **fields)


def test_a_list_of_blocks_becomes_a_tuple():
    assert replace(XS, blocks=list(XS.blocks)) == XS


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepLab("d", 5),
        lambda: DeepLab("d", "x", rates=(5, 5)),
        lambda: DeepLab("d", "x", rates=("5",)),
        lambda: DeepLab("d", "x", rates=5),
        lambda: DeepLab("d", "x", rates=(0,)),
        lambda: DeepLab("d", "x", pool=0),
        lambda: DeepLab("d", "x", level=5),
        lambda: DeepLab("d", "x", image_size=33),
        lambda: Autoseg("a", "x", levels=2),
        lambda: Autoseg("a", "x", cells=0),
        lambda: Autoseg("a", None),
        lambda: Autoseg("a", "x", filters=0.5),
        lambda: Reference("r", "MobileNet9"),
        lambda: Reference("r", "__class__"),
        lambda: Reference("r", "MobileNetV2", (("weights", "imagenet"),)),
        lambda: Reference("r", "MobileNetV2", (("alpha", 1e9),)),
        lambda: Reference("r", "MobileNetV2", ("alpha",)),
        lambda: Reference("r", "MobileNetV2", 3),
    ],
)
def test_impossible_segmenters_and_references(make):
    refused(make)


@pytest.mark.parametrize(
    "spec, says",
    [
        (DeepLab("d", "nobody"), "unknown model"),
        (DeepLab("d", "autoseg_edgetpu_xs"), "a backbone is a classifier"),
        (DeepLab("d", "mobilenet_v1"), "has no layout"),
        (DeepLab("d", "mobilenet_v2", level=3), "there is no level 3"),
        (DeepLab("d", SMALL, level=4), "there is no level 4"),
        (Autoseg("a", SMALL), "5 are needed"),
        (Autoseg("a", "mobilenet_v2"), "5 are needed"),
    ],
)
def test_backbones_that_do_not_fit(spec, says):
    assert says in refused(layout, spec)


@pytest.mark.parametrize("name", list(SPECS))
def test_every_spec_survives_json(name):
    spec = SPECS[name]
    assert spec_from_json(spec_to_json(spec)) == spec
    assert spec_from_json(spec_to_json(spec).encode()) == spec
    assert "edgetpu_repro" not in spec_to_json(spec), "no module is named"


def changed(**fields):
    "The JSON of a good spec with other fields."
    return json.dumps({**json.loads(spec_to_json(SMALL)), **fields})


def with_block(**fields):
    "The JSON of a good spec whose first block has other fields."
    plain = json.loads(spec_to_json(SMALL))
    plain["blocks"][0] |= fields
    return json.dumps(plain)


BAD_JSON = {
    "empty": "",
    "text": "hello",
    "half": spec_to_json(SMALL)[:-40],
    "number": "3",
    "null": "null",
    "list": "[]",
    "string": '"mobilenet_edgetpu"',
    "no class": "{}",
    "unknown class": changed(**{"class": "os.system"}),
    "class is a list": changed(**{"class": ["Classifier"]}),
    "class is an object": changed(**{"class": {"a": 1}}),
    "a block": '{"class": "Block", "kind": "dw"}',
    "builtin": '{"class": "__import__"}',
    "unknown field": changed(builder="os:system"),
    "long field": changed(**{"x" * 10_000: 1}),
    "missing field": '{"class": "Classifier", "name": "a"}',
    "wrong type": changed(stem="32"),
    "blocks are no list": changed(blocks=7),
    "blocks are numbers": changed(blocks=[1, 2]),
    "deep blocks": changed(blocks=[[[]]]),
    "block is a model": changed(blocks=[json.loads(spec_to_json(SMALL))]),
    "impossible block": with_block(kind="grouped", group_size=7),
    "no kind": with_block(kind=None),
    "long kind": with_block(kind="x" * 10_000),
    "NaN": changed(dropout=float("nan")),
    "infinity": changed(dropout=float("inf")),
    "huge number": '{"class": "Classifier", "stem": ' + "9" * 5000 + "}",
    "large number": changed(stem=10**400),
    "path as name": changed(name="/etc/passwd"),
    "10 MB": " " * 10_000_000 + "{}",
    "10 MB of list": "[" + "1," * 5_000_000 + "1]",
    "deep list": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000,
    "deep backbone": '{"class":"DeepLab","name":"d","backbone":' * 5_000 + "1" + "}" * 5_000,
    "bytes": b"\xff\xfe\x00",
    "zero": b"\x00",
    "deep enough for json": '{"class": "Classifier", "blocks": ' + "[" * 900 + "]" * 900 + "}",
    "unknown backbone": '{"class": "DeepLab", "name": "d", "backbone": "nobody"}',
    "backbone is a file": '{"class": "DeepLab", "name": "d", "backbone": "a.json"}',
    "backbone is a segmenter": (
        '{"class": "DeepLab", "name": "d", "backbone": "autoseg_edgetpu_xs"}'
    ),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_one_line(case, tmp_path):
    refused(spec_from_json, BAD_JSON[case])
    path = tmp_path / "bad.json"
    content = BAD_JSON[case]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for function in (resolve_spec, count, operators, layout, build_model):
        assert str(path) in refused(function, path)


def test_the_longest_json_is_read_and_a_longer_one_is_not():
    text = spec_to_json(SMALL)
    longest = text + " " * (MAX_JSON - len(text))
    assert spec_from_json(longest) == SMALL
    refused(spec_from_json, longest + " ")


@pytest.mark.parametrize(
    "model",
    [
        None,
        3,
        b"x",
        [],
        {},
        object(),
        Block("dw", out=8),
        Classifier,
        "",
        "MOBILENET_EDGETPU_V9",
        "no.json",
        "a" * 5000 + ".json",
        "\0.json",
    ],
)
def test_what_is_no_model(model, tmp_path):
    refused(resolve_spec, model)
    refused(resolve_spec, tmp_path)


def test_name_spec_and_file_are_the_same_model(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(spec_to_json(SMALL))
    assert resolve_spec(path) == resolve_spec(str(path)) == SMALL
    assert count(path) == count(SMALL) == count(layout(SMALL)) and operators(
        str(path)
    ) == operators(SMALL)
    assert count("mobilenet_edgetpu_v2_xs") == count(XS)
    model = build_model(path, num_classes=5, image_size=64)
    assert (
        model.name == "small"
        and model.output_shape == (None, 5)
        and model.count_params() == count(path, 64, 5)["params"]
    )
    on_top = DeepLab("on_top", SMALL, level=1)
    assert build_model(on_top, 3, 64).count_params() == count(on_top, 64, 3)["params"]


@pytest.mark.parametrize(
    "options", [dict(droput=0.1), dict(dropout=0.1, activaton=None), dict(builder="os:system")]
)
def test_unknown_options(options):
    assert "unknown option" in refused(layout, "mobilenet_edgetpu", **options)
    for name in ("mobilenet_edgetpu", "mobilenet_v2"):
        assert "unknown option" in refused(build_model, name, **{"x": 1, **options})


@pytest.mark.parametrize(
    "image_size, num_classes",
    [
        (100, None),
        (0, None),
        ((64,), None),
        ("64", None),
        (True, None),
        (None, 0),
        (None, "5"),
        (None, 2.0),
        (None, True),
    ],
)
def test_impossible_sizes(image_size, num_classes):
    for name in ("mobilenet_edgetpu", "mobilenet_v2"):
        refused(build_model, name, num_classes, image_size)
    refused(count, "autoseg_edgetpu_xs", image_size, num_classes)


def test_a_file_cannot_ask_for_more_than_the_machine_has():
    block = Block("fused", kernel=31, expand=64, out=16384)
    giant = replace(XS, name="giant", stem=16384, blocks=(block,) * 10)
    assert "too large to build" in refused(build_model, giant)
    slices = replace(
        XS, name="slices", stem=16384, blocks=(Block("grouped", expand=1, out=16384, group_size=1),)
    )
    assert "too large to build" in refused(build_model, slices)


@pytest.mark.parametrize("name", [n for n in list_models() if has_layout(SPECS[n])])
def test_layouts_are_in_order_and_whole(name):
    g = layout(name)
    seen = set()
    for op in g:
        assert set(op.inputs) <= seen and all(side > 0 for side in op.shape)
        seen.add(op.name)
    assert {op.name for op in g.needed()} == set(g.ops) and sorted(g.creation_order()) == sorted(
        g.ops
    )
    assert all(o.output_bytes > 0 and o.input_bytes > 0 for o in operators(g))


def test_an_operator_without_a_layer():
    from edgetpu_repro.models.blocks import build

    g = Layout("odd")
    g.finish(g.append("fft", "odd", (g.input((8, 8, 3)),), (8, 8, 3)))
    assert "no Keras layer" in refused(build, g)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_importing_the_package_imports_no_keras():
    code = (
        "import sys, edgetpu_repro; from edgetpu_repro import build_model, list_models; "
        "list_models(); "
        "from edgetpu_repro.models.costs import count; count('autoseg_edgetpu_s'); "
        "assert not {'keras', 'tensorflow', 'matplotlib'} & set(sys.modules), 'heavy'"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    result = python("import edgetpu_repro; edgetpu_repro.nonsense")
    assert "has no attribute 'nonsense'" in result.stderr
    result = python("from edgetpu_repro import load_released; print(load_released.__name__)")
    assert result.stdout.split() == ["load_released"], result.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "A file of a model with layers of ours; its number of parameters."
    path = tmp_path_factory.mktemp("saved") / "m.keras"
    model = build_model("mobilenet_edgetpu_v2_tiny", 5, 64, group_conv="native")
    model.save(path)
    return path, model.count_params()


@pytest.mark.parametrize(
    "order",
    [
        "import edgetpu_repro, keras",
        "import keras, edgetpu_repro",
        "import edgetpu_repro, tensorflow, keras",
    ],
)
def test_plain_keras_loads_our_files(order, saved):
    path, params = saved
    result = python(
        f"{order}; m = keras.saving.load_model({str(path)!r}); "
        "print(m.count_params(), *{getattr(l, 'implementation', '') for l in m.layers} - {''})"
    )
    assert result.stdout.split() == [str(params), "native"], result.stdout + result.stderr[-2000:]
