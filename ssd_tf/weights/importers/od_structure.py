"""SSDs in TFLite files with any names: known by the structure of the graph.

They are of the TF Object Detection API for TensorFlow 2, with a feature pyramid or with heads per
map, or of ST's model zoo. Batch norm is folded in them: a kernel of the tower comes once per map,
with that map's batch norm in it, so that they differ by one factor per output channel. Kernel and
factors are recovered; where kernels differ by more, each map keeps its own.
"""

import collections
import typing

import numpy as np
from absl import logging
from keras import layers

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import resnet, ssd
from ssd_tf.models.folding import graph_nodes
from ssd_tf.weights.importers import graph_match, od_api
from ssd_tf.weights.importers.imported import Imported

# Largest deviation of a map's kernel from the common one, in fractions of the largest value of its
# channel: two steps of an 8-bit file.
_MAX_RESIDUAL = 2 / 127

_RESNETS = ("resnet50", "resnet101")


class Graph(typing.NamedTuple):
    """The convolutions of a file.

    label: the file and what it holds, for messages.
    convolutions: as graph_match takes them. arrays: kernel and bias of each; kernels have the
    shape of the Convolution. box_heads, class_heads: indices of the last ones, finest map first.
    settings, level_shapes, box_rounding: as in od_api.Source. has_pyramid: whether coarse maps are
    added to finer ones, which share their heads. origin: who made it. notes: for the user.
    """

    label: str
    convolutions: list[graph_match.Convolution]
    arrays: list[tuple[np.ndarray, np.ndarray]]
    box_heads: list[int]
    class_heads: list[int]
    settings: dict
    level_shapes: list | None
    box_rounding: float | None
    has_pyramid: bool = True
    origin: str = "the TF Object Detection API"
    notes: tuple[str, ...] = ()


def convert(graph: Graph, kind) -> Imported:
    """The config and arrays of our model. Raises ConfigError for other networks.

    kind: of the file, for messages.
    """
    path = graph.label
    graph = _absorb_scales(graph)
    settings = _settings(graph, path)
    arrays, residual = _read_arrays(graph, settings, path)
    assumed = [key for key in od_api.DEFAULTS if key not in graph.settings]
    notes = [*graph.notes, *od_api.describe_assumed(assumed)]
    notes.append("batch norm is folded into the convolutions: train.bn = frozen")
    if residual > _MAX_RESIDUAL:
        settings["model.tower.per_map"] = True
        arrays, _ = _read_arrays(graph, settings, path)
        notes.append(
            f"the heads of the maps differ by {residual:.2g} of their largest value, so each map "
            "keeps its own: model.tower.per_map = True"
        )
    elif graph.has_pyramid:
        logging.info("the heads of all maps agree to %.1e of their largest value", residual)
    network = "SSD with a feature pyramid" if graph.has_pyramid else "SSD"
    name = f"{network}, {kind} of {graph.origin}"
    return Imported(name, od_api.nest(settings), arrays, notes, assumed=tuple(assumed))


def _read_arrays(graph, settings, path):
    """The arrays of our network with these settings, and the residual of its shared kernels."""
    config = check_config(od_api.nest(settings), str(path))
    boxes_per_cell = graph.convolutions[graph.box_heads[0]].shape[3] // 4
    num_logits = graph.convolutions[graph.class_heads[0]].shape[3] // boxes_per_cell
    model = ssd.build_model(config, num_logits - 1).model
    ours = graph_match.keras_convolutions(model)
    found = graph_match.match(ours, _with_roles(graph))
    if found is None:
        raise ConfigError(
            f"{path}: its {len(graph.convolutions)} convolutions are not those of an SSD "
            f"{'with a feature pyramid ' if graph.has_pyramid else ''}on "
            f"{config.model.backbone.name}, which has {len(ours)}; it runs as it is: "
            "ssd detect --model"
        )
    return _gather(model, ours, [graph.arrays[index] for index in found])


