"""VGG16 cut and widened for SSD (Liu et al. 2016, sec. 3; the authors' fully convolutional, reduced VGG16)."""

import keras
from keras import layers

# Of ImageNet in RGB, as the weights of VGG16 were trained on.
MEAN_RGB = (123.68, 116.779, 103.939)

# Per extra stage: 1x1 channels, 3x3 channels, stride of the 3x3. Stride 2 pads by one pixel on every side, stride 1 by none.
_EXTRAS = ((256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1))


def features(image, levels=6):
    """RGB image tensor [B, H, W, 3] in 0..255 -> `levels` feature maps; at 300 x 300: 38, 19, 10, 5, 3, 1.

    The first is conv4_3, L2-normalised over its channels with a learned scale from 20 (ParseNet, Liu et al. 2015), then fc7.
    """
    if levels > 2 + len(_EXTRAS):
        raise ValueError(f"vgg16 gives at most {2 + len(_EXTRAS)} maps, model.levels asks for {levels}")
    x = layers.Rescaling(1.0, offset=[-mean for mean in MEAN_RGB], name="normalize")(image)
    for block, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
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
    for index, (narrow, wide, stride) in enumerate(_EXTRAS[: levels - 2], start=6):
        x = _conv(x, narrow, 1, f"conv{index}_1")
        if stride == 2:
            x = layers.ZeroPadding2D(1, name=f"conv{index}_2_pad")(x)
        x = _conv(x, wide, 3, f"conv{index}_2", strides=stride, padding="valid")
        maps.append(x)
    return maps


def _conv(x, channels, size, name, padding="same", **options):
    return layers.Conv2D(
        channels, size, padding=padding, activation="relu", kernel_initializer="glorot_uniform", name=name, **options
    )(x)


@keras.saving.register_keras_serializable("ssd_tf")
class L2Normalization(layers.Layer):
    """Divides each position's channels by their Euclidean norm and multiplies by a learned scale per channel."""

    def __init__(self, initial_scale=20.0, **options):
        super().__init__(**options)
        self.initial_scale = initial_scale

    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.initial_scale), name="scale"
        )

    def call(self, inputs):
        # 1e-10 under the root, as in the authors' Normalize layer: an all-zero position stays zero.
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(inputs), -1, keepdims=True) + 1e-10)
        return inputs / norm * self.scale

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale}
