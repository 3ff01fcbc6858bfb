"""data.keep_classes: the old detector's classes, and what it finds in the training images."""

import json
import logging
import shutil

import data_sets
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import check_config, load_config
from ssd_tf.data import dataset_json, kept_classes
from ssd_tf.data.records import make_example
from ssd_tf.errors import ConfigError
from ssd_tf.inference.detections import Detections
from ssd_tf.training import old_detector
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.train import train
from ssd_tf.weights import runs

NUM_IMAGES = 5


@pytest.fixture
def data(tmp_path):
    """Five images of 10 x 20 pixels with a `blue` and a `spot` each, label 1 and 2.

    The image with index i is filled with i.
    """
    folder = tmp_path / "data"
    folder.mkdir()
    records = [
        make_example(
            image=data_sets.encode(np.full((10, 20, 3), index, np.uint8)),
            image_format="png",
            height=10,
            width=20,
            filename=f"{index}.png",
            source_id=str(index),
            boxes=[[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]],
            labels=[1, 2],
            texts=["blue", "spot"],
        ).SerializeToString(deterministic=True)
        for index in range(NUM_IMAGES)
    ]
    classes = [{"name": "blue", "id": 12}, {"name": "spot", "id": 7}]
    splits = {
        split: data_sets.write_split(folder, split, [records], 2 * NUM_IMAGES)
        for split in ("train", "val")
    }
    return data_sets.write_classes(folder, classes, splits)


@pytest.fixture
def old_run(tmp_path):
    """A folder that could be a run of red, green and blue, and has no weights."""
    folder = tmp_path / "old"
    folder.mkdir()
    classes = [{"name": "red", "id": 7}, {"name": "green", "id": 3}, {"name": "blue", "id": 12}]
    return data_sets.write_classes(folder, classes, {})


class OldDetector:
    """Finds i objects in the image with index i, and a box without area.

    Their scores are .1 i; seen: the indices of the images of each batch.
    """

    def __init__(self):
        self.seen = []
        self.settings = None

    def load(self, path, overrides):
        self.settings = (path, overrides)
        return self

    def batch(self, images):
        indices = [int(image[0, 0, 0]) for image in images]
        self.seen.append(indices)
        return [self._detect(index) for index in indices]

    def _detect(self, index):
        boxes = [[0.5, 0.5, 1, 1]] * index + [[0.2, 0.2, 0.2, 0.4]]
        return Detections(
            np.array(boxes, np.float32),
            np.full(index + 1, 0.1 * index, np.float32),
            np.full(index + 1, 2, np.int32),
        )


@pytest.fixture
def detector(monkeypatch):
    """The OldDetector that `detect` loads; files are of two images each."""
    detector = OldDetector()
    monkeypatch.setattr(old_detector, "load_detector", detector.load)
    monkeypatch.setattr(old_detector, "PART", 2)
    return detector


def make_config(init_from, **data):
    values = {
        "init_from": str(init_from),
        "boxes": {"preset": "paper"},
        "data": {"keep_classes": True, **data},
        "eval": {"batch_size": 3},
    }
    return check_config(values, "test")


def detect(config, data, workdir, resumes=False):
    info = dataset_json.read_dataset(data)
    names = ["red", "green", "blue", "spot"]
    strategy = tf.distribute.get_strategy()
    return old_detector.detect_kept(config, info, names, workdir, resumes, strategy)


