"Released weights: import, fetching from a server that misbehaves, parity where the data are."

import hashlib
import io
import json
import os
import tarfile
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import BIN, ROOT, call
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.weights.fetch import RELEASES, fetch
from edgetpu_repro.weights.graphs import file_graph

DATA = Path(os.environ.get("EDGETPU_REPRO_DATA", ROOT.parent / "shared/data"))
PUBLISHED = DATA / "mlperf_mobile/mobilenet_edgetpu_224_1.0_uint8.tflite"
NAME = "mobilenet_edgetpu_v2_xs"


def archive():
    "Something that unpacks, a megabyte of it."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("ckpt.index")
        info.size = 1_000_000
        tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(info.size)))
    return out.getvalue()


@pytest.fixture
def server():
    "A server of one file whose `mood` decides how it answers: '', 'cut', 'long', 'other', 'gone'."

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            content, start = self.server.content, 0
            self.server.asked.append(self.headers.get("Range"))
            if self.server.mood == "gone":
                return self.send_error(404)
            if given := self.headers.get("Range"):
                start = int(given.removeprefix("bytes=").rstrip("-"))
            if self.server.mood == "other":
                content = b"<html>please log in</html>" * 100
            self.send_response(206 if start else 200)
            self.send_header(
                "Content-Length",
                str(len(content) - start + (999 if self.server.mood == "long" else 0)),
            )
            self.end_headers()
            self.wfile.write(
                content[start : start + 300_000] if self.server.mood == "cut" else content[start:]
            )

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    server.content, server.mood, server.asked = archive(), "", []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_fetch_goes_on_where_it_was_cut(server, tmp_path):
    server.mood = "cut"
    for _ in range(2):
        with pytest.raises(UsageError, match="was cut after"):
            fetch(NAME, tmp_path, base=server.url)
    assert not list(tmp_path.glob("*.gz"))
    server.mood = ""
    path = fetch(NAME, tmp_path, base=server.url)
    assert (
        server.asked == [None, "bytes=300000-", "bytes=600000-"]
        and path.read_bytes() == server.content
    )
    assert (
        json.loads((tmp_path / f"{path.name}.json").read_text())["sha256"]
        == hashlib.sha256(server.content).hexdigest()
    )
    assert fetch(NAME, tmp_path, base=server.url) == path and len(server.asked) == 3, (
        "what is there is not asked for again"
    )
    path.write_bytes(b"changed")
    with pytest.raises(UsageError, match="SHA-256 differs"):
        fetch(NAME, tmp_path, base=server.url)
    path.unlink()
    server.content = archive() + b"!"  # sound, but not what it was
    with pytest.raises(UsageError, match="sent something else"):
        fetch(NAME, tmp_path, base=server.url)
    assert not list(tmp_path.glob("*.gz"))


@pytest.mark.parametrize(
    "mood, answer",
    [("gone", "answers 404"), ("long", "was cut after"), ("other", "sent something else")],
)
def test_fetch_says_what_the_server_did(cli, server, tmp_path, mood, answer):
    server.mood = mood
    result = cli("fetch", NAME, "--output_dir", tmp_path, "--base_url", server.url)
    assert (
        result.returncode == 2
        and f"error: {server.url}" in result.stderr
        and answer in result.stderr
    ), result.stderr
    assert not list(tmp_path.glob("*.gz"))


def test_every_release_is_a_model_of_ours():
    from edgetpu_repro import list_models

    assert set(RELEASES) <= set(list_models()) and sum(map(len, RELEASES.values())) == 9 * 2 + 5 * 3


def test_import_of_bad_files(cli, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"no flatbuffer")
    out = ("--model_name", "mobilenet_edgetpu", "--output_dir", tmp_path / "out")
    one_line(cli("import", bad, *out), "bad.tflite is not a TFLite model")
    one_line(cli("import", tmp_path / "missing", *out), "missing is not there")
    (tmp_path / "bad.tar.gz").write_bytes(b"\x1f\x8b nothing")
    one_line(cli("import", tmp_path / "bad.tar.gz", *out), "bad.tar.gz is not an archive")
    one_line(cli("import", tmp_path, *out), "holds no checkpoint")
    one_line(
        cli(
            "import", bad, "--model_name", "mobilenet_edgetpu_v9", "--output_dir", tmp_path / "out"
        ),
        "did you mean",
    )
    assert not (tmp_path / "out").exists()


