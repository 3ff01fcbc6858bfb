"""Networks of every backbone on small inputs, and their configs."""

import keras
import numpy as np
from keras import layers

from ssd_tf.boxes.default_boxes import BoxLevel, make_default_boxes
from ssd_tf.config import check_config
from ssd_tf.models import ssd
from ssd_tf.models.batch_norm import BatchNormalization


def make_config(**sections):
    """A Config of these sections; without `boxes`, with the table of caffe_voc."""
    return check_config({"boxes": {"preset": "caffe_voc"}, **sections}, "test")


def small_config(
    name, input_hw=(64, 96), num_levels=3, neck="none", head="conv", train=None, **backbone
):
    """The Config of a backbone with these keys; its levels have three default boxes per cell."""
    model = {
        "input_hw": input_hw,
        "num_levels": num_levels,
        "neck": neck,
        "head": head,
        "backbone": {"name": name, **backbone},
    }
    boxes = {"levels": [{"size": 12, "aspect_ratios": [2]}] * num_levels}
    return make_config(model=model, boxes=boxes, train=train or {})


def build(*args, num_classes=2, **kwargs):
    """The SSD of small_config."""
    return ssd.build_model(small_config(*args, **kwargs), num_classes)


def build_on_one_map(config, num_classes):
    """In place of ssd.build_model: three convolutions, which compile in a second.

    Its map has cells of 8 x 8 pixels, each with one default box.
    """
    map_hw = tuple(side // 8 for side in config.model.input_hw)
    image = keras.Input((*config.model.input_hw, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.Conv2D(4, 8, strides=8, use_bias=False, name="conv")(x)
    synchronized = config.train.bn == "synchronized"
    x = layers.ReLU()(BatchNormalization(synchronized=synchronized, name="bn")(x))
    outputs = {
        name: layers.Reshape((-1, size), dtype="float32")(layers.Conv2D(size, 1, name=name)(x))
        for name, size in (("offsets", 4), ("logits", num_classes + 1))
    }
    levels = (BoxLevel.from_sizes(16.0, None, (), 8.0),)
    default_boxes = make_default_boxes(levels, (map_hw,), config.model.input_hw)
    return ssd.SSD(keras.Model(image, outputs), default_boxes, levels, (map_hw,))


def randomize(model):
    """Biases, and batch norms that differ from the identity, for a network that was not trained."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "variance")):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "mean", "bias")):
            variable.assign(random.normal(0, 0.2, variable.shape))
