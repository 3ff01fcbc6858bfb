"""Exports of labelling tools in miniature: the images, labels and boxes that come out.

Boxes are [ymin, xmin, ymax, xmax].
"""

import json

import pytest


@pytest.fixture
def convert(tmp_path, run, read_split, read_dataset):
    """A function: command, split, flags -> (records, report entry).

    A record is (file, source id, width, height, names, boxes).
    """

    def convert(command, split="train", **flags):
        assert run(command, output=tmp_path / "out", split=split, workers=1, **flags) == (0, "")
        keys = ("filename", "source_id", "width", "height", "texts")
        records = [
            (*(record[key] for key in keys), record["boxes"].tolist())
            for record in read_split(tmp_path / "out", split)
        ]
        return records, read_dataset(tmp_path / "out")[1]["splits"][split]

    return convert


def test_roboflow_yolo(plant, convert):
    folder = plant(
        {
            "README.roboflow.txt": "0 1 2 3 4\n",
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
            "nc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  workspace: w\n  version: 1\n",
            "train/images/a_jpg.rf.0c1d.jpg": (64, 48),
            "train/labels/a_jpg.rf.0c1d.txt": "1 0.5 0.5 0.25 0.5\n0 0.125 0.25 0.25 0.25",
            "train/images/b_png.rf.77aa.jpg": (80, 40),
            "train/labels/b_png.rf.77aa.txt": "",
            "valid/images/c.jpg": (32, 48),
            "valid/labels/c.txt": "0 0.25 0.75 0.5 0.5",
            "test/images/d.jpg": (40, 48),
            "test/labels/d.txt": "1 0.5 0.5 1 1",
        }
    )
    train, report = convert("yolo_to_tfrecord", yolo=folder)
    boxes = [[0.25, 0.375, 0.75, 0.625], [0.125, 0.0, 0.375, 0.25]]
    assert train == [
        ("a_jpg.rf.0c1d.jpg", "a_jpg.rf.0c1d", 64, 48, ["dog", "cat"], boxes),
        ("b_png.rf.77aa.jpg", "b_png.rf.77aa", 80, 40, [], []),
    ]
    assert report["findings"] == {}
    assert convert("yolo_to_tfrecord", "val", yolo=folder)[0] == [
        ("c.jpg", "c", 32, 48, ["cat"], [[0.5, 0, 1, 0.5]])
    ]
    assert convert("yolo_to_tfrecord", "test", yolo=folder)[0] == [
        ("d.jpg", "d", 40, 48, ["dog"], [[0, 0, 1, 1]])
    ]


def test_roboflow_coco(plant, convert, tmp_path, read_dataset):
    content = {
        "info": {"year": "2024"},
        "licenses": [{"id": 1}],
        "categories": [
            {"id": 0, "name": "cells", "supercategory": "none"},
            {"id": 1, "name": "RBC", "supercategory": "cells"},
            {"id": 2, "name": "WBC", "supercategory": "cells"},
        ],
        "images": [
            {
                "id": 0,
                "license": 1,
                "file_name": "a_jpg.rf.1.jpg",
                "height": 48,
                "width": 64,
                "extra": {"name": "a.jpg"},
            }
        ],
        "annotations": [
            {
                "id": 0,
                "image_id": 0,
                "category_id": 2,
                "bbox": [16, 12, 32, 24.0],
                "area": 768,
                "segmentation": [],
                "iscrowd": 0,
            }
        ],
    }
    folder = plant(
        {"train/a_jpg.rf.1.jpg": (64, 48), "train/_annotations.coco.json": json.dumps(content)}
    )
    records, report = convert(
        "coco_to_tfrecord",
        images=folder / "train",
        annotations=folder / "train/_annotations.coco.json",
    )
    assert records == [("a_jpg.rf.1.jpg", "0", 64, 48, ["WBC"], [[0.25, 0.25, 0.75, 0.75]])]
    assert read_dataset(tmp_path / "out")[0]["classes"] == [
        {"name": "RBC", "id": 1},
        {"name": "WBC", "id": 2},
    ]
    assert report["source"]["notes"] == [
        "category 0 'cells' is left out: it has no objects, "
        "and others have it as their name or supercategory"
    ]


def test_roboflow_csv(plant, convert):
    rows = (
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "b.jpg,64,48,dog,16,12,48,36\n"
        "a.jpg,80,40,cat,0,10,20,30\n"
    )
    folder = plant(
        {
            "train/_annotations.csv": rows + "b.jpg,64,48,cat,0,0,64,24\n",
            "train/a.jpg": (80, 40),
            "train/b.jpg": (64, 48),
        }
    )
    records, report = convert(
        "csv_to_tfrecord", csv=folder / "train/_annotations.csv", images=folder / "train"
    )
    assert records == [
        ("b.jpg", "b", 64, 48, ["dog", "cat"], [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1]]),
        ("a.jpg", "a", 80, 40, ["cat"], [[0.25, 0, 0.75, 0.25]]),
    ]
    assert report["findings"] == {}


def xml(name, filename, sides, size=""):
    sides = "".join(
        f"<{key}>{side}</{key}>"
        for key, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
    )
    return (
        f"<annotation><folder></folder><filename>{filename}</filename>{size}"
        f"<object><name>{name}</name><occluded>0</occluded><bndbox>{sides}</bndbox></object></annotation>"
    )


