"""Detections as label files, a starting point for labelling new images.

Boxes are written as our converters and labelling tools read them: YOLO in fractions, COCO and CSV
in pixels from 0, VOC in whole pixels from 1 that include the last one.
"""

import contextlib
import csv
import json
import pathlib
import typing
import xml.etree.ElementTree as ElementTree

import numpy as np

from ssd_tf import files
from ssd_tf.inference.detections import to_xywh_pixels

_CSV_COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")
_COCO = "annotations.json"
_YOLO = "labels/{}.txt"
_YOLO_CLASSES = "classes.txt"
_VOC = "Annotations/{}.xml"
_CSV = "labels.csv"
_FILES = {"coco": [_COCO], "yolo": [_YOLO_CLASSES, _YOLO], "voc": [_VOC], "csv": [_CSV]}


class Labelled(typing.NamedTuple):
    """The detections in one image file: boxes [n, 4] normalised, labels [n] from 1, scores [n]."""

    path: pathlib.Path
    image_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def file_names(name, stems) -> list[str]:
    """The files of a format, a key of WRITERS, for images of these names without suffix."""
    names = (pattern.format(stem) for pattern in _FILES[name] for stem in stems)
    return list(dict.fromkeys(names))


def check_classes(output, stems, names):
    """Raise FileExistsError if YOLO labels of other classes would stay beside those of `stems`."""
    path = output.path / _YOLO_CLASSES
    if path.is_file() and path.read_bytes() != _lines(names).encode():
        stale = {label.stem for label in (output.path / "labels").glob("*.txt")} - set(stems)
        if stale:
            raise FileExistsError(
                f"{output.path}: labels/{min(stale)}.txt is of other classes ({_YOLO_CLASSES}); "
                "name another folder"
            )


@contextlib.contextmanager
def write_coco(output, names):
    """annotations.json: categories, annotations with their scores, and images."""
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    images = []
    last_id = 0

    def add(image):
        nonlocal last_id
        image_id = len(images) + 1
        boxes = to_xywh_pixels(image.boxes, image.image_hw).tolist()
        rows = []
        for box, label, score in zip(boxes, image.labels, image.scores, strict=True):
            last_id += 1
            row = {"id": last_id, "image_id": image_id, "category_id": int(label)}
            row |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": float(score)}
            rows.append(json.dumps(row))
        append(rows)
        images.append(_coco_image(image_id, image))

    with output.grow(_COCO) as path, open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": ')
        try:
            with files.json_list(file) as append:
                yield add
        finally:
            file.write(', "images": ')
            with files.json_list(file) as append:
                append([json.dumps(row) for row in images])
            file.write("}\n")


@contextlib.contextmanager
def write_yolo(output, names):
    """labels/STEM.txt for each image, and classes.txt."""
    output.write_text(_YOLO_CLASSES, _lines(names))

    def add(image):
        lines = []
        for (ymin, xmin, ymax, xmax), label in zip(image.boxes, image.labels, strict=True):
            centre = ((xmin + xmax) / 2, (ymin + ymax) / 2)
            numbers = (*centre, xmax - xmin, ymax - ymin)
            lines.append(f"{label - 1} {' '.join(f'{value:.6f}' for value in numbers)}")
        output.write_text(_YOLO.format(image.path.stem), _lines(lines))

    yield add


@contextlib.contextmanager
def write_voc(output, names):
    """Annotations/STEM.xml for each image."""

    def add(image):
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = image.path.name
        height, width = image.image_hw
        _add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
        for label, sides in zip(image.labels, _whole_pixels(image), strict=True):
            node = ElementTree.SubElement(root, "object")
            _add(node, name=names[label - 1], difficult=0)
            _add(ElementTree.SubElement(node, "bndbox"), **sides)
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        output.write_text(_VOC.format(image.path.stem), f"{text}\n")

    yield add


@contextlib.contextmanager
def write_csv(output, names):
    """labels.csv: a line for each box, and a line without one for an image without any."""

    def add(image):
        height, width = image.image_hw
        size = {"filename": image.path.name, "width": width, "height": height}
        rows = []
        for box, label, score in zip(image.boxes, image.labels, image.scores, strict=True):
            sides = np.round(box.astype(float) * (height, width, height, width), 2).tolist()
            corners = dict(zip(("ymin", "xmin", "ymax", "xmax"), sides, strict=True))
            rows.append({"class": names[label - 1], **corners, "score": f"{score:.4f}"})
        writer.writerows(size | row for row in rows or [{}])

    with (
        output.grow(_CSV) as path,
        open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.DictWriter(file, _CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        yield add


# Each is a context with a function that takes the next image. The files of the formats that have
# one for all images are complete however the context ends.
WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc, "csv": write_csv}


def _coco_image(image_id, image):
    height, width = image.image_hw
    return {"id": image_id, "file_name": image.path.name, "height": height, "width": width}


def _lines(texts):
    return "".join(f"{text}\n" for text in texts)


def _whole_pixels(image):
    """Boxes in pixels from 1, at least two pixels wide and high: narrower ones are degenerate."""
    height, width = image.image_hw
    for box in image.boxes:
        ymin, xmin, ymax, xmax = np.round(box * np.array([height, width, height, width]))
        left = min(xmin, width - 2) + 1
        top = min(ymin, height - 2) + 1
        corners = {
            "xmin": left,
            "ymin": top,
            "xmax": max(xmax, left + 1),
            "ymax": max(ymax, top + 1),
        }
        yield {name: int(value) for name, value in corners.items()}


def _add(parent, **values):
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)