def _absorb_scales(graph):
    """The graph without 1x1 depthwise convolutions, which scale the one before them.

    Our own float32 files have them, so that maps share kernels.
    """
    convolutions = list(graph.convolutions)
    arrays = list(graph.arrays)
    absorbed = set()
    for index, convolution in enumerate(convolutions):
        if len(convolution.shape) == 3 and convolution.shape[:2] == (1, 1):
            (before,) = convolution.inputs
            (kernel, bias), (scale, offset) = arrays[before], arrays[index]
            arrays[index] = (kernel * scale.reshape(-1), bias * scale.reshape(-1) + offset)
            convolutions[index] = convolutions[before]
            absorbed.add(before)
    kept = [index for index in range(len(convolutions)) if index not in absorbed]
    position = {old: new for new, old in enumerate(kept)}
    return graph._replace(
        convolutions=[
            convolutions[index]._replace(
                inputs=frozenset(position[each] for each in convolutions[index].inputs)
            )
            for index in kept
        ],
        arrays=[arrays[index] for index in kept],
        box_heads=[position[index] for index in graph.box_heads],
        class_heads=[position[index] for index in graph.class_heads],
    )


def _with_roles(graph):
    """The convolutions with the roles of heads; both halves of a separable one if maps share it."""
    convolutions = list(graph.convolutions)
    for role, indices in (("boxes", graph.box_heads), ("classes", graph.class_heads)):
        for index in indices:
            convolutions[index] = convolutions[index]._replace(role=role)
            if graph.has_pyramid and _is_separable(graph, index):
                (before,) = convolutions[index].inputs
                convolutions[before] = convolutions[before]._replace(role=role)
    return convolutions


def _is_separable(graph, index):
    """Whether a 1x1 convolution follows a depthwise one."""
    before = [graph.convolutions[each] for each in graph.convolutions[index].inputs]
    is_pointwise = graph.convolutions[index].shape[:2] == (1, 1)
    return is_pointwise and [len(each.shape) for each in before] == [3]


def _settings(graph, path):
    """The values of the config by key: the file's, and those that the convolutions show."""
    num_levels = len(graph.box_heads)
    heads = {*graph.box_heads, *graph.class_heads}
    backbone = _backbone(
        [each for index, each in enumerate(graph.convolutions) if index not in heads], path
    )
    if not graph.has_pyramid:
        backbone["extra_layers"] = _extra_layers(graph)
    settings = od_api.DEFAULTS | {f"model.backbone.{key}": value for key, value in backbone.items()}
    settings |= graph.settings
    od_api.check_input_size(settings["model.input_hw"], path)
    preset = "od_api_fpn" if graph.has_pyramid else "od_api"
    settings |= od_api.describe_boxes(graph, num_levels, settings, preset)
    settings |= {
        "model.num_levels": num_levels,
        "model.head": _head(graph),
        "train.bn": "frozen",
    }
    if settings["model.score_activation"] == "sigmoid":
        settings |= {"loss.focal_gamma": 2.0, "loss.focal_alpha": 0.25}
    return settings | (_pyramid_settings(graph) if graph.has_pyramid else {})


def _head(graph):
    if _is_separable(graph, graph.box_heads[0]):
        return "separable"
    return "pointwise" if graph.convolutions[graph.box_heads[0]].shape[0] == 1 else "conv"


def _extra_layers(graph):
    """Of heads per map: whether the last map comes from a full 3x3 convolution."""
    index = graph.box_heads[-1]
    (before,) = graph.convolutions[index].inputs
    if _is_separable(graph, index):
        (before,) = graph.convolutions[before].inputs
    return "conv" if graph.convolutions[before].shape[0] == 3 else "separable"


def _pyramid_settings(graph):
    box_head = graph.convolutions[graph.box_heads[0]]
    tower = _tower(graph, graph.box_heads[0])
    return {
        "model.neck": "fpn_lite" if _head(graph) == "separable" else "fpn",
        "model.neck_channels": graph.convolutions[tower[-1]].shape[3],
        "model.tower.num_layers": len(tower) - 1,
        "model.tower.channels": box_head.shape[2],
        "model.tower.shared": tower == _tower(graph, graph.class_heads[0]),
    }


def _tower(graph, index):
    """The convolutions from that before a head back to the one that makes its feature map."""
    chain = []
    while True:
        inputs = graph.convolutions[index].inputs
        if len(inputs) != 1:
            return chain
        (index,) = inputs
        if len(graph.convolutions[index].shape) == 4:  # of a separable one only the second half
            chain.append(index)


