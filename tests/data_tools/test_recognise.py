"""Folders as labelling tools lay them out: the recognised format, splits and conversions."""

import json
import os
import shlex
import xml.etree.ElementTree

import pytest

from data_tools import auto_to_tfrecord
from data_tools.readers import coco_json, split_names, voc_xml, yolo_txt
from data_tools.recognise import FORMATS, recognise

IMAGE = (8, 6)
ROW = "0 0.5 0.5 0.25 0.5\n"
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def voc(*names):
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax>"
        "<ymax>4</ymax></bndbox></object>"
        for name in names or ("cat",)
    )
    return f'<?xml version="1.0"?>\n<!-- <a> -->\n<annotation>{objects}</annotation>\n'


def coco(*files, box=(1, 1, 4, 4), **more):
    content = {
        "info": {"year": 2024},
        "images": [
            {"id": index, "file_name": file, "width": 8, "height": 6}
            for index, file in enumerate(files)
        ],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1, "bbox": box}
            for index in range(len(files))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return json.dumps(content | more)


def find(folder, *arguments, **more):
    """-> (label format, splits, conversions without the format, with `F` for the folder)."""
    found = recognise(folder, *arguments, **more)
    conversions = [" ".join(flags).replace(str(folder), "F") for flags in found.conversions]
    return found.label_format, found.splits, [line.partition(" ")[2] for line in conversions]


HELD_OUT = ("train", "val")
ALL = ("train", "val", "test")
HOLD_OUT = " --val_fraction 0.2"
FOLDERS = ("train", "valid", "test")

