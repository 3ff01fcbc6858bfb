"""The sections of data.augment, and its presets: the augmentation of the references."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ssd_tf.config.inheritance import merge
from ssd_tf.config.keys import (
    Factors,
    Needs,
    NonNegativeFloat,
    PositiveInt,
    Probability,
    Range,
    Section,
    only_if,
)

NO_CHANGE = (1.0, 1.0)  # a range of factors that leaves the image as it is
_COLOR = "data.augment.color."
_RANGES = ("brightness", "brightness_factor", "contrast", "saturation", "hue_degrees")
_ONLY_IF_COLORS_CHANGE = Needs(
    "without a range of brightness, contrast, saturation or hue",
    tuple(_COLOR + name for name in _RANGES),
    lambda *ranges: any(each not in (0.0, NO_CHANGE) for each in ranges),
)
_ONLY_IF_LIKELY = Needs(
    f"with {_COLOR}probability 0", (f"{_COLOR}probability",), lambda probability: probability > 0
)
_ONLY_WITH_CROPS = only_if("data.augment.crop.min_iou")


def _only_if_changed(name):
    return Needs(
        f"without a range of {_COLOR}{name}", (_COLOR + name,), lambda factors: factors != NO_CHANGE
    )


class Color(Section):
    """Colour distortion, after the image is resized. The defaults change nothing."""

    probability: Annotated[Probability, _ONLY_IF_COLORS_CHANGE] = 0.5
    """Probability of each of brightness, contrast, saturation and hue. NVIDIA: 1."""
    brightness: Annotated[NonNegativeFloat, _ONLY_IF_LIKELY] = 0.0
    """Maximum brightness shift up or down, on the scale 0 to 255. Caffe: 32."""
    brightness_factor: Annotated[Factors, _ONLY_IF_LIKELY] = NO_CHANGE
    """Range of the factor that brightness is multiplied by. torchvision: 0.875 to 1.125."""
    contrast: Annotated[Factors, _ONLY_IF_LIKELY] = NO_CHANGE
    """Range of the contrast factor. Caffe, torchvision: 0.5 to 1.5."""
    contrast_about: Annotated[Literal["black", "mean"], _only_if_changed("contrast")] = "black"
    """Value that contrast keeps: `black`, or the `mean` of the grayscale image (torchvision)."""
    saturation: Annotated[Factors, _ONLY_IF_LIKELY] = NO_CHANGE
    """Range of the saturation factor. Caffe, torchvision: 0.5 to 1.5."""
    saturation_by: Annotated[Literal["hsv", "gray"], _only_if_changed("saturation")] = "hsv"
    """Scaled by saturation: S of `hsv`, or the distance from the `gray` image (torchvision)."""
    hue_degrees: Annotated[float, Field(ge=0, le=360), _ONLY_IF_LIKELY] = 0.0
    """Maximum rotation of the hue, in degrees either way. Caffe: 36; torchvision: 18."""
    hue_wraps: Annotated[bool, only_if(f"{_COLOR}hue_degrees")] = True
    """Whether a hue rotated below red (0 degrees) wraps around, not stays red. Caffe: false."""
    channel_shuffle_probability: Probability = 0.0
    """Probability of shuffling R, G and B. torchvision: 0.5."""


class Crop(Section):
    """Random crops, chosen by their IoU with the objects. None by default."""

    sampler: Annotated[Literal["caffe", "torchvision"], _ONLY_WITH_CROPS] = "caffe"
    """Reference whose sampler is used; `ssd_tf/data/crops.py` describes them."""
    min_iou: tuple[Probability, ...] = ()
    """Minimum IoU of a crop with an object: one is chosen at random for each image, or the whole
    image is kept. 0 accepts any crop; an empty list turns crops off. Caffe, torchvision: 0, 0.1,
    0.3, 0.5, 0.7, 0.9."""
    scale: Annotated[Range, _ONLY_WITH_CROPS] = (0.3, 1.0)
    """Range of the crop's side, relative to the image. Text of Liu et al. 2016: 0.1 to 1."""
    aspect: Annotated[Range, _ONLY_WITH_CROPS] = (0.5, 2.0)
    """Range of the crop's width / height: relative to the image's with the sampler `caffe`, in
    pixels with `torchvision`."""
    tries: Annotated[PositiveInt, _ONLY_WITH_CROPS] = 50
    """Crops sampled for each minimum IoU. Caffe: 50; torchvision: 40; NVIDIA: 1."""

    @pydantic.model_validator(mode="after")
    def _check_ranges(self):
        if not (self.scale[0] > 0 and self.scale[1] <= 1):
            raise ValueError(f"expected scale in (0, 1], got {list(self.scale)}")
        if not 0 < self.aspect[0] <= 1 <= self.aspect[1]:
            raise ValueError(f"expected an aspect range that includes 1, got {list(self.aspect)}")
        return self


