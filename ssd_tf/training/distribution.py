"""Where a step runs: on one device, on all GPUs of a machine, or on several machines.

Several machines find each other by the environment variable TF_CONFIG, and see data and run folder under the same paths.
"""

import contextlib
import json
import os

import tensorflow as tf

from ssd_tf.config import Config, ConfigError


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """The tf.distribute strategy of train.strategy. To be called before any TensorFlow operation where machines are several.

    `auto` is several machines where TF_CONFIG names them, else all GPUs where there are several, else one device.
    Raises ConfigError where TF_CONFIG cannot be used.
    """
    chosen, machines = config.train.strategy, _count_machines()
    if chosen == "multi_worker" and not machines:
        raise ConfigError(
            'train.strategy=multi_worker wants the machines in TF_CONFIG, found none; e.g. {"cluster": {"worker": '
            '["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}, with index 1 on the second'
        )
    if chosen == "multi_worker" or (chosen == "auto" and machines > 1):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if chosen == "mirrored" or (
        chosen == "auto" and len(tf.config.list_logical_devices("GPU")) > 1
    ):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _count_machines():
    """The workers that TF_CONFIG names; 0 where it is not set or names no cluster."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0
    try:
        content = json.loads(text)
        cluster, task = content.get("cluster", {}), content.get("task", {})
        jobs = {job: len(addresses) for job, addresses in cluster.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG wants JSON with `cluster` and `task`, found {text[:80]!r} ({error})"
        ) from None
    if not jobs:
        return 0
    if set(jobs) - {"chief", "worker"}:
        raise ConfigError(
            f"TF_CONFIG: a cluster of workers (and a chief) is wanted, found {', '.join(sorted(jobs))}"
        )
    if task.get("type") not in jobs or task.get("index") not in range(jobs[task["type"]]):
        raise ConfigError(
            f"TF_CONFIG: `task` wants a type and an index of its own cluster, found {json.dumps(task)}"
        )
    return sum(jobs.values())


def is_chief(strategy) -> bool:
    """Whether this process is the one that writes checkpoints, metrics and evaluations: the only one, the chief, or worker 0."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "chief"):
        return True
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def distribute(strategy, make_dataset, start, batch_size):
    """An iterator over the batches from step `start` on, as strategy.run takes them.

    make_dataset(start step, number of machines, this one's number) gives batches of batch_size over the number of machines; here
    they are divided over the machine's replicas. Raises ConfigError where the batch cannot be shared out evenly.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ConfigError(
            f"train.batch_size {batch_size} must be a multiple of the {replicas} replicas"
        )

    def make(context):
        machines = context.num_input_pipelines
        dataset = make_dataset(start, machines, context.input_pipeline_id)
        return (
            dataset
            if replicas == machines
            else dataset.rebatch(batch_size // replicas, drop_remainder=True)
        )

    return iter(strategy.distribute_datasets_from_function(make))


def barrier(strategy, step, workdir):
    """Waits for all machines. Raises ValueError where they are not at the same step: then they do not see the same run folder."""
    if strategy.cluster_resolver is None:
        return

    @tf.function
    def gather():
        return strategy.gather(strategy.run(lambda: tf.constant([step], tf.int64)), axis=0)

    steps = sorted(set(gather().numpy().tolist()))
    if len(steps) > 1:
        raise ValueError(
            f"the machines start from different steps ({steps}): {workdir} must be one folder that all of them see"
        )


@contextlib.contextmanager
def explain_lost_worker():
    """Inside, the failure of another machine, which TensorFlow tells as a broken connection, comes out as one line."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        raise OSError(
            "another machine of TF_CONFIG has stopped or cannot be reached; see what it says, then start the same command on "
            "all of them again: training goes on from the last checkpoint"
        ) from None
