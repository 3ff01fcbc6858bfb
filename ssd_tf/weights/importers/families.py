"""Detectors that cannot be imported, so that an error can say what a file is and what to do."""

import re

from ssd_tf.errors import ConfigError

KNOWN = (
    "SSDs on MobileNet v1 and v2 and, with FPN, on ResNet-50 and -101 of the TF Object Detection "
    "API, ssd300_vgg16 and ssdlite320_mobilenet_v3_large of torchvision"
)
RUNS_AS_IT_IS = (
    "a SavedModel or TFLite file that returns boxes, classes and scores runs as it is: "
    "ssd detect --model"
)
# What a file of ours is. Its graph normalises the image, and its network may be one that no reader
# of third-party files knows; the run folder has both.
OWN_EXPORT = (
    "was written by ssd export and cannot be imported: take the run folder that it was exported "
    "from, as init_from or as --start of ssd quickstart; ssd detect and ssd evaluate run the export"
)
# What occurs in the names of their layers, variables or types.
_FAMILIES = (
    (r"(?i)efficient_?-?(net|det)|class_net/|box_net/|fpn_cells|bifpn", "an EfficientDet"),
    (r"(?i)center_?net|_prediction_head_dict/", "a CenterNet"),
    (
        r"(?i)first_?stage|second_?stage|faster_?rcnn|mask_?rcnn|^rpn\.|^roi_heads\.",
        "a Faster R-CNN",
    ),
    (r"(?i)yolo|ultralytics|^model\.\d+\.(conv|cv\d|m)\.", "a YOLO"),
)


def find(names) -> str | None:
    """The family that names of layers, variables or types belong to, or None."""
    for pattern, family in _FAMILIES:
        if any(re.search(pattern, name) for name in names):
            return family
    return None


def check(names, path):
    """Raise ConfigError if the names are those of a family that cannot be imported."""
    family = find(names)
    if family is not None:
        raise ConfigError(
            f"{path} is {family}, which cannot be imported (expected {KNOWN}); {RUNS_AS_IT_IS}"
        )
