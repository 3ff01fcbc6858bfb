"""Wrong paths end a command before TensorFlow is imported, which takes seconds."""

import importlib
import json

import pytest
from PIL import Image

from ssd_tf import commandline


@pytest.fixture
def start(monkeypatch, fails, tmp_path, tiny_config_file):
    """A function: run a command that must fail before it imports TensorFlow; returns its error.

    The current folder has a data set `data`, a run `runs/mine`, a file `file` and an image.
    """

    def fail():
        raise AssertionError("TensorFlow is imported")

    monkeypatch.setattr(commandline, "import_tensorflow", fail)
    monkeypatch.chdir(tmp_path)
    split = {"images": 1, "boxes": 0, "shards": ["shard"]}
    content = {
        "version": 1,
        "classes": [{"name": "red", "id": 1}],
        "splits": {"train": split, "val": split},
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "data" / "shard").touch()
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "file").write_bytes(bytes(range(100)))
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    labels = {
        "images": [{"id": 1, "file_name": "image.png", "width": 30, "height": 20}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "tiny.yaml").write_text(tiny_config_file.read_text())
    Image.new("RGB", (30, 20)).save("image.png")

    def call(module, *argv, code):
        return fails(importlib.import_module(module).main, *argv, code=code)

    return call


TRAIN = ("ssd_tf.commands.train", "--config=tiny.yaml", "--data=data", "--workdir=runs/new")
EVALUATE = ("ssd_tf.commands.evaluate", "--model=runs/mine", "--data=data", "--output=out")
DETECT = ("ssd_tf.commands.detect", "--model=runs/mine", "--output=out", "image.png")
EXPORT = ("ssd_tf.commands.export", "--workdir=runs/mine", "--data=data", "--output=out")
IMPORT = ("ssd_tf.commands.import_weights", "--source=file", "--output=out")
CONVERT = (
    *("data_tools.coco_to_tfrecord", "--images=.", "--annotations=labels.json"),
    *("--split=more", "--output=out", "--workers=1"),
)
AUTO = ("data_tools.auto_to_tfrecord", ".", "--output=out", "--workers=1")
SHOW = ("ssd_tf.commands.show_input", "--config=tiny.yaml", "--data=data")


@pytest.mark.parametrize(
    ("command", "wrong", "code", "hint"),
    [
        (CONVERT, "--annotations=label.json", 1, "no file at label.json"),
        (CONVERT, "--output=file", 1, "file"),
        (CONVERT, "--output=data", 1, "'cat'"),  # a second split, of other classes
        (CONVERT, "--val_fraction=0.2", 1, "'val'"),
        (AUTO, "--output=file", 1, "file"),
        (TRAIN, "--config=tine.yaml", 2, "did you mean tiny.yaml?"),
        (TRAIN, "--data=dato", 1, "did you mean data?"),
        (TRAIN, "--data=runs/mine", 1, "dataset.json"),
        (TRAIN, "--set=data.train_split=test", 1, "'test'"),
        (TRAIN, "--workdir=file", 1, "--workdir: file"),
        (TRAIN, "--workdir=file/run", 1, "--workdir: file"),
        (EVALUATE, "--model=runs/min", 1, "did you mean runs/mine?"),
        (EVALUATE, "--data=dato", 1, "did you mean data?"),
        (EVALUATE, "--split=test", 1, "'test'"),
        (EVALUATE, "--output=file", 1, "--output: file"),
        (EVALUATE, "--labels=filed", 2, "did you mean file?"),
        (DETECT, "--model=runs/min", 1, "did you mean runs/mine?"),
        (DETECT, "--output=file", 1, "--output: file"),
        (DETECT, "--output=file/out", 1, "--output: file"),
        (DETECT, "--labels=filed", 2, "did you mean file?"),
        (EXPORT, "--workdir=runs/min", 1, "did you mean runs/mine?"),
        (EXPORT, "--data=dato", 1, "did you mean data?"),
        (EXPORT, "--output=file", 1, "--output: "),
        (EXPORT, "--formats=tflite", 2, "tflite_float32, tflite_float16, tflite_dynamic"),
        (IMPORT, "--source=filed", 2, "did you mean file?"),
        (IMPORT, "--labels=filed", 2, "did you mean file?"),
        (IMPORT, "--output=file", 1, "--output: "),
        (SHOW, "--config=tine.yaml", 2, "did you mean tiny.yaml?"),
        (SHOW, "--data=dato", 1, "did you mean data?"),
        (SHOW, "--split=test", 1, "'test'"),
    ],
)
def test_a_wrong_path_is_found_first(start, command, wrong, code, hint):
    assert hint in start(*command, wrong, code=code)
