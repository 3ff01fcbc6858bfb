"""TensorFlow's errors for a lost worker and for too little memory, as one line with the remedy."""

import contextlib
import re

import tensorflow as tf

from ssd_tf.config import Config
from ssd_tf.training import distribution

# What TensorFlow says when another worker no longer answers. "peer access" is about GPUs.
_CONNECTION = re.compile(
    r"\bUNAVAILABLE\b|socket closed|connection (reset|refused|timed out)|failed to connect|"
    r"broken pipe|heartbeat|\bby peer\b|unreachable|coordination service|recvmsg|keepalive",
    re.IGNORECASE,
)
# As TensorFlow, CUDA and cuDNN call it.
_OUT_OF_MEMORY = re.compile(
    r"\bOOM\b|out.of.memory|allocate|allocating|allocation|ALLOC_FAILED|"
    "Dst tensor is not initialized",
    re.IGNORECASE,
)


@contextlib.contextmanager
def explain_lost_worker(strategy):
    """Inside, replace the broken connection that a lost worker leaves by an OSError of one line.

    Errors of this worker itself pass through.
    """
    try:
        yield
    except tf.errors.OpError as error:
        is_lost = isinstance(error, tf.errors.UnavailableError) or _CONNECTION.search(error.message)
        if not (is_lost and distribution.has_several_workers(strategy)):
            raise
        raise OSError(
            f"another worker has stopped or cannot be reached ({reason_of(error)}); see its "
            "messages, then start the same command on all of them again: training resumes from "
            "the last checkpoint"
        ) from error


@contextlib.contextmanager
def explain_out_of_memory(config: Config):
    """Inside, replace TensorFlow's error for too little memory by an OSError that says what to do.

    Any other error passes through.
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


def reason_of(error) -> str:
    """What a TensorFlow error says, in one line and without the graph around it."""
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*|Additional GRPC.*", "", line) for line in lines]
    if lines and lines[0].startswith("Graph execution error"):
        # Then come the source lines that made the operation, and what it says.
        lines = [line for line in lines[1:] if not re.match("Detected at|File |<", line)]
    return " ".join(next((line for line in lines if line), type(error).__name__).split())[:200]
