"""Batch norm folded into the convolutions before it, for inference.

As an operation of its own it costs time, and with oneDNN much time on processors without AVX-512,
where it becomes four operations on each output of a slow kind of convolution.
"""

import collections
import typing

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ssd_tf.models.measure import graph_nodes

# Linear layers whose last kernel has the output channels in its last axes. Exact types: a subclass
# may compute something else.
_LINEAR = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of a functional model for inference, with batch norm folded where it can be.

    Inputs and outputs are the same, as are the names of the layers that stay; a folded convolution
    keeps its name, or takes the batch norm's if it has one per call. A batch norm stays unless it
    is the only consumer of a call of a linear layer whose every call is followed by one.
    The model itself if nothing can be folded. See `assign_folded` for weights that change later.
    """
    folds = _find_folds(model)
    if not folds:
        return model
    convolutions = {fold.layer for fold in folds}
    replaced = {fold.norm: _folded_layer(fold) for fold in folds}

    def copy(layer):
        if layer in convolutions:
            return layer
        return replaced[layer] if layer in replaced else type(layer).from_config(layer.get_config())

    # The folded layer takes the place of the batch norm, and the input of the convolution.
    def call(layer, *args, **kwargs):
        if layer in convolutions:
            return args[0]
        return layer(args[0]) if layer in replaced.values() else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    assign_folded(folded, model)
    return folded


def assign_folded(folded: keras.Model, model: keras.Model):
    """Give what fold_batch_norm(model) returned the current weights of the model, in place."""
    if folded is model:
        return
    folds = _find_folds(model)
    gone = {fold.layer for fold in folds} | {fold.norm for fold in folds}
    for layer in model.layers:
        if layer.weights and layer not in gone:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    for fold in folds:
        weights = _fold_weights(fold.layer.get_weights(), fold.layer.use_bias, fold.norm)
        folded.get_layer(fold.name).set_weights(weights)


def scale_per_call(model: keras.Model) -> keras.Model:
    """A copy for inference in which no kernel has to be stored once per call of its layer.

    Batch norm after a layer that is called several times becomes a 1x1 depthwise convolution:
    folded, it would need a kernel of its own for each call. The model itself if there is none.
    """
    norms = {fold.norm for fold in _find_folds(model) if fold.name != fold.layer.name}
    if not norms:
        return model
    names = {layer.name for layer in norms}

    def copy(layer):
        if layer in norms:
            return layers.DepthwiseConv2D(1, name=layer.name)
        return type(layer).from_config(layer.get_config())

    # A batch norm was called with more than its input.
    def call(layer, *args, **kwargs):
        return layer(args[0]) if layer.name in names else layer(*args, **kwargs)

    scaled = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer in norms:
            identity = np.ones([1, 1, layer.input.shape[-1], 1], np.float32)
            weights = _fold_weights([identity], False, layer)
        if weights:
            scaled.get_layer(layer.name).set_weights(weights)
    return scaled


def freeze(model: keras.Model):
    """A function of images [B, H, W, 3] that has the model's current weights as constants.

    oneDNN brings constant kernels into its layout once, and variables in every call, which costs
    single images a third of the time.
    """
    trainable, others = (
        [variable.numpy() for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )

    def predict(images):
        values = [[tf.constant(value) for value in values] for values in (trainable, others)]
        predictions, _ = model.stateless_call(*values, images, training=False)
        return predictions

    return predict


class _Fold(typing.NamedTuple):
    """A linear layer, the batch norm after one of its calls, and the name of both folded."""

    layer: keras.Layer
    norm: keras.Layer
    name: str


def _find_folds(model) -> list[_Fold]:
    nodes = graph_nodes(model)
    makers = {id(tensor): node.operation for node in nodes for tensor in node.outputs}
    num_calls = collections.Counter(node.operation for node in nodes)
    used = [tensor for node in nodes for tensor in node.arguments.keras_tensors]
    num_uses = collections.Counter(map(id, [*used, *model.outputs]))
    norms = collections.defaultdict(list)
    for node in nodes:
        if not _is_foldable_call(node) or num_calls[node.operation] > 1:
            continue
        (tensor,) = node.arguments.keras_tensors
        layer = makers[id(tensor)]
        if num_uses[id(tensor)] == 1 and _is_linear(layer):
            norms[layer].append(node.operation)
    return [
        _Fold(layer, norm, layer.name if len(following) == 1 else norm.name)
        for layer, following in norms.items()
        if len(following) == num_calls[layer]
        for norm in following
    ]


def _folded_layer(fold):
    config = fold.layer.get_config()
    return type(fold.layer).from_config({**config, "name": fold.name, "use_bias": True})


def _is_foldable_call(node):
    """Whether it is a batch norm of the last axis that uses its moving statistics at inference."""
    norm = node.operation
    if not isinstance(norm, layers.BatchNormalization) or len(node.arguments.keras_tensors) != 1:
        return False
    (tensor,) = node.arguments.keras_tensors
    is_last_axis = norm.axis in (-1, len(tensor.shape) - 1)
    return is_last_axis and not node.arguments.kwargs.get("training")


def _is_linear(layer):
    if type(layer) not in _LINEAR or layer.activation is not keras.activations.linear:
        return False
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _fold_weights(weights, use_bias, norm):
    """[*kernels, bias if use_bias] and a batch norm -> [*kernels, bias] that do both."""
    bias = weights.pop() if use_bias else 0.0
    *kernels, kernel = weights
    # In float64: rounded once.
    variance = norm.moving_variance.numpy().astype(float)
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale *= norm.gamma.numpy()
    bias = (bias - norm.moving_mean.numpy()) * scale
    if norm.center:
        bias += norm.beta.numpy()
    is_depthwise = kernel.shape[-1] != len(scale)
    kernel = kernel * (scale.reshape(kernel.shape[-2:]) if is_depthwise else scale)
    return [*kernels, kernel, bias]
