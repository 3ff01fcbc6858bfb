import numpy as np
import pytest
from detector_output import detections

from ssd_tf import draw, fonts
from ssd_tf.errors import ConfigError

NOTHING = {
    "boxes": np.zeros((0, 4)),
    "labels": np.zeros(0, int),
    "crowd": np.zeros(0, bool),
    "difficult": np.zeros(0, bool),
}


@pytest.mark.parametrize("hw", [(1, 1), (2, 300), (300, 2), (60, 100)])
def test_a_comparison_without_objects(hw):
    image = np.full((*hw, 3), 90, np.uint8)
    canvas = np.array(draw.draw_comparison(image, NOTHING, detections(), ["a"]))
    height, width = hw
    gap = max(2, width // 50)
    assert canvas.shape == (height, 2 * width + gap, 3)
    assert (canvas[:, :width] == 90).all()
    assert (canvas[:, width : width + gap] == 255).all()
    assert (canvas[:, width + gap :] == 90).all()


def test_ground_truth_is_on_the_left_and_detections_are_on_the_right():
    image = np.zeros((100, 200, 3), np.uint8)
    example = NOTHING | {
        "boxes": np.array([[0.5, 0.1, 0.9, 0.4], [0.1, 0.6, 0.4, 0.9]]),
        "labels": np.array([1, 2]),
        "crowd": np.array([False, True]),
        "difficult": np.array([False, False]),
    }
    found = detections(([0.5, 0.5, 0.9, 0.9], 0.9, 1), ([0.0, 0.0, 1.0, 1.0], 0.4, 2))
    canvas = np.array(draw.draw_comparison(image, example, found, ["red", "green"]))
    left = canvas[:, :200]
    right = canvas[:, 204:]
    red = (230, 25, 75)
    green = (60, 180, 75)

    def has(part, color):
        return bool((part == color).all(-1).any())

    # The crowd is hatched, so its colour is inside too; the object is not.
    assert has(left[20:35, 130:170], green) and not has(left[65:85, 30:70], red)
    assert has(left[50:91, 20:81], red)
    assert has(right[50:91, 100:181], red)
    assert not has(right, green)  # below the score


def test_a_caption_does_not_hide_another():
    # Two boxes of one place, with captions of red and of green; there is room above and below.
    boxes = np.array([[0.4, 0.3, 0.6, 0.7]] * 2)
    canvas = np.array(draw.draw_boxes(np.zeros((200, 200, 3)), boxes, [1, 2], ["aaa", "bbb"]))
    red = (canvas == (230, 25, 75)).all(-1)
    green = (canvas == (60, 180, 75)).all(-1)
    # Over 12 pixels high and 20 wide each, less their letters; the outlines are 2 pixels thin each.
    assert red.sum() > 80 and green[:, :78].sum() > 80
    assert not (red | green)[84:116, 64:136].any()


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 0.01, 0.01], [0.99, 0.99, 1, 1]])
def test_a_caption_stays_in_the_image(box):
    canvas = np.array(draw.draw_boxes(np.zeros((60, 90, 3)), np.array([box]), [2], ["a name"]))
    assert (canvas == (60, 180, 75)).all(-1).sum() > 200


RED = (230, 25, 75)


