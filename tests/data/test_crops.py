"""Windows: literals for the geometry; for the samplers, the statistics of a slow NumPy version."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import augment, crops

HW = (90, 140)
BOXES = np.array([[0.1, 0.05, 0.5, 0.3], [0.3, 0.4, 0.9, 0.85], [0.6, 0.1, 0.7, 0.2]], np.float32)


def make_objects(boxes, crowd=()):
    """The Example of boxes [N, 4]; crowd: indices of those that are crowds."""
    boxes = np.reshape(np.asarray(boxes, np.float32), (-1, 4))
    return {
        "boxes": tf.constant(boxes),
        "labels": tf.range(1, len(boxes) + 1),
        "crowd": tf.constant([i in crowd for i in range(len(boxes))], tf.bool, [len(boxes)]),
        "difficult": tf.zeros([len(boxes)], tf.bool),
        "area": tf.fill([len(boxes)], 50.0),
    }


def iou(crop, boxes):
    """crop [..., 4], boxes [N, 4] -> [..., N]."""
    top, left, bottom, right = np.moveaxis(np.asarray(crop)[..., None, :], -1, 0)
    height = np.minimum(bottom, boxes[:, 2]) - np.maximum(top, boxes[:, 0])
    width = np.minimum(right, boxes[:, 3]) - np.maximum(left, boxes[:, 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return shared / ((bottom - top) * (right - left) + areas - shared)


def slow_zoom_out(rng, section):
    if rng.random() >= section.zoom_out_probability:
        return np.array([0, 0, 1, 1.0])
    side = rng.uniform(1, 4)
    top, left = rng.uniform(0, side - 1, 2)
    return np.array([-top, -left, side - top, side - left])


def slow_caffe(rng, boxes, section):
    """Every mode tries; of those that found a crop, and the whole image, one is chosen."""
    min_iou = np.array(section.crop.min_iou)[:, None]
    numbers = rng.random((4, len(min_iou), section.crop.tries))
    scale = interpolate(numbers[0], *section.crop.scale)
    low = np.maximum(section.crop.aspect[0], scale**2)
    high = np.minimum(section.crop.aspect[1], 1 / scale**2)
    ratio = interpolate(numbers[1], low, high) ** 0.5
    tries = crops_at(scale / ratio, scale * ratio, numbers[2:])
    accepted = iou(tries, boxes).max(-1) >= min_iou
    candidates = [np.array([0, 0, 1, 1.0])]
    candidates += [mode[good][0] for mode, good in zip(tries, accepted, strict=True) if good.any()]
    return candidates[rng.integers(len(candidates))]


def slow_torchvision(rng, boxes, section):
    """One mode is drawn; if its tries fail, another."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while True:
        mode = rng.integers(len(section.crop.min_iou) + 1)
        if mode == len(section.crop.min_iou):
            return np.array([0, 0, 1, 1.0])
        numbers = rng.random((4, section.crop.tries))
        height, width = interpolate(numbers[:2], *section.crop.scale)
        aspect = width * HW[1] / (height * HW[0])
        tries = crops_at(height, width, numbers[2:])
        inside = np.all((tries[:, None, :2] < centres) & (centres < tries[:, None, 2:]), 2)
        best = np.where(inside, iou(tries, boxes), -1).max(1)
        good = best >= section.crop.min_iou[mode]
        good &= (aspect >= section.crop.aspect[0]) & (aspect <= section.crop.aspect[1])
        if good.any():
            return tries[good][0]


def interpolate(numbers, low, high):
    return low + numbers * (high - low)


def crops_at(height, width, numbers):
    top = numbers[0] * (1 - height)
    left = numbers[1] * (1 - width)
    return np.stack([top, left, top + height, left + width], -1)


def slow_window(rng, section):
    canvas = slow_zoom_out(rng, section)
    origin = np.tile(canvas[:2], 2)
    side = np.tile(canvas[2:] - canvas[:2], 2)
    sample = {"caffe": slow_caffe, "torchvision": slow_torchvision}[section.crop.sampler]
    return origin + sample(rng, (BOXES - origin) / side, section) * side


