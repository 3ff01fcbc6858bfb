"""Whole conversions: real data, splits, classes, duplicates, reports, reproducible bytes."""

import csv
import hashlib
import io
import json
import re
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from data_tools import coco_to_tfrecord, shapes, yolo_to_tfrecord
from data_tools.conversion import config, convert, output, pool

ROTATE_90 = 6  # EXIF: the stored pixels are shown rotated clockwise by 90 degrees


def digests(folder):
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (".tfrecord", ".json", ".tsv")
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_coco128(real_data, run, tmp_path, read_dataset, read_split):
    coco = real_data("coco128")
    flags = {
        "images": coco / "images",
        "annotations": coco / "instances_train2017.json",
        "output": tmp_path,
        "workers": 1,
    }
    assert run("coco_to_tfrecord", **flags) == (0, "")
    dataset, report = read_dataset(tmp_path)
    split = dataset["splits"]["train"]
    assert (split["images"], split["boxes"], split["ignored"], len(dataset["classes"])) == (
        128,
        929,
        10,
        80,
    )
    assert split["shards"] == [f"train-0000{index}-of-00008.tfrecord" for index in range(8)]
    assert report["splits"]["train"]["empty"] == 2
    assert dataset["classes"][11] == {"name": "stop sign", "id": 13}  # 12 is a gap
    records = {int(record["source_id"]): record for record in read_split(tmp_path)}
    listed = json.loads((coco / "instances_train2017.json").read_text())
    assert records.keys() == {image["id"] for image in listed["images"]}
    assert sum(record["crowd"].count(1) for record in records.values()) == 10
    first = next(a for a in listed["annotations"] if a["image_id"] == listed["images"][0]["id"])
    x, y, width, height = first["bbox"]
    record = records[first["image_id"]]
    expected = [
        y / record["height"],
        x / record["width"],
        (y + height) / record["height"],
        (x + width) / record["width"],
    ]
    assert record["boxes"][0] == pytest.approx(expected, abs=1e-6)
    assert record["areas"][0] == pytest.approx(first["area"])
    assert record["image"] == (coco / "images" / record["filename"]).read_bytes()


def test_voc14(real_data, run, tmp_path, read_dataset, read_split):
    assert run("voc_to_tfrecord", voc=real_data("voc14"), output=tmp_path, workers=1) == (0, "")
    dataset, report = read_dataset(tmp_path)
    split = dataset["splits"]["train"]
    assert (split["images"], split["boxes"], split["ignored"], len(dataset["classes"])) == (
        14,
        37,
        6,
        11,
    )
    assert report["splits"]["train"]["duplicates"]["within"] == {
        "groups": 1,
        "images": 2,
        "files": [["000000.jpg", "000001.jpg"]],
    }
    (record,) = [record for record in read_split(tmp_path) if record["source_id"] == "000000"]
    # 000000.xml: 353 x 500, the dog's box 48 240 195 371.
    assert record["texts"][0] == "dog" and (record["height"], record["width"]) == (500, 353)
    assert record["boxes"][0] == pytest.approx(
        [239 / 500, 47 / 353, 371 / 500, 195 / 353], abs=1e-6
    )


def test_bccd_names_its_two_degenerate_boxes(real_data, run, tmp_path, read_dataset):
    numbers = []
    for split, image_set in (("train", "train"), ("val", "val"), ("test", "test")):
        flags = {
            "voc": real_data("bccd"),
            "image_set": image_set,
            "split": split,
            "output": tmp_path,
            "workers": 1,
        }
        assert run("voc_to_tfrecord", **flags) == (0, "")
        numbers.append(read_dataset(tmp_path)[0]["splits"][split])
    assert [entry["images"] for entry in numbers] == [205, 87, 72]
    assert sum(entry["boxes"] for entry in numbers) == 4886
    assert [row for entry in numbers for row in entry["dropped"]] == [
        {
            "file": "BloodImage_00343.jpg",
            "box": [181.0, 329.0, 181.0, 329.0],
            "reason": "degenerate",
        },
        {
            "file": "BloodImage_00338.jpg",
            "box": [504.0, 337.0, 504.0, 337.0],
            "reason": "degenerate",
        },
    ]


def read_cells(folder):
    """(stem, width, height, [(name, xmin, ymin, xmax, ymax)]) of every image, as the XML says."""
    for path in sorted((folder / "Annotations").glob("*.xml")):
        root = xml.etree.ElementTree.parse(path).getroot()
        sides = [
            [int(node.findtext(f"bndbox/{s}")) for s in ("xmin", "ymin", "xmax", "ymax")]
            for node in root.iter("object")
        ]
        names = [node.findtext("name") for node in root.iter("object")]
        yield (
            path.stem,
            int(root.findtext("size/width")),
            int(root.findtext("size/height")),
            list(zip(names, sides, strict=True)),
        )


