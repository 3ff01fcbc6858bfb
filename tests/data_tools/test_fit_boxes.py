"""fit_boxes: the measure that it raises, and that it raises coverage."""

import pathlib
import re

import numpy as np
import pytest

from data_tools.analysis import fitting
from ssd_tf.boxes.default_boxes import BoxLevel

SSD300 = "model: {input_hw: [300, 300], backbone: {name: vgg16}}\nboxes: {preset: caffe_voc}\n"


def test_level_overlaps_in_literals():
    # Cells of 50 x 25 pixels on a 100 x 50 input; squares of 20 and of 40, sqrt(20 * 80).
    level = fitting.LevelSizes(20.0, 80.0, ())
    boxes = np.array(
        [
            [15, 2.5, 35, 22.5],  # the square of 20 around the first centre (25, 12.5)
            [65, 27.5, 85, 47.5],  # around the last centre (75, 37.5)
            [20, 2.5, 40, 22.5],  # 5 pixels lower: 15 * 20 of 500 are shared
            [55, -7.5, 95, 32.5],  # the square of 40 around (75, 12.5)
        ],
        float,
    )
    found = fitting.level_overlaps(level, (2, 2), (100, 50), boxes)
    assert found == pytest.approx([1, 1, 0.6, 1])
    assert fitting.level_overlaps(level, (2, 2), (100, 50), np.zeros((0, 4))).shape == (0,)


def test_the_nearest_cell_is_the_best_one():
    from ssd_tf.boxes import geometry
    from ssd_tf.boxes.default_boxes import make_default_boxes

    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (200, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.02, 0.3, (200, 2))], 1)
    level = fitting.LevelSizes(30.0, 55.0, (1.7, 2.6))
    default_boxes = make_default_boxes([level.to_box_level()], [(7, 12)], (140, 260))
    expected = geometry.best_overlaps(boxes, default_boxes)[1]
    found = fitting.level_overlaps(level, (7, 12), (140, 260), boxes * [140, 260, 140, 260])
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("shapes", "entry"),
    [
        (BoxLevel.from_sizes(30, 60, (2.0,), 8), fitting.LevelSizes(30, 60, (2.0,), 8)),
        (BoxLevel.from_sizes(60, 111, (2.0, 3.0)), fitting.LevelSizes(60, 111, (2.0, 3.0))),
        (BoxLevel.from_sizes(44), fitting.LevelSizes(44, None, ())),
        (
            BoxLevel(((10, 10), (14.142, 28.284), (28.284, 14.142))),
            fitting.LevelSizes(10, None, (2.0,)),
        ),
    ],
)
def test_the_start_is_the_configs_own(shapes, entry):
    found = fitting.LevelSizes.from_box_level(shapes)
    assert found.size == pytest.approx(entry.size)
    assert found.next_size == pytest.approx(entry.next_size)
    assert found.aspect_ratios == pytest.approx(entry.aspect_ratios, rel=1e-4)
    assert found.step == entry.step


def test_finds_one_size_and_ratio():
    # Every object is 40 high and 100 wide, in the middle of a cell: size sqrt(4000) = 63.2 and
    # ratio 2.5.
    size = np.array([20, 50])
    centres = np.array([[50, 50], [150, 50], [50, 150], [150, 150]], float)
    boxes = np.concatenate([centres - size, centres + size], 1) / 200
    maps = fitting.FeatureMaps(((2, 2),), (200, 200), (999,))
    (level,) = fitting.fit([BoxLevel.from_sizes(20, None, (1.2,))], maps, boxes, 2000, 0)
    assert level.size == pytest.approx(63.2, rel=0.03)
    assert level.aspect_ratios[0] == pytest.approx(2.5, rel=0.05)


def test_raises_the_coverage_of_bccd_over_the_ssd300_table(real_data, run, tmp_path, capsys):
    from data_tools import fit_boxes
    from ssd_tf.config import load_config

    assert (
        run(
            "voc_to_tfrecord",
            voc=real_data("bccd"),
            image_set="train",
            output=tmp_path / "bccd",
            workers=1,
        )[0]
        == 0
    )
    (tmp_path / "c.yaml").write_text(SSD300)
    output = tmp_path / "fitted.yaml"
    flags = [f"--config={tmp_path / 'c.yaml'}", f"--output={output}", "--tries=1000"]
    overrides = ["--set", "eval.batch_size=4", "eval.nms_iou=0.5"]
    assert fit_boxes.main(["x", str(tmp_path / "bccd"), *flags, *overrides]) == 0
    text = capsys.readouterr().out
    before, after = map(
        float, re.search(r"IoU >= 0.5: ([\d.]+)% before, ([\d.]+)% after", text).groups()
    )
    assert before == 96.4 and after >= 98.5

    (tmp_path / "mine.yaml").write_text("base: [c.yaml, fitted.yaml]\n")
    config = load_config(tmp_path / "mine.yaml")
    assert config.boxes.preset is None and len(config.boxes.levels) == 6
    assert [level.step for level in config.boxes.levels] == [8, 16, 32, 64, 100, 300]
    assert [level.size for level in config.boxes.levels] == sorted(
        level.size for level in config.boxes.levels
    )
    assert output.read_text().startswith(
        "# Default boxes fitted to 2,804 objects of the split 'train'"
    )