def _backbone(convolutions, path):
    """The section model.backbone. convolutions: without those of the heads."""
    stem, _, _, fourth = convolutions[:4]
    if stem.shape[:2] == (7, 7):
        return _resnet(convolutions, stem.shape[-1])
    if len(fourth.shape) == 3:  # v2 has a 1x1 convolution there
        last = max(each.shape[-1] for each in convolutions)
        return od_api.fit_width("mobilenet", stem.shape[-1], last, path)
    widest = max(convolutions, key=lambda each: each.shape[-1] if len(each.shape) == 4 else 0)
    values = od_api.fit_width("mobilenet_v2", stem.shape[-1], widest.shape[2], path)
    return values | {"last_channels": widest.shape[3]}


def _resnet(convolutions, width):
    """width: channels of the stem."""
    num_conv4 = sum(each.shape == (1, 1, 4 * width, 16 * width) for each in convolutions)
    names = {counts[2]: name for name, counts in resnet.BLOCKS.items() if name in _RESNETS}
    return {"name": names.get(num_conv4, _RESNETS[0]), "alpha": width / 64} | od_api.RESNET


def _gather(model, ours, found):
    """{layer name: arrays} of the model, and the largest residual of shared kernels.

    ours: its convolutions. found: kernel and bias of each.
    """
    norms = _norms_after(model)
    calls = collections.defaultdict(lambda: collections.defaultdict(list))
    for convolution, weights in zip(ours, found, strict=True):
        calls[convolution.source.layer][convolution.source.output].append(weights)
    arrays = {}
    residuals = []
    for layer, by_output in calls.items():
        # A list for each part of a separable convolution, with the kernel of each map.
        kernels = [[kernel for kernel, _ in parts] for parts in by_output.values()]
        *depthwise, last = zip(*kernels, strict=True)
        biases = [_join_biases(parts) for parts in by_output.values()]
        residuals += [_spread(each) for each in depthwise]
        if norms.keys() >= by_output.keys():
            kernel, scales, residual = split_scales(np.stack(last))
            residuals.append(residual)
            for output, scale, bias in zip(by_output, scales, biases, strict=True):
                arrays[norms[output].name] = od_api.folded_norm(scale, bias)
        else:
            kernel = last[0]
            # Biases may be near 0, so they are compared as a whole.
            residuals += [_spread(last), _spread([bias[:, None] for bias in biases])]
        weights = [*(each[0] for each in depthwise), kernel, biases[0]]
        arrays[layer.name] = [
            value.reshape(weight.shape)
            for value, weight in zip(weights, layer.weights, strict=False)  # the bias may be folded
        ]
    return arrays, max(residuals)


def _spread(values):
    """The largest difference between arrays [..., out], as a fraction of a channel's largest."""
    stacked = np.stack(values)
    largest = np.abs(stacked).max(tuple(range(stacked.ndim - 1)))
    return float((np.ptp(stacked, 0) / np.where(largest > 0, largest, 1)).max())


def _norms_after(model):
    """{id of a tensor: the batch norm that takes it}."""
    return {
        id(node.arguments.keras_tensors[0]): node.operation
        for node in graph_nodes(model)
        if isinstance(node.operation, layers.BatchNormalization)
    }


def _join_biases(parts):
    """The bias of a convolution; of a separable one that of both halves together."""
    bias = parts[0][1]
    for kernel, own_bias in parts[1:]:
        bias = bias @ kernel[0, 0] + own_bias
    return bias


def split_scales(kernels):
    """Kernels [M, ..., out] -> the common kernel [..., out], factors [M, out], and the residual.

    The residual is a fraction of the largest value of a channel.
    """
    if (kernels == kernels[0]).all():
        return kernels[0], np.ones((len(kernels), kernels.shape[-1]), np.float32), 0.0
    flat = kernels.reshape(len(kernels), -1, kernels.shape[-1]).astype(np.float64)
    # The first singular vectors of each channel.
    left, singular, right = np.linalg.svd(flat.transpose(2, 0, 1), full_matrices=False)
    common = right[:, 0].T
    scales = (left[:, :, 0] * singular[:, :1]).T
    # Factors of about 1, so that the kernel has the size of those in the file.
    size = np.sqrt(np.mean(scales**2, 0)) * np.sign(scales.sum(0))
    size[size == 0] = 1
    common = common * size
    scales = scales / size
    largest = np.abs(flat).max(1)
    residual = np.abs(flat - scales[:, None] * common).max(1) / np.where(largest > 0, largest, 1)
    return (
        common.reshape(kernels.shape[1:]).astype(np.float32),
        scales.astype(np.float32),
        float(residual.max()),
    )
