"""Detectors of the TF Object Detection API as TensorFlow 1 wrote them.

A frozen graph (.pb), a SavedModel, or a checkpoint. They are read as data, and nothing is run.
"""

import glob
import math
import pathlib

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from ssd_tf.errors import ConfigError
from ssd_tf.weights import runs
from ssd_tf.weights.importers import families
from ssd_tf.weights.importers.array_files import check_size
from ssd_tf.weights.importers.od_api import ONLY_V1, Layer, Source, round_number

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_KERNELS = ("weights", "depthwise_weights")
_RELUS = ("FeatureExtractor/", "BoxPredictor_")
_AVERAGED = "/ExponentialMovingAverage"


def read_frozen_graph(path) -> Source:
    """Read a graph; the fallback reader. Raises ConfigError if the file is not a graph."""
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(pathlib.Path(path).read_bytes())
        is_graph = bool(graph.node)
    except DecodeError:
        is_graph = False
    if not is_graph:
        raise ConfigError(
            f"{path} cannot be imported: expected a frozen graph (.pb), a checkpoint or SavedModel "
            "of TensorFlow, a TFLite file, or .pth or .safetensors of torchvision"
        )
    return _read_graph(graph, {}, "frozen graph", path, path)


def read_meta_graph(folder):
    """The graph of a SavedModel folder. Raises ConfigError if it has none."""
    path = pathlib.Path(folder) / "saved_model.pb"
    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ConfigError(f"{path} is corrupt ({error})") from None
    if not content.meta_graphs:
        raise ConfigError(f"{path} has no graph")
    return content.meta_graphs[0]


def read_saved_model(folder, graph) -> Source:
    """Read a folder of TensorFlow 1; graph: its graph."""
    path = pathlib.Path(folder) / "saved_model.pb"
    variables = pathlib.Path(folder) / "variables" / "variables"
    arrays = {}
    if variables.with_suffix(".index").is_file():
        arrays = _read_arrays(variables)
    return _read_graph(graph.graph_def, arrays, "SavedModel", folder, path)


def read_checkpoint(prefix) -> Source:
    """prefix: the path without .index. Raises ConfigError if it cannot be read."""
    arrays = _read_arrays(prefix)
    families.check(arrays, prefix)
    return Source("checkpoint", _collect_layers(arrays, {}, prefix), {})


def _read_arrays(prefix):
    """A checkpoint's arrays by name; averaged weights replace the raw ones."""
    check_checkpoint(prefix)
    arrays = runs.read_arrays(str(prefix))
    averaged = {
        name.removesuffix(_AVERAGED): value
        for name, value in arrays.items()
        if name.endswith(_AVERAGED)
    }
    return arrays | averaged


def check_checkpoint(prefix):
    """Raise ConfigError for a checkpoint with too little data."""
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    prefix = pathlib.Path(prefix)
    data = sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*"))
    if not data:
        raise ConfigError(
            f"{prefix} has no data: expected {prefix.name}.data-00000-of-00001 beside its index; "
            "get it from where the index comes from"
        )
    # Names and shapes alone are in the index.
    declared = sum(math.prod(shape) * dtypes[name].size for name, shape in shapes.items())
    check_size(declared, max(data, key=lambda path: path.stat().st_size))


def _read_graph(graph, variables, kind, path, size_of):
    """size_of: the file of the graph."""
    families.check([node.name for node in graph.node], path)
    if any(node.op == "Relu" and node.name.startswith(_RELUS) for node in graph.node):
        raise ConfigError(f"{path}: expected the activation ReLU6, found ReLU")
    constants = _read_constants(graph, size_of)
    epsilons = {
        node.name.rpartition("/BatchNorm/")[0]: node.attr["epsilon"].f
        for node in graph.node
        if node.op.startswith("FusedBatchNorm")
    }
    settings = _find_settings(graph, constants)
    layers = _collect_layers(variables | constants, epsilons, path)
    windows = _find_windows(graph)
    layers = {name: layer._replace(**windows.get(name, {})) for name, layer in layers.items()}
    input_hw = settings.get("model.input_hw")
    shapes = None if input_hw is None else _find_level_shapes(graph, constants, min(input_hw))
    return Source(kind, layers, settings, shapes)


