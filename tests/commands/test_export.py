import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.commands import evaluate, export


@pytest.fixture(scope="module")
def exported(tiny_run, tiny_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    argv = [
        "export",
        f"--workdir={tiny_run}",
        f"--output={output}",
        f"--data={tiny_data}",
        "--verify_split=train",
    ]
    assert export.main([*argv, "--formats=saved_model,tflite_float32"]) == 0
    return output


def test_what_is_written(exported, tiny_run):
    names = {
        "saved_model",
        "model_float32.tflite",
        "default_boxes.json",
        "labels.txt",
        "export.json",
    }
    assert {path.name for path in exported.iterdir()} == names
    assert (exported / "labels.txt").read_text() == "red\ngreen\nblue\n"
    report = json.loads((exported / "export.json").read_text())
    assert (report["workdir"], report["classes"]) == (str(tiny_run), ["red", "green", "blue"])
    for name in ("saved_model", "tflite_float32"):
        assert (report["verify"][name]["pictures"], report["verify"][name]["detections"]) == (6, 14)
        assert report["verify"][name]["unpaired"] == 0


def test_default_boxes_of_the_file(exported):
    content = json.loads((exported / "default_boxes.json").read_text())
    boxes = np.array(content["boxes"])
    assert content["scores"] == "softmax"
    assert content["variances"] == [0.1, 0.1, 0.2, 0.2]
    # Maps of 8 x 12, 4 x 6 and 2 x 3 cells with four boxes each: a square of two sizes, and 2:1 both ways.
    assert boxes.shape == ((96 + 24 + 6) * 4, 4)
    # The first: centre at half a cell of 8 pixels in an input of 64 x 96, side 0.4 * 64 = 25.6.
    np.testing.assert_allclose(boxes[0], [-8.8 / 64, -8.8 / 96, 16.8 / 64, 16.8 / 96], atol=1e-6)


@pytest.mark.parametrize("name", ["saved_model", "model_float32.tflite"])
def test_exports_measure_as_the_run_does(exported, tiny_data, tmp_path, name):
    assert (
        evaluate.main(
            [
                "evaluate",
                f"--model={exported / name}",
                f"--data={tiny_data}",
                f"--output={tmp_path}",
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["coco"]["AP50"] == pytest.approx(1)


def test_bad_input(fails, exported, tiny_run, tiny_data, tmp_path):
    def refuse(*argv, code, workdir=tiny_run, output=tmp_path / "out"):
        line = fails(export.main, f"--workdir={workdir}", f"--output={output}", *argv, code=code)
        assert not (tmp_path / "out").exists()
        return line

    assert "unknown format 'tflite_float23'; did you mean 'tflite_float32'?" in refuse(
        "--formats=tflite_float23", code=2
    )
    assert "unexpected 'tflite_float32'; several formats are written with commas" in refuse(
        "--formats=saved_model", "tflite_float32", code=2
    )
    assert "exists already; give --overwrite to replace it" in refuse(output=exported, code=1)
    gone = tmp_path / "gone"
    assert str(gone) in refuse(workdir=gone, code=2)
    assert f"no data folder at {gone}" in refuse(f"--data={gone}", code=1)
    assert "has no split 'test'" in refuse(f"--data={tiny_data}", "--verify_split=test", code=1)
    edited = shutil.copytree(tiny_data, tmp_path / "edited")
    shard = next(edited.glob("val*.tfrecord"))
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for _ in range(4):
            writer.write(b"\xff")
    assert f"{shard}: record 0 (from 0), source_id 'unknown', cannot be used" in refuse(
        f"--data={edited}", code=1
    )
