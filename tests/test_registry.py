"Contracts of every registered model: it builds, has the exact counts, learns, exports to int8 and runs."
import keras
import numpy as np
import pytest
import tensorflow as tf

from edgetpu_repro import build_model, list_models
from edgetpu_repro.models.classifiers import count_model, load_model
from edgetpu_repro.measure.evaluate import mask_predictor
from edgetpu_repro.measure.predict import predictor
from edgetpu_repro.tflite.quantize import activation_ranges, check_operators, export_tflite, not_for_edgetpu, quantize_tflite
from edgetpu_repro.tflite.convert import fold_norms, freeze, to_float
from edgetpu_repro.tasks.finalize import finalize, finalize_methods
from edgetpu_repro.models.specs import Classifier, count, get_spec, has_layout
from edgetpu_repro.tflite.file import describe, tflite_predictor
from edgetpu_repro.train.losses import masked_cross_entropy

# Trainable parameters, all parameters, MACs in millions and their tolerance, of the released definitions.
RELEASED = {
    "mobilenet_edgetpu_dm0p75": (2_622_401, 2_651_889, 622.1, 0.01),
    "mobilenet_edgetpu": (4_092_713, 4_131_593, 990.7, 0.001),
    "mobilenet_edgetpu_dm1p25": (6_030_497, 6_079_425, 1638.4, 0.001),
    "mobilenet_edgetpu_dm1p5": (8_134_217, 8_192_537, 2212.5, 0.001),
    "mobilenet_edgetpu_dm1p75": (10_769_025, 10_837_393, 3139.1, 0.001),
    "mobilenet_edgetpu_v2_tiny": (3_762_729, 3_800_201, 512.4, 0.001),
    "mobilenet_edgetpu_v2_xs": (4_462_697, 4_504_393, 707.5, 0.001),
    "mobilenet_edgetpu_v2_s": (5_987_737, 6_038_025, 1198.0, 0.001),
    "mobilenet_edgetpu_v2_m": (8_464_233, 8_525_993, 1835.6, 0.001),
    "mobilenet_edgetpu_v2_l": (10_923_049, 10_994_281, 2530.8, 0.001),
    "autoseg_edgetpu_backbone_xs": (3_724_001, 3_750_433, 325.1, 0.01),
    "autoseg_edgetpu_backbone_s": (3_568_657, 3_599_545, 392.4, 0.01),
    "autoseg_edgetpu_backbone_m": (6_343_005, 6_378_349, 813.0, 0.01),
}
# The same for segmentation at 512x512; the released counts of DeepLabV3+ do not say what is trainable, and its MACs leave out
# a part that grows with the dilated branches (01_specs).
DEEPLAB = "deeplabv3plus_mobilenet_edgetpuv2_"
SEGMENTATION = {
    DEEPLAB + "tiny_ade20k_32": (None, 2_612_144, 2834.6, 0.02),
    DEEPLAB + "xs_ade20k_32": (None, 3_317_872, 3787.2, 0.01),
    DEEPLAB + "s_ade20k_32": (None, 4_813_040, 6332.1, 0.01),
    DEEPLAB + "m_ade20k_32": (None, 7_178_512, 9640.8, 0.01),
    DEEPLAB + "l_ade20k_32": (None, 9_516_880, 13385.7, 0.01),
    DEEPLAB + "tiny_ade20k": (None, 2_735_063, None, None),
    DEEPLAB + "xs_ade20k": (None, 3_441_303, None, None),
    DEEPLAB + "s_ade20k": (None, 4_946_967, None, None),
    DEEPLAB + "m_ade20k": (None, 7_323_191, None, None),
    DEEPLAB + "l_ade20k": (None, 9_672_567, None, None),
    "autoseg_edgetpu_xs": (2_354_904, 2_387_224, 1914.2, 0.001),
    "autoseg_edgetpu_s": (2_552_328, 2_589_104, 2365.5, 0.001),
    "autoseg_edgetpu_m": (5_157_972, 5_199_204, 4558.6, 0.01),
}
CLASSIFIERS, SEGMENTERS = list_models(task="classification"), list_models(task="segmentation")


def test_every_classifier_of_the_registry_has_released_counts():
    assert set(RELEASED) == {name for name in list_models() if isinstance(get_spec(name), Classifier)}
    assert set(SEGMENTATION) == {*SEGMENTERS} - {DEEPLAB + "baseline"}, "the baseline has no released count"


@pytest.mark.parametrize("name", [*RELEASED, *SEGMENTATION])
def test_counts(name):
    trainable, params, macs, tolerance = (RELEASED | SEGMENTATION)[name]
    built = count_model(build_model(name))
    assert built["params"] == params and trainable in (None, built["trainable"])
    if macs: assert built["macs"] / 1e6 == pytest.approx(macs, rel=tolerance)
    assert built == count(get_spec(name))


