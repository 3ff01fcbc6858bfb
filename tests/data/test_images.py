"""decode_image in a graph, against pixels.read_image; and the resize."""

import random
import struct
import tracemalloc

import image_samples
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_pixels import png_of_size

from ssd_tf import pixels
from ssd_tf.data import decoding, images, records

decode = tf.function(
    decoding.decode_image, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
SAMPLES = image_samples.make_samples()
# A graph has no decoder for these.
NOT_READ = {"one_bit.bmp", "animated.webp"} | {
    name for name in SAMPLES if name.endswith((".tif", ".ppm", ".pgm"))
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_pixels_of_every_kind_of_file(name):
    if name in NOT_READ:
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(SAMPLES[name])
    else:
        np.testing.assert_array_equal(decode(SAMPLES[name]), pixels.read_image(SAMPLES[name]))


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 30), (30, 1), (33, 7)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_small_and_odd_sizes(image_format, size_wh):
    for mode in ("RGB", "L") if image_format != "WEBP" else ("RGB",):
        image = image_samples.make_image(size_wh).convert(mode)
        data = image_samples.encode(image, image_format)
        np.testing.assert_array_equal(decode(data), pixels.read_image(data))


@pytest.mark.parametrize("orientation", image_samples.AS_SHOWN)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", "<>")
def test_orientations(image_format, orientation, order):
    image = image_samples.make_image()
    exif = image_samples.exif_bytes(orientation, order, before=(0x0100, 0x010F))
    data = image_samples.encode(image, image_format, exif=b"Exif\0\0" + exif)
    plain = pixels.read_image(image_samples.encode(image, image_format))
    expected = image_samples.AS_SHOWN[orientation](plain)
    np.testing.assert_array_equal(decode(data), expected)
    np.testing.assert_array_equal(pixels.read_image(data), expected)


PREFIX = b"Exif\0\0"
SIX = image_samples.exif_bytes(6)
# Segments (marker, content) of a JPEG -> whether the image is shown turned to the right.
SEGMENTS = {
    "behind others": (
        [(0xE0, b"JFIF\0" + bytes(9)), (0xFE, b"a comment"), (0xE1, PREFIX + SIX)],
        1,
    ),
    "behind XMP": ([(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), (0xE1, PREFIX + SIX)], 1),
    "prefix twice": ([(0xE1, PREFIX + PREFIX + SIX)], 1),
    "directory far away": ([(0xE1, PREFIX + image_samples.exif_bytes(6, offset=300))], 1),
    "a long number": ([(0xE1, PREFIX + image_samples.exif_bytes(6, kind=4))], 1),
    "a long number, Intel": ([(0xE1, PREFIX + image_samples.exif_bytes(6, "<", kind=4))], 1),
    "in another segment": ([(0xE2, PREFIX + SIX)], 0),
    "zero": ([(0xE1, PREFIX + image_samples.exif_bytes(0))], 0),
    "nine": ([(0xE1, PREFIX + image_samples.exif_bytes(9))], 0),
    "another type": ([(0xE1, PREFIX + image_samples.exif_bytes(6, kind=9))], 0),
    "empty": ([(0xE1, PREFIX)], 0),
    "garbage": ([(0xE1, PREFIX + b"garbagegarbage")], 0),
    "cut in the field": ([(0xE1, PREFIX + SIX[:19])], 0),
    "cut behind the mark": ([(0xE1, PREFIX + SIX[:5])], 0),
    "no byte order": ([(0xE1, PREFIX + b"XX" + SIX[2:])], 0),
    "directory outside": ([(0xE1, PREFIX + SIX[:4] + b"\xff" * 4 + SIX[8:])], 0),
    "more fields than there are": (
        [(0xE1, PREFIX + SIX[:8] + b"\xff\xff" + SIX[10:])],
        1,
    ),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_where_the_orientation_of_a_jpeg_may_be(case):
    segments, is_turned = SEGMENTS[case]
    data = image_samples.jpeg_with(segments)
    expected_hw = (37, 26) if is_turned else (26, 37)
    assert pixels.read_image(data).shape[:2] == expected_hw
    assert tuple(decode(data).shape[:2]) == expected_hw


def test_padding_before_a_marker():
    data = image_samples.jpeg_with([(0xE1, PREFIX + SIX)])
    data = data[:2] + b"\xff\xff" + data[2:]
    assert pixels.read_image(data).shape == tuple(decode(data).shape) == (37, 26, 3)


def test_the_same_orientation_for_corrupt_exif():
    chance = random.Random(0)
    turned = 0
    for _ in range(150):
        order = chance.choice("<>")
        exif = image_samples.exif_bytes(chance.randrange(1, 9), order, before=(0x0100,))
        if chance.random() < 0.7:
            exif = image_samples.corrupt(exif, chance)
        data = image_samples.jpeg_with([(0xE1, PREFIX + exif)])
        found = tuple(decode(data).shape)
        assert found == pixels.read_image(data).shape, exif
        turned += found == (37, 26, 3)
    assert 15 < turned < 100


@pytest.mark.parametrize("gray_range", [(0, 4095), (300, 1000), (0, 65535)])
def test_gray_range(gray_range):
    data = image_samples.encode(image_samples.gray_16(200, 5000), "PNG")
    found = decoding.decode_image(data, gray_range)
    np.testing.assert_array_equal(found, pixels.read_image(data, gray_range))
    assert found.numpy().max() == (19 if gray_range[1] == 65535 else 255)  # 5000 / 256 = 19.5
    eight_bits = SAMPLES["gray.png"]
    np.testing.assert_array_equal(
        decoding.decode_image(eight_bits, gray_range), pixels.read_image(eight_bits)
    )


def gif_of_size(width, height):
    data = bytearray(SAMPLES["palette.gif"])
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp_of_size(width, height):
    data = bytearray(SAMPLES["rgb.webp"])
    data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_of_size(width, height):
    data = bytearray(SAMPLES["rgb.jpg"])
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_of_size(width, height):
    data = bytearray(SAMPLES["rgb.bmp"])
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "num_pixels"),
    [
        (png_of_size(16_000, 16_000), 256_000_000),
        (png_of_size(9_460, 9_460), 89_491_600),
        (png_of_size(2**31 - 1, 2), 178_956_972),  # each side counts as 89,478,486 at most
        (jpeg_of_size(60_000, 60_000), 3_600_000_000),
        (gif_of_size(60_000, 60_000), 3_600_000_000),
        (webp_of_size(16_383, 16_383), 268_402_689),
        (bmp_of_size(60_000, -60_000), 3_600_000_000),
    ],
)
def test_too_many_pixels_are_not_decoded(data, num_pixels):
    assert len(data) < 1_000_000
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"too many pixels\D*{num_pixels}"):
        decoding.decode_image(data)
    with pytest.raises(pixels.BadImage):
        pixels.read_image(data)


