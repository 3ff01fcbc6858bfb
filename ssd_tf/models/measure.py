"""Cost and receptive field of a functional model's layers."""

import dataclasses
import math
import re

import keras
from keras import layers


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of a layer that has weights.

    shape: of its output without the batch; multiply_adds: for one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """The cost of each layer with weights, in the order of the graph."""
    return [
        LayerCost(
            name=layer.name,
            kind=type(layer).__name__,
            shape=tuple(layer.output.shape[1:]),
            parameters=layer.count_params(),
            multiply_adds=multiply_adds(layer),
        )
        for layer in model.layers
        if layer.weights
    ]


def multiply_adds(layer) -> int:
    """Multiplications of a convolution for one image, without the bias; 0 for other layers.

    Batch norm, activations and additions do not count, as in torchvision's published figures.
    """
    if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return 0
    return math.prod(layer.output.shape[1:3]) * math.prod(layer.weights[0].shape)


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """Layer name -> side of the square, in input pixels, that one output position depends on.

    This is the theoretical field, which may be larger than the input. If several paths meet, the
    longest one counts; the gate of a squeeze-and-excite, which sees the whole image, does not.
    """
    # Tensor -> field and distance of neighbouring positions.
    known = {id(tensor): (1, 1) for tensor in model.inputs}
    fields = {}
    for layer in model.layers[1:]:  # the first is the input
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        field, distance = max(known[id(tensor)] for tensor in inputs)
        size, stride = _window(layer)
        field += (size - 1) * distance
        distance *= stride
        fields[layer.name] = math.ceil(field)
        for tensor in layer.output.values() if isinstance(layer.output, dict) else [layer.output]:
            known[id(tensor)] = (field, distance)
    return fields


def level_fields(model: keras.Model) -> list[int]:
    """The receptive fields of an SSD's heads, one per feature map, finest first."""
    fields = receptive_fields(model)
    heads = [name for name in fields if re.fullmatch(r"offsets\d+_conv", name)]
    return [fields[f"offsets{index}_conv"] for index in range(len(heads))]


def _window(layer):
    """(size, stride) of a layer's window, in positions of its input."""
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1, layer.strides[0]
    if isinstance(layer, layers.MaxPooling2D):
        return layer.pool_size[0], layer.strides[0]
    if isinstance(layer, layers.UpSampling2D):
        return 1, 1 / layer.size[0]
    return 1, 1
