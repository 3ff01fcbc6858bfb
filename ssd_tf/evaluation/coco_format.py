"""COCO files: instances (ground truth) and results (detections), from our data or from disk.

Shapes: `N` objects of one image, `n` detections in one image.
"""

import json
import math
import pathlib
import typing

import numpy as np
from absl import logging

# pycocotools sorts ids with NumPy, whose integers end here.
_LARGEST_ID = 2**63 - 1


class ImageTruth(typing.NamedTuple):
    """What is kept of an Example once its image has been through the detector.

    boxes: [N, 4] normalised corners. labels: [N] from 1. crowd, difficult: [N] bool. area: [N] in
    pixels.
    """

    file_name: str
    source_id: str
    image_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray


def make_image_truth(example) -> ImageTruth:
    """An Example as NumPy arrays -> its ImageTruth."""
    return ImageTruth(
        file_name=_to_text(example["file_name"]),
        source_id=_to_text(example["source_id"]),
        image_hw=example["image"].shape[:2],
        boxes=example["boxes"],
        labels=example["labels"],
        crowd=example["crowd"],
        difficult=example["difficult"],
        area=example["area"],
    )


def image_ids(names) -> list[int]:
    """A unique id for each image.

    The numbers that the names spell if all of them are numbers and differ, else 1..n in order.
    """
    numbers = [int(name) for name in names if name.isdecimal()]
    if len(set(numbers)) == len(names) and max(numbers, default=0) <= _LARGEST_ID:
        return numbers
    return list(range(1, len(names) + 1))


def make_instances(truths: list[ImageTruth], classes) -> dict:
    """The content of a COCO instances file. classes: those of dataset.json, which give the ids.

    Each image also carries its `source_id`, each annotation the flag `difficult`.
    """
    ids = image_ids([truth.source_id for truth in truths])
    images = [_image_row(*pair) for pair in zip(ids, truths, strict=True)]
    annotations = [
        row
        for image_id, truth in zip(ids, truths, strict=True)
        for row in _annotation_rows(image_id, truth, classes)
    ]
    return {
        "images": images,
        "annotations": [{"id": i, **row} for i, row in enumerate(annotations, start=1)],
        "categories": [{"id": entry["id"], "name": entry["name"]} for entry in classes],
    }


def make_results(image, detections, classes) -> list[dict]:
    """The rows of a COCO results file for one image, boxes in its pixels.

    image: its row in `make_instances`. detections: {"boxes" [n, 4] normalised, "scores" [n],
    "labels" [n] from 1}. Each row also carries the image's `file_name` and `source_id`.
    """
    boxes = to_xywh_pixels(detections["boxes"], (image["height"], image["width"]))
    return [
        {
            "image_id": image["id"],
            "file_name": image["file_name"],
            "source_id": image["source_id"],
            "category_id": classes[label - 1]["id"],
            "bbox": box.tolist(),
            "score": float(score),
        }
        for box, label, score in zip(boxes, detections["labels"], detections["scores"], strict=True)
    ]


def to_xywh_pixels(boxes, image_hw):
    """Normalised corners [n, 4] -> x, y, width, height in pixels [n, 4]."""
    ymin, xmin, ymax, xmax = np.asarray(boxes, float).reshape(-1, 4).T
    height, width = image_hw
    return np.stack([xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height], 1)


def read_instances(path) -> dict:
    """Read a COCO instances file and complete its annotations as pycocotools needs them.

    Annotations of images that the file does not list are left out, with a warning. `iscrowd`
    defaults to 0 and `area` to the box's own. Annotation ids become 1..n unless all of them are
    positive integers and differ. Raises FileNotFoundError, or ValueError if it is not one.
    """
    content = _read_json(path)
    kind = f"{path} is not a COCO instances file"
    if not isinstance(content, dict):
        raise ValueError(f"{kind}: expected an object with {', '.join(_INSTANCES)}")
    for key, columns in _INSTANCES.items():
        _check_rows(content.get(key), columns, f"{kind}: {key}")
    for key in ("images", "categories"):
        _check_kind_of_ids(content[key], f"{kind}: {key}")
    if not content["images"]:
        raise ValueError(f"{path} has no images, so there is nothing to measure")
    annotations = _annotations_of_listed_images(content, path)
    return {**content, "annotations": _complete_annotations(annotations)}


def read_results(path) -> list[dict]:
    """Read a COCO results file. Raises FileNotFoundError, or ValueError if it is not one."""
    content = _read_json(path)
    _check_rows(content, _RESULTS, f"{path} is not a COCO results file: rows")
    return content


class _Column(typing.NamedTuple):
    """What a key of a row must hold. An optional key may be absent or null."""

    key: str
    expected: str
    accepts: typing.Callable
    optional: bool = False


