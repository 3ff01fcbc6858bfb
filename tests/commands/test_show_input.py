import functools
import types

import numpy as np
import pytest
from PIL import Image

from ssd_tf import draw
from ssd_tf.boxes import matching
from ssd_tf.commands import show_input
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json, pipeline
from ssd_tf.models import ssd
from ssd_tf.training import input_sheet


@pytest.mark.integration
def test_stages_rate_and_sheet(tiny_data, tiny_config_file, tmp_path, capsys):
    sheet = tmp_path / "new" / "sheet.png"
    flags = [
        f"--config={tiny_config_file}",
        f"--data={tiny_data}",
        f"--output={sheet}",
        "--sheet_images=6",
        "--timed_images=24",
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
    with Image.open(sheet) as image:
        # 64 x 96 in the height of a row: 450 wide, three in each of two rows.
        assert image.size == (3 * 460 + 10, 52 + 2 * 326 + 10)
        assert len(image.getcolors(1 << 24)) > 100


def test_a_bad_split_and_a_bad_value(tiny_data, tiny_config_file, fails, tmp_path):
    flags = [f"--config={tiny_config_file}", f"--data={tiny_data}"]
    for name in ("sheet", "sheet.txt"):
        output = tmp_path / name
        line = fails(show_input.main, *flags, f"--output={output}", code=1)
        assert f"--output: expected an image file such as input.png, got {output}" in line
    assert "has no split 'test'" in fails(show_input.main, *flags, "--split=test", code=1)
    assert "did you mean 'caffe'" in fails(
        show_input.main, *flags, "--set=data.augment=cafe", code=2
    )


@pytest.fixture
def drawn(tiny_data, tiny_config_file, tmp_path, monkeypatch):
    """A function that draws a sheet with some flags.

    It returns the arguments of draw.draw_boxes for each image.
    """

    def call(*flags, data=tiny_data):
        calls = []
        draw_boxes = draw.draw_boxes

        def record(*args):
            calls.append(args)
            return draw_boxes(*args)

        with monkeypatch.context() as patch:
            patch.setattr(draw, "draw_boxes", record)
            argv = [
                f"--config={tiny_config_file}",
                f"--data={data}",
                f"--output={tmp_path / 's.png'}",
                "--timed_images=0",
            ]
            assert show_input.main(["show_input", *argv, *flags]) == 0
        return calls

    return call


def test_the_sheet_shows_augmented_images(drawn):
    plain = drawn("--sheet_images=6", "--set=data.augment=none")
    flipped = drawn("--sheet_images=6", "--set=data.augment={flip_probability: 1}")
    assert len(plain) == len(flipped) == 6
    for (image, boxes, *_), (mirrored, moved, *_) in zip(plain, flipped, strict=True):
        difference = np.abs(mirrored.astype(int) - image[:, ::-1])  # of resampling
        assert difference.max() <= 1
        expected = [[ymin, 1 - xmax, ymax, 1 - xmin] for ymin, xmin, ymax, xmax in boxes]
        np.testing.assert_allclose(moved, np.reshape(expected, (-1, 4)), atol=1e-6)


def test_bad_records_are_not_on_the_sheet(drawn, with_bad_record, tiny_config_file, fails):
    data = with_bad_record("train")
    assert len(drawn("--sheet_images=5", "--set=data.on_bad_record=skip", data=data)) == 5
    argv = [f"--config={tiny_config_file}", f"--data={data}", "--timed_images=0"]
    assert "record 1 (from 0), source_id 'unknown'" in fails(show_input.main, *argv, code=1)


@pytest.mark.integration
def test_bad_records_are_not_timed(with_bad_record, tiny_config_file, tmp_path, capsys):
    argv = [
        f"--config={tiny_config_file}",
        f"--data={with_bad_record('train')}",
        f"--output={tmp_path / 's.png'}",
    ]
    assert (
        show_input.main(["show_input", *argv, "--timed_images=6", "--set=data.on_bad_record=skip"])
        == 0
    )
    assert "images/s" in capsys.readouterr().out


def test_default_boxes_are_drawn_for_the_objects_that_they_are_matched_to():
    # A crowd over the whole image, then two objects.
    drawn = input_sheet.DrawnBoxes(
        boxes=np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32),
        labels=np.array([1, 2, 2]),
        captions=["crowd", "a", "b"],
        hatched=np.array([True, False, False]),
    )
    default_boxes = np.array(
        [[0.5, 0.5, 1, 0.9], [0, 0, 0.5, 0.4], [0, 0, 0.4, 0.5], [0, 0.9, 0.1, 1]], np.float32
    )
    assign = functools.partial(matching.match, default_boxes=default_boxes)
    added = input_sheet.add_matched_boxes(drawn, default_boxes, assign)
    np.testing.assert_array_equal(added.boxes, [*default_boxes[:3], *drawn.boxes])
    assert added.labels.tolist() == [3, 2, 2, 1, 2, 3]  # the row of the object, from 1
    assert added.captions == ["", "", "", "crowd: 0", "a: 2", "b: 1"]
    assert added.hatched.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("assigner", ["multibox", "atss"])
def test_the_default_boxes_of_the_sheet_are_those_of_the_training(
    drawn, tiny_data, tiny_config_file, assigner
):
    change = f"boxes.assigner={assigner}"
    sheet = drawn("--sheet_images=6", "--default_boxes", f"--set={change}")
    num_drawn = [captions.count("") for _, _, _, captions, _ in sheet]

    config = load_config(tiny_config_file, [change])
    num_classes = len(dataset_json.read_dataset(tiny_data).classes)
    network = ssd.build_model(config, num_classes)
    _, stream = pipeline.open_records(config, tiny_data, "train")
    prepare = pipeline.make_prepare(
        config, network.default_boxes, num_classes, network.level_of_box
    )
    targets = [each for _, each in stream.take(6).map(prepare).as_numpy_iterator()]
    assert num_drawn == [int((each["labels"] > 0).sum()) for each in targets]
    assert sum(num_drawn) > 0


def test_the_rate_counts_images(tiny_data, tiny_config_file, tmp_path, capsys, monkeypatch):
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(
        input_sheet, "time", types.SimpleNamespace(perf_counter=lambda: next(clock))
    )
    argv = [
        f"--config={tiny_config_file}",
        f"--data={tiny_data}",
        f"--output={tmp_path / 's.png'}",
        "--sheet_images=1",
    ]
    assert show_input.main(["show_input", *argv, "--timed_images=20"]) == 0
    # Four batches of 6, the first number of batches that holds 20 images, in two seconds.
    assert "12 images/s, batch 6" in capsys.readouterr().out
