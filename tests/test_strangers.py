"Files of strangers: what they take, what they put out, and what they are."
import os

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.data.input_range import InputRange, parse_range, range_of_tensor
from edgetpu_repro.measure.predict import open_model, predict_pictures, predictor, write_predictions
from edgetpu_repro.tasks.outputs import Outputs, task_of
from edgetpu_repro.tflite.content import first_operators, read_normalization
from edgetpu_repro.tflite.convert import converted, traced
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tflite.metadata import with_metadata
from edgetpu_repro.tflite.quantize import activation_ranges, quantize_tflite

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
