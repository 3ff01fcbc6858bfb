import json

import numpy as np
import pytest
from PIL import Image

from ssd_tf.commands import detect


@pytest.fixture(autouse=True)
def quick(monkeypatch, tiny_detector):
    """The model is loaded once for all of these tests."""
    monkeypatch.setattr(
        "ssd_tf.inference.detector.load_detector", lambda _model, _labels: tiny_detector
    )


@pytest.fixture
def look(tmp_path):
    """A function: detect.py with these arguments, which must succeed; gives the rows and the drawn pictures by name."""

    def call(*argv):
        output = tmp_path / "out"
        assert detect.main(["detect", "--model=any", f"--output={output}", *map(str, argv)]) == 0
        drawn = {path.name: np.asarray(Image.open(path)) for path in sorted(output.glob("*.png"))}
        return json.loads((output / "detections.json").read_text()), drawn

    return call


@pytest.fixture
def photos(tmp_path, pictures):
    """A folder of two pictures: blue in one; green and red in the other."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(pictures[2]).save(folder / "blue.png")
    Image.fromarray(pictures[3]).save(folder / "0042.jpg", quality=95)
    return folder


def test_rows_and_drawn_pictures(look, photos, pictures):
    rows, drawn = look(photos)
    assert sorted(
        (row["file_name"], row["class"], row["category_id"], row["image_id"]) for row in rows
    ) == [
        (str(photos / "0042.jpg"), "green", 2, 42),
        (str(photos / "0042.jpg"), "red", 1, 42),
        (str(photos / "blue.png"), "blue", 3, 2),
    ]
    # Of 80 x 120: green on columns 8 to 36 and rows 4 to 60.
    (green,) = [row for row in rows if row["class"] == "green"]
    assert green["bbox"] == pytest.approx([8, 4, 28, 56], abs=5)
    assert sorted(drawn) == ["0042.png", "blue.png"]
    assert drawn["0042.png"].shape == (80, 120, 3)
    # A line in the third class's colour (67, 99, 216) goes round the object on rows 16 to 56, columns 40 to 88, not through it.
    blue_line = (drawn["blue.png"] == (67, 99, 216)).all(-1)
    assert blue_line[25:50, 35:46].any()
    assert blue_line[25:50, 82:93].any()
    assert not blue_line[30:45, 50:78].any()
    np.testing.assert_array_equal(drawn["blue.png"][30:45, 50:78], pictures[2][30:45, 50:78])


def test_only_some_classes_and_only_the_best(look, photos):
    rows, _ = look("--classes=green,blue", photos)
    assert [row["class"] for row in rows] == ["green", "blue"]
    rows, _ = look("--max=1", photos)
    assert len(rows) == 2
    rows, _ = look("--score=0.0001", photos)
    assert len(rows) > 3


def test_a_picture_without_objects(look, tmp_path, pictures):
    Image.fromarray(pictures[4]).save(tmp_path / "empty.png")
    rows, drawn = look(tmp_path / "empty.png")
    assert rows == []
    np.testing.assert_array_equal(drawn["empty.png"], pictures[4])


def test_gray_and_turned_pictures(look, tmp_path, pictures):
    Image.fromarray(pictures[0]).convert("L").save(tmp_path / "gray.png")
    # Stored lying on its side, with the note to turn it back: seen, it is the picture of 96 x 64 with green.
    turned = Image.fromarray(np.rot90(pictures[1]).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    rows, drawn = look(tmp_path / "gray.png", tmp_path / "turned.jpg")
    assert drawn["gray.png"].shape == (64, 96, 3)
    assert drawn["turned.png"].shape == (96, 64, 3)
    (green,) = [row for row in rows if row["file_name"].endswith("turned.jpg")]
    assert green["bbox"] == pytest.approx([10, 30, 32, 48], abs=5)


def test_two_pictures_of_one_name(look, photos, tmp_path, pictures):
    (tmp_path / "more").mkdir()
    Image.fromarray(pictures[4]).save(tmp_path / "more" / "blue.jpg")
    _, drawn = look(photos / "blue.png", tmp_path / "more" / "blue.jpg")
    assert sorted(drawn) == ["blue.png", "blue_2.png"]
    # A second call takes the same names again.
    _, drawn = look(photos / "blue.png", tmp_path / "more" / "blue.jpg")
    assert sorted(drawn) == ["blue.png", "blue_2.png"]


def test_an_unreadable_file_is_left_out(look, photos):
    (photos / "broken.jpg").write_bytes((photos / "0042.jpg").read_bytes()[:300])
    (photos / "text.png").write_text("no picture")
    (photos / "notes.txt").write_text("not looked at")
    rows, drawn = look(photos)
    assert sorted(drawn) == ["0042.png", "blue.png"]
    assert len(rows) == 3


def test_bad_input(fails, photos, tmp_path):
    output = tmp_path / "out"

    def refuse(*argv, code):
        line = fails(detect.main, "--model=any", f"--output={output}", *argv, code=code)
        assert not (output / "detections.json").exists()
        return line

    assert "the model has no class 'grene'; did you mean 'green'?" in refuse(
        "--classes=red,grene", photos, code=2
    )
    assert "name at least one picture" in refuse(code=2)
    assert "--score" in refuse("--score=1.5", photos, code=2)
    assert f"no picture or folder at {tmp_path / 'gone'}" in refuse(tmp_path / "gone", code=1)
    (tmp_path / "none").mkdir()
    assert "no pictures (.bmp, " in refuse(tmp_path / "none", code=1)
    (tmp_path / "none" / "a.png").write_text("no picture")
    assert "none of the 1 pictures could be read" in refuse(tmp_path / "none", code=1)


def test_the_pictures_themselves_are_not_written_over(fails, photos):
    before = (photos / "blue.png").read_bytes()
    line = fails(detect.main, "--model=any", f"--output={photos}", photos, code=2)
    assert "holds pictures to look at" in line
    assert (photos / "blue.png").read_bytes() == before