def make_other_formats(cells, folder):
    """Write them as COCO, YOLO and CSV files with 9 decimals; degenerate boxes stay degenerate."""
    names = ["Platelets", "RBC", "WBC"]
    images, annotations, rows = [], [], []
    (folder / "labels").mkdir()
    (folder / "images").symlink_to(cells / "JPEGImages")
    for image_id, (stem, width, height, objects) in enumerate(read_cells(cells)):
        images.append(
            {"id": image_id, "file_name": f"{stem}.jpg", "width": width, "height": height}
        )
        lines = []
        for name, (xmin, ymin, xmax, ymax) in objects:
            empty = xmin == xmax
            box = [
                xmin - 1,
                ymin - 1,
                0 if empty else xmax - xmin + 1,
                0 if empty else ymax - ymin + 1,
            ]
            annotations.append(
                {"image_id": image_id, "category_id": 10 + names.index(name), "bbox": box}
            )
            centre = [
                (box[0] + box[2] / 2) / width,
                (box[1] + box[3] / 2) / height,
                box[2] / width,
                box[3] / height,
            ]
            lines.append(" ".join([str(names.index(name)), *(f"{value:.9f}" for value in centre)]))
            rows.append(
                [
                    f"{stem}.jpg",
                    width,
                    height,
                    name,
                    *(f"{value:.9f}" for value in (xmin, ymin, xmax, ymax)),
                ]
            )
        (folder / f"labels/{stem}.txt").write_text("\n".join(lines))
    categories = [{"id": 10 + index, "name": name} for index, name in enumerate(names)]
    (folder / "a.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "data.yaml").write_text(f"train: images\nnames: {json.dumps(names)}\n")
    with open(folder / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"], *rows]
        )


def test_cells_are_the_same_through_all_four_readers(
    cells, run, tmp_path, read_split, read_dataset
):
    make_other_formats(cells, tmp_path)
    objects = [row for *_, rows in read_cells(cells) for row in rows]
    num_dropped = sum(xmin == xmax for _, (xmin, _, xmax, _) in objects)
    assert num_dropped in (1, 2)
    counts = (len(list((cells / "Annotations").iterdir())), len(objects) - num_dropped, num_dropped)
    commands = {
        "voc_to_tfrecord": {"voc": cells, "image_set": "all"},
        "coco_to_tfrecord": {"images": tmp_path / "images", "annotations": tmp_path / "a.json"},
        "yolo_to_tfrecord": {"yolo": tmp_path},
        "csv_to_tfrecord": {
            "csv": tmp_path / "a.csv",
            "images": tmp_path / "images",
            "one_based": True,
        },
    }
    expected = None
    for command, flags in commands.items():
        assert run(command, **flags, output=tmp_path / command, workers=1) == (0, "")
        dataset = read_dataset(tmp_path / command)[0]
        split = dataset["splits"]["train"]
        assert (split["images"], split["boxes"], split["dropped_boxes"]) == counts
        assert [entry["name"] for entry in dataset["classes"]] == ["Platelets", "RBC", "WBC"]
        records = read_split(tmp_path / command)
        expected = expected or records
        for record, other in zip(records, expected, strict=True):
            for key in (
                "filename",
                "image",
                "labels",
                "texts",
                "height",
                "width",
                "crowd",
                "difficult",
            ):
                assert record[key] == other[key], (command, key)
            assert np.abs(record["boxes"] - other["boxes"]).max(initial=0) < 1e-6
            assert record["areas"] == pytest.approx(other["areas"], rel=1e-5)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """240 generated images: enough for processes to be used."""
    folder = tmp_path_factory.mktemp("drawn")
    shapes.write_dataset(folder, 240, seed=0)
    return folder


def test_same_bytes_for_any_number_of_workers(drawn, run, tmp_path, monkeypatch):
    flags = {
        "images": drawn / "images",
        "annotations": drawn / "annotations.json",
        "val_fraction": 0.2,
    }
    assert run("coco_to_tfrecord", **flags, output=tmp_path / "one", workers=1) == (0, "")
    used = []
    run_in_processes = pool.run_in_processes
    monkeypatch.setattr(
        pool, "run_in_processes", lambda *given: used.append(given[2]) or run_in_processes(*given)
    )
    assert run("coco_to_tfrecord", **flags, output=tmp_path / "three", workers=3) == (0, "")
    assert used == [3, 3, 3]  # comparing files, then each split
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one")) == 8 + 8 + 2 + 2
    assert not list(tmp_path.glob("*/.*"))  # no temporary file is left


def test_any_number_of_shards_holds_the_same_records(drawn, run, tmp_path, read_split):
    flags = {
        "images": drawn / "images",
        "annotations": drawn / "annotations.json",
        "workers": 1,
        "output": tmp_path,
    }
    assert run("coco_to_tfrecord", **flags, shards=3) == (0, "")
    names = [record["filename"] for record in read_split(tmp_path)]
    assert sorted(names) == [f"{index:06d}.jpg" for index in range(1, 241)]
    assert (
        sorted(path.name for path in tmp_path.glob("*.tfrecord"))[-1]
        == "train-00002-of-00003.tfrecord"
    )
    # Fewer shards again: the older ones are gone.
    assert run("coco_to_tfrecord", **flags, shards=1) == (0, "")
    assert [path.name for path in tmp_path.glob("*.tfrecord")] == ["train-00000-of-00001.tfrecord"]


@pytest.fixture
def two(tmp_path, paint, write_coco):
    """Two images, of a cat and of a dog."""
    paint(tmp_path / "images/a.jpg")
    paint(tmp_path / "images/b.jpg", size_wh=(40, 60))
    boxes = [(1, 1, [8, 16, 16, 24], {}), (2, 3, [4, 6, 20, 30], {})]
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 60)], boxes)
    return tmp_path