LAYOUTS = {
    "coco of Roboflow": (
        {f"{name}/_annotations.coco.json": coco("a_jpg.rf.1.jpg") for name in FOLDERS}
        | {f"{name}/a_jpg.rf.1.jpg": IMAGE for name in FOLDERS},
        ("coco", ALL),
        [
            f"--images F/{name} --annotations F/{name}/_annotations.coco.json --split {split}"
            for name, split in zip(FOLDERS, ALL, strict=True)
        ],
    ),
    "coco of COCO": (
        {
            "annotations/instances_train2017.json": coco("1.jpg", "2.jpg"),
            "annotations/instances_val2017.json": coco("1.jpg"),
            "annotations/captions_train2017.json": coco("1.jpg"),
            "annotations/person_keypoints_val2017.json": coco("1.jpg"),
            "train2017/1.jpg": IMAGE,
            "train2017/2.jpg": IMAGE,
            "val2017/1.jpg": IMAGE,
        },
        ("coco", HELD_OUT),
        [
            f"--images F/{name}2017 --annotations F/annotations/instances_{name}2017.json "
            f"--split {name}"
            for name in HELD_OUT
        ],
    ),
    "coco of CVAT": (
        {
            "annotations/instances_default.json": coco("cam1/a.jpg", "cam1/b.jpg"),
            "images/cam1/a.jpg": IMAGE,
            "images/cam1/b.jpg": IMAGE,
        },
        ("coco", HELD_OUT),
        [
            "--images F/images --annotations F/annotations/instances_default.json --split train"
            + HOLD_OUT
        ],
    ),
    "coco of Label Studio": (
        {
            "project/result.json": coco("..\\media\\upload\\1\\0ab1-a.png"),
            "project/images/0ab1-a.png": IMAGE,
            "project/notes.json": '{"categories": [{"id": 0, "name": "cat"}]}',
        },
        ("coco", HELD_OUT),
        ["--images F/project/images --annotations F/project/result.json --split train" + HOLD_OUT],
    ),
    "coco of Azure ML, with fractions": (
        {
            "labels.json": coco("a.jpg", box=[0.125, 0, 1, 1.0]),
            "photos/A.JPEG": IMAGE,
        },
        ("coco", HELD_OUT),
        [
            "--images F/photos --annotations F/labels.json --boxes normalised --split train"
            + HOLD_OUT
        ],
    ),
    "coco with annotations first": (
        {
            "a.jpg": IMAGE,
            "a.json": json.dumps(
                dict(reversed(json.loads(coco("a.jpg", box=[0.5, 0, 1, 2])).items()))
            ),
        },
        ("coco", HELD_OUT),
        ["--images F --annotations F/a.json --split train" + HOLD_OUT],
    ),
    "coco with the images of the same names elsewhere": (
        {"a.json": coco("a.jpg"), "small/A.png": IMAGE, "x/large/a.jpg": IMAGE},
        ("coco", HELD_OUT),
        ["--images F/x/large --annotations F/a.json --split train" + HOLD_OUT],
    ),
    "voc of a devkit": (
        {f"VOC2007/ImageSets/Main/{name}.txt": "a\n" for name in (*ALL, "trainval")}
        | {
            "VOC2007/Annotations/a.xml": voc(),
            "VOC2007/JPEGImages/a.jpg": IMAGE,
            "VOC2007/ImageSets/Main/cat_train.txt": "a 1\n",
        },
        ("voc", ALL),
        [f"--voc F/VOC2007 --image_set {name} --split {name}" for name in ALL],
    ),
    "voc with trainval alone": (
        {
            "Annotations/a.xml": voc(),
            "Annotations/b.xml": voc(),
            "JPEGImages/a.jpg": IMAGE,
            "JPEGImages/b.jpg": IMAGE,
            "ImageSets/Main/trainval.txt": "a\nb\n",
            "ImageSets/Main/val.txt": "b\n",
            "ImageSets/Main/test.txt": "absent\n",
        },
        ("voc", HELD_OUT),
        ["--voc F --image_set trainval --split train" + HOLD_OUT],
    ),
    "voc of CVAT": (
        {
            "Annotations/cam1/a.xml": voc(),
            "JPEGImages/cam1/a.jpg": IMAGE,
            "ImageSets/Main/default.txt": "cam1/a\n",
            "labelmap.txt": "# label:color_rgb:parts:actions\ncat:61,61,245::\n",
        },
        ("voc", HELD_OUT),
        ["--voc F --image_set default --split train" + HOLD_OUT],
    ),
    "voc of VoTT": (
        {
            "x-PascalVOC-export/Annotations/a.xml": voc(),
            "x-PascalVOC-export/Annotations/b.xml": voc(),
            "x-PascalVOC-export/JPEGImages/a.jpg": IMAGE,
            "x-PascalVOC-export/JPEGImages/b.jpg": IMAGE,
            "x-PascalVOC-export/ImageSets/Main/cat_train.txt": "a.jpg 1\n",
            "x-PascalVOC-export/ImageSets/Main/cat_val.txt": "b.jpg 1\n",
        },
        ("voc", HELD_OUT),
        [f"--voc F/x-PascalVOC-export --image_set {name} --split {name}" for name in HELD_OUT],
    ),
    "voc of Roboflow": (
        {f"{name}/a.xml": voc() for name in FOLDERS} | {f"{name}/a.jpg": IMAGE for name in FOLDERS},
        ("voc", ALL),
        [
            f"--voc F --image_set {name} --split {split}"
            for name, split in zip(FOLDERS, ALL, strict=True)
        ],
    ),
    "voc of labelImg, beside the images": (
        {"a b.xml": voc(), "a b.jpg": IMAGE, "predefined_classes.txt": "dog\ncat\n"},
        ("voc", HELD_OUT),
        ["--voc F --image_set all --split train" + HOLD_OUT],
    ),
    "voc with a test folder beside the rest": (
        {"x/a.xml": voc(), "x/a.jpg": IMAGE, "x/test/b.xml": voc(), "x/test/b.jpg": IMAGE},
        ("voc", ALL),
        [
            "--voc F/x --image_set train --split train" + HOLD_OUT,
            "--voc F/x --image_set test --split test",
        ],
    ),
    "voc of Kaggle": (
        {"x/annotations/a.xml": voc(), "x/images/a.png": IMAGE},
        ("voc", HELD_OUT),
        ["--voc F/x --image_set all --split train" + HOLD_OUT],
    ),
    "voc in a devkit for each split": (
        {f"{name}/Annotations/a.xml": voc() for name in ("Train", "Test")}
        | {f"{name}/JPEGImages/a.jpg": IMAGE for name in ("Train", "Test")},
        ("voc", ALL),
        [
            "--voc F/Train --image_set all --split train" + HOLD_OUT,
            "--voc F/Test --image_set all --split test",
        ],
    ),
    "voc with classes that training lacks": (
        {
            "train/a.xml": voc("dog", "a, b"),
            "train/a.jpg": IMAGE,
            "val/b.xml": voc("cat", "dog"),
            "val/b.jpg": IMAGE,
        },
        ("voc", HELD_OUT),
        [
            f'--voc F --image_set {name} --split {name} --classes "a, b",cat,dog'
            for name in HELD_OUT
        ],
    ),
    "yolo of Roboflow": (
        {f"{name}/images/a_jpg.rf.1.jpg": IMAGE for name in FOLDERS}
        | {f"{name}/labels/a_jpg.rf.1.txt": ROW for name in FOLDERS}
        | {
            "README.roboflow.txt": "0 1 2 3 4\n",
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
            "nc: 1\nnames: ['cat']\nroboflow:\n  version: 1\n",
        },
        ("yolo", ALL),
        [f"--yolo F/data.yaml --image_set {name} --split {name}" for name in ALL],
    ),
    "yolo with an absent val": (
        {
            "x/train/images/a.jpg": IMAGE,
            "x/train/labels/a.txt": "",
            "x/train/images/b.jpg": IMAGE,
            "x/train/labels/b.txt": ROW,
            "x/data.yaml": "train: train/images\nval: valid/images\ntest: ~\nnames: [cat]\n",
        },
        ("yolo", HELD_OUT),
        ["--yolo F/x/data.yaml --image_set train --split train" + HOLD_OUT],
    ),
    "yolo that validates on its training images": (
        {
            "images/train/a.jpg": IMAGE,
            "labels/train/a.txt": ROW,
            "coco8.yaml": "path: .\ntrain: images/train\nval: images/train\nnames: {0: cat}\n",
        },
        ("yolo", HELD_OUT),
        ["--yolo F/coco8.yaml --image_set train --split train" + HOLD_OUT],
    ),
    "yolo 1.1 of CVAT": (
        {
            "obj.data": "classes = 1\ntrain = data/train.txt\nvalid = data/valid.txt\n"
            "names = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "valid.txt": "data/obj_valid_data/b.jpg\n",
            "obj_train_data/a.jpg": IMAGE,
            "obj_train_data/a.txt": ROW,
            "obj_valid_data/b.jpg": IMAGE,
            "obj_valid_data/b.txt": ROW,
        },
        ("yolo", HELD_OUT),
        [
            "--yolo F/obj.data --image_set train --split train",
            "--yolo F/obj.data --image_set valid --split val",
        ],
    ),
    "yolo of Label Studio": (
        {
            "classes.txt": "cat\n",
            "notes.json": '{"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}',
            "images/0ab1-a.jpg": IMAGE,
            "labels/0ab1-a.txt": ROW,
        },
        ("yolo", HELD_OUT),
        ["--yolo F --split train" + HOLD_OUT],
    ),
    "yolo of labelImg, a folder for each split": (
        {f"{name}/classes.txt": "cat\n" for name in ("train", "val")}
        | {f"{name}/a.jpg": IMAGE for name in ("train", "val")}
        | {f"{name}/a.txt": ROW for name in ("train", "val")},
        ("yolo", HELD_OUT),
        [f"--yolo F/{name} --split {name}" for name in HELD_OUT],
    ),
    "yolo with classes.txt and folders of splits": (
        {"labels/classes.txt": "cat\n"}
        | {f"images/{name}/a.jpg": IMAGE for name in FOLDERS}
        | {f"labels/{name}/a.txt": ROW for name in FOLDERS},
        ("yolo", ALL),
        [
            f"--yolo F --image_set {name} --split {split}"
            for name, split in (("train", "train"), ("valid", "val"), ("test", "test"))
        ],
    ),
    "csv of Roboflow": (
        {f"{name}/_annotations.csv": HEADER + "a.jpg,8,6,cat,1,1,4,4\n" for name in FOLDERS}
        | {f"{name}/a.jpg": IMAGE for name in FOLDERS},
        ("csv", ALL),
        [
            f"--images F/{name} --csv F/{name}/_annotations.csv --split {split}"
            for name, split in zip(FOLDERS, ALL, strict=True)
        ],
    ),
    "csv of TensorFlow tutorials": (
        {
            "data/train_labels.csv": HEADER + "a.jpg,8,6,cat,1,1,4,4\n",
            "data/test_labels.csv": HEADER + "b.jpg,8,6,cat,1,1,4,4\n",
            "images/train/a.jpg": IMAGE,
            "images/test/b.jpg": IMAGE,
        },
        ("csv", ALL),
        [
            "--images F/images/train --csv F/data/train_labels.csv --split train" + HOLD_OUT,
            "--images F/images/test --csv F/data/test_labels.csv --split test",
        ],
    ),
    "csv of VoTT": (
        {
            "vott-csv-export/x-export.csv": '"image","xmin","ymin","xmax","ymax","label"\n'
            '"a.jpg",1,1,4.5,4,"cat"\n',
            "vott-csv-export/a.jpg": IMAGE,
        },
        ("csv", HELD_OUT),
        [
            "--images F/vott-csv-export --csv F/vott-csv-export/x-export.csv --split train"
            + HOLD_OUT
        ],
    ),
    "what only looks like labels": (
        {
            "a.jpg": IMAGE,
            "a.xml": voc(),
            "a.txt": "a cat on a mat\n",
            "prices.csv": "filename,price\na.jpg,3\n",
            "package.json": '{"images": ["a.jpg"], "annotations": [], "categories": []}',
            "broken.json": '{"images": [',
            "pom.xml": "<project/>",
            "cvat.xml": "<annotations><image/></annotations>",
            "args.yaml": "train: .\nnames: 3\n",
            "__MACOSX/_annotations.coco.json": coco("a.jpg"),
            ".trash/_annotations.coco.json": coco("a.jpg"),
            "._labels.json": coco("a.jpg"),
        },
        ("voc", HELD_OUT),
        ["--voc F --image_set all --split train" + HOLD_OUT],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(plant, name):
    content, (label_format, splits), conversions = LAYOUTS[name]
    assert find(plant(content)) == (label_format, splits, conversions)


def test_relative_folder(plant, monkeypatch):
    content = {"classes.txt": "cat\n", "images/a.jpg": IMAGE, "labels/a.txt": ROW}
    monkeypatch.chdir(plant(content))
    assert recognise(".").conversions == (
        ("yolo", "--yolo", ".", "--split", "train", "--val_fraction", "0.2"),
    )


def test_val_fraction_and_classes(plant):
    folder = plant({"a.jpg": IMAGE, "a.xml": voc()})
    start = "--voc F --image_set all --split train"
    assert find(folder, val_fraction=0.25)[2] == [start + " --val_fraction 0.25"]
    assert find(folder, val_fraction=0)[1:] == (("train",), [start])
    assert find(folder, None, ["cat", "a,b"])[2] == [start + HOLD_OUT + ' --classes cat,"a,b"']


MIXED = {
    "images/a.jpg": IMAGE,
    "images/b.jpg": IMAGE,
    "labels/a.txt": ROW,
    "labels/b.txt": ROW,
    "classes.txt": "cat\n",
    "annotations/instances.json": coco("a.jpg", "b.jpg"),
}


def test_several_formats_need_a_choice(plant):
    folder = plant(MIXED)
    with pytest.raises(ValueError) as caught:
        recognise(folder)
    for part in ("--format coco", "--format yolo", "1 COCO", "2 YOLO", f"{folder}/labels/a.txt"):
        assert part in str(caught.value), part
    assert "--format voc" not in str(caught.value)
    assert find(folder, "coco")[0] == "coco"
    assert find(folder, "yolo")[2] == ["--yolo F --split train" + HOLD_OUT]


REJECTED = {
    "nothing at all": ({"notes.md": "-"}, None, ["no images", "1 file"]),
    "images without labels": (
        {"x/a.jpg": IMAGE, "x/b.jpg": IMAGE},
        None,
        ["no labels", "2 images", "x/a.jpg"],
    ),
    "labels without images": ({"a.xml": voc()}, None, ["no images", "1 VOC", "a.xml"]),
    "another format": ({"a.jpg": IMAGE, "a.xml": voc()}, "yolo", ["YOLO labels", "1 VOC"]),
    "an unknown format": ({"a.jpg": IMAGE, "a.xml": voc()}, "xml", ["'xml'", "coco", "csv"]),
    "Label Studio's own JSON": (
        {"a.jpg": IMAGE, "x.json": '[{"data": {}, "rectanglelabels": ["cat"]}]'},
        None,
        ["x.json", "Label Studio"],
    ),
    "CVAT's own XML": (
        {"a.jpg": IMAGE, "annotations.xml": "<annotations/>"},
        None,
        ["annotations.xml"],
    ),
    "no list of classes": (
        {"images/a.jpg": IMAGE, "labels/a.txt": ROW},
        None,
        ["1 YOLO label file,", "classes.txt"],
    ),
    "a data.yaml without images": (
        {"a.jpg": IMAGE, "a.txt": ROW, "data.yaml": "train: /gone/images\nnames: [cat]\n"},
        None,
        ["data.yaml", "/gone/images"],
    ),
    "several files for a split": (
        {"a.jpg": IMAGE, "one.json": coco("a.jpg"), "two.json": coco("a.jpg")},
        None,
        ["'train'", "one.json", "two.json"],
    ),
    "two names of a split": (
        {f"{name}/a.xml": voc() for name in HELD_OUT}
        | {"valid/b.xml": voc(), "train/a.jpg": IMAGE},
        None,
        ["'val'", "val 1", "valid 1"],
    ),
    "no training set": ({"test/a.xml": voc(), "a.jpg": IMAGE}, None, ["test", "--split train"]),
    "a table without a header": (
        {"a.jpg": IMAGE, "labels.csv": "a.jpg,1,1,9,9,cat\n"},
        None,
        ["labels.csv", "'filename'", "'a.jpg,1,1,9,9,cat'"],
    ),
    "a converted data set": ({"dataset.json": "{}", "a.jpg": IMAGE}, None, ["dataset.json"]),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejected(plant, name):
    content, label_format, parts = REJECTED[name]
    with pytest.raises(ValueError) as caught:
        recognise(plant(content), label_format)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        recognise(tmp_path / "absent")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train2017", "train"),
        ("Test_images", "test"),
        ("valid", "val"),
        ("crash test", None),
        ("contest", None),
        ("images", None),
        ("", None),
    ],
)
def test_split_of_folder(path, split):
    assert split_names.split_of_folder(path) == split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("instances_val2017.json", "val"),
        ("train/_annotations.csv", "train"),
        ("test/train_labels.csv", "train"),
        ("valid/train_val.json", "val"),
        ("test/x/a.json", "test"),
        ("a.json", None),
    ],
)
def test_split_of_path(path, split):
    assert split_names.split_of_path(path.replace("/", os.sep)) == split


