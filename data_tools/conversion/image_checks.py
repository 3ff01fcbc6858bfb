"""Checks image files and repairs what training cannot use: the result is an RGB JPEG that decodes.

A sound RGB JPEG is kept byte for byte.
"""

import dataclasses
import hashlib
import io
import os
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from ssd_tf import user_files

# 256 MiB of RGB: Pillow's own threshold for suspecting a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 28
QUALITY = 95
# No format that runs another program (EPS) or that Pillow reads only in part.
_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
if features.check("avif"):
    _FORMATS.append("AVIF")
_SUFFIX_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".avif": "AVIF",
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
# Pillow's mode -> the reason under which such an image is repaired.
_MODES = {
    "1": "grayscale",
    "L": "grayscale",
    "LA": "grayscale",
    "La": "grayscale",
    "CMYK": "cmyk",
    "P": "palette",
    "PA": "palette",
    "I": "16-bit",
    "I;16": "16-bit",
    "I;16B": "16-bit",
    "I;16L": "16-bit",
}
_ORIENTATION_TAG = 0x0112
_WIDTH_TAG = 0x0100
_LENGTH_TAG = 0x0101
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


class BadImage(Exception):
    """An image that must be left out. reason: a few fixed words; detail: what was found."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """An image that can be stored.

    data: the JPEG to store; height, width: its size as shown; stored_hw: the file's size, before
    its EXIF `orientation` (1: none) is applied.
    repair: why `data` differs from the file, or that the file is misnamed; else empty.
    digest: SHA-256 of the file; is_file: whether `data` is the file, byte for byte.
    """

    data: bytes
    height: int
    width: int
    stored_hw: tuple[int, int]
    orientation: int
    repair: str
    digest: str
    is_file: bool


def check_image(path, verify=True) -> CheckedImage:
    """Read, decode in full and repair an image. Raises BadImage.

    verify: decode even files whose header says that they are a sound JPEG.
    """
    data = _read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; what matters raises
        image = _open(data)
        orientation = _orientation(image)
        repair = _find_repair(image, orientation, path, data)
        must_encode = repair not in ("", "wrongly named") or not _is_sound_jpeg(
            image, orientation, data
        )
        digest = hashlib.sha256(data).hexdigest()
        stored_hw = _stored_hw(image)
        if must_encode:
            image = _decode_as_shown(image, orientation, data)
            data = _encode(image)
        elif verify:
            _verify_jpeg(image, data)
    return CheckedImage(
        data=data,
        height=image.height,
        width=image.width,
        stored_hw=stored_hw,
        orientation=orientation,
        repair=repair,
        digest=digest,
        is_file=not must_encode,
    )


def _read(path):
    try:
        data = user_files.read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise BadImage("absent", f"no file at {path}" if path else "") from None
    except user_files.FileTooLargeError as error:
        raise BadImage("too large", f"{error.size} bytes; the limit is {MAX_BYTES}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadImage("unreadable", getattr(error, "strerror", None) or str(error)) from None
    if not data:
        raise BadImage("empty")
    return data


def _open(data):
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise _explain_unidentified(data) from None
    except Image.DecompressionBombError as error:
        raise BadImage("too large", str(error)) from None
    except Exception as error:
        raise BadImage("broken", str(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            "too large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}"
        )
    return image


def _explain_unidentified(data):
    if data[4:8] == b"ftyp":
        return BadImage(
            "unread format", "HEIC or AVIF that Pillow here cannot read; save it as JPEG or PNG"
        )
    reason = "truncated" if data.startswith(_MAGIC) else "not an image"
    return BadImage(reason, f"{len(data)} bytes, beginning {data[:8]!r}")


def _decode_as_shown(image, orientation, data):
    """RGB, rotated as EXIF says."""
    is_tiff = image.format == "TIFF"
    _decode(image, data)
    image = to_rgb(image)
    if orientation in _TRANSPOSES and not is_tiff:  # Pillow rotates TIFF itself
        image = image.transpose(_TRANSPOSES[orientation])
    return image


def _decode(image, data):
    try:
        if image.format == "PNG":
            Image.open(io.BytesIO(data)).verify()  # its checksums, which decoding skips
        image.load()
    except Exception as error:  # each of Pillow's decoders raises types of its own
        is_truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise BadImage("truncated" if is_truncated else "broken", str(error)) from None


def _verify_jpeg(image, data):
    # Decoding to grayscale reads every bit that decoding to colour reads, with the same verdict,
    # and skips what cannot fail.
    image.draft("L", image.size)
    try:
        image.load()
    except Exception:
        _decode(_open(data), data)  # the full decoder has the last word


def _orientation(image):
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata of an image that may be sound
        return 1
    return value if value in _TRANSPOSES else 1


def _stored_hw(image):
    if image.format == "TIFF":  # the image's own size is already that of the image as shown
        return image.tag_v2[_LENGTH_TAG], image.tag_v2[_WIDTH_TAG]
    return image.height, image.width


def _find_repair(image, orientation, path, data):
    """The one reason under which an image is counted: the first that fits."""
    actual = "JPEG" if image.format == "MPO" else image.format
    claimed = _SUFFIX_FORMATS.get(os.path.splitext(path)[1].lower(), actual)
    if claimed != actual:
        return "wrongly named"
    if orientation != 1:
        return "EXIF-rotated"
    if image.mode in _MODES:
        return _MODES[image.mode]
    if actual != "JPEG":
        return actual.lower()
    return "" if has_usual_coding(data) else "unusual JPEG coding"


def _is_sound_jpeg(image, orientation, data):
    return (
        image.format in ("JPEG", "MPO")
        and image.mode == "RGB"
        and orientation == 1
        and has_usual_coding(data)
    )


def has_usual_coding(data):
    """Whether every decoder knows the coding of a JPEG.

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


def to_rgb(image):
    """Convert a decoded Pillow image of any mode to RGB.

    Alpha is dropped. Of 16 bits the upper eight are kept, and so they are of 12 bits (all values
    below 4096).
    """
    if image.mode == "RGB":
        return image
    if _MODES.get(image.mode) == "16-bit":
        values = np.asarray(image).clip(0, 65535)
        shift = 4 if values.max(initial=0) < 4096 else 8
        return Image.fromarray((values >> shift).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadImage("not an image", "floating-point pixels, whose range is unknown")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _encode(image):
    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", quality=QUALITY)
    except Exception as error:
        raise BadImage("cannot be repaired", str(error)) from None
    return buffer.getvalue()