def sample_windows(section, boxes=BOXES, count=2000):
    """Windows [count, 4] of as many seeds."""

    def sample(index):
        seed = tf.stack([np.int64(3), index])
        return crops.sample_window(
            tf.constant(boxes), tf.constant(HW), section.zoom_out_probability, section.crop, seed
        )

    return map_indices(sample, count).astype(float)


def map_indices(function, count):
    """The results of function(index) in a graph, as the pipeline runs it: without AutoGraph."""
    draws = tf.data.Dataset.range(count).map(tf.autograph.experimental.do_not_convert(function), 2)
    return np.concatenate(list(draws.batch(256).as_numpy_iterator()))


def kolmogorov_smirnov(some, others):
    """The largest difference between the distribution functions of two samples."""
    values = np.concatenate([some, others])
    below, others_below = (
        np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (some, others)
    )
    return np.abs(below - others_below).max()


def describe(windows):
    """{name: a number per window} of windows [..., 4]."""
    height = windows[:, 2] - windows[:, 0]
    width = windows[:, 3] - windows[:, 1]
    overlaps = iou(windows, BOXES)
    columns = {
        "top": windows[:, 0],
        "left": windows[:, 1],
        "area": height * width,
        "aspect": width / height,
        "best IoU": overlaps.max(1),
        "objects over .3": (overlaps > 0.3).sum(1),
    }
    return {name: np.round(column, 5) for name, column in columns.items()}


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper", "light"])
def test_windows_are_distributed_like_the_slow_ones(preset, count):
    section = Augment(preset=preset)
    found = sample_windows(section, BOXES, count)
    rng = np.random.default_rng(1)
    slow = np.array([slow_window(rng, section) for _ in range(count)])
    whole, slow_whole = (
        np.mean(np.abs(sample - [0, 0, 1, 1]).max(1) < 1e-4) for sample in (found, slow)
    )
    # At least four standard deviations of the difference of two fractions up to .14.
    assert abs(whole - slow_whole) < 2 / count**0.5
    expected = describe(slow)
    for name, column in describe(found).items():
        # One in a thousand pairs of samples of this size from one distribution exceeds it.
        assert kolmogorov_smirnov(column, expected[name]) < 1.95 * (2 / count) ** 0.5, name


def test_without_objects():
    none = np.zeros((0, 4), np.float32)
    found = sample_windows(Augment(preset="torchvision", zoom_out_probability=0), none, 50)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1]] * 50)
    found = sample_windows(Augment(preset="caffe", zoom_out_probability=0), none, 200)
    assert 70 < np.sum(np.all(found == [0, 0, 1, 1], 1)) < 130  # whole or "any crop", one in two
    assert found.min() >= 0 and found.max() <= 1


def test_torchvisions_crops_contain_a_centre_and_caffes_need_not():
    boxes = np.array([[0.8, 0.8, 0.9, 0.9]], np.float32)  # centre (.85, .85)

    def share_with_the_centre(rule):
        found = sample_windows(Augment(crop={"sampler": rule, "min_iou": (0.0,)}), boxes, 200)
        cropped = found[np.any(np.abs(found - [0, 0, 1, 1]) > 1e-6, 1)]
        assert len(cropped) > 60
        return np.mean(np.all((cropped[:, :2] < 0.85) & (cropped[:, 2:] > 0.85), 1))

    assert share_with_the_centre("torchvision") == 1
    assert share_with_the_centre("caffe") < 0.8


def test_a_window_inside_the_image_is_drawn_everywhere():
    # Image 90 x 140, window of rows 18.4..62.8 and columns 14..84: rounded to rows 18..63.
    placement, window = crops.place_window(
        tf.constant([0.20444444, 0.1, 0.69777778, 0.6]), tf.constant(HW), (30, 20)
    )
    assert [list(values.numpy()) for values in placement[:4]] == [
        [18, 14],
        [45, 70],
        [0, 0],
        [30, 20],
    ]
    assert placement.is_crop
    np.testing.assert_allclose(window, [18 / 90, 14 / 140, 63 / 90, 84 / 140], rtol=1e-6)


