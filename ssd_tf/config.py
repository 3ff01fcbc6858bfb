"""The config of an experiment: its keys, ranges and defaults, checked by pydantic.

The config rule: builders (of the network, the input pipeline, the training step, the exports) read
a Config, or the section that they are about. The mathematics below them (boxes/, losses,
post-processing, crops, colors, images, records, schedules) receives numbers and arrays, never a
config or a section, and repeats no default of this file: each default value lives in one file.
"""

import copy
import difflib
import functools
import json
import pathlib
import re
import typing
from typing import Annotated, Literal

import pydantic
import yaml
from absl import logging
from pydantic import Field

from ssd_tf import config_effects, files
from ssd_tf.config_files import merge, read_layers
from ssd_tf.errors import ConfigError
from ssd_tf.user_files import suggest_path

PositiveInt = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(gt=0, le=1.5)]
Variances = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]


def _check_order(limits):
    if limits[0] > limits[1]:
        raise ValueError("expected the smaller number first")
    return limits


Range = Annotated[tuple[float, float], pydantic.AfterValidator(_check_order)]
Factors = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat], pydantic.AfterValidator(_check_order)
]

BackboneName = Literal[
    "vgg16",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "plain",
]
OptimizerName = Literal["SGD", "RMSprop", "Adam", "AdamW", "Lamb", "Lion"]
BoxPreset = Literal[
    "paper",
    "caffe_voc",
    "caffe_coco",
    "torchvision",
    "torchvision_ssdlite",
    "nvidia",
    "od_api",
    "od_api_fpn",
]


class Section(pydantic.BaseModel):
    """A group of keys. Unknown keys are errors, and values cannot be changed."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _refuse_switches_as_numbers(cls, value, info):
        """Or `steps: true` would be one step."""
        values = value if isinstance(value, (list, tuple)) else [value]
        is_switch = cls.model_fields[info.field_name].annotation is bool
        if not is_switch and any(isinstance(item, bool) for item in values):
            raise ValueError("expected no switch (true, false, on, off, yes, no)")
        return value

    def refuse_without_effect(self, keys, reason):
        """Raise ValueError for a key that has no effect and is not at its default.

        Defaults pass, as saved configs spell out every one of them.
        """
        for key in keys:
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                raise ValueError(
                    f"{key} has no effect {reason}: leave it out (default: {json.dumps(default)})"
                )


class Backbone(Section):
    name: BackboneName = "vgg16"
    # Width multiplier; vgg16 has none.
    alpha: PositiveFloat = 1.0
    # Stride of the finest feature map; for mobilenets and plain without a neck.
    first_stride: Literal[8, 16] = 16
    # How strided convolutions are padded, on mobilenet and mobilenet_v2. keras: as in
    # keras.applications; same: TensorFlow's SAME, as in the TF Object Detection API; torch: by half
    # the kernel on every side.
    padding: Literal["keras", "same", "torch"] = "keras"
    # Of the narrowest layer of mobilenet and mobilenet_v2, whatever alpha is; default: 64 in extra
    # layers, no limit in the backbone. The TF Object Detection API has 16.
    min_channels: PositiveInt | None = None
    # Of the last convolution of mobilenet_v2; default: 1280, times alpha if that is above 1.
    last_channels: PositiveInt | None = None
    # Of mobilenet_v3_large: half the channels in the last blocks, as in SSDLite. Its classifiers
    # have all of them.
    reduced_tail: bool = True
    # What halves the map in the extra layers of mobilenets: a depthwise and a 1x1 convolution, or a
    # full 3x3 convolution.
    extra_layers: Literal["separable", "conv"] = "separable"
    # The first stages that are not trained; each ends with a stride.
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    # The input is normalised as (image - mean_rgb) / std_rgb; default: the backbone's own numbers.
    mean_rgb: tuple[float, float, float] | None = None
    std_rgb: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None

    @pydantic.model_validator(mode="after")
    def _refuse_unused_keys(self):
        reason = f"on {self.name}"
        if self.name == "vgg16":
            self.refuse_without_effect(["alpha", "first_stride"], reason)
        if self.name.startswith("resnet"):
            self.refuse_without_effect(["first_stride"], reason)
        if self.name not in ("mobilenet", "mobilenet_v2"):
            self.refuse_without_effect(["padding", "min_channels"], reason)
        if self.name != "mobilenet_v2":
            self.refuse_without_effect(["last_channels"], reason)
        if self.name != "mobilenet_v3_large":
            self.refuse_without_effect(["reduced_tail"], reason)
        if not self.name.startswith("mobilenet"):
            self.refuse_without_effect(["extra_layers"], reason)
        return self

    @property
    def is_torchvision_classifier(self) -> bool:
        """Whether a MobileNet is built as torchvision's classifiers, not as Keras' or SSDLite's."""
        if self.name == "mobilenet_v2":
            return self.padding == "torch"
        return self.name == "mobilenet_v3_large" and not self.reduced_tail


