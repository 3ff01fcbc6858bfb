"""Keys that do nothing, and settings that contradict each other, are rejected."""

import pytest
import yaml

from ssd_tf.config import KEYS, Augment, check_config, load_config, load_run_config, save_config
from ssd_tf.errors import ConfigError


def test_what_a_key_needs_are_keys():
    for path, key in KEYS.items():
        for needs in key.needs:
            assert set(needs.switches) <= set(KEYS), path


def values(text):
    """Plain values with default boxes, on a backbone with batch norm."""
    base = {"boxes": {"preset": "paper"}, "model": {"backbone": {"name": "plain"}}}
    return base | yaml.safe_load(text)


def rejection(text):
    with pytest.raises(ConfigError) as caught:
        check_config(values(text), "test")
    assert "\n" not in str(caught.value)
    return str(caught.value)


IDLE = {
    "train.decay_steps": "train: {schedule: cosine, decay_steps: [10]}",
    "train.warmup_from": "train: {warmup_from: 0.3}",
    "train.bn_momentum": "train: {bn: frozen, bn_momentum: 0.97}",
    "data.shard": "{data: {shard: file}, train: {strategy: one}}",
    "loss.focal_alpha": "loss: {focal_alpha: 0.3}",
    "data.augment.color.probability": "data: {augment: {color: {probability: 1}}}",
    "data.augment.color.brightness": "data: {augment: {color: {brightness: 9, probability: 0}}}",
    "data.augment.color.contrast_about": "data: {augment: {color: {brightness: 9, "
    "contrast_about: mean}}}",
    "data.augment.color.saturation_by": "data: {augment: {color: {saturation_by: gray}}}",
    "data.augment.color.hue_wraps": "data: {augment: {color: {hue_wraps: false}}}",
    "data.augment.crop.sampler": "data: {augment: {crop: {sampler: torchvision}}}",
    "data.augment.crop.scale": "data: {augment: {flip_probability: 0.5, crop: {scale: [0.5, 1]}}}",
    "data.augment.crop.tries": "data: {augment: {preset: caffe, crop: {min_iou: [], tries: 3}}}",
}


@pytest.mark.parametrize(("key", "text"), IDLE.items())
def test_a_key_without_effect_is_rejected(key, text):
    assert f"{key} has no effect " in rejection(text)


def test_synchronized_batch_norm_wants_more_than_one_replica():
    assert "train.bn has no effect as synchronized" in rejection(
        "train: {bn: synchronized, strategy: one}"
    )
    check_config(values("train: {bn: synchronized}"), "test")
    check_config(values("train: {bn: frozen, strategy: one}"), "test")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "train: {decay_steps: [10]}",
        "train: {warmup_steps: 5, warmup_from: 0.3}",
        "train: {bn: frozen, bn_momentum: 0.9}",  # the default says nothing
        # hue_wraps is the preset's
        "data: {augment: {preset: caffe, color: {hue_degrees: 0}}}",
        "data: {augment: {preset: torchvision, color: {contrast: [1, 1], probability: 1}}}",
        "data: {augment: {preset: torchvision, color: {probability: 0}}}",
        "data: {augment: {preset: light, crop: {min_iou: []}}}",
    ],
)
def test_defaults_and_values_of_presets_are_not_rejected(text, tmp_path):
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


DECAY = "train: {decay_steps: [10, 20], warmup_steps: 5, warmup_from: 0.3}"


def test_what_a_file_inherits_goes_when_the_file_changes_what_it_belongs_to(derived):
    train = derived(DECAY, "train: {schedule: cosine, warmup_steps: 0}").train
    assert (train.decay_steps, train.warmup_from) == ((), 0.001)


def test_a_base_may_take_the_effect_away_from_what_its_own_base_sets(tmp_path):
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(values(DECAY)))
    (tmp_path / "second.yaml").write_text("base: first.yaml\ntrain: {schedule: cosine}\n")
    (tmp_path / "third.yaml").write_text("base: second.yaml\n")
    assert load_config(tmp_path / "third.yaml").train.decay_steps == ()


def test_overrides_replace_what_belongs_to_the_file(derived):
    overrides = ["train.schedule=cosine", "train.warmup_steps=0", "train.bn=frozen"]
    train = derived("{}", DECAY.replace("{", "{bn_momentum: 0.97, "), overrides).train
    assert (train.decay_steps, train.warmup_from) == ((), 0.001)
    assert (train.bn, train.bn_momentum) == ("frozen", 0.9)


@pytest.mark.parametrize("spelling", ["data.augment=", "data.augment.preset="])
def test_another_preset_replaces_the_inherited_augmentation(derived, spelling):
    base = "data: {augment: {preset: light, crop: {scale: [0.5, 1]}, color: {brightness: 9}}}"
    assert derived(base, "", [f"{spelling}none"]).data.augment == Augment()
    caffe = derived(base, "", [f"{spelling}caffe", "data.augment.flip_probability=0"]).data.augment
    assert caffe == Augment(preset="caffe", flip_probability=0)
    assert (
        derived(base, "", ["data.augment.flip_probability=0", f"{spelling}caffe"]).data.augment
        == caffe
    )
    # The same preset again keeps what the base has changed.
    light = derived(base, "", [f"{spelling}light"]).data.augment
    assert (light.crop.scale, light.color.brightness) == ((0.5, 1.0), 9)
    assert derived("{}", "", [f"{spelling}light"]).data.augment == Augment(preset="light")
    base = "data: {augment: {vertical_flip_probability: 0.5}}"
    assert derived(base, "", [f"{spelling}light"]).data.augment == Augment(preset="light")


