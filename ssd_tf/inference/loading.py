"""Load a detector from disk: a run folder, a SavedModel folder or a .tflite file."""

import os
import pathlib
import typing
from collections.abc import Sequence

from ssd_tf import pixels
from ssd_tf.config import Config, load_run_config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.inference import saved_model, tflite
from ssd_tf.inference.detector import Detector, keras_detector
from ssd_tf.inference.exported import read_gray_range, reject_input_range
from ssd_tf.inference.thresholds import THRESHOLDS_FILE, Thresholds, read_thresholds
from ssd_tf.models import ssd
from ssd_tf.user_files import check_exists, read_text
from ssd_tf.weights import label_files, runs
from ssd_tf.weights.assign import assign


class Run(typing.NamedTuple):
    """A run folder's content; the network has the weights of the best checkpoint, else the last.

    thresholds: as `ssd evaluate` chose them, or None.
    """

    config: Config
    dataset_info: dataset_json.DatasetInfo
    network: ssd.SSD
    thresholds: Thresholds | None = None


def load_run(workdir, overrides=(), raw_weights=False) -> Run:
    """Read a run folder.

    overrides: `KEY=VALUE` for keys of eval and export, the sections that training does not fix.
    raw_weights: those of the last step instead of the averaged ones, if EMA is on.
    Raises FileNotFoundError, ConfigError or ValueError.
    """
    for override in overrides:
        if not override.startswith(("eval.", "export.")):
            raise ConfigError(
                f"--set {override}: expected a key of eval or export; training fixed all others"
            )
    config = load_run_config(workdir, overrides)
    dataset_info = dataset_json.read_dataset(workdir)
    prefix = runs.find_checkpoint(workdir)
    weights = runs.read_weights(prefix, averaged=not raw_weights)
    network = ssd.build_model(config, len(dataset_info.classes))
    assign(network.model, runs.group_by_layer(weights, network.model), prefix)
    thresholds = read_thresholds(pathlib.Path(workdir) / THRESHOLDS_FILE)
    return Run(config, dataset_info, network, thresholds)


def load_detector(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    raw_weights: bool = False,
    input_range: tuple[float, float] | None = None,
    num_threads: int = 1,
) -> Detector:
    """Load a run folder, a SavedModel folder or a .tflite file, ours or third-party.

    A run folder gives its best checkpoint, else its last; averaged weights if EMA is on.
    labels: a file of class names for an exported model, as `label_files.read_classes` takes it;
    default: the label file inside a .tflite file, else the labels.txt that our exports bring along.
    Names that do not fit the number of the model's classes are rejected.
    Thresholds come from thresholds.json in the run folder, in a SavedModel's assets.extra, or
    beside a .tflite file.
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
        reject_input_range(input_range, path, "is a run folder: its network takes 0 to 255")
        run = load_run(path, overrides, raw_weights)
        info = run.dataset_info
        detector = keras_detector(run.config, run.network, info.names, info.gray_range)
        detector.thresholds = run.thresholds
        return detector
    if overrides:
        raise ConfigError(
            f"--set {overrides[0]}: {path} is an exported model with fixed settings; give a run "
            "folder, or export again with --set"
        )
    if raw_weights:
        raise ConfigError(f"--raw_weights needs a run folder; {path} is an exported model")
    if path.suffix == ".tflite" and path.is_file():
        return _load_tflite(path, labels, input_range, num_threads)
    if (path / "saved_model.pb").is_file():
        return _load_saved_model(path, labels, input_range)
    raise ValueError(
        f"{path}: expected a run folder (config.yaml), a SavedModel folder (saved_model.pb) "
        "or a .tflite file"
    )


def _load_tflite(path, labels, input_range, num_threads):
    exported = tflite.load(path, input_range, num_threads)
    inside = tflite.read_label_file(path) if labels is None else None
    classes = _class_names(exported, path, labels, path.with_name("labels.txt"), inside)
    thresholds = read_thresholds(path.with_name(THRESHOLDS_FILE))
    return _make_detector("tflite", exported, path, classes, path.stat().st_size, thresholds)


def _load_saved_model(path, labels, input_range):
    exported = saved_model.load(path, input_range)
    extra = path / "assets.extra"
    classes = _class_names(exported, path, labels, extra / "labels.txt")
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    thresholds = read_thresholds(extra / THRESHOLDS_FILE)
    return _make_detector("saved_model", exported, path, classes, size, thresholds)


def _make_detector(kind, exported, path, classes, size, thresholds):
    gray_range = read_gray_range(path) if exported.is_ours else pixels.FULL_RANGE
    detector = Detector(exported.stages, kind, classes, size_mb=size / 1e6, gray_range=gray_range)
    detector.thresholds = thresholds
    return detector


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
