"""Experiment files: YAML checked by pydantic, with `base:` for inheritance and `KEY=VALUE` overrides.

A config is unpacked where things are built; the mathematics below receives numbers and arrays, never a config.
"""

import difflib
import json
import pathlib
import re
import typing
from typing import Annotated, Literal

import pydantic
import yaml
from pydantic import Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(gt=0, le=1.5)]


def _ordered(limits):
    if limits[0] > limits[1]:
        raise ValueError("wanted the smaller number first")
    return limits


Range = Annotated[tuple[float, float], pydantic.AfterValidator(_ordered)]
Factors = Annotated[tuple[NotNegative, NotNegative], pydantic.AfterValidator(_ordered)]


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


class ConfigError(ValueError):
    """A key or a value of an experiment file that cannot be used; the message names its path."""


class Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def refuse_without_effect(self, keys, reason):
        """Raises ValueError for a key that has no effect and is not at its default (saved configs spell every default out)."""
        for key in keys:
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                raise ValueError(
                    f"{key} has no effect {reason}: leave it out (default: {json.dumps(default)})"
                )


class Backbone(Section):
    name: BackboneName = "vgg16"
    weights: str = (
        "none"  # none, imagenet, or a path: Keras' HDF5 (.h5) or torchvision's arrays (.npz)
    )
    alpha: PositiveFloat = 1.0  # width multiplier (all but vgg16)
    first_stride: Literal[8, 16] = (
        16  # of the finest map that is predicted from (mobilenets, plain; without a neck)
    )
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = (
        0  # the first stages that are not trained; each ends with a stride
    )
    mean_rgb: tuple[float, float, float] | None = (
        None  # what is subtracted from the input; default: the backbone's own
    )
    std_rgb: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = (
        None  # what that is divided by
    )

    @pydantic.model_validator(mode="after")
    def _used(self):
        if self.name == "vgg16":
            self.refuse_without_effect(["alpha", "first_stride"], "on vgg16")
        if self.name.startswith("resnet"):
            self.refuse_without_effect(["first_stride"], f"on {self.name}")
        return self


class Model(Section):
    input_hw: tuple[Positive, Positive] = (300, 300)
    backbone: Backbone = Backbone()
    num_levels: Annotated[int, Field(ge=2, le=8)] = 6  # feature maps that are predicted from
    head: Literal["conv", "separable"] = "conv"
    neck: Literal["none", "fpn"] = "none"  # fpn: 3 to 5 maps from stride 8 on (resnets, mobilenets)

    @pydantic.model_validator(mode="after")
    def _neck_starts_at_stride_8(self):
        if self.neck == "fpn":
            try:
                self.backbone.refuse_without_effect(
                    ["first_stride"], "under the fpn neck, which starts at stride 8"
                )
            except ValueError as error:
                raise ValueError(f"backbone.{error}") from None
        return self


class Level(Section):
    """The default boxes of one feature map, in pixels of the model's input."""

    size: PositiveFloat
    next_size: PositiveFloat | None = None  # adds a square box of side sqrt(size * next_size)
    aspect_ratios: tuple[PositiveFloat, ...] = ()  # width / height; each adds its reciprocal too
    step: PositiveFloat | None = None  # distance of the centres; default: input / map


PAPER_KEYS = ("s_min", "s_max", "aspect_ratios", "s_first")


class Boxes(Section):
    preset: BoxPreset | None = None
    s_min: Scale = 0.2  # these four belong to the preset `paper`
    s_max: Scale = 0.9
    aspect_ratios: tuple[PositiveFloat, ...] = (2.0, 3.0)
    s_first: Scale | None = None  # scale of the first map where it does not follow the line
    integer_sizes: bool = False  # presets caffe_*: sizes cut to whole pixels, as the authors' released SSD512 has them
    levels: tuple[Level, ...] | None = None
    variances: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = (
        0.1,
        0.1,
        0.2,
        0.2,
    )

    @pydantic.model_validator(mode="after")
    def _one_source(self):
        if (self.preset is None) == (self.levels is None):
            raise ValueError("give either preset or levels, and not both")
        return self

    @pydantic.model_validator(mode="after")
    def _fit_the_source(self):
        source = f"with preset {self.preset}" if self.preset else "with levels"
        if self.preset != "paper":
            self.refuse_without_effect(PAPER_KEYS, f"{source}, only with paper")
        if self.preset not in ("caffe_voc", "caffe_coco"):
            self.refuse_without_effect(
                ["integer_sizes"], f"{source}, only with caffe_voc and caffe_coco"
            )
        if self.s_min > self.s_max:
            raise ValueError(f"wanted s_min <= s_max, found {self.s_min} and {self.s_max}")
        return self


