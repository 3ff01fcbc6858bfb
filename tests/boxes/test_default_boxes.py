"""Default boxes in literals, in pixels of the input."""

import numpy as np
import pytest

from ssd_tf.boxes.default_boxes import (
    CLIP,
    BoxLevel,
    fit_steps,
    make_default_boxes,
    paper_levels,
    preset_levels,
)

MAPS_300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
MAPS_512 = [(n, n) for n in (64, 32, 16, 8, 4, 2, 1)]


def boxes_in_pixels(levels, map_shapes, input_hw, clip=None):
    boxes = make_default_boxes(levels, map_shapes, input_hw, clip)
    return boxes.astype(float) * np.tile(input_hw, 2)


def boxes_300(preset):
    levels = preset_levels(preset, 6, (300, 300), False)
    return boxes_in_pixels(levels, MAPS_300, (300, 300), CLIP.get(preset))


def centres_of(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def sizes_of(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def test_different_numbers_of_levels_and_maps_are_rejected():
    level = BoxLevel.from_sizes(10)
    with pytest.raises(ValueError, match="1 levels of default boxes for 2 feature maps"):
        make_default_boxes([level], [(2, 2), (1, 1)], (16, 16))


def test_two_maps_of_an_input_that_is_not_square():
    levels = [
        BoxLevel.from_sizes(8, aspect_ratios=(4,)),
        BoxLevel.from_sizes(9, next_size=16),
    ]
    boxes = boxes_in_pixels(levels, [(2, 3), (1, 2)], (20, 60))
    assert boxes.shape == (2 * 3 * 3 + 1 * 2 * 2, 4)
    # Cells of 10 x 20 px; the first one's centre is (5, 10). Ratio 4 at size 8: 16 wide and 4 high,
    # then its transpose.
    np.testing.assert_allclose(
        boxes[:3], [[1, 6, 9, 14], [3, 2, 7, 18], [-3, 8, 13, 12]], atol=1e-4
    )
    # Its neighbour to the right, and the first of the next row.
    np.testing.assert_allclose(boxes[3], [1, 26, 9, 34], atol=1e-4)
    np.testing.assert_allclose(boxes[9], [11, 6, 19, 14], atol=1e-4)
    # The second map: cells of 20 x 30; sides 9 and sqrt(9 * 16) = 12.
    expected = [[5.5, 10.5, 14.5, 19.5], [4, 9, 16, 21], [5.5, 40.5, 14.5, 49.5], [4, 39, 16, 51]]
    np.testing.assert_allclose(boxes[18:], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        # First cell: centre (4, 4). Index 5776 + 6 * (9 * 19 + 4) + 2 = 6828: cell (9, 4) of the
        # 19 x 19 map, centre (152, 72), size 60 (45), ratio 2: 84.85 x 42.43 (63.64 x 31.82).
        # Last: centre (150, 150), size 264 (261), ratio 1/2.
        (
            "caffe_voc",
            [-11, -11, 19, 19],
            [130.787, 29.574, 173.213, 114.426],
            [-36.676, 56.662, 336.676, 243.338],
        ),
        (
            "caffe_coco",
            [-6.5, -6.5, 14.5, 14.5],
            [136.09, 40.18, 167.91, 103.82],
            [-34.555, 57.723, 334.555, 242.277],
        ),
    ],
)
def test_caffe_tables_at_300(name, first, middle, last):
    boxes = boxes_300(name)
    assert boxes.shape == (8732, 4)
    np.testing.assert_allclose(boxes[0], first, atol=2e-3)
    np.testing.assert_allclose(boxes[6828], middle, atol=2e-3)
    np.testing.assert_allclose(boxes[-1], last, atol=2e-3)


def test_caffe_centres_follow_the_step_and_may_leave_the_image():
    centres = centres_of(boxes_300("caffe_voc"))
    # Step 32 on ten cells: the last centre is 9.5 * 32 = 304. The corner counts once:
    # 6 * (10 + 10 - 1) = 114 boxes.
    assert ((centres > 300).any(1)).sum() == 114
    assert centres.max() == pytest.approx(304, abs=1e-3)


def test_the_first_cell_of_a_caffe_table_has_four_shapes():
    sizes = sizes_of(boxes_300("caffe_voc")[:5])
    # 30; sqrt(30 * 60) = 42.43; ratio 2: 21.21 high and 42.43 wide, then its transpose; the next
    # cell begins with 30 again.
    expected = [[30, 30], [42.426, 42.426], [21.213, 42.426], [42.426, 21.213], [30, 30]]
    np.testing.assert_allclose(sizes, expected, atol=1e-3)


def test_the_papers_formula():
    # s_min .2, s_max .9 over six maps: .2 .34 .48 .62 .76 .9, then 1.04.
    levels = paper_levels(6, (100, 200), 0.2, 0.9, (2.0, 3.0))
    assert [len(level.shapes_hw) for level in levels] == [4, 6, 6, 6, 4, 4]
    np.testing.assert_allclose(
        [level.shapes_hw[0] for level in levels], [[s, s] for s in (20, 34, 48, 62, 76, 90)]
    )
    # sqrt(90 * 104)
    np.testing.assert_allclose(levels[5].shapes_hw[1], [96.747, 96.747], atol=1e-3)
    # 34 / and * sqrt(3)
    expected = [[19.630, 58.890], [58.890, 19.630]]
    np.testing.assert_allclose(levels[1].shapes_hw[4:], expected, atol=1e-3)


# Presets of other references.


def test_torchvision_limits_two_boxes_of_the_coco_table():
    ours = boxes_300("caffe_coco")
    theirs = boxes_300("torchvision")
    changed = np.flatnonzero(np.abs(ours - theirs).max(1) > 1e-3)
    # The last cell's boxes that are 261 * sqrt(2) = 369 wide or high.
    assert changed.tolist() == [8730, 8731]
    np.testing.assert_allclose(theirs[8730], [57.723, 0, 242.277, 300], atol=2e-3)


def test_nvidia_also_moves_centres_into_the_image():
    ours = boxes_300("caffe_coco")
    theirs = boxes_300("nvidia")
    changed = np.abs(ours - theirs).max(1) > 1e-3
    assert changed.sum() == 114 + 2
    assert centres_of(theirs).max() == pytest.approx(300, abs=1e-3)
    # The first box of the last cell of the 10 x 10 map: centre (304, 304) moved to (300, 300),
    # side 99.
    np.testing.assert_allclose(theirs[5776 + 2166 + 594], [250.5, 250.5, 349.5, 349.5], atol=2e-3)


@pytest.mark.parametrize(
    ("name", "first", "last"), [("caffe_voc", 35.84, 460.8), ("caffe_coco", 20.48, 460.8)]
)
def test_caffe_tables_at_512(name, first, last):
    levels = preset_levels(name, 7, (512, 512), False)
    boxes = boxes_in_pixels(levels, MAPS_512, (512, 512))
    assert len(boxes) == 24564
    expected_first = [4 - first / 2, 4 - first / 2, 4 + first / 2, 4 + first / 2]
    np.testing.assert_allclose(boxes[0], expected_first, atol=1e-3)
    expected_last = [256 - last / 2, 256 - last / 2, 256 + last / 2, 256 + last / 2]
    np.testing.assert_allclose(boxes[-4], expected_last, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "sizes", "next_size"),
    [
        ("caffe_voc", [35, 76, 153, 230, 307, 384, 460], 537),
        ("caffe_coco", [20, 51, 133, 215, 296, 378, 460], 542),
    ],
)
def test_the_released_ssd512_has_whole_pixels(name, sizes, next_size):
    levels = preset_levels(name, 7, (512, 512), True)
    assert [level.shapes_hw[0][0] for level in levels] == sizes
    assert levels[6].shapes_hw[1][0] == pytest.approx((460 * next_size) ** 0.5)
    # At 300 the table has whole pixels already.
    at_300 = preset_levels(name, 6, (300, 300), False)
    assert preset_levels(name, 6, (300, 300), True) == at_300