def test_a_window_beyond_the_image_leaves_canvas():
    # Twice as high and wide as the image, which begins at row 30 and column 70: at 60 x 80 pixels
    # its upper left corner is at 30 / 180 * 60 = 10 and 70 / 280 * 80 = 20, its size is 30 x 40.
    placement, window = crops.place_window(
        tf.constant([-30 / 90, -70 / 140, 150 / 90, 210 / 140]), tf.constant(HW), (60, 80)
    )
    assert [list(values.numpy()) for values in placement[:4]] == [
        [0, 0],
        [90, 140],
        [10, 20],
        [30, 40],
    ]
    # A pixel covers 3 x 3.5 of the image's: the first centre is at (1.5, 1.75), so 1 and 1.25 from
    # the centre of the image's first pixel.
    np.testing.assert_allclose(
        placement.samples, [1 / 89, 1.25 / 139, 88 / 89, 137.75 / 139], rtol=1e-5
    )
    assert not placement.is_crop
    np.testing.assert_allclose(window, [-1 / 3, -0.5, 5 / 3, 1.5], rtol=1e-6)


@pytest.mark.parametrize(
    "window",
    [[1.5, 0.2, 2.0, 0.7], [-1.0, 0.2, -0.3, 0.7], [0.1, -0.8, 0.6, -0.2], [0.1, 1.0, 0.6, 1.5]],
)
def test_a_window_beside_the_image_shows_nothing(window):
    placement, exact = crops.place_window(tf.constant(window), tf.constant(HW), (60, 80))
    assert min(placement.target_hw.numpy()) == 0
    np.testing.assert_allclose(exact, window)


@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper"])
def test_the_drawn_window_is_the_sampled_one_to_half_a_pixel_of_the_image(preset):
    sampled = sample_windows(Augment(preset=preset, zoom_out_probability=0.8), count=500)
    assert np.mean(np.any(sampled < 0, 1)) > 0.3  # many extend beyond the image
    for size in ((480, 640), (90, 140), (44, 30), (1200, 37)):
        placements, drawn = place_windows(sampled.astype(np.float32), size)
        pixels = drawn.astype(float) * np.tile(size, 2)
        assert np.abs(pixels - sampled * np.tile(size, 2)).max() < 0.5 + 2e-3
        check_placements(placements, np.round(pixels), np.array(size))


def place_windows(windows, size):
    """The Placements, each entry [n, ...], and the drawn windows [n, 4]."""

    @tf.autograph.experimental.do_not_convert
    def place(window):
        return crops.place_window(window, tf.constant(size), (300, 300))

    placed = tf.data.Dataset.from_tensor_slices(windows).map(place).batch(len(windows))
    return next(placed.as_numpy_iterator())


def check_placements(placements, windows, size):
    """Each pixel of a target shows the point that its window (in pixels) puts there."""
    begin, part, first, target = (values.astype(int) for values in placements[:4])
    is_crop = placements.is_crop
    corners = np.concatenate([begin, begin + part], 1)
    np.testing.assert_array_equal(corners[is_crop], windows[is_crop])
    assert np.all(target[is_crop] == 300)
    assert np.all(begin >= 0) and np.all(begin + part <= size)
    index = np.arange(300)
    for axis in (0, 1):
        low = windows[~is_crop, axis, None]
        high = windows[~is_crop, 2 + axis, None]
        centres = low + (index + 0.5) * (high - low) / 300
        shown = (centres >= 0.5 + 0.01) & (centres <= size[axis] - 0.5 - 0.01)
        inside = (centres >= 0.5) & (centres <= size[axis] - 0.5)
        start = first[~is_crop, axis, None]
        own = (index >= start) & (index < start + target[~is_crop, axis, None])
        assert np.all(own.sum(1) == target[~is_crop, axis])
        assert np.all(own | ~shown) and np.all(inside | ~own)
        samples = placements.samples[~is_crop][:, [axis, 2 + axis]]
        ends = samples * (part[~is_crop, axis, None] - 1) + begin[~is_crop, axis, None] + 0.5
        has_own = own.any(1)
        last = 299 - own[:, ::-1].argmax(1)
        expected = [np.take_along_axis(centres, at[:, None], 1) for at in (own.argmax(1), last)]
        np.testing.assert_allclose(ends[has_own], np.concatenate(expected, 1)[has_own], atol=0.01)