class Model(Section):
    input_hw: tuple[PositiveInt, PositiveInt] = (300, 300)
    backbone: Backbone = Backbone()
    # Feature maps that are predicted from.
    num_levels: Annotated[int, Field(ge=2, le=8)] = 6
    # The last layers: 3x3 convolutions, depthwise 3x3 and 1x1 ones (SSDLite), or 1x1 ones.
    head: Literal["conv", "separable", "pointwise"] = "conv"
    # fpn: 3 to 5 maps from stride 8 on; not for vgg16
    neck: Literal["none", "fpn"] = "none"

    @pydantic.model_validator(mode="after")
    def _refuse_first_stride_under_fpn(self):
        if self.neck == "fpn":
            try:
                self.backbone.refuse_without_effect(
                    ["first_stride"], "under the fpn neck, which starts at stride 8"
                )
            except ValueError as error:
                raise ValueError(f"backbone.{error}") from None
        return self


class Level(Section):
    """The default boxes of one feature map, in pixels of the model's input.

    Either sizes and ratios, or `shapes` alone.
    """

    size: PositiveFloat | None = None
    # Adds a square box of side sqrt(size * next_size).
    next_size: PositiveFloat | None = None
    # width / height; each adds its reciprocal too
    aspect_ratios: tuple[PositiveFloat, ...] = ()
    # Height and width of each default box of a cell.
    shapes: tuple[tuple[PositiveFloat, PositiveFloat], ...] | None = None
    # Distance of neighbouring centres; default: input size / map size.
    step: PositiveFloat | None = None

    @pydantic.model_validator(mode="after")
    def _require_one_source(self):
        if (self.size is None) == (not self.shapes):
            raise ValueError("give either size or shapes, and not both")
        if self.shapes:
            self.refuse_without_effect(["next_size", "aspect_ratios"], "with shapes")
        return self


PAPER_KEYS = ("s_min", "s_max", "aspect_ratios", "s_first")


class Boxes(Section):
    """The default boxes: a preset, or explicit levels."""

    preset: BoxPreset | None = None
    # These four are for the preset `paper`.
    s_min: Scale = 0.2
    s_max: Scale = 0.9
    aspect_ratios: tuple[PositiveFloat, ...] = (2.0, 3.0)
    # Scale of the first map if it does not follow the formula.
    s_first: Scale | None = None
    # Presets caffe_*: truncates sizes to whole pixels, as in the released SSD512 of Liu et al.
    integer_sizes: bool = False
    levels: tuple[Level, ...] | None = None
    # Centres and sizes become multiples of this share of the input, as in quantised TFLite files.
    rounding: Annotated[float, Field(gt=0, lt=0.1)] | None = None
    variances: Variances = (0.1, 0.1, 0.2, 0.2)

    @pydantic.model_validator(mode="after")
    def _require_one_source(self):
        if (self.preset is None) == (self.levels is None):
            raise ValueError("give either preset or levels, and not both")
        return self

    @pydantic.model_validator(mode="after")
    def _refuse_keys_of_other_presets(self):
        source = f"with preset {self.preset}" if self.preset else "with levels"
        if self.preset != "paper":
            self.refuse_without_effect(PAPER_KEYS, f"{source}, only with paper")
        if self.preset not in ("caffe_voc", "caffe_coco"):
            self.refuse_without_effect(
                ["integer_sizes"], f"{source}, only with caffe_voc and caffe_coco"
            )
        if self.s_min > self.s_max:
            raise ValueError(f"expected s_min <= s_max, got {self.s_min} and {self.s_max}")
        return self


