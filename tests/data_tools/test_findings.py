"""Labels that no image uses, files that several use: counted, named, refused under --strict."""

import json

import pytest

from data_tools import voc_to_tfrecord
from data_tools.conversion import report

BOX = [8, 16, 16, 24]


@pytest.fixture
def findings_of(tmp_path, convert_coco, read_dataset):
    """A function: flags -> converts tmp_path; the `findings` of the split train in report.json."""

    def convert(**flags):
        assert convert_coco(**flags) == (0, "")
        return read_dataset(tmp_path / "out")[1]["splits"]["train"]["findings"]

    return convert


def test_several_entries_for_one_file(tmp_path, paint, write_coco, findings_of, convert_coco):
    for file in ("a.jpg", "b.jpg", "c.jpg"):
        paint(tmp_path / "images" / file)
    files = [
        (1, "a.jpg"),
        (2, "cam1/b.jpg"),
        (3, "c.jpg"),
        (4, "cam3/../a.jpg"),
        (5, "cam2/b.jpg"),
        (6, "a.jpg"),
    ]
    files += [(7, None), (8, None)]  # no file, so none that they share
    (tmp_path / "images/cam3").mkdir()
    write_coco(
        tmp_path / "annotations.json", [(i, file, 64, 48) for i, file in files], [(1, 1, BOX, {})]
    )
    first = "a.jpg (id 1) = cam3/../a.jpg (id 4) = a.jpg (id 6)"
    assert findings_of() == {
        "several entries for one file": {
            "count": 2,
            "first": [first, "cam1/b.jpg (id 2) = cam2/b.jpg (id 5)"],
        }
    }
    assert convert_coco(strict=True) == (
        1,
        f"error: --strict: several entries for one file: 2, the first {first}\n",
    )


def test_images_that_the_labels_do_not_name(tmp_path, paint, write_coco, findings_of):
    for file in ("z.jpg", "b.HEIC", "cam1/a.jpg", "cam1/y.png", "other/x.jpg"):
        paint(tmp_path / "images" / file, format="PNG")
    (tmp_path / "images/notes.txt").touch()
    images = [(1, "cam1/a.jpg", 64, 48), (2, "gone/a.png", 64, 48)]
    write_coco(tmp_path / "annotations.json", images, [(1, 1, BOX, {})])
    found = {
        "images that the labels do not name": {
            "count": 3,
            "first": ["b.HEIC", "z.jpg", "cam1/y.png"],
        }
    }
    assert findings_of() == found  # not `other`, from which no labelled image comes
    write_coco(tmp_path / "annotations.json", images[:1], [(1, 1, BOX, {})])
    assert findings_of(strict=True) == found


def test_a_hundred_are_named(tmp_path, paint, write_coco, findings_of):
    paint(tmp_path / "images/a.jpg")
    for index in range(120):
        (tmp_path / f"images/{index:03}.png").touch()
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48)], [(1, 1, BOX, {})])
    (found,) = findings_of().values()
    assert (found["count"], len(found["first"]), found["first"][99]) == (120, 100, "099.png")


@pytest.mark.parametrize("flags", [{}, {"val_fraction": 0.5}])
def test_annotations_of_images_that_are_not_listed(
    tmp_path, paint, write_coco, convert_coco, read_dataset, flags
):
    for index in range(4):
        paint(tmp_path / f"images/{index}.jpg", box=(index, 16, 24, 40))
    images = [(index, f"{index}.jpg", 64, 48) for index in range(4)]
    listed = [(index, 1, BOX, {}) for index in range(4)]
    strays = [(9, 1, BOX, {})] * 3 + [(10, 3, [0, 0, 9, float("nan")], {})]
    write_coco(tmp_path / "annotations.json", images, listed + strays)
    assert convert_coco(**flags) == (0, "")
    dataset, report = read_dataset(tmp_path / "out")
    train, *others = report["splits"].values()
    assert train["dropped_boxes"] == {"image not listed": 4} and train["dropped_images"] == {}
    assert sum(entry["read"] for entry in report["splits"].values()) == 4
    assert [entry["dropped_boxes"] for entry in others] == [{}] * len(others)
    assert dataset["splits"]["train"]["dropped_boxes"] == 4
    assert train["dropped"][2:] == [
        {"file": "image id 9", "box": [8, 16, 24, 40], "reason": "image not listed"},
        {"file": "image id 10", "box": [0, 0, 9, None], "reason": "image not listed"},
    ]
    message = "image id 9: a box is dropped (image not listed): [8.0, 16.0, 24.0, 40.0]"
    assert convert_coco(strict=True, **flags) == (1, f"error: --strict: {message}\n")


