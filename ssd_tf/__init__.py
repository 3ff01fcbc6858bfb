"""SSD (Single Shot MultiBox Detector) in TensorFlow and Keras.

Importing it does not import TensorFlow, but sets two of its environment variables, unless they are
set already: fewer log lines, and oneDNN on x86.
"""

import importlib
import os

from ssd_tf import processor

# Silences TensorFlow's own log lines; must be set before its first import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As must this one.
processor.turn_on_onednn()

__version__ = "0.1.0"

# Imported on first use.
_MODULE_OF = {
    "quickstart": "ssd_tf.quickstarting.quickstart",
    "train": "ssd_tf.training.train",
    "evaluate": "ssd_tf.evaluation.evaluate",
    "export": "ssd_tf.exporting.export",
    "load_config": "ssd_tf.config",
    "load_detector": "ssd_tf.inference.loading",
    "build_model": "ssd_tf.models.ssd",
    "build_dataset": "ssd_tf.data.pipeline",
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ssd_tf' has no attribute {name!r}")
    if name not in ("load_config", "quickstart"):
        # Without the lines that TensorFlow's C++ code prints at its first import.
        importlib.import_module("ssd_tf.commandline").import_tensorflow()
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__():
    return [*globals(), *__all__]
