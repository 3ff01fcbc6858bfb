"""Boxes and class names drawn on images.

Needs Pillow and NumPy, and matplotlib for letters that are not ASCII.
"""

import base64
import functools
import io
import os
import typing
import unicodedata

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
    "#ffe119",
    "#f032e6",
    "#42d4f4",
    "#9a6324",
    "#bfef45",
    "#800000",
    "#fabed4",
    "#000075",
    "#aaffc3",
    "#808000",
)
_MIN_FONT_SIZE = 12  # pixels
_FONTS_PER_SIDE = 26  # the size of the font is this part of the shorter side
_WIDTHS_PER_SIDE = 140  # the same of lines
_MAX_SIDE = 640  # pixels of a held-out image


class HeldOut(typing.NamedTuple):
    """An image that training does not see. name: of its file. truth, found: Pillow images."""

    name: str
    truth: Image.Image
    found: Image.Image


def color_of(label):
    """The colour of a label (from 1)."""
    return _COLORS[(int(label) - 1) % len(_COLORS)]


def text_color_of(label):
    """White if its contrast with the colour of a label is at least 4, else black (WCAG 2)."""
    channels = [int(color_of(label)[begin : begin + 2], 16) / 255 for begin in (1, 3, 5)]
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    ]
    luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
    return "white" if 1.05 / (luminance + 0.05) >= 4 else "black"


def name_of(label, names):
    """The name of a label (from 1), or `class LABEL` if it has none."""
    name = names[label - 1] if names and 1 <= label <= len(names) else None
    return f"class {label}" if name is None else name


def drawn_suffix(path):
    """The suffix for the drawn copy of an image file: its own for a JPEG, else that of PNG."""
    return path.suffix if path.suffix.lower() in pixels.FORMATS["JPEG"] else ".png"


def draw_boxes(image, boxes, labels, captions, hatched=None):
    """Draw boxes with captions on an image and return it as a Pillow image.

    image: uint8 [H, W, 3]. boxes: [N, 4] normalised. labels: [N] from 1, they choose the colours.
    captions: [N], empty ones are not drawn. hatched: [N] bool, boxes filled with slanted lines. The
    last box is on top; one that it would hide is drawn inside it.
    """
    canvas = Image.fromarray(np.asarray(image, np.uint8))
    pen = ImageDraw.Draw(canvas)
    line_width = max(2, round(min(canvas.size) / _WIDTHS_PER_SIDE))
    font_size = max(_MIN_FONT_SIZE, min(canvas.size) // _FONTS_PER_SIDE)
    fonts = [choose_font(caption, font_size) for caption in captions]
    hatched = np.zeros(len(boxes), bool) if hatched is None else hatched
    corners = np.asarray(boxes, float).reshape(-1, 4)
    corners = (np.clip(corners, 0, 1) * np.tile(canvas.size[::-1], 2))[:, [1, 0, 3, 2]]
    frames = _nest(corners, line_width)
    for frame, label, is_hatched in zip(frames, labels, hatched, strict=True):
        if is_hatched:
            _hatch(pen, frame, color_of(label), line_width)
        pen.rectangle(frame.tolist(), outline=color_of(label), width=line_width)
    extents = [
        _measure_caption(pen, caption, font) for caption, font in zip(captions, fonts, strict=True)
    ]
    margin = max(2, font_size // 5)
    places = _place_captions(corners, captions, extents, margin, canvas.size)
    captioned = zip(places, extents, labels, captions, fonts, strict=True)
    for place, extent, label, caption, font in captioned:
        if caption:
            # Pillow cuts off text that begins at a fraction of a pixel outside the image.
            place = np.round(place)
            pen.rectangle(place.tolist(), fill=color_of(label))
            start = place[:2] + margin - extent[:2]
            pen.text(start.tolist(), caption, text_color_of(label), font, anchor="la")
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


def draw_held_out(detect, examples, names, count, score) -> list[HeldOut]:
    """Draw the first `count` images of a split, shrunk if they are large.

    detect: a list of images -> a list of Detections with the labels of the data. examples: a
    dataset as `read_examples` returns it. names: class names of the data. score: the lowest to
    draw.
    """
    drawn = []
    for example in examples.take(count).as_numpy_iterator():
        (detections,) = detect([example["image"]])
        small = Image.fromarray(example["image"])
        small.thumbnail((_MAX_SIDE, _MAX_SIDE))
        image = np.asarray(small)
        truth = draw_truth(image, example, names)
        found = draw_detections(image, detections, names, score)
        drawn.append(HeldOut(os.fsdecode(example["file_name"]), truth, found))
    return drawn


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


def plain_text(text):
    """Text without the characters that neither Pillow nor SVG can draw on one line."""
    kinds = ("Cc", "Cs", "Cn")  # control characters, surrogates, unassigned
    return "".join("\ufffd" if unicodedata.category(c) in kinds else c for c in text)


def choose_font(text, size):
    """A font that has all characters of the text, or most of them.

    Raises ConfigError if the environment names a font that cannot be used.
    """
    if text.isascii():
        return _load_font(None, size)
    from ssd_tf import fonts  # matplotlib takes a while

    return _load_font(fonts.find_font(frozenset(text)), size)


@functools.lru_cache(64)
def _load_font(path, size):
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _measure_caption(pen, caption, font):
    """Left, top, right and bottom of a caption as drawn at 0, 0; all captions of a font line up."""
    left, _, right, _ = pen.textbbox((0, 0), caption, font=font, anchor="la")
    _, top, _, bottom = pen.textbbox((0, 0), f"{caption}Ag", font=font, anchor="la")
    return np.array([left, top, right, bottom])


def _place_captions(boxes, captions, extents, margin, size):
    """A rectangle for each caption [N, 4] at its box, where it hides least.

    boxes: [N, 4], left, top, right, bottom in pixels; extents: [N], of the captions. Above the box
    if there is room, or below it, or inside; never over a caption placed before if another place
    will do. The last box, which is drawn on top, chooses first.
    """
    places = np.zeros((len(boxes), 4))
    placed = np.zeros(len(boxes), bool)
    for index in reversed(range(len(boxes))):
        if captions[index]:
            width, height = extents[index][2:] - extents[index][:2] + 2 * margin
            options = _caption_options(boxes[index], width, height, size)
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


def _nest(boxes, line_width):
    """The frames [N, 4] of boxes [N, 4] in pixels, of which the last is on top.

    NMS within each class leaves two classes on one object: a box that almost coincides with one on
    top is drawn inside that, so that the colours of both are seen.
    """
    frames = boxes.copy()
    for index, box in enumerate(boxes):
        above = boxes[index + 1 :]
        hiding = above[np.abs(above - box).max(1, initial=0) < 2 * line_width]
        if len(hiding):
            xmin, ymin, xmax, ymax = hiding[-1]
            x = min(len(hiding) * line_width, (xmax - xmin) / 2)
            y = min(len(hiding) * line_width, (ymax - ymin) / 2)
            frames[index] = xmin + x, ymin + y, xmax - x, ymax - y
    return frames


def _hatch(pen, box, color, line_width):
    xmin, ymin, xmax, ymax = box
    height = ymax - ymin
    for start in np.arange(xmin - height, xmax, 6 * line_width):
        left = max(start, xmin)
        right = min(start + height, xmax)
        ends = [left, ymin + left - start, right, ymin + right - start]
        pen.line(ends, fill=color, width=line_width)
