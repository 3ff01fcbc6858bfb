"""Other people's detectors: which reader a file needs, by what is in it."""

import pathlib
import typing
import zipfile

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import (
    od_api,
    od_graph,
    od_tflite,
    pytorch_file,
    safetensors_file,
    torchvision,
)
from ssd_tf.weights.checks import shorten
from ssd_tf.weights.file_kinds import check_source, checkpoint_prefix
from ssd_tf.weights.imported import Imported

# The settings of torchvision's detectors, as far as they are not our defaults.
_SSD300 = {
    "model": {"backbone": {"name": "vgg16", "mean_rgb": [122.99925, 116.9991, 103.9992]}},
    "boxes": {"preset": "torchvision"},
    "eval": {"clip_first": True, "size_limit": 62.5},
}
_SSDLITE = {
    "model": {
        "input_hw": [320, 320],
        "backbone": {"name": "mobilenet_v3_large"},
        "head": "separable",
    },
    "boxes": {"preset": "torchvision_ssdlite"},
    "eval": {
        "score_floor": 0.001,
        "nms_iou": 0.55,
        "pre_nms_top_k": 300,
        "max_detections": 300,
        "clip_first": True,
        "size_limit": 62.5,
    },
}


class _Kind(typing.NamedTuple):
    """A detector of torchvision: its name, class head on the first map, and config."""

    name: str
    class_head: str
    boxes_per_cell: int
    values: dict


_HEAD = "head.classification_head.module_list.0"
_TORCHVISION = (
    _Kind("ssd300_vgg16", f"{_HEAD}.weight", 4, _SSD300),
    _Kind("ssdlite320_mobilenet_v3_large", f"{_HEAD}.1.weight", 6, _SSDLITE),
)


def read_detector(path) -> Imported:
    """The detector of a file or a SavedModel folder.

    Raises ConfigError, in one line, if there is none, it is of another kind, or it is corrupt.
    """
    path = pathlib.Path(path)
    check_source(path)
    try:
        return _read(path)
    except ConfigError:
        raise
    except Exception as error:  # what a corrupt file makes a reader raise
        raise ConfigError(
            f"{path} is corrupt ({type(error).__name__}: {shorten(error)})"
        ) from error


def _read(path):
    if path.is_dir():
        return od_api.convert(od_graph.read_saved_model(path), path)
    prefix = checkpoint_prefix(path)
    if pathlib.Path(f"{prefix}.index").is_file():
        return od_api.convert(od_graph.read_checkpoint(prefix), path)
    with open(path, "rb") as file:
        start = file.read(16)
    if start[4:8] == od_tflite.IDENTIFIER:
        return od_api.convert(od_tflite.read_tflite(path), path)
    if zipfile.is_zipfile(path) or start[:1] == b"\x80":
        return _convert_torchvision(pytorch_file.read_state_dict(path), path)
    if start[8:9] == b"{":
        return _convert_torchvision(safetensors_file.read_arrays(path), path)
    return od_api.convert(od_graph.read_frozen_graph(path), path)


def _convert_torchvision(state, path):
    kind = next((kind for kind in _TORCHVISION if kind.class_head in state), None)
    if kind is None:
        raise ConfigError(
            f"{path} is no detector of torchvision's (ssd300_vgg16, ssdlite320_mobilenet_v3_large);"
            f" it begins with {next(iter(state), 'nothing')}; a classifier can be given as "
            "model.backbone.weights"
        )
    head = kind.class_head
    num_logits = len(state[head])
    if num_logits % kind.boxes_per_cell or num_logits < 2 * kind.boxes_per_cell:
        raise ConfigError(
            f"{path}: {head}: expected {kind.boxes_per_cell} boxes of at least 2 logits, got "
            f"{num_logits} rows"
        )
    config = check_config(kind.values, str(path))
    network = ssd.build_model(config, num_logits // kind.boxes_per_cell - 1)
    filled = torchvision.load(network.model, config, state, path)
    arrays = {layer.name: layer.get_weights() for layer in network.model.layers if layer.weights}
    missing = [layer for layer in arrays if layer not in filled]
    if missing:
        raise ConfigError(f"{path}: {kind.name} without the weights of layer {missing[0]}")
    return Imported(f"{kind.name} of torchvision", kind.values, arrays, [])
