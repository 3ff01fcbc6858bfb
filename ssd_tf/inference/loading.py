"""Load a detector from disk: a run folder, a SavedModel folder or a .tflite file."""

import pathlib

from ssd_tf import pixels
from ssd_tf.errors import ConfigError
from ssd_tf.inference.detector import Detector, keras_detector
from ssd_tf.inference.gray_range import read_gray_range
from ssd_tf.inference.run import load_run
from ssd_tf.user_files import check_exists, read_text
from ssd_tf.weights import label_files


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
        label_files.check_label_file(labels)
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