class Augment(Section):
    """Probabilities and ranges of the training augmentation; `preset` names a starting point, other keys replace its values."""

    preset: str = "none"
    color_probability: Probability = 0.5  # of each of brightness, contrast, saturation and hue
    brightness: NotNegative = 0.0  # largest shift, of 255
    brightness_factor: Factors = (1.0, 1.0)
    contrast: Factors = (1.0, 1.0)
    contrast_about: Literal["black", "mean"] = (
        "black"  # what contrast keeps: black, or the mean of the gray picture
    )
    saturation: Factors = (1.0, 1.0)
    saturation_by: Literal["hsv", "gray"] = (
        "hsv"  # scales S of HSV, or the distance from the gray picture
    )
    hue_degrees: Annotated[float, Field(ge=0, le=360)] = 0.0  # largest turn
    hue_wraps: bool = True  # false: a turn below red stays at red
    channel_shuffle_probability: Probability = 0.0
    zoom_out_probability: Probability = 0.0
    zoom_out_max: Annotated[float, Field(ge=1)] = 4.0  # side of the canvas, in sides of the picture
    crop_rule: Literal["caffe", "torchvision"] = "caffe"  # see data/crops.py
    crop_min_iou: tuple[
        Probability, ...
    ] = ()  # the sampler's modes besides "whole picture"; 0 is "any crop"
    crop_scale: Range = (0.3, 1.0)  # side of the crop, in sides of the picture
    crop_aspect: Range = (0.5, 2.0)
    crop_tries: Positive = 50
    flip_probability: Probability = 0.0
    vertical_flip_probability: Probability = 0.0

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value):
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        name = value.get("preset", "none")
        if not isinstance(name, str) or name not in AUGMENT_PRESETS:
            raise ValueError(f"unknown preset {name!r}{nearest(name, AUGMENT_PRESETS)}")
        return {**AUGMENT_PRESETS[name], **value}

    @pydantic.model_validator(mode="after")
    def _crops_exist(self):
        if not (self.crop_scale[0] > 0 and self.crop_scale[1] <= 1):
            raise ValueError(f"crop_scale must lie in (0, 1], found {list(self.crop_scale)}")
        if not 0 < self.crop_aspect[0] <= 1 <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect must hold 1, found {list(self.crop_aspect)}")
        return self


