"""Weights to start from: what `--start` names, or else the best that can be had here."""

import collections.abc
import pathlib
import types
import typing
from collections.abc import Iterator

from absl import logging

from ssd_tf.class_names import normalize
from ssd_tf.config import Backbone, check_run_folder
from ssd_tf.errors import ConfigError
from ssd_tf.user_files import suggest_path
from ssd_tf.weights import label_files
from ssd_tf.weights.importers import downloads, file_kinds, imagenet

BEST_NAME = "tf2:ssd_mobilenet_v2_fpnlite_320x320"
_DETECTOR = "finetune.yaml"
_IMAGENET = "finetune_imagenet.yaml"
_SCRATCH = "shapes_plain.yaml"
# Kept default: what an ImageNet start of finetune_imagenet.yaml is, in the order of accuracy.
_BACKBONES = (
    {"name": "mobilenet_v2", "padding": "same"},
    {"name": "mobilenet_v2", "padding": "torch"},
    {"name": "mobilenet", "padding": "keras", "alpha": 0.25},
)
_COCO_CLASSES = frozenset(["person", "bicycle", "car", "dog", "cat", "chair", "bottle"])
_LABEL_SUFFIXES = (".txt", ".pbtxt", ".json")
_MODEL_SUFFIXES = (".tflite", ".pb")
_MAX_DEPTH = 2  # of the folders below SSD_TF_WEIGHTS


class Start(typing.NamedTuple):
    """Where training starts.

    shown, reason: for the user. base: the config to build on. source: what `ssd import` takes, or
    None; labels: a file of its class names, or None. values: keys of the config, by path.
    """

    shown: str
    reason: str
    base: str
    source: str | None = None
    labels: str | None = None
    values: collections.abc.Mapping = types.MappingProxyType({})


def find_starts(requested: str | None) -> Iterator[Start]:
    """The starts that can be had, the best first, and scratch last.

    requested: a name of `ssd import --list`, a file, a run folder, `imagenet` or `scratch`: then it
    is the only one. Raises ConfigError if there is nothing of that name.
    """
    if requested == "scratch":
        yield _scratch("--start scratch")
    elif requested == "imagenet":
        yield next(_find_imagenet(), _download_imagenet())
    elif requested is not None:
        yield _read_request(requested)
    else:
        yield from _find_detectors()
        yield from _find_imagenet()
        yield _scratch("no weights can be had: neither a download nor a file in SSD_TF_WEIGHTS")


def _read_request(requested):
    path = pathlib.Path(requested)
    if downloads.is_name(requested):
        if requested not in downloads.DETECTORS:
            raise ConfigError(
                f"--start: unknown name {requested}; known: {', '.join(downloads.DETECTORS)}"
            )
        return _published(requested, "--start")
    if (path / "config.yaml").is_file():
        check_run_folder(path)
        values = {"init_from": str(path.resolve())}
        return Start(f"the run {path}", "--start", _DETECTOR, values=values)
    if not path.exists():
        raise ConfigError(
            f"--start: expected a name of `ssd import --list`, a file, a run folder, imagenet or "
            f"scratch, got {requested}{suggest_path(path)}"
        )
    file_kinds.check_source(path, "--start")
    return _file(path, "--start")


def _find_detectors():
    published = downloads.DETECTORS[BEST_NAME]
    cost = f"AP {published.ap / 100:.3f} on COCO"
    if downloads.find_local(BEST_NAME) is not None:
        yield _published(BEST_NAME, f"{cost}; downloaded before")
    files = rank(_coco_files())
    for path in files:
        if _is_best(path):
            yield _file(path, "found in SSD_TF_WEIGHTS")
    if downloads.find_local(BEST_NAME) is None and not any(map(_is_best, files)):
        if downloads.is_reachable(BEST_NAME):
            yield _published(BEST_NAME, f"{cost}; a download of about {published.megabytes} MB")
        else:
            logging.info("%s cannot be reached: looking in SSD_TF_WEIGHTS", published.url)
    for path in files:
        if not _is_best(path):
            yield _file(path, f"no connection to {BEST_NAME}; found in SSD_TF_WEIGHTS")


def _published(name, reason):
    return Start(f"the detector {name}", reason, _DETECTOR, source=name)


def _file(path, reason):
    labels = find_labels(path)
    return Start(f"the detector {path.name}", reason, _DETECTOR, str(path), labels and str(labels))


def find_labels(path) -> pathlib.Path | None:
    """The file of class names beside a model: of its name, else labels.txt or label_map.pbtxt."""
    names = [path.stem + suffix for suffix in _LABEL_SUFFIXES]
    for name in (*names, "labels.txt", "label_map.pbtxt"):
        if path.with_name(name).is_file():
            return path.with_name(name)
    return None


def _coco_files():
    """The detectors of COCO's classes in the folder of downloads."""
    folder = downloads.weights_folder()
    for depth in range(1, _MAX_DEPTH + 1):
        for path in sorted(folder.glob("/".join("*" * depth))):
            if path.suffix in _MODEL_SUFFIXES and path.is_file() and _knows_coco(path):
                yield path


def _knows_coco(path):
    labels = find_labels(path)
    if labels is None:
        return False
    try:
        text = labels.read_text(encoding="utf-8")
        classes = label_files.parse_classes(text, labels, None, path)
    except (OSError, ValueError):
        return False
    return {normalize(entry["name"]) for entry in classes} >= _COCO_CLASSES


def rank(paths) -> list[pathlib.Path]:
    """Files of detectors, the most promising first: by their names, pyramids before others."""
    return sorted(paths, key=lambda path: (not _is_best(path), "fpn" not in path.name, str(path)))


def _is_best(path):
    return "fpnlite" in path.name.replace("_lite", "lite") and "320" in path.name


def _find_imagenet():
    """The ImageNet files that are here."""
    for keys in _BACKBONES:
        file = imagenet.choose_file(Backbone(**keys))
        path = next((path for path in _places(file) if path.is_file()), None)
        if path is not None:
            values = {f"model.backbone.{key}": value for key, value in keys.items()}
            alpha = f" {keys['alpha']}" if "alpha" in keys else ""
            yield Start(
                f"{keys['name']}{alpha} with ImageNet weights ({path.name})",
                "no detector can be had, which would be worth AP .03 to .08 on a few hundred "
                "images; a classifier knows shapes and textures",
                _IMAGENET,
                values={"init_from": str(path.resolve()), **values},
            )


def _download_imagenet():
    return Start("mobilenet_v2 with ImageNet weights", "--start imagenet; a download", _IMAGENET)


def _places(file):
    """Where the files of a backbone may be."""
    return [downloads.weights_folder() / name for name in file.names]


def _scratch(reason):
    return Start(
        "random weights",
        f"{reason}; from scratch a detector needs thousands of images and hours",
        _SCRATCH,
    )
