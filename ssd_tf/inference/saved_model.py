"""Run SavedModels with the outputs of the TF Object Detection API, ours or third-party."""

import numpy as np
import tensorflow as tf

from ssd_tf.data.images import resize_array
from ssd_tf.errors import shorten
from ssd_tf.inference.detector import Stages
from ssd_tf.inference.exported import Exported, reject_input_range, scale_to_range

# Of a batch [B, K, 4], [B, K], [B, K] and [B].
_OUTPUT_RANKS = {
    "detection_boxes": 3,
    "detection_scores": 2,
    "detection_classes": 2,
    "num_detections": 1,
}
# Of the API: a score for each class of each detection, the background's first.
_CLASS_SCORES = "detection_multiclass_scores"
_PIXEL_DTYPES = (tf.uint8, tf.int32)


def load(path, input_range=None) -> Exported:
    """Load a SavedModel folder.

    input_range: (low, high), what the darkest and the brightest pixel become for a float input.
    Raises ValueError when it is no such detector, or the range is needed and not given.
    """
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # a corrupt one raises almost anything
        raise ValueError(f"{path} cannot be loaded as a SavedModel: {shorten(error)}") from None
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ValueError(f"{path}: expected a signature serving_default, got {_names(loaded)}")
    _check_outputs(signature.structured_outputs, path)
    name, spec = _find_input(signature, path)
    prepare = _make_prepare(spec, input_range, path)
    shapes = [spec.shape, *(signature.structured_outputs[name].shape for name in _OUTPUT_RANKS)]
    takes_batches = all(shape.rank and shape[0] is None for shape in shapes)

    def run(batch):
        # By way of `loaded`: the signature by itself does not keep the variables alive.
        outputs = loaded.signatures["serving_default"](**{name: batch})
        return {output: outputs[output].numpy() for output in _OUTPUT_RANKS}

    stages = Stages(
        preprocess=lambda images: _to_batches([prepare(image) for image in images], takes_batches),
        network=lambda batches: [run(batch) for batch in batches],
        postprocess=lambda outputs: [row for batch in outputs for row in _split(batch)],
    )
    return Exported(stages, *_describe_classes(loaded))


def _names(loaded):
    return ", ".join(loaded.signatures) or "none"


def _check_outputs(outputs, path):
    missing = [name for name in _OUTPUT_RANKS if name not in outputs]
    if missing:
        raise ValueError(
            f"{path}: expected the outputs of the TF Object Detection API, got "
            f"{', '.join(outputs)}: {', '.join(missing)} missing"
        )
    for name, rank in _OUTPUT_RANKS.items():
        spec = outputs[name]
        is_number = spec.dtype.is_floating or spec.dtype.is_integer
        if spec.shape.rank not in (None, rank) or not is_number:
            raise ValueError(
                f"{path}: expected {name} as numbers in {rank} dimensions, got {spec.dtype.name} "
                f"{spec.shape}"
            )


def _find_input(signature, path):
    """(name, spec) of the only input, images [B, H, W, 3] of fixed size or of any."""
    _, inputs = signature.structured_input_signature
    if len(inputs) != 1:
        raise ValueError(f"{path}: expected one input, the image, got {', '.join(inputs)}")
    ((name, spec),) = inputs.items()
    if spec.dtype == tf.string:
        raise ValueError(
            f"{path} takes encoded images or records; export it with an input of pixels "
            "(image_tensor)"
        )
    if not _is_image(spec.shape):
        raise ValueError(
            f"{path}: expected images [B, H, W, 3] of any size or of one as input, got {spec.shape}"
        )
    return name, spec


def _is_image(shape):
    """Whether a shape is [B, H, W, 3], of one size or of any, or not known at all."""
    if shape.rank != 4:
        return shape.rank is None
    batch, height, width, channels = shape
    return batch in (None, 1) and channels in (None, 3) and (height is None) == (width is None)


def _make_prepare(spec, input_range, path):
    """A function of a uint8 image that gives it in the type and the size of the input."""
    scale = 1.0
    shift = 0.0
    if spec.dtype == tf.float32:
        scale, shift = scale_to_range(input_range, path)
    elif spec.dtype in _PIXEL_DTYPES:
        reject_input_range(input_range, path, f"takes pixels as {spec.dtype.name}")
    else:
        names = ", ".join(dtype.name for dtype in (*_PIXEL_DTYPES, tf.float32))
        raise ValueError(f"{path}: expected an input of {names}, got {spec.dtype.name}")
    input_hw = spec.shape[1:3].as_list() if spec.shape.rank == 4 else [None, None]

    def prepare(image):
        if None not in input_hw:
            image = resize_array(image, input_hw)
        if spec.dtype == tf.float32:
            return (image * scale + shift).astype(np.float32)
        return np.round(image).astype(spec.dtype.as_numpy_dtype)

    return prepare


def _describe_classes(loaded):
    """(the number of classes or None, whether the model is one of our exports)."""
    raw = loaded.signatures.get("raw")
    if raw is not None and "serving_bytes" in loaded.signatures:
        logits = raw.structured_outputs.get("logits")
        if logits is not None and logits.shape.rank == 3:
            return logits.shape[-1] - 1, True
    scores = loaded.signatures["serving_default"].structured_outputs.get(_CLASS_SCORES)
    if scores is not None and scores.shape.rank == 3 and scores.shape[-1] is not None:
        return scores.shape[-1] - 1, False
    return None, False


def _to_batches(images, takes_batches):
    """One batch if the images have one size, else one for each image."""
    if takes_batches and len({image.shape for image in images}) == 1:
        return [tf.constant(np.stack(images))]
    return [tf.constant(image[None]) for image in images]


def _split(outputs):
    names = list(_OUTPUT_RANKS)
    for index, count in enumerate(np.round(outputs["num_detections"]).astype(int)):
        boxes, scores, labels = (outputs[name][index, : max(count, 0)] for name in names[:3])
        yield boxes, scores, np.round(labels).astype(np.int32)
