"""Where a step runs: on one device, on all GPUs of a machine, or on several workers."""

import contextlib
import functools
import re

import tensorflow as tf
from absl import logging

from ssd_tf.data.pipeline import StreamSlice
from ssd_tf.errors import ConfigError
from ssd_tf.training import workers

# What TensorFlow says when another worker no longer answers.
_CONNECTION = re.compile(
    r"\bUNAVAILABLE\b|socket closed|connection (reset|refused|timed out)|failed to connect|"
    r"broken pipe|heartbeat|\bpeer\b|unreachable|coordination service|recvmsg|keepalive",
    re.IGNORECASE,
)


def make_strategy(name, hosts=None, task=None) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a train.strategy.

    `auto`: several workers if `workers.find_workers` finds some, else all GPUs if there are
    several, else one device. A single GPU has its input copied ahead. With several workers this
    must be the first operation of TensorFlow.
    Raises ConfigError if the workers cannot be identified, OSError if one cannot be reached.
    """
    resolver = workers.find_workers(hosts, task)
    num_workers = workers.count_workers(resolver)
    if name == "multi_worker" and resolver is None:
        raise ConfigError(
            "train.strategy=multi_worker: expected the workers in --hosts, in TF_CONFIG or from "
            "srun, got none; e.g. --hosts host1:2222,host2:2222 --task 0, with --task 1 on the "
            "second"
        )
    if hosts and name not in ("auto", "multi_worker"):
        raise ConfigError(f"--hosts needs train.strategy=multi_worker or auto, got {name}")
    _let_gpu_memory_grow()
    if name == "multi_worker" or (name == "auto" and num_workers > 1):
        workers.wait_for_workers(resolver)
        workers.tolerate_silence(resolver)
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    if gpus:
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    return tf.distribute.get_strategy()


def _let_gpu_memory_grow():
    """Let TensorFlow take GPU memory as it needs it, so that other programs keep theirs."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # TensorFlow is in use already
            logging.warning("%s: TensorFlow takes all of its memory from the start", gpu.name)


def is_chief(strategy) -> bool:
    """Whether this process writes checkpoints, metrics and evaluations.

    It is the only process, the chief, or worker 0 of a cluster without a chief.
    """
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "chief"):
        return True
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def has_several_workers(strategy) -> bool:
    """Whether the strategy connects this process with others."""
    return count_workers(strategy) > 1


def count_workers(strategy) -> int:
    """The processes that the strategy connects, this one included."""
    return workers.count_workers(strategy.cluster_resolver)


def distribute(strategy, make_dataset, start_step, batch_size, accumulate=1):
    """An iterator over the batches from `start_step` on, as strategy.run takes them.

    make_dataset(StreamSlice) gives batches of batch_size / num_workers images; they are split over
    the worker's replicas. Raises ConfigError if the batch cannot be split evenly, into `accumulate`
    micro-batches on each replica.
    """
    num_replicas = strategy.num_replicas_in_sync
    if batch_size % (num_replicas * accumulate):
        micro_batches = f" with {accumulate} micro-batches each" if accumulate > 1 else ""
        raise ConfigError(
            f"train.batch_size {batch_size} must be a multiple of the {num_replicas} replicas"
            f"{micro_batches}"
        )

    def make_worker_dataset(context):
        num_workers = context.num_input_pipelines
        worker = context.input_pipeline_id
        dataset = make_dataset(StreamSlice(start_step, num_workers, worker))
        if num_replicas == num_workers:
            return dataset
        return dataset.rebatch(batch_size // num_replicas, drop_remainder=True)

    return iter(strategy.distribute_datasets_from_function(make_worker_dataset))


def barrier(strategy, step, workdir):
    """Wait for all workers.

    Raises ValueError if their steps differ: then they do not see the same run folder.
    """
    if not has_several_workers(strategy):
        return
    steps = sorted(set(_gather(strategy, step)))
    if len(steps) > 1:
        raise ValueError(
            f"the workers start from different steps ({steps}): "
            f"{workdir} must be one folder that all of them see"
        )


def any_worker(strategy, flag) -> bool:
    """Whether `flag` is true on any worker; all must call it. One worker needs no others."""
    if not has_several_workers(strategy):
        return flag
    return any(_gather(strategy, int(flag)))


def _gather(strategy, number) -> list[int]:
    """The numbers of all replicas."""
    return _gathering(strategy)(tf.constant([number], tf.int64)).numpy().tolist()


@functools.cache
def _gathering(strategy):
    """Each worker passes its own number; traced once."""

    @tf.function
    def gather(number):
        return strategy.gather(strategy.run(lambda: tf.identity(number)), axis=0)

    return gather


def gather_texts(strategy, text) -> list[str]:
    """The texts of all replicas, in their order; all workers must call it."""
    content = text.encode()
    length = max(_gather(strategy, len(content)))
    padded = tf.constant([list(content.ljust(length, b" "))], tf.int64)
    return [bytes(row).decode().rstrip() for row in _gathering(strategy)(padded).numpy().tolist()]


@contextlib.contextmanager
def explain_lost_worker(strategy):
    """Inside, replace the broken connection that a lost worker leaves by an error of one line.

    Errors of this worker itself pass through.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not (has_several_workers(strategy) and _is_about_a_connection(error)):
            raise
        raise OSError(
            f"another worker has stopped or cannot be reached ({reason_of(error)}); see its "
            "messages, then start the same command on all of them again: training resumes from "
            "the last checkpoint"
        ) from error


def reason_of(error) -> str:
    """What a TensorFlow error says, in one line and without the graph around it."""
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [re.sub(r"\{\{.*?\}\}|\[Op:.*|\[\[.*|Additional GRPC.*", "", line) for line in lines]
    if lines and lines[0].startswith("Graph execution error"):
        # Then come the places in the source where the operation was made, and what it says.
        lines = [line for line in lines[1:] if not re.match("Detected at|File |<", line)]
    return " ".join(next((line for line in lines if line), type(error).__name__).split())[:200]


def _is_about_a_connection(error):
    return isinstance(error, tf.errors.UnavailableError) or _CONNECTION.search(error.message)
