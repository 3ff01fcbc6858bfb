"""Cost and receptive field of a functional model's layers."""

import collections
import dataclasses
import math
import re

import keras
from keras import layers

from ssd_tf.models.folding import graph_nodes


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of a layer that has weights.

    shape: of its largest output without the batch. multiply_adds: for one image, of all its calls.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """The cost of each layer with weights, in the order of the graph."""
    outputs = collections.defaultdict(list)
    for node in graph_nodes(model):
        outputs[node.operation] += node.outputs
    return [
        LayerCost(
            name=layer.name,
            kind=type(layer).__name__,
            shape=max((tuple(output.shape[1:]) for output in outputs[layer]), key=math.prod),
            parameters=layer.count_params(),
            multiply_adds=sum(_multiply_adds(layer, output) for output in outputs[layer]),
        )
        for layer in model.layers
        if layer.weights
    ]


def _multiply_adds(layer, output) -> int:
    """Multiplications of a convolution for one image, without the bias; 0 for other layers.

    Batch norm, activations and additions do not count, as in torchvision's published figures.
    """
    if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)):
        return 0
    kernels = [weight for weight in layer.weights if len(weight.shape) == 4]
    return math.prod(output.shape[1:3]) * sum(math.prod(kernel.shape) for kernel in kernels)


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """Layer name -> side of the square, in input pixels, that one output position depends on.

    This is the theoretical field, which may be larger than the input. If several paths meet, the
    longest one counts, as does the last call of a shared layer; the gate of a squeeze-and-excite,
    which sees the whole image, does not count.
    """
    # Tensor -> field and distance of neighbouring positions.
    known = {id(tensor): (1, 1) for tensor in model.inputs}
    fields = {}
    for node in graph_nodes(model):
        if not node.arguments.keras_tensors:  # an input
            continue
        field, distance = max(known[id(tensor)] for tensor in node.arguments.keras_tensors)
        size, stride = _window(node.operation)
        field += (size - 1) * distance
        distance *= stride
        fields[node.operation.name] = math.ceil(field)
        for tensor in node.outputs:
            known[id(tensor)] = (field, distance)
    return fields


def level_fields(model: keras.Model) -> list[int]:
    """The receptive fields of an SSD's heads, one per feature map, finest first."""
    fields = receptive_fields(model)
    num_levels = sum(bool(re.fullmatch(r"offsets\d+_boxes", name)) for name in fields)
    return [fields[f"offsets{index}_boxes"] for index in range(num_levels)]


def _window(layer):
    """(size, stride) of a layer's window, in positions of its input."""
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)):
        return (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1, layer.strides[0]
    if isinstance(layer, layers.MaxPooling2D):
        return layer.pool_size[0], layer.strides[0]
    if isinstance(layer, layers.UpSampling2D):
        return 1, 1 / layer.size[0]
    return 1, 1
