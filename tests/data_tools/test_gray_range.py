"""Images of 16 bits in a conversion: --gray_range, and what is said of lost contrast."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_tools.conversion import counts, image_checks
from ssd_tf.data import dataset_json


@pytest.fixture
def thermal(tmp_path, write_coco):
    """A function: (low, high) of each image, 30 x 20 -> the folder, with a COCO file of them."""

    def write(*ranges):
        (tmp_path / "images").mkdir()
        for index, (low, high) in enumerate(ranges, 1):
            ramp = np.tile(np.linspace(low, high, 600).round().reshape(20, 30), (4, 4))
            Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / f"images/{index}.png")
        numbers = range(1, len(ranges) + 1)
        write_coco(
            tmp_path / "annotations.json",
            [(number, f"{number}.png", 120, 80) for number in numbers],
            [(number, 1, [10, 10, 40, 30], {}) for number in numbers],
        )
        return tmp_path

    return write


def extents(records):
    """The darkest and the brightest gray value of each record's image, in the order of names."""
    records = sorted(records, key=lambda record: record["filename"])
    images = [
        np.asarray(Image.open(io.BytesIO(record["image"])).convert("L")) for record in records
    ]
    return [(int(image.min()), int(image.max())) for image in images]


def content_of(folder, name="dataset.json"):
    return json.loads((folder / "out" / name).read_text())


def test_the_upper_eight_bits_by_default(thermal, convert_coco, read_split):
    folder = thermal((0, 65535), (100, 4000))
    assert convert_coco() == (0, "")
    (darkest, brightest), (dark, gray) = extents(read_split(folder / "out"))
    assert darkest <= 3 and brightest >= 252
    assert dark <= 2 and 13 <= gray <= 18  # 4000 / 256 = 15.6
    assert "gray_range" not in content_of(folder)
    assert dataset_json.read_dataset(folder / "out").gray_range == (0, 65535)


@pytest.mark.parametrize("gray_range", ["3000,8500", "0,4095"])
def test_a_gray_range_scales_all_images_alike(thermal, convert_coco, read_split, gray_range):
    folder = thermal((3000, 4500), (7000, 8500))
    assert convert_coco(gray_range=gray_range) == (0, "")
    low, high = map(int, gray_range.split(","))
    expected = [
        [min(max(value - low, 0) * 256 // (high - low + 1), 255) for value in ends]
        for ends in ((3000, 4500), (7000, 8500))
    ]
    found = extents(read_split(folder / "out"))
    assert np.abs(np.array(found) - expected).max() <= 4
    assert content_of(folder)["gray_range"] == [low, high]
    assert dataset_json.read_dataset(folder / "out").gray_range == (low, high)


def test_lost_contrast_is_counted_and_named(thermal, convert_coco):
    folder = thermal((0, 40000), (3000, 4500), (7000, 8500), (500, 500))
    assert convert_coco()[0] == 0
    gray = content_of(folder, "report.json")["splits"]["train"]["gray_16bit"]
    gray["first_coarse"].sort()
    # 1,500 values become 7 levels; one value stays one.
    assert gray == {
        "images": 4,
        "low": 0,
        "high": 40000,
        "coarse": 2,
        "first_coarse": ["2.png", "3.png"],
    }


def test_the_fitting_range_is_advised(thermal, convert_coco, monkeypatch):
    from data_tools.conversion import report

    folder = thermal((3000, 4500), (7000, 8500))
    lines = []
    original = report.describe_gray
    monkeypatch.setattr(
        report, "describe_gray", lambda entries: lines.extend(original(entries)) or []
    )
    assert convert_coco()[0] == 0
    assert len(lines) == 1 and "--gray_range 3000,8500" in lines[0] and "1.png" in lines[0]
    lines.clear()
    assert convert_coco(gray_range="3000,8500")[0] == 0
    assert lines == []
    assert content_of(folder)["gray_range"] == [3000, 8500]


def test_another_split_has_the_same_range(thermal, convert_coco):
    folder = thermal((3000, 8500))
    assert convert_coco(gray_range="3000,8500") == (0, "")
    code, message = convert_coco(split="val", gray_range="0,8500")
    assert code == 1 and "3000,8500" in message
    assert list(content_of(folder)["splits"]) == ["train"]
    for flags in ({}, {"gray_range": "3000,8500"}):
        assert convert_coco(split="val", **flags)[0] == 0
        assert content_of(folder)["gray_range"] == [3000, 8500]
    # The only split may be converted again in another way.
    assert convert_coco(output=folder / "other", gray_range="0,100")[0] == 0
    assert convert_coco(output=folder / "other")[0] == 0
    assert dataset_json.read_dataset(folder / "other").gray_range == (0, 65535)


def test_a_split_beside_one_of_the_full_range(thermal, convert_coco):
    folder = thermal((3000, 8500))
    assert convert_coco() == (0, "")
    assert convert_coco(split="val", gray_range="3000,8500")[0] == 1
    assert convert_coco(split="val", gray_range="0,65535")[0] == 0
    assert "gray_range" not in content_of(folder)


@pytest.mark.parametrize("text", ["5,3", "1", "a,b", "0,70000"])
def test_wrong_ranges(thermal, convert_coco, text):
    thermal((0, 100))
    code, message = convert_coco(gray_range=text)
    assert code == 2 and "--gray_range" in message


@pytest.mark.parametrize("value", [[5, 3], "0,5", [1], {"low": 0}])
def test_a_wrong_range_in_dataset_json(tmp_path, value):
    content = {"classes": [{"name": "a", "id": 1}], "splits": {}, "gray_range": value}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="gray range"):
        dataset_json.read_dataset(tmp_path)


def test_counts_of_no_image():
    total = counts.GrayCounts()
    total.merge(counts.GrayCounts())
    assert (total.images, total.coarse.count) == (0, 0)


def test_counts_of_shards_add_up():
    total = counts.GrayCounts()
    for low, high in ((300, 900), (100, 500), (0, 65535)):
        shard = counts.GrayCounts()
        shard.add(image_checks.GrayLevels(low, high, high < 1000), f"{low}.png")
        total.merge(shard)
    assert (total.images, total.low, total.high) == (3, 0, 65535)
    assert (total.coarse.count, total.coarse.first) == (2, ["300.png", "100.png"])