class Augment(Section):
    """Training augmentation: a preset, whose values other keys replace. `augment: caffe` is short
    for `augment: {preset: caffe}`; either replaces the inherited augmentation of another preset.
    """

    preset: Literal["none", "light", "caffe", "paper", "torchvision"] = "none"
    """Starting values of all keys of `data.augment`: `none`; `light`, flips and mild crops for few
    images; `caffe`, the released code of Liu et al. 2016, for long schedules; `paper`, the text of
    Liu et al. 2016; `torchvision`, its detection references."""
    color: Color = Color()
    crop: Crop = Crop()
    zoom_out_probability: Probability = 0.0
    """Probability of a zoom-out: the image at a random position on a canvas of up to four times its
    sides, so that objects are smaller. Caffe, torchvision: 0.5, with a long schedule."""
    flip_probability: Probability = 0.0
    """Probability of a horizontal flip. 0.5 unless left and right differ."""
    vertical_flip_probability: Probability = 0.0
    """Probability of a vertical flip, for images with no natural orientation, such as BCCD's."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, value):
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        name = value.get("preset", "none")
        return merge(AUGMENT_PRESETS.get(name, {}) if isinstance(name, str) else {}, value)


# Liu et al. 2016, sec. 2.2 and 3.6, with the ranges of the released scripts ssd_pascal.py and
# ssd_coco.py.
_CAFFE = {
    "color": {
        "brightness": 32.0,
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        # +-18 of OpenCV's half degrees; several ports read this as 18 degrees.
        "hue_degrees": 36.0,
        # Hue is a byte there, which saturates at 0.
        "hue_wraps": False,
    },
    "zoom_out_probability": 0.5,
    "crop": {"min_iou": (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)},
    "flip_probability": 0.5,
}
AUGMENT_PRESETS = {
    "none": {},
    "light": {
        "crop": {"min_iou": (0.0,), "scale": (0.6, 1.0), "aspect": (0.8, 1.25)},
        "flip_probability": 0.5,
    },
    "caffe": _CAFFE,
    # As the paper's text: patches from .1 of the image (the scripts say .3), and hue as an angle.
    "paper": merge(_CAFFE, {"crop": {"scale": (0.1, 1.0)}, "color": {"hue_wraps": True}}),
    # torchvision/references/detection, preset `ssd`: RandomPhotometricDistort, RandomZoomOut,
    # RandomIoUCrop, flip.
    "torchvision": {
        "color": {
            "brightness_factor": (0.875, 1.125),
            "contrast": (0.5, 1.5),
            "contrast_about": "mean",
            "saturation": (0.5, 1.5),
            "saturation_by": "gray",
            "hue_degrees": 18.0,  # +-.05 of a turn
            "channel_shuffle_probability": 0.5,
        },
        "zoom_out_probability": 0.5,
        "crop": {
            "sampler": "torchvision",
            "min_iou": (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
            "tries": 40,
        },
        "flip_probability": 0.5,
    },
}