def test_terminal_shows_the_image_set_and_unlabelled_images(tmp_path, paint, capsys):
    box = "<bndbox><xmin>9</xmin><ymin>17</ymin><xmax>24</xmax><ymax>40</ymax></bndbox>"
    (tmp_path / "voc/Annotations").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    for name in "abc":
        paint(tmp_path / f"voc/JPEGImages/{name}.jpg")
        if name != "c":
            text = f"<annotation><object><name>cat</name>{box}</object></annotation>"
            (tmp_path / f"voc/Annotations/{name}.xml").write_text(text)
    (tmp_path / "voc/ImageSets/Main/trainval.txt").write_text("a\n")
    flags = [f"--voc={tmp_path / 'voc'}", f"--output={tmp_path / 'out'}", "--workers=1"]
    assert voc_to_tfrecord.main(["x", *flags]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "image set trainval: 1 of 2 XML files" in lines
    # b has labels, in another set.
    report = json.loads((tmp_path / "out/report.json").read_text())
    unlabelled = next(
        warning
        for warning in report["splits"]["train"]["warnings"]
        if warning["what"] == "unlabelled_images"
    )
    assert (unlabelled["count"], unlabelled["names"]) == (1, ["c.jpg"])
    assert f"warning: {unlabelled['text']}" in lines


def test_label_files_without_an_image(tmp_path, paint, run, read_dataset):
    paint(tmp_path / "yolo/a.jpg")
    for name in "abc":
        (tmp_path / f"yolo/{name}.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "yolo/classes.txt").write_text("cat\n")
    flags = {"yolo": tmp_path / "yolo", "output": tmp_path / "out", "workers": 1}
    assert run("yolo_to_tfrecord", **flags) == (0, "")
    found = [str(tmp_path / f"yolo/{name}.txt") for name in "bc"]
    assert read_dataset(tmp_path / "out")[1]["splits"]["train"]["findings"] == {
        "label files without an image": {"count": 2, "first": found}
    }
    code, error = run("yolo_to_tfrecord", **flags, strict=True)
    assert (code, error) == (
        1,
        f"error: --strict: label files without an image: 2, the first {found[0]}\n",
    )


@pytest.mark.parametrize(
    ("boxes", "num_beyond"),
    [
        ([(8, 16, 16, 24)] * 3, 0),
        ([(40, 16, 40, 24), BOX, BOX], 0),  # one of three crosses the edge
        ([(40, 16, 40, 24), (50, 8, 40, 40), BOX], 2),
        ([(40, 16, 40, 24), (500, 800, 40, 40), BOX], 2),
        ([(-10, 16, 40, 24), (-10, 16, 40, 80), BOX, (1, 1, 0, 0), (1, 1, 0, 0)], 0),
    ],
)
def test_boxes_that_reach_beyond_their_image(
    tmp_path, paint, write_coco, convert_coco, read_dataset, boxes, num_beyond
):
    paint(tmp_path / "images/a.jpg")
    rows = [(1, 1, list(box), {}) for box in boxes]
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48)], rows)
    assert convert_coco() == (0, "")
    entry = read_dataset(tmp_path / "out")[1]["splits"]["train"]
    lines = [line for line in report.describe("train", entry) if "beyond" in line]
    assert [line.split()[0] for line in lines] == [str(num_beyond)] * (num_beyond > 0)


def test_a_class_left_out_is_shown_in_one_line(
    tmp_path, paint, write_coco, convert_coco, read_dataset
):
    paint(tmp_path / "images/a.jpg")
    rows = [(1, 1, BOX, {}), (1, 3, BOX, {})]
    names = [(1, "cat"), (3, "x\n\x1b[31my")]
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48)], rows, names)
    assert convert_coco(classes="cat") == (0, "")
    lines = list(report.describe("train", read_dataset(tmp_path / "out")[1]["splits"]["train"]))
    assert any(r"'x\n\x1b[31my' 1" in line for line in lines)
    assert all(line.isprintable() for line in lines)