def _is_number(value):
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _is_id(value):
    if isinstance(value, (str, bool)):
        return isinstance(value, str)
    return _is_number(value) and abs(value) <= _LARGEST_ID


def _is_box(value):
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_ID = _Column("id", "a string or a number of at most 64 bits", _is_id)
_IMAGE_ID = _ID._replace(key="image_id")
_CATEGORY_ID = _ID._replace(key="category_id")
_BOX = _Column("bbox", "four finite numbers (x, y, width, height)", _is_box)
_NUMBER = _Column("score", "a finite number", _is_number)
_NAME = _Column("name", "a string", lambda value: isinstance(value, str))

# Many files lack area or iscrowd.
_INSTANCES = {
    "images": [_ID],
    "annotations": [
        _IMAGE_ID,
        _CATEGORY_ID,
        _BOX,
        _NUMBER._replace(key="area", optional=True),
        _NUMBER._replace(key="iscrowd", optional=True),
    ],
    "categories": [_ID, _NAME],
}
_RESULTS = [_IMAGE_ID, _CATEGORY_ID, _BOX, _NUMBER]


def _check_rows(rows, columns, where):
    """Raise ValueError for the first fault of a list of rows; `where` begins its message."""
    if not isinstance(rows, list):
        keys = ", ".join(column.key for column in columns if not column.optional)
        raise ValueError(f"{where}: expected a list of objects with {keys}, got {_brief(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}[{index}]: expected an object, got {_brief(row)}")
        for column in columns:
            value = row.get(column.key)
            if value is None and column.optional:
                continue
            if not column.accepts(value):
                raise ValueError(
                    f"{where}[{index}]: expected {column.key} as {column.expected}, "
                    f"got {_brief(value)}"
                )


def _check_kind_of_ids(rows, where):
    """Raise ValueError unless the ids are all numbers or all strings: pycocotools sorts them."""
    first = rows[0]["id"] if rows else None
    for index, row in enumerate(rows):
        if isinstance(row["id"], str) != isinstance(first, str):
            raise ValueError(
                f"{where}[{index}]: expected ids that are all numbers or all strings, "
                f"got {_brief(first)} and {_brief(row['id'])}"
            )


def _annotations_of_listed_images(content, path):
    """The annotations whose image is in `images`; a warning counts the others.

    pycocotools ignores the others; to the VOC metrics they would be missed objects.
    """
    known_ids = {image["id"] for image in content["images"]}
    annotations = content["annotations"]
    unlisted = [i for i, row in enumerate(annotations) if row["image_id"] not in known_ids]
    if unlisted:
        logging.warning(
            "%s: %d of %d annotations ignored, because `images` lacks their image; "
            "the first is annotations[%d], of image %s",
            path,
            len(unlisted),
            len(annotations),
            unlisted[0],
            _brief(annotations[unlisted[0]]["image_id"]),
        )
    return [row for row in annotations if row["image_id"] in known_ids]


def _complete_annotations(annotations):
    """Copies of annotations with unique ids and the keys that pycocotools needs."""
    ids = [row.get("id") for row in annotations]
    if not _are_annotation_ids(ids):
        ids = range(1, len(annotations) + 1)
    return [_complete_annotation(*pair) for pair in zip(annotations, ids, strict=True)]


def _are_annotation_ids(ids):
    """To pycocotools, a match with id 0 is no match, and equal ids are one object."""
    return all(type(i) is int and 0 < i <= _LARGEST_ID for i in ids) and len(set(ids)) == len(ids)


def _complete_annotation(row, annotation_id):
    area = row.get("area")
    if area is None:
        _, _, width, height = row["bbox"]
        area = width * height
    iscrowd = int(bool(row.get("iscrowd")))
    return {**row, "id": annotation_id, "area": area, "iscrowd": iscrowd}


def _brief(value):
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _image_row(image_id, truth):
    height, width = truth.image_hw
    return {
        "id": image_id,
        "file_name": truth.file_name,
        "height": height,
        "width": width,
        "source_id": truth.source_id,
    }


def _annotation_rows(image_id, truth, classes):
    for index, box in enumerate(to_xywh_pixels(truth.boxes, truth.image_hw)):
        yield {
            "image_id": image_id,
            "category_id": classes[truth.labels[index] - 1]["id"],
            "bbox": box.tolist(),
            "area": float(truth.area[index]),
            "iscrowd": int(truth.crowd[index]),
            "difficult": int(truth.difficult[index]),
        }


def _to_text(encoded: bytes) -> str:
    """Names need not be Unicode: other bytes survive as surrogates, as in Python's file names."""
    return encoded.decode("utf-8", "surrogateescape")