def test_auto_converts_a_folder(plant, tmp_path, capsys, read_dataset):
    """Training and test folders: both are converted, and a fifth of training is held out."""
    content = {}
    for index in range(10):
        content[f"x/train/{index}.xml"] = voc("cat", "dog")
        content[f"x/train/{index}.jpg"] = (8 + index, 6)
    content |= {"x/test/t.xml": voc("dog"), "x/test/t.jpg": (8, 20)}
    folder = plant(content)
    out = tmp_path / "my data"
    argv = ["ssd convert auto", str(folder / "x"), f"--output={out}", "--workers", "1"]
    assert auto_to_tfrecord.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("ssd convert ")]
    assert [command[2:] for command in commands] == [
        [*flags, "--output", str(out), "--workers=1"]
        for flags in recognise(folder / "x").conversions
    ]
    dataset, report = read_dataset(out)
    sizes = {split: entry["images"] for split, entry in dataset["splits"].items()}
    assert sizes == {"train": 8, "val": 2, "test": 1}
    warnings = report["splits"]["test"]["warnings"]
    assert [(entry["what"], entry["count"], entry["names"]) for entry in warnings] == [
        ("few_images", 1, []),
        ("classes_without_objects", 1, ["cat"]),
        ("few_objects", 1, ["dog"]),
    ]
    assert sum(line.startswith("warning: ") for line in lines) == sum(
        len(entry["warnings"]) for entry in report["splits"].values()
    )