needs_data = pytest.mark.skipif(
    not PUBLISHED.exists(), reason="needs the data folder (EDGETPU_REPRO_DATA)"
)


@needs_data
def test_published_file_is_imported_and_evaluated(cli, tmp_path):
    done = cli("import", PUBLISHED, "--model_name", "mobilenet_edgetpu", "--output_dir", tmp_path)
    assert done.returncode == 0 and "292 variables" in done.stdout, done
    other = cli(
        "import",
        PUBLISHED,
        "--model_name",
        "mobilenet_edgetpu_dm1p25",
        "--output_dir",
        tmp_path / "b",
    )
    one_line(other, "does not fit", "it lacks")
    code = (
        "import sys, numpy as np; from edgetpu_repro.models.blocks import load_model; "
        "from edgetpu_repro.measure.predict import predictor; "
        "x = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype('float32'); "
        "a, b = predictor(load_model(sys.argv[1]))(x), predictor(sys.argv[2])(x); "
        "print(np.abs(a - b).mean())"
    )
    near = call(BIN / "python", "-c", code, tmp_path / "mobilenet_edgetpu.keras", PUBLISHED)
    assert float(near.stdout) < 1e-3, near


@needs_data
def test_damaged_published_files_are_refused_or_read_whole(tmp_path):
    "Never an exception of another kind, whatever bytes are turned."
    from edgetpu_repro import build_model
    from edgetpu_repro.weights.start import load_released

    content, rng, refused, model = (
        PUBLISHED.read_bytes(),
        np.random.default_rng(0),
        0,
        build_model("mobilenet_edgetpu"),
    )
    assert len(file_graph(PUBLISHED)) == 59
    for i in range(40):
        changed = bytearray(content)
        if i % 4 == 0:
            changed = changed[: int(rng.integers(8, len(changed)))]
        else:  # anywhere, or near the end where the graph is
            for at in rng.integers(0, len(changed) if i % 4 == 1 else 60_000, 20):
                changed[-int(at) - 1] = int(rng.integers(256))
        (tmp_path / "x.tflite").write_bytes(changed)
        try:
            load_released(model, tmp_path / "x.tflite")
        except UsageError:
            refused += 1
    assert refused > 5


def packed(path, *members, mode="w:gz"):
    "An archive of empty members (name, extended headers)."
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, headers in members:
            info = tarfile.TarInfo(name)
            info.pax_headers = headers
            tar.addfile(info, io.BytesIO())
    return path


@pytest.mark.parametrize(
    "members, answer",
    [
        ([("a", {"comment": "x" * 2**20})], "65,536 are allowed"),
        ([(f"a{i}", {}) for i in range(1001)], "more than 1,000 members"),
        (
            [("one/ckpt.index", {}), ("two/ckpt.index", {})],
            "c.tar.gz holds 2 checkpoints: one/ckpt, two/ckpt",
        ),
        ([("a", {})], "c.tar.gz holds no checkpoint"),
        ([("../a", {})], "c.tar.gz is not an archive that can be unpacked"),
    ],
)
def test_archives_have_limits_and_errors_name_the_archive(tmp_path, members, answer):
    from edgetpu_repro.weights.released import find_checkpoint

    path = packed(tmp_path / "c.tar.gz", *members)
    with pytest.raises(UsageError, match=answer), find_checkpoint(path):
        pass


def chained(path, count=60, kind="Add", operator="ADD"):
    "A `.tflite` file of `count` sums x + x, or the like, each of the one before."
    from ai_edge_litert import schema_py_generated as schema

    from edgetpu_repro.tflite.content import pack

    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    model.version, model.operatorCodes, model.buffers = 3, [code], [schema.BufferT()]
    graph.tensors, graph.operators = [], []
    for i in range(count + 1):
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"x{i}", np.array([1, 8, 8, 3], "int32")
        graph.tensors.append(tensor)
    for i in range(count):
        op = schema.OperatorT()
        op.inputs, op.outputs = np.array([i, i], "int32"), np.array([i + 1], "int32")
        op.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        op.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        graph.operators.append(op)
    graph.inputs, graph.outputs = np.array([0], "int32"), np.array([count], "int32")
    model.subgraphs = [graph]
    path.write_bytes(pack(model))
    return path


