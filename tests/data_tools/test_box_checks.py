"""Boxes as written -> normalised corners, in literal numbers."""

import math
import types

import numpy as np
import pytest

from data_tools.conversion import box_checks, image_checks
from data_tools.readers.labels import NORMALISED, PIXELS, PIXELS_FROM_ONE, LabeledObject

# 200 wide and 100 high, not rotated by EXIF.
IMAGE = types.SimpleNamespace(height=100, width=200, stored_hw=(100, 200), orientation=1)
# Stored 200 wide and 100 high, shown 100 wide and 200 high.
ROTATED = types.SimpleNamespace(height=200, width=100, stored_hw=(100, 200), orientation=6)


def normalize(box, unit=PIXELS, image=IMAGE, orientation=1, **more):
    return box_checks.normalize_box(LabeledObject("cat", box, **more), unit, image, orientation)


@pytest.mark.parametrize(
    ("box", "unit", "corners"),
    [
        ((20, 10, 60, 40), PIXELS, (0.1, 0.1, 0.4, 0.3)),
        # 1 is subtracted from xmin and ymin only.
        ((21, 11, 60, 40), PIXELS_FROM_ONE, (0.1, 0.1, 0.4, 0.3)),
        ((1, 1, 200, 100), PIXELS_FROM_ONE, (0, 0, 1, 1)),
        ((0.1, 0.1, 0.3, 0.4), NORMALISED, (0.1, 0.1, 0.4, 0.3)),
        ((150, 50, 250, 130), PIXELS, (0.5, 0.75, 1, 1)),  # clipped
        ((-10, -5, 20, 50), PIXELS, (0, 0, 0.5, 0.1)),
        (
            (100, 50, 100.5, 50.25),
            PIXELS,
            (0.5, 0.5, 0.5025, 0.5025),
        ),  # smaller than a pixel, but still a box
    ],
)
def test_corners(box, unit, corners):
    assert normalize(box, unit).corners == pytest.approx(corners, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "unit", "reason"),
    [
        ((20, 10, 20, 40), PIXELS, "degenerate"),
        ((20, 10, 60, 10), PIXELS, "degenerate"),
        ((504, 337, 504, 337), PIXELS_FROM_ONE, "degenerate"),  # as written, before 1 is subtracted
        ((60, 10, 20, 40), PIXELS_FROM_ONE, "degenerate"),
        ((60, 10, 20, 40), PIXELS, "negative"),
        ((20, 40, 60, 10), NORMALISED, "negative"),
        ((math.nan, 10, 20, 40), PIXELS, "not a number"),
        ((0, 0, math.inf, 40), PIXELS, "not a number"),
        ((200, 10, 220, 40), PIXELS, "outside"),
        ((10, 100, 20, 140), PIXELS, "outside"),
        ((-20, 10, 0, 40), PIXELS, "outside"),
        ((10, -20, 20, 0), PIXELS, "outside"),
        ((1.0, 0.2, 1.5, 0.4), NORMALISED, "outside"),
        ((100, 10, 100.000001, 40), PIXELS, "degenerate"),  # no width is left in float32
    ],
)
def test_dropped(box, unit, reason):
    assert normalize(box, unit) == reason


def test_fault_of_the_reader_comes_first():
    assert normalize((0, 0, 0, 0), fault="unknown category") == "unknown category"


def test_area_of_the_annotation_is_kept_if_positive():
    assert normalize((20, 10, 60, 40), area=321.5).area == 321.5
    for unusable in (None, 0.0, -3.0, math.nan):
        assert normalize((20, 10, 60, 40), area=unusable).area == pytest.approx(1200)  # 40 x 30
    assert normalize((150, 50, 250, 130)).area == pytest.approx(2500)  # 50 x 50 of it lie inside


def test_clipped_is_not_set_for_rounding_errors():
    assert normalize((150, 50, 250, 130)).clipped
    assert not normalize((20, 10, 200.00001, 40)).clipped


def test_exif_rotation():
    # A quarter turn clockwise: stored x becomes shown y, stored y becomes shown x from the right.
    # Stored 20..60, 10..40 of 200 x 100 -> shown y 20..60 of 200, x 60..90 of 100.
    assert normalize((20, 10, 60, 40), PIXELS, ROTATED, orientation=6).corners == pytest.approx(
        (0.1, 0.6, 0.3, 0.9)
    )
    # Drawn on the image as shown, 100 x 200: it stays.
    assert normalize((20, 10, 60, 40), PIXELS, ROTATED, orientation=1).corners == pytest.approx(
        (0.05, 0.2, 0.2, 0.6)
    )


@pytest.mark.parametrize(
    ("size_hw", "assume", "orientation", "assumed"),
    [
        ((100, 200), "shown", 6, False),  # the stored size, so boxes were drawn on it
        ((200, 100), "stored", 1, False),  # the size as shown
        (None, "stored", 6, True),
        (None, "shown", 1, True),
        ((50, 50), "stored", 6, True),
    ],
)
def test_orientation_of_boxes(size_hw, assume, orientation, assumed):
    assert box_checks.boxes_orientation(size_hw, ROTATED, assume) == (orientation, assumed)


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [  # 8..24, 16..40 of a stored 64 x 48, flipped and rotated by hand: ymin, xmin, ymax, xmax
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
    found = normalize((8, 16, 24, 40), PIXELS, image, orientation=orientation).corners
    assert np.array(found) * [height, width, height, width] == pytest.approx(shown)
