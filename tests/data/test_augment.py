"""Augmentation of images in which every object is a rectangle of its own colour; none is square.

Also the order of work (geometry first, only the visible pixels) against the straightforward one:
decode everything, then one step after another.
"""

import io
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.config import Augment
from ssd_tf.data import augment, crops
from ssd_tf.data.images import resize

BACKGROUND = (60, 60, 60)
FILL = augment.FILL_RGB
COLORS = ((230, 40, 40), (40, 220, 60), (60, 80, 240), (240, 230, 50))
# Corners in pixels of an image 120 high and 180 wide; they neither touch nor overlap.
CORNERS = np.array([[10, 15, 50, 70], [60, 20, 110, 55], [20, 90, 100, 160], [104, 70, 116, 84]])
HW = (120, 180)
OUTPUT_HW = (150, 100)

GEOMETRY = {
    "nothing": Augment(),
    "flip": Augment(flip_probability=1),
    "upside down": Augment(vertical_flip_probability=1),
    "zoom-out": Augment(zoom_out_probability=1),
    "any crop": Augment(crop={"min_iou": (0.0,)}),
    "caffe crop": Augment(crop={"min_iou": (0.1, 0.3, 0.5)}),
    "torchvision crop": Augment(crop={"min_iou": (0.0, 0.1, 0.3, 0.5), "sampler": "torchvision"}),
} | {
    name: Augment(preset=name, color={"probability": 0, "channel_shuffle_probability": 0})
    for name in ("caffe", "torchvision", "light")  # "paper" is "caffe" with smaller crops
}


def make_witness(image_format):
    """An Example whose objects can be found in its image by their colours."""
    image = np.full((*HW, 3), BACKGROUND, np.uint8)
    for (top, left, bottom, right), color in zip(CORNERS, COLORS, strict=True):
        image[top:bottom, left:right] = color
    buffer = io.BytesIO()
    exact = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    Image.fromarray(image).save(buffer, image_format, **exact)
    return make_example(buffer.getvalue(), CORNERS / np.tile(HW, 2))


def make_example(image, boxes):
    num_objects = len(boxes)
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes, tf.float32, [num_objects, 4]),
        "labels": tf.range(1, num_objects + 1),
        "crowd": tf.zeros([num_objects], tf.bool),
        "difficult": tf.zeros([num_objects], tf.bool),
        "area": tf.ones([num_objects]),
    }


def nearest_colors(image):
    """For each pixel of an image [H, W], the index in COLORS of its colour, or a higher one."""
    known = np.array([*COLORS, BACKGROUND, FILL], np.float32)
    return np.square(image[:, :, None] - known).sum(-1).argmin(-1)


def extent(region):
    """Corners in pixels of a mask [H, W]."""
    rows, columns = np.nonzero(region)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


def augment_example(example, section, seed):
    """An image of OUTPUT_HW and the Example with its boxes moved along."""
    value = (seed, example)
    for stage in augment.make_stages(OUTPUT_HW, section).values():
        value = stage(*value)
    return value


def augment_many(examples, section, count):
    """Pairs (image, Example) of `count` seeds of each of the examples, from inside tf.data.

    The examples differ in their images only. The first pair of each is the same without tf.data.
    """

    @tf.autograph.experimental.do_not_convert
    def augment_one(encoded, index):
        example = {**examples[0], "image": encoded}
        seed = tf.stack([tf.constant(11, tf.int64), index])
        return augment_example(example, section, seed)

    encoded = tf.repeat([example["image"] for example in examples], count)
    indices = tf.tile(tf.range(count, dtype=tf.int64), [len(examples)])
    stream = tf.data.Dataset.from_tensor_slices((encoded, indices)).map(augment_one)
    pairs = list(stream.as_numpy_iterator())
    for start in range(0, len(pairs), count):
        image, found = augment_one(encoded[start], indices[start])
        np.testing.assert_allclose(pairs[start][0], image, atol=1e-3)
        np.testing.assert_allclose(pairs[start][1]["boxes"], found["boxes"], atol=1e-6)
    return pairs


