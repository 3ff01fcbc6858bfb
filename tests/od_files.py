"""Files as the TF Object Detection API writes them, with our networks' random weights.

The names are spelled out here, independently of the importer's table.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ssd_tf.config import check_config
from ssd_tf.models import ssd

V1 = "FeatureExtractor/MobilenetV1"
V2 = "FeatureExtractor/MobilenetV2"
NUM_LEVELS = 4
VALUES = {
    "ssd_mobilenet_v1": {
        "input_hw": [96, 128],
        "num_levels": NUM_LEVELS,
        "head": "pointwise",
        "backbone": {
            "name": "mobilenet",
            "alpha": 0.25,
            "padding": "same",
            "min_channels": 16,
            "extra_layers": "conv",
        },
    },
    "ssdlite_mobilenet_v2": {
        "input_hw": [96, 128],
        "num_levels": NUM_LEVELS,
        "head": "separable",
        "backbone": {
            "name": "mobilenet_v2",
            "alpha": 0.35,
            "padding": "same",
            "min_channels": 16,
            "last_channels": 448,
        },
    },
}


def names_of(network):
    """Our layer name -> the API's, for all layers with a kernel."""
    names = {}
    if network == "ssd_mobilenet_v1":
        names["conv1"] = f"{V1}/MobilenetV1/Conv2d_0"
        for index in range(1, 14):
            names[f"conv_dw_{index}"] = f"{V1}/MobilenetV1/Conv2d_{index}_depthwise"
            names[f"conv_pw_{index}"] = f"{V1}/MobilenetV1/Conv2d_{index}_pointwise"
        for index, (narrow, wide) in enumerate(((64, 128), (32, 64)), start=1):
            stem = f"{V1}/Conv2d_13_pointwise"
            names[f"extra{index}_reduce"] = f"{stem}_1_Conv2d_{index + 1}_1x1_{narrow}"
            names[f"extra{index}_conv"] = f"{stem}_2_Conv2d_{index + 1}_3x3_s2_{wide}"
    else:
        names["Conv1"] = f"{V2}/Conv"
        names["Conv_1"] = f"{V2}/Conv_1"
        for index in range(17):
            ours = f"block_{index}" if index else "expanded_conv"
            theirs = f"{V2}/expanded_conv_{index}" if index else f"{V2}/expanded_conv"
            for part in ("expand", "depthwise", "project") if index else ("depthwise", "project"):
                names[f"{ours}_{part}"] = f"{theirs}/{part}"
        for index, (narrow, wide) in enumerate(((89, 179), (44, 89)), start=1):
            wider = f"{V2}/layer_19_2_Conv2d_{index + 1}_3x3_s2_{wide}"
            names[f"extra{index}_reduce"] = f"{V2}/layer_19_1_Conv2d_{index + 1}_1x1_{narrow}"
            names[f"extra{index}_depthwise"] = f"{wider}_depthwise"
            names[f"extra{index}_expand"] = wider
    for level in range(NUM_LEVELS):
        for ours, theirs in (("offsets", "BoxEncodingPredictor"), ("logits", "ClassPredictor")):
            names[f"{ours}{level}_conv"] = f"BoxPredictor_{level}/{theirs}"
            if network != "ssd_mobilenet_v1":
                names[f"{ours}{level}_depthwise"] = f"BoxPredictor_{level}/{theirs}_depthwise"
    return names


def make_network(network, num_classes=3):
    """Our model with random weights and statistics."""
    values = {
        "model": VALUES[network] | {"score_activation": "sigmoid"},
        "boxes": {"preset": "od_api"},
    }
    model = ssd.build_model(check_config(values, "test"), num_classes).model
    rng = np.random.default_rng(3)
    for variable in model.variables:
        low = 0.5 if variable.path.endswith(("moving_variance", "gamma")) else -0.2
        variable.assign(rng.uniform(low, low + 1, variable.shape) * (1 if low > 0 else 0.4))
    return model


def arrays_of(network, model):
    """The arrays of a checkpoint or graph by the API's names."""
    norm_after = {
        layer.input._keras_history.operation.name: layer
        for layer in model.layers
        if layer.name.endswith(("_bn", "_BN")) or layer.name == "bn_Conv1"
    }
    arrays = {}
    for ours, theirs in names_of(network).items():
        layer = model.get_layer(ours)
        kernel, *bias = layer.get_weights()
        is_depthwise = type(layer).__name__ == "DepthwiseConv2D"
        arrays[f"{theirs}/{'depthwise_weights' if is_depthwise else 'weights'}"] = kernel
        if bias:
            arrays[f"{theirs}/biases"] = bias[0]
        if ours in norm_after:
            for part, value in zip(
                ("gamma", "beta", "moving_mean", "moving_variance"),
                norm_after[ours].get_weights(),
                strict=True,
            ):
                arrays[f"{theirs}/BatchNorm/{part}"] = value
    return arrays


def write_checkpoint(prefix, arrays):
    """A checkpoint of TensorFlow 1: arrays by name, without an object graph."""
    names = list(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )


def make_graph(arrays, epsilon=1e-3, constants=(), nodes=()):
    """A GraphDef with the arrays as constants, and more constants and nodes (op, name, inputs)."""
    graph = tf.compat.v1.GraphDef()
    for name, value in {**arrays, **dict(constants)}.items():
        node = graph.node.add(op="Const", name=name)
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    for name in arrays:
        if name.endswith("/BatchNorm/gamma"):
            layer = name.removesuffix("gamma")
            node = graph.node.add(op="FusedBatchNorm", name=f"{layer}FusedBatchNorm")
            node.attr["epsilon"].f = epsilon
    for op, name, inputs in nodes:
        graph.node.add(op=op, name=name, input=inputs)
    return graph


def write_saved_model(folder, graph):
    content = saved_model_pb2.SavedModel()
    content.meta_graphs.add().graph_def.CopyFrom(graph)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(content.SerializeToString())
