"""The detector: an image in, detections out; made of a Keras model here, of a file in `loading`.

Shapes: `A` default boxes, `B` batch, `K` detections kept, `n` detections in one image.
"""

import os
import typing
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_tf import pixels, processor
from ssd_tf.config import Config
from ssd_tf.data.images import resize_array
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.thresholds import Thresholds
from ssd_tf.models import ssd
from ssd_tf.models.folding import fold_batch_norm, freeze
from ssd_tf.models.postprocess import PostProcessor

# What a detector takes as an image: a file, its bytes, a Pillow image or uint8 [H, W, 3] RGB.
ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


class Stages(typing.NamedTuple):
    """The stages of a detector, which can be timed apart; each takes the result of the one before.

    preprocess: a list of uint8 images [H, W, 3] -> a batch as the network takes it.
    network: the batch -> outputs, all computed when it returns.
    postprocess: the outputs -> for each image (boxes [n, 4] normalised corners, scores [n],
    labels [n] int32 from 1), highest score first.
    What an exported model does inside its graph is part of `network`.
    """

    preprocess: typing.Callable
    network: typing.Callable
    postprocess: typing.Callable


class Detector:
    """A model that detects objects in images of any size.

    detector(image) -> Detections; the image is a path, a Pillow image or uint8 [H, W, 3] RGB.
    detector.batch(images) -> a list of Detections.
    stages: preprocessing, network and post-processing, to be timed apart.
    kind: "keras", "saved_model" or "tflite".
    classes: names of the labels (None for a label without), or None when they are unknown.
    config: the config of a run, else None. default_boxes: [A, 4] of a run, else None.
    size_mb: of the exported model, or of the weights as float32, in 10^6 bytes.
    gray_range: of the training data; 16-bit images are read with it.
    thresholds: the score from which on a detection of a class is shown, as `ssd evaluate` chose it;
    None without a thresholds.json.
    """

    def __init__(
        self,
        stages: Stages,
        kind,
        classes=None,
        config=None,
        default_boxes=None,
        size_mb=0.0,
        gray_range=pixels.FULL_RANGE,
    ):
        processor.avoid_slow_fusions(tf)
        self.stages = stages
        self.kind = kind
        self.classes = classes
        self.config = config
        self.default_boxes = default_boxes
        self.size_mb = size_mb
        self.gray_range = gray_range
        self.thresholds: Thresholds | None = None

    def __call__(self, image: ImageSource) -> Detections:
        return self.batch([image])[0]

    def read_image(self, image: ImageSource) -> np.ndarray:
        """The uint8 [H, W, 3] RGB that the model sees; see `pixels.read_image`."""
        return pixels.read_image(image, self.gray_range)

    def batch(self, images: Iterable[ImageSource]) -> list[Detections]:
        """Detect objects in a list of images, each of its own size.

        Raises OSError or ValueError for an image that cannot be read, ValueError for labels below
        1.
        """
        arrays = [_check_size(self.read_image(image)) for image in images]
        if not arrays:
            return []
        outputs = self.stages.network(self.stages.preprocess(arrays))
        return [
            _check_labels(Detections(boxes, scores, labels, self.classes, image, self.thresholds))
            for (boxes, scores, labels), image in zip(
                self.stages.postprocess(outputs), arrays, strict=True
            )
        ]


def make_postprocessor(config: Config, default_boxes) -> PostProcessor:
    """The post-processing that the config describes, for the evaluator and all exporters."""
    return PostProcessor(
        config.eval,
        default_boxes=default_boxes,
        variances=config.boxes.variances,
        score_activation=config.model.score_activation,
    )


def make_detect(config: Config, network: ssd.SSD):
    """A function of TensorFlow ops: images [B, H, W, 3] float32, at input_hw -> Detections."""
    postprocessor = make_postprocessor(config, network.default_boxes)
    model = fold_batch_norm(network.model)
    return lambda images: postprocessor(model(images, training=False))


def keras_detector(
    config: Config, network: ssd.SSD, classes, gray_range=pixels.FULL_RANGE, weights_change=False
) -> Detector:
    """A Detector of the Keras model with the configured post-processing.

    It keeps the current weights of the network. weights_change: it follows them instead; then the
    network must have its batch norm folded already, as `folding.assign_folded` fills it.
    """
    postprocessor = make_postprocessor(config, network.default_boxes)
    model = fold_batch_norm(network.model)
    # One trace for all batch sizes: without a signature each new size costs a second or more.
    images = tf.TensorSpec([None, *config.model.input_hw, 3], tf.float32)
    predict = (lambda batch: model(batch, training=False)) if weights_change else freeze(model)
    detect = tf.function(postprocessor, autograph=False).get_concrete_function(
        {
            "offsets": tf.TensorSpec([None, len(network.default_boxes), 4], tf.float32),
            "logits": tf.TensorSpec(network.model.output["logits"].shape, tf.float32),
        }
    )
    stages = Stages(
        preprocess=lambda images: np.stack(
            [resize_array(image, config.model.input_hw) for image in images]
        ),
        network=tf.function(predict, input_signature=[images], autograph=False),
        postprocess=lambda predictions: _split_batch(detect(predictions)),
    )
    size_mb = 4 * network.model.count_params() / 1e6
    return Detector(stages, "keras", classes, config, network.default_boxes, size_mb, gray_range)


def _check_size(image):
    """The image, uint8 [H, W, 3]. Raises ValueError if it has no pixels."""
    if not image.size:
        raise ValueError(f"expected an image with pixels, got {list(image.shape)}")
    return image


def _check_labels(detections):
    """The detections without the rows that pad them. Raises ValueError for a label below 1."""
    is_low = detections.labels < 1
    if not is_low.any():
        return detections
    if detections.scores[is_low].max() > 0:
        raise ValueError(
            f"the model gives the label {detections.labels[is_low].min()}, expected labels from "
            "1: its classes are numbered differently, so their names would be wrong"
        )
    return detections.select(~is_low)


def _split_batch(detections):
    """Detections [B, K, ...] -> (boxes, scores, labels) of n rows for each image."""
    detections = {name: value.numpy() for name, value in detections.items()}
    return [
        tuple(detections[name][index, :count] for name in ("boxes", "scores", "labels"))
        for index, count in enumerate(detections["count"])
    ]
