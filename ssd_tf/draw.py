"""Boxes and class names drawn on images, and contact sheets of images.

Needs Pillow and NumPy, and matplotlib for letters that are not ASCII.
"""

import base64
import functools
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd_tf import pixels

JPEG_QUALITY = 90  # of drawn images; Pillow ignores it for PNG
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
    name = names[label - 1] if names and 1 <= label <= len(names) else None
    return f"class {label}" if name is None else name


def drawn_suffix(path):
    """The suffix for the drawn copy of an image file: that of JPEG for a JPEG, else of PNG."""
    return ".jpg" if path.suffix.lower() in pixels.FORMATS["JPEG"] else ".png"


def draw_boxes(image, boxes, labels, captions, hatched=None):
    """Draw boxes with captions on an image and return it as a Pillow image.

    image: uint8 [H, W, 3]. boxes: [N, 4] normalised. labels: [N] from 1, they choose the colours.
    captions: [N], empty ones are not drawn. hatched: [N] bool, boxes filled with slanted lines.
    """
    canvas = Image.fromarray(np.asarray(image, np.uint8))
    pen = ImageDraw.Draw(canvas)
    line_width = max(1, round(min(canvas.size) / 200))
    font_size = max(10, min(canvas.size) // 28)
    fonts = [_choose_font(caption, font_size) for caption in captions]
    hatched = np.zeros(len(boxes), bool) if hatched is None else hatched
    corners = np.asarray(boxes, float).reshape(-1, 4)
    corners = (np.clip(corners, 0, 1) * np.tile(canvas.size[::-1], 2))[:, [1, 0, 3, 2]]
    for corner, label, is_hatched in zip(corners, labels, hatched, strict=True):
        if is_hatched:
            _hatch(pen, corner, color_of(label), line_width)
        pen.rectangle(corner.tolist(), outline=color_of(label), width=line_width)
    places = _place_captions(pen, corners, captions, fonts, canvas.size)
    for place, label, caption, font in zip(places, labels, captions, fonts, strict=True):
        if caption:
            pen.rectangle(place.tolist(), fill=color_of(label))
            pen.text(place[:2].tolist(), caption, fill="white", font=font, anchor="la")
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


def draw_truth(image, example, names):
    """Draw the objects of an image and return it as a Pillow image.

    image: uint8 [H, W, 3]. example: {"boxes" [N, 4], "labels" [N], "crowd" [N], "difficult" [N]};
    crowd and difficult objects are hatched.
    """
    captions = [name_of(label, names) for label in example["labels"]]
    hatched = np.asarray(example["crowd"], bool) | np.asarray(example["difficult"], bool)
    return draw_boxes(image, example["boxes"], example["labels"], captions, hatched)


def draw_comparison(image, example, detections, names, score=0.5):
    """Ground truth on the left, detections on the right, in one Pillow image.

    example: as `draw_truth` takes it. detections, score: as `draw_detections` takes them.
    """
    truth = draw_truth(image, example, names)
    return side_by_side(truth, draw_detections(image, detections, names, score))


def side_by_side(left, right):
    """Two Pillow images of the same size in one, with a gap between them."""
    gap = max(2, left.width // 50)
    canvas = Image.new("RGB", (2 * left.width + gap, left.height), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + gap, 0))
    return canvas


def jpeg_uri(image) -> str:
    """A Pillow image as the address of a JPEG inside an HTML page."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


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


def _choose_font(text, size):
    """A font that has all characters of the text, or most of them."""
    if text.isascii():
        return _load_font(None, size)
    from ssd_tf import fonts  # matplotlib takes a while

    return _load_font(fonts.find_font(frozenset(text)), size)


@functools.lru_cache(64)
def _load_font(path, size):
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _place_captions(pen, boxes, captions, fonts, size):
    """A rectangle for each caption [N, 4] at its box, where it hides least.

    boxes: [N, 4], left, top, right, bottom in pixels. Above the box if there is room, or below it,
    or inside; never over a caption placed before if another place will do. The last box, which is
    drawn on top, chooses first.
    """
    places = np.zeros((len(boxes), 4))
    placed = np.zeros(len(boxes), bool)
    for index in reversed(range(len(boxes))):
        if captions[index]:
            extent = pen.textbbox((0, 0), captions[index], font=fonts[index], anchor="la")
            options = _caption_options(boxes[index], extent[2] + 1, extent[3] + 1, size)
            others = np.delete(boxes, index, 0)
            cost = _shared_area(options, others) + 100 * _shared_area(options, places[placed])
            places[index] = options[np.argmin(cost)]
            placed[index] = True
    return places


def _caption_options(box, width, height, size):
    """Rectangles [M, 4] of this width and height at a box, all in the image, the best first."""
    left, top, right, bottom = box
    corners = [
        (left, top - height),
        (right - width, top - height),
        (left, bottom),
        (right - width, bottom),
        (left, top),
        (right - width, top),
        (left, bottom - height),
        (right - width, bottom - height),
    ]
    inside = [
        (x, y)
        for x, y in corners
        if x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]
    ]
    # At the edge, or wider than the image: shifted into the image as far as it goes.
    x = max(min(left, size[0] - width), 0)
    y = max(min(top - height, size[1] - height), 0)
    corners = np.array(inside or [(x, y)])
    return np.concatenate([corners, corners + np.array([width, height])], 1)


def _shared_area(rectangles, others):
    """How much of each rectangle [M, 4] lies in others [N, 4], summed [M]."""
    low = np.maximum(rectangles[:, None, :2], others[:, :2])
    high = np.minimum(rectangles[:, None, 2:], others[:, 2:])
    return np.prod(np.clip(high - low, 0, None), -1).sum(1)


def _hatch(pen, box, color, line_width):
    xmin, ymin, xmax, ymax = box
    height = ymax - ymin
    for start in np.arange(xmin - height, xmax, 6 * line_width):
        left = max(start, xmin)
        right = min(start + height, xmax)
        ends = [left, ymin + left - start, right, ymin + right - start]
        pen.line(ends, fill=color, width=line_width)
