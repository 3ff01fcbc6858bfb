"""The one way from an image file, as people have them, to RGB pixels. Pillow and NumPy only.

Conversion, detection and evaluation see the same pixels; `data.decoding` agrees on JPEG
and PNG, inside a graph.
"""

import functools
import io
import os
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ssd_tf import user_files

# 256 MiB of RGB: Pillow's own threshold for suspecting a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 28
# Pillow's format -> lower-case suffixes. No format that runs another program (EPS) or that Pillow
# reads only in part.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
# Images that are known as such and not read: the error says how to convert them.
_UNREAD_SUFFIXES = (".heic", ".heif", ".jp2", ".j2k", ".jxl", ".tga")
_UNREAD_FORMATS = {  # by their bytes 4 to 8
    b"ftyp": "HEIC or AVIF that Pillow here cannot read",
    b"jP  ": "JPEG 2000",
    b"JXL ": "JPEG XL",
}
SUFFIXES = (*(suffix for each in FORMATS.values() for suffix in each), *_UNREAD_SUFFIXES)
_READ_FORMATS = [name for name in FORMATS if name != "AVIF" or features.check("avif")]
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
# Of values of 16 bits: the whole range, of which the upper eight bits are kept.
FULL_RANGE = (0, 65535)
GRAY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION_TAG = 0x0112
_EXIF_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "little", b"MM\0*": "big"}
_NUM_BYTES = {3: 2, 4: 4}  # of a number: TIFF's types SHORT and LONG
# EXIF orientation -> what turns the stored pixels into the image as shown.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """An image that cannot be used. reason: a few fixed words; detail: what was found."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self):
        return BadImage, (self.reason, self.detail)


def read_image(source, gray_range=FULL_RANGE) -> np.ndarray:
    """Read a path, the bytes of a file, a Pillow image or array as uint8 [H, W, 3] RGB, as shown.

    gray_range: the values of 16-bit images that become black and white, as `to_rgb` takes them.
    Raises OSError for a file that cannot be read, BadImage for its content, ValueError for an array
    of another type or shape.
    """
    if isinstance(source, (str, os.PathLike)):
        data = user_files.read_bytes(source, MAX_BYTES)
        try:
            return read_image(data, gray_range)
        except BadImage as error:
            detail = ": ".join(filter(None, [str(source), error.detail]))
            raise BadImage(error.reason, detail) from None
    if isinstance(source, bytes):
        image = open_image(source)
        check_sums(image, source)
        return read_image(image, gray_range)
    if isinstance(source, Image.Image):
        return np.asarray(decode_as_shown(source, gray_range))
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(
            f"expected an image as uint8 [height, width, 3], got {array.dtype} {list(array.shape)}"
        )
    return array