def test_cvat_voc_with_folders(plant, convert):
    folder = plant(
        {
            "labelmap.txt": "# label:color_rgb:parts:actions\ncat:61,61,245::\ndog:1,2,3::\n",
            "ImageSets/Main/default.txt": "cam1/a\ncam2/a\n",
            "Annotations/cam1/a.xml": xml("cat", "cam1/a.jpg", (17, 13, 48, 36)),
            "Annotations/cam2/a.xml": xml("dog", "cam2/a.jpg", (1, 1, 40, 10)),
            "JPEGImages/a.jpg": (96, 64),
            "JPEGImages/cam1/a.jpg": (64, 48),
            "JPEGImages/cam2/a.jpg": (80, 40),
        }
    )
    expected = [
        ("a.jpg", "cam1/a", 64, 48, ["cat"], [[0.25, 0.25, 0.75, 0.75]]),
        ("a.jpg", "cam2/a", 80, 40, ["dog"], [[0, 0, 0.25, 0.5]]),
    ]
    for image_set in ("default", "all"):
        records, report = convert("voc_to_tfrecord", voc=folder, image_set=image_set)
        assert records == expected
        assert report["source"]["notes"] == [f"image set {image_set}: 2 of 2 XML files"]
        assert report["findings"] == {
            "images that the labels do not name": {"count": 1, "first": ["a.jpg"]}
        }


def test_label_studio_voc(plant, convert):
    folder = plant(
        {
            "Annotations/0ab1-a.xml": xml("cat", "0ab1-a", (17, 13, 48, 36)),
            "images/0ab1-a.jpg": (64, 48),
        }
    )
    records, _ = convert("voc_to_tfrecord", voc=folder)
    assert records == [("0ab1-a.jpg", "0ab1-a", 64, 48, ["cat"], [[0.25, 0.25, 0.75, 0.75]])]


def test_label_studio_yolo(plant, convert):
    folder = plant(
        {
            "classes.txt": "cat\ndog\n",
            "notes.json": json.dumps(
                {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}
            ),
            "images/0ab1-a.jpg": (64, 48),
            "labels/0ab1-a.txt": "1 0.5 0.5 0.5 0.25\n",
        }
    )
    records, _ = convert("yolo_to_tfrecord", yolo=folder)
    assert records == [("0ab1-a.jpg", "0ab1-a", 64, 48, ["dog"], [[0.375, 0.25, 0.625, 0.75]])]


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_cvat_ultralytics_yolo(plant, convert, prefix):
    folder = plant(
        {
            "data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n",
            "train.txt": f"{prefix}images/train/cam1/a.jpg\n{prefix}images/train/b.jpg\n",
            "images/train/cam1/a.jpg": (64, 48),
            "labels/train/cam1/a.txt": "0 0.5 0.5 0.5 0.25\n",
            "images/train/b.jpg": (80, 40),
            "labels/train/b.txt": "1 0.25 0.25 0.5 0.5\n",
        }
    )
    records, report = convert("yolo_to_tfrecord", yolo=folder)
    assert records == [
        ("a.jpg", "a", 64, 48, ["cat"], [[0.375, 0.25, 0.625, 0.75]]),
        ("b.jpg", "b", 80, 40, ["dog"], [[0, 0, 0.5, 0.5]]),
    ]
    assert report["findings"] == {}


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_cvat_yolo_1_1(plant, convert, prefix):
    folder = plant(
        {
            "obj.data": f"classes = 2\ntrain = {prefix}train.txt\n"
            f"valid = {prefix}valid.txt\nnames = {prefix}obj.names\n",
            "obj.names": "cat\ndog\n",
            "train.txt": f"{prefix}obj_train_data/a.jpg\n",
            "valid.txt": f"{prefix}obj_valid_data/b.jpg\n",
            "obj_train_data/a.jpg": (64, 48),
            "obj_train_data/a.txt": "0 0.5 0.5 0.5 0.25\n",
            "obj_valid_data/b.jpg": (80, 40),
            "obj_valid_data/b.txt": "1 0.25 0.25 0.5 0.5\n",
        }
    )
    expected = [("a.jpg", "a", 64, 48, ["cat"], [[0.375, 0.25, 0.625, 0.75]])]
    assert convert("yolo_to_tfrecord", yolo=folder)[0] == expected
    assert convert("yolo_to_tfrecord", yolo=folder / "obj.data")[0] == expected
    assert convert("yolo_to_tfrecord", "val", yolo=folder)[0] == [
        ("b.jpg", "b", 80, 40, ["dog"], [[0, 0, 0.5, 0.5]])
    ]


def test_sets_in_folders_are_not_mixed(plant, convert):
    """Roboflow's VOC export: each set is a folder of images beside their XML."""
    folder = plant(
        {
            "train/a.jpg": (64, 48),
            "train/a.xml": xml(
                "cat",
                "a.jpg",
                (17, 13, 48, 36),
                "<size><width>64</width><height>48</height></size>",
            ),
            "valid/b.jpg": (32, 48),
            "valid/b.xml": xml(
                "cat", "b.jpg", (1, 1, 16, 48), "<size><width>32</width><height>48</height></size>"
            ),
        }
    )
    train, report = convert("voc_to_tfrecord", voc=folder)
    assert train == [("a.jpg", "train/a", 64, 48, ["cat"], [[0.25, 0.25, 0.75, 0.75]])]
    assert report["source"]["notes"] == [
        "image set train: 1 of 2 XML files; not converted: valid 1"
    ]
    val, _ = convert("voc_to_tfrecord", "val", voc=folder)
    assert val == [("b.jpg", "valid/b", 32, 48, ["cat"], [[0, 0, 1, 0.5]])]