def test_rejected(run, tmp_path):
    (tmp_path / "c.yaml").write_text(SSD300)
    code, error = run(
        "fit_boxes", str(tmp_path), config=tmp_path / "c.yaml", output=tmp_path / "x.yaml"
    )
    assert code == 1 and "has no dataset.json" in error
    assert run("fit_boxes", str(tmp_path))[0] == 2
    code, error = run(
        "fit_boxes", str(tmp_path), config=tmp_path / "c.yaml", output=tmp_path / "c.yaml"
    )
    assert code == 2 and f"{tmp_path}/c.yaml" in error
    assert (tmp_path / "c.yaml").read_text() == SSD300
    code, error = run(
        "fit_boxes", str(tmp_path), config=tmp_path / "c.yaml", output=tmp_path / "no/x.yaml"
    )
    assert code == 2 and f"there is no folder {tmp_path}/no" in error


@pytest.mark.parametrize("seed", range(4))
def test_no_fewer_objects_are_covered_than_before(seed):
    # A square of 27 has an IoU of (20 / 27)^2 = .55 with the many and of (27 / 37)^2 = .53 with
    # the single one; 20 would suit the many.
    sides = np.array([20.0] * 19 + [37.0])
    centres = np.tile([[50.0, 50.0], [150.0, 50.0], [50.0, 150.0], [150.0, 150.0]], (5, 1))
    boxes = np.concatenate([centres - sides[:, None] / 2, centres + sides[:, None] / 2], 1) / 200
    maps = fitting.FeatureMaps(((2, 2),), (200, 200), (999,))
    (level,) = fitting.fit([BoxLevel.from_sizes(27)], maps, boxes, 400, seed)
    assert (fitting.level_overlaps(level, (2, 2), (200, 200), boxes * 200) >= 0.5).all()
    assert 26.1 < level.size < 27.01  # at least 37 * sqrt(.5) = 26.16


def test_sizes_shrink_to_what_a_map_sees():
    # The sides of the first level are 100, 200 and 50 x 200: a field of 50 takes a quarter of them.
    # The second level is within its field, the third shrinks to a half.
    levels = [
        fitting.LevelSizes(100, 400, (4.0,)),
        fitting.LevelSizes(30, None, ()),
        fitting.LevelSizes(200, None, ()),
    ]
    assert fitting.shrink_to_fields(levels, (50, 100, 100)) == [
        fitting.LevelSizes(25, 100, (4.0,)),
        fitting.LevelSizes(30, None, ()),
        fitting.LevelSizes(100, None, ()),
    ]
    # A finer map never has the larger size, so the first also follows the second.
    assert fitting.shrink_to_fields(levels, (50, 20, 100))[:2] == [
        fitting.LevelSizes(20, 80, (4.0,)),
        fitting.LevelSizes(20, None, ()),
    ]
    assert fitting.shrink_to_fields(levels[1:], (999, 999)) == levels[1:]


def test_no_side_is_longer_than_what_the_map_sees():
    # All objects are 120 high and 60 wide, in 200 x 400 pixels; the first map sees 50 of them.
    centres = np.array([[80, 100], [110, 250], [120, 300]], float)
    size = np.array([60, 30])
    boxes = np.concatenate([centres - size, centres + size], 1) / [200, 400, 200, 400]
    given = [BoxLevel.from_sizes(40, 80, (2.0,)), BoxLevel.from_sizes(60, 90, (2.0,))]
    maps = fitting.FeatureMaps(((10, 20), (5, 10)), (200, 400), (50, 900))
    for seed in range(3):
        first, second = fitting.fit(given, maps, boxes, 1000, seed)
        assert first.longest_side < 50.001
        overlaps = fitting.level_overlaps(second, (5, 10), (200, 400), boxes * ([200, 400] * 2))
        assert (overlaps > 0.5).all()


def test_prints_which_maps_limit_their_boxes(run, tiny_data, tmp_path):
    # The first head of `plain` sees 3 + 2 * (2 + 4 + 4 + 8 + 8) = 55 pixels; its own longest side
    # is sqrt(2) * .6 * 192 = 163.
    config = pathlib.Path(__file__).parents[2] / "configs" / "shapes_plain.yaml"
    code, _ = run(
        "fit_boxes",
        str(tiny_data),
        "--set=boxes.s_min=0.6",
        "--set=boxes.s_max=0.9",
        "--tries=10",
        config=config,
        output=tmp_path / "fitted.yaml",
    )
    assert code == 0
    text = (tmp_path / "fitted.yaml").read_text()
    limit = "map 0 sees 55 pixels of the input: the config's default boxes of 163 are too long"
    assert limit in text
    assert "\n# map 1 sees" in text and "\n# map 3 sees" not in text
    assert "boxes.s_min=0.6" in text