@pytest.mark.parametrize("name", GEOMETRY)
def test_the_box_is_the_extent_of_the_colour(name):
    seen = 0
    examples = [make_witness("PNG"), make_witness("JPEG")]
    for image, found in augment_many(examples, GEOMETRY[name], 12):
        assert image.shape == (*OUTPUT_HW, 3) and image.dtype == np.float32
        colors = nearest_colors(image)
        for box, label in zip(found["boxes"], found["labels"], strict=True):
            pixels = box * np.tile(OUTPUT_HW, 2)
            if np.min(pixels[2:] - pixels[:2]) < 2:
                continue  # a box thinner than the tolerance can fall between two samples
            np.testing.assert_allclose(
                extent(colors == label - 1), pixels, atol=1.0, err_msg=f"object {label}"
            )
            seen += 1
    assert seen >= 24


def test_no_augmentation_is_the_resize_of_inference():
    example = make_witness("PNG")
    image, found = augment_example(example, Augment(), tf.constant([0, 0], tf.int64))
    expected = resize(tf.io.decode_png(example["image"]), OUTPUT_HW)
    np.testing.assert_allclose(image, expected, atol=1e-3)
    np.testing.assert_allclose(found["boxes"], example["boxes"], atol=1e-6)


def test_an_image_without_objects():
    example = make_example(make_witness("JPEG")["image"], np.zeros((0, 4)))
    seed = tf.constant([0, 3], tf.int64)
    for section in GEOMETRY.values():
        image, found = augment_example(example, section, seed)
        assert image.shape == (*OUTPUT_HW, 3) and found["boxes"].shape == (0, 4)


def test_the_canvas_has_the_mean_of_the_caffe_code():
    seed = tf.constant([11, 1], tf.int64)
    image, _ = augment_example(make_witness("PNG"), Augment(zoom_out_probability=1), seed)
    canvas = np.all(np.abs(image.numpy() - (123, 117, 104)) < 1e-3, -1)
    assert canvas.mean() > 0.2
    assert not np.any(np.all(np.abs(image.numpy() - (104, 117, 123)) < 8, -1))


def test_the_canvas_keeps_its_colour_while_the_image_is_distorted():
    section = Augment(
        preset="caffe",
        zoom_out_probability=1,
        color={"probability": 1},
        crop={"min_iou": ()},
        flip_probability=0,
    )
    for image, _ in augment_many([make_witness("JPEG")], section, 6):
        assert np.mean(np.abs(image - FILL).max(-1) < 1e-3) > 0.2


