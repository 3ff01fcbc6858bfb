"""What a functional model costs and sees, read from its layers: parameters, multiply-adds, receptive fields."""

import dataclasses
import math

import keras
from keras import layers


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer that has weights: its output's shape without the batch, its parameters and its multiply-adds for one image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """The layers with weights, in the order of the graph."""
    return [
        LayerCost(
            layer.name,
            type(layer).__name__,
            tuple(layer.output.shape[1:]),
            layer.count_params(),
            multiply_adds(layer),
        )
        for layer in model.layers
        if layer.weights
    ]


def multiply_adds(layer) -> int:
    """Multiplications of one image's convolution, bias left out; 0 for other layers.

    Batch norm, activations and additions are not counted, as in torchvision's published figures.
    """
    if not isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return 0
    return math.prod(layer.output.shape[1:3]) * math.prod(layer.weights[0].shape)


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """Layer name -> side, in pixels of the input, of the square that one position of its output depends on.

    Theoretical, and larger than the input where it is so. The longest path counts where several meet; the gate of a
    squeeze-and-excite, which sees the whole picture, does not.
    """
    seen = {
        id(tensor): (1, 1) for tensor in model.inputs
    }  # tensor -> (field, distance of neighbouring positions)
    fields = {}
    for layer in model.layers[1:]:  # the first is the input
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        field, jump = max(seen[id(tensor)] for tensor in inputs)
        size, stride = _window(layer)
        field, jump = field + (size - 1) * jump, jump * stride
        fields[layer.name] = math.ceil(field)
        for tensor in layer.output.values() if isinstance(layer.output, dict) else [layer.output]:
            seen[id(tensor)] = field, jump
    return fields


def _window(layer):
    """Positions of its input that one of a layer's output spans, and how many of them it moves by."""
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        return (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1, layer.strides[0]
    if isinstance(layer, layers.MaxPooling2D):
        return layer.pool_size[0], layer.strides[0]
    return (1, 1 / layer.size[0]) if isinstance(layer, layers.UpSampling2D) else (1, 1)