def open_image(data) -> Image.Image:
    """The image in the bytes of a file, not yet decoded. Raises BadImage."""
    if not data:
        raise BadImage("empty")
    try:
        with _without_warnings():
            image = Image.open(io.BytesIO(data), formats=_READ_FORMATS)
    except UnidentifiedImageError:
        raise _explain_unidentified(data) from None
    except Image.DecompressionBombError as error:
        raise BadImage("too large", str(error)) from None
    except Exception as error:  # each of Pillow's decoders raises types of its own
        raise BadImage("broken", str(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            "too large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}"
        )
    return image


def _explain_unidentified(data):
    unread = _UNREAD_FORMATS.get(data[4:8])
    if unread:
        return BadImage("unread format", f"{unread}; save it as JPEG or PNG")
    found = f"{len(data)} bytes, beginning {data[:8]!r}"
    if data.startswith(_MAGIC):
        return BadImage("truncated", found)
    return BadImage("not an image", f"expected {', '.join(_READ_FORMATS)}, got {found}")


def _without_warnings():
    """A context without Pillow's remarks on odd metadata; what matters raises."""
    return warnings.catch_warnings(action="ignore")


def check_sums(image, data):
    """Raise BadImage if the checksums of a PNG, which decoding skips, are wrong."""
    if image.format == "PNG":
        _run(Image.open(io.BytesIO(data)).verify)


def decode(image):
    """Decode an image of open_image. Raises BadImage."""
    _run(image.load)


def _run(step):
    try:
        with _without_warnings():
            return step()
    except BadImage:
        raise
    except Exception as error:  # each of Pillow's decoders raises types of its own
        is_truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise BadImage("truncated" if is_truncated else "broken", str(error)) from None


def decode_as_shown(image, gray_range=FULL_RANGE) -> Image.Image:
    """Decode a Pillow image to RGB, rotated and mirrored as EXIF says. Raises BadImage."""
    orientation = find_orientation(image)
    is_tiff = image.format == "TIFF"
    decode(image)
    image = _run(functools.partial(to_rgb, image, gray_range))
    if orientation in _TRANSPOSES and not is_tiff:  # Pillow rotates TIFF itself
        return image.transpose(_TRANSPOSES[orientation])
    return image


def find_orientation(image) -> int:
    """The EXIF orientation of a Pillow image, 1 to 8; 1 if it has none that can be read."""
    exif = image.info.get("exif")
    if image.format == "TIFF":
        value = image.tag_v2.get(_ORIENTATION_TAG, 1)
    elif isinstance(exif, bytes):
        value = _parse_orientation(exif)
    else:  # an image made in memory
        value = 1 if image.format else image.getexif().get(_ORIENTATION_TAG, 1)
    return value if value in _TRANSPOSES else 1


def _parse_orientation(exif):
    """The value of the tag in the first directory; `data.image_headers` has the same rule."""
    # Some writers repeat the prefix.
    exif = exif.removeprefix(_EXIF_PREFIX).removeprefix(_EXIF_PREFIX)
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return 1

    def number(begin, num_bytes):
        return int.from_bytes(exif[begin : begin + num_bytes], order)

    directory = number(4, 4)
    for index in range(number(directory, 2)):
        entry = directory + 2 + 12 * index
        if entry + 12 > len(exif):
            return 1
        if number(entry, 2) == _ORIENTATION_TAG:
            return number(entry + 8, _NUM_BYTES.get(number(entry + 2, 2), 0))
    return 1


def to_rgb(image, gray_range=FULL_RANGE) -> Image.Image:
    """Convert a decoded Pillow image of any mode to RGB. Alpha is dropped.

    Gray values of 16 and 32 bits between the two of gray_range become 0 to 255, those outside black
    or white; of the full range the upper eight bits are kept. Raises BadImage for floating-point
    pixels.
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise BadImage("not an image", "floating-point pixels, whose range is unknown")
    if image.mode in GRAY_MODES:
        return Image.fromarray(gray_table(gray_range)[gray_values(image)]).convert("RGB")
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    return image.convert("RGB")


def check_gray_range(value) -> tuple[int, int]:
    """The gray range (low, high) in a value from outside. Raises ValueError."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    if not is_pair or not all(type(limit) is int for limit in value):
        raise ValueError(f"expected a gray range of two whole numbers LOW,HIGH, got {value!r}")
    low, high = value
    if not FULL_RANGE[0] <= low < high <= FULL_RANGE[1]:
        raise ValueError(f"expected a gray range with 0 <= LOW < HIGH <= 65535, got {low},{high}")
    return low, high


def parse_gray_range(text) -> tuple[int, int]:
    """The gray range in a flag's `LOW,HIGH`. Raises ValueError."""
    numbers = text.split(",")
    is_whole = all(number.strip().isdecimal() for number in numbers)
    return check_gray_range([int(number) for number in numbers] if is_whole else text)


def gray_values(image) -> np.ndarray:
    """The values of a gray image of 16 or 32 bits, clipped to 0..65535, uint16 [H, W]."""
    return np.asarray(image).clip(*FULL_RANGE).astype(np.uint16)


def gray_table(gray_range) -> np.ndarray:
    """uint8 [65536]: what each gray value of 16 bits becomes."""
    low, high = gray_range
    values = np.arange(65536).clip(low, high)
    return ((values - low) * 256 // (high - low + 1)).astype(np.uint8)
