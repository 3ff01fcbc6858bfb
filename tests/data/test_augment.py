"""Augmentation with pictures as witnesses: every object is a rectangle of its own colour, on pictures that are not square.

Also the order of work (geometry first, only the pixels that show) against the plain one: decode all, then step after step.
"""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.config import Augment
from ssd_tf.data import augment, crops
from ssd_tf.data.images import resize

BACKGROUND, FILL = (60, 60, 60), augment.FILL_RGB
COLORS = ((230, 40, 40), (40, 220, 60), (60, 80, 240), (240, 230, 50))
# Corners in pixels of a picture 120 high and 180 wide; they neither touch nor overlap.
CORNERS = np.array([[10, 15, 50, 70], [60, 20, 110, 55], [20, 90, 100, 160], [104, 70, 116, 84]])
HW = (120, 180)
OUTPUT_HW = (150, 100)

GEOMETRY = {
    "nothing": Augment(),
    "flip": Augment(flip_probability=1),
    "upside down": Augment(vertical_flip_probability=1),
    "zoom-out": Augment(zoom_out_probability=1),
    "any crop": Augment(crop_min_iou=(0.0,)),
    "caffe crop": Augment(crop_min_iou=(0.1, 0.3, 0.5)),
    "torchvision crop": Augment(crop_min_iou=(0.0, 0.1, 0.3, 0.5), crop_rule="torchvision"),
    **{
        name: Augment(preset=name, color_probability=0, channel_shuffle_probability=0)
        for name in ("caffe", "paper", "torchvision")
    },
    "light": Augment(preset="light", color_probability=0),
}


def witness(image_format):
    image = np.full((*HW, 3), BACKGROUND, np.uint8)
    for (top, left, bottom, right), color in zip(CORNERS, COLORS, strict=True):
        image[top:bottom, left:right] = color
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer,
        image_format,
        **({"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}),
    )
    return make_example(buffer.getvalue(), CORNERS / np.tile(HW, 2))


def make_example(image, boxes):
    number = len(boxes)
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes, tf.float32, [number, 4]),
        "labels": tf.range(1, number + 1),
        "crowd": tf.zeros([number], tf.bool),
        "difficult": tf.zeros([number], tf.bool),
        "area": tf.ones([number]),
    }


def extent(image, color):
    """Corners in pixels of where a picture is nearer to a colour than to every other."""
    known = np.array([*COLORS, BACKGROUND, FILL], float)
    nearest = np.linalg.norm(image[:, :, None] - known, axis=-1).argmin(-1)
    rows, columns = np.nonzero(nearest == COLORS.index(color))
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def augmented(example, options, number):
    """Pairs (image, Example) of `number` seeds: called directly, and the same inside tf.data."""

    def one(index):
        return augment.augment(
            example, OUTPUT_HW, options, tf.stack([tf.constant(11, tf.int64), index])
        )

    inside = list(tf.data.Dataset.range(number).map(one).as_numpy_iterator())
    direct = [one(tf.constant(index, tf.int64)) for index in range(number)]
    return [
        (image.numpy(), {k: v.numpy() for k, v in found.items()}) for image, found in direct
    ], inside


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", GEOMETRY)
def test_the_extent_of_a_colour_is_its_box(name, image_format):
    direct, inside = augmented(witness(image_format), GEOMETRY[name], 12)
    seen = 0
    for (image, found), (image_inside, found_inside) in zip(direct, inside, strict=True):
        assert image.shape == (*OUTPUT_HW, 3) and image.dtype == np.float32
        np.testing.assert_allclose(image, image_inside, atol=1e-3)
        np.testing.assert_allclose(found["boxes"], found_inside["boxes"], atol=1e-6)
        for box, label in zip(found["boxes"], found["labels"], strict=True):
            pixels = box * np.tile(OUTPUT_HW, 2)
            if np.min(pixels[2:] - pixels[:2]) < 2:
                continue  # a box thinner than the tolerance can fall between two samples
            np.testing.assert_allclose(
                extent(image, COLORS[label - 1]), pixels, atol=1.0, err_msg=f"object {label}"
            )
            seen += 1
    assert seen >= 12


def test_nothing_is_the_one_resize():
    example = witness("PNG")
    image, found = augment.augment(example, OUTPUT_HW, Augment(), tf.constant([0, 0], tf.int64))
    expected = resize(tf.io.decode_png(example["image"]), OUTPUT_HW)
    np.testing.assert_allclose(image, expected, atol=1e-3)
    np.testing.assert_allclose(found["boxes"], example["boxes"], atol=1e-6)


def test_a_picture_without_objects():
    example = make_example(witness("JPEG")["image"], np.zeros((0, 4)))
    for options in GEOMETRY.values():
        image, found = augment.augment(example, OUTPUT_HW, options, tf.constant([0, 3], tf.int64))
        assert image.shape == (*OUTPUT_HW, 3) and found["boxes"].shape == (0, 4)


def test_the_canvas_has_the_authors_mean():
    image, _ = augment.augment(
        witness("PNG"), OUTPUT_HW, Augment(zoom_out_probability=1), tf.constant([11, 1], tf.int64)
    )
    canvas = np.all(np.abs(image.numpy() - (123, 117, 104)) < 1e-3, -1)
    assert canvas.mean() > 0.2
    assert not np.any(np.all(np.abs(image.numpy() - (104, 117, 123)) < 8, -1))


