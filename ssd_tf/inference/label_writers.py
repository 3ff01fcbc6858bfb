"""Detections as label files, with which people begin to label new images.

Boxes are written as our converters and labelling tools read them: YOLO in fractions, COCO and CSV
in pixels from 0, VOC in whole pixels from 1 that include the last one.
"""

import csv
import io
import pathlib
import typing
import xml.etree.ElementTree as ElementTree

import numpy as np

from ssd_tf import files
from ssd_tf.inference.detections import to_xywh_pixels

_CSV_COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")


class Labelled(typing.NamedTuple):
    """The detections in one image file: boxes [n, 4] normalised, labels [n] from 1, scores [n]."""

    path: pathlib.Path
    image_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def write_coco(folder, images: list[Labelled], names):
    """annotations.json: images, annotations with their scores, and categories."""
    annotations = []
    for image_id, image in enumerate(images, start=1):
        boxes = to_xywh_pixels(image.boxes, image.image_hw).tolist()
        for box, label, score in zip(boxes, image.labels, image.scores, strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(label)}
            row |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "score": float(score)}
            annotations.append(row)
    content = {
        "images": [
            {
                "id": image_id,
                "file_name": image.path.name,
                "height": image.image_hw[0],
                "width": image.image_hw[1],
            }
            for image_id, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, start=1)],
    }
    files.write_json(folder / "annotations.json", content)


def write_yolo(folder, images: list[Labelled], names):
    """labels/STEM.txt for each image, and classes.txt."""
    (folder / "labels").mkdir(exist_ok=True)
    for image in images:
        lines = []
        for (ymin, xmin, ymax, xmax), label in zip(image.boxes, image.labels, strict=True):
            centre = ((xmin + xmax) / 2, (ymin + ymax) / 2)
            numbers = (*centre, xmax - xmin, ymax - ymin)
            lines.append(f"{label - 1} {' '.join(f'{value:.6f}' for value in numbers)}\n")
        files.write_text(folder / "labels" / f"{image.path.stem}.txt", "".join(lines))
    files.write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))


def write_voc(folder, images: list[Labelled], names):
    """Annotations/STEM.xml for each image."""
    (folder / "Annotations").mkdir(exist_ok=True)
    for image in images:
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
        files.write_text(folder / "Annotations" / f"{image.path.stem}.xml", f"{text}\n")


def write_csv(folder, images: list[Labelled], names):
    """labels.csv: a line for each box, and a line without one for an image without any."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for image in images:
        height, width = image.image_hw
        size = {"filename": image.path.name, "width": width, "height": height}
        rows = []
        for box, label, score in zip(image.boxes, image.labels, image.scores, strict=True):
            sides = np.round(box.astype(float) * (height, width, height, width), 2).tolist()
            corners = dict(zip(("ymin", "xmin", "ymax", "xmax"), sides, strict=True))
            rows.append({"class": names[label - 1], **corners, "score": f"{score:.4f}"})
        for row in rows or [{}]:
            writer.writerow(size | row)
    files.write_text(folder / "labels.csv", stream.getvalue())


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc, "csv": write_csv}


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