def test_auto_converts_every_format_that_is_recognised():
    assert set(auto_to_tfrecord.CONVERTERS) == set(FORMATS)


def test_auto_rejects_the_folder_of_other_data(plant, tmp_path, run):
    folder = plant({"a.jpg": IMAGE, "a.xml": voc()})
    (tmp_path / "out").mkdir()
    entry = {"images": 1, "boxes": 1, "ignored": 0, "shards": [], "repaired": {}, "dropped": []}
    old = {"version": 1, "classes": [{"name": "x", "id": 1}], "splits": {"other": entry}}
    text = json.dumps(old)
    (tmp_path / "out/dataset.json").write_text(text)
    code, error = run("auto_to_tfrecord", str(folder), output=tmp_path / "out")
    assert code == 1 and "other" in error and error.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset.json"]
    assert (tmp_path / "out/dataset.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "flags"), [((), {}), (("a", "b"), {}), (("a",), {"format": "x"})]
)
def test_auto_with_wrong_flags(run, tmp_path, arguments, flags):
    code, error = run("auto_to_tfrecord", *arguments, output=tmp_path / "out", **flags)
    assert code == 2 and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_auto_of_an_unlabelled_folder_writes_nothing(plant, tmp_path, run):
    folder = plant({"a.jpg": IMAGE})
    code, error = run("auto_to_tfrecord", str(folder), output=tmp_path / "out")
    assert code == 1 and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_auto_without_any_object_to_train_on(plant, tmp_path, run):
    content = {f"{index}.jpg": (8 + index, 6) for index in range(5)}
    files = list(content)
    folder = plant(content | {"a.json": coco(*files, annotations=[])})
    code, error = run("auto_to_tfrecord", str(folder), output=tmp_path / "out", workers=1)
    assert code == 1 and str(folder) in error.splitlines()[-1]


