"""The values of the augmentation presets, and the values that are rejected."""

import pytest

from ssd_tf.config import Augment, check_config
from ssd_tf.errors import ConfigError

NOTHING = {
    "color_probability": 0.5,
    "brightness": 0.0,
    "brightness_factor": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "contrast_about": "black",
    "saturation": (1.0, 1.0),
    "saturation_by": "hsv",
    "hue_degrees": 0.0,
    "hue_wraps": True,
    "channel_shuffle_probability": 0.0,
    "zoom_out_probability": 0.0,
    "zoom_out_max": 4.0,
    "crop_rule": "caffe",
    "crop_min_iou": (),
    "crop_scale": (0.3, 1.0),
    "crop_aspect": (0.5, 2.0),
    "crop_tries": 50,
    "flip_probability": 0.0,
    "vertical_flip_probability": 0.0,
}
# The scripts of the original Caffe code: brightness 32 of 255, contrast and saturation .5 to 1.5,
# hue +-18 of OpenCV's half degrees as a byte that saturates, no shuffled channels; expand p .5 to 4
# sides; min IoU .1 to .9 and "any"; scale .3 to 1, aspect .5 to 2, 50 tries.
CAFFE = NOTHING | {
    "brightness": 32.0,
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue_degrees": 36.0,
    "hue_wraps": False,
    "zoom_out_probability": 0.5,
    "crop_min_iou": (0.1, 0.3, 0.5, 0.7, 0.9, 0.0),
    "flip_probability": 0.5,
}
PRESETS = {
    "none": NOTHING,
    "caffe": CAFFE,
    "paper": CAFFE | {"crop_scale": (0.1, 1.0), "hue_wraps": True},
    # Brightness by a factor, hue +-.05 of a turn, channels shuffled p .5, 40 tries per mode.
    "torchvision": NOTHING
    | {
        "brightness_factor": (0.875, 1.125),
        "contrast": (0.5, 1.5),
        "contrast_about": "mean",
        "saturation": (0.5, 1.5),
        "saturation_by": "gray",
        "hue_degrees": 18.0,
        "channel_shuffle_probability": 0.5,
        "zoom_out_probability": 0.5,
        "crop_rule": "torchvision",
        "crop_min_iou": (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
        "crop_tries": 40,
        "flip_probability": 0.5,
    },
    # Flip and scale jitter, no colour distortion.
    "light": NOTHING
    | {
        "crop_min_iou": (0.0,),
        "crop_scale": (0.6, 1.0),
        "crop_aspect": (0.8, 1.25),
        "flip_probability": 0.5,
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_values_of_a_preset(name):
    assert Augment(preset=name).model_dump() == {"preset": name, **PRESETS[name]}


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("brightness", float("inf"), "finite number, got inf"),
        ("brightness", float("nan"), "got nan"),
        ("contrast", [float("nan"), 1.0], "finite number, got nan"),
        ("contrast", [-1, 1.5], "greater than or equal to 0, got -1"),
        ("saturation", [-2, 1], "greater than or equal to 0, got -2"),
        ("brightness_factor", [-0.5, 1], "greater than or equal to 0, got -0.5"),
        ("brightness_factor", [1.2, 0.8], "expected the smaller number first"),
        ("hue_degrees", 361, "less than or equal to 360, got 361"),
        ("hue_degrees", float("inf"), "got inf"),
        ("zoom_out_max", float("inf"), "finite number, got inf"),
        ("zoom_out_max", 0.5, "greater than or equal to 1, got 0.5"),
        ("crop_scale", [float("nan"), 1.0], "finite number, got nan"),
    ],
)
def test_values_out_of_range(key, value, line):
    with pytest.raises(ConfigError) as caught:
        check_config({"boxes": {"preset": "paper"}, "data": {"augment": {key: value}}}, "test")
    message = str(caught.value)
    assert message.startswith(f"test: data.augment.{key}")
    assert line in message
    assert "\n" not in message
