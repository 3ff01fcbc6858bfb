import json

import numpy as np
import pytest
from fixed_detector import IMAGES, NAMES, draw, make_network
from PIL import Image

from ssd_tf.commands import detect


@pytest.fixture(autouse=True, scope="module")
def fixed_weights(tiny_config):
    """detect.py gets a detector with fixed weights, whatever --model says."""
    from ssd_tf.inference.detector import keras_detector

    detector = keras_detector(tiny_config, make_network(), NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ssd_tf.inference.detector.load_detector", lambda *_flags, **_options: detector
        )
        yield


@pytest.fixture
def look(tmp_path):
    """A function: run detect.py, which must succeed; returns the rows and the drawn images."""

    def call(*argv):
        output = tmp_path / "out"
        assert detect.main(["detect", "--model=any", f"--output={output}", *map(str, argv)]) == 0
        drawn = {path.name: np.asarray(Image.open(path)) for path in sorted(output.glob("*.png"))}
        return json.loads((output / "detections.json").read_text()), drawn

    return call


@pytest.fixture
def image_folder(tmp_path):
    """A folder of two images: green in `green.png`; blue and red in `0042.jpg`."""
    folder = tmp_path / "image_folder"
    folder.mkdir()
    Image.fromarray(IMAGES[1]).save(folder / "green.png")
    Image.fromarray(IMAGES[2]).save(folder / "0042.jpg", quality=95)
    return folder


def test_rows(look, image_folder):
    rows, _ = look(image_folder)
    assert sorted((row["file_name"], row["class"], row["category_id"]) for row in rows) == [
        (str(image_folder / "0042.jpg"), "blue", 3),
        (str(image_folder / "0042.jpg"), "red", 1),
        (str(image_folder / "green.png"), "green", 2),
    ]
    (green,) = [row for row in rows if row["class"] == "green"]
    # Of 128 x 96: 8 pixels below the cell in its upper right corner, 24 pixels wide.
    assert green["bbox"] == pytest.approx([68, 8, 24, 64], abs=1e-3)
    assert sorted(green) == ["bbox", "category_id", "class", "file_name", "image_id", "score"]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["2.png", "a.png"], [1, 2]),
        (["7.png", "0042.png"], [7, 42]),
        (["5.png", "05.png"], [1, 2]),
    ],
)
def test_image_ids_are_unique(look, tmp_path, names, ids):
    paths = [tmp_path / name for name in names]
    for path in paths:
        Image.fromarray(IMAGES[0]).save(path)
    rows, _ = look(*paths)
    assert [(row["image_id"], row["file_name"]) for row in rows] == list(
        zip(ids, map(str, paths), strict=True)
    )


def test_drawn_images(look, image_folder):
    _, drawn = look(image_folder)
    assert sorted(drawn) == ["0042.png", "green.png"]
    assert drawn["0042.png"].shape == (96, 90, 3)
    # The box is outlined in the colour of the second class, and not filled: rows 8 to 72, columns
    # 68 to 92. Its caption lies over its upper edge.
    outline = (drawn["green.png"] == (60, 180, 75)).all(-1)
    assert outline[30:72, 66:71].any()
    assert outline[30:72, 90:95].any()
    assert outline[70:75, 70:90].any()
    assert not outline[30:65, 75:86].any()
    np.testing.assert_array_equal(drawn["green.png"][30:65, 75:86], IMAGES[1][30:65, 75:86])


def test_classes_max_and_score(look, image_folder):
    rows, _ = look("--classes=green,blue", image_folder)
    assert [row["class"] for row in rows] == ["blue", "green"]
    rows, _ = look("--max=1", image_folder)
    assert len(rows) == 2
    rows, _ = look("--score=0.0001", image_folder)
    assert len(rows) > 3


def test_an_image_without_objects(look, tmp_path):
    Image.fromarray(IMAGES[3]).save(tmp_path / "empty.png")
    rows, drawn = look(tmp_path / "empty.png")
    assert rows == []
    np.testing.assert_array_equal(drawn["empty.png"], IMAGES[3])


def test_gray_and_rotated_images(look, tmp_path):
    Image.fromarray(IMAGES[0]).convert("L").save(tmp_path / "gray.png")
    # Stored rotated to the left; EXIF says how to show it: 128 x 96 with green.
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = Image.fromarray(np.rot90(IMAGES[1]).copy())
    rotated.save(tmp_path / "rotated.jpg", exif=exif, quality=95)
    rows, drawn = look(tmp_path / "gray.png", tmp_path / "rotated.jpg")
    assert drawn["gray.png"].shape == (64, 96, 3)
    assert drawn["rotated.png"].shape == (128, 96, 3)
    (green,) = rows
    assert green["file_name"].endswith("rotated.jpg")
    assert green["bbox"] == pytest.approx([68, 8, 24, 64], abs=1e-3)


def test_two_images_of_one_name(look, image_folder, tmp_path):
    (tmp_path / "more").mkdir()
    Image.fromarray(draw(40, 60)).save(tmp_path / "more" / "green.jpg")
    _, drawn = look(image_folder / "green.png", tmp_path / "more" / "green.jpg")
    assert sorted(drawn) == ["green.png", "green_2.png"]
    # A second call uses the same names again.
    _, drawn = look(image_folder / "green.png", tmp_path / "more" / "green.jpg")
    assert sorted(drawn) == ["green.png", "green_2.png"]


@pytest.mark.parametrize(
    ("names", "drawn_names"),
    [
        (["1/a_3.png", "1/a.png", "2/a.jpg"], ["a.png", "a_3.png", "a_3_3.png"]),
        (["1/a.png", "2/a.jpg", "1/a_2.png"], ["a.png", "a_2.png", "a_2_3.png"]),
    ],
)
def test_a_suffixed_name_may_be_taken(look, tmp_path, names, drawn_names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw(40, 60)).save(tmp_path / name)
    _, drawn = look(*(tmp_path / name for name in names))
    assert sorted(drawn) == drawn_names


def test_an_unreadable_file_is_skipped(look, image_folder):
    (image_folder / "broken.jpg").write_bytes((image_folder / "0042.jpg").read_bytes()[:300])
    (image_folder / "text.png").write_text("no image")
    (image_folder / "notes.txt").write_text("not looked at")
    rows, drawn = look(image_folder)
    assert sorted(drawn) == ["0042.png", "green.png"]
    assert len(rows) == 3


def test_bad_input(fails, image_folder, tmp_path):
    output = tmp_path / "out"

    def refuse(*argv, code):
        line = fails(detect.main, "--model=any", f"--output={output}", *argv, code=code)
        assert not (output / "detections.json").exists()
        return line

    assert "the model has no class 'grene'; did you mean 'green'?" in refuse(
        "--classes=red,grene", image_folder, code=2
    )
    assert "name at least one image" in refuse(code=2)
    assert "--score" in refuse("--score=1.5", image_folder, code=2)
    assert f"no image, folder or video at {tmp_path / 'gone'}" in refuse(tmp_path / "gone", code=1)
    (tmp_path / "none").mkdir()
    assert "no images (.bmp, " in refuse(tmp_path / "none", code=1)
    (tmp_path / "none" / "a.png").write_text("no image")
    assert "none of the 1 files could be read" in refuse(tmp_path / "none", code=1)


def test_input_images_are_not_overwritten(fails, image_folder):
    before = (image_folder / "green.png").read_bytes()
    line = fails(detect.main, "--model=any", f"--output={image_folder}", image_folder, code=2)
    assert "holds input images" in line
    assert (image_folder / "green.png").read_bytes() == before
