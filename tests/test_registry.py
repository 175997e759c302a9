"""Contracts of every registered model: builds, has the exact counts, learns, exports to int8, runs.

A model is built once: the tests of a class have one parameter of the scope module, so that those of
one model follow each other. Sizes are the smallest that say something, classes few.
"""
from functools import lru_cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SMALL_SEGMENTER

from edgetpu_repro import build_model, list_models
from edgetpu_repro.models.blocks import conv_layers, count_model, load_model
from edgetpu_repro.models.costs import RELEASED, convolutions, count
from edgetpu_repro.measure.predict import predictor
from edgetpu_repro.tasks.base import TASKS
from edgetpu_repro.tflite.quantize import (
    activation_ranges,
    check_operators,
    export_tflite,
    quantize_tflite,
)
from edgetpu_repro.tflite.convert import fold_norms, freeze, to_float
from edgetpu_repro.tflite.edgetpu import not_for_edgetpu
from edgetpu_repro.tasks.finalize import finalize, finalize_methods
from edgetpu_repro.models.specs import get_spec, has_layout, layout
from edgetpu_repro.tflite.file import TFLiteFile
from edgetpu_repro.tasks.segmentation import masked_cross_entropy

DEEPLAB = "deeplabv3plus_mobilenet_edgetpuv2_"
CLASSIFIERS, SEGMENTERS, DETECTORS = (
    list_models(task=task) for task in ("classification", "segmentation", "detection")
)
SIZES = {"classification": 64, "segmentation": (64, 96), "detection": 64}
CLASSES = 5
# A family and a stride each; how masks are finished does not depend on more.
FINISHED = ["autoseg_edgetpu_xs", DEEPLAB + "tiny_ade20k_32", DEEPLAB + "baseline"]


def each(names):
    "Tests of one model come one after another, and share what `built` has built."
    return pytest.mark.parametrize("name", names, scope="module")


@lru_cache(maxsize=1)
def built(name):
    "A small model, the same weights every time."
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    return build_model(name, CLASSES, SIZES[get_spec(name).task])


@lru_cache(maxsize=1)
def folded(name):
    "The same without its norms, as its exports need it."
    return fold_norms(built(name))


def pictures(model, count=4):
    "Images for a model, (count, height, width, 3)."
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def by_name(records):
    return {o.name: o for o in records}


def check_layout(name):
    "Convolution by convolution: shapes, window, groups, weights, parameters with the norm."
    model, size = built(name), SIZES[get_spec(name).task]
    assert count_model(model) == count(name, size, CLASSES)
    assert by_name(conv_layers(model)) == by_name(convolutions(name, size, CLASSES))
    g = layout(name, size, CLASSES)
    assert [tuple(o.shape[1:]) for o in model.outputs] == [g[o].shape for o in g.outputs]
    assert model.output_names == list(g.outputs)
    for f in g.features: assert model.get_layer(f).output.shape[1:] == g[f].shape


def test_every_model_with_a_layout_has_released_counts():
    assert {*RELEASED, DEEPLAB + "baseline"} == {
        name for name in list_models() if has_layout(get_spec(name))
    }, "the baseline has none"


@pytest.mark.parametrize("name", list(RELEASED))
def test_counts(name):
    "Of the layout at its full size; that Keras builds the same is tested below."
    trainable, params, macs, tolerance = RELEASED[name]
    counted = count(name)
    assert counted["params"] == params and trainable in (None, counted["trainable"])
    if macs:
        assert counted["macs"] / 1e6 == pytest.approx(macs, rel=tolerance)


def check_gradients(model, loss_of):
    "Loss and gradients of one step are finite, and nearly every weight takes part."
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    before = model.get_weights() # training moves the averages of norms
    with tf.GradientTape() as tape:
        loss = loss_of(model)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.set_weights(before)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients)
    assert sum(np.abs(g).max() > 0 for g in gradients) > 0.9 * len(gradients)


def _hard_swish(name):
    "Squeeze-and-excitation multiplies; the references have it, our models do not."
    return {"MUL"} if get_spec(name).family == "reference" else set()


