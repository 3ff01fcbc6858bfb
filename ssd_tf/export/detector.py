"""One way to call a run folder, a SavedModel or a TFLite file: picture in, detections out.

Shapes: `K` detections that the model keeps, `n` detections found in one picture.
"""

import pathlib

import numpy as np
import tensorflow as tf

from ssd_tf.config import load_config
from ssd_tf.data import augment, dataset_json
from ssd_tf.models import postprocess, ssd
from ssd_tf.training import checkpoints


class Detector:
    """Calls `run` on batches of pictures of any size.

    detector(image): uint8 [H, W, 3] -> {"boxes" [n, 4] normalised corners, "scores" [n], "labels" [n] from 1}, by falling score.
    detector.batch(images) does the same for a list. classes: names of the labels, or None where they are not known.
    """

    def __init__(self, run, kind, classes=None, config=None):
        self._run, self.kind, self.classes, self.config = run, kind, classes, config

    def __call__(self, image):
        return self.batch([image])[0]

    def batch(self, images):
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise ValueError(
                    f"a picture must be uint8 [height, width, 3], found {image.dtype} {image.shape}"
                )
        return self._run(images)


def load_detector(path, labels=None) -> Detector:
    """A run folder (best checkpoint, else last; averaged weights where EMA is on), a SavedModel folder or a .tflite file.

    labels: a text file of class names, one a line; default: labels.txt beside the model. Raises FileNotFoundError or ValueError.
    """
    path = pathlib.Path(path)
    if path.suffix == ".tflite" and path.is_file():
        from ssd_tf.export import tflite  # the interpreter is loaded only where it is wanted

        names = _labels(labels, path.with_name("labels.txt"))
        return Detector(tflite.make_runner(path), "tflite", names)
    if (path / "saved_model.pb").is_file():
        names = _labels(labels, path / "assets.extra" / "labels.txt")
        return Detector(_saved_model_runner(path), "saved_model", names)
    if (path / "config.yaml").is_file():
        config, info, model = load_run(path)
        return keras_detector(config, model, info.names)
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}")
    raise ValueError(
        f"{path} is no run folder (config.yaml), no SavedModel folder (saved_model.pb) and no .tflite file"
    )


def load_run(workdir):
    """A run folder -> its Config, DatasetInfo and Keras model with the weights of the best checkpoint, else of the last."""
    config = load_config(pathlib.Path(workdir) / "config.yaml")
    info = dataset_json.read_dataset(workdir)
    prefix = checkpoints.find_checkpoint(workdir)
    model = ssd.build_model(config, len(info.classes))
    checkpoints.assign_weights(model, checkpoints.read_weights(prefix))
    return config, info, model


def keras_detector(config, model, classes) -> Detector:
    """The Keras model with the configured post-processing."""
    detect = tf.function(make_detect(config, model))

    def run(images):
        batch = tf.stack([augment.resize(image, config.model.input_hw) for image in images])
        return _trim({name: value.numpy() for name, value in detect(batch).items()})

    return Detector(run, "keras", classes, config)


def make_detect(config, model):
    """A function of graph ops: images [B, H, W, 3] float32 at the model's size -> Detections; every exporter wraps this one."""
    default_boxes, options = ssd.make_default_boxes(config), config.eval

    def detect(images):
        return postprocess.detect(
            model(images, training=False),
            default_boxes,
            config.boxes.variances,
            score_floor=options.score_floor,
            nms_iou=options.nms_iou,
            pre_nms_top_k=options.pre_nms_top_k,
            max_detections=options.max_detections,
            scores=config.loss.scores,
            clip_first=options.clip_first,
            size_limit=options.size_limit,
        )

    return detect


def _labels(given, beside):
    """Class names of the file that the user names, else of the one beside the model, else None."""
    return read_labels(given or beside) if given or beside.is_file() else None


def read_labels(path):
    """Class names of a text file, one a line, a first line `???` or `background` left out."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of class names at {path}")
    names = path.read_text().splitlines()
    return names[1:] if names and names[0] in ("???", "background") else names


def _saved_model_runner(path):
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]

    def run_one(image):
        found = serve(input_tensor=tf.constant(image[None]))
        return _trim(
            {
                "boxes": found["detection_boxes"].numpy(),
                "scores": found["detection_scores"].numpy(),
                "labels": found["detection_classes"].numpy().astype(np.int32),
                "count": found["num_detections"].numpy().astype(np.int32),
            }
        )[0]

    def run(images):
        run.module = loaded  # the signature alone does not keep its variables alive
        return [run_one(image) for image in images]

    return run


def _trim(detections):
    """Detections [B, K, ...] -> one dict of n rows per picture."""
    return [
        {name: detections[name][index, :count] for name in ("boxes", "scores", "labels")}
        for index, count in enumerate(detections["count"])
    ]
