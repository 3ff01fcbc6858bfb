"""Contact sheets: images in rows of one height, their names below, a title above."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

from ssd_tf.draw import choose_font, plain_text

ROW_HEIGHT = 300  # pixels
_WIDTH = 1640  # four images of 4:3 and their gaps; rows come close to it
_GAP = 10
_MIN_CELL = 80  # room for a name below a narrow image
_NAME_SIZE = 15  # of the font
_NAME_HEIGHT = 26  # of the band below an image
_TITLE_SIZE = 22
_TITLE_HEIGHT = 52
_MIN_TITLE_WIDTH = 480
_INK = "#1c2126"


def scale_to_row(image) -> np.ndarray:
    """An image, uint8 [H, W, 3], in the height of a row; lower if it would be too wide.

    Draw boxes afterwards: their captions then have the same size on the whole sheet.
    """
    image = Image.fromarray(np.asarray(image, np.uint8))
    factor = min(ROW_HEIGHT / image.height, (_WIDTH - 2 * _GAP) / image.width)
    size = [max(round(side * factor), 1) for side in image.size]
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def make_sheet(images, names, title) -> Image.Image:
    """Arrange Pillow images of `scale_to_row`, each with its name, in rows below a title."""
    rows = _split_rows([max(image.width, _MIN_CELL) + _GAP for image in images])
    widths = [sum(width for _, width in row) for row in rows]
    width = max([_MIN_TITLE_WIDTH, *widths]) + _GAP
    row_height = ROW_HEIGHT + _NAME_HEIGHT
    height = _TITLE_HEIGHT + len(rows) * row_height + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, title, (_GAP, _TITLE_HEIGHT // 2), width - 2 * _GAP, _TITLE_SIZE, "lm")
    for number, row in enumerate(rows):
        left = _GAP
        top = _TITLE_HEIGHT + number * row_height
        for index, cell in row:
            image = images[index]
            room = cell - _GAP
            x = left + (room - image.width) // 2
            sheet.paste(image, (x, top + (ROW_HEIGHT - image.height) // 2))
            middle = (left + room // 2, top + ROW_HEIGHT + _NAME_HEIGHT // 2)
            _write(pen, pathlib.PurePath(names[index]).name, middle, room, _NAME_SIZE, "mm")
            left += cell
    return sheet


def _split_rows(widths):
    """Rows of (index, width), in order, whose widths come as close to each other as possible."""
    if not widths:
        return []
    num_rows = max(round(sum(widths) / _WIDTH), 1)
    limits = [_find_limit(widths, count) for count in (num_rows, num_rows + 1)]
    candidates = [_fill_rows(widths, limit) for limit in limits]
    # The fewest white pixels; all rows together are equally wide in each.
    best = min((0, 1), key=lambda index: limits[index] * len(candidates[index]))
    return candidates[best]


def _find_limit(widths, num_rows):
    """The least width of a row with which so many rows are enough."""
    low = max(widths)
    high = sum(widths)
    while low < high:
        middle = (low + high) // 2
        if len(_fill_rows(widths, middle)) <= num_rows:
            high = middle
        else:
            low = middle + 1
    return low


def _fill_rows(widths, limit):
    rows = []
    room = 0
    for index, width in enumerate(widths):
        if not rows or width > room:
            rows.append([])
            room = limit
        rows[-1].append((index, width))
        room -= width
    return rows


def _write(pen, text, place, width, size, anchor):
    """Write one line of text; its middle is left out if it is wider than `width` pixels."""
    text = plain_text(text)
    font = choose_font(text, size)
    shown = text
    length = len(text)
    while length and font.getlength(shown) > width:
        length -= 1
        shown = f"{text[: (length + 1) // 2]}\u2026{text[len(text) - length // 2 :]}"
    pen.text(place, shown, _INK, font, anchor=anchor)
