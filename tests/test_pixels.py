"""From image files to RGB pixels."""

import io
import pathlib
import struct
import zlib

import image_samples
import numpy as np
import pytest
from PIL import Image

from ssd_tf import pixels

ORIENTATIONS = list(image_samples.AS_SHOWN)


def one_row(values, dtype):
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (one_row([0, 255, 256, 4095, 4096, 32768, 65535], np.uint16), [0, 0, 1, 15, 16, 128, 255]),
        (one_row([-7, 255, 256, 65535, 70000], np.int32), [0, 0, 1, 255, 255]),
        (one_row([0, 17, 255], np.uint8), [0, 17, 255]),
        (one_row([False, True], bool), [0, 255]),
    ],
)
def test_gray(image, expected):
    found = pixels.read_image(image)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[value] * 3 for value in expected]]


def test_one_pixel_does_not_change_the_others():
    dark = one_row([100, 2000, 4000], np.uint16)
    with_spark = one_row([100, 2000, 60000], np.uint16)
    assert (pixels.read_image(dark)[0, :2] == pixels.read_image(with_spark)[0, :2]).all()


@pytest.mark.parametrize(
    ("gray_range", "values", "expected"),
    [
        ((0, 4095), [0, 15, 16, 4095, 5000], [0, 0, 1, 255, 255]),
        ((3000, 3255), [0, 3000, 3001, 3255, 9999], [0, 0, 1, 255, 255]),
        # 256 / 1501 of a gray level per value: 3750 -> 127.9.
        ((3000, 4500), [2999, 3000, 3750, 4500], [0, 0, 127, 255]),
        ((5, 6), [5, 6], [0, 128]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_gray_range(gray_range, values, expected, dtype):
    found = pixels.read_image(one_row(values, dtype), gray_range)
    assert found[0, :, 0].tolist() == expected


def test_gray_range_leaves_eight_bits_alone():
    image = one_row([0, 17, 255], np.uint8)
    assert pixels.read_image(image, (0, 100))[0, :, 1].tolist() == [0, 17, 255]


@pytest.mark.parametrize(
    "value", [(5, 5), (-1, 5), (0, 65536), [1], "1,2", (0.0, 5), None, (True, 9)]
)
def test_what_is_no_gray_range(value):
    with pytest.raises(ValueError, match="gray range"):
        pixels.check_gray_range(value)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "5,3", "-1,3", "1.5,3"])
def test_what_is_no_gray_range_of_a_flag(text):
    with pytest.raises(ValueError, match="gray range"):
        pixels.parse_gray_range(text)


def test_gray_range_of_a_flag():
    assert pixels.parse_gray_range("3000,4500") == (3000, 4500)


@pytest.mark.parametrize(
    ("mode", "stored", "expected"),
    [
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("LA", (50, 0), (50, 50, 50)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("RGBa", (10, 20, 30, 255), (10, 20, 30)),
        ("La", (50, 255), (50, 50, 50)),
        ("RGBX", (10, 20, 30, 7), (10, 20, 30)),
        ("HSV", (0, 0, 90), (90, 90, 90)),
        ("YCbCr", (70, 128, 128), (70, 70, 70)),
    ],
)
def test_modes(mode, stored, expected):
    image = Image.new(mode, (3, 2), stored)
    assert pixels.read_image(image).tolist() == [[list(expected)] * 3] * 2


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_a_transparent_colour_of_a_palette_keeps_its_colour(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 30, 1, 2, 3])
    image.putdata([0, 1])
    data = image_samples.encode(image, "PNG", transparency=transparency)
    assert pixels.read_image(data).tolist() == [[[200, 10, 30], [1, 2, 3]]]


@pytest.mark.parametrize("source", ["image", "bytes", "path"])
def test_floating_point_is_rejected_everywhere(source, tmp_path):
    image = Image.fromarray(np.zeros((4, 6), np.float32))
    image.save(tmp_path / "a.tif")
    sources = {
        "image": image,
        "bytes": (tmp_path / "a.tif").read_bytes(),
        "path": tmp_path / "a.tif",
    }
    with pytest.raises(pixels.BadImage, match="floating-point"):
        pixels.read_image(sources[source])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("image_format", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})],
)
def test_orientations(tmp_path, image_format, options, orientation):
    stored = image_samples.make_image()
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = pixels.read_image(image_samples.encode(stored, image_format, **options))
    expected = image_samples.AS_SHOWN[orientation](plain)
    data = image_samples.encode(stored, image_format, exif=exif, **options)
    (tmp_path / "a").write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    for source in (tmp_path / "a", str(tmp_path / "a"), data, opened, loaded):
        np.testing.assert_array_equal(pixels.read_image(source), expected)


def test_orientation_of_an_image_in_memory():
    image = image_samples.make_image()
    image.getexif()[0x0112] = 6
    assert pixels.read_image(image).shape == (37, 26, 3)


def test_a_copy_of_a_rotated_tiff_is_not_rotated_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image_samples.make_image().save(tmp_path / "a.tif", exif=exif)
    copy = Image.open(tmp_path / "a.tif").copy()
    assert pixels.read_image(copy).shape == (37, 26, 3)


BAD = {
    "empty": b"",
    "text": b"not an image",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
    "TGA": bytes([0, 0, 2, *bytes(9), 2, 0, 2, 0, 24, 0, *bytes(12)]),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "first bytes": b"\xff\xd8\xff\xe0",
    "cut JPEG": image_samples.encode(image_samples.make_image(), "JPEG")[:-40],
    "cut PNG": image_samples.encode(image_samples.make_image(), "PNG")[:-40],
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_a_bad_image(kind, tmp_path):
    with pytest.raises(pixels.BadImage):
        pixels.read_image(BAD[kind])
    path = tmp_path / "file.jpg"
    path.write_bytes(BAD[kind])
    with pytest.raises(pixels.BadImage, match=r"file\.jpg"):
        pixels.read_image(path)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        pixels.read_image(tmp_path / "gone.jpg")
    with pytest.raises(OSError):
        pixels.read_image(tmp_path)


def png_of_size(width, height):
    """A PNG whose header claims a size; one bit per pixel, all of them black."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">II5B", width, height, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


@pytest.mark.parametrize(("width", "height"), [(9_460, 9_460), (16_000, 16_000), (2, 50_000_000)])
def test_too_many_pixels(width, height):
    with pytest.raises(pixels.BadImage, match="too large"):
        pixels.read_image(png_of_size(width, height))


@pytest.mark.parametrize("error", [SyntaxError, KeyError, struct.error, MemoryError, TypeError])
def test_whatever_a_decoder_raises_is_a_bad_image(error, monkeypatch):
    def fail(*_arguments, **_options):
        raise error("inside Pillow")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    with pytest.raises(pixels.BadImage):
        pixels.read_image(image_samples.encode(image_samples.make_image(), "PNG"))


def test_suffixes():
    assert len(set(pixels.SUFFIXES)) == len(pixels.SUFFIXES)
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in pixels.SUFFIXES)
    read = {pathlib.Path(name).suffix for name in image_samples.make_samples()}
    assert read <= set(pixels.SUFFIXES)
    assert {".jpeg", ".jfif", ".tiff", ".avif", ".heic"} <= set(pixels.SUFFIXES)
