"""Each colour step against its definition: literals, and Python's colorsys for HSV."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import Augment, Color
from ssd_tf.data import colors

# 2 x 3: not square, with gray, black, white and saturated pixels.
IMAGE = np.array(
    [[[200, 40, 40], [30, 220, 90], [128, 128, 128]], [[0, 0, 0], [255, 255, 255], [10, 60, 240]]],
    np.float32,
)


def adjust_by_colorsys(image, factor, turn, wraps):
    adjusted = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place].astype(float) / 255))
        hue = (hue + turn) % 1 if wraps else max(0.0, hue + turn) % 1
        pixel = colorsys.hsv_to_rgb(hue, min(saturation * factor, 1), value)
        adjusted[place] = np.array(pixel) * 255
    return adjusted


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize(
    ("saturation", "turn"),
    [(1.0, 0.0), (0.5, 0.0), (1.5, 0.0), (1.0, 0.1), (1.0, -0.1), (1.4, -0.09)],
)
def test_hsv_agrees_with_colorsys(saturation, turn, wraps):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.float32)
    image = np.concatenate([image, np.tile(IMAGE, (15, 1, 1))], 1)
    found = colors.adjust_hsv(tf.constant(image), saturation, turn, wraps)
    np.testing.assert_allclose(found, adjust_by_colorsys(image, saturation, turn, wraps), atol=0.01)
    if turn == 0:
        np.testing.assert_allclose(
            colors.adjust_saturation(tf.constant(image), saturation), found, atol=0.01
        )


def test_a_hue_that_does_not_wrap_stays_at_red():
    orange = tf.constant([[[200.0, 100.0, 0.0]]])  # hue 30 degrees
    stays = colors.adjust_hsv(orange, 1.0, -36 / 360, wraps=False)
    np.testing.assert_allclose(stays, [[[200, 0, 0]]], atol=0.01)
    wraps = colors.adjust_hsv(orange, 1.0, -36 / 360, wraps=True)
    np.testing.assert_allclose(wraps, [[[200, 0, 20]]], atol=0.01)  # 354 degrees


def test_brightness_and_contrast_saturate():
    np.testing.assert_array_equal(colors.adjust_brightness(IMAGE[0], 60)[0], [255, 100, 100])
    np.testing.assert_array_equal(colors.adjust_brightness(IMAGE[0], -60)[1], [0, 160, 30])
    contrast = colors.adjust_contrast(IMAGE, 1.5, about="black")
    np.testing.assert_array_equal(contrast[0, :2], [[255, 60, 60], [45, 255, 135]])


def test_contrast_about_the_mean_of_the_gray_image():
    # Two pixels: white, and pure red of gray .2989 * 100 = 29.89; their mean is
    # (254.97 + 29.89) / 2 = 142.43.
    image = tf.constant([[[255.0, 255.0, 255.0], [100.0, 0.0, 0.0]]])
    found = colors.adjust_contrast(image, 0.5, about="mean")
    np.testing.assert_allclose(
        found, [[[198.71, 198.71, 198.71], [121.22, 71.22, 71.22]]], atol=0.02
    )


def test_saturation_by_gray():
    # Gray of (100, 0, 0) is 29.89: half way there is (64.9, 14.9, 14.9), and twice as far is
    # (170.1, -29.9, -29.9), clipped.
    red = tf.constant([[[100.0, 0.0, 0.0]]])
    np.testing.assert_allclose(
        colors.adjust_saturation_by_gray(red, 0.5), [[[64.945, 14.945, 14.945]]], atol=0.01
    )
    np.testing.assert_allclose(
        colors.adjust_saturation_by_gray(red, 2.0), [[[170.11, 0, 0]]], atol=0.01
    )


def test_the_six_orders_of_the_channels():
    pixel = IMAGE[:1, 1:2]
    shuffled = [colors.shuffle_channels(pixel, (i + 0.5) / 6).numpy() for i in range(6)]
    assert {tuple(pixel.ravel().astype(int)) for pixel in shuffled} == {
        (30, 220, 90),
        (30, 90, 220),
        (220, 30, 90),
        (220, 90, 30),
        (90, 30, 220),
        (90, 220, 30),
    }


def distort(image, color, index):
    seed = tf.stack([tf.constant(5, tf.int64), index])
    return colors.distort_color(tf.constant(image), color, seed)


def distort_many(color, count=400, scene=IMAGE):
    @tf.autograph.experimental.do_not_convert
    def distort_one(index):
        return distort(scene, color, index)

    distorted = tf.data.Dataset.range(count).map(distort_one).batch(count)
    return next(distorted.as_numpy_iterator())


def test_probability_zero_and_each_step_alone():
    np.testing.assert_array_equal(
        distort_many(Augment(preset="caffe", color={"probability": 0}).color, 20),
        np.broadcast_to(IMAGE, (20, 2, 3, 3)),
    )
    # Of a gray pixel far from both ends.
    shifts = distort_many(Color(brightness=32))[:, 0, 2, 0] - 128
    assert 0.42 < np.mean(shifts == 0) < 0.58  # half of 400, +- three standard deviations
    assert -32 < shifts.min() < -25
    assert 25 < shifts.max() < 32
    factors = distort_many(Color(contrast=(0.5, 1.5)))[:, 0, 2, 0] / 128
    assert 0.42 < np.mean(factors == 1) < 0.58
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5


@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper"])
def test_presets_stay_in_range_and_are_the_same_called_directly(preset):
    color = Augment(preset=preset).color
    inside = distort_many(color)
    assert inside.min() > -1e-3 and inside.max() < 255 + 1e-3  # up to rounding
    assert len({image.tobytes() for image in inside}) > 100
    for index in range(8):
        direct = distort(IMAGE, color, np.int64(index))
        np.testing.assert_allclose(direct, inside[index], atol=1e-3)


def test_contrast_comes_before_or_after_saturation():
    # A saturated pixel shows the order, as contrast 2 clips it at 255 before S is halved or after.
    color = Color(contrast=(2.0, 2.0), saturation=(0.5, 0.5), probability=1)
    found = {tuple(np.round(image[0, 0])) for image in distort_many(color, 50)}
    # (200, 40, 40) -> (255, 80, 80) -> S halved (255, 167.5, 167.5);
    # or S halved (200, 120, 120) -> (255, 240, 240).
    assert found == {(255, 168, 168), (255, 240, 240)}


# Pale, so that no factor below clips it; the others are saturated, near red, gray and blue.
SCENE = np.array(
    [
        [[100, 120, 110], [200, 60, 40], [128, 128, 128]],
        [[30, 90, 160], [220, 200, 210], [60, 40, 230]],
    ],
    np.float32,
)
GRAY = SCENE @ (0.2989, 0.587, 0.114)


def hue(pixel):
    return colorsys.rgb_to_hsv(*(np.asarray(pixel, float) / 255))[0]


def hue_moves(image):
    return abs(hue(image[0, 0]) - hue(SCENE[0, 0])) > 1e-5


# Each key alone: how its amount is read off a distorted image, the range of the amount, and the
# image that this amount gives.
ALONE = {
    "brightness": (
        Color(brightness=32),
        lambda image: image[0, 2, 0] - 128,
        (-32, 32),
        lambda amount: SCENE + amount,
    ),
    "brightness_factor": (
        Color(brightness_factor=(0.7, 1.4)),
        lambda image: image[0, 0, 0] / 100,
        (0.7, 1.4),
        lambda amount: SCENE * amount,
    ),
    "contrast about black": (
        Color(contrast=(0.5, 1.5)),
        lambda image: image[0, 0, 0] / 100,
        (0.5, 1.5),
        lambda amount: SCENE * amount,
    ),
    "contrast about the mean": (
        Color(contrast=(0.5, 1.5), contrast_about="mean"),
        lambda image: (image[0, 0, 1] - image[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda amount: GRAY.mean() + amount * (SCENE - GRAY.mean()),
    ),
    "saturation by hsv": (
        Color(saturation=(0.5, 1.5)),
        lambda image: (120 - image[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda amount: adjust_by_colorsys(SCENE, amount, 0, wraps=True),
    ),
    "saturation by gray": (
        Color(saturation=(0.5, 1.5), saturation_by="gray"),
        lambda image: (image[0, 0, 1] - image[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda amount: GRAY[..., None] + amount * (SCENE - GRAY[..., None]),
    ),
    "hue": (
        Color(hue_degrees=36),
        lambda image: hue(image[0, 0]) - hue(SCENE[0, 0]),
        (-0.1, 0.1),
        lambda amount: adjust_by_colorsys(SCENE, 1, amount, wraps=True),
    ),
    "hue that stays at red": (
        Color(hue_degrees=18, hue_wraps=False),
        lambda image: hue(image[0, 0]) - hue(SCENE[0, 0]),
        (-0.05, 0.05),
        lambda amount: adjust_by_colorsys(SCENE, 1, amount, wraps=False),
    ),
    "hue that stays at red, beside gray": (
        Color(hue_degrees=18, hue_wraps=False, saturation_by="gray"),
        lambda image: hue(image[0, 0]) - hue(SCENE[0, 0]),
        (-0.05, 0.05),
        lambda amount: adjust_by_colorsys(SCENE, 1, amount, wraps=False),
    ),
}


@pytest.mark.parametrize("probability", [1.0, 0.5])
@pytest.mark.parametrize("name", ALONE)
def test_each_key_alone_follows_its_definition(name, probability):
    color, read, (low, high), definition = ALONE[name]
    color = color.model_copy(update={"probability": probability})
    found = distort_many(color, scene=SCENE)
    changed = np.array([np.abs(image - SCENE).max() > 1e-3 for image in found])
    assert changed.mean() > 0.97 if probability == 1 else 0.42 < changed.mean() < 0.58
    amounts = [read(image) for image in found[changed]]
    slack = 0.03 * (high - low)
    assert low - 1e-3 < min(amounts) < low + slack
    assert high - slack < max(amounts) < high + 1e-3
    for image, amount in list(zip(found[changed], amounts, strict=True))[:60]:
        np.testing.assert_allclose(image, np.clip(definition(amount), 0, 255), atol=0.1)


def test_the_probability_of_shuffled_channels():
    for probability in (1.0, 0.3):
        found = distort_many(Color(channel_shuffle_probability=probability), scene=SCENE)
        orders, counts = np.unique(found[:, 1, 0], axis=0, return_counts=True)
        shares = dict(zip(map(tuple, orders.astype(int)), counts / len(found), strict=True))
        assert len(shares) == 6
        # One of the six orders is the original one.
        assert abs(shares.pop((30, 90, 160)) - (1 - probability * 5 / 6)) < 0.08
        assert all(abs(share - probability / 6) < 0.06 for share in shares.values())


@pytest.mark.parametrize(
    ("color", "read_flags"),
    [
        # Halved by contrast, and moved away from 128 or 64 by brightness.
        (
            Color(brightness=32, contrast=(0.5, 0.5)),
            lambda image: (
                image[0, 2, 0] < 81,
                min(abs(image[0, 2, 0] - 128), abs(image[0, 2, 0] - 64)) > 1e-3,
            ),
        ),
        (
            Color(brightness=32, brightness_factor=(0.5, 0.5)),
            lambda image: (image[0, 2, 0] < 81, image[0, 2, 0] not in (128, 64)),
        ),
        (
            Color(saturation=(0.5, 0.5), hue_degrees=36),
            lambda image: (np.ptp(image[0, 0]) < 15, hue_moves(image)),
        ),
        (
            Color(saturation=(0.5, 0.5), hue_degrees=36, saturation_by="gray"),
            lambda image: (np.ptp(image[0, 0]) < 15, hue_moves(image)),
        ),
        (
            Color(saturation=(0.5, 0.5), contrast=(0.8, 0.8)),
            lambda image: (image[0, 0, 0] > image[0, 0, 1] * 0.9, image[0, 0, 1] < 100),
        ),
    ],
    ids=[
        "brightness, contrast",
        "brightness, its factor",
        "saturation, hue",
        "saturation by gray, hue",
        "saturation, contrast",
    ],
)
def test_the_steps_apply_independently(color, read_flags):
    found = distort_many(color, scene=SCENE)
    flags = [read_flags(image) for image in found]
    pairs, counts = np.unique(flags, axis=0, return_counts=True)
    assert len(pairs) == 4
    assert np.abs(counts / len(found) - 0.25).max() < 0.09, dict(
        zip(map(tuple, pairs), counts, strict=True)
    )
