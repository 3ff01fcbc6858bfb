"""Batch norm folded into the convolutions before it, for inference.

As an operation of its own it costs time, and with oneDNN much time on processors without AVX-512,
where it becomes four operations on each output of a slow kind of convolution.
"""

import collections

import keras
import numpy as np
import tensorflow as tf
from keras import layers

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

    Inputs, outputs and layer names are the same, but for the batch norms that are gone. A batch
    norm stays unless it is the only consumer of a layer without activation that is called once.
    The model itself if nothing can be folded. See `assign_folded` for weights that change later.
    """
    norms = _foldable_norms(model)
    if not norms:
        return model
    folded_norms = set(norms.values())

    def copy(layer):
        if layer in folded_norms:
            return layer
        config = layer.get_config()
        if layer in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer, *args, **kwargs):
        return args[0] if layer in folded_norms else layer(*args, **kwargs)

    folded = keras.models.clone_model(model, clone_function=copy, call_function=call)
    assign_folded(folded, model)
    return folded


def assign_folded(folded: keras.Model, model: keras.Model):
    """Give what fold_batch_norm(model) returned the present weights of the model, in place."""
    if folded is model:
        return
    norms = _foldable_norms(model)
    folded_norms = set(norms.values())
    for layer in model.layers:
        if layer.weights and layer not in folded_norms:
            weights = layer.get_weights()
            if layer in norms:
                weights = _fold_weights(weights, layer.use_bias, norms[layer])
            folded.get_layer(layer.name).set_weights(weights)


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


def _foldable_norms(model):
    """{linear layer: the batch norm to fold into it}."""
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    makers = {id(tensor): node.operation for node in nodes for tensor in node.outputs}
    num_calls = collections.Counter(node.operation for node in nodes)
    used = [tensor for node in nodes for tensor in node.arguments.keras_tensors]
    num_uses = collections.Counter(map(id, [*used, *model.outputs]))
    norms = {}
    for node in nodes:
        norm = node.operation
        if not _is_foldable_call(node):
            continue
        (tensor,) = node.arguments.keras_tensors
        layer = makers[id(tensor)]
        is_alone = num_calls[layer] == num_calls[norm] == num_uses[id(tensor)] == 1
        if is_alone and _is_linear(layer):
            norms[layer] = norm
    return norms


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