def read_bccd(folder, split):
    """[(stem, [(name, xmin, ymin, xmax, ymax)])] of a list of BCCD, in pixels from 1."""
    for stem in (folder / f"ImageSets/Main/{split}.txt").read_text().split():
        root = xml.etree.ElementTree.parse(folder / f"Annotations/{stem}.xml").getroot()
        yield (
            stem,
            [
                (node.findtext("name"), *(int(node.findtext(f"bndbox/{side}")) for side in SIDES))
                for node in root.iter("object")
            ],
        )


SIDES = ("xmin", "ymin", "xmax", "ymax")
CELLS = ["Platelets", "RBC", "WBC"]


def write_yolo(bccd, folder):
    for split in ALL:
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for stem, objects in read_bccd(bccd, split):
            (folder / f"images/{split}/{stem}.jpg").symlink_to(bccd / f"JPEGImages/{stem}.jpg")
            rows = [
                f"{CELLS.index(name)} {(x1 - 1 + x2) / 1280} {(y1 - 1 + y2) / 960} "
                f"{(x2 - x1 + 1) / 640} {(y2 - y1 + 1) / 480}"
                for name, x1, y1, x2, y2 in objects
            ]
            (folder / f"labels/{split}/{stem}.txt").write_text("\n".join(rows))
    paths = "".join(f"{split}: images/{split}\n" for split in ALL)
    (folder / "data.yaml").write_text(f"{paths}names: {CELLS}\n")


