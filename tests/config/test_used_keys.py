"""Every key of the recipe is used by a config or a preset, or stands in a list here."""

import pathlib

import yaml

from ssd_tf.config import AUGMENT_PRESETS, KEYS

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPE = ("train.", "loss.", "data.augment.")
# They say how a run is executed, not what it learns.
OPERATIONAL = {
    "train.accumulate",
    "train.deterministic",
    "train.keep_checkpoints",
    "train.precision",
    "train.seed",
    "train.steps_per_call",
    "train.strategy",
    "train.xla",
}
# Numbers of the method, on which all references agree.
METHOD = {"loss.localization_weight", "loss.negatives_per_positive"}
# What benchmarks/recipe.py compares with the recipes of the configs.
COMPARED = {
    "loss.box_loss",
}


def paths(values, prefix=""):
    """The paths of all keys in plain values, those of sections included."""
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def used_keys():
    for file in CONFIGS.glob("*.yaml"):
        yield from paths(yaml.safe_load(file.read_text()))
    for values in AUGMENT_PRESETS.values():
        yield from paths(values, "data.augment.")


def test_paths():
    assert list(paths({})) == []
    assert list(paths({"a": {"b": {"c": [1]}}, "d": None})) == ["a", "a.b", "a.b.c", "d"]


def test_what_no_config_and_no_preset_uses():
    recipe = {path for path in KEYS if path.startswith(RECIPE)}
    assert {"train.steps", "loss.normalizer", "data.augment.crop.min_iou"} <= recipe
    assert recipe - set(used_keys()) == OPERATIONAL | METHOD | COMPARED
