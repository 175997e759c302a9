"Contracts of every registered model: it builds, has the exact counts, learns, exports to int8 and runs."
import keras
import numpy as np
import pytest
import tensorflow as tf

from edgetpu_repro import build_model, list_models
from edgetpu_repro.classifiers import count_model
from edgetpu_repro.evaluate import predictor
from edgetpu_repro.export import export_tflite, freeze
from edgetpu_repro.specs import Classifier, count, get_spec

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


def test_every_classifier_of_the_registry_has_released_counts():
    assert set(RELEASED) == {name for name in list_models() if isinstance(get_spec(name), Classifier)}


@pytest.mark.parametrize("name", RELEASED)
def test_counts(name):
    trainable, params, macs, tolerance = RELEASED[name]
    built = count_model(build_model(name))
    assert (built["trainable"], built["params"]) == (trainable, params)
    assert built["macs"] / 1e6 == pytest.approx(macs, rel=tolerance)
    assert built == count(get_spec(name))


@pytest.mark.parametrize("name", list_models())
def test_gradient_step(name):
    model = build_model(name, num_classes=5, image_size=64)
    images, labels = keras.random.uniform((4, 64, 64, 3), -1, 1, seed=0), np.array([0, 1, 2, 4])
    assert [str(d) for d in {w.dtype for w in model.weights}] == ["float32"] and model.output_names == ["probabilities"]
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients)
    assert sum(np.abs(g).max() > 0 for g in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("name", list_models())
def test_int8_export_runs(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_model(name, num_classes=5, image_size=64)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype("float32")
    frozen = freeze(model)
    export_tflite(frozen, tmp_path / "float.tflite")
    file = export_tflite(frozen, tmp_path / "int8.tflite", images)
    assert file["inputs"][0]["dtype"] == file["outputs"][0]["dtype"] == "int8"
    assert not {"RELU", "MUL", "SUB", "QUANTIZE", "DEQUANTIZE"} & set(file["operators"]) - _hard_swish(name)
    np.testing.assert_allclose(predictor(tmp_path / "float.tflite")(images), predictor(model)(images), atol=1e-3)
    outputs = predictor(tmp_path / "int8.tflite")(images)
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
