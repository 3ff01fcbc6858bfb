"""Run SavedModels with the outputs of the TF Object Detection API, ours or foreign."""

import numpy as np
import tensorflow as tf

from ssd_tf.inference.stages import Stages

_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


def make_stages(path) -> Stages:
    """A SavedModel folder -> its Stages. Raises ValueError when it is no such detector."""
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise ValueError(f"{path} cannot be loaded as a SavedModel: {error}") from None
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        raise ValueError(f"{path}: expected a signature serving_default, got {_names(loaded)}")
    missing = [name for name in _OUTPUTS if name not in signature.structured_outputs]
    if missing:
        raise ValueError(
            f"{path}: expected the outputs of the TF Object Detection API, got "
            f"{', '.join(signature.structured_outputs)}: {', '.join(missing)} missing"
        )
    _, inputs = signature.structured_input_signature
    ((input_name, spec),) = inputs.items()
    takes_batches = spec.shape.rank == 4 and spec.shape[0] is None

    def run(batch):
        # By way of `loaded`: the signature by itself does not keep the variables alive.
        outputs = loaded.signatures["serving_default"](**{input_name: tf.cast(batch, spec.dtype)})
        return {name: outputs[name].numpy() for name in _OUTPUTS}

    return Stages(
        preprocess=lambda images: _to_batches(images, takes_batches),
        network=lambda batches: [run(batch) for batch in batches],
        postprocess=lambda outputs: [row for batch in outputs for row in _split(batch)],
    )


def _names(loaded):
    return ", ".join(loaded.signatures) or "none"


def _to_batches(images, takes_batches):
    """One batch if the images have one size, else one for each image."""
    if takes_batches and len({image.shape for image in images}) == 1:
        return [tf.constant(np.stack(images))]
    return [tf.constant(image[None]) for image in images]


def _split(outputs):
    for index, count in enumerate(outputs["num_detections"].astype(int)):
        boxes, scores, labels = (outputs[name][index, :count] for name in _OUTPUTS[:3])
        yield boxes, scores, labels.astype(np.int32)