def test_it_is_off_by_default(data, tmp_path):
    config = check_config({"boxes": {"preset": "paper"}}, "test")
    info = dataset_json.read_dataset(data)
    assert old_detector.list_classes(config, info, tmp_path) is info
    assert detect(config, data, tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


def test_the_classes_of_the_run(data, old_run, tmp_path):
    info = dataset_json.read_dataset(data)
    workdir = tmp_path / "run"
    listed = old_detector.list_classes(make_config(old_run), info, workdir)
    assert listed.names == ["red", "green", "blue", "spot"]
    assert listed.category_ids == [7, 3, 12, 13]  # spot had red's
    assert (listed.folder, listed.splits) == (info.folder, info.splits)
    # A run that resumes has its own list, and needs the old run no more.
    (workdir / "checkpoints" / "last").mkdir(parents=True)
    (workdir / "checkpoints" / "last" / "ckpt-1.index").touch()
    data_sets.write_classes(workdir, listed.classes, {})
    shutil.rmtree(old_run)
    again = old_detector.list_classes(make_config(old_run), info, workdir)
    assert again.classes == listed.classes


def test_no_old_run(data, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.keep_classes: .*/nowhere"):
        old_detector.list_classes(
            make_config(tmp_path / "nowhere"), dataset_json.read_dataset(data), tmp_path / "run"
        )


def test_what_is_detected(data, old_run, detector, tmp_path, caplog):
    config = make_config(old_run, keep_scores=[0.25, 0.4])
    with caplog.at_level(logging.INFO):
        kept = detect(config, data, tmp_path / "run")
    assert detector.settings == (str(old_run), ["eval.score_floor=0.25"])
    assert detector.seen == [[0, 1], [2, 3], [4]]  # no batch goes beyond the end of a file
    assert kept.label_of.tolist() == [3, 4]
    assert sorted(kept.detected.counts) == [0, 1, 2, 3, 4]
    assert np.unique(kept.detected.boxes, axis=0).tolist() == [[0.5, 0.5, 1, 1]]
    assert (np.diff(kept.detected.keys) > 0).all()
    # Four of the image with index 4 score .4, and six score less.
    assert "4 labels of 1 classes for 5 images, and 6 detections" in caplog.messages[-1]
    names = sorted(path.name for path in (tmp_path / "run" / "kept_classes").iterdir())
    assert names == ["origin.json", *(f"part-0000{index}.npz" for index in range(3))]


def assert_same(first, second):
    for one, other in zip(
        [*first.detected, first.label_of], [*second.detected, second.label_of], strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("resumes", [False, True])
def test_they_are_detected_once(data, old_run, detector, tmp_path, resumes):
    config = make_config(old_run)
    first = detect(config, data, tmp_path / "run")
    detector.seen.clear()
    assert_same(detect(config, data, tmp_path / "run", resumes), first)
    assert detector.seen == []


def test_an_interrupted_one_goes_on_where_it_was(data, old_run, detector, tmp_path):
    config = make_config(old_run)
    whole = detect(config, data, tmp_path / "whole")
    detector.seen.clear()
    detector.batch = interrupt_at_2(detector.batch)
    with pytest.raises(KeyboardInterrupt):
        detect(config, data, tmp_path / "run")
    del detector.batch
    assert detector.seen == [[0, 1]]
    assert_same(detect(config, data, tmp_path / "run"), whole)
    assert detector.seen == [[0, 1], [2, 3], [4]]


def interrupt_at_2(batch):
    def call(images):
        if images[0][0, 0, 0] == 2:
            raise KeyboardInterrupt
        return batch(images)

    return call


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_corrupt_file_is_made_again(data, old_run, detector, tmp_path, index):
    config = make_config(old_run)
    first = detect(config, data, tmp_path / "run")
    (tmp_path / "run" / "kept_classes" / f"part-0000{index}.npz").write_bytes(b"PK")
    detector.seen.clear()
    assert_same(detect(config, data, tmp_path / "run", resumes=True), first)
    assert detector.seen == [[[0, 1], [2, 3], [4]][index]]


@pytest.mark.parametrize(
    "changes", [{"keep_scores": [0.3, 0.5]}, {"fraction": 0.8}, {"on_bad_record": "skip"}]
)
def test_another_origin(data, old_run, detector, tmp_path, changes):
    """A run that has no checkpoint may be started with other settings."""
    detect(make_config(old_run), data, tmp_path / "run")
    detector.seen.clear()
    kept = detect(make_config(old_run, **changes), data, tmp_path / "run")
    assert len(kept.detected.keys) == (4 if "fraction" in changes else 5)
    assert sum(map(len, detector.seen)) == len(kept.detected.keys)


def test_the_weights_of_the_old_run_count(data, old_run, detector, tmp_path):
    config = make_config(old_run)
    detect(config, data, tmp_path / "run")
    checkpoints = old_run / "checkpoints" / "best"
    checkpoints.mkdir(parents=True)
    tf.train.Checkpoint(step=tf.Variable(1)).write(str(checkpoints / "ckpt-0"))
    detector.seen.clear()
    detect(config, data, tmp_path / "run")
    assert len(detector.seen) == 3
    # But not those of another old run, once there is a checkpoint ...
    shutil.rmtree(old_run)
    detect(config, data, tmp_path / "run", resumes=True)
    assert len(detector.seen) == 3
    # ... unless some of them are lost.
    (tmp_path / "run" / "kept_classes" / "part-00001.npz").unlink()
    with pytest.raises(ConfigError, match="kept_classes lacks 1 of 3 files, and init_from"):
        detect(config, data, tmp_path / "run", resumes=True)


def test_a_worker_that_sees_another_folder(data, old_run, detector, tmp_path, monkeypatch):
    monkeypatch.setattr(old_detector.distribution, "is_chief", lambda _strategy: False)
    with pytest.raises(ValueError, match="kept_classes is incomplete"):
        detect(make_config(old_run), data, tmp_path / "run")
    assert detector.seen == []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data.keep_classes=true"], "data.keep_classes has no effect unless init_from"),
        (
            ["data.keep_classes=true", "init_from=imagenet"],
            "data.keep_classes has no effect unless init_from",
        ),
        (["data.keep_scores=[0.1, 0.6]"], "data.keep_scores has no effect without"),
        (["data.keep_scores=[0.6, 0.1]"], "data.keep_scores: expected the smaller number first"),
        (["data.keep_scores=[0.6, 1]"], "data.keep_scores.1: "),
    ],
)
def test_settings_without_effect(tmp_path, overrides, key):
    path = tmp_path / "config.yaml"
    path.write_text("boxes: {preset: paper}")
    with pytest.raises(ConfigError, match=key):
        load_config(path, overrides)


@pytest.mark.integration
def test_a_run_that_keeps_the_classes(tiny_run, tiny_config, data, tmp_path, caplog):
    """Of red, green and blue, with data of blue and spot."""
    values = tiny_config.model_dump(mode="json")
    values["init_from"] = str(tiny_run)
    values["data"]["keep_classes"] = True
    values["train"] |= {"steps": 2, "learning_rate": 1e-9}
    values["watch"]["images"] = 1
    config = check_config(values, "test")
    workdir = tmp_path / "run"
    with caplog.at_level(logging.INFO, logger="absl"):
        train(config, data, workdir)
    assert "  class heads     3 layers  rows kept: background, red, green, blue; 1 new" in (
        caplog.messages
    )
    content = json.loads((workdir / "dataset.json").read_text())
    names = ["red", "green", "blue", "spot"]
    assert [entry["name"] for entry in content["classes"]] == names
    assert content["splits"]["train"]["images"] == NUM_IMAGES
    assert kept_classes.read_part(workdir / "kept_classes", 0).keys.shape == (NUM_IMAGES,)
    assert float(read_metrics(workdir / "metrics.csv")[-1]["AP"]) >= 0  # of blue and spot
    # Rows of the old classes are those of the old run still.
    old, new = (runs.read_weights(runs.find_checkpoint(run)) for run in (tiny_run, workdir))
    kernel = "logits0_conv/kernel"
    old_rows = old[kernel].reshape(*old[kernel].shape[:-1], -1, 4)
    new_rows = new[kernel].reshape(*new[kernel].shape[:-1], -1, 5)
    np.testing.assert_allclose(new_rows[..., :4], old_rows, atol=1e-6)
    # It resumes without the old run, and not with other data.
    moved = config.model_copy(update={"init_from": str(tmp_path / "gone")})
    longer = moved.train.model_copy(update={"steps": 3})
    train(moved.model_copy(update={"train": longer}), data, workdir)
    assert read_metrics(workdir / "metrics.csv")[-1]["step"] == "3"
    info = json.loads((data / "dataset.json").read_text())
    info["classes"][1]["name"] = "stain"
    (data / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="was trained on 4 classes"):
        train(moved.model_copy(update={"train": longer}), data, workdir)