def test_every_drawn_pixel_shows_its_place():
    """An image whose colours are its own rows and columns, in windows that extend beyond it."""
    rows, columns = np.meshgrid(np.arange(HW[0]), np.arange(HW[1]), indexing="ij")
    source = tf.constant(np.stack([rows, columns, columns], -1).astype(np.uint8))
    section = Augment(preset="caffe", zoom_out_probability=1)
    num_seen = 0
    for window in sample_windows(section, count=60).astype(np.float32):
        placement, exact = crops.place_window(tf.constant(window), tf.constant(HW), (60, 80))
        if placement.is_crop:
            continue
        part = source[placement.begin[0] :, placement.begin[1] :]
        part = part[: placement.part_hw[0], : placement.part_hw[1]]
        resized = augment.resize_part(part, placement)
        no_flips = tf.constant([False, False])
        image = augment.finish_image(resized, placement, no_flips, (60, 80)).numpy()
        top, left, bottom, right = exact.numpy() * np.tile(HW, 2)
        y = top + (np.arange(60) + 0.5) * (bottom - top) / 60 - 0.5
        x = left + (np.arange(80) + 0.5) * (right - left) / 80 - 0.5
        drawn = ((y >= 0) & (y <= HW[0] - 1))[:, None] & ((x >= 0) & (x <= HW[1] - 1))
        expected = np.stack(np.broadcast_arrays(y[:, None], x, x), -1)
        expected = np.where(drawn[..., None], expected, (123, 117, 104))
        on_the_edge = (np.abs(y * (y - HW[0] + 1)) < 0.5)[:, None]
        on_the_edge = on_the_edge | (np.abs(x * (x - HW[1] + 1)) < 0.5)
        np.testing.assert_allclose(image[~on_the_edge], expected[~on_the_edge], atol=0.02)
        num_seen += 1
    assert num_seen > 40


def test_the_largest_canvas():
    found = sample_windows(Augment(zoom_out_probability=1), count=500)
    sides = found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-5)
    assert 1 <= sides.min() < 1.15
    assert 3.85 < sides.max() <= 4


def test_crowds_do_not_guide_the_crop():
    section = Augment(preset="torchvision", zoom_out_probability=0)

    def draw(crowd, boxes):
        example = make_objects(boxes, crowd)

        def sample(index):
            seed = tf.stack([np.int64(3), index])
            size = tf.constant(HW)
            placement, *_ = augment.sample_geometry(example, size, (30, 20), section, seed)
            return tf.concat([placement.begin, placement.part_hw], 0)

        return map_indices(sample, 100)

    without_crowd = draw((), BOXES[:1])
    np.testing.assert_array_equal(draw([1], BOXES[:2]), without_crowd)
    assert np.mean(np.any(draw((), BOXES[:2]) != without_crowd, 1)) > 0.2


def test_boxes_move_by_centre_and_are_clipped():
    window = tf.constant([0.25, 0.5, 0.75, 1.0])
    boxes = [
        [0.2, 0.6, 0.6, 0.9],  # centre (.4, .75): inside; top -.1 clipped
        [0.0, 0.5, 0.4, 0.7],  # centre (.2, .6): outside
        [0.25, 0.0, 0.75, 1.0],  # centre (.5, .5) on the left border, which counts as inside
        [0.0, 0.0, 0.75, 1.0],  # centre (.375, .5): inside
        [0.5, 0.9, 1.0, 1.0],  # centre (.75, .95) on the lower border, which does not
    ]
    moved = crops.move_boxes(make_objects(boxes), window)
    np.testing.assert_array_equal(moved["labels"], [1, 3, 4])
    np.testing.assert_allclose(
        moved["boxes"], [[0, 0.2, 0.7, 0.8], [0, 0, 1, 1], [0, 0, 1, 1]], atol=1e-6
    )
    assert moved["area"].shape == [3]


