"""One way to call a run folder, a SavedModel or a TFLite file: an image in, detections out.

Shapes: `A` default boxes, `B` batch, `K` detections kept, `n` detections in one image.
"""

import pathlib

import numpy as np
import tensorflow as tf

from ssd_tf import onednn, pixels
from ssd_tf.config import Config, ConfigError
from ssd_tf.data.images import resize_array
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.gray_range import read_gray_range
from ssd_tf.inference.image_files import read_image
from ssd_tf.inference.run import load_run
from ssd_tf.inference.stages import Stages
from ssd_tf.models import ssd
from ssd_tf.models.folding import fold_batch_norm
from ssd_tf.models.postprocess import PostProcessor
from ssd_tf.user_files import check_exists, read_text
from ssd_tf.weights import label_files
from ssd_tf.weights.file_kinds import check_label_file


class Detector:
    """A model that detects objects in images of any size.

    detector(image) -> Detections; the image is a path, a Pillow image or uint8 [H, W, 3] RGB.
    detector.batch(images) -> a list of Detections.
    stages: preprocessing, network and post-processing, to be timed apart.
    kind: "keras", "saved_model" or "tflite".
    classes: names of the labels (None for a label without), or None when they are unknown.
    config: the config of a run, else None. default_boxes: [A, 4] of a run, else None.
    size_mb: of the exported model, or of the weights as float32, in 10^6 bytes.
    gray_range: of the training data, by which 16-bit images are read.
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
        onednn.avoid_slow_fusions()
        self.stages = stages
        self.kind = kind
        self.classes = classes
        self.config = config
        self.default_boxes = default_boxes
        self.size_mb = size_mb
        self.gray_range = gray_range

    def __call__(self, image) -> Detections:
        return self.batch([image])[0]

    def read_image(self, image):
        """The uint8 [H, W, 3] RGB that the model sees; see `image_files.read_image`."""
        return read_image(image, self.gray_range)

    def batch(self, images) -> list[Detections]:
        """Detect objects in a list of images, each of its own size.

        Raises OSError or ValueError for an image that cannot be read, ValueError for labels below
        1.
        """
        images = [_check_size(self.read_image(image)) for image in images]
        if not images:
            return []
        outputs = self.stages.network(self.stages.preprocess(images))
        return [
            _check_labels(Detections(*found, self.classes, image))
            for found, image in zip(self.stages.postprocess(outputs), images, strict=True)
        ]


def load_detector(
    path, labels=None, overrides=(), raw_weights=False, input_range=None, num_threads=1
) -> Detector:
    """Load a run folder, a SavedModel folder or a .tflite file, ours or third-party.

    A run folder gives its best checkpoint, else its last; averaged weights if EMA is on.
    labels: a file of class names for an exported model, as `label_files.read_classes` takes it;
    default: the label file inside a .tflite file, else the labels.txt that our exports bring along.
    Names that do not fit the number of the model's classes are rejected.
    overrides, raw_weights: for a run folder, as `load_run` takes them.
    input_range: for an exported model of floats, as `tflite.load` takes it. num_threads: for a
    .tflite file, too.
    Raises FileNotFoundError, ConfigError or ValueError.
    """
    path = pathlib.Path(path)
    check_exists(path, "model")
    if labels is not None:
        check_label_file(labels)
    if (path / "config.yaml").is_file():
        if labels is not None:
            raise ConfigError(f"--labels: {path} is a run folder, which has its own class names")
        run = load_run(path, overrides, raw_weights)
        info = run.dataset_info
        return keras_detector(run.config, run.network, info.names, info.gray_range)
    if overrides:
        raise ConfigError(
            f"--set {overrides[0]}: {path} is an exported model with fixed settings; give a run "
            "folder, or export again with --set"
        )
    if raw_weights:
        raise ConfigError(f"--raw_weights needs a run folder; {path} is an exported model")
    return _load_exported(path, labels, input_range, num_threads)


def _load_exported(path, labels, input_range, num_threads):
    inside = None
    if path.suffix == ".tflite" and path.is_file():
        from ssd_tf.inference import tflite  # loads the interpreter, which nothing else needs

        kind = "tflite"
        exported = tflite.load(path, input_range, num_threads)
        beside = path.with_name("labels.txt")
        if labels is None:
            inside = tflite.read_label_file(path)
        paths = [path]
    elif (path / "saved_model.pb").is_file():
        from ssd_tf.inference import saved_model

        kind = "saved_model"
        exported = saved_model.load(path, input_range)
        beside = path / "assets.extra" / "labels.txt"
        paths = filter(pathlib.Path.is_file, path.rglob("*"))
    else:
        raise ValueError(
            f"{path}: expected a run folder (config.yaml), a SavedModel folder (saved_model.pb) "
            "or a .tflite file"
        )
    return Detector(
        exported.stages,
        kind,
        _class_names(exported, path, labels, beside, inside),
        size_mb=sum(file.stat().st_size for file in paths) / 1e6,
        gray_range=read_gray_range(path) if exported.is_ours else pixels.FULL_RANGE,
    )


def make_postprocessor(config: Config, default_boxes) -> PostProcessor:
    """The post-processing that the config describes, for the evaluator and all exporters."""
    return PostProcessor(
        default_boxes=default_boxes,
        variances=config.boxes.variances,
        score_activation=config.loss.score_activation,
        score_floor=config.eval.score_floor,
        nms_iou=config.eval.nms_iou,
        class_agnostic=config.eval.class_agnostic,
        pre_nms_top_k=config.eval.pre_nms_top_k,
        max_detections=config.eval.max_detections,
        clip_first=config.eval.clip_first,
        size_limit=config.eval.size_limit,
    )


def make_detect(config: Config, network: ssd.SSD):
    """A function of TensorFlow ops: images [B, H, W, 3] float32, at input_hw -> Detections."""
    postprocessor = make_postprocessor(config, network.default_boxes)
    model = fold_batch_norm(network.model)
    return lambda images: postprocessor(model(images, training=False))


def keras_detector(
    config: Config, network: ssd.SSD, classes, gray_range=pixels.FULL_RANGE
) -> Detector:
    """A Detector of the Keras model with the configured post-processing.

    It keeps the weights that the network has now, unless batch norm is folded already.
    """
    postprocessor = make_postprocessor(config, network.default_boxes)
    model = fold_batch_norm(network.model)
    # One trace for all batch sizes: without a signature each new size costs a second or more.
    images = tf.TensorSpec([None, *config.model.input_hw, 3], tf.float32)
    predict = tf.function(lambda batch: model(batch, training=False), input_signature=[images])
    detect = tf.function(postprocessor).get_concrete_function(
        {
            "offsets": tf.TensorSpec([None, len(network.default_boxes), 4], tf.float32),
            "logits": tf.TensorSpec(network.model.output["logits"].shape, tf.float32),
        }
    )
    stages = Stages(
        preprocess=lambda images: np.stack(
            [resize_array(image, config.model.input_hw) for image in images]
        ),
        network=predict,
        postprocess=lambda predictions: _split_batch(detect(predictions)),
    )
    size_mb = 4 * network.model.count_params() / 1e6
    return Detector(stages, "keras", classes, config, network.default_boxes, size_mb, gray_range)


def _class_names(exported, path, given, beside, inside=None):
    """The class names of the file given, else those in the model, else of the file beside it.

    inside: (name, text) of a label file in the model. Our own files have a line per class, and
    each line is a name.
    """
    count = exported.num_classes
    if given is not None:
        return label_files.spread_names(label_files.read_classes(given, count, path))
    if inside is not None:
        source = path / inside[0]
        text = inside[1]
    elif beside.is_file():
        source = beside
        text = read_text(beside)
    else:
        return None
    if exported.is_ours:
        return label_files.parse_own_names(text, source, count)
    try:
        return label_files.spread_names(label_files.parse_classes(text, source, count, path))
    except ValueError as error:
        raise ValueError(f"{error}; --labels FILE gives other names") from None


def _check_size(image):
    """The image, uint8 [H, W, 3]. Raises ValueError if it has no pixels."""
    if not image.size:
        raise ValueError(f"expected an image with pixels, got {list(image.shape)}")
    return image


def _check_labels(detections):
    """The detections without rows that fill up. Raises ValueError for a label below 1."""
    is_low = detections.labels < 1
    if not is_low.any():
        return detections
    if detections.scores[is_low].max() > 0:
        raise ValueError(
            f"the model gives the label {detections.labels[is_low].min()}, expected labels from "
            "1: it counts its classes in another way, so that their names would be wrong"
        )
    return detections.select(~is_low)


def _split_batch(detections):
    """Detections [B, K, ...] -> (boxes, scores, labels) of n rows for each image."""
    detections = {name: value.numpy() for name, value in detections.items()}
    return [
        tuple(detections[name][index, :count] for name in ("boxes", "scores", "labels"))
        for index, count in enumerate(detections["count"])
    ]
