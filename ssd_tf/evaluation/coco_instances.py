"""COCO instances: the ground truth of our data, or of a file.

Shapes: `N` objects of one image.
"""

import pathlib
import typing

import numpy as np
from absl import logging

from ssd_tf.evaluation.coco_rows import INSTANCES, LARGEST_ID, brief, check_rows, read_json
from ssd_tf.evaluation.tables import Truth, image_rows
from ssd_tf.inference.detections import to_xywh_pixels
from ssd_tf.inference.image_files import read_image


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
    if len(set(numbers)) == len(names) and max(numbers, default=0) <= LARGEST_ID:
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


def read_instances(path) -> dict:
    """Read a COCO instances file and complete its annotations as pycocotools needs them.

    Annotations of images that the file does not list are left out, with a warning. `iscrowd`
    defaults to 0 and `area` to the box's own. Annotation ids become 1..n unless all of them are
    positive integers and differ. Raises FileNotFoundError, or ValueError if it is not one.
    """
    content = read_json(path)
    kind = f"{path} is not a COCO instances file"
    if not isinstance(content, dict):
        raise ValueError(f"{kind}: expected an object with {', '.join(INSTANCES)}")
    for key, columns in INSTANCES.items():
        check_rows(content.get(key), columns, f"{kind}: {key}")
    for key in ("images", "categories"):
        _check_kind_of_ids(content[key], f"{kind}: {key}")
    if not content["images"]:
        raise ValueError(f"{path} has no images, so there is nothing to measure")
    annotations = _annotations_of_listed_images(content, path)
    return {**content, "annotations": _complete_annotations(annotations)}


def read_images(folder, ground_truth: dict, truth: Truth, indices) -> dict:
    """{index into truth.image_ids: its image}; a warning counts those that cannot be read."""
    rows = image_rows(ground_truth, truth)
    images = {}
    for index in sorted(indices):
        path = pathlib.Path(folder) / rows[index].get("file_name", "")
        try:
            images[index] = read_image(path)
        except (OSError, ValueError) as error:
            logging.warning("%s cannot be read for the report (%s)", path, error)
    return images


def _check_kind_of_ids(rows, where):
    """Raise ValueError unless the ids are all numbers or all strings: pycocotools sorts them."""
    first = rows[0]["id"] if rows else None
    for index, row in enumerate(rows):
        if isinstance(row["id"], str) != isinstance(first, str):
            raise ValueError(
                f"{where}[{index}]: expected ids that are all numbers or all strings, "
                f"got {brief(first)} and {brief(row['id'])}"
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
            brief(annotations[unlisted[0]]["image_id"]),
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
    return all(type(i) is int and 0 < i <= LARGEST_ID for i in ids) and len(set(ids)) == len(ids)


def _complete_annotation(row, annotation_id):
    area = row.get("area")
    if area is None:
        _, _, width, height = row["bbox"]
        area = width * height
    iscrowd = int(bool(row.get("iscrowd")))
    return {**row, "id": annotation_id, "area": area, "iscrowd": iscrowd}


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