class Augment(Section):
    """Probabilities and ranges of the training augmentation.

    `preset` gives the starting values; other keys replace them.
    """

    preset: str = "none"
    # Of each of brightness, contrast, saturation and hue.
    color_probability: Probability = 0.5
    # Largest shift, of 255.
    brightness: NonNegativeFloat = 0.0
    brightness_factor: Factors = (1.0, 1.0)
    contrast: Factors = (1.0, 1.0)
    # What contrast keeps: black, or the mean of the gray image.
    contrast_about: Literal["black", "mean"] = "black"
    saturation: Factors = (1.0, 1.0)
    # Scales S of HSV, or the distance from the gray image.
    saturation_by: Literal["hsv", "gray"] = "hsv"
    # Largest rotation.
    hue_degrees: Annotated[float, Field(ge=0, le=360)] = 0.0
    # False: hues that would be rotated below red stay red.
    hue_wraps: bool = True
    channel_shuffle_probability: Probability = 0.0
    zoom_out_probability: Probability = 0.0
    # Side of the largest canvas, in sides of the image.
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0
    # Which reference's crop sampler; data/crops.py describes them.
    crop_rule: Literal["caffe", "torchvision"] = "caffe"
    # The sampler's modes besides "whole image"; 0 is "any crop". Empty: no crops.
    crop_min_iou: tuple[Probability, ...] = ()
    # Side of the crop, in sides of the image.
    crop_scale: Range = (0.3, 1.0)
    crop_aspect: Range = (0.5, 2.0)
    crop_tries: PositiveInt = 50
    flip_probability: Probability = 0.0
    vertical_flip_probability: Probability = 0.0

    @pydantic.model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value):
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        name = value.get("preset", "none")
        if not isinstance(name, str) or name not in AUGMENT_PRESETS:
            raise ValueError(f"unknown preset {name!r}{nearest(name, AUGMENT_PRESETS)}")
        return {**AUGMENT_PRESETS[name], **value}

    @pydantic.model_validator(mode="after")
    def _check_crop_ranges(self):
        if not (self.crop_scale[0] > 0 and self.crop_scale[1] <= 1):
            raise ValueError(f"crop_scale must lie in (0, 1], got {list(self.crop_scale)}")
        if not 0 < self.crop_aspect[0] <= 1 <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect must include 1, got {list(self.crop_aspect)}")
        return self


