"""Every value of every enum and switch that training reads takes two steps and an evaluation."""

import types
import typing

import pytest
import small_networks
from tensorflow.python.framework import config as tensorflow_config

from ssd_tf.config import KEYS, check_config
from ssd_tf.config.effects import value_at
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.state import check_precision
from ssd_tf.training.train import train

SECTIONS = ("train", "loss", "data", "eval")
# Everything on, so that each choice has an effect.
AUGMENT = {
    "preset": "torchvision",
    "color": {"brightness": 9, "hue_wraps": True},
    "crop": {"min_iou": [0.5, 0.0]},
    "flip_probability": 0.5,
}
PLAIN_AUGMENT = AUGMENT | {
    "preset": "none",
    "color": {"brightness": 9, "contrast": [0.5, 1.5]},
}
TRAIN = {"steps": 2, "batch_size": 4, "base_batch": 8, "decay_steps": [1], "learning_rate": 1e-4}
SMOOTH = {"schedule": "cosine", "decay_steps": []}
NETWORK = {
    "model": {"input_hw": [32, 48], "backbone": {"name": "plain"}, "num_levels": 2},
    "boxes": {"preset": "paper"},
    "watch": {"log_every": 1, "images": 1},
}
SIGMOID = NETWORK["model"] | {"score_activation": "sigmoid"}
# Together they have every value; each is chosen so that it has an effect.
RUNS = {
    "SGD": {
        "train": TRAIN
        | {"strategy": "one", "deterministic": True, "accumulate": 2, "ema": 0.5, "clip_norm": 1.0},
        "loss": {"normalizer": "torchvision", "box_loss": "giou", "min_negatives": 0},
        "data": {"augment": AUGMENT, "on_bad_record": "skip"},
        "eval": {"class_agnostic": True},
    },
    "frozen": {
        "train": TRAIN | {"bn": "frozen", "strategy": "mirrored"},
        "loss": {"normalizer": "torchvision", "min_negatives": 0},
        "data": {"augment": AUGMENT | {"color": {"hue_wraps": False}}, "train_difficult": True},
        "eval": {"clip_first": True},
    },
    "synchronized": {
        "train": TRAIN | SMOOTH | {"bn": "synchronized", "optimizer": "AdamW"},
        "loss": {"normalizer": "nvidia"},
        "data": {"augment": "caffe", "shard": "file", "on_bad_record": "skip"},
    },
    "bfloat16": {
        "train": TRAIN | SMOOTH | {"precision": "mixed_bfloat16"},
        "data": {"augment": "paper"},
    },
    "float16": {
        "train": TRAIN | SMOOTH | {"precision": "mixed_float16"},
        "data": {"augment": "light"},
        "model": SIGMOID,
        "loss": {"focal_gamma": 2},
    },
    "xla": {
        "train": TRAIN | SMOOTH | {"xla": True},
        "data": {"augment": PLAIN_AUGMENT},
        "model": SIGMOID,
        "loss": {"focal_gamma": 2, "focal_alpha": 0.25},
    },
}
# test_distribution.py starts two workers with the first, test_kept_classes.py trains with the
# second.
ELSEWHERE = {("train.strategy", "multi_worker"), ("data.keep_classes", True)}


def choices(annotation):
    """The values of a Literal or a switch, also inside of a union or an Annotated; else none."""
    if annotation is bool:
        return (False, True)
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [value for part in typing.get_args(annotation) for value in choices(part)]
    return ()


def all_values():
    return {
        (path, value)
        for path, key in KEYS.items()
        if path.partition(".")[0] in SECTIONS
        for value in choices(key.field.annotation)
    }


def make_config(name):
    values = NETWORK | {"train": {"steps": 2, "batch_size": 4}} | RUNS[name]
    return check_config(values, name)


def test_every_value_has_a_run():
    keys = {key for key, _ in all_values()}
    assert {"train.bn", "loss.box_loss", "data.shard", "eval.clip_first"} <= keys
    found = {(key, value_at(make_config(name), key)) for name in RUNS for key in keys}
    assert found | ELSEWHERE == all_values()


@pytest.fixture
def small_network(monkeypatch):
    monkeypatch.setattr("ssd_tf.models.ssd.build_model", small_networks.build_on_one_map)


@pytest.fixture
def deterministic_operations():
    """Whatever a run switches on is off again for the other tests of this process."""
    yield
    tensorflow_config.disable_op_determinism()


@pytest.mark.parametrize(
    "name",
    [name if name == "SGD" else pytest.param(name, marks=pytest.mark.integration) for name in RUNS],
)
@pytest.mark.usefixtures("deterministic_operations", "small_network")
def test_two_steps(name, tiny_data, tmp_path):
    config = make_config(name)
    try:
        check_precision(config.train.precision)
    except ValueError as error:
        pytest.skip(str(error))
    train(config, tiny_data, tmp_path / "run")
    assert tensorflow_config.is_op_determinism_enabled() == config.train.deterministic
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")][-1] == "2"
    assert (tmp_path / "run" / "checkpoints" / "last" / "ckpt-2.index").is_file()
