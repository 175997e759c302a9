"What happens to weights before they are quantised: the float network stays, the int8 one gains."

import keras
import numpy as np
import pytest
from keras import layers
from test_cli import one_line

from edgetpu_repro.core.errors import UsageError
from edgetpu_repro.models.blocks import GroupConv2D
from edgetpu_repro.tflite import equalize as module
from edgetpu_repro.tflite.convert import fold_norms
from edgetpu_repro.tflite.export import Exporter
from edgetpu_repro.tflite.options import ExportOptions


def network(implementation="slices"):
    "Blocks of all kinds of convolutions, their channels unequal."
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, 2, "same", name="stem")(image)
    y = layers.Conv2D(32, 1, activation="relu", name="expand")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(y)
    x = layers.Add()([x, layers.Conv2D(16, 1, name="project")(y)])
    y = GroupConv2D(32, 3, implementation, groups=4, padding="same", activation="relu",
                    name="grouped")(x)
    y = GroupConv2D(32, 1, implementation, groups=2, activation="relu", name="mixed")(y)
    y = layers.Conv2D(32, 1, activation="relu6", name="bounded")(y)
    x = layers.Conv2D(24, 1, activation="relu", name="top")(y)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Reshape((10,))(layers.Conv2D(10, 1, name="classifier")(x))
    model = keras.Model(image, layers.Softmax()(x), name="mine")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if not isinstance(layer, module.CONVS): continue
        kernel, bias = layer.get_weights()
        spread = np.exp(rng.normal(0, 1, bias.shape)).astype("float32")
        depthwise = isinstance(layer, layers.DepthwiseConv2D)
        layer.set_weights([kernel * (spread[:, None] if depthwise else spread),
                           0.1 * rng.normal(size=bias.shape)])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (40, 16, 16, 3)).astype("float32")


@pytest.mark.parametrize("implementation", ["slices", "native"])
def test_the_float_network_is_the_same_to_the_bit(implementation, images):
    model = fold_norms(network(implementation))
    pairs = [(a.name, b.name) for a, b in module.convolution_pairs(model)]
    assert pairs == [("expand", "depthwise"), ("depthwise", "project"), ("grouped", "mixed"),
                     ("mixed", "bounded"), ("top", "classifier")], "not what ReLU6 or Add see"
    seen, own = module.observe(model, images), module.weights_of(model)
    weights, then = module.equalize(model, own, seen)
    wanted = np.asarray(model(images))
    with module.holding(model, weights):
        assert np.array_equal(model(images), wanted)
        again = module.observe(model, images)
    assert np.array_equal(model(images), wanted), "its own weights are back"
    for name in own:
        np.testing.assert_allclose(again.reach[name], then.reach[name], rtol=1e-6)
        np.testing.assert_allclose(again.taken[name], then.taken[name], rtol=1e-5, atol=1e-7)
    spread = {n: then.reach[n].max() / np.median(then.reach[n]) for n, _ in pairs}
    before = {n: seen.reach[n].max() / np.median(seen.reach[n]) for n in spread}
    assert spread["expand"] <= 2 < before["expand"], "a depthwise kernel takes any factor"
    assert all(spread[n] < before[n] for n in ("depthwise", "grouped", "mixed")), (before, spread)


def test_corrected_biases_take_the_mean_error_off(images):
    model = fold_norms(network())
    seen, own = module.observe(model, images), module.weights_of(model)
    corrected = module.correct_biases(model, own, seen)
    for name in ("depthwise", "grouped", "project"):
        layer = model.get_layer(name)
        part = keras.Model(model.input, layer.input)
        taken = np.asarray(part(images), "float64").mean(0)
        kernel, bias = own[name]
        error = module.mean_output(layer, module.rounded(layer, kernel) - kernel, taken)
        assert np.abs(error).max() > 1e-6
        np.testing.assert_allclose(bias - corrected[name][1], error, atol=1e-5)
        assert np.array_equal(corrected[name][0], kernel)


def test_a_channel_that_never_speaks_keeps_its_weights(images):
    model = fold_norms(network())
    layer = model.get_layer("expand")
    kernel, bias = layer.get_weights()
    bias[3] = -1e3
    layer.set_weights([kernel, bias])
    own = module.weights_of(model)
    weights, then = module.equalize(model, own, module.observe(model, images))
    assert then.reach["expand"][3] == 0 and np.isfinite(weights["depthwise"][0]).all()
    assert np.array_equal(weights["expand"][0][..., 3], own["expand"][0][..., 3])


def test_an_export_says_it_and_follows_float_more_closely(images, tmp_path):
    cards = {}
    for options in ({}, dict(equalize=True, correct_bias=True, report=True)):
        work = Exporter(network(), images, ExportOptions(trained=False, **options))
        ((path, card),) = work.export(tmp_path)
        cards[bool(options)] = card
    assert cards[False].keys() - {"report"} == cards[True].keys() - {
        "equalize", "correct_bias", "report"}
    assert cards[True]["equalize"] and cards[True]["correct_bias"] and cards[True]["report"]
    assert cards[True]["check"]["float_error"] == cards[False]["check"]["float_error"]
    plain, better = (cards[kind]["check"]["sqnr_db"] for kind in (False, True))
    assert better > plain + 1, (plain, better)
    assert work.float_file().content != work.float_file(stage="corrected").content


def test_a_float_export_needs_none_of_it(inside, tmp_path):
    export = ("export", "--model_name", "mobilenet_edgetpu_v2_tiny", "--output_dir", tmp_path)
    for name in ("equalize", "correct_bias"):
        one_line(inside(*export, f"--{name}"), f"--{name} needs --quantize")


def test_what_is_not_finite_is_one_line(images):
    model = network()
    kernel, bias = model.get_layer("expand").get_weights()
    model.get_layer("expand").set_weights([kernel * np.nan, bias])
    work = Exporter(model, images, ExportOptions(trained=False, equalize=True))
    with pytest.raises(UsageError, match="expand.*not finite"):
        work.float_file(stage="equalized")
