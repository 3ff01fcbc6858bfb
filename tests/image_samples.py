"""Small image files of every format and kind, for the tests of what reads them."""

import io
import random
import struct

import numpy as np
from PIL import Image

SIZE_WH = (37, 26)
# What an orientation makes of stored pixels, in NumPy: the image as shown.
AS_SHOWN = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),  # to the right
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


def make_image(size_wh=SIZE_WH):
    """A smooth colour image without symmetry."""
    colors = np.random.default_rng(3).integers(0, 256, (2, 3, 3)).astype(np.uint8)
    return Image.fromarray(colors).resize(size_wh, Image.Resampling.BILINEAR)


def gray_16(low=0, high=65535, size_wh=SIZE_WH):
    """A gray image of 16 bits, a ramp from left to right."""
    ramp = np.linspace(low, high, size_wh[0]).round()
    return Image.fromarray(np.tile(ramp, (size_wh[1], 1)).astype(np.uint16))


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif_bytes(orientation, order=">", kind=3, offset=8, before=(), count=1):
    """EXIF with an orientation. before: tags of fields that precede it."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, 7) for tag in before)
    numbers = ("HH", [orientation, 0]) if kind == 3 else ("I", [orientation])
    value = struct.pack(order + numbers[0], *numbers[1])
    fields += struct.pack(f"{order}HHI", 0x0112, kind, count) + value
    number = struct.pack(f"{order}H", len(before) + 1)
    start = mark + struct.pack(f"{order}I", offset)
    return start.ljust(offset, b"\0") + number + fields + bytes(4)


def jpeg_with(segments, image=None):
    """A JPEG with segments (marker, content) behind its start."""
    data = encode(image or make_image(), "JPEG")
    added = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in segments
    )
    return data[:2] + added + data[2:]


def make_samples():
    """{name: bytes of a file} of every format and kind of pixels that is read."""
    image = make_image()
    turned = image.transpose(Image.Transpose.ROTATE_180)
    gray = image.convert("L")
    palette = image.convert("P")
    several = {"save_all": True, "append_images": [turned]}
    return {
        "rgb.jpg": encode(image, "JPEG", quality=95),
        "progressive.jpg": encode(image, "JPEG", progressive=True, subsampling=0),
        "gray.jpg": encode(gray, "JPEG"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "mpo.jpg": encode(image, "MPO", **several),
        "rgb.png": encode(image, "PNG"),
        "gray.png": encode(gray, "PNG"),
        "one_bit.png": encode(image.convert("1"), "PNG"),
        "la.png": encode(image.convert("LA"), "PNG"),
        "rgba.png": encode(with_alpha(image), "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_transparent.png": encode(palette, "PNG", transparency=3),
        "gray_transparent.png": encode(gray, "PNG", transparency=90),
        "rgb_transparent.png": encode(image, "PNG", transparency=(1, 2, 3)),
        "gray_16.png": encode(gray_16(), "PNG"),
        "animated.png": encode(image, "PNG", **several),
        "rgb.webp": encode(image, "WEBP"),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "rgba.webp": encode(with_alpha(image), "WEBP"),
        "rgb.bmp": encode(image, "BMP"),
        "gray.bmp": encode(gray, "BMP"),
        "palette.bmp": encode(palette, "BMP"),
        "palette.gif": encode(image, "GIF"),
        "transparent.gif": encode(palette, "GIF", transparency=int(np.asarray(palette)[0, 0])),
        "animated.gif": encode(image, "GIF", **several),
        "one_bit.bmp": encode(image.convert("1"), "BMP"),
        "animated.webp": encode(image, "WEBP", **several),
        "rgb.tif": encode(image, "TIFF"),
        "deflated.tif": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "cmyk.tif": encode(image.convert("CMYK"), "TIFF"),
        "lab.tif": encode(image.convert("LAB"), "TIFF"),
        "ycbcr.tif": encode(image.convert("YCbCr"), "TIFF", compression="jpeg"),
        "gray_16.tif": encode(gray_16(), "TIFF"),
        "gray_32.tif": encode(Image.fromarray(np.asarray(gray_16()).astype(np.int32)), "TIFF"),
        "rgb.ppm": encode(image, "PPM"),
        "gray_16.pgm": encode(gray_16(), "PPM"),
    }


def with_alpha(image):
    """The image with an alpha that goes from 0 to 255."""
    alpha = np.linspace(0, 255, image.width * image.height).reshape(image.height, image.width)
    return Image.merge("RGBA", (*image.split(), Image.fromarray(alpha.astype(np.uint8))))


def corrupt(data, chance: random.Random):
    """The bytes of a file with a few of them changed, a field overwritten, or a part missing."""
    data = bytearray(data)
    way = chance.randrange(5)
    if way == 0:
        return bytes(data[: chance.randrange(len(data))])
    for _ in range(chance.choice([1, 1, 3, 20])):
        if not data:
            break
        # Most of what can go wrong is in the first bytes.
        place = chance.randrange(chance.choice([min(64, len(data)), len(data)]))
        if way == 1:
            data[place] ^= 1 << chance.randrange(8)
        elif way == 2:
            data[place] = chance.choice([0, 255, chance.randrange(256)])
        elif way == 3:
            data[place : place + 4] = chance.choice([bytes(4), b"\xff" * 4, chance.randbytes(4)])
        else:
            del data[place : place + chance.randrange(1, 9)]
    return bytes(data)