def _read_constants(graph, path):
    """The numbers of the graph's constants by name; path: its file."""
    tensors = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    constants = {}
    declared = 0
    for name, tensor in tensors.items():
        dtype = tf.dtypes.as_dtype(tensor.dtype or tf.string)
        if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            continue
        declared += math.prod(max(dim.size, 0) for dim in tensor.tensor_shape.dim) * dtype.size
        check_size(declared, path)
        constants[name] = tf.make_ndarray(tensor)
    return constants


def _find_windows(graph):
    """Stride, padding and dilation of the convolutions, by the names of the Layers."""
    windows = {}
    for node in graph.node:
        if node.op not in ("Conv2D", "DepthwiseConv2dNative") or len(node.input) < 2:
            continue
        layer, _, part = node.input[1].removesuffix("/read").rpartition("/")
        if part in _KERNELS:
            windows[layer] = {
                "strides": tuple(node.attr["strides"].list.i[1:3]),
                "padding": node.attr["padding"].s.decode(),
                "dilations": tuple(node.attr["dilations"].list.i[1:3]),
            }
    return windows


def _collect_layers(arrays, epsilons, path):
    """The Layers, by the names before `/weights` and its like."""
    layers = {}
    for name, kernel in arrays.items():
        layer, _, part = name.rpartition("/")
        if part not in _KERNELS:
            continue
        norm = [arrays.get(f"{layer}/BatchNorm/{key}") for key in _NORM]
        if norm[0] is None and norm[1] is not None:
            norm[0] = np.ones_like(norm[1])  # batch norm without a scale
        layers[layer] = Layer(
            kernel=kernel,
            bias=arrays.get(f"{layer}/biases"),
            norm=None if any(value is None for value in norm) else tuple(norm),
            epsilon=epsilons.get(layer, Layer._field_defaults["epsilon"]),
        )
    if not layers:
        raise ConfigError(
            f"{path} has no weights by the names of the TF Object Detection API of TensorFlow 1 "
            f"(FeatureExtractor/.../weights), as graphs of TensorFlow 2 have none: {ONLY_V1}"
        )
    return layers


def _find_settings(graph, constants):
    """The settings of our config that the graph's constants state."""
    settings = {}
    for name, value in constants.items():
        if name.endswith("/ResizeImage/stack"):
            settings["model.input_hw"] = value.tolist()
        elif name.endswith("/non_max_suppression/iou_threshold"):
            settings["eval.nms_iou"] = round_number(value)
        elif name.endswith("/non_max_suppression/score_threshold"):
            settings["eval.score_floor"] = round_number(value)
        elif name.endswith("/MultiClassNonMaxSuppression/Minimum/x"):
            settings["eval.max_detections"] = int(value)
    if "eval.nms_iou" in settings:
        settings["eval.class_agnostic"] = False
    factor = constants.get("Preprocessor/mul/x")
    offset = constants.get("Preprocessor/sub/y")
    if factor is not None and offset is not None:
        settings["model.backbone.mean_rgb"] = [round_number(offset / factor)] * 3
        settings["model.backbone.std_rgb"] = [round_number(1 / factor)] * 3
    # Four divisions by the scales, then four by 2.
    divisors = [constants.get(f"Postprocessor/Decode/truediv{end}/y") for end in _ENDS]
    if all(value is not None for value in divisors):
        settings["boxes.variances"] = [round_number(1 / value) for value in divisors[:4]]
    converters = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
    for node in graph.node:
        if node.name == "Postprocessor/convert_scores" and node.op in converters:
            settings["model.score_activation"] = converters[node.op]
    return settings


_ENDS = ("", *(f"_{index}" for index in range(1, 8)))


def _find_level_shapes(graph, constants, side):
    """Height and width of each default box of a cell, by level, in pixels; None if not found.

    The anchor generator has, for each level, constants with the aspect ratios, of which it takes
    the square root, and with the scales, which it divides by that root.
    """
    nodes = [node for node in graph.node if node.name.startswith("MultipleGridAnchorGenerator/")]
    scales = {
        node.input[1]: constants.get(node.input[0])
        for node in nodes
        if node.op == "RealDiv" and node.input[1].rpartition("/")[2].startswith("Sqrt")
    }
    levels = []
    for node in nodes:
        if node.op == "Sqrt":
            ratios = constants.get(node.input[0])
            sizes = scales.get(node.name)
            if ratios is None or sizes is None:
                return None
            root = np.sqrt(ratios)
            levels.append(np.stack([sizes / root, sizes * root], -1) * side)
    return levels or None
