"""The networks of the TF2 detection zoo in plain TensorFlow, from a checkpoint's variables.

Written after models/ssd_mobilenet_v2_fpn_keras_feature_extractor.py,
models/ssd_resnet_v1_fpn_keras_feature_extractor.py, models/keras_models/resnet_v1.py,
models/feature_map_generators.py and predictors/convolutional_keras_box_predictor.py of the TF
Object Detection API, and independent of our own models.
"""

import itertools

import tensorflow as tf

# Expansion, channels, repetitions, stride: MobileNet v2, table 2.
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Strides of the blocks of MobileNet v1, table 1.
_V1 = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

_BACKBONE = "_feature_extractor/classification_backbone/layer_with_weights-"
# Number of bottlenecks of conv2 to conv5: ResNet-50.
_RESNET50 = (3, 4, 6, 3)


class Variables:
    """The variables of a checkpoint, by object, and which were used."""

    def __init__(self, values):
        self._values = values
        self.used = set()

    def __call__(self, place, name):
        key = f"{place}/{name}"
        self.used.add(key)
        return self._values[key]

    def has(self, place, name):
        return f"{place}/{name}" in self._values

    @property
    def left_over(self):
        return set(self._values) - self.used


def predict(variables, images, kind):
    """images [B, H, W, 3] in 0..255 -> offsets [B, A, 4] and logits [B, A, C + 1].

    kind: "v2_fpnlite", "v1_fpn", "resnet50_fpn" or "v2".
    """
    if kind == "resnet50_fpn":
        maps = _resnet50(variables, images - [123.68, 116.779, 103.939])
        return _shared_heads(variables, _pyramid(variables, maps), kind)
    x = images / 127.5 - 1
    if kind == "v2":
        maps = _extra_maps(variables, *_mobilenet_v2(variables, x)[2:])
        return _heads_per_map(variables, maps)
    backbone = _mobilenet_v1 if kind == "v1_fpn" else _mobilenet_v2
    return _shared_heads(variables, _pyramid(variables, backbone(variables, x)[:3]), kind)


def _conv(v, place, x, stride=1):
    if v.has(place, "depthwise_kernel"):
        kernel = v(place, "depthwise_kernel")
        x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
        stride = 1
        if not v.has(place, "pointwise_kernel"):
            return x
        kernel = v(place, "pointwise_kernel")
    else:
        kernel = v(place, "kernel")
    x = tf.nn.conv2d(x, kernel, stride, "SAME")
    return x + v(place, "bias") if v.has(place, "bias") else x


def _norm(v, place, x):
    names = ("moving_mean", "moving_variance", "beta", "gamma")
    return tf.nn.batch_normalization(x, *(v(place, name) for name in names), 1e-3)


def _backbone_layers(v):
    """A function (x, stride) that applies the next convolution and its batch norm."""
    numbers = itertools.count()

    def apply(x, stride=1):
        x = _conv(v, f"{_BACKBONE}{next(numbers)}", x, stride)
        return _norm(v, f"{_BACKBONE}{next(numbers)}", x)

    return apply


def _mobilenet_v1(v, x):
    apply = _backbone_layers(v)
    x = tf.nn.relu6(apply(x, 2))
    maps = []
    for index, stride in enumerate(_V1, start=1):
        x = tf.nn.relu6(apply(x, stride))
        x = tf.nn.relu6(apply(x))
        if index in (5, 11, 13):
            maps.append(x)
    return maps


def _mobilenet_v2(v, x):
    """block_5, block_12, Conv_1, and the expansion of block_13."""
    apply = _backbone_layers(v)
    x = tf.nn.relu6(apply(x, 2))
    ends = []
    expansions = []
    for factor, channels, repetitions, first_stride in _V2:
        for index in range(repetitions):
            stride = first_stride if index == 0 else 1
            y = tf.nn.relu6(apply(x)) if factor > 1 else x
            expansions.append(y)
            y = tf.nn.relu6(apply(y, stride))
            y = apply(y)
            x = x + y if stride == 1 and x.shape[-1] == channels else y
            ends.append(x)
    last = tf.nn.relu6(apply(x))
    return ends[5], ends[12], last, expansions[13]


