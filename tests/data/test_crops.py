"""Windows: literals for the geometry, and for the samplers the statistics of a slow NumPy version of their rules."""

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import augment, crops

HW = (90, 140)
BOXES = np.array([[0.1, 0.05, 0.5, 0.3], [0.3, 0.4, 0.9, 0.85], [0.6, 0.1, 0.7, 0.2]], np.float32)
DRAWS = 10_000


def objects(boxes, crowd=()):
    boxes = np.reshape(np.asarray(boxes, np.float32), (-1, 4))
    return {
        "boxes": tf.constant(boxes),
        "labels": tf.range(1, len(boxes) + 1),
        "crowd": tf.constant(
            [index in crowd for index in range(len(boxes))], tf.bool, [len(boxes)]
        ),
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


def slow_zoom_out(rng, options):
    if rng.random() >= options.zoom_out_probability:
        return np.array([0, 0, 1, 1.0])
    side = rng.uniform(1, options.zoom_out_max)
    top, left = rng.uniform(0, side - 1), rng.uniform(0, side - 1)
    return np.array([-top, -left, side - top, side - left])


def slow_caffe(rng, boxes, options):
    """Every mode tries; of those that found a crop, and the whole picture, one is taken."""
    candidates = [np.array([0, 0, 1, 1.0])]
    for least in options.crop_min_iou:
        numbers = rng.random((4, options.crop_tries if least else 1))
        scale = options.crop_scale[0] + numbers[0] * (options.crop_scale[1] - options.crop_scale[0])
        low, high = (
            np.maximum(options.crop_aspect[0], scale**2),
            np.minimum(options.crop_aspect[1], 1 / scale**2),
        )
        ratio = (low + numbers[1] * (high - low)) ** 0.5
        tries = crops_at(scale / ratio, scale * ratio, numbers[2:])
        candidates += list(tries[iou(tries, boxes).max(1) >= least][:1])
    return candidates[rng.integers(len(candidates))]


def slow_torchvision(rng, boxes, options):
    """One mode is drawn; where its tries fail, another."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while True:
        mode = rng.integers(len(options.crop_min_iou) + 1)
        if mode == len(options.crop_min_iou):
            return np.array([0, 0, 1, 1.0])
        numbers = rng.random((4, options.crop_tries))
        height, width = options.crop_scale[0] + numbers[:2] * (
            options.crop_scale[1] - options.crop_scale[0]
        )
        aspect = width * HW[1] / (height * HW[0])
        tries = crops_at(height, width, numbers[2:])
        inside = np.all((tries[:, None, :2] < centres) & (centres < tries[:, None, 2:]), 2)
        best = np.where(inside, iou(tries, boxes), -1).max(1)
        good = (
            (aspect >= options.crop_aspect[0])
            & (aspect <= options.crop_aspect[1])
            & (best >= options.crop_min_iou[mode])
        )
        if good.any():
            return tries[good][0]


def crops_at(height, width, numbers):
    top, left = numbers[0] * (1 - height), numbers[1] * (1 - width)
    return np.stack([top, left, top + height, left + width], 1)


def slow_window(rng, options):
    canvas = slow_zoom_out(rng, options)
    origin, side = np.tile(canvas[:2], 2), np.tile(canvas[2:] - canvas[:2], 2)
    sample = {"caffe": slow_caffe, "torchvision": slow_torchvision}[options.crop_rule]
    return origin + sample(rng, (BOXES - origin) / side, options) * side


def windows(options, boxes=BOXES, number=DRAWS):
    draws = tf.data.Dataset.range(number).map(
        lambda i: crops.sample_window(
            tf.constant(boxes), tf.constant(HW), options, tf.stack([np.int64(3), i])
        ),
        2,
    )
    return np.stack(list(draws.as_numpy_iterator())).astype(float)


def distance(some, others):
    """Kolmogorov and Smirnov's: the largest gap between two samples' shares below a value."""
    values = np.concatenate([some, others])
    below = [
        np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (some, others)
    ]
    return np.abs(below[0] - below[1]).max()


def traits(found):
    height, width = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    overlaps = np.array([iou(window, BOXES) for window in found])
    columns = {
        "top": found[:, 0],
        "left": found[:, 1],
        "area": height * width,
        "aspect": width / height,
    }
    columns |= {"best IoU": overlaps.max(1), "objects over .3": (overlaps > 0.3).sum(1)}
    return {name: np.round(column, 5) for name, column in columns.items()}


@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper", "light"])
def test_ten_thousand_windows_as_by_the_slow_rules(preset):
    options = Augment(preset=preset)
    found = windows(options)
    rng = np.random.default_rng(1)
    slow = np.array([slow_window(rng, options) for _ in range(DRAWS)])
    whole = [np.mean(np.abs(sample - [0, 0, 1, 1]).max(1) < 1e-4) for sample in (found, slow)]
    assert (
        abs(whole[0] - whole[1]) < 0.02
    )  # four standard deviations of a difference of two shares near .1
    expected = traits(slow)
    for name, column in traits(found).items():
        # Beyond .0276 lie one in a thousand pairs of samples of this size from one distribution.
        assert distance(column, expected[name]) < 0.0276, name


def test_without_objects():
    none = np.zeros((0, 4), np.float32)
    np.testing.assert_array_equal(
        windows(Augment(preset="torchvision", zoom_out_probability=0), none, 50),
        [[0, 0, 1, 1]] * 50,
    )
    found = windows(Augment(preset="caffe", zoom_out_probability=0), none, 200)
    assert 70 < np.sum(np.all(found == [0, 0, 1, 1], 1)) < 130  # whole or "any crop", one in two
    assert found.min() >= 0 and found.max() <= 1


def test_torchvisions_crops_hold_a_centre_and_the_authors_need_not():
    def share_with_the_centre(rule):
        found = windows(
            Augment(crop_rule=rule, crop_min_iou=(0.0,)),
            np.array([[0.8, 0.8, 0.9, 0.9]], np.float32),
            200,
        )
        cropped = found[np.any(np.abs(found - [0, 0, 1, 1]) > 1e-6, 1)]
        return len(cropped), np.mean(np.all((cropped[:, :2] < 0.85) & (cropped[:, 2:] > 0.85), 1))

    number, share = share_with_the_centre("torchvision")
    assert number > 60 and share == 1
    number, share = share_with_the_centre("caffe")
    assert number > 60 and share < 0.8


def test_a_window_inside_the_picture_is_drawn_everywhere():
    # Picture 90 x 140, window of rows 18.4..62.8 and columns 14..84: rounded to rows 18..63.
    placement, window = crops.place(
        tf.constant([0.20444444, 0.1, 0.69777778, 0.6]), tf.constant(HW), (30, 20)
    )
    assert [list(x.numpy()) for x in placement[:4]] == [[18, 14], [45, 70], [0, 0], [30, 20]]
    assert placement.is_crop
    np.testing.assert_allclose(window, [18 / 90, 14 / 140, 63 / 90, 84 / 140], rtol=1e-6)


def test_a_window_beyond_the_picture_leaves_canvas():
    # Twice as high and wide as the picture, which sits 30 rows down and 70 columns in: at 60 x 80 pixels its upper left corner
    # comes to 30 / 180 * 60 = 10 and 70 / 280 * 80 = 20, its size to 30 x 40.
    placement, window = crops.place(
        tf.constant([-30 / 90, -70 / 140, 150 / 90, 210 / 140]), tf.constant(HW), (60, 80)
    )
    assert [list(x.numpy()) for x in placement[:4]] == [[0, 0], [90, 140], [10, 20], [30, 40]]
    # Of 3 x 3.5 of its pixels the first centre is at (1.5, 1.75), a pixel less half from that of the picture's first pixel.
    np.testing.assert_allclose(
        placement.samples, [1 / 89, 1.25 / 139, 88 / 89, 137.75 / 139], rtol=1e-5
    )
    assert not placement.is_crop
    np.testing.assert_allclose(window, [-1 / 3, -0.5, 5 / 3, 1.5], rtol=1e-6)


@pytest.mark.parametrize(
    "window",
    [[1.5, 0.2, 2.0, 0.7], [-1.0, 0.2, -0.3, 0.7], [0.1, -0.8, 0.6, -0.2], [0.1, 1.0, 0.6, 1.5]],
)
def test_a_window_beside_the_picture_shows_nothing(window):
    placement, exact = crops.place(tf.constant(window), tf.constant(HW), (60, 80))
    assert min(placement.target_hw.numpy()) == 0
    np.testing.assert_allclose(exact, window)


@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper"])
def test_the_window_drawn_is_the_one_sampled_to_half_a_pixel_of_the_picture(preset):
    sampled = windows(Augment(preset=preset, zoom_out_probability=0.8), number=1500)
    for size in ((480, 640), (90, 140), (44, 30), (1200, 37)):
        placed = tf.data.Dataset.from_tensor_slices(sampled.astype(np.float32)).map(
            lambda window, size=size: crops.place(window, tf.constant(size), (300, 300))
        )
        placements, drawn = zip(*placed.as_numpy_iterator(), strict=True)
        moved = np.abs(np.array(drawn, float) - sampled) * np.tile(size, 2)
        assert np.mean(np.any(sampled < 0, 1)) > 0.3  # many reach beyond the picture
        assert moved.max() < 0.5 + 2e-3
        for placement, window in zip(placements, drawn, strict=True):
            check_placement(
                placement, np.round(window.astype(float) * np.tile(size, 2)), np.array(size)
            )


def check_placement(placement, window, size):
    """Every pixel of the target shows the point of the picture that the window (in pixels) puts there."""
    begin, part, first, target = (x.astype(int) for x in placement[:4])
    if placement.is_crop:
        np.testing.assert_array_equal(np.concatenate([begin, begin + part]), window)
        assert target.tolist() == [300, 300]
        return
    assert np.all(begin >= 0) and np.all(begin + part <= size)
    for axis in (0, 1):
        pixel = (window[2 + axis] - window[axis]) / 300
        centres = window[axis] + (np.arange(300) + 0.5) * pixel
        shown = (centres >= 0.5 + 0.01) & (centres <= size[axis] - 0.5 - 0.01)
        inside = (centres >= 0.5) & (centres <= size[axis] - 0.5)
        own = np.arange(first[axis], first[axis] + target[axis])
        assert shown.sum() <= target[axis] <= inside.sum()
        assert np.all(inside[own])
        if len(own):
            low, high = placement.samples[[axis, 2 + axis]] * (part[axis] - 1) + begin[axis] + 0.5
            np.testing.assert_allclose([low, high], centres[own[[0, -1]]], atol=0.01)


def test_every_drawn_pixel_shows_its_place():
    """A picture whose colours are its own rows and columns, seen through windows that reach beyond it."""
    rows, columns = np.meshgrid(np.arange(HW[0]), np.arange(HW[1]), indexing="ij")
    picture = tf.constant(np.stack([rows, columns, columns], -1).astype(np.uint8))
    options, seen = Augment(preset="caffe", zoom_out_probability=1), 0
    for window in windows(options, number=60).astype(np.float32):
        placement, exact = crops.place(tf.constant(window), tf.constant(HW), (60, 80))
        if placement.is_crop:
            continue
        part = picture[placement.begin[0] :, placement.begin[1] :][
            : placement.part_hw[0], : placement.part_hw[1]
        ]
        image = augment.finish(
            augment.resize_part(part, placement), placement, tf.constant([False, False]), (60, 80)
        ).numpy()
        top, left, bottom, right = exact.numpy() * np.tile(HW, 2)
        y = top + (np.arange(60) + 0.5) * (bottom - top) / 60 - 0.5
        x = left + (np.arange(80) + 0.5) * (right - left) / 80 - 0.5
        drawn = ((y >= 0) & (y <= HW[0] - 1))[:, None] & ((x >= 0) & (x <= HW[1] - 1))
        expected = np.stack(np.broadcast_arrays(y[:, None], x, x), -1)
        expected = np.where(drawn[..., None], expected, (123, 117, 104))
        on_the_edge = (np.abs(y * (y - HW[0] + 1)) < 0.5)[:, None] | (
            np.abs(x * (x - HW[1] + 1)) < 0.5
        )
        np.testing.assert_allclose(image[~on_the_edge], expected[~on_the_edge], atol=0.02)
        seen += 1
    assert seen > 40


def test_the_largest_canvas():
    for largest in (2.0, 4.0):
        found = windows(Augment(zoom_out_probability=1, zoom_out_max=largest), number=500)
        sides = found[:, 2:] - found[:, :2]
        np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-5)
        assert 1 <= sides.min() < 1 + 0.05 * (largest - 1)
        assert largest - 0.05 * (largest - 1) < sides.max() <= largest


def test_crowds_do_not_steer_the_crop():
    options = Augment(preset="torchvision", zoom_out_probability=0)

    def draw(crowd, boxes):
        draws = tf.data.Dataset.range(100).map(
            lambda i: crops_of(objects(boxes, crowd), options, tf.stack([np.int64(3), i]))
        )
        return np.array(list(draws.as_numpy_iterator()))

    def crops_of(example, options, seed):
        placement, *_ = augment.sample_geometry(example, tf.constant(HW), (30, 20), options, seed)
        return tf.concat([placement.begin, placement.part_hw], 0)

    alone = draw((), BOXES[:1])
    np.testing.assert_array_equal(draw([1], BOXES[:2]), alone)
    assert np.mean(np.any(draw((), BOXES[:2]) != alone, 1)) > 0.2


def test_boxes_move_by_centre_and_are_clipped():
    window = tf.constant([0.25, 0.5, 0.75, 1.0])
    boxes = [
        [0.2, 0.6, 0.6, 0.9],  # centre (.4, .75): inside; top -.1 clipped
        [0.0, 0.5, 0.4, 0.7],  # centre (.2, .6): outside
        [0.25, 0.0, 0.75, 1.0],  # centre (.5, .5) on the left border, which belongs to it
        [0.0, 0.0, 0.75, 1.0],  # centre (.375, .5): inside
        [0.5, 0.9, 1.0, 1.0],  # centre (.75, .95) on the lower border, which does not
    ]
    moved = crops.move_boxes(objects(boxes), window)
    np.testing.assert_array_equal(moved["labels"], [1, 3, 4])
    np.testing.assert_allclose(
        moved["boxes"], [[0, 0.2, 0.7, 0.8], [0, 0, 1, 1], [0, 0, 1, 1]], atol=1e-6
    )
    assert moved["area"].shape == [3]


def test_what_belongs_to_a_box_stays_with_it():
    example = objects(
        [[0.3, 0.6, 0.6, 0.9], [0.0, 0.5, 0.2, 0.7], [0.4, 0.5, 0.5, 0.7], [0.5, 0.6, 0.6, 0.7]],
        crowd=[2],
    )
    example |= {
        "difficult": tf.constant([True, True, False, False]),
        "area": tf.constant([11.0, 12.0, 13.0, 14.0]),
    }
    moved = crops.move_boxes(
        example, tf.constant([0.25, 0.5, 0.75, 1.0])
    )  # the second has its centre outside
    np.testing.assert_array_equal(moved["labels"], [1, 3, 4])
    np.testing.assert_array_equal(moved["crowd"], [False, True, False])
    np.testing.assert_array_equal(moved["difficult"], [True, False, False])
    np.testing.assert_array_equal(moved["area"], [11, 13, 14])
    np.testing.assert_allclose(moved["boxes"][1], [0.3, 0, 0.5, 0.4], atol=1e-6)


def test_crowds_stay_while_they_show():
    boxes = [[0.0, 0.0, 0.3, 0.6], [0.0, 0.0, 0.2, 0.6], [0.0, 0.0, 0.3, 0.6]]
    moved = crops.move_boxes(objects(boxes, crowd=[0, 1]), tf.constant([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_array_equal(moved["labels"], [1])
    np.testing.assert_allclose(moved["boxes"], [[0, 0, 0.1, 0.2]], atol=1e-6)


def test_no_boxes_move_to_no_boxes():
    assert crops.move_boxes(objects([]), tf.constant([0.2, 0.2, 0.8, 0.9]))["boxes"].shape == [0, 4]


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
    flipped = crops.flip_boxes(objects([[0.1, 0.2, 0.4, 0.9]]), tf.constant(flips))
    np.testing.assert_allclose(flipped["boxes"], [expected], atol=1e-6)


def test_flips_are_drawn_apart():
    options = Augment(flip_probability=0.5, vertical_flip_probability=0.25)
    seeds = tf.data.Dataset.range(4000).map(
        lambda i: crops.sample_flips(options, tf.stack([np.int64(0), i]))
    )
    found = np.stack(list(seeds.as_numpy_iterator()))
    assert np.abs(found.mean(0) - [0.25, 0.5]).max() < 0.03
    assert abs(np.mean(found[:, 0] & found[:, 1]) - 0.125) < 0.02


def test_flips_do_not_follow_the_zoom_out():
    options = Augment(zoom_out_probability=0.5, flip_probability=0.5, vertical_flip_probability=0.5)

    def draw(index):
        seed = tf.stack([np.int64(6), index])
        canvas, flips = crops.sample_zoom_out(options, seed), crops.sample_flips(options, seed)
        numbers = [
            canvas[2] - canvas[0],
            -canvas[0],
            -canvas[1],
            tf.cast(canvas[0] < 0, tf.float32),
        ]
        return tf.concat([numbers, tf.cast(flips, tf.float32)], 0)

    found = np.stack(list(tf.data.Dataset.range(2000).map(draw).as_numpy_iterator()))
    correlations = np.corrcoef(found, rowvar=False)[:4, 4:]
    assert np.abs(correlations).max() < 0.08  # three and a half standard deviations


def test_into_and_out_of_a_window_are_inverse():
    window = tf.constant([-0.4, 0.1, 1.3, 0.6])
    np.testing.assert_allclose(
        crops.out_of_window(crops.into_window(BOXES, window), window), BOXES, atol=1e-6
    )
