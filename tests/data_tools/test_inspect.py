"""inspect_tfrecord: its numbers and its sheet, and coverage against a few lines of NumPy."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from data_tools import inspect_tfrecord
from data_tools.analysis import coverage, inspection
from ssd_tf.boxes import geometry

SSD300 = "model: {input_hw: [300, 300], backbone: {name: vgg16}}\nboxes: {preset: caffe_voc}\n"


@pytest.fixture
def convert_voc(run, tmp_path):
    """A function: convert a VOC data set; returns the folder of records."""

    def convert(voc):
        assert run("voc_to_tfrecord", voc=voc, output=tmp_path / "records", workers=1) == (0, "")
        return tmp_path / "records"

    return convert


def ssd300_boxes_by_hand():
    """The SSD300 VOC table of Liu et al.'s released model.

    In pixels [8732, 4], and the index of the feature map of each [8732].
    """
    sizes = (30, 60, 111, 162, 213, 264, 315)
    maps = (38, 19, 10, 5, 3, 1)
    steps = (8, 16, 32, 64, 100, 300)
    boxes = []
    levels = []
    for level, (cells, step) in enumerate(zip(maps, steps, strict=True)):
        size = sizes[level]
        ratios = [2, 1 / 2, 3, 1 / 3] if 1 <= level <= 3 else [2, 1 / 2]
        shapes_wh = [(size, size), (math.sqrt(size * sizes[level + 1]),) * 2]
        shapes_wh += [(size * ratio**0.5, size / ratio**0.5) for ratio in ratios]
        for row in range(cells):
            for column in range(cells):
                x = (column + 0.5) * step
                y = (row + 0.5) * step
                for width, height in shapes_wh:
                    corners = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
                    boxes.append(corners)
                    levels.append(level)
    return np.array(boxes), np.array(levels)


def overlaps_by_hand(boxes, others):
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    other_areas = (others[:, 2:] - others[:, :2]).prod(-1)
    return shared / (areas[:, None] + other_areas - shared)


def measure(records, tmp_path):
    """Coverage by the SSD300 table: the rows of the levels, and of the classes."""
    from ssd_tf.config import load_config
    from ssd_tf.data import dataset_json

    (tmp_path / "c.yaml").write_text(SSD300)
    info = dataset_json.read_dataset(records)
    found = inspection.read_split(info, "train")
    return coverage.measure(load_config(tmp_path / "c.yaml"), found, info.names)


def test_coverage_of_cells_by_the_ssd300_table(drawn_voc, convert_voc, tmp_path, read_split):
    records = convert_voc(drawn_voc)
    by_level, _ = measure(records, tmp_path)
    boxes = [record["boxes"][np.array(record["difficult"]) == 0] for record in read_split(records)]
    boxes = np.concatenate(boxes) * 300.0
    defaults, level = ssd300_boxes_by_hand()
    assert len(defaults) == 8732
    overlaps = overlaps_by_hand(boxes, defaults)
    best = level[overlaps.argmax(1)]
    objects = np.bincount(best, minlength=6).tolist()
    covered = np.bincount(best[overlaps.max(1) >= 0.5], minlength=6).tolist()
    assert [row.objects for row in by_level] == [*objects, len(boxes)]
    assert [row.covered for row in by_level] == [*covered, sum(covered)]
    assert by_level[-1].mean_iou == pytest.approx(overlaps.max(1).mean(), abs=1e-5)


def test_coverage_of_voc14_by_the_ssd300_table(real_data, convert_voc, tmp_path):
    by_level, by_class = measure(convert_voc(real_data("voc14")), tmp_path)
    assert [(row.name, row.objects, row.covered, row.forced) for row in by_level] == [
        ("38 x 38", 13, 11, 2),
        ("19 x 19", 9, 9, 0),
        ("10 x 10", 9, 9, 0),
        ("5 x 5", 2, 2, 0),
        ("3 x 3", 1, 1, 0),
        ("1 x 1", 3, 3, 0),
        ("all", 37, 35, 2),
    ]
    covered = {row.name: (row.covered, row.objects) for row in by_class}
    assert covered["person"] == (6, 8) and covered["car"] == (8, 8) and covered["all"] == (35, 37)


def test_coverage_of_no_objects_and_of_a_tie():
    default_boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1]], np.float32)
    best, iou = geometry.best_overlaps(np.zeros((0, 4), np.float32), default_boxes)
    assert len(best) == len(iou) == 0
    (row,) = coverage.tabulate(best, iou, [])
    assert (row.objects, row.covered, math.isnan(row.fraction)) == (0, 0, True)
    # A box of 0.5 x 0.25 in the first corner shares 0.125 with the first; their union is 0.25.
    # Exactly .5 counts.
    best, iou = geometry.best_overlaps(np.array([[0, 0, 0.5, 0.25]], np.float32), default_boxes)
    assert (best.tolist(), iou.tolist()) == ([0], [0.5])
    assert coverage.tabulate(best, iou, ["one"])[0].covered == 1


@pytest.mark.parametrize(
    ("covered", "percent", "is_low"), [(8, "100 %", False), (6, "75 %", False), (5, "62 %", True)]
)
def test_the_verdict_on_coverage(covered, percent, is_low):
    iou = np.array([0.5] * covered + [0.49] * (8 - covered), np.float32)
    text = coverage.judge(coverage.tabulate(np.zeros(8, int), iou, ["one", "two"]))
    assert text.startswith(percent)
    assert ("good" in text) != is_low
    assert coverage.judge(coverage.tabulate(np.zeros(0, int), np.zeros(0), ["one"]))


def test_numbers_and_sheet(two_splits, capsys):
    sheet = two_splits / "sheet.png"
    assert inspect_tfrecord.main(["x", str(two_splits), f"--output={sheet}"]) == 0
    text = capsys.readouterr().out
    assert "split 'train' of train, val; 2 classes" in text
    assert (
        "2 images, 1 boxes, 1 ignored" in text
        and "width x height: 64 x 48 (1), 40 x 60 (1)" in text
    )
    assert "  cat: 1 in 1 images\n  dog: 0 in 1 images, 1 ignored\n" in text
    with Image.open(sheet) as image:
        # 64 x 48 and 40 x 60 in the height of a row: 400 and 200 wide.
        assert image.size == (10 + 410 + 210, 52 + 326 + 10)


@pytest.fixture
def two_splits(tmp_path, paint, write_coco, convert_coco):
    """A converted folder: train has a cat and a crowd of dogs, val an image without objects."""
    paint(tmp_path / "images/a.jpg")
    paint(tmp_path / "images/b.jpg", size_wh=(40, 60))
    paint(tmp_path / "images/c.jpg", size_wh=(70, 50))
    boxes = [(1, 1, [8, 16, 16, 24], {}), (2, 3, [4, 6, 20, 30], {"iscrowd": 1})]
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48), (2, "b.jpg", 40, 60)], boxes)
    assert convert_coco() == (0, "")
    write_coco(tmp_path / "annotations.json", [(3, "c.jpg", 70, 50)])
    assert convert_coco(split="val")[0] == 0
    return tmp_path / "out"


def test_ignore_regions_are_hatched(two_splits):
    from ssd_tf.data import dataset_json

    info = dataset_json.read_dataset(two_splits)
    shards = info.shards("train")
    hatched = np.asarray(inspection.draw_sheet(shards, info.names, [1])).astype(int)
    plain = np.asarray(inspection.draw_sheet(shards, ["a", "b"], [0])).astype(int)
    # The image is five times as large, from 52, 10 on. The crowd's box (4..24, 6..36) holds slanted
    # lines in the second class's green; the cat's box, at 6.25 times, does not.
    inside = hatched[52 + 60 : 52 + 170, 10 + 30 : 10 + 110]
    assert np.sum(inside[..., 1] - inside[..., 0] > 60) > 500
    inside = plain[52 + 130 : 52 + 240, 10 + 60 : 10 + 140]
    assert np.sum(inside[..., 1] - inside[..., 0] > 60) == 0


def test_records_that_contradict_dataset_json_are_reported(two_splits, run):
    content = json.loads((two_splits / "dataset.json").read_text())
    content["splits"]["train"]["boxes"] = 5
    content["classes"] = content["classes"][:1]
    (two_splits / "dataset.json").write_text(json.dumps(content))
    code, error = run("inspect_tfrecord", str(two_splits))
    assert code == 1
    assert "WARNING: dataset.json says 5 boxes, the records hold 1" in error
    assert "WARNING: 1 objects have a label outside 1 to 1, the first 2" in error


def test_rejected(two_splits, run, tmp_path):
    assert run("inspect_tfrecord") == (
        2,
        "error: give the folder of a converted data set (see --help)\n",
    )
    assert run("inspect_tfrecord", str(two_splits), split="test")[1].endswith(
        "has no split 'test'; it has train, val\n"
    )
    (tmp_path / "empty").mkdir()
    code, error = run("inspect_tfrecord", str(tmp_path / "empty"))
    assert code == 1 and "has no dataset.json" in error
    assert run("inspect_tfrecord", str(two_splits), output=tmp_path / "a.jpg")[0] == 2
    code, error = run("inspect_tfrecord", str(two_splits), set="boxes.preset=paper")
    assert code == 2 and "--config" in error
    (shard,) = two_splits.glob("train-00000*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:40])
    code, error = run("inspect_tfrecord", str(two_splits))
    assert (
        code == 1 and f"error: {shard}: cut off or corrupt at record 0 (from 0) or before" in error
    )
    content = json.loads((two_splits / "dataset.json").read_text())
    (two_splits / "dataset.json").write_text(json.dumps(content | {"splits": {}}))
    assert "dataset.json lists no split" in run("inspect_tfrecord", str(two_splits))[1]


def test_coverage_is_printed_and_images_are_drawn(two_splits, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(
        "model: {input_hw: [64, 64], backbone: {name: plain}, num_levels: 2}\n"
        "boxes: {preset: paper}\n"
    )
    flags = [f"--config={tmp_path / 'c.yaml'}", f"--output={tmp_path / 'one.png'}", "--images=1"]
    assert inspect_tfrecord.main(["x", str(two_splits), *flags]) == 0
    text = capsys.readouterr().out
    assert "2 images, 1 boxes, 1 ignored" in text and "4 x 4" in text
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.splitlines()
        if line.split()[:1] in (["cat"], ["all"])
    }
    assert len(rows["cat"]) == 5 and rows["cat"][0] == "1"
    with Image.open(tmp_path / "one.png") as sheet:
        drawn = np.asarray(sheet)
    assert drawn.shape == (52 + 326 + 10, 490, 3)  # one image, below a title that is wider
    assert (drawn[52:352, 10:210] < 255).any(-1).all()

    assert inspect_tfrecord.main(["x", str(two_splits), "--split=val", *flags[:1]]) == 0
    assert "nan" not in capsys.readouterr().out
    overrides = ["--set", "model.num_levels=3", "boxes.s_min=.3"]
    assert inspect_tfrecord.main(["x", str(two_splits), *flags[:1], *overrides]) == 0
    assert len(re.findall(r"\d+ x \d+ ", capsys.readouterr().out)) == 3
