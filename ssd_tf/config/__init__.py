"""The config of an experiment: its keys, and configs from files. Imports no TensorFlow."""

from ssd_tf.config.augmentation import AUGMENT_PRESETS, NO_CHANGE, Augment, Color, Crop
from ssd_tf.config.inheritance import apply_overrides
from ssd_tf.config.loading import (
    check_config,
    check_eval,
    check_overrides,
    check_run_folder,
    load_config,
    load_run_config,
    load_source_config,
    nearest,
    save_config,
    to_yaml,
)
from ssd_tf.config.sections import (
    KEYS,
    Backbone,
    Boxes,
    Config,
    Data,
    Eval,
    Level,
    Loss,
    Model,
    PostProcessing,
    Train,
)

__all__ = [
    "AUGMENT_PRESETS",
    "KEYS",
    "NO_CHANGE",
    "Augment",
    "Backbone",
    "Boxes",
    "Color",
    "Config",
    "Crop",
    "Data",
    "Eval",
    "Level",
    "Loss",
    "Model",
    "PostProcessing",
    "Train",
    "apply_overrides",
    "check_config",
    "check_eval",
    "check_overrides",
    "check_run_folder",
    "load_config",
    "load_run_config",
    "load_source_config",
    "nearest",
    "save_config",
    "to_yaml",
]
