"""VGG16 cut and widened for SSD (Liu et al. 2016, sec. 3; the authors' fully convolutional, reduced VGG16)."""

import keras
from keras import layers

from ssd_tf.models import limits

# Of ImageNet in RGB, as the weights of VGG16 were trained on.
MEAN_RGB = (123.68, 116.779, 103.939)
STD_RGB = (1.0, 1.0, 1.0)

# Per extra stage: 1x1 channels, then channels, size and stride of the second convolution and the pixels it pads on every side.
_EXTRAS_300 = ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0))
_EXTRAS_512 = (
    (256, 512, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 3, 2, 1),
    (128, 256, 4, 1, 1),
)


def features(image, backbone, levels, bn_momentum):  # noqa: ARG001 - all backbones take the same four; this has no batch norm
    """Normalised image [B, H, W, 3] -> `levels` feature maps; at 300 x 300: 38, 19, 10, 5, 3, 1.

    Seven levels are the authors' SSD512 (at 512 x 512: 64, 32, 16, 8, 4, 2, 1), which strides further and ends in a 4x4.
    The first is conv4_3, L2-normalised over its channels with a learned scale from 20 (ParseNet, Liu et al. 2015), then fc7.
    """
    if levels > 7:
        raise ValueError(f"vgg16 gives at most 7 maps, model.num_levels asks for {levels}")
    x = image
    for block, (channels, count) in enumerate(
        ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1
    ):
        for index in range(1, count + 1):
            x = _conv(x, channels, 3, f"conv{block}_{index}")
        if block == 4:
            maps = [L2Normalization(initial_scale=20.0, name="conv4_3_norm")(x)]
        if block < 5:
            # "same" pads odd maps at the far side only: the ceil mode of the authors' pool3 (75 -> 38).
            x = layers.MaxPooling2D(2, 2, padding="same", name=f"pool{block}")(x)
    x = layers.MaxPooling2D(3, 1, padding="same", name="pool5")(x)
    x = _conv(x, 1024, 3, "fc6", dilation_rate=6)
    x = _conv(x, 1024, 1, "fc7")
    maps.append(x)
    extras = _EXTRAS_512 if levels == 7 else _EXTRAS_300
    for index, (narrow, *extra) in enumerate(extras[: levels - 2], start=6):
        x = _extra(_conv(x, narrow, 1, f"conv{index}_1"), *extra, name=f"conv{index}_2")
        maps.append(x)
    return maps


def stage_ends(backbone):  # noqa: ARG001
    """Names of the layers that end the stages: each pooling, then conv5_3."""
    return ["pool1", "pool2", "pool3", "pool4", "conv5_3"]


def _extra(x, channels, size, stride, pad, name):
    limits.check_window(x, size, pad, name)
    if pad:
        x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
    return _conv(x, channels, size, name, strides=stride, padding="valid")


def _conv(x, channels, size, name, padding="same", **options):
    return layers.Conv2D(
        channels,
        size,
        padding=padding,
        activation="relu",
        kernel_initializer="glorot_uniform",
        name=name,
        **options,
    )(x)


@keras.saving.register_keras_serializable("ssd_tf")
class L2Normalization(layers.Layer):
    """Divides each position's channels by their Euclidean norm and multiplies by a learned scale per channel."""

    def __init__(self, initial_scale=20.0, **options):
        super().__init__(**options)
        self.initial_scale = initial_scale

    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
            name="scale",
        )

    def call(self, inputs):
        # A sum of 512 squares wants float32 whatever the policy.
        # 1e-10 under the root, as in the authors' Normalize layer: an all-zero position stays zero.
        x = keras.ops.cast(inputs, "float32")
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), -1, keepdims=True) + 1e-10)
        return keras.ops.cast(x / norm, self.compute_dtype) * self.scale

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale}