def write_coco(bccd, folder):
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").symlink_to(bccd / "JPEGImages")
    for split in ALL:
        images, annotations = [], []
        for image_id, (stem, objects) in enumerate(read_bccd(bccd, split)):
            images.append({"id": image_id, "file_name": f"{stem}.jpg", "width": 640, "height": 480})
            for name, x1, y1, x2, y2 in objects:
                row = {"id": len(annotations), "image_id": image_id}
                row["category_id"] = CELLS.index(name) + 1
                row["bbox"] = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
                annotations.append(row)
        categories = [{"id": index, "name": name} for index, name in enumerate(CELLS, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))


def read_converted(flags):
    """The images that a conversion reads: {file: [class names]}."""
    label_format, *rest = flags
    given = dict(zip(rest[::2], rest[1::2], strict=True))
    if label_format == "voc":
        source = voc_xml.read_voc(given["--voc"], given["--image_set"])
    elif label_format == "yolo":
        source = yolo_txt.read_yolo(given["--yolo"], given["--image_set"])
    else:
        source = coco_json.read_coco(given["--annotations"], given["--images"])
    return {
        image.filename: [obj.name for obj in image.objects]
        for image in source.images
        if not image.fault
    }


@pytest.mark.integration
def test_bccd_in_three_formats(real_data, tmp_path):
    bccd = real_data("bccd").resolve()
    write_yolo(bccd, tmp_path / "yolo")
    write_coco(bccd, tmp_path / "coco")
    folders = {"voc": bccd, "yolo": tmp_path / "yolo", "coco": tmp_path / "coco"}
    found = {label_format: recognise(folder) for label_format, folder in folders.items()}
    read = {}
    for label_format, each in found.items():
        assert (each.label_format, each.splits) == (label_format, ALL)
        read[label_format] = [read_converted(flags) for flags in each.conversions]
    assert [len(images) for images in read["voc"]] == [205, 87, 72]
    assert read["voc"] == read["yolo"] == read["coco"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "label_format", "splits"),
    [
        ("coco128", "coco", HELD_OUT),
        ("robot_signs", "yolo", ALL),
        ("animals7", "coco", ALL),
        ("voc14", "voc", HELD_OUT),
    ],
)
def test_real_folder(real_data, name, label_format, splits):
    found = recognise(real_data(name))
    assert (found.label_format, found.splits) == (label_format, splits)
