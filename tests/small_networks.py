"""Networks of every backbone on small inputs, and their configs."""

import numpy as np

from ssd_tf.config import check_config
from ssd_tf.models import ssd


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


def randomize(model):
    """Biases, and batch norms that differ from the identity, for a network that was not trained."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("gamma", "variance")):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "mean", "bias")):
            variable.assign(random.normal(0, 0.2, variable.shape))
