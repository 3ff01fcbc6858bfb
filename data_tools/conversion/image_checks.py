"""Checks image files and repairs what training cannot use: the result is an RGB JPEG that decodes.

An intact RGB JPEG is kept byte for byte.
"""

import dataclasses
import hashlib
import io
import os
from typing import NamedTuple

import numpy as np

from ssd_tf import pixels, user_files
from ssd_tf.pixels import BadImage

QUALITY = 95
_FEW_LEVELS = 32
_SUFFIX_FORMATS = {suffix: name for name, all_ in pixels.FORMATS.items() for suffix in all_}
# Pillow's mode -> the reason under which such an image is repaired.
_MODES = {
    "1": "grayscale",
    "L": "grayscale",
    "LA": "grayscale",
    "La": "grayscale",
    "CMYK": "cmyk",
    "P": "palette",
    "PA": "palette",
    **dict.fromkeys(pixels.GRAY_MODES, "16-bit"),
}
_WIDTH_TAG = 0x0100
_LENGTH_TAG = 0x0101


class GrayLevels(NamedTuple):
    """Of a gray image of 16 or 32 bits: its smallest and largest value, clipped to 0..65535.

    is_coarse: whether it is left with few gray levels and had more.
    """

    low: int
    high: int
    is_coarse: bool


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that can be stored.

    data: the JPEG to store; height, width: its size as shown; stored_hw: the file's size, before
    its EXIF `orientation` (1: none) is applied.
    repair: why `data` differs from the file, or that the file is misnamed; else empty.
    digest: SHA-256 of the file; is_file: whether `data` is the file, byte for byte.
    gray_levels: of an image of 16 bits, else None.
    """

    data: bytes
    height: int
    width: int
    stored_hw: tuple[int, int]
    orientation: int
    repair: str
    digest: str
    is_file: bool
    gray_levels: GrayLevels | None = None


def check_image(path, verify=True, gray_range=pixels.FULL_RANGE, intact_digest="") -> CheckedImage:
    """Read, decode in full and repair an image. Raises BadImage.

    verify: decode even files whose header says that they are an intact JPEG. gray_range: as
    `pixels.to_rgb` takes it. intact_digest: the SHA-256 of a file that need not be verified.
    """
    data = _read(path)
    opened = pixels.open_image(data)
    orientation = pixels.find_orientation(opened)
    actual_format = "JPEG" if opened.format == "MPO" else opened.format
    repair = _find_repair(opened, orientation, actual_format, data)
    must_encode = bool(repair)
    if _SUFFIX_FORMATS.get(os.path.splitext(path)[1].lower(), actual_format) != actual_format:
        repair = "wrongly named"
    image = opened
    digest = hashlib.sha256(data).hexdigest()
    stored_hw = _stored_hw(opened)
    if must_encode:
        pixels.check_sums(opened, data)
        image = pixels.decode_as_shown(opened, gray_range)
        data = _encode(image)
    elif verify and digest != intact_digest:
        _verify_jpeg(opened, data)
    return CheckedImage(
        data=data,
        height=image.height,
        width=image.width,
        stored_hw=stored_hw,
        orientation=orientation,
        repair=repair,
        digest=digest,
        is_file=not must_encode,
        gray_levels=_count_levels(opened, gray_range),
    )


def _read(path):
    try:
        return user_files.read_bytes(path, pixels.MAX_BYTES)
    except FileNotFoundError:
        raise BadImage("absent", f"no file at {path}" if path else "") from None
    except user_files.FileTooLargeError as error:
        raise BadImage(
            "too large", f"{error.size} bytes; the limit is {pixels.MAX_BYTES}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadImage("unreadable", getattr(error, "strerror", None) or str(error)) from None


def _verify_jpeg(image, data):
    # Decoding to grayscale reads every bit that decoding to colour reads, with the same verdict,
    # and skips what cannot fail.
    image.draft("L", image.size)
    try:
        pixels.decode(image)
    except BadImage:
        pixels.decode(pixels.open_image(data))  # the full decoder has the last word


def _count_levels(image, gray_range):
    """The GrayLevels of a decoded image, or None."""
    if image.mode not in pixels.GRAY_MODES:
        return None
    found = np.flatnonzero(np.bincount(pixels.gray_values(image).ravel()))
    if not found.size:
        return None
    num_left = len(np.unique(pixels.gray_table(gray_range)[found]))
    is_coarse = num_left < min(_FEW_LEVELS, len(found))
    return GrayLevels(int(found[0]), int(found[-1]), is_coarse)


def _stored_hw(image):
    if image.format == "TIFF":  # the image's own size is already that of the image as shown
        return image.tag_v2[_LENGTH_TAG], image.tag_v2[_WIDTH_TAG]
    return image.height, image.width


def _find_repair(image, orientation, actual_format, data):
    """The first reason why an image must be encoded again; empty if there is none."""
    if orientation != 1:
        return "EXIF-rotated"
    if image.mode in _MODES:
        return _MODES[image.mode]
    if actual_format != "JPEG":
        return actual_format.lower()
    return "" if has_usual_coding(data) else "unusual JPEG coding"


def has_usual_coding(data):
    """Return True if every decoder knows the coding of a JPEG.

    That is baseline, extended or progressive with Huffman codes (SOF0 to SOF2).
    """
    index = 2
    while index + 4 <= len(data) and data[index] == 0xFF:
        marker = data[index + 1]
        if marker == 0xFF:  # padding
            index += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker <= 0xC2
        else:
            index += 2 + int.from_bytes(data[index + 2 : index + 4], "big")
    return False


def _encode(image):
    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", quality=QUALITY)
    except Exception as error:
        raise BadImage("cannot be repaired", str(error)) from None
    return buffer.getvalue()
