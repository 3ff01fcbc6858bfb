import types

import numpy as np
import pytest
from PIL import Image

from ssd_tf import draw
from ssd_tf.commands import show_input


def test_numbers_and_a_sheet(tiny_data, tiny_config_file, tmp_path, capsys):
    sheet = tmp_path / "new" / "sheet.png"
    flags = [
        f"--config={tiny_config_file}",
        f"--data={tiny_data}",
        f"--output={sheet}",
        "--pictures=6",
        "--images=24",
    ]
    assert (
        show_input.main(["show_input", *flags, "--default_boxes", "--set=data.augment=caffe"]) == 0
    )
    printed = capsys.readouterr().out
    for stage in (
        "parse",
        "zoom-out, crop, boxes",
        "decode",
        "resize",
        "colour",
        "canvas, flip",
        "match, encode",
        "rest",
    ):
        assert stage in printed
    assert "images/s, batch 6" in printed
    with Image.open(sheet) as picture:
        assert picture.size == (4 * 320, 2 * 320)
        assert len(picture.getcolors(1 << 24)) > 100


def test_a_bad_split_and_a_bad_value(tiny_data, tiny_config_file, fails):
    flags = [f"--config={tiny_config_file}", f"--data={tiny_data}"]
    assert "has no split 'test'" in fails(show_input.main, *flags, "--split=test", code=1)
    assert "did you mean 'caffe'" in fails(
        show_input.main, *flags, "--set=data.augment=cafe", code=2
    )


@pytest.fixture
def drawn(tiny_data, tiny_config_file, tmp_path, monkeypatch):
    """A function: what the sheet of some flags is drawn from, a tuple of arguments of draw.draw_boxes for each picture."""

    def call(*flags, data=tiny_data):
        calls, own = [], draw.draw_boxes
        with monkeypatch.context() as patch:
            patch.setattr(draw, "draw_boxes", lambda *rows: calls.append(rows) or own(*rows))
            argv = [
                f"--config={tiny_config_file}",
                f"--data={data}",
                f"--output={tmp_path / 's.png'}",
                "--images=0",
            ]
            assert show_input.main(["show_input", *argv, *flags]) == 0
        return calls

    return call


def test_the_sheet_shows_the_augmented_pictures(drawn):
    plain = drawn("--pictures=6", "--set=data.augment=none")
    flipped = drawn("--pictures=6", "--set=data.augment={flip_probability: 1}")
    assert len(plain) == len(flipped) == 6
    for (image, boxes, *_), (mirrored, moved, *_) in zip(plain, flipped, strict=True):
        np.testing.assert_allclose(mirrored, image[:, ::-1], atol=1e-3)
        np.testing.assert_allclose(
            moved, np.reshape([[a, 1 - d, c, 1 - b] for a, b, c, d in boxes], (-1, 4)), atol=1e-6
        )


def test_bad_records_are_left_out_of_the_sheet(drawn, with_bad_record, tiny_config_file, fails):
    data = with_bad_record("train")
    assert len(drawn("--pictures=5", "--set=data.on_bad_record=skip", data=data)) == 5
    argv = [f"--config={tiny_config_file}", f"--data={data}", "--images=0"]
    assert "record 1 (from 0), source_id 'unknown'" in fails(show_input.main, *argv, code=1)


def test_bad_records_are_left_out_of_the_measurement(
    with_bad_record, tiny_config_file, tmp_path, capsys
):
    argv = [
        f"--config={tiny_config_file}",
        f"--data={with_bad_record('train')}",
        f"--output={tmp_path / 's.png'}",
    ]
    assert (
        show_input.main(["show_input", *argv, "--images=6", "--set=data.on_bad_record=skip"]) == 0
    )
    assert "images/s" in capsys.readouterr().out


def test_default_boxes_are_drawn_for_the_objects_that_they_answer_for():
    boxes = np.array(
        [[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32
    )  # a crowd over all, then two objects
    default_boxes = np.array(
        [[0.5, 0.5, 1, 0.9], [0, 0, 0.5, 0.4], [0, 0, 0.4, 0.5], [0, 0.9, 0.1, 1]], np.float32
    )
    ignored = np.array([True, False, False])
    rows, colors, captions, hatched = show_input._with_default_boxes(
        boxes, np.array([1, 2, 2]), ["crowd", "a", "b"], ignored, default_boxes
    )
    np.testing.assert_array_equal(rows, [*default_boxes[:3], *boxes])
    assert colors.tolist() == [3, 2, 2, 1, 2, 3]  # those of the object's own row, from 1
    assert captions == ["", "", "", "crowd: 0", "a: 2", "b: 1"]
    assert hatched.tolist() == [False, False, False, True, False, False]


def test_the_rate_counts_pictures(tiny_data, tiny_config_file, tmp_path, capsys, monkeypatch):
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(show_input, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    argv = [
        f"--config={tiny_config_file}",
        f"--data={tiny_data}",
        f"--output={tmp_path / 's.png'}",
        "--pictures=1",
    ]
    assert show_input.main(["show_input", *argv, "--images=20"]) == 0
    assert (
        "12 images/s, batch 6" in capsys.readouterr().out
    )  # four batches of 6, the last begun for the 20th, in two seconds
