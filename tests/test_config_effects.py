"""Keys that do nothing, and settings that contradict each other, are refused."""

import pathlib

import pydantic
import pytest
import yaml

from ssd_tf import config_effects
from ssd_tf.config import (
    Augment,
    Loss,
    Train,
    check_config,
    load_config,
    load_run_config,
    save_config,
)
from ssd_tf.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[1]

# Keys that always have an effect, whatever the others are.
ALWAYS = {
    "train": "steps batch_size accumulate seed strategy precision steps_per_call xla deterministic "
    "optimizer learning_rate base_batch weight_decay bias_rate schedule warmup_steps clip_norm ema "
    "checkpoint_every keep_checkpoints",
    "data.augment": "preset channel_shuffle_probability crop_min_iou flip_probability "
    "vertical_flip_probability",
    "loss": "localization_weight score_activation focal_gamma label_smoothing box_loss normalizer",
}


@pytest.mark.parametrize(
    ("prefix", "section"), [("train", Train), ("data.augment", Augment), ("loss", Loss)]
)
def test_every_key_is_conditional_or_known_to_always_have_an_effect(prefix, section):
    conditional = {key for condition in config_effects.CONDITIONS for key in condition.keys}
    always = {f"{prefix}.{name}" for name in ALWAYS[prefix].split()}
    found = {key for key in conditional if key.rpartition(".")[0] == prefix} | always
    assert found == {f"{prefix}.{name}" for name in section.model_fields}
    assert not conditional & always


def values(text):
    """Plain values with default boxes, on a backbone with batch norm."""
    base = {"boxes": {"preset": "paper"}, "model": {"backbone": {"name": "plain"}}}
    return base | yaml.safe_load(text)


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        check_config(values(text), "test")
    assert "\n" not in str(caught.value)
    return str(caught.value)


IDLE = {
    "train.decay_steps": "train: {schedule: cosine, decay_steps: [10]}",
    "train.decay_factor": "train: {decay_factor: 0.5}",
    "train.warmup_from": "train: {warmup_from: 0.3}",
    "train.bn_momentum": "train: {bn: frozen, bn_momentum: 0.97}",
    "train.backbone_rate": "{model: {backbone: {name: plain, frozen_stages: 5}}, "
    "train: {backbone_rate: 0.1}}",
    "train.unfreeze_step": "train: {unfreeze_step: 9}",
    "train.beta_1": "train: {optimizer: RMSprop, beta_1: 0.8}",
    "data.shard": "{data: {shard: file}, train: {strategy: one}}",
    "loss.focal_alpha": "loss: {focal_alpha: 0.3}",
    "data.augment.color_probability": "data: {augment: {color_probability: 1}}",
    "data.augment.brightness": "data: {augment: {brightness: 9, color_probability: 0}}",
    "data.augment.contrast_about": "data: {augment: {brightness: 9, contrast_about: mean}}",
    "data.augment.saturation_by": "data: {augment: {saturation_by: gray}}",
    "data.augment.hue_wraps": "data: {augment: {hue_wraps: false}}",
    "data.augment.zoom_out_max": "data: {augment: {preset: light, zoom_out_max: 2}}",
    "data.augment.zoom_out_probability": "data: {augment: {preset: caffe, zoom_out_max: 1, "
    "zoom_out_probability: 0.7}}",
    "data.augment.crop_rule": "data: {augment: {crop_rule: torchvision}}",
    "data.augment.crop_scale": "data: {augment: {flip_probability: 0.5, crop_scale: [0.5, 1]}}",
    "data.augment.crop_tries": "data: {augment: {preset: caffe, crop_min_iou: [], crop_tries: 3}}",
}


@pytest.mark.parametrize(("key", "text"), IDLE.items())
def test_a_key_without_effect_is_refused(key, text):
    assert f"{key} has no effect " in refusal(text)


def test_synchronized_batch_norm_wants_more_than_one_replica():
    assert "train.bn has no effect as synchronized" in refusal(
        "train: {bn: synchronized, strategy: one}"
    )
    check_config(values("train: {bn: synchronized}"), "test")
    check_config(values("train: {bn: frozen, strategy: one}"), "test")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "train: {decay_steps: [10], decay_factor: 0.5}",
        "train: {warmup_steps: 5, warmup_from: 0.3}",
        "train: {bn: frozen, bn_momentum: 0.9}",  # the default says nothing
        "data: {augment: {preset: caffe, hue_degrees: 0}}",  # hue_wraps is the preset's
        "data: {augment: {preset: torchvision, contrast: [1, 1], color_probability: 1}}",
        "data: {augment: {preset: torchvision, color_probability: 0}}",
        "data: {augment: {preset: light, crop_min_iou: []}}",
    ],
)
def test_defaults_and_values_of_presets_are_not_refused(text, tmp_path):
    config = check_config(values(text), "test")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


@pytest.fixture
def derived(tmp_path):
    """A function: the config of a file with this base, with overrides."""

    def load(base, text, overrides=()):
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(values(base)))
        (tmp_path / "top.yaml").write_text(f"base: base.yaml\n{text}\n")
        return load_config(tmp_path / "top.yaml", overrides)

    return load


DECAY = "train: {decay_steps: [10, 20], decay_factor: 0.5, warmup_steps: 5, warmup_from: 0.3}"


def test_what_a_file_inherits_goes_when_the_file_changes_what_it_belongs_to(derived):
    train = derived(DECAY, "train: {schedule: cosine, warmup_steps: 0}").train
    assert (train.decay_steps, train.decay_factor, train.warmup_from) == ((), 0.1, 0.001)


