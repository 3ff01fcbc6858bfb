"""One picture and its objects as a tf.train.Example: the writer and the reader side by side, so that they cannot drift.

The keys are those of the TF Object Detection API. Shapes: `N` objects.
"""

import hashlib

import tensorflow as tf

from ssd_tf.data.images import decode_image

_SIDES = ("ymin", "xmin", "ymax", "xmax")


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
    none = [0] * len(boxes)
    lists = {
        "bytes_list": {
            "image/encoded": [image],
            "image/format": [image_format],
            "image/filename": [filename],
            "image/source_id": [source_id],
            "image/key/sha256": [sha256 or hashlib.sha256(image).hexdigest()],
            "image/object/class/text": texts,
        },
        "int64_list": {
            "image/height": [height],
            "image/width": [width],
            "image/object/class/label": labels,
            "image/object/is_crowd": none if crowd is None else crowd,
            "image/object/difficult": none if difficult is None else difficult,
        },
        "float_list": {
            "image/object/area": areas,
            **{
                f"image/object/bbox/{side}": [box[k] for box in boxes]
                for k, side in enumerate(_SIDES)
            },
        },
    }
    return _fill(tf.train.Example(), lists)


def parse_example(serialized):
    """Serialized tf.train.Example -> Example dict: image (encoded), boxes [N, 4], labels [N], crowd, difficult [N] bool,
    area [N] pixels, source_id, height, width.

    Everything but the image, the boxes and the labels may be absent, as in records written for the TF Object Detection API.
    """
    parsed = tf.io.parse_single_example(serialized, _FEATURES)
    boxes = tf.stack([parsed[f"image/object/bbox/{side}"] for side in _SIDES], -1)
    labels = parsed["image/object/class/label"]
    number = tf.shape(labels)[0]
    height, width = _size(parsed)
    own_area = (
        (boxes[:, 2] - boxes[:, 0])
        * (boxes[:, 3] - boxes[:, 1])
        * tf.cast(height * width, tf.float32)
    )
    return {
        "image": parsed["image/encoded"],
        "boxes": boxes,
        "labels": tf.saturate_cast(labels, tf.int32),  # so that 2**32 + 1 does not come out as 1
        "crowd": tf.cast(_or_zeros(parsed["image/object/is_crowd"], number), tf.bool),
        "difficult": tf.cast(_or_zeros(parsed["image/object/difficult"], number), tf.bool),
        "area": tf.cond(
            tf.size(parsed["image/object/area"]) > 0,
            lambda: parsed["image/object/area"],
            lambda: own_area,
        ),
        "source_id": parsed["image/source_id"],
        "height": height,
        "width": width,
    }


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
    **{f"image/object/bbox/{side}": _many(tf.float32) for side in _SIDES},
}


def _fill(example, lists):
    """Puts {kind of list: {key: values}} into an example, in place: constructors of messages would copy the picture thrice."""
    plain = {
        "bytes_list": lambda x: x.encode() if isinstance(x, str) else x,
        "int64_list": int,
        "float_list": float,
    }
    for kind, features in lists.items():
        for key, values in features.items():
            field = getattr(example.features.feature[key], kind)
            field.SetInParent()  # an empty list has its kind, too
            field.value.extend(map(plain[kind], values))
    return example
