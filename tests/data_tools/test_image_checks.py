"""Image files: which are kept byte for byte, which are re-encoded and why, which are dropped."""

import hashlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_tools.conversion import image_checks
from ssd_tf import pixels
from ssd_tf.data.images import decode_image

GRAY = (128, 128, 128)
RED = (230, 20, 20)


def save(image, path, **options):
    image.save(path, **options)
    return path


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"quality": 30, "subsampling": 0}, {"exif": with_orientation(1)}],
)
def test_sound_jpeg_is_kept_byte_for_byte(paint, tmp_path, options):
    path = tmp_path / "a.jpg"
    paint(path, **options)
    checked = image_checks.check_image(path)
    assert (checked.data, checked.repair) == (path.read_bytes(), "")
    assert (checked.height, checked.width, checked.orientation) == (48, 64, 1)


def sixteen_bit(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


REPAIRED = {
    "grayscale": ("a.jpg", lambda image: image.convert("L"), {}),
    "grayscale ": ("a.png", lambda image: image.convert("L"), {}),
    "grayscale  ": ("a.png", lambda image: image.convert("1"), {}),
    "cmyk": ("a.jpg", lambda image: image.convert("CMYK"), {}),
    "16-bit": ("a.png", sixteen_bit, {}),
    "palette": ("a.png", lambda image: image.convert("P"), {}),
    "png": ("a.png", lambda image: image, {}),
    "png ": ("a.png", lambda image: image.convert("RGBA"), {}),
    "webp": ("a.webp", lambda image: image, {"lossless": True}),
    "bmp": ("a.bmp", lambda image: image, {}),
    "palette ": ("a.gif", lambda image: image, {}),
    "tiff": ("a.tif", lambda image: image, {}),
    "wrongly named": ("a.jpg", lambda image: image, {"format": "PNG"}),
    "wrongly named ": ("a.png", lambda image: image.convert("L"), {"format": "JPEG"}),
    "EXIF-rotated": ("a.jpg", lambda image: image, {"exif": with_orientation(3)}),
}


@pytest.mark.parametrize("reason", REPAIRED)
def test_repaired_to_rgb_jpeg(paint, tmp_path, reason):
    name, change, options = REPAIRED[reason]
    path = save(change(paint(None)), tmp_path / name, **options)
    checked = image_checks.check_image(path)
    assert checked.repair == reason.strip()
    image = Image.open(io.BytesIO(checked.data))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 48))
    # Rotated by half a turn, the red box 8..24, 16..40 lies at 40..56, 8..32.
    inside = (48, 20) if reason == "EXIF-rotated" else (16, 28)
    pixel = np.asarray(image)[inside[1], inside[0]].astype(int)
    is_gray = "gray" in reason or "16" in reason or reason == "wrongly named "
    expected = (83,) * 3 if is_gray else RED  # .299 230 + .587 20 + .114 20 = 82.8
    if reason != "grayscale  ":  # one bit cannot show it
        assert np.abs(pixel - expected).max() < 26
        corner = np.asarray(image)[2, 2].astype(int)
        assert np.abs(corner - GRAY).max() < (30 if reason == "palette" else 12)  # few colours


def test_misnamed_sound_jpeg_keeps_its_bytes(paint, tmp_path):
    path = tmp_path / "a.png"
    paint(path, format="JPEG")
    checked = image_checks.check_image(path)
    assert (checked.repair, checked.data) == ("wrongly named", path.read_bytes())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_image_as_shown(paint, tmp_path, orientation):
    path = tmp_path / "a.jpg"
    paint(path, exif=with_orientation(orientation), quality=95)
    checked = image_checks.check_image(path)
    assert checked.stored_hw == (48, 64)
    assert (checked.height, checked.width) == ((64, 48) if orientation >= 5 else (48, 64))
    pixels = np.asarray(Image.open(io.BytesIO(checked.data))).astype(int)
    red = np.argwhere((pixels[..., 0] > 180) & (pixels[..., 1] < 80))
    # The box 8..24, 16..40 of 64 x 48, flipped and rotated by hand: ymin, xmin, ymax, xmax.
    shown = {
        1: (16, 8, 40, 24),
        2: (16, 40, 40, 56),
        3: (8, 40, 32, 56),
        4: (8, 8, 32, 24),
        5: (8, 16, 24, 40),
        6: (8, 8, 24, 32),
        7: (40, 8, 56, 32),
        8: (40, 16, 56, 40),
    }[orientation]
    assert np.abs(np.array([*red.min(0), *red.max(0) + 1]) - shown).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(3, (8, 40)), (6, (8, 8)), (8, (40, 16))])
def test_orientation_of_other_formats(paint, tmp_path, suffix, orientation, corner):
    paint(tmp_path / f"a.{suffix}", exif=with_orientation(orientation))
    checked = image_checks.check_image(tmp_path / f"a.{suffix}")
    assert (checked.stored_hw, checked.orientation, checked.repair) == (
        (48, 64),
        orientation,
        "EXIF-rotated",
    )
    pixels = np.asarray(Image.open(io.BytesIO(checked.data))).astype(int)
    expected_hw = (48, 64) if orientation == 3 else (64, 48)
    assert pixels.shape[:2] == (checked.height, checked.width) == expected_hw
    red = np.argwhere((pixels[..., 0] > 180) & (pixels[..., 1] < 80))
    assert np.abs(red.min(0) - corner).max() <= 1


