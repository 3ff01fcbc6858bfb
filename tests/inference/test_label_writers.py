"""Boxes at the limits of their formats; tests/commands/test_detect.py reads the files back."""

import csv
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np

from ssd_tf.inference import label_writers
from ssd_tf.output_folder import OutputFolder


def image(*boxes):
    count = len(boxes)
    return label_writers.Labelled(
        pathlib.Path("folder/a.jpg"),
        (100, 200),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(count, int),
        np.full(count, 0.5, np.float32),
    )


def write(form, folder, images, names):
    with label_writers.WRITERS[form](OutputFolder(folder), names) as add:
        for one in images:
            add(one)


def voc_boxes(folder):
    root = ElementTree.parse(folder / "Annotations" / "a.xml").getroot()
    return [
        [int(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
        for node in root.iter("object")
    ]


def test_no_detections(tmp_path):
    for form in label_writers.WRITERS:
        write(form, tmp_path, [image()], ["cat"])
    assert voc_boxes(tmp_path) == []
    assert (tmp_path / "labels" / "a.txt").read_text() == ""
    (row,) = csv.DictReader((tmp_path / "labels.csv").read_text().splitlines())
    assert (row["filename"], row["class"]) == ("a.jpg", "")


def test_voc_counts_from_1_and_includes_the_last_pixel(tmp_path):
    # Columns 20 to 59 and rows 10 to 49, counted from 0, are 21 to 60 and 11 to 50.
    write("voc", tmp_path, [image([0.1, 0.1, 0.5, 0.3])], ["cat"])
    assert voc_boxes(tmp_path) == [[21, 11, 60, 50]]


def test_a_box_narrower_than_a_pixel_keeps_two(tmp_path):
    # At the far corner it is shifted into the image, as one pixel would be degenerate.
    boxes = [[0.5, 0.5, 0.501, 0.501], [0.999, 0.999, 1, 1]]
    write("voc", tmp_path, [image(*boxes)], ["cat"])
    assert voc_boxes(tmp_path) == [[101, 51, 102, 52], [199, 99, 200, 100]]
