"""What the bytes of an image file say before it is decoded, read by TensorFlow operations.

The rule for orientations is that of `ssd_tf.pixels`, whose Pillow a graph cannot call.
"""

import typing

import numpy as np
import tensorflow as tf

# The first four are decoded by ways of their own.
GRAY_16_PNG, PALETTE_BMP, WEBP, GIF, JPEG, PNG, BMP, UNKNOWN = range(8)
_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4  # types of a TIFF field
_NUM_ZEROS = 32  # behind the end, so that a cut file reads as zeros
_MOST_PARTS = 1000  # of a file are looked through for EXIF
_MOST_GIF_BLOCKS = 20_000  # of up to 255 bytes
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, b"\x3b"
_APP1, _START_OF_SCAN, _END_OF_IMAGE, _PADDING = 0xE1, 0xDA, 0xD9, 0xFF


class Header(typing.NamedTuple):
    """kind: one of the constants above. hw: int64 [2], as stored. orientation: int64, 1 to 8."""

    kind: tf.Tensor
    hw: tf.Tensor
    orientation: tf.Tensor


class _Bytes:
    """The bytes of a file, or a part of them, as numbers; behind the end they are zero."""

    def __init__(self, data):
        self.data = data
        self.size = tf.size(data, tf.int64)
        self._padded = tf.pad(data, [[0, _NUM_ZEROS]])

    def part(self, begin, num_bytes):
        """uint8 [num_bytes], a Python number of at most _NUM_ZEROS."""
        begin = tf.minimum(tf.cast(begin, tf.int64), self.size)
        return tf.slice(self._padded, begin[None], [num_bytes])

    def number(self, begin, num_bytes, is_big=True):
        return _to_numbers(self.part(begin, num_bytes), is_big)

    def begins(self, text, begin=0):
        """Whether the bytes from `begin` are those of the text."""
        return tf.reduce_all(self.part(begin, len(text)) == list(text))


def _to_numbers(digits, is_big):
    """uint8 [..., num_bytes] -> int64 [...]; is_big: the order of the bytes, Python's or a mask."""
    powers = 256 ** np.arange(digits.shape[-1])[::-1]
    if not isinstance(is_big, bool):
        powers = tf.where(is_big, powers, powers[::-1])
    elif not is_big:
        powers = powers[::-1]
    return tf.reduce_sum(tf.cast(digits, tf.int64) * powers, -1)


def read_header(encoded) -> Header:
    """Read the header of an encoded image, a string."""
    data = _Bytes(tf.io.decode_raw(encoded, tf.uint8))
    kind = tf.constant(UNKNOWN)
    for each, is_kind in _kinds(data):
        kind = tf.where(is_kind, each, kind)
    no_exif = tf.zeros([0], tf.uint8)

    def read_png():
        return tf.stack([data.number(20, 4), data.number(16, 4)]), _find_png_exif(data)

    branches = {
        UNKNOWN: lambda: (tf.zeros([2], tf.int64), no_exif),
        JPEG: lambda: (_read_jpeg_hw(encoded), _find_jpeg_exif(data)),
        PNG: read_png,
        GRAY_16_PNG: read_png,
        WEBP: lambda: (_read_webp_hw(data), _find_webp_exif(data)),
        GIF: lambda: (_little(data, (8, 2), (6, 2)), no_exif),
        BMP: lambda: (_read_bmp_hw(data), no_exif),
        PALETTE_BMP: lambda: (_read_bmp_hw(data), no_exif),
    }
    hw, exif = tf.switch_case(kind, branches)
    none = tf.ones([], tf.int64)
    orientation = tf.cond(tf.size(exif) > 0, lambda: _parse_orientation(exif), lambda: none)
    return Header(kind, hw, orientation)


