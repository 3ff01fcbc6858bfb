"""One image has the same pixels through every entrance: converter, detector, SavedModel."""

import io

import fixed_detector
import image_samples
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_pixels import png_of_size

from data_tools.conversion import image_checks
from ssd_tf import pixels
from ssd_tf.exporting.saved_model import export_saved_model
from ssd_tf.inference.exported import read_gray_range, write_gray_range
from ssd_tf.inference.loading import load_detector
from ssd_tf.pixels import read_image

SAMPLES = image_samples.make_samples()
GRAY_RANGE = (1000, 9000)


def converted(path, gray_range=pixels.FULL_RANGE):
    """The pixels of the JPEG that the converter stores."""
    data = image_checks.check_image(path, gray_range=gray_range).data
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_stored(path, expected, gray_range=pixels.FULL_RANGE):
    """Equal but for the noise of a JPEG."""
    found = converted(path, gray_range)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    # Few colours make edges, which a JPEG blurs.
    has_edges = "one_bit" in path.name or "palette" in path.name or path.suffix == ".gif"
    assert difference.mean() < (20 if has_edges else 4)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_of_every_kind(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(SAMPLES[name])
    expected = read_image(SAMPLES[name])
    assert expected.shape == (26, 37, 3)
    assert expected.std() > 20
    for source in (path, str(path), expected):
        np.testing.assert_array_equal(read_image(source), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(image), expected)
    assert_stored(path, expected)


@pytest.mark.parametrize("orientation", image_samples.AS_SHOWN)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientations(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    image_samples.make_image((74, 52)).save(path, exif=exif)
    assert_stored(path, read_image(path))


@pytest.mark.parametrize("gray_range", [(1000, 9000), (0, 4095)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_gray_range(tmp_path, suffix, gray_range):
    path = tmp_path / f"a{suffix}"
    image_samples.gray_16(0, 10000).save(path)
    expected = read_image(path, gray_range)
    assert expected.min() == 0 and expected.max() == 255
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(image, gray_range), expected)
    assert_stored(path, expected, gray_range)


@pytest.fixture(scope="module")
def exported(tiny_config, tmp_path_factory):
    """The SavedModel of the fixed detector for data of GRAY_RANGE."""
    path = tmp_path_factory.mktemp("entrances") / "model"
    network = fixed_detector.make_network()
    export_saved_model(tiny_config, network, fixed_detector.NAMES, path, GRAY_RANGE)
    return path


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported))


def test_serving_bytes_finds_what_serving_default_finds_in_the_pixels(model):
    upright = fixed_detector.draw(80, 132, ("red", 0, 0), ("green", 1, 2), ("blue", 0, 1))
    files = []
    for orientation in image_samples.AS_SHOWN:
        for image_format in ("JPEG", "PNG"):
            exif = b"Exif\0\0" + image_samples.exif_bytes(orientation, "<")
            files.append(image_samples.encode(Image.fromarray(upright), image_format, exif=exif))
    files += [data for name, data in SAMPLES.items() if name.endswith((".jpg", ".png"))]
    for low, high in ((0, 10000), (2000, 3000)):
        files.append(image_samples.encode(image_samples.gray_16(low, high), "PNG"))
    found = model.signatures["serving_bytes"](image_bytes=tf.constant(files))
    assert found["status"].numpy().tolist() == [0] * len(files)
    for index, data in enumerate(files):
        image = read_image(data, GRAY_RANGE)
        one = model.signatures["serving_default"](input_tensor=tf.constant(image[None]))
        for name, value in one.items():
            np.testing.assert_allclose(found[name][index], value[0], atol=2e-3, err_msg=name)


def test_serving_bytes_gives_boxes_of_the_image_as_shown(model):
    # Stored lying on its side; shown, red is in the upper left corner.
    shown = fixed_detector.draw(96, 64, ("red", 0, 0))
    exif = b"Exif\0\0" + image_samples.exif_bytes(6)
    data = image_samples.encode(Image.fromarray(np.rot90(shown)), "PNG", exif=exif)
    found = model.signatures["serving_bytes"](image_bytes=tf.constant([data]))
    box = np.array(fixed_detector.box_of(0, 0)) * [96, 64, 96, 64]
    np.testing.assert_allclose(found["detection_boxes_pixels"][0, 0], box, atol=0.01)
    assert float(found["detection_classes"][0, 0]) == 1


def test_an_image_of_too_many_pixels_costs_only_itself(model):
    good = image_samples.encode(image_samples.make_image(), "PNG")
    files = [good, png_of_size(16_000, 16_000), good]
    found = model.signatures["serving_bytes"](image_bytes=tf.constant(files))
    assert found["status"].numpy().tolist() == [0, 1, 0]


def test_the_gray_range_of_the_data_reaches_the_detector_of_an_export(exported):
    data = image_samples.encode(image_samples.gray_16(0, 10000, (96, 64)), "PNG")
    detector = load_detector(exported)
    assert detector.gray_range == GRAY_RANGE
    np.testing.assert_array_equal(detector(data).image, read_image(data, GRAY_RANGE))


def test_stored_gray_ranges(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "a.tflite").write_bytes(b"TFL3" * 10)
    for path in (tmp_path, tmp_path / "a.tflite"):
        write_gray_range(path, pixels.FULL_RANGE)
        assert read_gray_range(path) == (0, 65535)
        write_gray_range(path, (5, 900))
        assert read_gray_range(path) == (5, 900)
    assert [file.name for file in (tmp_path / "assets.extra").iterdir()] == ["gray_range.json"]
    assert (tmp_path / "a.tflite").read_bytes().startswith(b"TFL3" * 10)
    for text in ("[5, 3]", "[5]", ""):
        (tmp_path / "assets.extra" / "gray_range.json").write_text(text)
        with pytest.raises(ValueError, match=r"gray_range\.json"):
            read_gray_range(tmp_path)
