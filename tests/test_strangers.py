"Files of strangers: what they take, what they put out, and what they are."
import os

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
from ai_edge_litert import schema_py_generated as schema

from edgetpu_repro import build_model
from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.data.input_range import InputRange, parse_range, range_of_tensor
from edgetpu_repro.measure.predict import (
    names_of,
    open_model,
    predict_pictures,
    predictor,
    write_predictions,
)
from edgetpu_repro.models.blocks import GroupConv2D
from edgetpu_repro.tasks.base import TASKS
from edgetpu_repro.tasks.heads import classes_told_apart, suppression_operator
from edgetpu_repro.tasks.outputs import Outputs, task_of
from edgetpu_repro.tflite.content import first_operators, pack, read_normalization, unpack
from edgetpu_repro.tflite.convert import converted, fold_norms, traced
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.weights.detectors import tf1_names
from edgetpu_repro.tflite.edgetpu import not_for_edgetpu
from edgetpu_repro.weights.importer import load_tflite_weights
from edgetpu_repro.tflite.metadata import with_metadata
from edgetpu_repro.tflite.graph import with_operator, with_signature
from edgetpu_repro.tflite.quantize import activation_ranges, quantize_tflite
from edgetpu_repro.weights.start import load_released

layers = keras.layers
RANGES = {"-1,1": (2, -1), "0,1": (1, 0), "0,255": (255, 0)} # white less black, black


def bright(low, high, *before, end="softmax", units=2):
    "A network that says class 1 of what is brighter than the middle of its range."
    image = keras.Input((8, 8, 3))
    x = image
    for layer in before: x = layer(x)
    x = layers.Conv2D(1, 3, padding="same", name="first")(x) # a converter would fold a scale else
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    model = keras.Model(image, layers.Dense(units, activation=end)(x))
    gain = 40 / (high - low)
    middle = np.zeros((3, 3, 3, 1), "float32")
    middle[1, 1] = gain / 3
    model.get_layer("first").set_weights([middle, np.array([-gain * (low + high) / 2], "float32")])
    kernel = np.array([[-1, 1] if units == 2 else [1] * units], "float32")
    model.layers[-1].set_weights([kernel, np.zeros(units, "float32")])
    return model


def as_file(model):
    "The float file of a Keras model, as a converter makes it."
    run = lambda image: model(image, training=False)
    return converted(traced(run, (1, *model.input_shape[1:]), model))


def uniform(low, high):
    rng = np.random.default_rng(0)
    images = rng.uniform(low, high, (16, 8, 8, 3)).astype("float32")
    images[0], images[1] = low, high
    return images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, grey in (("dark", 60), ("light", 190)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(folder / f"{name}.png")
    half = np.zeros((8, 8, 3), "uint8")
    half[4:] = 255
    Image.fromarray(half).save(folder / "half.png")
    return folder


def likeliest(path, pictures, **opened):
    "The classes of the dark and of the light picture."
    file = open_model(path, **opened)
    paths = [pictures / "dark.png", pictures / "light.png"]
    return [answer.values["classes"][0]["class"] for _, answer, _ in predict_pictures(file, paths)]


@pytest.mark.quick
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", RANGES)
def test_many_scales_and_zero_points(name, dtype):
    "A tensor that was calibrated on less or on a little more than its range takes that range."
    white, black = RANGES[name]
    limits = np.iinfo(dtype)
    for low in np.linspace(-0.15, 0.1, 6):
        for high in np.linspace(0.8, 1.15, 6):
            scale = (high - low) * white / 255
            zero = round(limits.min - (black + low * white) / scale)
            if not limits.min <= zero <= limits.max: continue
            found = range_of_tensor(dtype, scale, zero)
            assert str(found) == str(parse_range(name)), (scale, zero)
            assert found.source == "quantisation"


@pytest.mark.quick
def test_known_tensors():
    "Released files, and ours, take what they took."
    ours = (("int8", 1 / 127.5, -1), ("uint8", 0.011570743285119534, 123), ("uint8", 1 / 127, 128),
            ("uint8", 1 / 128, 128), ("uint8", 2 / 255, 127))
    for tensor in ours: assert range_of_tensor(*tensor).is_ours, tensor
    images = np.zeros((2, 3), "float32")
    assert range_of_tensor(*ours[0]).of(images) is images
    assert str(range_of_tensor("uint8", 0, 0)) == "[0, 255]"
    imagenet = range_of_tensor("int8", 0.01867, -14)
    assert len(imagenet.low) == 3 and abs(imagenet.low[0] + 2.118) < 0.01
    scaled = range_of_tensor("uint8", 0.1, 0) # 0 to 25.5 is near to nothing
    assert scaled.ends == (0, pytest.approx(25.5))


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "1", "1,0", "a,b", "0,1,2", "nan,1", "0,inf"])
def test_ranges_that_are_none(text):
    with pytest.raises(UsageError, match="is no range"): parse_range(text)


