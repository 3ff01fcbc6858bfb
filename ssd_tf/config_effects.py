"""Which keys have an effect only together with others.

A config whose author set a key that does nothing is refused: he expects something of it.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

_UNCHANGED = (1.0, 1.0)  # a range of factors


class Condition(NamedTuple):
    """When keys have an effect.

    switches: the keys that decide it. holds: a function Config -> bool. otherwise: the rest of the
    sentence "KEY has no effect ...", in which `{train.optimizer}` stands for a value.
    """

    keys: tuple[str, ...]
    switches: tuple[str, ...]
    holds: Callable
    otherwise: str


def _distorts_colors(config):
    augment = config.data.augment
    factors = (augment.brightness_factor, augment.contrast, augment.saturation)
    return bool(augment.brightness or augment.hue_degrees) or factors != (_UNCHANGED,) * 3


def _trains_backbone(config):
    backbone = config.model.backbone
    return backbone.frozen_stages < 5 or config.train.unfreeze_step is not None


_AUGMENT = "data.augment."
_COLORS = tuple(
    _AUGMENT + name
    for name in ("brightness", "brightness_factor", "contrast", "saturation", "hue_degrees")
)
_SCHEDULE = ("train.schedule",)
_STEP_DECAY = (*_SCHEDULE, "train.decay_steps")
CONDITIONS = (
    Condition(
        ("train.momentum",),
        ("train.optimizer",),
        lambda config: config.train.optimizer in ("SGD", "RMSprop"),
        "with {train.optimizer}, only with SGD and RMSprop",
    ),
    Condition(
        ("train.nesterov",),
        ("train.optimizer",),
        lambda config: config.train.optimizer == "SGD",
        "with {train.optimizer}, only with SGD",
    ),
    Condition(
        ("train.beta_1", "train.beta_2"),
        ("train.optimizer",),
        lambda config: config.train.optimizer not in ("SGD", "RMSprop"),
        "with {train.optimizer}",
    ),
    Condition(
        ("train.base_batch_rule",),
        ("train.base_batch",),
        lambda config: config.train.base_batch is not None,
        "without base_batch",
    ),
    Condition(
        ("train.decay_steps",),
        _SCHEDULE,
        lambda config: config.train.schedule == "step",
        "with the schedule {train.schedule}, only with step",
    ),
    Condition(
        ("train.decay_factor",),
        _STEP_DECAY,
        lambda config: config.train.schedule == "step" and bool(config.train.decay_steps),
        "without the schedule step and decay_steps",
    ),
    Condition(
        ("train.decay_power",),
        _SCHEDULE,
        lambda config: config.train.schedule == "polynomial",
        "with the schedule {train.schedule}, only with polynomial",
    ),
    Condition(
        ("train.final_rate",),
        _SCHEDULE,
        lambda config: config.train.schedule != "step",
        "with the schedule step",
    ),
    Condition(
        ("train.warmup_from",),
        ("train.warmup_steps",),
        lambda config: config.train.warmup_steps > 0,
        "without warmup_steps",
    ),
    Condition(
        ("train.bn_momentum",),
        ("train.bn",),
        lambda config: config.train.bn != "frozen",
        "with bn frozen",
    ),
    Condition(
        ("train.backbone_rate",),
        ("model.backbone.frozen_stages", "train.unfreeze_step"),
        _trains_backbone,
        "while the whole backbone is frozen",
    ),
    Condition(
        ("train.unfreeze_step",),
        ("model.backbone.frozen_stages",),
        lambda config: config.model.backbone.frozen_stages > 0,
        "without model.backbone.frozen_stages",
    ),
    Condition(
        ("data.shard",),
        ("train.strategy",),
        lambda config: config.train.strategy in ("auto", "multi_worker"),
        "with the strategy {train.strategy}, only with several workers",
    ),
    Condition(
        ("loss.negatives_per_positive", "loss.min_negatives"),
        ("loss.focal_gamma",),
        lambda config: config.loss.focal_gamma is None,
        "with the focal loss, which takes every box instead of mined negatives",
    ),
    Condition(
        ("loss.focal_alpha",),
        ("loss.focal_gamma",),
        lambda config: config.loss.focal_gamma is not None,
        "without loss.focal_gamma (2 in the paper of the focal loss)",
    ),
    Condition(
        (_AUGMENT + "color_probability",),
        _COLORS,
        _distorts_colors,
        "without a range of brightness, contrast, saturation or hue",
    ),
    Condition(
        _COLORS,
        (_AUGMENT + "color_probability",),
        lambda config: config.data.augment.color_probability > 0,
        "with color_probability 0",
    ),
    Condition(
        (_AUGMENT + "contrast_about",),
        (_AUGMENT + "contrast",),
        lambda config: config.data.augment.contrast != _UNCHANGED,
        "without a range of contrast",
    ),
    Condition(
        (_AUGMENT + "saturation_by",),
        (_AUGMENT + "saturation",),
        lambda config: config.data.augment.saturation != _UNCHANGED,
        "without a range of saturation",
    ),
    Condition(
        (_AUGMENT + "hue_wraps",),
        (_AUGMENT + "hue_degrees",),
        lambda config: config.data.augment.hue_degrees > 0,
        "without hue_degrees",
    ),
    Condition(
        (_AUGMENT + "zoom_out_max",),
        (_AUGMENT + "zoom_out_probability",),
        lambda config: config.data.augment.zoom_out_probability > 0,
        "without zoom_out_probability",
    ),
    Condition(
        (_AUGMENT + "zoom_out_probability",),
        (_AUGMENT + "zoom_out_max",),
        lambda config: config.data.augment.zoom_out_max > 1,
        "with zoom_out_max 1",
    ),
    Condition(
        tuple(_AUGMENT + name for name in ("crop_rule", "crop_scale", "crop_aspect", "crop_tries")),
        (_AUGMENT + "crop_min_iou",),
        lambda config: bool(config.data.augment.crop_min_iou),
        "without crops, of which crop_min_iou lists the modes",
    ),
    Condition(
        ("train.bn",),
        ("train.strategy",),
        lambda config: not (config.train.bn == "synchronized" and config.train.strategy == "one"),
        "as synchronized with train.strategy=one, which has one replica",
    ),
)
# What a config must not say: a function Config -> bool, and the error.
CONTRADICTIONS = (
    (
        lambda config: (
            config.loss.focal_gamma is None
            and config.loss.negatives_per_positive == config.loss.min_negatives == 0
        ),
        "loss: negatives_per_positive and min_negatives are both 0, so no background is trained",
    ),
    (
        lambda config: config.loss.focal_alpha in (0, 1),
        "loss.focal_alpha: expected a number between 0 and 1, as 0 gives objects and 1 gives the "
        "background no weight",
    ),
    (
        lambda config: config.train.bn != "frozen" and config.train.bn_momentum == 1,
        "train.bn_momentum: expected less than 1, with which the statistics never move; "
        "train.bn=frozen keeps them",
    ),
    (
        lambda config: config.train.optimizer in ("SGD", "RMSprop") and config.train.momentum == 1,
        "train.momentum: expected less than 1, with which old gradients never fade",
    ),
    (
        lambda config: any(
            later <= step for step, later in itertools.pairwise(config.train.decay_steps)
        ),
        "train.decay_steps: expected rising steps",
    ),
    (
        lambda config: (
            bool(config.train.decay_steps)
            and min(config.train.decay_steps) <= config.train.warmup_steps
        ),
        "train.decay_steps: expected steps after train.warmup_steps, until which the rate rises",
    ),
    (
        lambda config: bool(config.train.decay_steps) and config.train.decay_factor in (0, 1),
        "train.decay_factor: expected a number between 0 and 1, as 0 ends the training and 1 "
        "changes nothing",
    ),
    (
        lambda config: config.train.warmup_steps > 0 and config.train.warmup_from == 1,
        "train.warmup_from: expected less than 1, from which nothing rises",
    ),
    (
        lambda config: config.eval.score_floor == 1,
        "eval.score_floor: expected less than 1, as no score is above it",
    ),
)


class Idle(NamedTuple):
    """A key without effect, the condition that does not hold, and the sentence that says so."""

    key: str
    condition: Condition
    reason: str


def find_idle(config, starting_values) -> list[Idle]:
    """The keys of a Config that are not at their starting values and have no effect.

    starting_values: a Config with the defaults, and with the values of the same presets.
    """
    found = []
    for condition in CONDITIONS:
        if condition.holds(config):
            continue
        otherwise = condition.otherwise.format(train=config.train)
        found += [
            Idle(key, condition, f"{key} has no effect {otherwise}")
            for key in condition.keys
            if value_at(config, key) != value_at(starting_values, key)
        ]
    return found


def value_at(config, key):
    """The value of a key such as train.steps."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def contradictions(config) -> list[str]:
    """What the Config says that cannot be meant."""
    return [message for applies, message in CONTRADICTIONS if applies(config)]


def is_inherited(idle: Idle, layers) -> bool:
    """Whether a file inherits an idle key from another file and itself makes it idle.

    layers: the values of the bases, of the file and with the overrides, each merged over those
    before it. The last that set one of the condition's switches comes after the one that set the
    key.
    """
    switches = idle.condition.switches
    if idle.key.startswith(_AUGMENT):
        switches = (*switches, _AUGMENT + "preset")
    return _last_change(idle.key, layers) < max(_last_change(each, layers) for each in switches)


def _last_change(key, layers):
    """The index of the last layer that changed a key; -1 if none did."""
    values = [None, *(_plain_value(layer, key) for layer in layers)]
    changes = [index for index in range(len(layers)) if values[index + 1] != values[index]]
    return max(changes, default=-1)


def _plain_value(values, key):
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
