"""What training says when a device has too little memory."""

import contextlib
import re

import tensorflow as tf

from ssd_tf.config import Config
from ssd_tf.training.distribution import reason_of

# As TensorFlow, CUDA and cuDNN call it.
_OUT_OF_MEMORY = re.compile(
    r"\bOOM\b|out.of.memory|allocat|ALLOC_FAILED|Dst tensor is not initialized", re.IGNORECASE
)


@contextlib.contextmanager
def explain_out_of_memory(config: Config):
    """Inside, replace TensorFlow's error for too little memory by one that says what to lower.

    It is an OSError; any other error passes through.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
        if not _OUT_OF_MEMORY.search(error.message):
            raise
        train = config.train
        raise OSError(
            f"the device has too little memory ({reason_of(error)}): lower train.batch_size (now "
            f"{train.batch_size}), raise train.accumulate (now {train.accumulate}), which takes "
            "less memory for the same gradient, or lower eval.batch_size (now "
            f"{config.eval.batch_size}) if it happened in an evaluation"
        ) from error
