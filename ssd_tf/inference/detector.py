"""One way to call a run folder, a SavedModel or a TFLite file: an image in, detections out.

Shapes: `B` batch, `K` detections kept, `n` detections in one image.
"""

import pathlib

import numpy as np
import tensorflow as tf

from ssd_tf.config import Config, ConfigError
from ssd_tf.data.images import resize
from ssd_tf.inference.run import load_run
from ssd_tf.models import ssd
from ssd_tf.models.postprocess import PostProcessor


class Detector:
    """A model that detects objects in images of any size.

    detector(image): uint8 [H, W, 3] -> {"boxes" [n, 4] normalised corners, "scores" [n],
    "labels" [n] from 1}, highest score first. detector.batch(images) does the same for a list.
    kind: "keras", "saved_model" or "tflite".
    classes: names of the labels, or None when they are unknown.
    config: the config of a run, else None.
    """

    def __init__(self, detect_batch, kind, classes=None, config=None):
        """detect_batch: a list of images uint8 [H, W, 3] -> a list of dicts as described above."""
        self._detect_batch = detect_batch
        self.kind = kind
        self.classes = classes
        self.config = config

    def __call__(self, image):
        return self.batch([image])[0]

    def batch(self, images):
        """Detect objects in a list of images, each of its own size."""
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise ValueError(
                    "expected an image as uint8 [height, width, 3], "
                    f"got {image.dtype} {list(image.shape)}"
                )
        return self._detect_batch(images)


def load_detector(path, labels=None, overrides=(), raw_weights=False) -> Detector:
    """Load a run folder, a SavedModel folder or a .tflite file.

    A run folder gives its best checkpoint, else its last; averaged weights if EMA is on.
    labels: a text file of class names for an exported model, one per line; default: the labels.txt
    that our exports bring along.
    overrides, raw_weights: for a run folder, as `load_run` takes them.
    Raises FileNotFoundError, ConfigError or ValueError.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}")
    if (path / "config.yaml").is_file():
        run = load_run(path, overrides, raw_weights)
        return keras_detector(run.config, run.network, run.dataset_info.names)
    if overrides:
        raise ConfigError(
            f"--set {overrides[0]}: {path} is an exported model with fixed settings; give a run "
            "folder, or export again with --set"
        )
    if raw_weights:
        raise ConfigError(f"--raw_weights needs a run folder; {path} is an exported model")
    if path.suffix == ".tflite" and path.is_file():
        from ssd_tf.inference import tflite  # loads the interpreter, which nothing else needs

        names = _class_names(labels, path.with_name("labels.txt"))
        return Detector(tflite.make_runner(path), "tflite", names)
    if (path / "saved_model.pb").is_file():
        names = _class_names(labels, path / "assets.extra" / "labels.txt")
        return Detector(_saved_model_runner(path), "saved_model", names)
    raise ValueError(
        f"{path}: expected a run folder (config.yaml), a SavedModel folder (saved_model.pb) "
        "or a .tflite file"
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
    return lambda images: postprocessor(network.model(images, training=False))


def keras_detector(config: Config, network: ssd.SSD, classes) -> Detector:
    """A Detector of the Keras model with the configured post-processing."""
    detect = tf.function(make_detect(config, network))

    def run(images):
        batch = tf.stack([resize(image, config.model.input_hw) for image in images])
        return _split_batch({name: value.numpy() for name, value in detect(batch).items()})

    return Detector(run, "keras", classes, config)


def read_class_names(path):
    """Class names of a text file, one per line; a first line `???` or `background` is skipped."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of class names at {path}")
    names = path.read_text(encoding="utf-8").splitlines()
    return names[1:] if names and names[0] in ("???", "background") else names


def _class_names(given, beside):
    """The class names of the file given, else of the one beside the model, else None."""
    return read_class_names(given or beside) if given or beside.is_file() else None


def _saved_model_runner(path):
    loaded = tf.saved_model.load(str(path))

    def run_one(image):
        # By way of `loaded`: the signature by itself does not keep the variables alive.
        outputs = loaded.signatures["serving_default"](input_tensor=tf.constant(image[None]))
        detections = {
            "boxes": outputs["detection_boxes"].numpy(),
            "scores": outputs["detection_scores"].numpy(),
            "labels": outputs["detection_classes"].numpy().astype(np.int32),
            "count": outputs["num_detections"].numpy().astype(np.int32),
        }
        return _split_batch(detections)[0]

    return lambda images: [run_one(image) for image in images]


def _split_batch(detections):
    """Detections [B, K, ...] -> one dict of n rows per image."""
    return [
        {name: detections[name][index, :count] for name in ("boxes", "scores", "labels")}
        for index, count in enumerate(detections["count"])
    ]
