"""Boxes and class names drawn on pictures, and sheets of pictures. Needs Pillow and NumPy only."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Far apart in hue and lightness, so that neighbouring classes can be told apart.
_COLORS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#800000",
    "#808000",
    "#000075",
)


def color_of(label):
    """The colour of a class, from its label (from 1)."""
    return _COLORS[(int(label) - 1) % len(_COLORS)]


def name_of(label, names):
    """The name of a label (from 1), or the label itself where there is no name for it."""
    return names[label - 1] if names and label <= len(names) else f"class {label}"


def draw_boxes(image, boxes, labels, captions, hatched=None):
    """uint8 image [H, W, 3], boxes [N, 4] normalised, labels [N], captions [N] -> Pillow image with them drawn.

    hatched [N] bool: ignore regions, filled with slanted lines instead of being named.
    """
    picture = Image.fromarray(np.asarray(image, np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(picture.size) / 200))
    font = ImageFont.load_default(max(10, min(picture.size) // 28))
    hatched = np.zeros(len(boxes), bool) if hatched is None else hatched
    for box, label, caption, hatch in zip(boxes, labels, captions, hatched, strict=True):
        ymin, xmin, ymax, xmax = np.clip(np.asarray(box, float), 0, 1) * np.tile(
            picture.size[::-1], 2
        )
        if hatch:
            _hatch(pen, xmin, ymin, xmax, ymax, color_of(label), line)
        pen.rectangle([xmin, ymin, xmax, ymax], outline=color_of(label), width=line)
        if caption:
            _caption(pen, xmin, ymin, caption, color_of(label), font)
    return picture


def draw_detections(image, found, names, score=0.5):
    """uint8 image [H, W, 3], {"boxes", "scores", "labels"} of it -> Pillow image with those scored >= score, best on top."""
    live = np.flatnonzero(found["scores"] >= score)[::-1]
    labels = found["labels"][live]
    captions = [
        f"{name_of(label, names)} {value:.2f}"
        for label, value in zip(labels, found["scores"][live], strict=True)
    ]
    return draw_boxes(image, found["boxes"][live], labels, captions)


def contact_sheet(pictures, columns=4, cell=320):
    """Pillow images -> one image with all of them in a grid, each fitted into a `cell` x `cell` square."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell, max(rows, 1) * cell), "white")
    for index, picture in enumerate(pictures):
        small = picture.copy()
        small.thumbnail((cell - 4, cell - 4))
        sheet.paste(small, (index % columns * cell + 2, index // columns * cell + 2))
    return sheet


def _caption(pen, x, y, text, color, font):
    left, top, right, bottom = pen.textbbox((x, y), text, font=font)
    lift = min(bottom - y, y)  # above the box where there is room
    pen.rectangle([left, top - lift, right + 1, bottom - lift + 1], fill=color)
    pen.text((x, y - lift), text, fill="white", font=font)


def _hatch(pen, xmin, ymin, xmax, ymax, color, line):
    for start in np.arange(xmin - (ymax - ymin), xmax, 6 * line):
        low, high = max(start, xmin), min(start + (ymax - ymin), xmax)
        pen.line([low, ymin + low - start, high, ymin + high - start], fill=color, width=line)
