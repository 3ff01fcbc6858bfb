"""data.keep_classes: the classes of the run, and the rows of its class heads that are trained."""

import json
import logging
import shutil

import data_sets
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.data import dataset_json
from ssd_tf.data.records import make_example
from ssd_tf.errors import ConfigError
from ssd_tf.training import kept_classes
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.state import attach_training, make_train_state
from ssd_tf.training.step import make_batch_loss, make_train_step
from ssd_tf.training.train import train
from ssd_tf.weights import run_files, runs

NUM_IMAGES = 5


def classes(**ids):
    return [{"name": name, "id": class_id} for name, class_id in ids.items()]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (classes(a=7, b=3), classes(c=9), classes(a=7, b=3, c=9)),
        (classes(a=7, b=3), classes(b=1, a=2), classes(a=7, b=3)),  # shared names keep their ids
        (classes(a=7, b=3), classes(c=3, d=8), classes(a=7, b=3, c=8, d=9)),  # 3, then 8 are taken
        (classes(a=7), classes(c=1, a=2, d=7), classes(a=7, c=1, d=8)),
    ],
)
def test_the_longer_list(old, new, expected):
    assert kept_classes.extend_classes(old, new) == tuple(expected)


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


def make_config(init_from):
    values = {
        "init_from": str(init_from),
        "boxes": {"preset": "paper"},
        "data": {"keep_classes": True},
    }
    return check_config(values, "test")


def test_it_is_off_by_default(data, tmp_path):
    config = check_config({"boxes": {"preset": "paper"}}, "test")
    info = dataset_json.read_dataset(data)
    assert kept_classes.list_classes(config, info, tmp_path) is info
    assert kept_classes.find_trained_rows(config, ["red"], ["red"]) is None


def test_the_classes_of_the_run(data, old_run, tmp_path):
    info = dataset_json.read_dataset(data)
    workdir = tmp_path / "run"
    listed = kept_classes.list_classes(make_config(old_run), info, workdir)
    assert listed.names == ["red", "green", "blue", "spot"]
    assert listed.category_ids == [7, 3, 12, 13]  # spot had red's
    assert (listed.folder, listed.splits) == (info.folder, info.splits)
    # A run that resumes has its own list, and needs the old run no more.
    (workdir / "checkpoints" / "last").mkdir(parents=True)
    (workdir / "checkpoints" / "last" / "ckpt-1.index").touch()
    data_sets.write_classes(workdir, listed.classes, {})
    shutil.rmtree(old_run)
    again = kept_classes.list_classes(make_config(old_run), info, workdir)
    assert again.classes == listed.classes


