"""One image and its objects as a tf.train.Example.

Writer and reader are side by side, so that they stay consistent. The keys are those of the TF
Object Detection API. Shapes: `N` objects.
"""

import contextlib
import errno
import hashlib

import tensorflow as tf

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
    """Make the record of one image.

    image: encoded bytes; boxes [N, 4] normalised corners; labels [N] from 1; texts [N] class names;
    areas [N] in pixels, default: those of the boxes; crowd and difficult [N], default: false;
    sha256: of `image`, in hexadecimal, default: computed.
    """
    boxes = [tuple(map(float, box)) for box in boxes]
    if areas is None:
        areas = [(ymax - ymin) * height * (xmax - xmin) * width for ymin, xmin, ymax, xmax in boxes]
    zeros = [0] * len(boxes)
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
            "image/object/is_crowd": zeros if crowd is None else crowd,
            "image/object/difficult": zeros if difficult is None else difficult,
        },
        "float_list": {"image/object/area": areas} | _list_sides(boxes),
    }
    return _fill(tf.train.Example(), lists)


@contextlib.contextmanager
def open_file(path):
    """A context with a function that appends a tf.train.Example to a new TFRecord file.

    The same Examples make the same bytes. Raises OSError if the file cannot be written.
    """
    try:
        with tf.io.TFRecordWriter(path) as writer:
            yield lambda example: writer.write(example.SerializeToString(deterministic=True))
    except tf.errors.OpError as error:
        is_full = isinstance(error, tf.errors.ResourceExhaustedError)
        detail = error.message.removeprefix(f"{path}; ")
        raise OSError(errno.ENOSPC if is_full else errno.EIO, detail, path) from None


def parse_example(serialized):
    """Parse a serialized tf.train.Example into an Example dict.

    Keys: image (encoded bytes), boxes [N, 4], labels [N], crowd [N] and difficult [N] bool, area
    [N] in pixels, source_id, file_name (the record's image/filename, "" if absent), height, width.

    Everything but the image, the boxes and the labels may be absent, as in records written for the
    TF Object Detection API.
    """
    parsed = tf.io.parse_single_example(serialized, _FEATURES)
    boxes = tf.stack([parsed[f"image/object/bbox/{side}"] for side in _SIDES], -1)
    labels = parsed["image/object/class/label"]
    num_objects = tf.shape(labels)[0]
    height, width = _image_size(parsed)
    sides = boxes[:, 2:] - boxes[:, :2]
    box_area = sides[:, 0] * sides[:, 1] * tf.cast(height * width, tf.float32)
    area = parsed["image/object/area"]
    return {
        "image": parsed["image/encoded"],
        "boxes": boxes,
        "labels": tf.saturate_cast(labels, tf.int32),  # 2**32 + 1 must not become 1
        "crowd": tf.cast(_or_zeros(parsed["image/object/is_crowd"], num_objects), tf.bool),
        "difficult": tf.cast(_or_zeros(parsed["image/object/difficult"], num_objects), tf.bool),
        "area": tf.cond(tf.size(area) > 0, lambda: area, lambda: box_area),
        "source_id": parsed["image/source_id"],
        "file_name": parsed["image/filename"],
        "height": height,
        "width": width,
    }


def parse_labels(serialized, train_difficult):
    """The labels [n] int64 of a record's objects that are trained: no crowds.

    train_difficult: whether difficult objects are trained.
    """
    keys = [f"image/object/{name}" for name in ("class/label", "is_crowd", "difficult")]
    parsed = tf.io.parse_single_example(serialized, {key: _FEATURES[key] for key in keys})
    labels, crowd, difficult = (parsed[key] for key in keys)
    ignored = _or_zeros(crowd, tf.shape(labels)[0])
    if not train_difficult:
        ignored += _or_zeros(difficult, tf.shape(labels)[0])
    return tf.boolean_mask(labels, ignored == 0)


def read_name(example) -> str:
    """The file name of an Example of NumPy values, or its source_id if it has none."""
    return to_text(example["file_name"] or example["source_id"])


def to_text(encoded: bytes) -> str:
    """Decode a name. Bytes that are not UTF-8 become surrogates, as in Python's file names."""
    return encoded.decode("utf-8", "surrogateescape")


def decode_stored(encoded):
    """Decode the image of a record to uint8 [H, W, 3], as stored: boxes refer to that.

    A JPEG, PNG, BMP or GIF.
    """
    # INTEGER_ACCURATE decodes as libjpeg and Pillow do; `channels` also converts grayscale files.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _image_size(parsed):
    height = parsed["image/height"]
    width = parsed["image/width"]
    shape = tf.cond(
        (height > 0) & (width > 0),
        lambda: tf.cast([height, width], tf.int32),
        lambda: tf.shape(decode_stored(parsed["image/encoded"]))[:2],
    )
    return shape[0], shape[1]


def _or_zeros(values, count):
    return tf.cond(tf.size(values) > 0, lambda: values, lambda: tf.zeros([count], tf.int64))


def _list_of(dtype):
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)


_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
    "image/filename": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/width": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/object/class/label": _list_of(tf.int64),
    "image/object/is_crowd": _list_of(tf.int64),
    "image/object/difficult": _list_of(tf.int64),
    "image/object/area": _list_of(tf.float32),
} | {f"image/object/bbox/{side}": _list_of(tf.float32) for side in _SIDES}


def _list_sides(boxes):
    return {
        f"image/object/bbox/{side}": [box[index] for box in boxes]
        for index, side in enumerate(_SIDES)
    }


def _fill(example, lists):
    """Put {kind of list: {key: values}} into an example, in place.

    Message constructors would copy the image three times.
    """
    converters = {"bytes_list": _to_bytes, "int64_list": int, "float_list": float}
    for kind, features in lists.items():
        for key, values in features.items():
            field = getattr(example.features.feature[key], kind)
            field.SetInParent()  # so that an empty list has its kind, too
            field.value.extend(map(converters[kind], values))
    return example


def _to_bytes(value):
    return value.encode() if isinstance(value, str) else value