def test_the_attributes_of_a_box_stay_with_it():
    example = make_objects(
        [[0.3, 0.6, 0.6, 0.9], [0.0, 0.5, 0.2, 0.7], [0.4, 0.5, 0.5, 0.7], [0.5, 0.6, 0.6, 0.7]],
        crowd=[2],
    )
    example["difficult"] = tf.constant([True, True, False, False])
    example["area"] = tf.constant([11.0, 12.0, 13.0, 14.0])
    # The second box has its centre outside.
    moved = crops.move_boxes(example, tf.constant([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_array_equal(moved["labels"], [1, 3, 4])
    np.testing.assert_array_equal(moved["crowd"], [False, True, False])
    np.testing.assert_array_equal(moved["difficult"], [True, False, False])
    np.testing.assert_array_equal(moved["area"], [11, 13, 14])
    np.testing.assert_allclose(moved["boxes"][1], [0.3, 0, 0.5, 0.4], atol=1e-6)


def test_crowds_stay_while_they_are_visible():
    boxes = [[0.0, 0.0, 0.3, 0.6], [0.0, 0.0, 0.2, 0.6], [0.0, 0.0, 0.3, 0.6]]
    moved = crops.move_boxes(make_objects(boxes, crowd=[0, 1]), tf.constant([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_array_equal(moved["labels"], [1])
    np.testing.assert_allclose(moved["boxes"], [[0, 0, 0.1, 0.2]], atol=1e-6)


def test_no_boxes_move_to_no_boxes():
    assert crops.move_boxes(make_objects([]), tf.constant([0.2, 0.2, 0.8, 0.9]))["boxes"].shape == [
        0,
        4,
    ]


@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        ([False, False], [0.1, 0.2, 0.4, 0.9]),
        ([True, False], [0.6, 0.2, 0.9, 0.9]),
        ([False, True], [0.1, 0.1, 0.4, 0.8]),
        ([True, True], [0.6, 0.1, 0.9, 0.8]),
    ],
)
def test_flips(flips, expected):
    flipped = crops.flip_boxes(make_objects([[0.1, 0.2, 0.4, 0.9]]), tf.constant(flips))
    np.testing.assert_allclose(flipped["boxes"], [expected], atol=1e-6)


def test_flips_are_independent():
    def sample(index):
        return crops.sample_flips(0.25, 0.5, tf.stack([np.int64(0), index]))

    found = map_indices(sample, 4000)
    assert np.abs(found.mean(0) - [0.25, 0.5]).max() < 0.03
    assert abs(np.mean(found[:, 0] & found[:, 1]) - 0.125) < 0.02


def test_flips_do_not_depend_on_the_zoom_out():
    def sample(index):
        seed = tf.stack([np.int64(6), index])
        canvas = crops.sample_zoom_out(0.5, seed)
        flips = crops.sample_flips(0.5, 0.5, seed)
        zooms = tf.cast(canvas[0] < 0, tf.float32)
        numbers = [canvas[2] - canvas[0], -canvas[0], -canvas[1], zooms]
        return tf.concat([numbers, tf.cast(flips, tf.float32)], 0)

    found = map_indices(sample, 2000)
    correlations = np.corrcoef(found, rowvar=False)[:4, 4:]
    assert np.abs(correlations).max() < 0.08  # three and a half standard deviations


def test_into_window_and_out_of_window_are_inverse():
    window = tf.constant([-0.4, 0.1, 1.3, 0.6])
    np.testing.assert_allclose(
        crops.out_of_window(crops.into_window(BOXES, window), window), BOXES, atol=1e-6
    )