# Liu et al. 2016, sec. 2.2 and 3.6, with the ranges of the released scripts ssd_pascal.py and
# ssd_coco.py.
_CAFFE = {
    "brightness": 32.0,
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    # +-18 of OpenCV's half degrees; several ports read this as 18 degrees.
    "hue_degrees": 36.0,
    # Hue is a byte there, which saturates at 0.
    "hue_wraps": False,
    "zoom_out_probability": 0.5,
    "crop_min_iou": (0.1, 0.3, 0.5, 0.7, 0.9, 0.0),
    "flip_probability": 0.5,
}
AUGMENT_PRESETS = {
    "none": {},
    "light": {
        "crop_min_iou": (0.0,),
        "crop_scale": (0.6, 1.0),
        "crop_aspect": (0.8, 1.25),
        "flip_probability": 0.5,
    },
    "caffe": _CAFFE,
    # As the paper's text: patches from .1 of the image (the scripts say .3), and hue as an angle.
    "paper": {**_CAFFE, "crop_scale": (0.1, 1.0), "hue_wraps": True},
    # torchvision/references/detection, preset `ssd`: RandomPhotometricDistort, RandomZoomOut,
    # RandomIoUCrop, flip.
    "torchvision": {
        "brightness_factor": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "contrast_about": "mean",
        "saturation": (0.5, 1.5),
        "saturation_by": "gray",
        "hue_degrees": 18.0,  # +-.05 of a turn
        "channel_shuffle_probability": 0.5,
        "zoom_out_probability": 0.5,
        "crop_rule": "torchvision",
        "crop_min_iou": (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
        "crop_tries": 40,
        "flip_probability": 0.5,
    },
}


class Data(Section):
    augment: Augment = Augment()
    train_split: str = "train"
    val_split: str = "val"
    # Difficult objects are trained as objects instead of being ignore regions.
    train_difficult: bool = False
    # Encoded records.
    shuffle_buffer: PositiveInt = 2048
    # Several workers: slices of one global batch, or shards of their own.
    shard: Literal["record", "file"] = "record"
    # A record that cannot be parsed or decoded, in val_split too. skip: decodes every image once
    # before the first step.
    on_bad_record: Literal["stop", "skip"] = "stop"


class Loss(Section):
    negatives_per_positive: NonNegativeFloat = 3.0
    # Per image, so that images without objects count too.
    min_negatives: Count = 3
    localization_weight: NonNegativeFloat = 1.0
    # How logits become scores, in the loss and in detections.
    score_activation: Literal["softmax", "sigmoid"] = "softmax"
    # Focal loss over all boxes instead of mined negatives.
    focal_gamma: NonNegativeFloat | None = None
    # Weight of objects in the focal loss; the background has 1 - alpha.
    focal_alpha: Probability | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    box_loss: Literal["smooth_l1", "giou", "diou", "ciou"] = "smooth_l1"
    normalizer: Literal["global", "caffe", "torchvision", "nvidia"] = "global"


class Train(Section):
    steps: PositiveInt = 120_000
    # Of all replicas together.
    batch_size: PositiveInt = 32
    # Micro-batches that a step takes one after the other: less memory, the same gradient.
    accumulate: PositiveInt = 1
    seed: Count = 0
    # auto: several workers if --hosts, TF_CONFIG or SLURM name them, else mirrored if there are
    # several GPUs, else one
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = "auto"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    # Steps of one call of the training function.
    steps_per_call: PositiveInt = 1
    # Compiles the network and the loss with XLA.
    xla: bool = False
    # The same results from every run on the same device, at the price of speed.
    deterministic: bool = False
    # frozen: keeps the statistics; synchronized: those of the batches of all replicas together
    bn: Literal["train", "frozen", "synchronized"] = "train"
    bn_momentum: Probability = 0.9
    # Keras' names.
    optimizer: OptimizerName = "SGD"
    learning_rate: PositiveFloat = 1e-3
    # Batch size that learning_rate is meant for; the rate is scaled to batch_size by the rule.
    base_batch: PositiveInt | None = None
    base_batch_rule: Literal["linear", "sqrt"] = "linear"
    # Of SGD and RMSprop.
    momentum: Probability = 0.9
    # Of SGD.
    nesterov: bool = False
    # Of Adam, AdamW, Lamb and Lion; default: Keras' own.
    beta_1: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta_2: Annotated[float, Field(ge=0, lt=1)] | None = None
    # On kernels: L2 in the gradient; decoupled with AdamW, Lamb and Lion.
    weight_decay: NonNegativeFloat = 5e-4
    # Multiply the learning rate of the backbone and of all biases.
    backbone_rate: PositiveFloat = 1.0
    bias_rate: PositiveFloat = 1.0
    # The step from which model.backbone.frozen_stages are trained too.
    unfreeze_step: PositiveInt | None = None
    schedule: Literal["step", "cosine", "polynomial"] = "step"
    # These two are for the schedule `step`; without decay_steps the rate is constant.
    decay_steps: tuple[PositiveInt, ...] = ()
    decay_factor: Probability = 0.1
    # Of the schedule `polynomial`: 1 is linear.
    decay_power: PositiveFloat = 1.0
    # Of `cosine` and `polynomial`: the last learning rate, as a fraction of the full one.
    final_rate: Probability = 0.0
    warmup_steps: Count = 0
    # First learning rate, as a fraction of the full one.
    warmup_from: Probability = 0.001
    # Of the whole gradient, after summing over replicas.
    clip_norm: PositiveFloat | None = None
    # Largest decay of the averaged weights.
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    checkpoint_every: PositiveInt = 1000
    # Of the last ones; the one before replaces a damaged one.
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2

    @pydantic.model_validator(mode="after")
    def _check_schedule(self):
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"expected warmup_steps below steps, got {self.warmup_steps} and {self.steps}: "
                "the full learning rate would never be reached"
            )
        if self.schedule == "step" and max(self.decay_steps, default=0) >= self.steps:
            raise ValueError(
                f"expected decay_steps below steps, got {list(self.decay_steps)} and "
                f"{self.steps}: the schedule is longer than the run; for a short trial set "
                "train.decay_steps=[]"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_batches(self):
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"expected a batch_size that accumulate divides, got {self.batch_size} and "
                f"{self.accumulate}"
            )
        if self.xla and self.bn == "synchronized":
            raise ValueError("xla cannot compile bn: synchronized, which talks to other replicas")
        return self


def _check_interval(value):
    is_steps = isinstance(value, int) and not isinstance(value, bool) and value > 0
    is_epochs = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)? epochs?", value)
    if value is None or is_steps or (is_epochs and float(value.split()[0]) > 0):
        return value
    raise ValueError("expected a number of steps, or e.g. `2 epochs`")


Interval = Annotated[int | str | None, pydantic.BeforeValidator(_check_interval)]