def test_the_canvas_keeps_its_colour_while_the_picture_is_distorted():
    options = Augment(
        preset="caffe",
        zoom_out_probability=1,
        color_probability=1,
        crop_min_iou=(),
        flip_probability=0,
    )
    direct, _ = augmented(witness("JPEG"), options, 6)
    for image, _ in direct:
        assert np.mean(np.abs(image - FILL).max(-1) < 1e-3) > 0.2


def texture(height, width):
    """A picture with detail of many sizes, as JPEG with halved chroma, like photographs."""
    rng = np.random.default_rng(height)
    image = np.zeros((height, width, 3))
    for cell in (4, 16, 64):
        grid = rng.uniform(0, 255, (height // cell + 2, width // cell + 2, 3)).astype(np.uint8)
        image += (
            np.asarray(
                Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC), float
            )
            / 3
        )
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def plain_order(example, options, seed):
    """Decodes all, lays the picture on its canvas, cuts the window out, resizes, flips: step after step, in NumPy.

    The random numbers are those of the package (its draws are tested elsewhere), the window rounded as crops.place says.
    Returns image, boxes, labels, and where the picture's rim lies on the canvas [h, w] bool.
    """
    picture = np.asarray(Image.open(io.BytesIO(example["image"].numpy())).convert("RGB"), float)
    size = picture.shape[:2]
    window = crops.sample_window(example["boxes"], tf.constant(size), options, seed)
    window = crops.place(window, tf.constant(size), OUTPUT_HW)[1].numpy().astype(float) * np.tile(
        size, 2
    )
    margin = int(np.ceil(max(0, -window.min(), (window[2:] - size).max()))) + 2
    canvas = np.tile(np.array(FILL), (size[0] + 2 * margin, size[1] + 2 * margin, 1))
    canvas[margin:-margin, margin:-margin] = picture
    image, rims = canvas, []
    is_crop = window.min() >= 0 and np.all(window[2:] <= size)
    for axis in (0, 1):
        low, high = window[axis], window[2 + axis]
        places = low + (np.arange(OUTPUT_HW[axis]) + 0.5) * (high - low) / OUTPUT_HW[axis] - 0.5
        rims.append(
            np.minimum(np.abs(places + 0.5), np.abs(places + 0.5 - size[axis])) < 0.5 + 1e-3
        )
        # A crop is cut out before it is resized; a window that reaches over the picture is seen with all around it.
        places = np.clip(places, low, high - 1) + margin if is_crop else places + margin
        first = np.floor(places).astype(int)
        share = np.expand_dims(places - first, [1 - axis, 2])
        image = np.take(image, first, axis) * (1 - share) + np.take(image, first + 1, axis) * share
    boxes = example["boxes"].numpy() * np.tile(size, 2)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    keep = np.all((centres >= window[:2]) & (centres < window[2:]), 1)
    boxes = np.clip(
        (boxes[keep] - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2), 0, 1
    )
    upside_down, mirrored = crops.sample_flips(options, seed).numpy()
    rim = rims[0][:, None] | rims[1]
    if upside_down:
        image, rim = image[::-1], rim[::-1]
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    if mirrored:
        image, rim = image[:, ::-1], rim[:, ::-1]
        boxes = np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], 1)
    return image, boxes, example["labels"].numpy()[keep], rim


def compare_with_plain_order(example, options, index):
    """The largest difference of pixels, of 255, off and on the rim where an enlarged picture meets its canvas."""
    seed = tf.constant([2, index], tf.int64)
    image, found = augment.augment(example, OUTPUT_HW, options, seed)
    expected, boxes, labels, rim = plain_order(example, options, seed)
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_allclose(found["boxes"], boxes, atol=2e-6)
    difference = np.abs(image - expected).max(-1)
    on_canvas = rim & (np.abs(expected - FILL).max(-1) > 0)
    return difference[~on_canvas].max(initial=0), on_canvas.mean()


@pytest.mark.parametrize("name", ["caffe", "torchvision", "paper", "light", "upside down"])
def test_geometry_first_as_the_plain_order(name):
    rng = np.random.default_rng(0)
    for height, width in ((240, 330), (333, 201)):
        low = rng.uniform(0, 0.7, (5, 2))
        example = make_example(
            texture(height, width), np.concatenate([low, low + rng.uniform(0.05, 0.3, (5, 2))], 1)
        )
        for index in range(12):
            largest, rim = compare_with_plain_order(example, GEOMETRY[name], index)
            assert largest <= 8, (height, width, index)
            assert rim < 0.05


def test_geometry_first_as_the_plain_order_on_photographs(shared_data):
    files = sorted((shared_data / "coco128" / "images").rglob("*.jpg"))[:20]
    assert files
    for index, file in enumerate(files):
        example = make_example(file.read_bytes(), [[0.1, 0.2, 0.6, 0.5], [0.4, 0.4, 0.9, 0.95]])
        assert compare_with_plain_order(example, GEOMETRY["caffe"], index)[0] <= 8, file.name