@each(CLASSIFIERS)
class TestClassifiers:
    def test_keras_has_the_operators_of_the_layout(self, name):
        if has_layout(get_spec(name)): check_layout(name)
        assert built(name).output_names == ["probabilities"]

    def test_gradient_step(self, name):
        model, labels = built(name), np.array([0, 1, 2, 4])
        images, loss = pictures(model), keras.losses.sparse_categorical_crossentropy
        check_gradients(model, lambda m: keras.ops.mean(loss(labels, m(images, training=True))))

    def test_int8_export_runs(self, name):
        model = built(name)
        images = pictures(model)
        float_file = to_float(freeze(model))
        int8_file = quantize_tflite(float_file, activation_ranges(float_file, images))
        file = TFLiteFile.open(int8_file)
        check_operators(file, int8=True)
        if get_spec(name).family != "reference":
            assert not not_for_edgetpu(int8_file)
        assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"
        foreign = {"RELU", "MUL", "SUB", "QUANTIZE", "DEQUANTIZE"} & set(file.operator_counts)
        assert not foreign - _hard_swish(name)
        expected, given = predictor(model)(images), TFLiteFile.open(float_file).predictor()(images)
        np.testing.assert_allclose(given, expected, atol=1e-4)
        outputs = file.predictor()(images)
        assert outputs.shape == (4, CLASSES)
        np.testing.assert_allclose(outputs.sum(-1), 1, atol=0.02)


@each(SEGMENTERS)
class TestSegmenters:
    def test_keras_has_the_operators_of_the_layout(self, name):
        check_layout(name)
        stride = 4 if name.endswith("baseline") else 8 if name.startswith("autoseg") else 16
        model = built(name)
        assert model.output_names == ["logits"]
        assert model.output_shape == (None, 64 // stride, 96 // stride, CLASSES)

    def test_gradient_step(self, name):
        model = built(name)
        images = pictures(model, 2)
        masks = np.random.default_rng(0).integers(0, CLASSES, images.shape[:3])
        check_gradients(model, lambda m: masked_cross_entropy(masks, m(images, training=True)))

    def test_int8_export_runs(self, name, tmp_path):
        model, outputs = built(name), {}
        images, methods = pictures(model), finalize_methods((64, 96))
        for argmax in ("default", "fused4") if name in FINISHED else ("default",):
            frozen = freeze(model, finalize_method=methods[argmax], folded=folded(name))
            file = export_tflite(frozen, tmp_path / f"{argmax}.tflite", images)
            assert file["inputs"][0]["dtype"] == "int8"
            assert file["outputs"][0]["dtype"] == "int32" and not file["float_operators"]
            assert not {"RELU", "MUL", "SUB", "DEQUANTIZE"} & set(file["operators"])
            outputs[argmax] = predictor(tmp_path / f"{argmax}.tflite")(images)
        masks = {argmax: TASKS["segmentation"].masks(y, "none") for argmax, y in outputs.items()}
        assert all(mask.shape == (4, 64, 96) for mask in masks.values())
        assert all(mask.min() >= 0 and mask.max() < CLASSES for mask in masks.values())
        if name not in FINISHED: return
        coarse = masks["fused4"][:, ::4, ::4].repeat(4, 1).repeat(4, 2)
        assert np.array_equal(masks["fused4"], coarse), "upsampling of classes is exact"


@each(DETECTORS)
def test_keras_has_the_operators_of_a_detectors_layout(name):
    check_layout(name)


def test_implementations_of_group_convolution_agree():
    sliced, native = (
        build_model("mobilenet_edgetpu_v2_xs", 10, 64, group_conv=g) for g in ("slices", "native")
    )
    native.set_weights(sliced.get_weights())
    images = keras.random.uniform((2, 64, 64, 3), -1, 1, seed=0)
    np.testing.assert_allclose(sliced(images), native(images), atol=1e-5)


@lru_cache
def small_segmenter():
    "A small model of masks, and the same without its norms."
    model = build_model(SMALL_SEGMENTER, CLASSES, SIZES["segmentation"])
    return model, fold_norms(model)


@pytest.mark.parametrize(
    "method",
    [
        "resize64,argmax",
        "resize32,argmax,resize64,squeeze",
        "resize20,argmax,resize50,squeeze",
        "argmax",
        "none",
    ],
)
def test_every_finalize_method_as_a_float_file(method, tmp_path):
    model, without_norms = small_segmenter()
    images = pictures(model, 2)
    frozen = freeze(model, finalize_method=method, folded=without_norms)
    export_tflite(frozen, tmp_path / "m.tflite")
    wanted = np.asarray(finalize(model(images), method))
    got = predictor(tmp_path / "m.tflite")(images)
    assert got.shape == wanted.shape and np.mean(np.abs(got - wanted) < 1e-3) > 0.999


@pytest.mark.parametrize("name", FINISHED)
def test_segmentation_models_are_at_rest_when_called(name, tmp_path):
    "Without `training`, a model keeps its moving averages; loaded, it is the same function."
    model = built(name)
    before, images = model.get_weights(), pictures(model, 1)
    logits = model(images)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    np.testing.assert_allclose(logits, model(images, training=False), atol=1e-6)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_model(tmp_path / "m.keras")(images), logits, atol=1e-6)