class Eval(Section):
    # Between evaluations: steps, or e.g. `2 epochs`; default: a tenth of the run.
    every: Interval = None
    # Evaluations without a better AP after which training ends early.
    patience: PositiveInt | None = None
    batch_size: PositiveInt = 8
    score_floor: Probability = 0.01
    nms_iou: Probability = 0.45
    # NMS among the boxes of all classes, of which each has its best class only.
    class_agnostic: bool = False
    # Per class; of all boxes if class_agnostic.
    pre_nms_top_k: PositiveInt = 400
    # Per image.
    max_detections: PositiveInt = 200
    # Clips boxes to the image before NMS, as torchvision does, instead of after it.
    clip_first: bool = False
    # Largest ratio of a box's side to its default box's (torchvision: 62.5).
    size_limit: PositiveFloat | None = None


class Export(Section):
    """TFLite files, whose operator keeps at most 100 detections of a class."""

    # Default: eval.max_detections, at most 100.
    max_detections: PositiveInt | None = None
    # Default: eval.score_floor.
    score_floor: Probability | None = None
    # In the TFLite metadata: what clients show that ask for no other score.
    score_threshold: Probability = 0.3


class Watch(Section):
    # Steps.
    log_every: PositiveInt = 20
    # Drawn in TensorBoard at each evaluation.
    images: Count = 4


BACKBONE_FILES = (".h5", ".hdf5", ".pth", ".pt", ".safetensors", ".npz")


def is_run(init_from) -> bool:
    """Whether a value of init_from names a run folder, not the weights of a backbone."""
    if not isinstance(init_from, str) or init_from == "imagenet":
        return False
    return not init_from.endswith(BACKBONE_FILES)


class Config(Section):
    # Weights to start from: a run folder, or those of a backbone: `imagenet`, or a file of Keras
    # (.h5) or torchvision (.pth, .safetensors, .npz). If this file has no `model` and `boxes`, they
    # are that run's.
    init_from: str | None = None
    # The file that the weights of an imported model came from; training has none.
    imported_from: str | None = None
    model: Model = Model()
    boxes: Boxes
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()
    eval: Eval = Eval()
    export: Export = Export()
    watch: Watch = Watch()

    @property
    def starts_from_run(self) -> bool:
        """Whether init_from names a run folder, not the weights of a backbone."""
        return is_run(self.init_from)

    @pydantic.model_validator(mode="after")
    def _check_unfreezing(self):
        unfreeze_step = self.train.unfreeze_step
        if unfreeze_step is not None and unfreeze_step >= self.train.steps:
            raise ValueError(
                f"expected train.unfreeze_step below train.steps, got {unfreeze_step} and "
                f"{self.train.steps}"
            )
        return self


# Keys of earlier versions, which saved configs may still have.
_RENAMED_KEYS = {
    "model.levels": "model.num_levels",
    "loss.scores": "loss.score_activation",
    "watch.pictures": "watch.images",
}


def load_config(path, overrides=()) -> Config:
    """Read an experiment file, its `base:` files and `key.path=value` overrides.

    With init_from and without model.backbone.name, network and default boxes are those of the run
    that init_from names, as far as the file does not set them.
    Raises ConfigError for a missing file, an unknown key (with the nearest known name) or a value
    out of range.
    """
    layers = read_layers(path, overrides)
    values = _with_network(layers[-1], path)
    return _check_author(_validate(values, str(path)), values, layers, str(path))


def load_run_config(folder, overrides=()) -> Config:
    """The config that a run folder holds; `overrides` as for `load_config`.

    It may say what is refused in a file that somebody writes; the overrides may not. Raises
    ConfigError.
    """
    path = pathlib.Path(folder) / "config.yaml"
    saved, changed = read_layers(path, overrides)[-2:]
    config = _validate(_with_network(changed, path), str(path))
    reasons = config_effects.contradictions(config) if overrides else []
    if reasons:
        before = _validate(_with_network(saved, path), str(path))
        known = config_effects.contradictions(before)
        _raise_for([reason for reason in reasons if reason not in known], "--set")
    return config


def load_source_config(folder) -> Config:
    """The config of the run folder that init_from names. Raises ConfigError."""
    path = pathlib.Path(folder) / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"init_from: no run folder at {folder} (it would have a config.yaml)"
            f"{suggest_path(folder)}"
        )
    return load_run_config(folder)