# Liu et al. 2016, sec. 2.2 and 3.6, with the ranges of the authors' released scripts (ssd_pascal.py, ssd_coco.py).
_CAFFE = {
    "brightness": 32.0,
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue_degrees": 36.0,  # +-18 of OpenCV's half degrees; several ports read 18 degrees
    "hue_wraps": False,  # their hue is a byte that saturates at 0
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
    # As the text has it: patches from .1 of the picture (the scripts say .3), and hue as an angle.
    "paper": {**_CAFFE, "crop_scale": (0.1, 1.0), "hue_wraps": True},
    # torchvision/references/detection, preset `ssd`: RandomPhotometricDistort, RandomZoomOut, RandomIoUCrop, flip.
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
    train_difficult: bool = False  # difficult objects are objects, not ignore regions
    shuffle_buffer: Positive = 2048  # encoded records
    shard: Literal["record", "file"] = (
        "record"  # several workers: slices of one global batch, or shards of their own
    )
    # A record that cannot be parsed or decoded, also of val_split; skip decodes every picture once before the first step.
    on_bad_record: Literal["stop", "skip"] = "stop"


class Loss(Section):
    negatives_per_positive: NotNegative = 3.0
    min_negatives: Count = 3  # per image, so that pictures without objects teach too
    localization_weight: NotNegative = 1.0
    score_activation: Literal["softmax", "sigmoid"] = (
        "softmax"  # how logits become scores, in the loss and in detections
    )
    focal_gamma: NotNegative | None = None  # focal loss over all boxes instead of mined negatives
    focal_alpha: Probability | None = (
        None  # weight of objects in the focal loss; the background has 1 - alpha
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    box_loss: Literal["smooth_l1", "giou", "diou", "ciou"] = "smooth_l1"
    normalizer: Literal["global", "caffe", "torchvision", "nvidia"] = "global"

    @pydantic.model_validator(mode="after")
    def _alpha_of_focal(self):
        if self.focal_alpha is not None and self.focal_gamma is None:
            raise ValueError(
                "focal_alpha is part of the focal loss: give focal_gamma too (2 in its paper)"
            )
        if self.focal_gamma is not None:
            keys = ["negatives_per_positive", "min_negatives"]
            self.refuse_without_effect(
                keys, "with the focal loss, which takes every box instead of mined negatives"
            )
        return self


class Train(Section):
    steps: Positive = 120_000
    batch_size: Positive = 32  # of all replicas together
    seed: Count = 0
    # auto: multi_worker where TF_CONFIG names several machines, else mirrored where there are several GPUs
    strategy: Literal["auto", "one", "mirrored", "multi_worker"] = "auto"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    bn: Literal["train", "frozen"] = "train"
    bn_momentum: Probability = 0.9
    learning_rate: PositiveFloat = 1e-3
    momentum: Probability = 0.9
    weight_decay: NotNegative = 5e-4  # L2 on kernels, in the gradient
    schedule: Literal["step", "cosine"] = "step"
    decay_steps: tuple[Positive, ...] = (80_000, 100_000)  # schedule: step
    decay_factor: Probability = 0.1
    warmup_steps: Count = 0
    warmup_from: Probability = 0.001  # first learning rate, as a share of the full one
    clip_norm: PositiveFloat | None = None  # of the whole gradient, after the replicas' are summed
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of the averaged weights
    checkpoint_every: Positive = 1000


class Eval(Section):
    every: Positive | None = None  # steps between evaluations; default: only at the end
    batch_size: Positive = 8
    score_floor: Probability = 0.01
    nms_iou: Probability = 0.45
    pre_nms_top_k: Positive = 400  # per class
    max_detections: Positive = 200  # per image
    clip_first: bool = (
        False  # boxes are clipped to the picture before suppression, as torchvision does, not after
    )
    size_limit: PositiveFloat | None = (
        None  # largest ratio of a box's side to its default box's (torchvision: 62.5)
    )


class Export(Section):
    # Of the TFLite operator, which keeps at most 100 detections of a class.
    max_detections: Positive | None = None  # default: eval.max_detections, at most 100
    score_floor: Probability | None = None  # default: eval.score_floor


class Watch(Section):
    log_every: Positive = 20
    images: Count = 4  # drawn in TensorBoard at each evaluation


class Config(Section):
    init_from: str | None = None  # run folder whose weights are taken where name and shape fit
    model: Model = Model()
    boxes: Boxes
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()
    eval: Eval = Eval()
    export: Export = Export()
    watch: Watch = Watch()


def load_config(path, overrides=()) -> Config:
    """Reads a YAML experiment file, its `base:` files and `key.path=value` overrides.

    Raises ConfigError for a missing file, an unknown key (with the nearest known name) or a value out of range.
    """
    values = _read_yaml(pathlib.Path(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set wants KEY=VALUE, found {override!r}")
        change = _parse(text, where=f"--set {override}")
        for name in reversed(key.strip().split(".")):
            change = {name: change}
        values = _merge(values, change)
    return check_config(values, where=str(path))


def check_config(values: dict, where: str) -> Config:
    """Makes a Config of plain values; `where` opens the message of the ConfigError that a bad one raises."""
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(e) for e in error.errors())) from None


def save_config(config: Config, path):
    """Writes the resolved config, every default spelled out."""
    pathlib.Path(path).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def nearest(name, known) -> str:
    """A hint for an unknown name: the closest known one, else all of them."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return (
        f"; did you mean {close[0]!r}?"
        if close
        else f"; known: {', '.join(sorted(map(str, known)))}"
    )


def _read_yaml(path, seen=()) -> dict:
    if not path.is_file():
        raise ConfigError(f"no config file at {path}")
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base` leads back to itself")
    values = _parse(path.read_text(), where=str(path)) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: wanted keys and values, found {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    bases = [base] if isinstance(base, str) else base
    merged = {}
    for name in bases:
        merged = _merge(merged, _read_yaml(path.parent / name, (*seen, path.resolve())))
    return _merge(merged, values)


def _parse(text, where):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def _merge(under, over, path=()):
    """`over` laid over `under`, the values of the section or key at `path`."""
    if isinstance(under, str) and isinstance(over, dict):
        if path != ("data", "augment"):
            raise ConfigError(
                f"{'.'.join(map(str, path))} is {under!r}, so it has no key {next(iter(over), '')!r}"
            )
        under = {"preset": under}  # `augment: caffe` is short for that
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    merged = _without_replaced(under, over) if path == ("boxes",) else dict(under)
    for key, value in over.items():
        merged[key] = _merge(merged.get(key), value, (*path, key))
    return merged


def _without_replaced(under, over):
    """Of default boxes `under` others, what still holds: another preset, or levels, replace a preset with all its keys."""
    if not (over.get("levels") or over.get("preset", under.get("preset")) != under.get("preset")):
        return under
    replaced = {"preset", "levels", "integer_sizes", *PAPER_KEYS}
    return {key: value for key, value in under.items() if key not in replaced}


def _explain(error) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {path}{nearest(error['loc'][-1], _fields_at(error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"{path} is missing"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return f"{path}: unknown value {error['input']!r}{nearest(error['input'], _choices(error))}"
    message = error["msg"].removeprefix("Value error, ")
    found = "" if isinstance(error["input"], dict) else f", found {error['input']!r}"
    return f"{path}: {message[0].lower()}{message[1:]}{found}"


def _choices(error):
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _fields_at(location):
    section = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        candidates = [annotation, *typing.get_args(annotation)]
        candidates += [inner for outer in candidates for inner in typing.get_args(outer)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, Section))
    return section.model_fields
