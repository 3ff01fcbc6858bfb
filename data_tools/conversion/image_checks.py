"""Checks a picture's file, and repairs what training could not use: whatever leaves here is an RGB JPEG that decodes.

A sound RGB JPEG stays as it is, byte for byte.
"""

import dataclasses
import hashlib
import io
import os
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError, features

MAX_PIXELS = (
    89_478_485  # 256 MiB of RGB: Pillow's own threshold for suspecting a decompression bomb
)
MAX_BYTES = 1 << 28
QUALITY = 95
# No format that runs another program (EPS) or that Pillow reads in part only.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
    *(["AVIF"] if features.check("avif") else []),
)
_SUFFIX_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
}
_SUFFIX_FORMATS |= {".tiff": "TIFF", ".ppm": "PPM", ".jfif": "JPEG", ".avif": "AVIF"}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
_MODES = {
    "L": "grayscale",
    "1": "grayscale",
    "LA": "grayscale",
    "La": "grayscale",
    "CMYK": "cmyk",
    "P": "palette",
    "PA": "palette",
}
_MODES |= {"I;16": "16-bit", "I;16B": "16-bit", "I;16L": "16-bit", "I": "16-bit"}
_ORIENTATION_TAG, _WIDTH_TAG, _LENGTH_TAG = 0x0112, 0x0100, 0x0101
# EXIF orientation -> what turns the stored pixels into the picture as it is shown.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(Exception):
    """A picture that must be left out; reason: a few fixed words, detail: what was found."""

    def __init__(self, reason, detail=""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """data: the JPEG to store; height, width: its size; stored_hw: the file's, before `orientation` (EXIF, 1: none) turned it.

    repair: why `data` differs from the file, or its name misleads; else empty. digest: SHA-256 of the file.
    is_file: whether `data` is the file, byte for byte.
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
    """Reads, decodes in full (unless verify is off and the header speaks of a sound JPEG) and repairs. Raises BadImage."""
    data = _read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; what matters raises
        picture = _open(data)
        orientation = _orientation(picture)
        repair = _find_repair(picture, orientation, path, data)
        must_encode = repair not in ("", "wrongly named") or not _is_sound_jpeg(
            picture, orientation, data
        )
        digest = hashlib.sha256(data).hexdigest()
        size_hw, stored_hw = (picture.height, picture.width), _stored_hw(picture)
        if must_encode:
            is_tiff = picture.format == "TIFF"
            _decode(picture, data)
            picture = to_rgb(picture)
            if orientation in _TURNS and not is_tiff:  # Pillow turns TIFF itself
                picture = picture.transpose(_TURNS[orientation])
            data, size_hw = _encode(picture), (picture.height, picture.width)
        elif verify:
            _verify_jpeg(picture, data)
    return CheckedImage(data, *size_hw, stored_hw, orientation, repair, digest, not must_encode)


def _read(path):
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise BadImage("too large", f"{size} bytes; the limit is {MAX_BYTES}")
            data = file.read()
    except FileNotFoundError:
        raise BadImage("absent", f"no file at {path}" if path else "") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadImage("unreadable", getattr(error, "strerror", None) or str(error)) from None
    if not data:
        raise BadImage("empty")
    return data


def _open(data):
    try:
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp":
            raise BadImage(
                "unread format", "HEIC or AVIF that Pillow here cannot read; save it as JPEG or PNG"
            ) from None
        known = data.startswith(_MAGIC)
        raise BadImage(
            "truncated" if known else "not an image", f"{len(data)} bytes, beginning {data[:8]!r}"
        ) from None
    except Image.DecompressionBombError as error:
        raise BadImage("too large", str(error)) from None
    except Exception as error:
        raise BadImage("broken", str(error)) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise BadImage(
            "too large", f"{picture.width} x {picture.height} pixels; the limit is {MAX_PIXELS}"
        )
    return picture


def _decode(picture, data):
    try:
        if picture.format == "PNG":
            Image.open(io.BytesIO(data)).verify()  # its checksums, which decoding passes over
        picture.load()
    except Exception as error:  # each of Pillow's decoders raises kinds of its own
        reason = (
            "truncated"
            if "truncated" in str(error).lower() or isinstance(error, EOFError)
            else "broken"
        )
        raise BadImage(reason, str(error)) from None


def _verify_jpeg(picture, data):
    # Decoding to grey reads every bit that decoding to colour reads, with the same verdict, and leaves out what cannot fail.
    picture.draft("L", picture.size)
    try:
        picture.load()
    except Exception:
        _decode(_open(data), data)  # the full decoder has the last word


def _orientation(picture):
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken metadata on a picture that may be sound
        return 1
    return value if value in _TURNS else 1


def _stored_hw(picture):
    if picture.format == "TIFF":  # the picture's own size is already that as it is shown
        return picture.tag_v2[_LENGTH_TAG], picture.tag_v2[_WIDTH_TAG]
    return picture.height, picture.width


def _find_repair(picture, orientation, path, data):
    """The one reason under which a picture is counted: the first that fits."""
    kind = "JPEG" if picture.format == "MPO" else picture.format
    claimed = _SUFFIX_FORMATS.get(os.path.splitext(path)[1].lower(), kind)
    if claimed != kind:
        return "wrongly named"
    if orientation != 1:
        return "EXIF-rotated"
    if picture.mode in _MODES:
        return _MODES[picture.mode]
    if kind != "JPEG":
        return kind.lower()
    return "" if _has_usual_coding(data) else "unusual JPEG coding"


def _is_sound_jpeg(picture, orientation, data):
    return (
        picture.format in ("JPEG", "MPO")
        and picture.mode == "RGB"
        and orientation == 1
        and _has_usual_coding(data)
    )


def _has_usual_coding(data):
    """Whether a JPEG is baseline, extended or progressive with Huffman codes (SOF0 to SOF2), which every decoder knows."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker <= 0xC2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def to_rgb(picture):
    """A decoded picture of any mode -> RGB. Alpha is dropped; of 16 bits the upper eight stay, of 12 (all below 4096) too."""
    if picture.mode == "RGB":
        return picture
    if _MODES.get(picture.mode) == "16-bit":
        values = np.asarray(picture).clip(0, 65535)
        return Image.fromarray(
            (values >> (4 if values.max(initial=0) < 4096 else 8)).astype(np.uint8)
        ).convert("RGB")
    if picture.mode == "F":
        raise BadImage("not an image", "floating-point pixels, whose range is unknown")
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _encode(picture):
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "JPEG", quality=QUALITY)
    except Exception as error:
        raise BadImage("cannot be repaired", str(error)) from None
    return buffer.getvalue()