def test_no_old_run(data, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.keep_classes: .*/nowhere"):
        kept_classes.list_classes(
            make_config(tmp_path / "nowhere"), dataset_json.read_dataset(data), tmp_path / "run"
        )


def test_the_trained_rows_go_by_name():
    config = make_config("old")
    found = kept_classes.find_trained_rows(config, ["a", "b", "c"], ["c", "a"])
    assert found.tolist() == [3, 1]


HEADS = {
    "conv": ["logits0_conv/kernel", "logits0_conv/bias"],
    "separable": ["logits0_conv/kernel", "logits0_conv/bias"],
    "tower": ["logits_conv/pointwise_kernel", "logits_conv/bias"],
}


def build_state(head, optimizer="SGD"):
    """A TrainState of four classes and two default boxes, of which rows 4 and 2 are trained."""
    model = {
        "input_hw": [32, 64],
        "num_levels": 3,
        "head": "conv" if head == "conv" else "separable",
        "backbone": {"name": "plain", "alpha": 0.25},
    }
    if head == "tower":
        model |= {"neck": "fpn_lite", "neck_channels": 8, "tower": {"num_layers": 1, "channels": 8}}
    values = {"optimizer": optimizer, "steps": 9, "batch_size": 2, "ema": 0.5, "clip_norm": 1.0}
    config = small_networks.make_config(
        model=model,
        boxes={"levels": [{"size": 8, "next_size": 12}] * 3},
        train=values | {"weight_decay": 0.1, "learning_rate": 0.1},
    )
    network = small_networks.ssd.build_model(config, 4)
    state = attach_training(config, network, tf.distribute.get_strategy(), np.array([4, 2]))
    return config, state


@pytest.mark.parametrize("head", HEADS)
def test_only_class_heads_are_trained(head):
    _, state = build_state(head)
    paths = [variable.path for variable in state.network.model.trainable_variables]
    assert paths[:2] == HEADS[head]
    assert len(paths) == (2 if head == "tower" else 6)


def take_steps(config, state, num_steps=3):
    """Steps on noise, with labels of both trained classes, background and ignored boxes."""
    step = tf.function(make_train_step(config, state))
    random = np.random.default_rng(0)
    num_boxes = len(state.network.default_boxes)
    for _ in range(num_steps):
        labels = random.integers(-1, 3, (2, num_boxes))
        images = random.uniform(0, 255, (2, 32, 64, 3))
        offsets = np.zeros((2, num_boxes, 4), np.float32)
        targets = {"offsets": tf.constant(offsets), "labels": tf.constant(labels, tf.int32)}
        step(tf.constant(images, tf.float32), targets)


@pytest.mark.parametrize(
    ("head", "optimizer"),
    [("conv", "SGD"), ("tower", "AdamW")],  # L2 in the gradient, decoupled decay
)
def test_the_other_rows_keep_their_bits(head, optimizer):
    config, state = build_state(head, optimizer)
    model = state.network.model
    trained = [variable.path for variable in model.trainable_variables]
    before = {variable.path: variable.numpy() for variable in model.variables}
    take_steps(config, state)
    for variable in model.variables:
        old = before[variable.path]
        averaged = state.averages.by_path[variable.path].numpy()
        if variable.path not in trained:
            np.testing.assert_array_equal(variable.numpy(), old)
            np.testing.assert_array_equal(averaged, old)
            continue
        # [..., default boxes, background and four classes]
        old, new, averaged = (x.reshape(-1, 5) for x in (old, variable.numpy(), averaged))
        for values in (new, averaged):
            np.testing.assert_array_equal(values[:, [0, 1, 3]], old[:, [0, 1, 3]])
            # A kernel's input may be 0 for all images.
            assert (values != old)[:, [2, 4]].mean() > 0.4, variable.path


def test_the_first_label_is_that_of_the_first_trained_row():
    """A step on boxes of label 1 alone raises row 4, and lowers row 2."""
    config, state = build_state("conv")
    num_boxes = len(state.network.default_boxes)
    images = tf.fill([2, 32, 64, 3], 9.0)
    targets = {
        "offsets": tf.zeros([2, num_boxes, 4]),
        "labels": tf.ones([2, num_boxes], tf.int32),
    }
    loss = make_batch_loss(config, state)(images, targets)
    values = tf.function(make_train_step(config, state))(images, targets)
    assert float(loss) == pytest.approx(float(values.loss), rel=1e-5)
    for variable in state.network.model.trainable_variables:
        if variable.name == "bias":  # all 0 at first
            rows = variable.numpy().reshape(-1, 5)
            assert (rows[:, 4] > 0).all() and (rows[:, 2] < 0).all(), variable.path


@pytest.mark.parametrize("init_from", [None, "imagenet"])
def test_without_a_run_to_start_from(init_from):
    values = {
        "init_from": init_from,
        "boxes": {"preset": "paper"},
        "model": {"backbone": {"frozen_stages": 2}},
        "data": {"keep_classes": True},
    }
    with pytest.raises(ConfigError, match=r"data\.keep_classes has no effect unless init_from"):
        check_config(values, "test")


def keep_classes(tiny_run, tiny_config, **changes):
    """The config of the tiny run, to start from it and keep its classes; changes: of sections."""
    values = tiny_config.model_dump(mode="json")
    values["init_from"] = str(tiny_run)
    values["data"]["keep_classes"] = True
    values["watch"]["images"] = 1
    for section, keys in changes.items():
        values[section] |= keys
    return check_config(values, "test")


def test_a_layer_that_would_stay_random(tiny_run, tiny_config):
    config = keep_classes(tiny_run, tiny_config, model={"head": "conv"})
    names = ["red", "green", "blue", "spot"]
    with pytest.raises(ConfigError, match=r"data\.keep_classes: .* \w+0_\w+ from scratch: .*head"):
        make_train_state(config, names, tf.distribute.get_strategy())


@pytest.mark.integration
def test_a_run_that_keeps_the_classes(tiny_run, tiny_config, data, tmp_path, caplog):
    """Of red, green and blue, with data of blue and spot."""
    config = keep_classes(tiny_run, tiny_config, train={"steps": 2})
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
    assert float(read_metrics(workdir / "metrics.csv")[-1]["AP"]) >= 0  # of blue and spot
    # It resumes without the old run, and trains the same rows.
    moved = config.model_copy(update={"init_from": str(tmp_path / "gone")})
    longer = moved.train.model_copy(update={"steps": 4})
    train(moved.model_copy(update={"train": longer}), data, workdir)
    assert read_metrics(workdir / "metrics.csv")[-1]["step"] == "4"
    assert_only_rows_moved(tiny_run, workdir)
    # It does not resume with other data.
    info = json.loads((data / "dataset.json").read_text())
    info["classes"][1]["name"] = "stain"
    (data / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="was trained on 4 classes"):
        train(moved.model_copy(update={"train": longer}), data, workdir)


def assert_only_rows_moved(tiny_run, workdir):
    """Only the rows of blue (and spot) may differ between the two runs."""
    last = workdir / "checkpoints" / "last"
    old = runs.read_weights(runs.find_checkpoint(tiny_run))
    new = runs.read_weights(run_files.list_checkpoints(last)[0])
    assert set(old) == set(new)
    moved = []
    for path, value in old.items():
        if path.startswith("logits") and path.split("/")[0].endswith("_conv"):
            before = value.reshape(-1, 4)
            after = new[path].reshape(-1, 5)
            np.testing.assert_array_equal(after[:, :3], before[:, :3])
            moved.append((after[:, 3] != before[:, 3]).any())
        else:
            np.testing.assert_array_equal(new[path], value)
    # A map may have no positives and no hard negatives.
    assert any(moved)
