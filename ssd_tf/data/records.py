"""One picture and its objects as a tf.train.Example: the writer and the reader side by side, so that they cannot drift.

The keys are those of the TF Object Detection API. Shapes: `N` objects.
"""

import hashlib

import tensorflow as tf


def make_example(
    *,
    image,
    image_format,
    height,
    width,
    filename,
    source_id,
    boxes,
    labels,
    texts,
    areas=None,
    crowd=None,
    difficult=None,
    sha256=None,
) -> tf.train.Example:
    """image: encoded bytes; boxes [N, 4] normalised corners; labels [N] from 1; texts [N] class names; areas [N] in pixels.

    areas default to the boxes' own, crowd and difficult [N] to false; sha256: that of `image` in hexadecimal, if it is known.
    """
    boxes = [tuple(map(float, box)) for box in boxes]
    if areas is None:
        areas = [(ymax - ymin) * height * (xmax - xmin) * width for ymin, xmin, ymax, xmax in boxes]
    feature = {
        "image/encoded": _bytes([image]),
        "image/format": _bytes([image_format]),
        "image/filename": _bytes([filename]),
        "image/source_id": _bytes([source_id]),
        "image/key/sha256": _bytes([sha256 or hashlib.sha256(image).hexdigest()]),
        "image/height": _ints([height]),
        "image/width": _ints([width]),
        "image/object/class/label": _ints(labels),
        "image/object/class/text": _bytes(texts),
        "image/object/area": _floats(areas),
        "image/object/is_crowd": _ints(crowd if crowd is not None else [0] * len(boxes)),
        "image/object/difficult": _ints(difficult if difficult is not None else [0] * len(boxes)),
    }
    for column, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
        feature[f"image/object/bbox/{side}"] = _floats([box[column] for box in boxes])
    return tf.train.Example(features=tf.train.Features(feature=feature))


def parse_example(serialized):
    """Serialized tf.train.Example -> Example dict: image (encoded), boxes [N, 4], labels [N], crowd, difficult [N] bool,
    area [N] pixels, source_id, height, width.

    Everything but the image, the boxes and the labels may be absent, as in records written for the TF Object Detection API.
    """
    parsed = tf.io.parse_single_example(serialized, _FEATURES)
    boxes = tf.stack([parsed[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")], -1)
    labels = parsed["image/object/class/label"]
    number = tf.shape(labels)[0]
    height, width = _size(parsed)
    own_area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * tf.cast(height * width, tf.float32)
    return {
        "image": parsed["image/encoded"],
        "boxes": boxes,
        "labels": tf.cast(labels, tf.int32),
        "crowd": tf.cast(_or_zeros(parsed["image/object/is_crowd"], number), tf.bool),
        "difficult": tf.cast(_or_zeros(parsed["image/object/difficult"], number), tf.bool),
        "area": tf.cond(tf.size(parsed["image/object/area"]) > 0, lambda: parsed["image/object/area"], lambda: own_area),
        "source_id": parsed["image/source_id"],
        "height": height,
        "width": width,
    }


def decode_image(encoded):
    """Encoded JPEG, PNG, BMP or GIF -> uint8 [H, W, 3]."""
    # The JPEG path is the exact one (as libjpeg and Pillow decode) and names its three channels for grayscale files too.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _size(parsed):
    height, width = parsed["image/height"], parsed["image/width"]
    shape = tf.cond(
        (height > 0) & (width > 0),
        lambda: tf.cast([height, width], tf.int32),
        lambda: tf.shape(decode_image(parsed["image/encoded"]))[:2],
    )
    return shape[0], shape[1]


def _or_zeros(values, number):
    return tf.cond(tf.size(values) > 0, lambda: values, lambda: tf.zeros([number], tf.int64))


def _many(dtype):
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/width": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/object/class/label": _many(tf.int64),
    "image/object/is_crowd": _many(tf.int64),
    "image/object/difficult": _many(tf.int64),
    "image/object/area": _many(tf.float32),
    **{f"image/object/bbox/{side}": _many(tf.float32) for side in ("ymin", "xmin", "ymax", "xmax")},
}


def _bytes(values):
    values = [value.encode() if isinstance(value, str) else value for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value) for value in values]))


def _floats(values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
