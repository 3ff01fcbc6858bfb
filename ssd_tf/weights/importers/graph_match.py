"""Find the layers of our network in a third-party graph by its structure, whatever their names.

Both graphs are reduced to their convolutions: kind, shape of the kernel, stride, and which
convolutions feed it, through whatever lies in between. Two convolutions correspond if all that
leads to them and all that follows from them is the same.
"""

import collections
import typing

from keras import layers

from ssd_tf.models import heads
from ssd_tf.models.folding import graph_nodes


class Convolution(typing.NamedTuple):
    """A convolution in a graph.

    shape: of the kernel, (height, width, in, out); of a depthwise one (height, width, channels).
    inputs: indices of the convolutions that feed it, in the list of all of the graph.
    source: where the graph has it, for whoever reads the weights.
    role: "boxes" or "classes" of a head, which may have equal shapes; else empty.
    """

    shape: tuple[int, ...]
    strides: tuple[int, int]
    inputs: frozenset[int]
    source: typing.Any
    role: str = ""


class Call(typing.NamedTuple):
    """A call of one of our layers. output: id of the tensor that it makes."""

    layer: typing.Any
    output: int


def keras_convolutions(model) -> list[Convolution]:
    """The convolutions of a functional model; the source of each is a Call."""
    found = []
    feeding = {id(tensor): frozenset() for tensor in model.inputs}
    for node in graph_nodes(model):
        layer = node.operation
        inputs = frozenset().union(*(feeding[id(each)] for each in node.arguments.keras_tensors))
        call = Call(layer, id(node.outputs[0]))
        for part, shape in enumerate(_kernel_shapes(layer)):
            strides = tuple(layer.strides) if part == 0 else (1, 1)
            found.append(Convolution(shape, strides, inputs, call, _role(layer.name)))
            inputs = frozenset([len(found) - 1])
        for tensor in node.outputs:
            feeding[id(tensor)] = inputs
    return found


def _role(name):
    if heads.is_class_head(name):
        return "classes"
    return "boxes" if heads.is_box_head(name) else ""


def _kernel_shapes(layer):
    if isinstance(layer, layers.SeparableConv2D):
        return [tuple(layer.depthwise_kernel.shape[:3]), tuple(layer.pointwise_kernel.shape)]
    if isinstance(layer, layers.DepthwiseConv2D):
        return [tuple(layer.kernel.shape[:3])]
    return [tuple(layer.kernel.shape)] if isinstance(layer, layers.Conv2D) else []


def match(ours: list[Convolution], theirs: list[Convolution]) -> list[int] | None:
    """For each of our convolutions the index of theirs, or None if the graphs differ.

    Convolutions that no structure tells apart are alike in all that matters: they are paired in
    the order of the graphs.
    """
    numbers = {}
    keys = [_keys(graph, numbers) for graph in (ours, theirs)]
    indices = collections.defaultdict(list)
    for index, key in enumerate(keys[1]):
        indices[key].append(index)
    if collections.Counter(keys[0]) != collections.Counter(keys[1]):
        return None
    return [indices[key].pop(0) for key in keys[0]]


def _keys(graph, numbers):
    """For each convolution a number for all that leads to it and one for all that follows it."""
    before = []
    for each in graph:
        inputs = tuple(sorted(before[index] for index in each.inputs))
        key = (each.shape, each.strides, each.role, inputs)
        before.append(numbers.setdefault(key, len(numbers)))
    following = [[] for _ in graph]
    for index in reversed(range(len(graph))):
        key = ("after", graph[index].shape, graph[index].role, tuple(sorted(following[index])))
        number = numbers.setdefault(key, len(numbers))
        for feeder in graph[index].inputs:
            following[feeder].append(number)
        following[index] = number
    return list(zip(before, following, strict=True))
