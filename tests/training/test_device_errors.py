"""A lost worker or too little memory on a device is one line that says what to do."""

import types

import pytest
import tensorflow as tf

from ssd_tf.training import device_errors

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
    with pytest.raises(OSError) as caught, device_errors.explain_out_of_memory(config):
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
    with pytest.raises(type(original)) as caught, device_errors.explain_out_of_memory(toy_config()):
        raise original
    assert caught.value is original


def fake_strategy(jobs, task=("worker", 0)):
    """What the functions under test read of a strategy whose cluster has these jobs."""
    resolver = types.SimpleNamespace(
        task_type=task[0], task_id=task[1], cluster_spec=lambda: tf.train.ClusterSpec(jobs)
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


TWO_WORKERS = {"worker": ["a:1", "b:2"]}


LOST = [
    "recvmsg:Connection reset by peer\nGraph execution error",
    "Collective ops is aborted by: Error reported from /job:worker/task:1: The following tasks "
    "are unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1",
    "Collective ops is aborted by: Deadline Exceeded\nRPC: /CoordinationService/Heartbeat",
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.2:2222",
    "Socket closed\nAdditional GRPC error information from remote target /job:worker/task:1",
    "Graph execution error:\n\nDetected at node CollectiveReduceV2 defined at (most recent call "
    "last):\n<stack traces unavailable>\nCollective ops is aborted by: Broken pipe",
]
ERRORS = [
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.CancelledError,
]


@pytest.mark.parametrize("text", LOST)
@pytest.mark.parametrize("error", ERRORS)
def test_a_lost_worker_is_one_line(error, text):
    original = error(None, None, text)
    with (
        pytest.raises(OSError, match=r"^another worker has stopped") as caught,
        device_errors.explain_lost_worker(fake_strategy(TWO_WORKERS)),
    ):
        raise original
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is original


OWN = [
    (tf.errors.InternalError, "cuDNN launch failure : input shape ([32,64,150,150])"),
    (tf.errors.InternalError, "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"),
    (tf.errors.FailedPreconditionError, "Timestamp cannot be called when determinism is enabled"),
    (tf.errors.CancelledError, "Operation was cancelled"),
    (tf.errors.AbortedError, "could not create a primitive"),
    (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[32,64,150,150]"),
    (tf.errors.InvalidArgumentError, "Incompatible shapes"),
    (tf.errors.InternalError, "failed to enable peer access: CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
]


@pytest.mark.parametrize(("error", "text"), OWN)
def test_an_error_of_the_worker_itself_keeps_its_message(error, text):
    original = error(None, None, text)
    with (
        pytest.raises(error) as caught,
        device_errors.explain_lost_worker(fake_strategy(TWO_WORKERS)),
    ):
        raise original
    assert caught.value is original


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", "InternalError"),
        ("Socket closed\nmore", "Socket closed"),
        (
            "{{function_node __wrapped__X}} OOM when   allocating [Op:X] name: ",
            "OOM when allocating",
        ),
        (
            "Graph execution error:\n\nDetected at node Timestamp defined at (most recent call "
            'last):\n  File "train.py", line 4, in <module>\n\nTimestamp cannot be called\n\t '
            "[[{{node Timestamp}}]] [Op:__inference_run_steps_9]",
            "Timestamp cannot be called",
        ),
    ],
)
def test_the_reason_of_an_error_is_a_line(message, expected):
    assert device_errors.reason_of(tf.errors.InternalError(None, None, message)) == expected


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError])
@pytest.mark.parametrize("jobs", [{}, {"worker": ["a:1"]}])
def test_an_error_of_the_only_worker_is_no_lost_worker(error, jobs):
    with pytest.raises(error), device_errors.explain_lost_worker(fake_strategy(jobs)):
        raise error(None, None, "recvmsg:Connection reset by peer")
