import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from fixed_detector import NAMES
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.exporting import tflite
from ssd_tf.exporting.tflite_graphs import replace_hard_swish
from ssd_tf.models.ssd import SSD


def make_model():
    image = keras.Input((64, 96, 3))
    x = keras.layers.Rescaling(1 / 32, -4.0)(keras.layers.AveragePooling2D(32)(image))
    x = keras.layers.Activation("hard_swish")(keras.layers.Conv2D(8, 1)(x))
    x = keras.layers.Reshape((6, 8))(x)
    outputs = {name: keras.layers.Dense(4, name=name)(x) for name in ("offsets", "logits")}
    return keras.Model(image, outputs)


def test_a_model_without_it_stays_as_it_is():
    image = keras.Input((4, 6, 3))
    model = keras.Model(image, keras.layers.Activation("relu")(image))
    assert replace_hard_swish(model) is model


def test_the_copy_gives_the_same():
    keras.utils.set_random_seed(0)
    model = make_model()
    copied = replace_hard_swish(model)
    assert copied is not model
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    for name, value in model(image).items():
        np.testing.assert_allclose(copied(image)[name], value, atol=1e-5)


def test_an_int8_file_has_its_parts(tiny_config, tmp_path):
    keras.utils.set_random_seed(0)
    model = make_model()
    network = SSD(model, np.tile(np.array([[0, 0, 1, 1]], np.float32), (6, 1)), (), ((2, 3),))
    rng = np.random.default_rng(0)
    # Cells of one colour each, as the network sees only their means.
    cells = rng.uniform(0, 255, (20, 2, 3, 3)).astype(np.float32)
    images = list(cells.repeat(32, 1).repeat(32, 2))
    converter = tflite.Converter(tiny_config, network, NAMES, images)
    path = tmp_path / "model.tflite"
    converter.export(path, "int8", raw=True)
    codes = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0).operatorCodes
    assert schema.BuiltinOperator.HARD_SWISH not in [code.builtinCode for code in codes]
    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    found = runner(image=images[0].round()[None].astype(np.uint8))
    for name, value in model(tf.constant(images[0].round()[None])).items():
        spread = float(np.ptp(value))
        np.testing.assert_allclose(found[name], value, atol=0.1 * spread)