def test_overrides_replace_what_belongs_to_the_file(derived):
    overrides = ["train.schedule=cosine", "train.warmup_steps=0", "train.bn=frozen"]
    train = derived("{}", DECAY.replace("{", "{bn_momentum: 0.97, "), overrides).train
    assert (train.decay_steps, train.decay_factor, train.warmup_from) == ((), 0.1, 0.001)
    assert (train.bn, train.bn_momentum) == ("frozen", 0.9)


def test_overrides_replace_an_augmentation_with_its_preset(derived):
    base = "data: {augment: {preset: light, crop_scale: [0.5, 1], brightness: 9}}"
    augment = derived(base, "", ["data.augment.preset=none"]).data.augment
    assert (augment.crop_scale, augment.crop_min_iou, augment.brightness) == ((0.3, 1.0), (), 9)


@pytest.mark.parametrize(
    ("base", "text", "overrides", "key"),
    [
        ("{}", "train: {schedule: cosine, decay_steps: [10]}", [], "train.decay_steps"),
        ("train: {schedule: cosine}", "train: {decay_steps: [10]}", [], "train.decay_steps"),
        ("train: {schedule: cosine}", "", ["train.decay_steps=[10]"], "train.decay_steps"),
        (
            "data: {augment: {flip_probability: 0.5, crop_scale: [0.5, 1]}}",
            "",
            ["data.augment.vertical_flip_probability=0.5"],
            "data.augment.crop_scale",
        ),
        ("{}", "", ["train.bn=frozen", "train.bn_momentum=0.5"], "train.bn_momentum"),
    ],
)
def test_what_the_author_adds_is_refused(derived, base, text, overrides, key):
    with pytest.raises(ConfigError, match=f"{key} has no effect"):
        derived(base, text, overrides)


def test_what_goes_contradicts_nothing(derived):
    """These decay_steps lie within the warm-up, and belong to another schedule."""
    train = derived(DECAY, "", ["train.schedule=cosine", "train.warmup_steps=15"]).train
    assert (train.decay_steps, train.warmup_steps) == ((), 15)


def test_no_decay_for_a_short_trial(derived):
    train = derived(DECAY, "", ["train.decay_steps=[]"]).train
    assert (train.decay_steps, train.decay_factor) == ((), 0.1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("loss: {negatives_per_positive: 0, min_negatives: 0}", "min_negatives"),
        ("loss: {focal_gamma: 2, focal_alpha: 1}", "loss.focal_alpha"),
        ("loss: {focal_gamma: 2, focal_alpha: 0}", "loss.focal_alpha"),
        ("train: {bn_momentum: 1}", "train.bn_momentum"),
        ("train: {momentum: 1}", "train.momentum"),
        ("train: {optimizer: RMSprop, momentum: 1}", "train.momentum"),
        ("train: {decay_steps: [20, 20]}", "train.decay_steps"),
        ("train: {decay_steps: [20, 10]}", "train.decay_steps"),
        ("train: {decay_steps: [10], warmup_steps: 10}", "train.decay_steps"),
        ("train: {decay_steps: [3, 20], warmup_steps: 10}", "train.decay_steps"),
        ("train: {decay_steps: [10], decay_factor: 1}", "train.decay_factor"),
        ("train: {decay_steps: [10], decay_factor: 0}", "train.decay_factor"),
        ("train: {warmup_steps: 10, warmup_from: 1}", "train.warmup_from"),
        ("eval: {score_floor: 1}", "eval.score_floor"),
    ],
)
def test_contradictions_are_refused(text, key):
    assert key in refusal(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {steps: true}", "train.steps"),
        ("train: {learning_rate: on}", "train.learning_rate"),
        ("train: {decay_steps: [yes]}", "train.decay_steps"),
        ("watch: {images: off}", "watch.images"),
        ("data: {augment: {flip_probability: true}}", "data.augment.flip_probability"),
        ("data: {augment: {contrast: [no, 2]}}", "data.augment.contrast"),
        ("eval: {size_limit: true}", "eval.size_limit"),
    ],
)
def test_a_switch_is_no_number(text, key):
    assert f"{key}: expected no switch" in refusal(text)


def test_the_config_of_a_run_may_say_what_a_file_may_not(tmp_path):
    text = yaml.safe_dump(values(IDLE["train.bn_momentum"]))
    (tmp_path / "config.yaml").write_text(text)
    assert load_run_config(tmp_path).train.bn_momentum == 0.97
    assert load_run_config(tmp_path, ["eval.nms_iou=0.6"]).eval.nms_iou == 0.6
    with pytest.raises(ConfigError, match=r"^--set: eval.score_floor: expected less than 1"):
        load_run_config(tmp_path, ["eval.score_floor=1"])
    with pytest.raises(ConfigError, match=r"config.yaml: train.bn_momentum has no effect"):
        load_config(tmp_path / "config.yaml")


def test_the_overrides_of_a_run_are_not_blamed_for_what_it_says(tmp_path):
    text = yaml.safe_dump(values("train: {bn_momentum: 1}"))
    (tmp_path / "config.yaml").write_text(text)
    assert load_run_config(tmp_path, ["eval.nms_iou=0.6"]).train.bn_momentum == 1


def test_the_conditions_name_keys_that_exist():
    config = check_config(values("{}"), "test")
    for condition in config_effects.CONDITIONS:
        for key in (*condition.keys, *condition.switches):
            config_effects.value_at(config, key)  # or AttributeError
    assert isinstance(config, pydantic.BaseModel)
