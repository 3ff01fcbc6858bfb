"""Imports of the worker server, once for all workers.

Nothing here may start a thread or run a TensorFlow operation: the server forks.
"""

import gc
import os

from ssd_tf import commandline

# Keeps TensorFlow from importing Keras, which the workers do not need.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
commandline.import_tensorflow()

from data_tools.conversion import shard_writer  # noqa: E402
from ssd_tf.data import records  # noqa: E402

gc.freeze()  # else the collector would touch, and so copy per worker, what all of them share

__all__ = ["records", "shard_writer"]