def _with_network(values, path):
    values = _take_over_network(values)
    if "boxes" not in values:
        raise ConfigError(
            f"{path}: boxes is missing: give a preset or levels, or take network and default boxes "
            "over from a run: --set init_from=RUN (import_weights makes a run of a detector file)"
        )
    return values


def _take_over_network(values):
    """The values, merged over model and boxes of the run that init_from names, if they need it."""
    source = values.get("init_from")
    model = values.get("model") or {}
    backbone = model.get("backbone") or {}
    if not is_run(source) or backbone.get("name") is not None:
        return values
    config = load_source_config(source).model_dump(mode="json")
    config["model"]["backbone"]["frozen_stages"] = 0
    inherited = {
        "model": config["model"],
        "boxes": {key: value for key, value in config["boxes"].items() if value is not None},
        "loss": {"score_activation": config["loss"]["score_activation"]},
    }
    return merge(inherited, values)


def check_config(values: dict, where: str) -> Config:
    """Make a Config of plain values. `where` opens the message of a ConfigError."""
    return _check_author(_validate(values, where), values, [values], where)


def check_eval(values, where):
    """Raise ConfigError for a value that its key of `eval` cannot have. where: the file's name."""
    _validate(values, where, Eval)


def _validate(values, where, section=Config):
    try:
        return section.model_validate(values)
    except pydantic.ValidationError as error:
        reasons = "; ".join(_explain(detail) for detail in error.errors())
        raise ConfigError(f"{where}: {reasons}") from None


def _check_author(config, values, layers, where):
    """The Config, without keys that have no effect if the file inherits them and changes why.

    Raises ConfigError for other keys without effect, and for what cannot be meant. Values that a
    key has anyway pass, as saved configs spell all of them out.
    """
    starting_values = _starting_values(config)
    reasons = []
    inherited = []
    for idle in config_effects.find_idle(config, starting_values):
        if config_effects.is_inherited(idle, layers):
            inherited.append(idle.key)
            logging.info("%s: it is left out", idle.reason)
        else:
            default = json.dumps(config_effects.value_at(starting_values, idle.key))
            reasons.append(f"{idle.reason}: leave it out (default: {default})")
    if inherited:
        config = _validate(_without(values, inherited), where)
    reasons = [*config_effects.contradictions(config), *reasons]
    _raise_for(reasons, where)
    return config


def _raise_for(reasons, where):
    if reasons:
        raise ConfigError(f"{where}: {'; '.join(reasons)}")


def idle_keys(config: Config) -> set[str]:
    """The keys that are not at their defaults, nor at the values of the preset, and do nothing."""
    return {idle.key for idle in config_effects.find_idle(config, _starting_values(config))}


def _starting_values(config):
    """The config with the defaults, those of its augmentation's preset included."""
    return Config(boxes=config.boxes, data=Data(augment=config.data.augment.preset))


def _without(values, keys):
    """The values without the keys at these paths."""
    values = copy.deepcopy(values)
    for key in keys:
        *sections, name = key.split(".")
        section = functools.reduce(dict.__getitem__, sections, values)
        section.pop(name, None)
    return values


def save_config(config: Config, path):
    """Write the resolved config atomically, with all defaults spelled out."""
    files.write_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    """The resolved config, with all defaults spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def nearest(name, known) -> str:
    """A hint for an unknown name: the most similar known one, else all of them."""
    folded = {str(candidate).casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).casefold(), list(folded), n=1)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known: {', '.join(sorted(map(str, known)))}"


def _explain(detail) -> str:
    """One of pydantic's error details in a line, with the path of its key."""
    path = ".".join(str(part) for part in detail["loc"])
    if path in _RENAMED_KEYS:
        return f"unknown key {path}: it is now {_RENAMED_KEYS[path]}"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(detail['loc'][-1], _fields_at(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    value = detail["input"]
    if detail["type"] == "literal_error" and isinstance(value, str):
        return f"{path}: unknown value {value!r}{nearest(value, _choices(detail))}"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(value, dict) else f", got {value!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{got}"


def _choices(detail):
    """The allowed values of a Literal, from pydantic's message."""
    return re.findall(r"'([^']*)'", detail["ctx"]["expected"])


def _fields_at(location):
    """The fields of the section at a location; indices of tuples are skipped."""
    section = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        candidates = [annotation, *typing.get_args(annotation)]
        candidates += [inner for outer in candidates for inner in typing.get_args(outer)]
        section = next(
            candidate
            for candidate in candidates
            if isinstance(candidate, type) and issubclass(candidate, Section)
        )
    return section.model_fields
