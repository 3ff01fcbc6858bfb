"""COCO files: instances (ground truth) and results (detections), from our data or from disk.

Shapes: `N` objects of one image, `n` detections in one image.
"""

import json
import math
import pathlib
import typing

import numpy as np

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
    """Read a COCO instances file. Raises FileNotFoundError, or ValueError for what it is not."""
    content = _read_json(path)
    kind = f"{path} is not a COCO instances file"
    if not isinstance(content, dict):
        raise ValueError(f"{kind}: expected an object with {', '.join(_INSTANCES)}")
    for key, columns in _INSTANCES.items():
        _check_rows(content.get(key), columns, f"{kind}: {key}")
    if not content["images"]:
        raise ValueError(f"{path} has no images, so there is nothing to measure")
    return content


def read_results(path) -> list[dict]:
    """Read a COCO results file. Raises FileNotFoundError, or ValueError for what it is not."""
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
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_id(value):
    return isinstance(value, str) or (_is_number(value) and not isinstance(value, bool))


def _is_box(value):
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_ID = _Column("id", "a number or a string", _is_id)
_IMAGE_ID = _ID._replace(key="image_id")
_CATEGORY_ID = _ID._replace(key="category_id")
_BOX = _Column("bbox", "four finite numbers (x, y, width, height)", _is_box)
_NUMBER = _Column("score", "a finite number", _is_number)
_NAME = _Column("name", "a string", lambda value: isinstance(value, str))

# pycocotools needs area and iscrowd; files without them are common.
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