@pytest.mark.parametrize("low, high", [(-1, 1), (0, 1), (0, 255)])
def test_a_quantised_file_is_fed_its_own_range(tmp_path, pictures, low, high):
    content = as_file(bright(low, high))
    asked = TFLiteFile.open(content).with_range(InputRange()) # images as they are
    ranges = activation_ranges(asked, uniform(low, high))
    (tmp_path / "q.tflite").write_bytes(quantize_tflite(content, ranges))
    assert likeliest(tmp_path / "q.tflite", pictures) == [0, 1]


def test_unquantised_bytes_are_bytes(tmp_path, pictures):
    image = keras.Input((8, 8, 3), dtype="uint8")
    inner = bright(0, 255)
    model = keras.Model(image, inner(keras.ops.cast(image, "float32")))
    import tensorflow as tf
    spec = tf.TensorSpec((1, 8, 8, 3), tf.uint8)
    function = tf.function(lambda x: model(x), autograph=False).get_concrete_function(spec)
    function.owner = model
    (tmp_path / "u.tflite").write_bytes(converted(function))
    image, = TFLiteFile.open(tmp_path / "u.tflite").inputs
    assert (image.dtype, image.scale) == ("uint8", 0)
    assert likeliest(tmp_path / "u.tflite", pictures) == [0, 1]


def test_metadata_graph_and_what_is_given(tmp_path, pictures, capsys):
    "A float file is fed what its metadata or its first operators say; else what is given."
    plain = as_file(bright(0, 255))
    path = tmp_path / "m.tflite"
    path.write_bytes(with_metadata(plain, "m", taken=parse_range("0,255")))
    assert read_normalization(path.read_bytes()) == ((0,), (1,))
    assert likeliest(path, pictures) == [0, 1]
    path.write_bytes(plain)
    assert open_model(path).input_range.source == "weights" # which are small
    path.write_bytes(as_file(bright(0, 1)))
    assert open_model(path).input_range.source == "assumed"
    assert likeliest(path, pictures, input_range=parse_range("0,1")) == [0, 1]
    assert likeliest(path, pictures) == [0, 0] # of which the answer has to say why
    values, line = next(iter(write_predictions(open_model(path), [pictures / "light.png"])))
    assert values["input_range"] == dict(low=-1, high=1, source="assumed") and "ASSUMED" in line
    path.write_bytes(as_file(bright(-1, 1, layers.Rescaling(1 / 127.5, -1))))
    assert first_operators(path.read_bytes()) is not None
    assert open_model(path).input_range.source == "graph"
    assert likeliest(path, pictures) == [0, 1]
    path.write_bytes(as_file(bright(0, 1, layers.Rescaling(1 / 255)))) # folded into the weights
    assert likeliest(path, pictures, input_range=parse_range("0,255")) == [0, 1]


def test_small_weights_are_for_bytes(tmp_path, pictures):
    "A converter folds a scale into the first layer; nothing else in the file tells of it."
    image = keras.Input((8, 8, 3))
    for scale, source in ((1 / 255, "weights"), (1, "assumed")):
        keras.utils.set_random_seed(0)
        x = layers.Conv2D(16, 3)(layers.Rescaling(scale)(image))
        model = keras.Model(image, layers.Dense(2, activation="softmax")(layers.Flatten()(x)))
        assert TFLiteFile.open(as_file(model)).input_range.source == source


