"""COCO files: instances (ground truth) and results (detections), from our data or from disk.

Shapes: `N` objects of one image.
"""

import collections
import contextlib
import gc
import itertools
import json
import math
import os
import pathlib
import re
import typing

import numpy as np
from absl import logging

from ssd_tf.evaluation.tables import Found, Truth
from ssd_tf.inference.detections import to_xywh_pixels
from ssd_tf.inference.image_files import read_image

# pycocotools sorts ids with NumPy, whose integers end here.
_LARGEST_ID = 2**63 - 1
_ROWS_AT_ONCE = 1_000


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


def write_results(path, found: Found, ground_truth: dict, truth: Truth):
    """Write detections as a COCO results file, atomically; rows carry their image's names.

    ground_truth: the content of the instances file that truth was made of.
    """
    image_of = {row["id"]: row for row in ground_truth["images"]}
    heads = [_row_head(image_of[image_id]) for image_id in truth.image_ids]
    categories = [json.dumps(category_id) for category_id in truth.category_ids]
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        separator = "[\n"
        for start in range(0, len(found.scores), _ROWS_AT_ONCE):
            part = found.select(slice(start, start + _ROWS_AT_ONCE))
            # Formatted here, as json.dumps takes twice the time; a float's text is JSON.
            rows = [
                f'{heads[image]}"category_id": {categories[category]}, "bbox": {box}, '
                f'"score": {score}}}'
                for image, category, box, score in zip(*map(np.ndarray.tolist, part), strict=True)
            ]
            file.write(separator)
            file.write(",\n".join(rows))
            separator = ",\n"
        file.write("\n]\n" if len(found.scores) else "[]\n")
    os.replace(temporary, path)


def _row_head(image):
    """How the rows of an image begin."""
    names = {key: image[key] for key in ("file_name", "source_id") if key in image}
    return json.dumps({"image_id": image["id"], **names})[:-1] + ", "


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


def read_results(path, truth: Truth) -> Found:
    """Read a COCO results file.

    Detections of categories that the truth lacks are left out, with a warning. Raises
    FileNotFoundError, or ValueError if it is no such file or has images that the truth lacks.
    """
    parts = []
    unknown = collections.Counter()
    kind = f"{path} is not a COCO results file: rows"
    known_images = set(truth.image_ids)
    rows = rows_of(path, kind)
    count = 0
    with _without_garbage_collection():
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            columns = _result_columns(chunk)
            if columns is None or not known_images.issuperset(columns[0]):
                for index, row in enumerate(chunk, start=count):
                    _check_row(row, _RESULTS, f"{kind}[{index}]")
            parts.append(_place(*columns, truth, unknown, path))
            count += len(chunk)
    if unknown:
        logging.warning(
            "%s: %d detections ignored, of categories that the annotations lack: %s",
            path,
            unknown.total(),
            ", ".join(map(str, list(unknown)[:5])),
        )
    empty = Found(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    return Found(*map(np.concatenate, zip(empty, *parts, strict=True)))


@contextlib.contextmanager
def _without_garbage_collection():
    """A million short-lived rows, none of them in cycles, would start it a thousand times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _result_columns(rows):
    """Image ids, category ids, boxes [n, 4] and scores [n]; None if a row may be at fault."""
    try:
        ids = [[row[key] for row in rows] for key in ("image_id", "category_id")]
        boxes = [row["bbox"] for row in rows]
        scores = [row["score"] for row in rows]
        numbers = itertools.chain(scores, itertools.chain.from_iterable(boxes))
        is_typed = (
            set(map(type, numbers)) <= {int, float, bool}
            and set(map(type, itertools.chain(*ids))) <= {int, float, str}
            and set(map(type, boxes)) == {list}
            and set(map(len, boxes)) == {4}
        )
        columns = (np.array(boxes, float), np.array(scores, float))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if is_typed and all(np.isfinite(column).all() for column in columns):
        return (*ids, *columns)
    return None


def _place(image_ids, category_ids, boxes, scores, truth, unknown, path):
    """Columns with ids -> Found; categories that the truth lacks are left out, and counted."""
    image_place = {image_id: index for index, image_id in enumerate(truth.image_ids)}
    category_place = {i: index for index, i in enumerate(truth.category_ids)}
    images = [image_place.get(image_id, -1) for image_id in image_ids]
    if -1 in images:
        raise ValueError(
            f"{path} has detections of image {image_ids[images.index(-1)]!r}, "
            "which is not among the images of the annotations"
        )
    categories = np.array([category_place.get(i, -1) for i in category_ids])
    is_known = categories >= 0
    unknown.update(category_ids[row] for row in np.flatnonzero(~is_known))
    return Found(np.array(images), categories, boxes, scores).select(is_known)


def read_images(folder, ground_truth: dict, truth: Truth, indices) -> dict:
    """{index into truth.image_ids: its image}; a warning counts those that cannot be read."""
    names = {row["id"]: row.get("file_name", "") for row in ground_truth["images"]}
    images = {}
    for index in sorted(indices):
        path = pathlib.Path(folder) / names[truth.image_ids[index]]
        try:
            images[index] = read_image(path)
        except (OSError, ValueError) as error:
            logging.warning("%s cannot be read for the report (%s)", path, error)
    return images


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
        raise ValueError(_not_a_list(where, columns, rows))
    for index, row in enumerate(rows):
        _check_row(row, columns, f"{where}[{index}]")


def _not_a_list(where, columns, content):
    keys = ", ".join(column.key for column in columns if not column.optional)
    return f"{where}: expected a list of objects with {keys}, got {_brief(content)}"


def _check_row(row, columns, where):
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {_brief(row)}")
    for column in columns:
        value = row.get(column.key)
        if value is None and column.optional:
            continue
        if not column.accepts(value):
            raise ValueError(
                f"{where}: expected {column.key} as {column.expected}, got {_brief(value)}"
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
        return json.loads(_read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _read_text(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def rows_of(path, kind):
    """The values of the list in a JSON file, one at a time: as objects they would take gigabytes.

    Raises ValueError if the file is not JSON, or not a list.
    """
    text = _read_text(path)
    skip = re.compile(r"[ \t\n\r]*").match
    decode = json.JSONDecoder().raw_decode
    place = skip(text, 0).end()
    if text[place : place + 1] != "[":
        raise ValueError(_not_a_list(kind, _RESULTS, _read_json(path)))
    place = skip(text, place + 1).end()
    try:
        if text[place : place + 1] == "]":
            place = skip(text, place + 1).end()
        else:
            separator = ","
            while separator == ",":
                row, place = decode(text, place)
                yield row
                place = skip(text, place).end()
                separator = text[place : place + 1]
                place = skip(text, place + 1).end()
            if separator != "]":
                raise json.JSONDecodeError("expected , or ]", text, min(place, len(text)))
        if place < len(text):
            raise json.JSONDecodeError("expected the end", text, place)
    except json.JSONDecodeError as error:
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