def check_gradients(model, loss_of):
    "Loss and gradients of one step are finite, and nearly every weight takes part."
    with tf.GradientTape() as tape: loss = loss_of(model)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients)
    assert sum(np.abs(g).max() > 0 for g in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradient_step(name):
    model = build_model(name, num_classes=5, image_size=64)
    images, labels = keras.random.uniform((4, 64, 64, 3), -1, 1, seed=0), np.array([0, 1, 2, 4])
    assert [str(d) for d in {w.dtype for w in model.weights}] == ["float32"] and model.output_names == ["probabilities"]
    check_gradients(model, lambda m: keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, m(images, training=True))))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_int8_export_runs(name):
    keras.utils.set_random_seed(0)
    model = build_model(name, num_classes=5, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype("float32")
    float_file = to_float(freeze(model))
    int8_file = quantize_tflite(float_file, activation_ranges(float_file, images))
    file = describe(int8_file)
    check_operators(file, int8=True)
    if get_spec(name).family != "reference": assert not not_for_edgetpu(int8_file)
    assert file["inputs"][0]["dtype"] == file["outputs"][0]["dtype"] == "int8"
    assert not {"RELU", "MUL", "SUB", "QUANTIZE", "DEQUANTIZE"} & set(file["operators"]) - _hard_swish(name)
    np.testing.assert_allclose(tflite_predictor(float_file)(images), predictor(model)(images), atol=1e-4)
    outputs = tflite_predictor(int8_file)(images)
    assert outputs.shape == (4, 5)
    np.testing.assert_allclose(outputs.sum(-1), 1, atol=0.02)


def _hard_swish(name):
    "Squeeze-and-excitation multiplies; the references have it, our models do not."
    return {"MUL"} if get_spec(name).family == "reference" else set()


def test_realisations_of_group_convolution_agree():
    sliced, native = (build_model("mobilenet_edgetpu_v2_xs", 10, 64, group_conv=g) for g in ("slices", "native"))
    native.set_weights(sliced.get_weights())
    images = keras.random.uniform((2, 64, 64, 3), -1, 1, seed=0)
    np.testing.assert_allclose(sliced(images), native(images), atol=1e-5)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_gradient_step(name):
    model = build_model(name, num_classes=5, image_size=(64, 96))
    stride = 4 if name.endswith("baseline") else 8 if name.startswith("autoseg") else 16
    assert model.output_names == ["logits"] and model.output_shape == (None, 64 // stride, 96 // stride, 5)
    images, masks = keras.random.uniform((2, 64, 96, 3), -1, 1, seed=0), np.random.default_rng(0).integers(0, 5, (2, 64, 96))
    check_gradients(model, lambda m: masked_cross_entropy(masks, m(images, training=True)))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_int8_export_runs(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_model(name, num_classes=5, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype("float32")
    folded, methods = fold_norms(model), finalize_methods((64, 64))
    for argmax in ("default", "fused4"):
        file = export_tflite(freeze(model, finalize_method=methods[argmax], folded=folded), tmp_path / f"{argmax}.tflite", images)
        assert file["inputs"][0]["dtype"] == "int8" and file["outputs"][0]["dtype"] == "int32" and not file["float_operators"]
        assert not {"RELU", "MUL", "SUB", "DEQUANTIZE"} & set(file["operators"])
    masks = {argmax: mask_predictor(tmp_path / f"{argmax}.tflite", "none")(images) for argmax in ("default", "fused4")}
    assert masks["default"].shape == masks["fused4"].shape == (4, 64, 64)
    assert all(mask.min() >= 0 and mask.max() < 5 for mask in masks.values())
    assert np.array_equal(masks["fused4"], masks["fused4"][:, ::4, ::4].repeat(4, 1).repeat(4, 2)), "upsampling of classes is exact"


@pytest.mark.parametrize("method", ["resize64,argmax", "resize32,argmax,resize64,squeeze", "resize20,argmax,resize50,squeeze", "argmax",
                                    "none"])
def test_every_finalize_method_as_a_float_file(method, tmp_path):
    model = build_model("autoseg_edgetpu_xs", num_classes=5, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    export_tflite(freeze(model, finalize_method=method), tmp_path / "m.tflite")
    wanted, got = np.asarray(finalize(model(images), method)), predictor(tmp_path / "m.tflite")(images)
    assert got.shape == wanted.shape and np.mean(np.abs(got - wanted) < 1e-3) > 0.999


@pytest.mark.parametrize("name", ["autoseg_edgetpu_xs", DEEPLAB + "tiny_ade20k_32", DEEPLAB + "baseline"])
def test_segmentation_models_are_at_rest_when_called(name, tmp_path):
    "Called without `training`, a model uses and keeps its moving averages; saved and loaded, it is the same function."
    model = build_model(name, num_classes=3, image_size=64)
    before, images = model.get_weights(), keras.random.uniform((1, 64, 64, 3), -1, 1, seed=0)
    logits = model(images)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    np.testing.assert_allclose(logits, model(images, training=False), atol=1e-6)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_model(tmp_path / "m.keras")(images), logits, atol=1e-6)


def test_what_cannot_be_counted_says_so():
    assert not has_layout(get_spec(DEEPLAB + "baseline")) and has_layout(get_spec("autoseg_edgetpu_m"))