def test_keras_models_with_a_rescaling(tmp_path, pictures):
    "Also one inside of another."
    inner = bright(-1, 1, layers.Rescaling(1 / 127.5, -1))
    inner.save(tmp_path / "a.keras")
    image = keras.Input((8, 8, 3))
    keras.Model(image, inner(layers.RandomFlip()(image))).save(tmp_path / "b.keras")
    keras.Sequential([keras.Input((8, 8, 3)), inner]).save(tmp_path / "c.keras")
    for name in "abc":
        assert str(open_model(tmp_path / f"{name}.keras").input_range) == "[0, 255]"
        assert likeliest(tmp_path / f"{name}.keras", pictures) == [0, 1]
    images = np.full((1, 8, 8, 3), 0.5, "float32")
    assert np.argmax(predictor(inner)(images)) == 1


@pytest.mark.quick
@pytest.mark.parametrize("shape, ending, hw, kind", [
    ((1, 1), "LOGISTIC", (8, 8), "BinaryClassification"),
    ((1, 10), "SOFTMAX", (8, 8), "Classification"),
    ((1, 1001), "FULLY_CONNECTED", (8, 8), "Classification"),
    ((1, 1, 1, 12), "SOFTMAX", (8, 8), "FlatClassification"),
    ((1, 64, 64, 1), "LOGISTIC", (128, 128), "BinaryMask"),
    ((1, 64, 64), "LOGISTIC", (64, 64), "BinaryMask"),
    ((1, 64, 64), "ARG_MAX", (64, 64), "Segmentation"),
    ((1, 64, 64, 3), "CONV_2D", (32, 32), "Picture"),
    ((1, 64, 64, 3), "TANH", (64, 64), "Picture"),
    ((1, 64, 64, 3), "SOFTMAX", (64, 64), "Segmentation"),
    ((1, 65, 65, 21), "RESIZE_BILINEAR", (513, 513), "Segmentation"),
])
def test_outputs_that_can_be_told(shape, ending, hw, kind):
    found = Outputs((shape,), ("float32",), (ending,), hw=hw)
    assert type(task_of(found)).__name__ == kind


@pytest.mark.quick
@pytest.mark.parametrize("shape, ending, hw", [
    ((1, 1), "FULLY_CONNECTED", (8, 8)),           # a regression
    ((1, 128), "L2_NORMALIZATION", (8, 8)),        # an embedding
    ((1, 1280), "MEAN", (8, 8)),
    ((1, 48, 48, 17), "CONV_2D", (192, 192)),      # heat maps
    ((1, 48, 48, 5), "LOGISTIC", (192, 192)),
    ((1, 1, 17, 3), "CONCATENATION", (192, 192)),  # joints
    ((1, 84, 8400), "CONCATENATION", (640, 640)),  # a detector of another family
    ((1, 256, 256, 1), "CONV_2D", (256, 256)),     # a depth
    ((1, 128, 128, 3), "CONV_2D", (128, 128)),     # a picture, or three classes
])
def test_outputs_that_cannot_be_told_are_refused(shape, ending, hw):
    found = Outputs((shape,), ("float32",), (ending,), hw=hw)
    with pytest.raises(UsageError, match="--task"): task_of(found)
    assert task_of(found, "numbers").name == "numbers"


def test_labels_say_that_scores_are_of_classes(tmp_path, pictures):
    (tmp_path / "s.tflite").write_bytes(as_file(bright(-1, 1, end=None)))
    with pytest.raises(UsageError, match="--labels"): open_model(tmp_path / "s.tflite")
    (tmp_path / "names.txt").write_text("dark\nlight\n")
    file = open_model(tmp_path / "s.tflite", labels=tmp_path / "names.txt")
    assert file.task.name == "classification"
    assert open_model(tmp_path / "s.tflite", evaluated=True).task.name == "classification"