@pytest.mark.parametrize(
    ("marker", "usual"), [(0xC0, True), (0xC1, True), (0xC2, True), (0xC3, False), (0xC9, False)]
)
def test_unusual_coding_is_detected(marker, usual):
    # A comment, the Huffman tables (0xC4 is not a frame), padding, then the frame.
    data = (
        b"\xff\xd8"
        + b"\xff\xfe\0\x04hi"
        + b"\xff\xc4\0\x03x"
        + b"\xff\xff"
        + bytes([marker])
        + b"\0\x0bframe"
    )
    assert image_checks.has_usual_coding(data) == usual
    assert not image_checks.has_usual_coding(b"\xff\xd8\xff\xda\0\x02")


def truncated(path, paint):
    paint(path)
    path.write_bytes(path.read_bytes()[:-40])


def truncated_png(path, paint):
    paint(path, size_wh=(200, 100), format="PNG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def without_end(path, paint):
    paint(path)
    path.write_bytes(path.read_bytes()[:-2])


def bomb(path, _):
    # A PNG header that claims 60,000 x 60,000 pixels.
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    written = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def broken_png(path, paint):
    paint(path, format="PNG")
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 12
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)


def large(path, _):
    # 90 million pixels in a small file: fewer than Pillow itself refuses.
    Image.new("1", (10_000, 9_000)).save(path)


BAD = {
    "large PNG": ("too large", large),
    "absent": ("absent", lambda *_: None),
    "empty": ("empty", lambda path, _: path.touch()),
    "a folder": ("unreadable", lambda path, _: path.mkdir()),
    "text": ("not an image", lambda path, _: path.write_text("not an image")),
    "web page": (
        "not an image",
        lambda path, _: path.write_text("<!DOCTYPE html><title>404</title>"),
    ),
    "cut JPEG": ("truncated", truncated),
    "cut PNG": ("truncated", truncated_png),
    "JPEG without its end": ("truncated", without_end),
    "first bytes only": ("truncated", lambda path, _: path.write_bytes(b"\xff\xd8\xff\xe0")),
    "decompression bomb": ("too large", bomb),
    "broken PNG": ("broken", broken_png),
    "float TIFF": (
        "not an image",
        lambda path, _: Image.fromarray(np.zeros((4, 6), np.float32)).save(path, "TIFF"),
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_image_has_a_reason(paint, tmp_path, kind):
    reason, make = BAD[kind]
    path = tmp_path / ("a.png" if "PNG" in kind else "a.tif" if "TIFF" in kind else "a.jpg")
    make(path, paint)
    with pytest.raises(image_checks.BadImage) as caught:
        image_checks.check_image(path)
    assert caught.value.reason == reason


def test_file_above_the_size_limit(tmp_path, monkeypatch, paint):
    paint(tmp_path / "a.jpg")
    monkeypatch.setattr(pixels, "MAX_BYTES", 100)
    with pytest.raises(image_checks.BadImage, match=r"too large: \d+ bytes; the limit is 100"):
        image_checks.check_image(tmp_path / "a.jpg")


def test_without_verify_a_truncated_file_passes_but_not_a_text_file(paint, tmp_path):
    truncated(tmp_path / "a.jpg", paint)
    assert image_checks.check_image(tmp_path / "a.jpg", verify=False).repair == ""
    (tmp_path / "b.jpg").write_text("text")
    with pytest.raises(image_checks.BadImage):
        image_checks.check_image(tmp_path / "b.jpg", verify=False)


def test_every_repaired_or_sound_image_decodes_in_tensorflow(paint, tmp_path):
    for reason, (name, change, options) in REPAIRED.items():
        path = save(change(paint(None)), tmp_path / f"{len(reason)}{name}", **options)
        assert decode_image(image_checks.check_image(path).data).shape == (48, 64, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_verdict_on_a_damaged_jpeg_is_that_of_the_full_decoder(tmp_path, progressive):
    chance = random.Random(0)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((150, 90), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", progressive=progressive
    )
    verdicts = []
    for _ in range(300):
        data = bytearray(buffer.getvalue())
        start = chance.randrange(20, len(data))
        data[start : start + chance.randrange(1, 9)] = (
            chance.randbytes(8) if chance.random() < 0.7 else b""
        )
        data = data[: chance.choice([len(data), chance.randrange(20, len(data))])]
        (tmp_path / "a.jpg").write_bytes(data)
        verdicts.append((passes_the_full_decoder(data), passes_the_check(tmp_path / "a.jpg")))
    assert all(full == ours for full, ours in verdicts)
    assert 30 < sum(full for full, _ in verdicts) < 270  # both verdicts occur often


def passes_the_full_decoder(data):
    try:
        Image.open(io.BytesIO(data), formats=["JPEG"]).load()
    except Exception:
        return False
    return True


def passes_the_check(path):
    try:
        image_checks.check_image(path)
    except image_checks.BadImage:
        return False
    return True


def test_an_intact_file_is_not_decoded_again(tmp_path):
    """A file that was found intact before is trusted: here one that is not."""
    file = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(file, "JPEG")
    cut = file.getvalue()[:-200]
    (tmp_path / "a.jpg").write_bytes(cut)
    with pytest.raises(pixels.BadImage):
        image_checks.check_image(tmp_path / "a.jpg", intact_digest="0" * 64)
    digest = hashlib.sha256(cut).hexdigest()
    assert image_checks.check_image(tmp_path / "a.jpg", intact_digest=digest).data == cut