def _kinds(data):
    """Yield (kind, whether the file is of it)."""
    yield JPEG, data.begins(b"\xff\xd8\xff")
    is_png = data.begins(b"\x89PNG\r\n\x1a\n")
    is_gray_16 = is_png & (data.number(24, 1) == 16) & (data.number(25, 1) == 0)
    yield PNG, is_png & ~is_gray_16
    yield GRAY_16_PNG, is_gray_16
    is_animated = data.begins(b"VP8X", 12) & (data.number(20, 1) // 2 % 2 == 1)
    yield WEBP, data.begins(b"RIFF") & data.begins(b"WEBP", 8) & ~is_animated
    yield GIF, data.begins(b"GIF87a") | data.begins(b"GIF89a")
    header_bytes, num_bits, compression = tf.unstack(_little(data, (14, 4), (28, 2), (30, 4)))
    # TensorFlow reads other BMP files as if they were of these kinds.
    is_bmp = data.begins(b"BM") & (header_bytes >= 40) & (compression == 0)
    yield BMP, is_bmp & ((num_bits == 24) | (num_bits == 32))
    yield PALETTE_BMP, is_bmp & (num_bits == 8)


def read_bmp_palette(encoded):
    """The palette of a BMP of 8 bits, uint8 [256, 3] RGB."""
    data = _Bytes(tf.io.decode_raw(encoded, tf.uint8))
    begin = 14 + data.number(14, 4, is_big=False)
    end = tf.minimum(data.number(10, 4, is_big=False), begin + 4 * 256)
    colors = data.data[begin : begin + (end - begin) // 4 * 4]
    blue_first = tf.reshape(colors, [-1, 4])[:, 2::-1]
    return tf.pad(blue_first, [[0, 256 - tf.shape(blue_first)[0]], [0, 0]])


def cut_gif(encoded):
    """The first frame of a GIF as a file without transparency; empty if there is none.

    Of a whole file TensorFlow decodes all frames before it drops them, and it draws transparent
    pixels black. A first frame that does not fill the image counts as none.
    """
    data = _Bytes(tf.io.decode_raw(encoded, tf.uint8))
    frames_begin = 13 + _gif_palette_bytes(data.number(10, 1))

    def is_searching(position, in_blocks, begin):
        return (position < data.size) & (in_blocks | (begin == 0))

    def step(position, in_blocks, begin):
        byte = data.number(position, 1)
        is_image = ~in_blocks & (byte == _GIF_IMAGE)
        is_extension = ~in_blocks & (byte == _GIF_EXTENSION)
        of_image = position + 11 + _gif_palette_bytes(data.number(position + 9, 1))
        following = tf.where(is_extension, position + 2, tf.where(is_image, of_image, data.size))
        following = tf.where(in_blocks, position + 1 + byte, following)
        in_blocks = is_image | is_extension | (in_blocks & (byte > 0))
        return following, in_blocks, tf.where(is_image, position, begin)

    start = (frames_begin, tf.constant(False), tf.zeros([], tf.int64))
    end, in_blocks, begin = tf.while_loop(
        is_searching, step, start, maximum_iterations=_MOST_GIF_BLOCKS
    )
    corners = tf.concat([tf.zeros([4], tf.uint8), data.part(6, 4)], 0)  # left, top, width, height
    fills_image = tf.reduce_all(data.part(begin + 1, 8) == corners)
    is_usable = (begin > 0) & ~in_blocks & fills_image & (end <= data.size)
    begin, end = (tf.where(is_usable, place, 0) for place in (begin, end))
    parts = [_substr(encoded, 0, frames_begin), _substr(encoded, begin, end - begin), _GIF_END]
    return tf.where(is_usable, tf.strings.join(parts), "")


def _gif_palette_bytes(flags):
    num_colors = tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.where(flags >= 128, 3 * num_colors, 0)


def _substr(text, begin, num_bytes):
    return tf.strings.substr(text, tf.cast(begin, tf.int64), tf.cast(num_bytes, tf.int64))


def _little(data, *places):
    """Numbers in little-endian order at (begin, number of bytes)."""
    return tf.stack([data.number(*place, is_big=False) for place in places])


def _read_jpeg_hw(encoded):
    return tf.cast(tf.image.extract_jpeg_shape(encoded)[:2], tf.int64)


def _read_webp_hw(data):
    lossless = data.number(21, 4, is_big=False)
    of_lossless = tf.stack([lossless // 2**14, lossless]) % 2**14 + 1
    of_lossy = _little(data, (28, 2), (26, 2)) % 2**14
    of_extended = _little(data, (27, 3), (24, 3)) + 1
    return tf.where(
        data.begins(b"VP8X", 12),
        of_extended,
        tf.where(data.begins(b"VP8L", 12), of_lossless, of_lossy),
    )


def _read_bmp_hw(data):
    height, width = tf.unstack(_little(data, (22, 4), (18, 4)))
    return tf.stack([tf.where(height < 2**31, height, 2**32 - height), width])  # < 0: top down


def _find_jpeg_exif(data):
    """The bytes behind the prefix of the first APP1 segment that has it; else none."""

    def is_searching(position, begin, _):
        marker = data.number(position + 1, 1)
        is_marker = (data.number(position, 1) == 0xFF) & (position + 4 <= data.size)
        is_at_end = (marker == _START_OF_SCAN) | (marker == _END_OF_IMAGE)
        return (begin == 0) & is_marker & ~is_at_end

    def step(position, begin, _):
        marker = data.number(position + 1, 1)
        following = position + 2 + data.number(position + 2, 2)
        is_exif = (marker == _APP1) & data.begins(_EXIF_PREFIX, position + 4)
        begin = tf.where(is_exif, position + 4 + len(_EXIF_PREFIX), begin)
        return tf.where(marker == _PADDING, position + 1, following), begin, following

    return _search(data, is_searching, step, 2)


def _find_png_exif(data):
    """The content of the first eXIf chunk before the pixels; else none."""

    def is_searching(position, begin, _):
        is_chunk = (position + 12 <= data.size) & ~data.begins(b"IDAT", position + 4)
        return (begin == 0) & is_chunk

    def step(position, begin, _):
        end = position + 8 + data.number(position, 4)
        begin = tf.where(data.begins(b"eXIf", position + 4), position + 8, begin)
        return end + 4, begin, end

    return _search(data, is_searching, step, 8)


def _find_webp_exif(data):
    """The content of the first chunk EXIF; else none."""

    def is_searching(position, begin, _):
        return (begin == 0) & (position + 8 <= data.size)

    def step(position, begin, _):
        num_bytes = data.number(position + 4, 4, is_big=False)
        begin = tf.where(data.begins(b"EXIF", position), position + 8, begin)
        end = position + 8 + num_bytes
        return end + num_bytes % 2, begin, end

    return _search(data, is_searching, step, 12)


def _search(data, is_searching, step, position):
    """Step from part to part of a file; the bytes of the part that step() has begun, or none."""
    zero = tf.zeros([], tf.int64)
    _, begin, end = tf.while_loop(
        is_searching,
        step,
        (zero + position, zero, zero),
        maximum_iterations=_MOST_PARTS,
    )
    return data.data[begin : tf.where(begin > 0, end, 0)]


def _parse_orientation(exif):
    """The EXIF orientation in the first directory of EXIF bytes; 1 if it cannot be read."""
    # Some writers put the prefix where it does not belong.
    is_prefixed = _Bytes(exif).begins(_EXIF_PREFIX)
    exif = _Bytes(exif[tf.where(is_prefixed, len(_EXIF_PREFIX), 0) :])
    is_big = exif.begins(b"MM\0*")
    directory = exif.number(4, 4, is_big)
    first = directory + 2
    entries = exif.data[first : first + 12 * exif.number(directory, 2, is_big)]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], [-1, 12])
    tag = _to_numbers(entries[:, :2], is_big)
    kind = _to_numbers(entries[:, 2:4], is_big)
    short = tf.where(kind == _SHORT, _to_numbers(entries[:, 8:10], is_big), 0)
    value = tf.where(kind == _LONG, _to_numbers(entries[:, 8:12], is_big), short)
    value = tf.reduce_sum(value[tag == _ORIENTATION_TAG][:1])
    is_known = (is_big | exif.begins(b"II*\0")) & (value >= 1) & (value <= 8)
    return tf.where(is_known, value, tf.ones_like(value))