def test_one_sigmoid(tmp_path, pictures):
    "A probability, and a mask of which half is object."
    path = tmp_path / "s.tflite"
    path.write_bytes(as_file(bright(0, 1, layers.Rescaling(1 / 255), end="sigmoid", units=1)))
    file = open_model(path)
    values = [answer.values["probability"] for _, answer, _ in
              predict_pictures(file, [pictures / "dark.png", pictures / "light.png"])]
    assert values[0] < 0.1 and values[1] > 0.9 and file.classes == 2
    image = keras.Input((8, 8, 3))
    mask = keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(image))
    mask.layers[-1].set_weights([np.full((1, 1, 3, 1), 5.0), np.zeros(1)])
    path.write_bytes(as_file(mask))
    mask.save(tmp_path / "mask.keras")
    for model in (path, tmp_path / "mask.keras"):
        (_, answer, _), = predict_pictures(open_model(model), [pictures / "half.png"])
        shares = {row["name"]: row["share"] for row in answer.values["classes"]}
        assert shares == {"background": 0.5, "object": 0.5}


def test_a_picture_that_comes_out_is_written(tmp_path, pictures):
    image = keras.Input((8, 8, 3))
    (tmp_path / "up.tflite").write_bytes(as_file(keras.Model(image, layers.UpSampling2D()(image))))
    file = open_model(tmp_path / "up.tflite")
    (values, _), = write_predictions(file, [pictures / "half.png"], tmp_path)
    written = np.asarray(Image.open(values["picture"]))
    assert written.shape == (16, 16, 3) and written[0].max() == 0 and written[15].min() == 255


def detector(order=(0, 1, 2, 3), classes=2):
    "A small detector with the operator, its outputs in an order and named as TensorFlow 2 does."
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=8, padding="same", activation="relu")(image)
    codes = layers.Reshape((16, 4), name="codes")(layers.Conv2D(4, 1)(x))
    scores = layers.Conv2D(classes + 1, 1, activation="sigmoid")(x)
    model = keras.Model(image, [codes, layers.Reshape((16, classes + 1))(scores)])
    task = TASKS["detection"]
    content = with_signature(as_file(model), lambda shapes: task.signature(shapes, "nms"))
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.5, (16, 2))
    anchors = np.concatenate([corners, corners + 0.4], 1).astype("float32")
    operator = suppression_operator(((1, 16, 4), (1, 16, classes + 1)), anchors, 10)
    file = unpack(with_operator(content, operator))
    graph = file.subgraphs[0]
    for i, tensor in enumerate(graph.outputs): graph.tensors[tensor].name = f"StatefulCall:{3 - i}"
    graph.outputs = np.array([graph.outputs[i] for i in order], "int32")
    file.signatureDefs = []
    return pack(file)


