"""From boxes as written to normalised corners: literal numbers."""

import math
import types

import numpy as np
import pytest

from data_tools.conversion import box_checks, image_checks
from data_tools.readers.labels import PIXELS, PIXELS_FROM_ONE, SHARES, LabeledObject

# A picture 200 wide and 100 high that EXIF did not turn.
IMAGE = types.SimpleNamespace(height=100, width=200, stored_hw=(100, 200), orientation=1)
# Stored 200 wide and 100 high, shown 100 wide and 200 high.
TURNED = types.SimpleNamespace(height=200, width=100, stored_hw=(100, 200), orientation=6)


def settle(box, unit=PIXELS, image=IMAGE, turn=1, **more):
    return box_checks.normalize_box(LabeledObject("cat", box, **more), unit, image, turn)


@pytest.mark.parametrize(
    ("box", "unit", "corners"),
    [
        ((20, 10, 60, 40), PIXELS, (0.1, 0.1, 0.4, 0.3)),
        (
            (21, 11, 60, 40),
            PIXELS_FROM_ONE,
            (0.1, 0.1, 0.4, 0.3),
        ),  # 1 is taken from xmin and ymin only
        ((1, 1, 200, 100), PIXELS_FROM_ONE, (0, 0, 1, 1)),
        ((0.1, 0.1, 0.3, 0.4), SHARES, (0.1, 0.1, 0.4, 0.3)),
        ((150, 50, 250, 130), PIXELS, (0.5, 0.75, 1, 1)),  # clipped
        ((-10, -5, 20, 50), PIXELS, (0, 0, 0.5, 0.1)),
        ((0, 0, 0.5, 0.25), PIXELS, (0, 0, 0.0025, 0.0025)),  # below one pixel, and still a box
    ],
)
def test_corners(box, unit, corners):
    assert settle(box, unit).corners == pytest.approx(corners, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "unit", "reason"),
    [
        ((20, 10, 20, 40), PIXELS, "degenerate"),
        ((20, 10, 60, 10), PIXELS, "degenerate"),
        ((504, 337, 504, 337), PIXELS_FROM_ONE, "degenerate"),  # as written, before 1 is taken away
        ((60, 10, 20, 40), PIXELS_FROM_ONE, "degenerate"),
        ((60, 10, 20, 40), PIXELS, "negative"),
        ((20, 40, 60, 10), SHARES, "negative"),
        ((math.nan, 10, 20, 40), PIXELS, "not a number"),
        ((0, 0, math.inf, 40), PIXELS, "not a number"),
        ((200, 10, 220, 40), PIXELS, "outside"),
        ((10, 100, 20, 140), PIXELS, "outside"),
        ((-20, 10, 0, 40), PIXELS, "outside"),
        ((10, -20, 20, 0), PIXELS, "outside"),
        ((1.0, 0.2, 1.5, 0.4), SHARES, "outside"),
        ((100, 10, 100.000001, 40), PIXELS, "degenerate"),  # no width is left in float32
    ],
)
def test_dropped(box, unit, reason):
    assert settle(box, unit) == reason


def test_the_readers_fault_comes_first():
    assert settle((0, 0, 0, 0), fault="unknown category") == "unknown category"


def test_area_is_the_annotations_where_it_is_a_number_above_zero():
    assert settle((20, 10, 60, 40), area=321.5).area == 321.5
    for none in (None, 0.0, -3.0, math.nan):
        assert settle((20, 10, 60, 40), area=none).area == pytest.approx(1200)  # 40 x 30
    assert settle((150, 50, 250, 130)).area == pytest.approx(2500)  # 50 x 50 of it lie inside


def test_clipped_is_noted_but_not_for_rounding():
    assert settle((150, 50, 250, 130)).clipped
    assert not settle((20, 10, 200.00001, 40)).clipped


def test_turn():
    # A quarter turn clockwise: stored x becomes shown y, stored y becomes shown x from the right.
    # Stored 20..60, 10..40 of 200 x 100 -> shown y 20..60 of 200, x 60..90 of 100.
    assert settle((20, 10, 60, 40), PIXELS, TURNED, turn=6).corners == pytest.approx(
        (0.1, 0.6, 0.3, 0.9)
    )
    # Drawn on the picture as it is shown, 100 x 200: it stays.
    assert settle((20, 10, 60, 40), PIXELS, TURNED, turn=1).corners == pytest.approx(
        (0.05, 0.2, 0.2, 0.6)
    )


@pytest.mark.parametrize(
    ("size_hw", "assume", "turn", "assumed"),
    [
        ((100, 200), "shown", 6, False),  # the labels know the stored size: boxes were drawn on it
        ((200, 100), "stored", 1, False),  # the labels know the shown size
        (None, "stored", 6, True),
        (None, "shown", 1, True),
        ((50, 50), "stored", 6, True),
    ],
)
def test_whether_boxes_follow_exif(size_hw, assume, turn, assumed):
    assert box_checks.boxes_orientation(size_hw, TURNED, assume) == (turn, assumed)


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [  # the pictures of test_images: 8..24, 16..40 of a stored 64 x 48, mirrored and turned by hand; ymin, xmin, ymax, xmax
        (1, (16, 8, 40, 24)),
        (2, (16, 40, 40, 56)),
        (3, (8, 40, 32, 56)),
        (4, (8, 8, 32, 24)),
        (5, (8, 16, 24, 40)),
        (6, (8, 8, 24, 32)),
        (7, (40, 8, 56, 32)),
        (8, (40, 16, 56, 40)),
    ],
)
def test_boxes_follow_every_orientation(orientation, shown):
    height, width = (64, 48) if orientation >= 5 else (48, 64)
    image = image_checks.CheckedImage(b"", height, width, (48, 64), orientation, "", "", False)
    found = settle((8, 16, 24, 40), PIXELS, image, turn=orientation).corners
    assert np.array(found) * [height, width, height, width] == pytest.approx(shown)
