"""What the worker server imports once for all workers. Nothing here may start a thread, or run a TensorFlow operation."""

from ssd_tf import commandline

commandline.import_tensorflow()

from data_tools.conversion import shards  # noqa: E402
from ssd_tf.data import records  # noqa: E402

__all__ = ["records", "shards"]