def test_detectors_outputs_are_found_by_the_operator(tmp_path, pictures):
    "TF2's order (count, scores, classes, boxes) gives what TF1's does; names are not invented."
    keras.utils.set_random_seed(0)
    found = []
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        keras.utils.set_random_seed(0)
        (tmp_path / "d.tflite").write_bytes(detector(order))
        file = open_model(tmp_path / "d.tflite")
        assert file.task.name == "detection" and file.classes == 2
        (_, answer, _), = predict_pictures(file, [pictures / "half.png"])
        found.append(answer.values)
    assert found[0] == found[1] == found[2] and found[0]["boxes"]
    assert {row["name"] for row in found[0]["boxes"]} <= {"class 0", "class 1"}
    for names, fits in ((["cat", "dog"], True), (["???", "cat", "dog"], True), (["cat"], False)):
        (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
        if fits: assert names_of(file, tmp_path / "labels.txt") == ("cat", "dog")
        else:
            with pytest.raises(UsageError, match="has 1 lines, the model 2"):
                names_of(file, tmp_path / "labels.txt")
    assert classes_told_apart(TFLiteFile.open(detector(classes=5)).graph) == 5


def compiled(content, name):
    "The file with one operator that only a driver knows."
    model = unpack(content)
    graph, code = model.subgraphs[0], schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name
    model.operatorCodes = [code]
    op = graph.operators[-1]
    op.opcodeIndex, op.inputs, op.builtinOptions = 0, np.array(graph.inputs, "int32"), None
    op.builtinOptionsType = 0
    graph.operators = [op]
    return pack(model)


@pytest.mark.parametrize("command", [
    ["predict", "FILE", "half.png"], ["evaluate", "FILE"], ["benchmark", "FILE"],
    ["latency", "FILE"], ["view", "FILE", "--no-browser"],
    ["import", "FILE", "--model_name", "mobilenet_edgetpu", "--output_dir", "out"]])
def test_other_formats_are_named(cli, tmp_path, pictures, command):
    "Compiled files, HDF5, ONNX, frozen graphs, SavedModels: what each is, and what to give."
    given = {"c.tflite": compiled(as_file(bright(0, 1)), "edgetpu-custom-op"),
             "d.tflite": compiled(as_file(bright(0, 1)), "DISPATCH_OP"),
             "a.h5": b"\x89HDF\r\n\x1a\n", "a.onnx": b"\x08\x07", "a.pb": b"\x0a"}
    says = dict(zip(given, ("Coral", "ahead of time", "HDF5", "ONNX", "frozen")))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    for name, content in given.items(): (tmp_path / name).write_bytes(content)
    for name, word in (says | {"saved": "SavedModel"}).items():
        words = {"FILE": tmp_path / name, "half.png": pictures / "half.png", "out": tmp_path / "o"}
        done = cli(*(words.get(word, word) for word in command))
        assert done.returncode == 2 and word in done.stderr, (name, done)
        assert done.stderr.count("\n") == 1 and not (tmp_path / "o").exists()


def test_channels_first(tmp_path):
    image = keras.Input((3, 8, 8))
    x = layers.Permute((2, 3, 1))(image)
    (tmp_path / "n.tflite").write_bytes(as_file(keras.Model(image, layers.Conv2D(2, 3)(x))))
    with pytest.raises(UsageError, match="channels first"): open_model(tmp_path / "n.tflite")


@pytest.fixture(scope="module")
def trained():
    "A model of ours with slices, its norms as after a training."
    keras.utils.set_random_seed(0)
    model, rng = build_model(SMALL, 5, 32), np.random.default_rng(0)
    for layer in model.layers:
        if not isinstance(layer, layers.BatchNormalization): continue
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize("kind", ["float", "float16", "dynamic"])
def test_import_of_a_plain_converter_file(tmp_path, trained, kind):
    "from_keras_model: any number of images, shapes computed, norms behind slices."
    import tensorflow as tf
    converter = tf.lite.TFLiteConverter.from_keras_model(trained)
    if kind != "float": converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16": converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "m.tflite"
    path.write_bytes(converter.convert())
    model = build_model(SMALL, 5, 32)
    assert load_tflite_weights(model, path).left_model == ()
    file = TFLiteFile.open(path)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
    wanted = np.asarray(trained(images))
    error = np.abs(np.asarray(model(images)) - wanted).max()
    assert error < dict(float=1e-5, float16=2e-2, dynamic=2e-1)[kind]
    if kind != "float": return
    grouped = [layer.name for layer in model.layers if isinstance(layer, GroupConv2D)]
    for name in grouped: # not folded, so kept to the last bit
        same = model.get_layer(name).kernel.numpy() == trained.get_layer(name).kernel.numpy()
        assert same.all(), name
    assert file.any_batch


@pytest.mark.parametrize("model_name", ["mobilenet_edgetpu", "mobilenet_edgetpu_dm0p75"])
def test_import_of_a_slim_checkpoint(tmp_path, model_name):
    "Every variable by the name that research/slim gives it; moving averages win."
    import tensorflow as tf
    model, rng = build_model(model_name, 7, 32), np.random.default_rng(0)
    values, stored = {}, {"global_step": np.int64(1)}
    for (layer, variable), (name,) in tf1_names(model).items():
        shape = next(v.shape for v in model.get_layer(layer).weights if v.name == variable)
        values[layer, variable] = rng.uniform(0.1, 1, shape).astype("float32")
        stored[f"{name}/ExponentialMovingAverage"] = values[layer, variable]
        for other in (name, f"{name}/RMSProp", f"{name}/RMSProp_1"):
            stored[other] = np.zeros(shape, "float32")
    prefix = str(tmp_path / "model.ckpt-1")
    tensors = list(map(tf.constant, stored.values()))
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(stored),
                      shape_and_slices=[""] * len(stored), tensors=tensors)
    assert "MobilenetEdgeTPU/expanded_conv_10/depthwise/depthwise_weights" in str(tf1_names(model))
    load_released(model, tmp_path / "model.ckpt-1")
    for (layer, variable), value in values.items():
        got = next(v for v in model.get_layer(layer).weights if v.name == variable)
        assert (got.numpy() == value).all(), (layer, variable)
    with pytest.raises(UsageError, match="mobilenet_edgetpu and its variants"):
        load_released(build_model("mobilenet_edgetpu_v2_tiny", 7, 32), tmp_path / "model.ckpt-1")