@pytest.mark.parametrize(
    ("base", "text", "overrides", "key"),
    [
        ("{}", "train: {schedule: cosine, decay_steps: [10]}", [], "train.decay_steps"),
        ("train: {schedule: cosine}", "train: {decay_steps: [10]}", [], "train.decay_steps"),
        ("train: {schedule: cosine}", "", ["train.decay_steps=[10]"], "train.decay_steps"),
        (
            "data: {augment: {flip_probability: 0.5, crop: {scale: [0.5, 1]}}}",
            "",
            ["data.augment.vertical_flip_probability=0.5"],
            "data.augment.crop.scale",
        ),
        ("{}", "", ["train.bn=frozen", "train.bn_momentum=0.5"], "train.bn_momentum"),
    ],
)
def test_what_the_author_adds_is_rejected(derived, base, text, overrides, key):
    with pytest.raises(ConfigError, match=f"{key} has no effect"):
        derived(base, text, overrides)


def test_what_goes_contradicts_nothing(derived):
    """These decay_steps lie within the warm-up, and belong to another schedule."""
    train = derived(DECAY, "", ["train.schedule=cosine", "train.warmup_steps=15"]).train
    assert (train.decay_steps, train.warmup_steps) == ((), 15)


def test_what_needs_a_key_that_goes_goes_with_it(derived, tmp_path):
    base = (
        "data: {augment: {color: {hue_degrees: 18, hue_wraps: false, contrast: [0.5, 1.5], "
        "contrast_about: mean}}}"
    )
    config = derived(base, "data: {augment: {color: {probability: 0}}}")
    assert config.data.augment == Augment()
    save_config(config, tmp_path / "config.yaml")
    assert load_run_config(tmp_path) == config


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("loss: {negatives_per_positive: 0, min_negatives: 0}", "min_negatives"),
        ("loss: {focal_gamma: 2, focal_alpha: 1}", "loss.focal_alpha"),
        ("loss: {focal_gamma: 2, focal_alpha: 0}", "loss.focal_alpha"),
        ("train: {bn_momentum: 1}", "train.bn_momentum"),
        ("train: {decay_steps: [20, 20]}", "train.decay_steps"),
        ("train: {decay_steps: [20, 10]}", "train.decay_steps"),
        ("train: {decay_steps: [10], warmup_steps: 10}", "decay_steps"),
        ("train: {decay_steps: [3, 20], warmup_steps: 10}", "decay_steps"),
        ("train: {warmup_steps: 10, warmup_from: 1}", "train.warmup_from"),
        ("eval: {score_floor: 1}", "eval.score_floor"),
    ],
)
def test_contradictions_are_rejected(text, key):
    assert key in rejection(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train: {steps: true}", "train.steps"),
        ("train: {learning_rate: on}", "train.learning_rate"),
        ("train: {decay_steps: [yes]}", "train.decay_steps"),
        ("watch: {images: off}", "watch.images"),
        ("data: {augment: {flip_probability: true}}", "data.augment.flip_probability"),
        ("data: {augment: {color: {contrast: [no, 2]}}}", "data.augment.color.contrast"),
        ("eval: {size_limit: true}", "eval.size_limit"),
    ],
)
def test_a_switch_is_no_number(text, key):
    assert f"{key}: expected no switch" in rejection(text)


def test_the_config_of_a_run_is_checked_as_any_other(tmp_path):
    text = yaml.safe_dump(values("eval: {nms_iou: 0.3}"))
    (tmp_path / "config.yaml").write_text(text)
    assert load_run_config(tmp_path).eval.nms_iou == 0.3
    assert load_run_config(tmp_path, ["eval.nms_iou=0.6"]).eval.nms_iou == 0.6
    with pytest.raises(ConfigError, match=r"eval.score_floor"):
        load_run_config(tmp_path, ["eval.score_floor=1"])
    with pytest.raises(ConfigError, match=r"train.bn_momentum has no effect"):
        load_run_config(tmp_path, ["train={bn: frozen, bn_momentum: 0.97}"])


def test_the_results_of_a_quickstart_are_no_run_folder(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for folder in (tmp_path, run):
        (folder / "config.yaml").write_text(yaml.safe_dump(values("eval: {nms_iou: 0.3}")))
    with pytest.raises(ConfigError, match=rf"got {tmp_path}; .* {run}\?"):
        load_run_config(tmp_path)
    assert load_run_config(run).eval.nms_iou == 0.3


def test_an_inherited_key_of_another_backbone_is_left_out(derived):
    base = "{model: {backbone: {name: mobilenet, alpha: 0.25, first_stride: 8}}}"
    backbone = derived(base, "model: {backbone: {name: resnet18}}").model.backbone
    assert (backbone.alpha, backbone.first_stride) == (0.25, 16)