def test_hostile_files_are_refused_in_a_line_and_soon(cli, tmp_path):
    "What took 12.7 GB, 879 s and 145 s before there were limits."
    many = packed(tmp_path / "many.tar.gz", *((f"a{i}", {}) for i in range(200_000)))
    header = packed(tmp_path / "header.tar.gz", ("a", {"comment": "x" * 20_000_000}))
    sums = chained(tmp_path / "sums.tflite")
    assert sums.stat().st_size < 10_000
    out = ("--model_name", "mobilenet_edgetpu_v2_tiny", "--output_dir", tmp_path / "out")
    for path, answer in (
        (many, "more than 1,000 members"),
        (header, "65,536 are allowed"),
        (sums, "does not fit"),
    ):
        one_line(cli("import", path, *out), path.name, answer)
    assert not (tmp_path / "out").exists()


def test_doubled_sums_take_no_longer():
    "Chained x + x do not double the work, and x beside x is refused; in a child, for memory."
    from edgetpu_repro.weights.graphs import file_graph
    from edgetpu_repro.tflite.isolation import run_isolated

    with tempfile.TemporaryDirectory() as folder:
        path = chained(Path(folder) / "sums.tflite", 200)
        assert run_isolated(file_graph, path, seconds=60, memory=2**30) == {}
        pairs = chained(Path(folder) / "pairs.tflite", 60, "Concatenation", "CONCATENATION")
        with pytest.raises(UsageError, match="pairs.tflite puts 8,192 maps side by side"):
            run_isolated(file_graph, pairs, seconds=60, memory=2**30)


def test_what_litert_refuses_is_not_imported(tmp_path):
    from edgetpu_repro import build_model
    from edgetpu_repro.tflite.convert import freeze
    from edgetpu_repro.tflite.content import pack
    from edgetpu_repro.tflite.file import TFLiteFile
    from edgetpu_repro.tflite.quantize import to_tflite
    from edgetpu_repro.weights.start import load_released

    ours = build_model("mobilenet_edgetpu_v2_tiny", 10, 32)
    model = TFLiteFile.open(to_tflite(freeze(ours))).unpack()
    (tmp_path / "good.tflite").write_bytes(pack(model))
    assert load_released(ours, tmp_path / "good.tflite").variables > 100
    last = model.subgraphs[0].operators[-1]
    last.inputs = np.array(
        [*last.inputs, 0], "int32"
    )  # one input too many: the weights are all there
    (tmp_path / "bad.tflite").write_bytes(pack(model))
    before = ours.get_weights()
    with pytest.raises(UsageError, match="bad.tflite is not a TFLite model"):
        load_released(ours, tmp_path / "bad.tflite")
    assert all(np.array_equal(a, b) for a, b in zip(before, ours.get_weights()))


@pytest.mark.parametrize("base", ["foo", "http://[::1", "http://"])
def test_fetch_refuses_what_is_no_address(tmp_path, base):
    with pytest.raises(UsageError, match="is no address of a server"):
        fetch(NAME, tmp_path, base=base)


@pytest.mark.parametrize("content", [b"[]", b"\xff", b"{"])
def test_fetch_refuses_a_damaged_record_of_a_download(tmp_path, content):
    name = Path(RELEASES[NAME]["checkpoint"]).name
    (tmp_path / f"{name}.json").write_bytes(content)
    with pytest.raises(UsageError, match="delete it and fetch again"):
        fetch(NAME, tmp_path)


@needs_data
def test_operators_of_a_file_without_shapes_are_counted():
    from edgetpu_repro.tflite.file import TFLiteFile

    rows = TFLiteFile.open(PUBLISHED).operators
    assert all(r["output"] for r in rows) and round(sum(r["macs"] for r in rows) / 1e6) == 991
