"""COCO instances: the ground truth of our data, or of a file.

Shapes: `N` objects of one image.
"""

import collections
import math
import pathlib
import typing

import numpy as np
from absl import logging

from ssd_tf import coco_rows, pixels
from ssd_tf.coco_rows import normalize_id
from ssd_tf.evaluation.json_files import brief, read_json
from ssd_tf.evaluation.tables import Truth, image_rows
from ssd_tf.inference.detections import LARGEST_ID, image_ids, to_xywh_pixels
from ssd_tf.parsing import to_flag
from ssd_tf.pixels import read_image

# The lists of an instances file, and what their rows need.
_KEYS = {
    "images": "id",
    "annotations": "image_id, category_id, bbox",
    "categories": "id, name",
}


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


def read_instances(path) -> dict:
    """Read a COCO instances file and complete its rows as pycocotools needs them.

    Ids, boxes, areas and flags are read as the converter reads them: `coco_rows`. What cannot be
    used is left out, and a warning counts it. Annotation ids become 1..n unless all of them are
    positive integers and differ. Raises FileNotFoundError, or ValueError if it is not one, or
    nothing of it can be used.
    """
    content = read_json(path)
    kind = f"{path} is not a COCO instances file"
    if not isinstance(content, dict):
        raise ValueError(f"{kind}: expected an object with {', '.join(_KEYS)}")
    for key, fields in _KEYS.items():
        _check_rows(content.get(key), fields, f"{kind}: {key}")
    has_zero = any(normalize_id(row.get("category_id")) == 0 for row in content["annotations"])
    rows, note = coco_rows.without_root(content["categories"], has_zero)
    if note:
        logging.info("%s: %s", path, note)
    categories = coco_rows.read_categories(rows, path)
    images = _read_image_rows(content["images"], path)
    spelled = {normalize_id(row["id"]): row for row in rows}
    image_ids = _ids_of_one_kind(images)
    category_ids = _ids_of_one_kind(categories)
    return {
        **content,
        "images": [{**row, "id": image_ids[row["id"]]} for row in images],
        "annotations": _read_annotations(content["annotations"], image_ids, category_ids, path),
        "categories": [
            {**spelled[row["id"]], **row, "id": category_ids[row["id"]]} for row in categories
        ],
    }


def read_images(folder, ground_truth: dict, truth: Truth, indices, gray_range=None) -> dict:
    """{index into truth.image_ids: its image}; a warning names each that cannot be read.

    gray_range: of images of 16 bits, as `pixels.to_rgb` takes it; None: the full range.
    """
    rows = image_rows(ground_truth, truth)
    images = {}
    for index in sorted(indices):
        name = coco_rows.read_file_name(rows[index])
        try:
            if name is None:
                raise ValueError("it has no file_name")
            images[index] = read_image(pathlib.Path(folder, name), gray_range or pixels.FULL_RANGE)
        except (OSError, ValueError) as error:
            image = name or f"image {rows[index]['id']}"
            logging.warning("%s cannot be read for the report (%s)", image, error)
    return images


def _check_rows(rows, fields, where):
    if not isinstance(rows, list):
        raise ValueError(f"{where}: expected a list of objects with {fields}, got {brief(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}[{index}]: expected an object, got {brief(row)}")


def _ids_of_one_kind(rows):
    """{id: the same}, all of them text if one of them is: pycocotools sorts them."""
    ids = [row["id"] for row in rows]
    has_text = any(isinstance(value, str) for value in ids)
    return {value: str(value) if has_text else value for value in ids}


def _read_image_rows(rows, path):
    """Copies of `images` with ids and file names as `coco_rows` reads them."""
    images = {}
    left_out = _LeftOut("images")
    for index, row in enumerate(rows):
        image_id = normalize_id(row.get("id"))
        if image_id is None:
            left_out.add("no id", index, row, "id")
            continue
        if image_id in images:
            raise ValueError(f"{path}: two images have the id {image_id}; ids must differ")
        images[image_id] = {**row, "id": image_id}
        file_name = coco_rows.read_file_name(row)
        if file_name:
            images[image_id]["file_name"] = file_name
    left_out.report(path, len(rows))
    if not images:
        raise ValueError(f"{path} has no images, so there is nothing to measure")
    return list(images.values())


def _read_annotations(rows, image_ids, category_ids, path):
    """Completed copies of the annotations that can be used, with these ids: {read: written}."""
    left_out = _LeftOut("annotations")
    annotations = []
    for index, row in enumerate(rows):
        image_id = image_ids.get(normalize_id(row.get("image_id")))
        category_id = category_ids.get(normalize_id(row.get("category_id")))
        box, fault = coco_rows.read_box(row)
        if image_id is None:
            left_out.add("their image is not listed", index, row, "image_id")
        elif category_id is None:
            left_out.add("their category is not listed", index, row, "category_id")
        elif fault:
            left_out.add(fault, index, row, "bbox")
        else:
            more = {"image_id": image_id, "category_id": category_id, "bbox": box}
            annotations.append({**row, **more, **_read_more(row, box)})
    left_out.report(path, len(rows))
    ids = [row.get("id") for row in annotations]
    if not _are_annotation_ids(ids):
        ids = range(1, len(annotations) + 1)
    return [{**row, "id": i} for row, i in zip(annotations, ids, strict=True)]


def _read_more(row, box):
    area = coco_rows.read_area(row.get("area"))
    more = {"area": box[2] * box[3] if math.isnan(area) else area}
    more["iscrowd"] = int(to_flag(row.get("iscrowd")))
    if "difficult" in row:
        more["difficult"] = int(to_flag(row["difficult"]))
    return more


class _LeftOut:
    """Counts of rows that cannot be used, by reason, each with its first row."""

    def __init__(self, key):
        self._key = key
        self._counts = collections.Counter()
        self._first = {}

    def add(self, reason, index, row, field):
        self._counts[reason] += 1
        if reason not in self._first:
            self._first[reason] = f"{self._key}[{index}], {field} {brief(row.get(field))}"

    def report(self, path, num_rows):
        """Warn of each reason; raise ValueError if no row is left."""
        lines = [
            f"{count} of {num_rows} {self._key} left out: {reason}; the first is "
            f"{self._first[reason]}"
            for reason, count in self._counts.items()
        ]
        if lines and self._counts.total() == num_rows:
            raise ValueError(f"{path}: none of the {self._key} can be used: {'; '.join(lines)}")
        for line in lines:
            logging.warning("%s: %s", path, line)


def _are_annotation_ids(ids):
    """To pycocotools, a match with id 0 is no match, and equal ids are one object."""
    return all(type(i) is int and 0 < i <= LARGEST_ID for i in ids) and len(set(ids)) == len(ids)


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
