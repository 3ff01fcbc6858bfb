"""Boxes and class names drawn on images, and contact sheets of images. Needs Pillow and NumPy."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Far apart in hue and lightness, so that neighbouring classes look different.
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
    """The colour of a label (from 1)."""
    return _COLORS[(int(label) - 1) % len(_COLORS)]


def name_of(label, names):
    """The name of a label (from 1), or `class LABEL` if it has none."""
    name = names[label - 1] if names and label <= len(names) else None
    return f"class {label}" if name is None else name


def draw_boxes(image, boxes, labels, captions, hatched=None):
    """Draw boxes with captions on an image and return it as a Pillow image.

    image: uint8 [H, W, 3]. boxes: [N, 4] normalised. labels: [N] from 1, they choose the colours.
    captions: [N], empty ones are not drawn. hatched: [N] bool, boxes filled with slanted lines.
    """
    canvas = Image.fromarray(np.asarray(image, np.uint8))
    pen = ImageDraw.Draw(canvas)
    line_width = max(1, round(min(canvas.size) / 200))
    font = ImageFont.load_default(max(10, min(canvas.size) // 28))
    hatched = np.zeros(len(boxes), bool) if hatched is None else hatched
    corner_scale = np.tile(canvas.size[::-1], 2)
    for box, label, caption, is_hatched in zip(boxes, labels, captions, hatched, strict=True):
        ymin, xmin, ymax, xmax = np.clip(np.asarray(box, float), 0, 1) * corner_scale
        color = color_of(label)
        if is_hatched:
            _hatch(pen, (xmin, ymin, xmax, ymax), color, line_width)
        pen.rectangle([xmin, ymin, xmax, ymax], outline=color, width=line_width)
        if caption:
            _draw_caption(pen, (xmin, ymin), caption, color, font)
    return canvas


def draw_detections(image, detections, names, score=0.5):
    """Draw the detections that score at least `score`, the best on top.

    image: uint8 [H, W, 3]. detections: with boxes, scores and labels, best first. Returns a Pillow
    image, as `draw_boxes` does.
    """
    drawn = np.flatnonzero(detections.scores >= score)[::-1]
    labels = detections.labels[drawn]
    scores = detections.scores[drawn]
    captions = [
        f"{name_of(label, names)} {value:.2f}" for label, value in zip(labels, scores, strict=True)
    ]
    return draw_boxes(image, detections.boxes[drawn], labels, captions)


def draw_comparison(image, example, detections, names, score=0.5):
    """Ground truth on the left, detections on the right, in one Pillow image.

    image: uint8 [H, W, 3]. example: {"boxes" [N, 4], "labels" [N], "crowd" [N], "difficult" [N]};
    crowd and difficult objects are hatched. detections, score: as `draw_detections` takes them.
    """
    captions = [name_of(label, names) for label in example["labels"]]
    hatched = np.asarray(example["crowd"], bool) | np.asarray(example["difficult"], bool)
    truth = draw_boxes(image, example["boxes"], example["labels"], captions, hatched)
    found = draw_detections(image, detections, names, score)
    gap = max(2, truth.width // 50)
    canvas = Image.new("RGB", (2 * truth.width + gap, truth.height), "white")
    canvas.paste(truth, (0, 0))
    canvas.paste(found, (truth.width + gap, 0))
    return canvas


def contact_sheet(images, num_columns=4, cell=320):
    """Arrange Pillow images in a grid, each scaled down to fit a square of `cell` pixels."""
    num_rows = max(-(-len(images) // num_columns), 1)
    sheet = Image.new("RGB", (num_columns * cell, num_rows * cell), "white")
    for index, image in enumerate(images):
        thumbnail = image.copy()
        thumbnail.thumbnail((cell - 4, cell - 4))
        row, column = divmod(index, num_columns)
        sheet.paste(thumbnail, (column * cell + 2, row * cell + 2))
    return sheet


def _draw_caption(pen, corner, text, color, font):
    """Write a caption above the corner (x, y) of a box, or inside the box if there is no room."""
    x, y = corner
    left, top, right, bottom = pen.textbbox((x, y), text, font=font)
    lift = min(bottom - y, y)
    pen.rectangle([left, top - lift, right + 1, bottom - lift + 1], fill=color)
    pen.text((x, y - lift), text, fill="white", font=font)


def _hatch(pen, box, color, line_width):
    xmin, ymin, xmax, ymax = box
    height = ymax - ymin
    for start in np.arange(xmin - height, xmax, 6 * line_width):
        left = max(start, xmin)
        right = min(start + height, xmax)
        ends = [left, ymin + left - start, right, ymin + right - start]
        pen.line(ends, fill=color, width=line_width)
