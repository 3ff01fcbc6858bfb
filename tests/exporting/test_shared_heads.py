"""Heads that all maps share, in TFLite files of every precision."""

import numpy as np
import pytest
import small_networks
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.config import check_config
from ssd_tf.exporting import tflite
from ssd_tf.exporting.folder import PRECISIONS
from ssd_tf.models import ssd

VALUES = {
    "model": {
        "input_hw": [64, 96],
        "num_levels": 4,
        "backbone": {"name": "mobilenet_v2", "alpha": 0.35, "min_channels": 16},
        "neck": "fpn_lite",
        "neck_channels": 16,
        "head": "separable",
        "tower": {"num_layers": 2, "channels": 16, "shared": True},
        "score_activation": "sigmoid",
    },
    "boxes": {"preset": "od_api_fpn"},
}
# Of the largest value of an output.
TOLERANCES = {"float32": 1e-4, "float16": 0.01, "dynamic": 0.1, "int8": 0.25}


@pytest.fixture(scope="module")
def network():
    network = ssd.build_model(check_config(VALUES, "test"), num_classes=3)
    small_networks.randomize(network.model)
    return network


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (4, 64, 96, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def converter(network, images):
    config = check_config(VALUES, "test")
    return tflite.Converter(config, network, ["a", "b", "c"], list(images))


def run(path, image):
    """{output: values} of a raw file."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], image[None].astype(entry["dtype"]))
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return {each["name"]: interpreter.get_tensor(each["index"]) for each in outputs}


@pytest.mark.integration
@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_are_those_of_keras(precision, network, images, converter, tmp_path):
    path = tmp_path / "model.tflite"
    converter.export(path, precision, raw=True)
    image = np.round(images[0])
    expected = network.model(image[None], training=False)
    for name, value in run(path, image).items():
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], atol=TOLERANCES[precision] * largest)


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_moves_of_corners_become_offsets_of_centre_and_size(precision, images, tmp_path):
    values = VALUES | {"boxes": {"preset": "od_api_fpn", "coding": "corners"}}
    config = check_config(values, "test")
    network = ssd.build_model(config, num_classes=3)
    small_networks.randomize(network.model)
    path = tmp_path / "model.tflite"
    converter = tflite.Converter(config, network, ["a", "b", "c"], list(images))
    converter.export(path, precision, raw=True)
    image = np.round(images[0])
    expected = network.model(image[None], training=False)["offsets"]
    assert np.ptp(expected[..., 2:]) > 0.1  # the logarithm of the size is no constant
    atol = TOLERANCES[precision] * np.abs(expected).max()
    np.testing.assert_allclose(run(path, image)["offsets"], expected, atol=atol)


def kernels(path):
    """For each kernel of a file the number of convolutions that use it, and its bytes."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    convolutions = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    uses = {}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in convolutions:
            buffer = graph.tensors[operator.inputs[1]].buffer
            count, _ = uses.get(buffer, (0, 0))
            uses[buffer] = (count + 1, len(model.buffers[buffer].data))
    return list(uses.values())


@pytest.mark.integration
def test_shared_kernels_are_stored_once(converter, tmp_path):
    path = tmp_path / "model.tflite"
    converter.export(path, "float32", raw=True)
    shared = [each for each in kernels(path) if each[0] == 4]
    # On four maps: the depthwise kernels of two layers and two heads, 3 x 3 x 16 floats, the
    # layers' 1x1 ones, 16 x 16, and the heads', for 6 boxes of 4 offsets and of 4 logits.
    assert sorted(shared) == [(4, 576)] * 4 + [(4, 1024)] * 2 + [(4, 1536)] * 2
