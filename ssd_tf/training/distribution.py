"""Where a step runs: on one device, on all GPUs of a machine, or on several workers.

Workers find each other by the environment variable TF_CONFIG, and must see the data and the run
folder under the same paths.
"""

import contextlib
import json
import os

import tensorflow as tf

from ssd_tf.config import ConfigError
from ssd_tf.data.pipeline import StreamSlice


def make_strategy(name) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a train.strategy.

    `auto`: several workers if TF_CONFIG names them, else all GPUs if there are several, else one
    device. With several workers this must be the first operation of TensorFlow.
    Raises ConfigError if TF_CONFIG cannot be used.
    """
    num_workers = _count_workers_of_tf_config()
    if name == "multi_worker" and not num_workers:
        raise ConfigError(
            "train.strategy=multi_worker: expected the workers in TF_CONFIG, got none; e.g. "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}, with index 1 on the second'
        )
    if name == "multi_worker" or (name == "auto" and num_workers > 1):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored" or (name == "auto" and len(tf.config.list_logical_devices("GPU")) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _count_workers_of_tf_config():
    """The number of workers that TF_CONFIG names; 0 if it is not set or names no cluster."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0
    try:
        content = json.loads(text)
        cluster = content.get("cluster", {})
        task = content.get("task", {})
        num_tasks = {job: len(addresses) for job, addresses in cluster.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG: expected JSON with `cluster` and `task`, got {text[:80]!r} ({error})"
        ) from None
    if not num_tasks:
        return 0
    if set(num_tasks) - {"chief", "worker"}:
        raise ConfigError(
            "TF_CONFIG: expected a cluster of workers (and a chief), "
            f"got {', '.join(sorted(num_tasks))}"
        )
    if task.get("type") not in num_tasks or task.get("index") not in range(num_tasks[task["type"]]):
        raise ConfigError(
            "TF_CONFIG: expected a `task` with a type and an index of its own cluster, "
            f"got {json.dumps(task)}"
        )
    return sum(num_tasks.values())


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
    resolver = strategy.cluster_resolver
    if resolver is None:
        return False
    cluster = resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in cluster.jobs) > 1


def distribute(strategy, make_dataset, start_step, batch_size):
    """An iterator over the batches from `start_step` on, as strategy.run takes them.

    make_dataset(StreamSlice) gives batches of batch_size / num_workers images; they are split over
    the worker's replicas. Raises ConfigError if the batch cannot be split evenly.
    """
    num_replicas = strategy.num_replicas_in_sync
    if batch_size % num_replicas:
        raise ConfigError(
            f"train.batch_size {batch_size} must be a multiple of the {num_replicas} replicas"
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

    @tf.function
    def gather():
        return strategy.gather(strategy.run(lambda: tf.constant([step], tf.int64)), axis=0)

    steps = sorted(set(gather().numpy().tolist()))
    if len(steps) > 1:
        raise ValueError(
            f"the workers start from different steps ({steps}): "
            f"{workdir} must be one folder that all of them see"
        )


@contextlib.contextmanager
def explain_lost_worker(strategy):
    """Inside, replace the broken connection that a lost worker leaves by an error of one line."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        if not has_several_workers(strategy):
            raise
        raise OSError(
            "another worker of TF_CONFIG has stopped or cannot be reached; see its messages, then "
            "start the same command on all of them again: training resumes from the last checkpoint"
        ) from None
