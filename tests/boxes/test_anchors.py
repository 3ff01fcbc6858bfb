"""Default boxes in literals, in pixels of the input."""

import numpy as np
import pytest

from ssd_tf.boxes import anchors
from ssd_tf.boxes.anchors import AnchorLevel

MAPS_300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def pixels(boxes, input_hw):
    return boxes.astype(float) * np.tile(input_hw, 2)


def boxes_300(preset):
    levels = anchors.preset_levels(preset, 6, (300, 300))
    return pixels(anchors.make_default_boxes(levels, MAPS_300, (300, 300), anchors.CLIP.get(preset)), (300, 300))


def test_no_levels_for_no_maps_is_refused_only_where_numbers_differ():
    level = AnchorLevel.from_sizes(10)
    with pytest.raises(ValueError, match="1 levels of default boxes for 2 feature maps"):
        anchors.make_default_boxes([level], [(2, 2), (1, 1)], (16, 16))


def test_two_maps_of_a_picture_that_is_not_square():
    levels = [AnchorLevel.from_sizes(8, aspect_ratios=(4,)), AnchorLevel.from_sizes(9, next_size=16)]
    boxes = pixels(anchors.make_default_boxes(levels, [(2, 3), (1, 2)], (20, 60)), (20, 60))
    assert boxes.shape == (2 * 3 * 3 + 1 * 2 * 2, 4)
    # Cells of 10 x 20 px; the first one's centre is (5, 10). Ratio 4 at size 8: 16 wide, 4 high, then upright.
    np.testing.assert_allclose(boxes[:3], [[1, 6, 9, 14], [3, 2, 7, 18], [-3, 8, 13, 12]], atol=1e-4)
    # Its neighbour to the right, and the first of the next row.
    np.testing.assert_allclose(boxes[3], [1, 26, 9, 34], atol=1e-4)
    np.testing.assert_allclose(boxes[9], [11, 6, 19, 14], atol=1e-4)
    # The second map: cells of 20 x 30; sides 9 and sqrt(9 * 16) = 12.
    np.testing.assert_allclose(
        boxes[18:], [[5.5, 10.5, 14.5, 19.5], [4, 9, 16, 21], [5.5, 40.5, 14.5, 49.5], [4, 39, 16, 51]], atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        # First cell: centre (4, 4). Index 5776 + 6 * (9 * 19 + 4) + 2 = 6828: cell (9, 4) of the 19 x 19 map, centre (152, 72),
        # size 60 (45), ratio 2: 84.85 x 42.43 (63.64 x 31.82). Last: centre (150, 150), size 264 (261), ratio 1/2.
        ("caffe_voc", [-11, -11, 19, 19], [130.787, 29.574, 173.213, 114.426], [-36.676, 56.662, 336.676, 243.338]),
        ("caffe_coco", [-6.5, -6.5, 14.5, 14.5], [136.09, 40.18, 167.91, 103.82], [-34.555, 57.723, 334.555, 242.277]),
    ],
)
def test_the_authors_tables(name, first, middle, last):
    boxes = boxes_300(name)
    assert boxes.shape == (8732, 4)
    np.testing.assert_allclose(boxes[0], first, atol=2e-3)
    np.testing.assert_allclose(boxes[6828], middle, atol=2e-3)
    np.testing.assert_allclose(boxes[-1], last, atol=2e-3)


def test_the_authors_centres_follow_the_step_and_may_leave_the_picture():
    boxes = boxes_300("caffe_voc")
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    # Step 32 on ten cells: the last centre is 9.5 * 32 = 304. The corner counts once: 6 * (10 + 10 - 1) = 114 boxes.
    assert ((centres > 300).any(1)).sum() == 114
    assert centres.max() == pytest.approx(304, abs=1e-3)


def test_first_cell_of_the_authors_table_has_four_shapes():
    boxes = boxes_300("caffe_voc")
    sizes = boxes[:5, 2:] - boxes[:5, :2]
    # 30; sqrt(30 * 60) = 42.43; ratio 2: 21.21 high and 42.43 wide, then upright; the next cell begins with 30 again.
    np.testing.assert_allclose(sizes, [[30, 30], [42.426, 42.426], [21.213, 42.426], [42.426, 21.213], [30, 30]], atol=1e-3)


def test_the_papers_formula():
    # s_min .2, s_max .9 over six maps: .2 .34 .48 .62 .76 .9, going on with 1.04.
    levels = anchors.paper_levels(6, (100, 200))
    assert [len(level.shapes_hw) for level in levels] == [4, 6, 6, 6, 4, 4]
    np.testing.assert_allclose([level.shapes_hw[0] for level in levels], [[s, s] for s in (20, 34, 48, 62, 76, 90)])
    np.testing.assert_allclose(levels[5].shapes_hw[1], [96.747, 96.747], atol=1e-3)  # sqrt(90 * 104)
    np.testing.assert_allclose(levels[1].shapes_hw[4:], [[19.630, 58.890], [58.890, 19.630]], atol=1e-3)  # 34 / and * sqrt(3)


def test_the_papers_formula_with_a_first_map_of_its_own():
    # Sec. 3.1: conv4_3 has .1, the five others .2 to .9 in steps of .175.
    levels = anchors.paper_levels(6, (300, 300), s_first=0.1)
    np.testing.assert_allclose([level.shapes_hw[0][0] for level in levels], [30, 60, 112.5, 165, 217.5, 270])
    np.testing.assert_allclose(levels[5].shapes_hw[1][0], 295.0847, atol=1e-3)  # sqrt(270 * 322.5)


def test_one_level_is_enough():
    (level,) = anchors.paper_levels(1, (100, 100))
    assert level.shapes_hw[0] == (20.0, 20.0)