def _resnet50(v, x):
    """conv3, conv4 and conv5. Keras counts the shortcut's layers before those of the third."""
    numbers = itertools.count()

    def take(count):
        return [f"{_BACKBONE}{next(numbers)}" for _ in range(count)]

    conv, norm = take(2)
    x = tf.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]])
    x = tf.nn.conv2d(x, v(conv, "kernel"), 2, "VALID")
    x = tf.nn.max_pool2d(tf.nn.relu6(_norm(v, norm, x)), 3, 2, "SAME")
    maps = []
    for stage, count in enumerate(_RESNET50):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            conv1, norm1, conv2, norm2 = take(4)
            y = tf.nn.relu6(_norm(v, norm1, _conv(v, conv1, x, stride)))
            y = tf.nn.relu6(_norm(v, norm2, _conv(v, conv2, y)))
            if block == 0:
                conv0, conv3, norm0, norm3 = take(4)
                x = _norm(v, norm0, _conv(v, conv0, x, stride))
            else:
                conv3, norm3 = take(2)
            x = tf.nn.relu6(x + _norm(v, norm3, _conv(v, conv3, y)))
        maps.append(x)
    return maps[1:]


def _pyramid(v, maps):
    root = "_feature_extractor/_fpn_features_generator"
    x = _conv(v, f"{root}/top_layers/0", maps[2])
    outputs = [x]
    for index, feature in enumerate((maps[1], maps[0])):
        lateral = _conv(v, f"{root}/residual_blocks/{index}/0", feature)
        x = tf.repeat(tf.repeat(x, 2, 1), 2, 2)[:, : lateral.shape[1], : lateral.shape[2]] + lateral
        x = _conv(v, f"{root}/conv_layers/{index}/0", x)
        x = tf.nn.relu6(_norm(v, f"{root}/conv_layers/{index}/1", x))
        outputs.insert(0, x)
    for index in range(2):
        place = f"_feature_extractor/_coarse_feature_layers/{index}"
        x = tf.nn.relu6(_norm(v, f"{place}/1", _conv(v, f"{place}/0", outputs[-1], 2)))
        outputs.append(x)
    return outputs


def _shared_heads(v, maps, kind):
    root = "_box_predictor"
    names = ("PredictionTower",) * 2
    norms = ("box_encodings",) * 2
    if kind != "v2_fpnlite":
        names = ("BoxPredictionTower", "ClassPredictionTower")
        norms = ("box_encodings", "class_predictions_with_background")
    heads = (
        f"{root}/_box_prediction_head/_box_encoder_layers/0",
        f"{root}/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0",
    )
    outputs = []
    for name, norm, head in zip(names, norms, heads, strict=True):
        of_maps = []
        for level, x in enumerate(maps):
            for layer in range(4):
                x = _conv(v, f"{root}/_head_scope_conv_layers/{name}/{layer}", x)
                place = f"{root}/_base_tower_layers_for_heads/{norm}/{level}/{1 + 3 * layer}"
                x = tf.nn.relu6(_norm(v, place, x))
            of_maps.append(_conv(v, head, x))
        outputs.append(of_maps)
    return _list(outputs, [6] * len(maps))


def _extra_maps(v, last, expansion):
    maps = [expansion, last]
    for index in range(2, 6):
        place = f"_feature_extractor/feature_map_generator/convolutions/{index}"
        x = tf.nn.relu6(_norm(v, f"{place}/1", _conv(v, f"{place}/0", maps[-1])))
        maps.append(tf.nn.relu6(_norm(v, f"{place}/4", _conv(v, f"{place}/3", x, 2))))
    return maps


def _heads_per_map(v, maps):
    root = "_box_predictor/_prediction_heads"
    offsets = [
        _conv(v, f"{root}/box_encodings/{level}/_box_encoder_layers/0", x)
        for level, x in enumerate(maps)
    ]
    name = f"{root}/class_predictions_with_background"
    logits = [
        _conv(v, f"{name}/{level}/_class_predictor_layers/0", x) for level, x in enumerate(maps)
    ]
    return _list((offsets, logits), [3, *[6] * 5])


def _list(outputs, boxes_per_cell):
    return tuple(
        tf.concat(
            [
                tf.reshape(x, [len(x), -1, x.shape[-1] // k])
                for x, k in zip(of_maps, boxes_per_cell, strict=True)
            ],
            1,
        )
        for of_maps in outputs
    )
