"""What the worker server imports once for all workers. Nothing here may start a thread, or run a TensorFlow operation."""

from data_tools.conversion import shards
from ssd_tf.data import records

__all__ = ["records", "shards"]