def test_a_table_keeps_its_step_only_on_maps_that_have_its_cells():
    levels = preset_levels("caffe_voc", 6, (300, 300), False)
    fitted = fit_steps(levels, MAPS_300, (300, 300))
    assert [level.step_hw[0] for level in fitted] == [8, 16, 32, 64, 100, 300]
    # MobileNet's maps: only 1 x 1 has the cells of its step (300).
    mobilenet_maps = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    fitted = fit_steps(levels, mobilenet_maps, (300, 300))
    assert [level.step_hw for level in fitted] == [None] * 5 + [(300, 300)]
    assert [level.shapes_hw for level in fitted] == [level.shapes_hw for level in levels]


def test_one_side_that_does_not_fit_is_enough_to_drop_a_step():
    level = BoxLevel(((9.0, 9.0),), (16, 16))
    assert fit_steps([level], [(4, 5)], (64, 96))[0].step_hw is None
    assert fit_steps([level], [(4, 6)], (64, 96))[0].step_hw == (16, 16)


def test_a_table_scales_with_the_shorter_side_of_another_input():
    levels = preset_levels("caffe_voc", 6, (600, 900), False)
    assert levels[0].shapes_hw[0] == (60.0, 60.0)
    assert [level.step_hw for level in levels] == [None] * 6
    # 76 x 113 cells of 600 / 76 = 7.895 by 900 / 113 = 7.965 pixels.
    boxes = boxes_in_pixels(levels[:1], [(76, 113)], (600, 900))
    np.testing.assert_allclose(centres_of(boxes[:1]), [[3.947, 3.982]], atol=1e-3)


