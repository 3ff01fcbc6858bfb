"""Each colour step against its definition: literals, and Python's colorsys for what works on HSV."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import colors

# 2 x 3: not square, with gray, black, white and saturated pixels.
IMAGE = np.array(
    [[[200, 40, 40], [30, 220, 90], [128, 128, 128]], [[0, 0, 0], [255, 255, 255], [10, 60, 240]]],
    np.float32,
)


def by_colorsys(image, saturation, turn, wraps):
    answer = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, own, value = colorsys.rgb_to_hsv(*(image[place].astype(float) / 255))
        hue = (hue + turn) % 1 if wraps else max(0.0, hue + turn) % 1
        answer[place] = np.array(colorsys.hsv_to_rgb(hue, min(own * saturation, 1), value)) * 255
    return answer


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize(
    ("saturation", "turn"),
    [(1.0, 0.0), (0.5, 0.0), (1.5, 0.0), (1.0, 0.1), (1.0, -0.1), (1.4, -0.09)],
)
def test_hsv_as_colorsys(saturation, turn, wraps):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.float32)
    image = np.concatenate([image, np.tile(IMAGE, (15, 1, 1))], 1)
    found = colors.adjust_hsv(tf.constant(image), saturation, turn, wraps)
    np.testing.assert_allclose(found, by_colorsys(image, saturation, turn, wraps), atol=0.01)
    if turn == 0:
        np.testing.assert_allclose(
            colors.adjust_saturation(tf.constant(image), saturation), found, atol=0.01
        )


def test_a_hue_that_does_not_wrap_stays_at_red():
    orange = tf.constant([[[200.0, 100.0, 0.0]]])  # hue 30 degrees
    np.testing.assert_allclose(
        colors.adjust_hsv(orange, 1.0, -36 / 360, wraps=False), [[[200, 0, 0]]], atol=0.01
    )
    np.testing.assert_allclose(
        colors.adjust_hsv(orange, 1.0, -36 / 360), [[[200, 0, 20]]], atol=0.01
    )  # 354 degrees


def test_brightness_and_contrast_saturate():
    np.testing.assert_array_equal(colors.adjust_brightness(IMAGE[0], 60)[0], [255, 100, 100])
    np.testing.assert_array_equal(colors.adjust_brightness(IMAGE[0], -60)[1], [0, 160, 30])
    np.testing.assert_array_equal(
        colors.adjust_contrast(IMAGE, 1.5)[0, :2], [[255, 60, 60], [45, 255, 135]]
    )


def test_contrast_about_the_mean_of_the_gray_picture():
    # Two pixels: white, and pure red of gray .2989 * 100 = 29.89 -> mean (254.97 + 29.89) / 2 = 142.43.
    image = tf.constant([[[255.0, 255.0, 255.0], [100.0, 0.0, 0.0]]])
    found = colors.adjust_contrast(image, 0.5, about="mean")
    np.testing.assert_allclose(
        found, [[[198.71, 198.71, 198.71], [121.22, 71.22, 71.22]]], atol=0.02
    )


def test_saturation_by_gray():
    # Gray of (100, 0, 0) is 29.89: half way there is (64.9, 14.9, 14.9), and twice as far is (170.1, -29.9, -29.9), clipped.
    red = tf.constant([[[100.0, 0.0, 0.0]]])
    np.testing.assert_allclose(
        colors.adjust_saturation_by_gray(red, 0.5), [[[64.945, 14.945, 14.945]]], atol=0.01
    )
    np.testing.assert_allclose(
        colors.adjust_saturation_by_gray(red, 2.0), [[[170.11, 0, 0]]], atol=0.01
    )


def test_the_six_orders_of_the_channels():
    orders = {
        tuple(colors.shuffle_channels(IMAGE[:1, 1:2], (k + 0.5) / 6).numpy().ravel().astype(int))
        for k in range(6)
    }
    assert orders == {
        (30, 220, 90),
        (30, 90, 220),
        (220, 30, 90),
        (220, 90, 30),
        (90, 30, 220),
        (90, 220, 30),
    }


def many(options, number=400, scene=IMAGE):
    seeds = tf.data.Dataset.range(number)
    distorted = seeds.map(
        lambda i: colors.distort_color(tf.constant(scene), options, tf.stack([np.int64(5), i]))
    )
    return np.stack(list(distorted.as_numpy_iterator()))


def test_probability_nothing_and_each_step_alone():
    np.testing.assert_array_equal(
        many(Augment(preset="caffe", color_probability=0), 20),
        np.broadcast_to(IMAGE, (20, 2, 3, 3)),
    )
    shifts = many(Augment(brightness=32))[:, 0, 2, 0] - 128  # of a gray pixel far from both ends
    assert 0.42 < np.mean(shifts == 0) < 0.58  # half of 400, give or take three standard deviations
    assert shifts.min() > -32 and shifts.max() < 32 and shifts.min() < -25 and shifts.max() > 25
    factors = many(Augment(contrast=(0.5, 1.5)))[:, 0, 2, 0] / 128
    assert 0.42 < np.mean(factors == 1) < 0.58
    assert (
        factors.min() >= 0.5
        and factors.max() <= 1.5
        and factors.min() < 0.6
        and factors.max() > 1.4
    )


@pytest.mark.parametrize("preset", ["caffe", "torchvision", "paper"])
def test_presets_stay_in_range_and_are_the_same_called_directly(preset):
    options = Augment(preset=preset)
    inside = many(options)
    assert inside.min() > -1e-3 and inside.max() < 255 + 1e-3  # but for rounding
    assert len({picture.tobytes() for picture in inside}) > 100
    for index in range(8):
        direct = colors.distort_color(
            tf.constant(IMAGE), options, tf.constant([5, index], tf.int64)
        )
        np.testing.assert_allclose(direct, inside[index], atol=1e-3)


def test_contrast_comes_before_or_after_saturation():
    # Contrast 2, then gray kept: a saturated pixel shows the order, as its clipping at 255 comes first or last.
    options = Augment(contrast=(2.0, 2.0), saturation=(0.5, 0.5), color_probability=1)
    found = {tuple(np.round(picture[0, 0])) for picture in many(options, 50)}
    # (200, 40, 40) -> (255, 80, 80) -> S halved (255, 167.5, 167.5); or S halved (200, 120, 120) -> (255, 240, 240)
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


# Each option alone: how its amount is read off a distorted picture, its range, and the picture that this amount makes.
ALONE = {
    "brightness": (
        Augment(brightness=32),
        lambda x: x[0, 2, 0] - 128,
        (-32, 32),
        lambda v: SCENE + v,
    ),
    "brightness_factor": (
        Augment(brightness_factor=(0.7, 1.4)),
        lambda x: x[0, 0, 0] / 100,
        (0.7, 1.4),
        lambda v: SCENE * v,
    ),
    "contrast about black": (
        Augment(contrast=(0.5, 1.5)),
        lambda x: x[0, 0, 0] / 100,
        (0.5, 1.5),
        lambda v: SCENE * v,
    ),
    "contrast about the mean": (
        Augment(contrast=(0.5, 1.5), contrast_about="mean"),
        lambda x: (x[0, 0, 1] - x[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda v: GRAY.mean() + v * (SCENE - GRAY.mean()),
    ),
    "saturation by hsv": (
        Augment(saturation=(0.5, 1.5)),
        lambda x: (120 - x[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda v: by_colorsys(SCENE, v, 0, wraps=True),
    ),
    "saturation by gray": (
        Augment(saturation=(0.5, 1.5), saturation_by="gray"),
        lambda x: (x[0, 0, 1] - x[0, 0, 0]) / 20,
        (0.5, 1.5),
        lambda v: GRAY[..., None] + v * (SCENE - GRAY[..., None]),
    ),
    "hue": (
        Augment(hue_degrees=36),
        lambda x: hue(x[0, 0]) - hue(SCENE[0, 0]),
        (-0.1, 0.1),
        lambda v: by_colorsys(SCENE, 1, v, wraps=True),
    ),
    "hue that stays at red": (
        Augment(hue_degrees=18, hue_wraps=False),
        lambda x: hue(x[0, 0]) - hue(SCENE[0, 0]),
        (-0.05, 0.05),
        lambda v: by_colorsys(SCENE, 1, v, wraps=False),
    ),
    "hue that stays at red, beside gray": (
        Augment(hue_degrees=18, hue_wraps=False, saturation_by="gray"),
        lambda x: hue(x[0, 0]) - hue(SCENE[0, 0]),
        (-0.05, 0.05),
        lambda v: by_colorsys(SCENE, 1, v, wraps=False),
    ),
}


@pytest.mark.parametrize("probability", [1.0, 0.5])
@pytest.mark.parametrize("name", ALONE)
def test_each_option_alone_as_its_definition(name, probability):
    options, read, (low, high), definition = ALONE[name]
    found = many(options.model_copy(update={"color_probability": probability}), scene=SCENE)
    on = np.array([np.abs(picture - SCENE).max() > 1e-3 for picture in found])
    assert on.mean() > 0.97 if probability == 1 else 0.42 < on.mean() < 0.58
    amounts = [read(picture) for picture in found[on]]
    slack = 0.03 * (high - low)
    assert low - 1e-3 < min(amounts) < low + slack and high - slack < max(amounts) < high + 1e-3
    for picture, amount in list(zip(found[on], amounts, strict=True))[:60]:
        np.testing.assert_allclose(picture, np.clip(definition(amount), 0, 255), atol=0.1)


def test_the_probability_of_shuffled_channels():
    for probability in (1.0, 0.3):
        found = many(Augment(channel_shuffle_probability=probability), scene=SCENE)
        orders, counts = np.unique(found[:, 1, 0], axis=0, return_counts=True)
        shares = dict(zip(map(tuple, orders.astype(int)), counts / len(found), strict=True))
        # One of the six orders is the one that was there.
        assert (
            len(shares) == 6 and abs(shares.pop((30, 90, 160)) - (1 - probability * 5 / 6)) < 0.08
        )
        assert all(abs(share - probability / 6) < 0.06 for share in shares.values())


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        # Halved by contrast, and moved away from 128 or 64 by brightness.
        (
            Augment(brightness=32, contrast=(0.5, 0.5)),
            lambda x: (x[0, 2, 0] < 81, min(abs(x[0, 2, 0] - 128), abs(x[0, 2, 0] - 64)) > 1e-3),
        ),
        (
            Augment(brightness=32, brightness_factor=(0.5, 0.5)),
            lambda x: (x[0, 2, 0] < 81, x[0, 2, 0] not in (128, 64)),
        ),
        (
            Augment(saturation=(0.5, 0.5), hue_degrees=36),
            lambda x: (np.ptp(x[0, 0]) < 15, abs(hue(x[0, 0]) - hue(SCENE[0, 0])) > 1e-5),
        ),
        (
            Augment(saturation=(0.5, 0.5), hue_degrees=36, saturation_by="gray"),
            lambda x: (np.ptp(x[0, 0]) < 15, abs(hue(x[0, 0]) - hue(SCENE[0, 0])) > 1e-5),
        ),
        (
            Augment(saturation=(0.5, 0.5), contrast=(0.8, 0.8)),
            lambda x: (x[0, 0, 0] > x[0, 0, 1] * 0.9, x[0, 0, 1] < 100),
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
def test_each_step_has_a_coin_of_its_own(options, flags):
    found = many(options, scene=SCENE)
    pairs, counts = np.unique([flags(picture) for picture in found], axis=0, return_counts=True)
    assert len(pairs) == 4
    assert np.abs(counts / len(found) - 0.25).max() < 0.09, dict(
        zip(map(tuple, pairs), counts, strict=True)
    )