def make_texture(height, width):
    """An image with detail of many sizes, as JPEG with halved chroma, like photographs."""
    rng = np.random.default_rng(height)
    image = np.zeros((height, width, 3))
    for cell in (4, 16, 64):
        grid = rng.uniform(0, 255, (height // cell + 2, width // cell + 2, 3)).astype(np.uint8)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(layer, float) / 3
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("begin", "part_hw"),
    [
        ((0, 0), (240, 330)),
        ((3, 4), (10, 12)),  # the chroma of its last columns depends on the next one
        ((5, 16), (9, 20)),  # begins where a block of the JPEG does
        ((0, 1), (240, 7)),
        ((231, 310), (9, 20)),
    ],
)
def test_a_part_of_a_jpeg_is_that_part_of_the_whole(begin, part_hw):
    encoded = make_texture(240, 330)
    placement = types.SimpleNamespace(begin=tf.constant(begin), part_hw=tf.constant(part_hw))
    part = augment.decode_part(augment.open_image(tf.constant(encoded)), placement)
    whole = tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE").numpy()
    rows = slice(begin[0], begin[0] + part_hw[0])
    columns = slice(begin[1], begin[1] + part_hw[1])
    np.testing.assert_array_equal(part, whole[rows, columns])


def augment_step_by_step(example, section, seed):
    """Decode everything, pad to the canvas, cut the window out, resize, flip: in NumPy.

    The random numbers are those of the package (their distribution is tested elsewhere), the window
    is rounded as `crops.place_window` says.
    Returns image, boxes, labels and, as a mask [h, w], the image's rim on the canvas.
    """
    image = np.asarray(Image.open(io.BytesIO(example["image"].numpy())).convert("RGB"), float)
    size = image.shape[:2]
    window = crops.sample_window(
        example["boxes"], tf.constant(size), section.zoom_out_probability, section.crop, seed
    )
    _, window = crops.place_window(window, tf.constant(size), OUTPUT_HW)
    window = window.numpy().astype(float) * np.tile(size, 2)
    flips = crops.sample_flips(section.vertical_flip_probability, section.flip_probability, seed)
    flips = flips.numpy()
    boxes, keep = move_boxes(example["boxes"].numpy() * np.tile(size, 2), window, flips)
    image, rim = show_window(image, window)
    image = image[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    rim = rim[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
    return image, boxes, example["labels"].numpy()[keep], rim


def show_window(image, window):
    """The resized window of an image on its canvas, and the mask [h, w] of the image's rim."""
    size = np.array(image.shape[:2])
    margin = int(np.ceil(max(0, -window.min(), (window[2:] - size).max()))) + 2
    canvas = np.tile(np.array(FILL), (size[0] + 2 * margin, size[1] + 2 * margin, 1))
    canvas[margin:-margin, margin:-margin] = image
    is_crop = window.min() >= 0 and np.all(window[2:] <= size)
    rims = []
    for axis in (0, 1):
        low = window[axis]
        high = window[2 + axis]
        places = low + (np.arange(OUTPUT_HW[axis]) + 0.5) * (high - low) / OUTPUT_HW[axis] - 0.5
        from_rim = np.minimum(np.abs(places + 0.5), np.abs(places + 0.5 - size[axis]))
        rims.append(from_rim < 0.5 + 1e-3)
        # A crop is cut out before it is resized; a window that extends beyond the image is resized
        # together with its surroundings.
        places = np.clip(places, low, high - 1) + margin if is_crop else places + margin
        first = np.floor(places).astype(int)
        share = np.expand_dims(places - first, [1 - axis, 2])
        canvas = (
            np.take(canvas, first, axis) * (1 - share) + np.take(canvas, first + 1, axis) * share
        )
    return canvas, rims[0][:, None] | rims[1]


def move_boxes(boxes, window, flips):
    """The boxes [N, 4] in pixels whose centre is in the window, moved, and their mask [N] bool."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    keep = np.all((centres >= window[:2]) & (centres < window[2:]), 1)
    moved = (boxes[keep] - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2)
    ymin, xmin, ymax, xmax = np.clip(moved, 0, 1).T
    if flips[0]:
        ymin, ymax = 1 - ymax, 1 - ymin
    if flips[1]:
        xmin, xmax = 1 - xmax, 1 - xmin
    return np.stack([ymin, xmin, ymax, xmax], 1), keep


def compare_step_by_step(example, section, index):
    """The largest difference of pixels off the rim of the image, of 255, and the rim's share.

    At its rim an enlarged image meets its canvas.
    """
    seed = tf.constant([2, index], tf.int64)
    image, found = augment_example(example, section, seed)
    expected, boxes, labels, rim = augment_step_by_step(example, section, seed)
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_allclose(found["boxes"], boxes, atol=2e-6)
    difference = np.abs(image - expected).max(-1)
    on_canvas = rim & (np.abs(expected - FILL).max(-1) > 0)
    return difference[~on_canvas].max(initial=0), on_canvas.mean()


@pytest.mark.parametrize("name", ["caffe", "torchvision", "light", "upside down"])
def test_geometry_first_equals_step_by_step(name):
    rng = np.random.default_rng(0)
    for height, width in ((240, 330), (333, 201)):
        low = rng.uniform(0, 0.7, (5, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.05, 0.3, (5, 2))], 1)
        example = make_example(make_texture(height, width), boxes)
        for index in range(8):
            largest, rim = compare_step_by_step(example, GEOMETRY[name], index)
            assert largest <= 8, (height, width, index)
            assert rim < 0.05


def test_geometry_first_equals_step_by_step_on_photographs(shared_data):
    files = sorted((shared_data / "coco128" / "images").rglob("*.jpg"))[:10]
    assert files
    for index, file in enumerate(files):
        example = make_example(file.read_bytes(), [[0.1, 0.2, 0.6, 0.5], [0.4, 0.4, 0.9, 0.95]])
        largest, _ = compare_step_by_step(example, GEOMETRY["caffe"], index)
        assert largest <= 8, file.name