def test_labels_have_no_gaps_and_ids_keep_theirs(two, convert_coco, read_dataset, read_split):
    assert convert_coco() == (0, "")
    assert read_dataset(two / "out")[0]["classes"] == [
        {"name": "cat", "id": 1},
        {"name": "dog", "id": 3},
    ]
    assert [record["labels"] for record in read_split(two / "out")] == [[1], [2]]


def test_images_without_objects_are_kept_or_dropped(two, write_coco, convert_coco, read_dataset):
    write_coco(
        two / "annotations.json",
        [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 60)],
        [(1, 1, [8, 16, 16, 24], {})],
    )
    assert convert_coco() == (0, "")
    assert read_dataset(two / "out")[1]["splits"]["train"]["empty"] == 1
    assert convert_coco(drop_empty=True) == (0, "")
    dataset, report = read_dataset(two / "out")
    assert (dataset["splits"]["train"]["images"], report["splits"]["train"]["empty_left_out"]) == (
        1,
        1,
    )


def test_terminal_says_how_many_images_drop_empty_left_out(two, write_coco, capsys):
    write_coco(
        two / "annotations.json",
        [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 60)],
        [(1, 1, [8, 16, 16, 24], {})],
    )
    argv = [f"--images={two}/images", f"--annotations={two}/annotations.json"]
    argv += [f"--output={two}/out", "--workers=1"]
    assert coco_to_tfrecord.main(["x", *argv]) == 0
    assert "left out (--drop_empty)" not in capsys.readouterr().out
    assert coco_to_tfrecord.main(["x", *argv, "--drop_empty"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "images without objects left out (--drop_empty): 1" in lines


def test_classes_keeps_a_subset_in_its_order(two, convert_coco, read_dataset, read_split):
    assert convert_coco(classes="dog") == (0, "")
    dataset, report = read_dataset(two / "out")
    assert dataset["classes"] == [{"name": "dog", "id": 3}]
    assert [record["labels"] for record in read_split(two / "out")] == [[], [1]]
    assert report["splits"]["train"]["unlisted_classes"] == {"cat": 1}
    (two / "names.txt").write_text("dog\n\ncat\n")
    assert convert_coco(classes=two / "names.txt") == (0, "")
    assert [record["labels"] for record in read_split(two / "out")] == [[2], [1]]


def test_a_second_split_is_added_and_must_know_its_classes(
    two, write_coco, convert_coco, read_dataset
):
    assert convert_coco() == (0, "")
    write_coco(
        two / "annotations.json",
        [(7, "b.jpg", 40, 60)],
        [(7, 3, [4, 6, 20, 30], {})],
        categories=[(3, "dog")],
    )
    assert convert_coco(split="val")[0] == 0
    dataset, report = read_dataset(two / "out")
    assert list(dataset["splits"]) == list(report["splits"]) == ["train", "val"]
    assert len(dataset["classes"]) == 2

    write_coco(
        two / "annotations.json",
        [(7, "b.jpg", 40, 60)],
        [(7, 5, [4, 6, 20, 30], {})],
        categories=[(5, "cow")],
    )
    code, error = convert_coco(split="test")
    assert code == 1 and "class 'cow', which dataset.json does not list (cat, dog)" in error
    write_coco(
        two / "annotations.json",
        [(7, "b.jpg", 40, 60)],
        [(7, 5, [4, 6, 20, 30], {})],
        categories=[(5, "dog")],
    )
    code, error = convert_coco(split="test")
    assert code == 1 and "the class 'dog' has the id 5 here and 3 in dataset.json" in error
    code, error = convert_coco(split="test", classes="dog")
    assert (
        code == 2
        and "--classes gives dog, but the data set to add a split to has cat, dog" in error
    )
    assert list(read_dataset(two / "out")[0]["splits"]) == [
        "train",
        "val",
    ]  # what was there is still there


def test_identical_files_across_splits_give_a_warning(two, convert_coco, read_dataset):
    assert convert_coco() == (0, "")
    code, error = convert_coco(split="val")
    assert code == 0
    assert error.startswith(
        "WARNING: images of 'val' that are in 'train' too: 2 (the first: a.jpg = a.jpg)."
    )
    found = read_dataset(two / "out")[1]["splits"]["val"]["duplicates"]
    assert found["train"] == {
        "images": 2,
        "files": [{"val": [name], "train": [name]} for name in ("a.jpg", "b.jpg")],
    }


def test_val_fraction_writes_both_splits_without_leaks(
    drawn, run, tmp_path, read_dataset, read_split
):
    for copy in (1, 2, 3):  # three more copies of one image
        (drawn / f"images/copy{copy}.jpg").write_bytes((drawn / "images/000001.jpg").read_bytes())
    content = json.loads((drawn / "annotations.json").read_text())
    size = {key: content["images"][0][key] for key in ("width", "height")}
    content["images"] += [
        {"id": 1000 + copy, "file_name": f"copy{copy}.jpg", **size} for copy in (1, 2, 3)
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    flags = {
        "images": drawn / "images",
        "annotations": tmp_path / "a.json",
        "output": tmp_path,
        "workers": 1,
    }
    assert run("coco_to_tfrecord", **flags, val_fraction=0.25) == (0, "")
    train, val = (
        [record["filename"] for record in read_split(tmp_path, split)] for split in ("train", "val")
    )
    assert len(train) + len(val) == 243 and 57 <= len(val) <= 65
    copies = {"000001.jpg", "copy1.jpg", "copy2.jpg", "copy3.jpg"}
    assert copies <= set(train) or copies <= set(val)
    report = read_dataset(tmp_path)[1]["splits"]
    assert report["val"]["duplicates"]["train"]["images"] == 0
    for name in shapes.CATEGORIES:
        held = report["val"]["classes"][name]["images"]
        assert held / (held + report["train"]["classes"][name]["images"]) == pytest.approx(
            0.25, abs=0.06
        )


def test_boxes_follow_the_rotation_of_the_pixels(two, paint, write_coco, convert_coco, read_split):
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90
    paint(two / "images/a.jpg", exif=exif, quality=95)
    for width, height, box in (
        (64, 48, [8, 16, 16, 24]),
        (48, 64, [8, 8, 24, 16]),
    ):  # as stored; as shown
        write_coco(two / "annotations.json", [(1, "a.jpg", width, height)], [(1, 1, box, {})])
        assert convert_coco() == (0, "")
        (record,) = read_split(two / "out")
        assert (record["height"], record["width"]) == (64, 48)
        assert record["boxes"][0] == pytest.approx([8 / 64, 8 / 48, 24 / 64, 32 / 48])


def write_rotated_yolo(folder, paint):
    """Write one JPEG, stored 64 x 48 and shown 48 x 64, with its label on the image as shown.

    The red box, 8..24, 16..40 as stored, is shown at x 8..32, y 8..24.
    """
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90
    paint(folder / "a.jpg", exif=exif, quality=95)
    (folder / "a.txt").write_text(f"0 {20 / 48} {16 / 64} {24 / 48} {16 / 64}\n")
    (folder / "classes.txt").write_text("cat\n")


def red_corners(record):
    """Normalised corners of the red box in the image of a record."""
    pixels = np.asarray(Image.open(io.BytesIO(record["image"]))).astype(int)
    red = np.argwhere((pixels[..., 0] > 180) & (pixels[..., 1] < 80))
    return np.array([*red.min(0), *red.max(0) + 1]) / [*pixels.shape[:2], *pixels.shape[:2]]


def convert_rotated_yolo(folder, capsys, *flags):
    """Convert, and return the line that the terminal shows about EXIF."""
    given = [f"--yolo={folder}", f"--output={folder / 'out'}", "--workers=1"]
    assert yolo_to_tfrecord.main(["x", *given, *flags]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "--exif_boxes" in line)
    return " ".join(line.split())


def test_yolo_boxes_are_on_the_image_as_shown(tmp_path, paint, capsys, read_split):
    write_rotated_yolo(tmp_path, paint)
    line = convert_rotated_yolo(tmp_path, capsys)
    (record,) = read_split(tmp_path / "out")
    assert (record["height"], record["width"]) == (64, 48)
    assert record["boxes"][0] == pytest.approx([8 / 64, 8 / 48, 24 / 64, 32 / 48])
    assert record["boxes"][0] == pytest.approx(red_corners(record), abs=1 / 48)
    assert line == (
        "EXIF-rotated images whose labels do not give the orientation of the boxes: 1; boxes were "
        "taken to be drawn on the image as shown (--exif_boxes); check them with `ssd inspect`"
    )


def test_exif_boxes_overrides_the_default_of_the_format(tmp_path, paint, capsys, read_split):
    write_rotated_yolo(tmp_path, paint)
    line = convert_rotated_yolo(tmp_path, capsys, "--exif_boxes=stored")
    (record,) = read_split(tmp_path / "out")
    # Taken as stored, x 1/6..2/3 and y 1/8..3/8; rotated: x becomes y, 1 - y becomes x.
    assert record["boxes"][0] == pytest.approx([1 / 6, 5 / 8, 2 / 3, 7 / 8])
    assert "taken to be drawn on the image as stored (--exif_boxes)" in line


def test_report_says_what_was_assumed_about_exif(
    tmp_path, paint, write_coco, convert_coco, run, read_dataset
):
    # Shown upside down: both sizes are 64 x 48, so the labels cannot say how boxes were drawn.
    exif = Image.Exif()
    exif[0x0112] = 3
    names = ("a.jpg", "b.jpg", "empty.jpg")
    for index, name in enumerate(names):
        paint(tmp_path / "images" / name, box=(index, 16, 24, 40), exif=exif)
    write_coco(
        tmp_path / "annotations.json",
        [(index, name, 64, 48) for index, name in enumerate(names)],
        [(0, 1, [8, 16, 16, 24], {}), (1, 1, [8, 16, 16, 24], {})],
    )
    for flags, assumed in (({}, "stored"), ({"exif_boxes": "shown"}, "shown")):
        assert convert_coco(**flags) == (0, "")
        entry = read_dataset(tmp_path / "out")[1]["splits"]["train"]
        # The image without objects has no box to assume anything about.
        assert (entry["assumed_orientations"], entry["exif_boxes"]) == (2, assumed)
    write_rotated_yolo(tmp_path / "yolo", paint)
    flags = {"yolo": tmp_path / "yolo", "output": tmp_path / "yolo-out", "workers": 1}
    assert run("yolo_to_tfrecord", **flags) == (0, "")
    entry = read_dataset(tmp_path / "yolo-out")[1]["splits"]["train"]
    assert (entry["assumed_orientations"], entry["exif_boxes"]) == (1, "shown")


def test_csv_boxes_without_a_size_are_on_the_image_as_stored(tmp_path, paint, run, read_split):
    exif = Image.Exif()
    exif[0x0112] = ROTATE_90
    paint(tmp_path / "images/a.jpg", exif=exif, quality=95)
    (tmp_path / "a.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,8,16,24,40\n")
    flags = {"csv": tmp_path / "a.csv", "images": tmp_path / "images", "workers": 1}
    for name, more, expected in (
        ("default", {}, [8 / 64, 8 / 48, 24 / 64, 32 / 48]),
        ("shown", {"exif_boxes": "shown"}, [16 / 64, 8 / 48, 40 / 64, 24 / 48]),
    ):
        assert run("csv_to_tfrecord", **flags, **more, output=tmp_path / name) == (0, "")
        (record,) = read_split(tmp_path / name)
        assert record["boxes"][0] == pytest.approx(expected)


def test_report(two, write_coco, convert_coco, read_dataset):
    boxes = [
        (1, 1, [8, 16, 16, 24], {}),
        (1, 1, [0, 0, 64, 16], {"iscrowd": 1}),
        (2, 3, [-4, 6, 20, 30], {}),
    ]
    write_coco(two / "annotations.json", [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 99)], boxes)
    assert convert_coco() == (0, "")
    dataset, report = read_dataset(two / "out")
    entry = report["splits"]["train"]
    assert entry["source"] == {
        "images": str(two / "images"),
        "annotations": str(two / "annotations.json"),
    }
    assert (entry["read"], entry["images"], entry["boxes"], entry["ignored"], entry["clipped"]) == (
        2,
        2,
        2,
        1,
        1,
    )
    assert entry["classes"] == {
        "cat": {"objects": 1, "ignored": 1, "images": 1},
        "dog": {"objects": 1, "ignored": 0, "images": 1},
    }
    # 16 x 24 -> 19.6; 64 x 16 -> 32; 16 x 30 once clipped -> 21.9. Aspects 0.67, 4, 0.53.
    assert {name: count for name, count in entry["box_size_pixels"].items() if count} == {
        "16 to 32": 2,
        "32 to 64": 1,
    }
    assert {name: count for name, count in entry["box_aspect_ratio"].items() if count} == {
        "0.5 to 0.667": 1,
        "0.667 to 1.5": 1,
        "3 to 5": 1,
    }
    assert entry["size_mismatches"] == {
        "images": 1,
        "files": [{"file": "b.jpg", "labels_hw": [99, 40], "image_hw": [60, 40]}],
    }
    assert (dataset["splits"]["train"]["boxes"], dataset["splits"]["train"]["ignored"]) == (2, 1)


def test_the_first_hundred_dropped_boxes_are_named_and_all_counted(
    two, write_coco, convert_coco, read_dataset
):
    boxes = [(1, 1, [8, 16, 16, 24], {})] + [(1, 1, [x, 0, 0, 5], {}) for x in range(130)]
    write_coco(two / "annotations.json", [(1, "a.jpg", 64, 48)], boxes)
    assert convert_coco() == (0, "")
    split = read_dataset(two / "out")[0]["splits"]["train"]
    assert (len(split["dropped"]), split["dropped_boxes"]) == (100, 130)
    assert split["dropped"][99] == {
        "file": "a.jpg",
        "box": [99.0, 0.0, 99.0, 5.0],
        "reason": "degenerate",
    }


def test_terminal_table(two, capsys):
    given = {
        "images": two / "images",
        "annotations": two / "annotations.json",
        "output": two / "out",
        "workers": 1,
    }
    assert (
        coco_to_tfrecord.main(["x", *(f"--{name}={value}" for name, value in given.items())]) == 0
    )
    text = capsys.readouterr().out
    assert re.search(r"all +2 +2", text) and "train: 2 of 2 images, 0 without objects" in text


def test_terminal_reports_all_that_went_wrong(two, paint, write_coco, capsys):
    paint(two / "images/c.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    paint(two / "images/d.jpg", exif=exif)
    (two / "images/e.jpg").write_bytes((two / "images/a.jpg").read_bytes())
    images = [
        (1, "a.jpg", 64, 48),
        (2, "b.jpg", 40, 99),
        (3, "c.png", 64, 48),
        (4, "d.jpg", 64, 48),
        (5, "e.jpg", 64, 48),
    ]
    images += [(6, "gone.jpg", 64, 48)]
    boxes = [
        (1, 1, [8, 16, 16, 24], {}),
        (1, 1, [8, 16, 0, 24], {}),
        (2, 3, [-4, 6, 20, 30], {"iscrowd": 1}),
        (3, 7, [1, 2, 3, 4], {}),
    ]
    boxes += [(4, 1, [8, 16, 16, 24], {}), (6, 1, [8, 16, 16, 24], {}), (6, 1, [8, 16, 16, 24], {})]
    write_coco(
        two / "annotations.json",
        images,
        boxes,
        categories=((1, "cat [small]"), (3, "dog"), (7, "cow")),
    )
    given = {
        "images": two / "images",
        "annotations": two / "annotations.json",
        "output": two / "out",
        "workers": 1,
    }
    argv = [
        "x",
        *(f"--{name}={value}" for name, value in given.items()),
        "--classes=cat [small],dog",
    ]
    assert coco_to_tfrecord.main(argv) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    megabytes = f"{sum(path.stat().st_size for path in (two / 'out').glob('*.tfrecord')) / 1e6:.1f}"
    end = next(index for index, line in enumerate(lines) if line.startswith("details: "))
    del lines[end + 1 :]  # next: ...
    start = next(index for index, line in enumerate(lines) if line.startswith("class"))
    assert lines[start] == "class images objects ignored"
    assert lines[start + 2 : start + 5] == ["cat [small] 2 2 0", "dog 1 0 1", "all 5 2 1"]
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert lines[-1 - len(warnings) : -1] == warnings != []
    assert [line for line in lines[start + 5 :] if line and line not in warnings] == [
        f"train: 5 of 6 images, 2 without objects, {megabytes} MB",
        "images repaired: 2 (EXIF-rotated 1, png 1)",
        "images dropped: 1 (absent 1), with 2 objects",
        "boxes dropped: 1 (degenerate 1)",
        "objects of classes that --classes leaves out: 1 (cow 1)",
        f"gone.jpg: absent: no file at {two}/images/gone.jpg",
        "a.jpg: degenerate [8.0, 16.0, 8.0, 40.0]",
        "boxes clipped at the edge of the image: 1",
        "EXIF-rotated images whose labels do not give the orientation of the boxes: 1; boxes were "
        "taken to be drawn on the image as stored (--exif_boxes); check them with `ssd inspect`",
        "images whose size is not the one in the labels: 1, the first b.jpg: height and width "
        "[60, 40], labels [99, 40]",
        "identical files: 2 images in 1 group, the first a.jpg, e.jpg",
        f"details: {two}/out/dataset.json and report.json",
    ]
    entry = json.loads((two / "out/report.json").read_text())["splits"]["train"]
    assert sorted(entry["repaired_files"], key=lambda row: row["file"]) == [
        {"file": "c.png", "reason": "png"},
        {"file": "d.jpg", "reason": "EXIF-rotated"},
    ]
    assert entry["bytes"] == sum(path.stat().st_size for path in (two / "out").glob("*.tfrecord"))


def test_one_image_in_both_splits_gives_a_warning(two, write_coco, convert_coco):
    assert convert_coco() == (0, "")
    write_coco(two / "annotations.json", [(2, "b.jpg", 40, 60)], [(2, 3, [4, 6, 20, 30], {})])
    assert convert_coco(split="val")[1].startswith(
        "WARNING: images of 'val' that are in 'train' too: 1 (the first: b.jpg = b.jpg)."
    )


def test_conversion_that_would_keep_no_object(two, run, nothing_looks_finished):
    (two / "a.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,cat,8,16,24,40\na.jpg,64,48,cat,9,9,9,9\n"
    )
    given = {"csv": two / "a.csv", "images": two / "images", "output": two / "out", "workers": 1}
    code, error = run("csv_to_tfrecord", **given, classes="Cat,dgo")
    warnings = ["Cat'; did you mean 'cat'?", "dgo'; the labels have: cat"]
    lines = error.splitlines()
    assert lines[:2] == [
        f"WARNING: --classes: the labels have no class '{text}" for text in warnings
    ]
    found = "2 of the class 'cat', which --classes leaves out"
    assert (code, lines[2:]) == (
        1,
        [f"error: none of the objects in the labels was kept: {found}"],
    )
    nothing_looks_finished(two / "out")


def test_labels_without_objects_give_a_warning(two, write_coco, convert_coco):
    write_coco(two / "annotations.json", [(1, "a.jpg", 64, 48)])
    code, warning = convert_coco()
    assert code == 0 and warning.startswith("WARNING: ") and "background" in warning


def test_second_conversion_into_the_same_folder_is_rejected(two, convert_coco):
    with output.open_folder(two / "out", ["train"]):
        code, error = convert_coco(split="val")
        assert (
            code == 1 and f"another conversion is writing to {two}/out: wait until it ends" in error
        )
    assert convert_coco() == (0, "")


def test_name_that_no_file_can_have_does_not_stop_the_split(
    two, write_coco, convert_coco, read_dataset
):
    write_coco(
        two / "annotations.json",
        [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 60), (3, "\0.jpg", 9, 9)],
        [(1, 1, [8, 16, 16, 24], {}), (2, 1, [4, 6, 20, 30], {})],
    )
    assert convert_coco(val_fraction=0.5) == (0, "")
    report = read_dataset(two / "out")[1]["splits"]
    assert sum(entry["images"] for entry in report.values()) == 2
    assert sum(entry["dropped_images"].get("unreadable", 0) for entry in report.values()) == 1


def test_every_flag_reaches_the_conversion():
    values = config.new_flags()
    given = (
        "--output=o --split=s --shards=3 --workers=2 --val_fraction=0.25 --split_seed=7 "
        "--classes=a,b --no-verify --drop_empty --strict --exif_boxes=shown --boxes=percent "
        "--beam_runner=DirectRunner -- --n=4"
    )
    rest = values(["x", *given.split()])[1:]
    assert config.read_config(values, rest) == config.ConversionConfig(
        output="o",
        split="s",
        shards=3,
        workers=2,
        val_fraction=0.25,
        split_seed=7,
        classes=["a", "b"],
        verify=False,
        drop_empty=True,
        strict=True,
        exif_boxes="shown",
        boxes="percent",
        beam_runner="DirectRunner",
        beam_arguments=("--n=4",),
    )


@pytest.mark.parametrize(
    ("num_images", "requested", "num_shards"),
    [(9_001, 0, 10), (500, 0, 8), (3, 0, 3), (9_001, 4, 4), (2, 4, 2)],
)
def test_one_shard_per_thousand_images(num_images, requested, num_shards):
    assert convert.count_shards(num_images, requested) == num_shards


def test_progress_without_a_terminal(monkeypatch, capsys):
    now = iter([100.0, 104.0, 110.0, 112.0, 125.0])
    monkeypatch.setattr(pool.time, "monotonic", lambda: next(now))
    with pool.show_progress("converting train", 9_000) as show:
        for done in (0, 900, 2_000, 2_100, 5_000):
            show(done)
    # 2,000 in 10 s, then 5,000 in 25 s: 200 images/s; 7,000 and 4,000 are left.
    assert capsys.readouterr().err.splitlines() == [
        "converting train: 2,000 of 9,000 images, 200 images/s, 35 s left",
        "converting train: 5,000 of 9,000 images, 200 images/s, 20 s left",
    ]


def test_progress_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with pool.show_progress("reading the labels") as show:
        show(20)
    assert "reading the labels" in capsys.readouterr().err
    with pool.show_progress("converting train", 9_000) as show:
        show(2_000)
    err = capsys.readouterr().err
    assert "converting train" in err and "9000/9000" in err and "images/s" in err


def test_beam_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ValueError, match=r"--beam_runner .*ssd-tf\[beam\]"):
        next(pool.run_on_beam(len, [], "DirectRunner", ()))


@pytest.mark.parametrize("command", ["coco", "voc", "yolo", "csv"])
def test_help(command, run):
    assert run(f"{command}_to_tfrecord", help=True)[0] == 0


def test_failed_conversion_leaves_an_older_split_unchanged(two, convert_coco):
    assert convert_coco() == (0, "")
    before = digests(two / "out")
    (two / "elsewhere").mkdir()
    code, error = convert_coco(images=two / "elsewhere")
    assert code == 1 and "none of the images of 'train' can be used (absent 2)" in error
    assert digests(two / "out") == before and not list((two / "out").glob(".*"))


def test_conversion_that_keeps_no_object_leaves_an_older_split_unchanged(
    two, write_coco, convert_coco
):
    assert convert_coco() == (0, "")
    before = digests(two / "out")
    write_coco(two / "annotations.json", [(1, "a.jpg", 64, 48)], [(1, 1, [8, 16, 0, 24], {})])
    code, error = convert_coco()
    assert (code, error) == (
        1,
        "error: none of the objects in the labels was kept: 1 degenerate\n",
    )
    assert digests(two / "out") == before and not list((two / "out").glob(".*"))


@pytest.mark.parametrize("allow_outside", [False, True])
def test_allow_outside_reaches_voc_and_yolo(tmp_path, paint, run, read_dataset, allow_outside):
    """Each data set has the image a.jpg, and names ../outside.jpg too."""
    box = "<bndbox><xmin>9</xmin><ymin>17</ymin><xmax>24</xmax><ymax>40</ymax></bndbox>"
    annotation = (
        "<annotation><filename>{}</filename><object><name>cat</name>{}</object></annotation>"
    )
    paint(tmp_path / "outside.jpg", size_wh=(40, 48))
    paint(tmp_path / "voc/a.jpg")
    paint(tmp_path / "yolo/a.jpg")
    for stem, name in (("a", "a.jpg"), ("b", "../outside.jpg")):
        (tmp_path / f"voc/{stem}.xml").write_text(annotation.format(name, box))
    (tmp_path / "yolo/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "yolo/train.txt").write_text("a.jpg\n../outside.jpg\n")
    (tmp_path / "yolo/data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    flags = {"workers": 1} | ({"allow_outside": True} if allow_outside else {})
    for name in ("voc", "yolo"):
        output = tmp_path / f"{name}-out"
        assert run(f"{name}_to_tfrecord", **{name: tmp_path / name}, output=output, **flags)[0] == 0
        entry = read_dataset(output)[1]["splits"]["train"]
        dropped = {} if allow_outside else {"outside the image folder": 1}
        assert (entry["images"], entry["dropped_images"]) == (1 + allow_outside, dropped)
