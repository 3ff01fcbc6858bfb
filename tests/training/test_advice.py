"""What a run logs before it starts."""

import logging
import re

import pytest

from ssd_tf.config import check_config
from ssd_tf.training import advice


@pytest.fixture
def lines(toy_config, toy_network, caplog):
    """A function: the lines about a run with these keys of train, without the one about sizes."""

    def run(num_replicas=1, network=None, sections=None, assigner="multibox", **train):
        config = toy_config(**train).model_dump(mode="json")
        for name, values in (sections or {}).items():
            config[name] = values
        with caplog.at_level(logging.INFO, logger="absl"):
            config = check_config(config, "toy")
            advice.log_settings(config, network or toy_network(), num_replicas)
        first, *others = [line for line in caplog.messages if "augmentation" not in line]
        # 240 + 5 of the convolution, 20 of batch norm, 6 * 7 of the heads.
        assert first.startswith(
            f"6 default boxes (boxes.assigner: {assigner}), 0.00 million parameters, oneDNN o"
        )
        return others

    return run


LARGE = {"batch_size": 16}


def test_nothing_to_say(lines):
    assert lines(**LARGE) == []


def test_the_scaled_rate(lines):
    (line,) = lines(learning_rate=0.1, base_batch=8, **LARGE)
    assert line == "learning rate 0.2: 0.1 for a batch of 8, scaled to 16"


@pytest.mark.parametrize(
    ("boxes", "neck", "assigner"),
    [("auto", "none", "multibox"), ("auto", "fpn", "atss"), ("multibox", "fpn", "multibox")],
)
def test_which_assigner_auto_means(lines, boxes, neck, assigner):
    sections = {"boxes": {"preset": "paper", "assigner": boxes}, "model": {"neck": neck}}
    assert lines(assigner=assigner, sections=sections, **LARGE) == []


@pytest.mark.parametrize(("decay", "num_steps"), [(0.99, 501), (0.5, 11), (0.5, 9), (0.666, 15)])
def test_averages_that_forget_the_start(lines, decay, num_steps):
    assert lines(ema=decay, steps=num_steps, **LARGE) == []


def test_averages_that_are_too_long_for_the_run(lines):
    (line,) = lines(ema=0.99, steps=400, **LARGE)
    assert line == (
        "train.ema 0.99 averages over about 100 steps, which is long for a run of 400: the "
        "averaged weights will lag behind; 0.987 would fit"
    )


@pytest.mark.parametrize(
    ("num_replicas", "train", "images", "remedy"),
    [
        (1, {"batch_size": 7}, 7, "larger batches or train.bn=frozen"),
        (2, {"batch_size": 14}, 7, "larger batches or train.bn=frozen, or train.bn=synchronized"),
        (1, {"batch_size": 16, "accumulate": 4}, 4, "larger batches or train.bn=frozen"),
        (2, {"batch_size": 6, "bn": "synchronized"}, 3, "larger batches or train.bn=frozen"),
    ],
)
def test_batches_that_are_too_small_for_batch_norm(lines, num_replicas, train, images, remedy):
    (line,) = lines(num_replicas, **train)
    assert line == (
        f"batch norm sees {images} images at a time, fewer than 8: its statistics are noisy; "
        f"consider {remedy}"
    )


@pytest.mark.parametrize(
    ("num_replicas", "train"),
    [
        (1, {"batch_size": 8}),
        (2, {"batch_size": 8, "bn": "synchronized"}),
    ],
)
def test_batches_that_are_large_enough(lines, num_replicas, train):
    assert lines(num_replicas, **train) == []


def test_a_network_whose_batch_norm_is_frozen(lines, toy_network):
    network = toy_network()
    network.model.get_layer("bn").trainable = False
    assert lines(network=network, batch_size=2) == []


def test_no_augmentation_is_said(toy_config, toy_network, caplog):
    augmented = check_config(
        {**toy_config(**LARGE).model_dump(mode="json"), "data": {"augment": "light"}}, "light"
    )
    with caplog.at_level(logging.INFO, logger="absl"):
        advice.log_settings(augmented, toy_network(), 1)
    assert "data.augment" not in caplog.text
    with caplog.at_level(logging.INFO, logger="absl"):
        advice.log_settings(toy_config(**LARGE), toy_network(), 1)
    assert "no augmentation (data.augment: none)" in caplog.text


@pytest.mark.parametrize(
    ("sections", "train", "key"),
    [
        ({"watch": {"log_every": 20}}, {"steps_per_call": 100}, "train.steps_per_call 100 has the"),
        ({"loss": {"normalizer": "nvidia"}}, {}, "loss.normalizer=nvidia goes with loss.min_neg"),
        ({"eval": {"pre_nms_top_k": 5}}, {}, "eval.max_detections 200 cannot be reached: .* 10 "),
        ({"eval": {"pre_nms_top_k": 50, "class_agnostic": True}}, {}, "pre_nms_top_k lets 50 into"),
        ({}, {"bn": "frozen"}, "train.bn=frozen keeps the statistics"),
    ],
)
def test_settings_that_look_unwise(lines, sections, train, key):
    (line,) = lines(sections=sections, **LARGE, **train)
    assert re.search(key, line), line


@pytest.mark.parametrize(
    ("sections", "train"),
    [
        ({"watch": {"log_every": 20}}, {"steps_per_call": 20}),
        ({"loss": {"normalizer": "torchvision", "min_negatives": 0}}, {}),
        ({"eval": {"pre_nms_top_k": 100}}, {}),
        ({"init_from": "runs/other"}, {"bn": "frozen"}),
    ],
)
def test_settings_that_fit(lines, sections, train):
    assert lines(sections=sections, **LARGE, **train) == []
