import numpy as np
import pytest
from PIL import Image

from ssd_tf import contact_sheet


def test_a_sheet_of_nothing():
    sheet = contact_sheet.make_sheet([], [], "nothing")
    assert sheet.size == (490, 62)
    assert np.asarray(sheet).min() < 100  # the title


@pytest.mark.parametrize(
    ("hw", "scaled"),
    [
        ((60, 100), (300, 500)),
        ((3000, 4000), (300, 400)),
        ((1000, 10), (300, 3)),
        ((10, 1000), (16, 1620)),  # as wide as a sheet
        ((1, 3000), (1, 1620)),
    ],
)
def test_images_get_the_height_of_a_row(hw, scaled):
    image = contact_sheet.scale_to_row(np.full((*hw, 3), 90, np.uint8))
    assert image.shape == (*scaled, 3)
    assert (image == 90).all()


def make(widths, names=None):
    """A sheet of images of one colour each, and {index: top, bottom, left, right} in it."""
    images = [
        Image.new("RGB", (width, 300), (200, 40 + index, 0)) for index, width in enumerate(widths)
    ]
    names = names or [f"{index}.jpg" for index in range(len(images))]
    sheet = np.asarray(contact_sheet.make_sheet(images, names, "a title"))
    places = {}
    for index in range(len(widths)):
        rows, columns = np.nonzero((sheet == (200, 40 + index, 0)).all(-1))
        places[index] = (rows.min(), rows.max(), columns.min(), columns.max())
    return sheet, places


def test_eight_images_of_one_shape_fill_two_rows():
    sheet, places = make([400] * 8)
    # Four cells of 410 and a gap; a title of 52, two rows of 300 + 26, a gap.
    assert sheet.shape == (714, 1650, 3)
    for index, place in places.items():
        row, column = divmod(index, 4)
        top = 52 + 326 * row
        left = 10 + 410 * column
        assert place == (top, top + 299, left, left + 399)


def test_rows_have_one_height_and_little_is_white():
    widths = [214, 214, 203, 400, 370, 401, 400, 450, 400, 400, 222, 534, 409, 400]
    sheet, places = make(widths)
    tops = sorted({top for top, *_ in places.values()})
    assert tops == [52 + 326 * row for row in range(len(tops))]
    assert {bottom - top for top, bottom, *_ in places.values()} == {299}
    # In order, from left to right and from top to bottom.
    order = sorted(places, key=lambda index: (places[index][0], places[index][2]))
    assert order == list(range(14))
    assert sum(widths) * 300 / (sheet.shape[1] * len(tops) * 326) > 0.75


def test_names_are_below_their_images_and_within_their_cells():
    long = "a_very_long_name_" * 10 + ".jpg"
    sheet, places = make([300, 300, 300], [f"folder/{long}", "b.jpg", "c.jpg"])
    names = sheet[52 + 300 : 52 + 326].min(-1) < 128
    assert names.any()
    for column in (5, 315, 625):  # the gaps around the cells
        assert not names[:, column - 4 : column + 5].any()
    inside = [names[:, left : right + 1] for _, _, left, right in places.values()]
    # The long one fills its cell, the short ones stand in the middle.
    assert inside[0].any(0).sum() > 150
    for short in inside[1:]:
        columns = np.flatnonzero(short.any(0))
        assert columns[0] > 100 and columns[-1] < 200
        assert abs(columns[0] + columns[-1] - 299) <= 3


def test_a_narrow_image_has_room_for_its_name():
    sheet, places = make([6, 6])
    # Cells of 80 and their gaps.
    assert [place[2:] for place in places.values()] == [(47, 52), (137, 142)]
    assert sheet.shape[1] == 490


def test_names_of_any_kind():
    names = ["\u0444\u043e\u0442\u043e.jpg", "two\nlines", "\udcff", "", "\u4eba"]
    sheet, _ = make([100] * 5, names)
    assert sheet.shape == (388, 560, 3)
