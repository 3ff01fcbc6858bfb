"""Third-party detectors: reads a file with the reader that its content needs, and imports it."""

import hashlib
import os
import pathlib
import typing
import zipfile

from absl import logging

from ssd_tf.config import apply_overrides, check_config
from ssd_tf.config.inheritance import merge
from ssd_tf.errors import ConfigError, shorten
from ssd_tf.models import ssd
from ssd_tf.weights import label_files, runs
from ssd_tf.weights.importers import (
    archives,
    array_files,
    downloads,
    families,
    imported,
    od_api,
    od_graph,
    od_tf2,
    od_tflite,
    pytorch_file,
    torchvision,
)
from ssd_tf.weights.importers.file_kinds import ARCHIVES, MODELS, check_source, checkpoint_prefix

# The settings of torchvision's detectors, as far as they are not our defaults.
_SSD300 = {
    "model": {"backbone": {"name": "vgg16", "mean_rgb": [122.99925, 116.9991, 103.9992]}},
    "boxes": {"preset": "torchvision"},
    "eval": {"clip_first": True, "size_limit": 62.5},
}
_SSDLITE = {
    "model": {
        "input_hw": [320, 320],
        "backbone": {"name": "mobilenet_v3_large"},
        "head": "separable",
    },
    "boxes": {"preset": "torchvision_ssdlite"},
    "eval": {
        "score_floor": 0.001,
        "nms_iou": 0.55,
        "pre_nms_top_k": 300,
        "max_detections": 300,
        "clip_first": True,
        "size_limit": 62.5,
    },
}


# Fewer detections than this cost AP on images with many objects.
_MIN_DETECTIONS = 100
# What a common tutorial on TFLite quantises the input for, of networks trained on -1 to 1.
_TUTORIAL_RANGE = (0.0, 1.0)
# The 80 of 90 ids that have a name, from the categories of COCO's instances_val2017.json.
_COCO_CLASSES = pathlib.Path(__file__).with_name("coco_classes.txt")
_NUM_COCO_IDS = 90


class _Kind(typing.NamedTuple):
    """A detector of torchvision: its name, class head on the first map, and config."""

    name: str
    class_head: str
    values: dict


_HEAD = "head.classification_head.module_list.0"
_TORCHVISION = (
    _Kind("ssd300_vgg16", f"{_HEAD}.weight", _SSD300),
    _Kind("ssdlite320_mobilenet_v3_large", f"{_HEAD}.1.weight", _SSDLITE),
)


class Reading(typing.NamedTuple):
    """What a file does not say, or says otherwise than wanted.

    pipeline_config: path of that of a checkpoint or SavedModel of TensorFlow 2; default: beside it
    or one folder up. input_range: (low, high) of the pixels that the network was trained on,
    instead of what the file says. keep_settings: keep the file's post-processing even if it
    suppresses across classes or returns few detections.
    """

    pipeline_config: str | os.PathLike[str] | None = None
    input_range: tuple[float, float] | None = None
    keep_settings: bool = False


def import_detector(source, output, labels=None, overrides=(), reading=Reading()):  # noqa: B008
    """Make a run folder of a third-party detector.

    source: a file, an archive, a SavedModel folder, a checkpoint, the folder of a download of the
    TF2 detection zoo, or a name in `downloads.DETECTORS`. output: the run folder, which is absent
    or empty. labels: a file of class names as `label_files.read_classes` takes it; None: COCO's
    for a published detector, else names are ids. overrides: `KEY=VALUE` for keys of the config that
    the file does not state.
    Raises ConfigError, in one line, if the file cannot be imported.
    """
    if downloads.is_name(source):
        source = downloads.find(source)
    detector = read_detector(source, reading.pipeline_config)
    if reading.input_range is not None:
        detector = _set_input_range(detector, reading.input_range)
    if not reading.keep_settings:
        detector = _use_our_settings(detector)
    count = imported.num_classes(detector, source)
    if labels is None and count == _NUM_COCO_IDS and downloads.is_published(pathlib.Path(source)):
        labels = _COCO_CLASSES
    classes = label_files.read_classes(labels, count, source)
    config = check_config(apply_overrides(detector.values, overrides), str(source))
    network = imported.build_network(detector, config, classes, source)
    imported.check_overrides(detector, config, network, source)
    origin = f"{pathlib.Path(source).name} ({detector.kind}{_describe_hash(source)})"
    config = config.model_copy(update={"imported_from": origin})
    for note in [*detector.notes, _describe_input_range(detector, config, reading.input_range)]:
        logging.info("%s", note)
    if labels is None:
        logging.info("the classes are called by their ids, 1 to %d: no names (--labels)", count)
    runs.write_run(config, network.model, classes, output)
    unused = count - len(classes)
    logging.info(
        "written: %s, %s; number of classes: %d%s",
        output,
        detector.kind,
        len(classes),
        f" ({unused} without a name left out)" if unused else "",
    )


def _set_input_range(detector, input_range):
    low, high = input_range
    std = 255 / (high - low)
    backbone = {"mean_rgb": [0.0 - low * std] * 3, "std_rgb": [std] * 3}
    return detector._replace(values=merge(detector.values, {"model": {"backbone": backbone}}))


