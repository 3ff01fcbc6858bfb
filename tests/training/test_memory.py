"""Too little memory on a device is said in one line, with what to lower."""

import pytest
import tensorflow as tf

from ssd_tf.training import memory

OUT_OF_MEMORY = [
    (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[32,64,150,150]"),
    (tf.errors.ResourceExhaustedError, "Out of memory while trying to allocate 123 bytes"),
    (tf.errors.InternalError, "Failed to allocate 4 bytes: CUDA_ERROR_OUT_OF_MEMORY"),
    (tf.errors.InternalError, "cuDNN: CUDNN_STATUS_ALLOC_FAILED in conv.cc"),
    (tf.errors.InternalError, "Dst tensor is not initialized.\n\t [[{{node Const}}]]"),
    (tf.errors.ResourceExhaustedError, "Graph execution error:\n\nOOM when allocating tensor"),
]


@pytest.mark.parametrize(("error", "text"), OUT_OF_MEMORY)
def test_too_little_memory(toy_config, error, text):
    original = error(None, None, text)
    config = toy_config(batch_size=6, accumulate=2)
    with pytest.raises(OSError) as caught, memory.explain_out_of_memory(config):
        raise original
    line = str(caught.value)
    assert "\n" not in line
    for part in ("train.batch_size (now 6)", "train.accumulate (now 2)", "eval.batch_size (now 8)"):
        assert part in line
    assert caught.value.__cause__ is original


@pytest.mark.parametrize(
    "original",
    [
        tf.errors.InternalError(None, None, "cuDNN launch failure : input shape ([32,64,9,9])"),
        tf.errors.ResourceExhaustedError(None, None, "/runs/a; No space left on device"),
        tf.errors.InvalidArgumentError(None, None, "OOM"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_pass_through(toy_config, original):
    with pytest.raises(type(original)) as caught, memory.explain_out_of_memory(toy_config()):
        raise original
    assert caught.value is original