def rows_and_columns(mask):
    """The first and the last row and column in which a mask is true."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize(
    "box", [[0.4, 0.4, 0.6, 0.6], [0, 0, 0.1, 0.1], [0.4, 0.9, 0.6, 1], [0.95, 0.95, 1, 1]]
)
def test_a_caption_is_complete_and_has_a_margin(box):
    # At the edges its box is moved into the image: the same pixels of text, on the class's colour.
    canvas = np.array(draw.draw_boxes(np.zeros((200, 300, 3)), [box], [1], ["gypsy 0.99"]))
    middle = np.array(
        draw.draw_boxes(np.zeros((200, 300, 3)), [[0.5, 0.5, 0.5, 0.5]], [1], ["gypsy 0.99"])
    )
    text = canvas.min(-1) > 25  # white letters; red has a green of 25
    assert text.sum() == (middle.min(-1) > 25).sum() > 50
    top, bottom, left, right = rows_and_columns(text)
    around = canvas[top - 2 : bottom + 3, left - 2 : right + 3]
    assert around.shape == (bottom - top + 5, right - left + 5, 3)
    for side in (around[:2], around[-2:], around[:, :2], around[:, -2:]):
        assert (side == RED).all()


@pytest.mark.parametrize("top", [0.001, 0.003, 0.5])  # 0.2 and 0.6 pixels
def test_a_caption_inside_the_upper_edge_is_complete(top):
    canvas = np.array(draw.draw_boxes(np.zeros((200, 300, 3)), [[top, 0.2, 1, 0.5]], [1], ["WX 1"]))
    text = canvas.min(-1) > 150
    rows = np.flatnonzero(text.any(1))
    assert rows[-1] - rows[0] == 8  # capital letters and digits have 9 pixels


@pytest.mark.parametrize(("side", "width"), [(90, 2), (260, 2), (480, 3), (1000, 7), (2800, 20)])
def test_lines_are_as_wide_as_the_image_is_large(side, width):
    canvas = np.array(draw.draw_boxes(np.zeros((side, side, 3)), [[0.1, 0.1, 0.9, 0.9]], [1], [""]))
    row = (canvas[side // 2] == RED).all(-1)
    assert row.sum() == 2 * width


@pytest.mark.parametrize("shift", [0, 0.01])  # 0 and 3 pixels, less than two lines
def test_two_classes_on_one_object_are_both_seen(shift):
    boxes = np.array([[0.1, 0.2, 0.9, 0.8], [0.1, 0.2, 0.9, 0.8]])
    boxes[0, 1::2] += shift
    canvas = np.array(draw.draw_boxes(np.zeros((100, 300, 3)), boxes, [1, 2], ["", ""]))
    # From the left: two pixels of the second, on top where it is, and two of the first inside.
    row = canvas[50]
    assert (row[[60, 61, 239, 240]] == (60, 180, 75)).all()
    assert (row[[62, 63, 237, 238]] == RED).all()
    column = canvas[:, 150]
    assert (column[[10, 11, 89, 90]] == (60, 180, 75)).all()
    assert (column[[12, 13, 87, 88]] == RED).all()
    assert (row != 0).any(-1).sum() == (column != 0).any(-1).sum() == 8


def test_three_classes_on_a_box_of_no_size():
    canvas = np.array(draw.draw_boxes(np.zeros((50, 90, 3)), [[0.5] * 4] * 3, [1, 2, 3], [""] * 3))
    assert (canvas != 0).any()


def test_boxes_that_are_apart_stay_where_they_are():
    boxes = [[0.1, 0.2, 0.9, 0.8], [0.1, 0.22, 0.9, 0.82]]  # 6 pixels, three lines
    canvas = np.array(draw.draw_boxes(np.zeros((100, 300, 3)), boxes, [1, 2], ["", ""]))
    assert (canvas[50, [60, 61, 239, 240]] == RED).all()


def test_neighbouring_classes_differ_and_their_captions_can_be_read():
    colors = [draw.color_of(label) for label in range(1, 17)]
    assert draw.color_of(17) == colors[0] and len(set(colors)) == 16
    values = np.array(
        [[int(color[begin : begin + 2], 16) for begin in (1, 3, 5)] for color in colors]
    )
    distances = np.abs(values[:, None] - values).sum(-1) + 1000 * np.eye(16)
    assert distances.min() >= 70
    # Black on green, orange, yellow, magenta, cyan, lime, pink and mint.
    dark = [label for label in range(1, 17) if draw.text_color_of(label) == "black"]
    assert dark == [2, 4, 7, 8, 9, 11, 13, 15]
    assert {draw.text_color_of(label) for label in (1, 3, 5, 6, 10, 12, 14, 16)} == {"white"}


def draw_caption(caption, hw=(60, 400)):
    image = np.zeros((*hw, 3), np.uint8)
    return np.array(draw.draw_boxes(image, [[0.5, 0.1, 0.9, 0.9]], [1], [caption]))


@pytest.mark.parametrize(
    "letters", ["сиволк", "αβγδες", "éüñçøß", "ășțđłž", "مرحبا", "שלוםגת", "→≤★"]
)
def test_each_letter_has_a_shape_of_its_own(letters):
    # Letters that a font lacks all look alike: an empty box.
    drawn = [draw_caption(letter).tobytes() for letter in letters]
    assert len(set(drawn)) == len(letters)
    assert draw_caption("").tobytes() not in drawn


def test_characters_without_a_font_are_told_of_once(caplog, monkeypatch):
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: ["no_font.ttf"])
    for cached in (fonts.find_font, fonts.warn_of_missing_characters):
        cached.cache_clear()
    for name in ("\U0001f9ff", "\u4eba", "\u7269 0.97", "a", "я"):
        draw_caption(name)
    assert len(caplog.records) == 1
    fonts.find_font.cache_clear()


def test_a_font_of_the_system_is_used_if_it_has_the_characters(monkeypatch, caplog):
    own = fonts.find_font(frozenset("я"))
    other = own.replace("DejaVuSans.ttf", "STIXGeneral.ttf")
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: ["no_font.ttf", other])
    fonts.find_font.cache_clear()
    assert fonts.find_font(frozenset("\u0431")) == own  # both have the letter
    # A sign that STIX has and DejaVu has not.
    missing = sorted(fonts.characters_of(other) - fonts.characters_of(own))
    assert fonts.find_font(frozenset(missing[-1])) == other
    assert caplog.records == []
    fonts.find_font.cache_clear()


def test_the_font_of_the_user_comes_first(monkeypatch):
    own = fonts.find_font(frozenset("я"))
    other = own.replace("DejaVuSans.ttf", "STIXGeneral.ttf")
    monkeypatch.setenv("SSD_TF_FONT", other)
    fonts.find_font.cache_clear()
    assert fonts.find_font(frozenset("я")) == other
    missing = sorted(fonts.characters_of(own) - fonts.characters_of(other))
    assert fonts.find_font(frozenset(missing[-1])) == own  # which it lacks
    fonts.find_font.cache_clear()


@pytest.mark.parametrize("name", ["gone.ttf", "text.ttf"])
def test_a_font_that_cannot_be_used(monkeypatch, tmp_path, name):
    (tmp_path / "text.ttf").write_text("no font")
    monkeypatch.setenv("SSD_TF_FONT", str(tmp_path / name))
    fonts.find_font.cache_clear()
    with pytest.raises(ConfigError, match=name):
        draw_caption("я")
    draw_caption("ascii needs no font of the user")
    fonts.find_font.cache_clear()


def test_names_of_labels_that_have_none():
    names = ["cat", None, "emu"]
    assert [draw.name_of(label, names) for label in (1, 3)] == ["cat", "emu"]
    for label in (-3, -1, 0, 2, 4):
        assert draw.name_of(label, names) == f"class {label}"
        assert draw.name_of(label, None) == f"class {label}"


def test_a_caption_that_is_wider_than_its_image_begins_in_it():
    canvas = np.array(draw.draw_boxes(np.zeros((60, 40, 3)), [[0, 0.2, 0.3, 0.9]], [2], ["a" * 20]))
    # 16 rows of the caption from the first row on, over the whole width, less its letters.
    rows = ((canvas == (60, 180, 75)).all(-1)).sum(1)
    assert (rows[:3] == 40).all() and (rows[3:14] >= 8).all() and rows[20] < 10