def _describe_input_range(detector, config, given):
    """What pixels become, and why. given: --input_range, or None."""
    mean, std = ssd.normalization(config.model.backbone)
    low, high = (round((value - mean[0]) / std[0], 2) for value in (0, 255))
    text = f"pixels become {low:g} to {high:g}"
    if len(set(mean)) > 1 or len(set(std)) > 1:
        text = f"pixels are normalised by mean {list(mean)} and std {list(std)}"
    if given is not None:
        return f"{text}: --input_range"
    if "model.backbone.mean_rgb" in detector.assumed:
        return f"{text}, assumed, as the file does not say it (--input_range gives another)"
    text += f", as in the {detector.kind}"
    if (low, high) == _TUTORIAL_RANGE:
        text += "; networks of the API are trained on -1 to 1: compare --input_range=-1,1"
    return text


def _use_our_settings(detector):
    """The detector with NMS per class and at least 100 detections.

    One NMS for all classes and 10 detections were made for a demo on phones of 2018.
    """
    stated = detector.values.get("eval", {})
    ours = {}
    if stated.get("class_agnostic"):
        ours["class_agnostic"] = False
    if stated.get("max_detections", _MIN_DETECTIONS) < _MIN_DETECTIONS:
        ours["max_detections"] = _MIN_DETECTIONS
    notes = [
        f"eval.{key} = {value} instead of the file's {stated[key]} (--keep_settings)"
        for key, value in ours.items()
    ]
    values = merge(detector.values, {"eval": ours})
    return detector._replace(values=values, notes=[*detector.notes, *notes])


def _describe_hash(source):
    """The SHA-256 of a file, for the config; nothing for a folder or a checkpoint."""
    path = pathlib.Path(source)
    if not path.is_file():
        return ""
    return f", SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def read_detector(path, pipeline_config=None) -> imported.Imported:
    """Read a file or a SavedModel folder.

    Raises ConfigError, in one line, if it is not a detector that can be imported, or corrupt.
    """
    path = pathlib.Path(path)
    check_source(path)
    try:
        return _read(path, pipeline_config)
    except ConfigError:
        raise
    except Exception as error:  # a corrupt file makes readers raise almost anything
        raise ConfigError(
            f"{path} is corrupt ({type(error).__name__}: {shorten(error)})"
        ) from error


def _read(path, pipeline_config):
    if path.is_file() and path.name.endswith(ARCHIVES):
        return _read_archive(path, pipeline_config)
    path = _inside_download(path)
    if path.is_dir():
        return _read_saved_model(path, pipeline_config)
    prefix = checkpoint_prefix(path)
    if pathlib.Path(f"{prefix}.index").is_file():
        if od_tf2.is_checkpoint(prefix):
            return od_tf2.read_checkpoint(prefix, pipeline_config)
        return od_api.convert(od_graph.read_checkpoint(prefix), path)
    with open(path, "rb") as file:
        start = file.read(16)
    if start[4:8] == od_tflite.IDENTIFIER:
        return od_tflite.import_tflite(path)
    if zipfile.is_zipfile(path) or start[:1] == b"\x80":
        return _convert_torchvision(pytorch_file.read_state_dict(path), path)
    if start[8:9] == b"{":
        return _convert_torchvision(array_files.read_safetensors(path), path)
    return od_api.convert(od_graph.read_frozen_graph(path), path)


def _read_archive(path, pipeline_config):
    """Messages call the folder of its content by the name of the archive."""
    with archives.unpacked(path) as folder:
        try:
            check_source(folder, archive=path)
            detector = _read(folder, pipeline_config)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(folder), str(path))) from None
    notes = [note.replace(str(folder), str(path)) for note in detector.notes]
    return detector._replace(notes=notes)


def _read_saved_model(folder, pipeline_config):
    graph = od_graph.read_meta_graph(folder)
    if {"raw", "serving_bytes"} <= graph.signature_def.keys():
        raise ConfigError(f"{folder} {families.OWN_EXPORT}")
    if graph.object_graph_def.nodes:  # only TensorFlow 2 has objects
        families.check([each.signature.name for each in graph.graph_def.library.function], folder)
        return od_tf2.read_saved_model(folder, pipeline_config)
    return od_api.convert(od_graph.read_saved_model(folder, graph), folder)


def _inside_download(folder):
    """What to read of a download of the detection zoo; any other path itself.

    It is the newest checkpoint of TensorFlow 2, or else one of MODELS.
    """
    for inside in (folder, folder / "checkpoint"):
        found = sorted(inside.glob("ckpt-*.index"), key=lambda path: path.stat().st_mtime)
        if folder.is_dir() and found:
            return found[-1].with_suffix("")
    model = next((folder / name for name in MODELS if (folder / name).is_file()), folder)
    return model.parent if model.name == "saved_model.pb" else model


def _convert_torchvision(state, path):
    kind = next((kind for kind in _TORCHVISION if kind.class_head in state), None)
    if kind is None:
        families.check(state, path)
        raise ConfigError(
            f"{path} is not a torchvision detector (ssd300_vgg16, ssdlite320_mobilenet_v3_large); "
            f"it begins with {next(iter(state), 'nothing')}; weights of a classifier can be given "
            "as init_from"
        )
    model = check_config(kind.values, str(path)).model
    arrays = torchvision.convert(state, model, path)
    return imported.Imported(f"{kind.name} of torchvision", kind.values, arrays, [])
