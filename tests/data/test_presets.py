"""The augmentation presets against the references, and the values that are rejected."""

import pytest

from ssd_tf.config import Augment, check_config
from ssd_tf.data import crops
from ssd_tf.errors import ConfigError


@pytest.mark.parametrize("name", ["caffe", "paper"])
def test_caffe(name):
    """The scripts of the original Caffe code (ssd_pascal.py), and the text of the paper."""
    augment = Augment(preset=name)
    # brightness_delta 32, contrast_lower .5, contrast_upper 1.5, the same for saturation; hue_delta
    # 18 of OpenCV's half degrees; no random channel order.
    color = augment.color
    assert (color.brightness, color.contrast, color.contrast_about) == (32, (0.5, 1.5), "black")
    assert (color.saturation, color.saturation_by) == ((0.5, 1.5), "hsv")
    assert (color.hue_degrees, color.hue_wraps) == (2 * 18, name == "paper")
    assert (color.probability, color.channel_shuffle_probability) == (0.5, 0)
    # expand_param: prob .5, max_expand_ratio 4.
    assert (augment.zoom_out_probability, crops.MAX_ZOOM_OUT) == (0.5, 4)
    # batch_sampler: six besides the whole image, max_trials 50, min_scale .3, aspect .5 to 2. The
    # paper's patches begin at .1.
    crop = augment.crop
    assert sorted(crop.min_iou) == [0, 0.1, 0.3, 0.5, 0.7, 0.9]
    assert crop.scale == ((0.1 if name == "paper" else 0.3), 1)
    assert (crop.sampler, crop.aspect, crop.tries) == ("caffe", (0.5, 2), 50)
    assert (augment.flip_probability, augment.vertical_flip_probability) == (0.5, 0)


def test_torchvision():
    """references/detection/presets.py, `ssd`: the defaults of its four transforms."""
    augment = Augment(preset="torchvision")
    # RandomPhotometricDistort: brightness by a factor, hue +-.05 of a turn, channels shuffled p .5.
    color = augment.color
    assert (color.brightness, color.brightness_factor) == (0, (0.875, 1.125))
    assert (color.contrast, color.contrast_about) == ((0.5, 1.5), "mean")
    assert (color.saturation, color.saturation_by) == ((0.5, 1.5), "gray")
    assert color.hue_degrees == pytest.approx(0.05 * 360)
    assert (color.probability, color.channel_shuffle_probability) == (0.5, 0.5)
    # RandomZoomOut: side_range 1 to 4, p .5. RandomIoUCrop: min_scale .3, trials 40.
    assert (augment.zoom_out_probability, crops.MAX_ZOOM_OUT) == (0.5, 4)
    crop = augment.crop
    assert crop.min_iou == (0, 0.1, 0.3, 0.5, 0.7, 0.9)
    assert (crop.sampler, crop.scale, crop.aspect) == ("torchvision", (0.3, 1), (0.5, 2))
    assert crop.tries == 40
    assert augment.flip_probability == 0.5


def test_none_changes_nothing_and_light_keeps_colours():
    none = Augment()
    light = Augment(preset="light")
    assert none.color == light.color
    assert (none.zoom_out_probability, light.zoom_out_probability) == (0, 0)
    assert (none.crop.min_iou, light.crop.min_iou) == ((), (0,))
    assert (none.flip_probability, light.flip_probability) == (0, 0.5)


@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("color", "brightness", float("inf"), "finite number, got inf"),
        ("color", "brightness", float("nan"), "got nan"),
        ("color", "contrast", [float("nan"), 1.0], "finite number, got nan"),
        ("color", "contrast", [-1, 1.5], "greater than or equal to 0, got -1"),
        ("color", "saturation", [-2, 1], "greater than or equal to 0, got -2"),
        ("color", "brightness_factor", [-0.5, 1], "greater than or equal to 0, got -0.5"),
        ("color", "brightness_factor", [1.2, 0.8], "expected the smaller number first"),
        ("color", "hue_degrees", 361, "less than or equal to 360, got 361"),
        ("color", "hue_degrees", float("inf"), "got inf"),
        ("crop", "scale", [float("nan"), 1.0], "finite number, got nan"),
    ],
)
def test_values_out_of_range(section, key, value, line):
    values = {"boxes": {"preset": "paper"}, "data": {"augment": {section: {key: value}}}}
    with pytest.raises(ConfigError) as caught:
        check_config(values, "test")
    message = str(caught.value)
    assert message.startswith(f"test: data.augment.{section}.{key}")
    assert line in message
    assert "\n" not in message