def int8(model, low=-1, high=1):
    content = as_file(model)
    file = TFLiteFile.open(content).with_range(InputRange())
    rng = np.random.default_rng(0)
    images = rng.uniform(low, high, (4, *model.input_shape[1:])).astype("float32")
    return quantize_tflite(content, activation_ranges(file, images))


def test_what_the_edge_tpu_takes():
    "Coral's operators, their versions and limits; nearest-neighbour enlargement is no tile."
    image = keras.Input((32, 32, 3))
    body = layers.Conv2D(8, 3, padding="same")(image)
    taken = (layers.ReLU(), layers.ReLU(6), layers.MaxPooling2D(), layers.GlobalAveragePooling2D())
    for layer in taken:
        assert not_for_edgetpu(int8(keras.Model(image, layer(body)))) == [], layer.name
    refused = {"SOFTMAX": layers.Softmax(), "ELU": layers.Activation("elu"),
               "TILE": layers.UpSampling2D()}
    for word, layer in refused.items():
        said = not_for_edgetpu(int8(keras.Model(image, layer(body))))
        assert any(words.startswith(word) for words in said), said
    up = keras.Model(image, layers.Conv2D(2, 1)(layers.UpSampling2D((2, 4))(body)))
    folded = fold_norms(up)
    assert not_for_edgetpu(int8(folded)) == []
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    assert (np.asarray(folded(images)) == np.asarray(up(images))).all()


def test_export_of_ones_own_keras_model(cli, tmp_path):
    "Slices for accelerators, native for CPUs, from one file; a refusal is an exit status."
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.ReLU()(layers.BatchNormalization()(GroupConv2D(16, 3, groups=1, strides=2)(x)))
    x = keras.Sequential([layers.Conv2D(32, 3, groups=4, activation="relu"),
                          GroupConv2D(32, 3, groups=8)])(x)
    x = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    keras.Model(image, x).save(tmp_path / "own.keras")
    for name, i in (("a", 0), ("a", 1), ("b", 2), ("b", 3)):
        (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (60 * i, 20, 90)).save(tmp_path / "p" / name / f"{i}.png")
    asked = ("export", "--model_name", tmp_path / "own.keras", "--output_dir", tmp_path)
    quantised = ("--quantize", "--images", tmp_path / "p", "--num_calibration_steps", 2,
                 "--allow_degraded")
    done = cli(*asked, *quantised, "--target", "edgetpu", "--target", "cpu", "--report")
    assert done.returncode == 0, done.stderr
    assert "own_int8_layers.csv" in done.stdout and (tmp_path / "own_int8_layers.png").exists()
    assert "position,operator" in (tmp_path / "own_int8_layers.csv").read_text()
    slices, native = (TFLiteFile.open(tmp_path / f"own{t}_int8.tflite") for t in ("", "_cpu"))
    assert slices.operator_counts["SPLIT"] == 2 and "SPLIT" not in native.operator_counts
    assert slices.operator_counts["CONV_2D"] == 1 + 4 + 8
    assert str(slices.input_range) == str(native.input_range) == "[0, 255]"
    assert read_normalization(slices.content) == ((0,), (1,))
    many = cli(*asked, *quantised, "--batch_size", -1)
    assert many.returncode == 2 and "--allow_refused" in many.stderr
    assert cli(*asked, *quantised, "--batch_size", -1, "--allow_refused").returncode == 0
    wrong = cli(*asked, "--ckpt_path", tmp_path / "own.keras")
    assert wrong.returncode == 2 and "brings its weights" in wrong.stderr