def test_torchvision_ssdlite():
    levels = preset_levels("torchvision_ssdlite", 6, (320, 320), False)
    # Scales .2 .35 .5 .65 .8 .95, then 1.
    np.testing.assert_allclose(
        [level.shapes_hw[0][0] for level in levels], [64, 112, 160, 208, 256, 304]
    )
    assert levels[5].shapes_hw[1][0] == pytest.approx((304 * 320) ** 0.5)
    assert [len(level.shapes_hw) for level in levels] == [6] * 6
    maps = [(n, n) for n in (20, 10, 5, 3, 2, 1)]
    boxes = make_default_boxes(levels, maps, (320, 320), "size")
    assert boxes.shape == (3234, 4)
    assert sizes_of(boxes).max() == pytest.approx(1.0)


def test_od_api_has_1917_boxes_at_300_and_its_own_order():
    levels = preset_levels("od_api", 6, (300, 300), False)
    maps = [(n, n) for n in (19, 10, 5, 3, 2, 1)]
    boxes = boxes_in_pixels(levels, maps, (300, 300))
    assert len(boxes) == 1917
    sizes = sizes_of(boxes)
    # Finest map: .1 square, then .2 of ratio 2 (42.43 high, 84.85 wide) and 1/2.
    np.testing.assert_allclose(sizes[:3], [[30, 30], [42.426, 84.853], [84.853, 42.426]], atol=1e-3)
    # The next, .35 = 105: ratios 1, 2, 1/2, 3, 1/3, then the square of sqrt(105 * 150).
    expected = [
        [105, 105],
        [74.246, 148.492],
        [148.492, 74.246],
        [60.622, 181.865],
        [181.874, 60.619],
        [125.499, 125.499],
    ]
    np.testing.assert_allclose(sizes[19 * 19 * 3 :][:6], expected, atol=1e-3)


def test_od_api_fpn_counts_in_strides():
    levels = preset_levels("od_api_fpn", 5, (640, 480), False)
    # Stride 8: 32 and 32 * sqrt(2), for ratios 1, 2 and 1/2.
    expected = [[32, 32], [45.255, 45.255], [22.627, 45.255], [32, 64], [45.255, 22.627], [64, 32]]
    np.testing.assert_allclose(levels[0].shapes_hw, expected, atol=1e-3)
    assert levels[4].shapes_hw[0] == (512.0, 512.0)
    at_320 = preset_levels("od_api_fpn", 5, (320, 320), False)
    assert levels[4].shapes_hw == at_320[4].shapes_hw


def test_clip_rules_on_an_image_that_is_not_square():
    levels = [BoxLevel(((30.0, 10.0),), (20.0, 20.0))]
    # Centres (10, 10) and (10, 30) in an image of 20 x 25.
    unclipped, size, both = (
        boxes_in_pixels(levels, [(1, 2)], (20, 25), clip)
        for clip in (None, "size", "centre_and_size")
    )
    np.testing.assert_allclose(unclipped, [[-5, 5, 25, 15], [-5, 25, 25, 35]], atol=1e-5)
    np.testing.assert_allclose(size, [[0, 5, 20, 15], [0, 25, 20, 35]], atol=1e-5)
    np.testing.assert_allclose(both, [[0, 5, 20, 15], [0, 20, 20, 30]], atol=1e-5)


def test_rounding_on_an_image_that_is_not_square():
    # In units of .1, which are 10 and 21 pixels: the first centre (50, 35) is (5, 1.67) and becomes
    # (5, 2), and 33 x 77 are 3.3 x 3.67 and become 3 x 4.
    level = BoxLevel(((33.0, 77.0),))
    exact, rounded = (
        make_default_boxes([level], [(1, 3)], (100, 210), rounding=unit)[0] for unit in (None, 0.1)
    )
    np.testing.assert_allclose(exact, [0.335, -3.5 / 210, 0.665, 0.35], atol=1e-6)
    np.testing.assert_allclose(rounded, [0.35, 0.0, 0.65, 0.4], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "num_levels"), [("caffe_voc", 5), ("torchvision", 7), ("nvidia", 5)]
)
def test_a_number_of_maps_without_a_table_is_rejected(name, num_levels):
    message = rf"{name} has a table for .*, model.num_levels is {num_levels}"
    with pytest.raises(ValueError, match=message):
        preset_levels(name, num_levels, (300, 300), False)
