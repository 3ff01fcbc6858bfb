import numpy as np
import pytest
from PIL import Image

from ssd_tf.pixels import read_image


def test_gray_becomes_rgb(tmp_path):
    Image.fromarray(np.full((4, 6), 77, np.uint8)).save(tmp_path / "gray.png")
    image = read_image(tmp_path / "gray.png")
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert (image == 77).all()


def test_upright_by_exif(tmp_path):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: turn it to the right to show it
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), upright)


def test_what_is_not_an_image(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"not an image: .*text.png"):
        read_image(tmp_path / "text.png")
