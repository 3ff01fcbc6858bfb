"""The strategy of a run, its workers, their input, and what they tell each other.

Each worker is a process that runs the same command, and must see the data and the run folder under
the same paths.
"""

import functools
import json
import os
import shutil
import socket
import time

import tensorflow as tf
from absl import logging
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from ssd_tf.data.pipeline import StreamSlice
from ssd_tf.errors import ConfigError

WAIT_SECONDS = 300
# Without a sign of life for so long a worker is lost. TensorFlow's ten seconds would end a run
# when a cable is pulled for five.
SILENCE_SECONDS = 40
_QUIET_SECONDS = 5


def make_strategy(name, hosts=None, task=None) -> tf.distribute.Strategy:
    """The tf.distribute strategy of a train.strategy.

    `auto`: several workers if `find_workers` finds some, else all GPUs if there are
    several, else one device. A single GPU has its input copied ahead. With several workers this
    must be the first operation of TensorFlow.
    Raises ConfigError if the workers cannot be identified, OSError if one cannot be reached.
    """
    resolver = find_workers(hosts, task)
    num_workers = _cluster_size(resolver)
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
        wait_for_workers(resolver)
        tolerate_silence(resolver)
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


def count_workers(strategy) -> int:
    """The number of processes that the strategy connects, including this one."""
    return _cluster_size(strategy.cluster_resolver)


def has_several_workers(strategy) -> bool:
    """Whether the strategy connects this process with others."""
    return count_workers(strategy) > 1


def _cluster_size(resolver):
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in cluster.jobs)


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

    @tf.function(autograph=False)
    def gather(number):
        return strategy.gather(strategy.run(lambda: tf.identity(number)), axis=0)

    return gather


def gather_texts(strategy, text) -> list[str]:
    """The texts of all replicas, in their order; all workers must call it."""
    content = text.encode()
    length = max(_gather(strategy, len(content)))
    padded = tf.constant([list(content.ljust(length, b" "))], tf.int64)
    return [bytes(row).decode().rstrip() for row in _gathering(strategy)(padded).numpy().tolist()]


def find_workers(hosts=None, task=None):
    """A tf.distribute cluster resolver, or None if there is only this process.

    hosts: ["host:port", ...], the same list for every worker; task: the index of this one. Without
    them the workers come from TF_CONFIG, else from SLURM's variables inside `srun`.
    Raises ConfigError if what is given cannot be used.
    """
    if hosts or task is not None:
        _check_hosts(hosts, task)
        cluster = tf.train.ClusterSpec({"worker": hosts})
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="worker", task_id=task, rpc_layer="grpc"
        )
    if resolver := _tf_config_resolver():
        return resolver
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        return _slurm_resolver()
    return None


def own_address(resolver) -> str:
    """The host:port of this worker."""
    return resolver.cluster_spec().task_address(resolver.task_type, resolver.task_id)


def wait_for_workers(resolver, timeout=WAIT_SECONDS, poll=0.5):
    """Return once every other worker has been reached.

    TensorFlow itself would wait silently for an hour. Until then this worker listens on its
    own port, where the others look for it; afterwards TensorFlow's server answers there.
    Raises OSError, in one line, if a host has no address, if one is not reached within `timeout`
    seconds, or if the own port is in use.
    """
    cluster = resolver.cluster_spec()
    own = own_address(resolver)
    missing = {address: "not tried" for job in cluster.jobs for address in cluster.job_tasks(job)}
    del missing[own]
    start = time.monotonic()
    quiet_until = start + _QUIET_SECONDS
    with _listen(own):
        while missing := _unreached(missing):
            now = time.monotonic()
            if now - start > timeout:
                reasons = ", ".join(f"{name} ({reason})" for name, reason in missing.items())
                raise OSError(
                    f"after {timeout:g} s not reached: {reasons}; start the same command "
                    "on all machines, and check names, ports and firewalls"
                )
            if now > quiet_until:
                quiet_until = float("inf")
                logging.info("waiting for %s", ", ".join(missing))
            time.sleep(poll)


def tolerate_silence(resolver):
    """Set how long the workers wait for a sign of life of each other.

    TensorFlow's strategy leaves it so, and has no argument for it.
    """
    cluster = resolver.cluster_spec()
    jobs = [
        coordination_config_pb2.CoordinatedJob(name=job, num_tasks=cluster.num_tasks(job))
        for job in ("chief", "worker")
        if job in cluster.jobs
    ]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0].name}/replica:0/task:0",
        cluster_register_timeout_in_ms=1000 * WAIT_SECONDS,
        heartbeat_timeout_in_ms=1000 * SILENCE_SECONDS,
        coordinated_jobs=jobs,
    )


def _check_hosts(hosts, task):
    example = "e.g. --hosts h1:2222,h2:2222 --task 0, with 1 on the second"
    if not hosts or task is None:
        raise ConfigError(f"expected --hosts and --task together, {example}")
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not (name and port.isdigit() and 1 <= int(port) <= 65535):
            raise ConfigError(f"--hosts: expected HOST:PORT, got {host!r}; {example}")
    if len(set(hosts)) < len(hosts):
        raise ConfigError(f"--hosts: expected each worker once, got {','.join(hosts)}")
    if not 0 <= task < len(hosts):
        raise ConfigError(
            f"--task: expected 0 to {len(hosts) - 1}, an index into --hosts, got {task}"
        )
    if os.environ.get("TF_CONFIG"):
        raise ConfigError("give either --hosts or the environment variable TF_CONFIG, not both")


def _tf_config_resolver():
    """The resolver of TF_CONFIG; None if it is not set or names no cluster."""
    text = os.environ.get("TF_CONFIG")
    try:
        content = json.loads(text or "{}")
        cluster = content.get("cluster", {})
        if not cluster:
            return None
        task = content.get("task", {})
        tasks = range(len(cluster.get(task.get("type"), ())))
        is_right = cluster.keys() <= {"chief", "worker"} and task.get("index") in tasks
    except (ValueError, AttributeError, TypeError):
        is_right = False
    if not is_right:
        raise ConfigError(
            "TF_CONFIG: expected JSON with a `cluster` of workers (and a chief) and a `task` with "
            f"a type and an index of it, got {text[:200]!r}"
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _slurm_resolver():
    """The tasks of the SLURM step, on ports from 8888 on; GPUs are shared out evenly."""
    arguments = {}
    if shutil.which("nvidia-smi") is None:
        # The resolver counts GPUs and cannot cope with none: as many as tasks, and none is set.
        num_tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        arguments = {"gpus_per_node": num_tasks, "gpus_per_task": 1, "auto_set_gpu": False}
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**arguments)
        resolver.cluster_spec()  # sets the index of this task
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            "SLURM's environment variables (SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST, ...) do not "
            f"name the workers ({' '.join(str(error).split())}): start with srun, or give --hosts "
            "and --task"
        ) from None
    return resolver


def _listen(address):
    """A listening socket on the port of this worker; it answers by accepting connections."""
    port = int(address.rpartition(":")[2])
    try:
        return socket.create_server(("", port), reuse_port=False)
    except OSError as error:
        raise OSError(
            f"cannot listen on port {port} for {address} ({error.strerror}): stop the process "
            "that uses it, or choose another port on all machines"
        ) from None


def _unreached(addresses):
    """Those of {address: reason} that accept no connection now. Raises OSError for no host."""
    reasons = {}
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except socket.gaierror:
            raise OSError(f"the worker {address} has no address: check the host name") from None
        except OSError as error:
            reasons[address] = (error.strerror or "no answer").lower()
    return reasons