def test_only_the_first_frame_of_a_gif_is_decoded():
    first = image_samples.make_image((300, 200))
    frames = [first, first.transpose(Image.Transpose.ROTATE_180), first]
    data = image_samples.encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    # What follows the first frame is not even looked at.
    cut = data[: len(data) // 2] + b"\x2c" * 30
    np.testing.assert_array_equal(decode(cut), pixels.read_image(data))


def test_a_gif_whose_first_frame_does_not_fill_it():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(gif_of_size(100, 100))


def test_a_record_is_decoded_as_stored():
    exif = image_samples.exif_bytes(6)
    data = image_samples.jpeg_with([(0xE1, PREFIX + exif)])
    assert records.decode_stored(data).shape == (26, 37, 3)


@pytest.mark.parametrize(
    "hw", [(3, 5), (300, 300), (299, 401), (600, 7), (601, 333), (1201, 77), (777, 1)]
)
@pytest.mark.parametrize("output_hw", [(300, 301), (8, 40)])
def test_resize_has_the_bits_of_the_float_image(hw, output_hw):
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3)).astype(np.uint8)
    expected = tf.image.resize(tf.cast(image, tf.float32), output_hw, "bilinear")
    for function in (images.resize, images.resize_array):
        found = function(image, output_hw)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    batch = tf.function(images.resize)(np.stack([image, image]), output_hw)
    np.testing.assert_array_equal(batch[1], expected)


def test_resize_by_hand():
    # Two pixels become four: at -.25, .25, .75 and 1.25 of the way from the first to the second.
    found = images.resize(np.array([[[0] * 3, [100] * 3]], np.uint8), (1, 4))
    assert found[0, :, 0].numpy().tolist() == [0, 25, 75, 100]
    # Six rows become two: at rows 1 and 4, as there is no antialiasing.
    column = np.repeat(np.array([[10], [20], [90], [30], [50], [70]], np.uint8), 3, 1)[:, None]
    assert images.resize_array(column, (2, 1))[:, 0, 0].tolist() == [20, 50]


def test_a_large_image_is_not_copied_whole():
    image = np.zeros((3000, 4000, 3), np.uint8)
    images.resize_array(image, (300, 300))
    tracemalloc.start()
    images.resize_array(image, (300, 300))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < image.size / 2
