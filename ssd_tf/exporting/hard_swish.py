"""Hard-swish for int8 files: LiteRT 2.3 has a fast kernel for its parts, and none for the whole."""

import keras


class _HardSwish(keras.layers.Layer):
    """x / 6 * relu6(x + 3), in an order in which the converter does not see hard-swish."""

    def call(self, inputs):
        return (inputs * (1 / 6)) * keras.ops.relu6(inputs + 3.0)


def replace_hard_swish(model: keras.Model) -> keras.Model:
    """A copy of the model that computes hard-swish from its parts; the model itself if it has none.

    In int8 the network of SSDLite320-MobileNetV3 takes half of the time.
    """
    if not any(map(_is_hard_swish, model.layers)):
        return model

    def copy(layer):
        if _is_hard_swish(layer):
            return _HardSwish(name=layer.name)
        return type(layer).from_config(layer.get_config())

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def _is_hard_swish(layer):
    is_activation = isinstance(layer, keras.layers.Activation)
    return is_activation and layer.activation is keras.activations.hard_swish
