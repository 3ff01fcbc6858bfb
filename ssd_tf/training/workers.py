"""The workers of a run on several machines: who they are, and whether they can be reached.

Each worker is a process that runs the same command, and must see the data and the run folder under
the same paths.
"""

import json
import os
import shutil
import socket
import time

import tensorflow as tf
from absl import logging
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from ssd_tf.errors import ConfigError

WAIT_SECONDS = 300
# Without a sign of life for so long a worker is lost. TensorFlow's ten seconds would end a run
# when a cable is pulled for five.
SILENCE_SECONDS = 40
_QUIET_SECONDS = 5


def find_workers(hosts=None, task=None):
    """A tf.distribute cluster resolver, or None if there is only this process.

    hosts: ["host:port", ...], the same list for every worker; task: the index of this one. Without
    them the workers come from TF_CONFIG, else from SLURM's variables inside `srun`.
    Raises ConfigError if what is given cannot be used.
    """
    resolvers = tf.distribute.cluster_resolver
    if hosts or task is not None:
        _check_hosts(hosts, task)
        cluster = tf.train.ClusterSpec({"worker": hosts})
        return resolvers.SimpleClusterResolver(
            cluster, task_type="worker", task_id=task, rpc_layer="grpc"
        )
    if _count_workers_of_tf_config():
        return resolvers.TFConfigClusterResolver()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        return _slurm_resolver()
    return None


def count_workers(resolver) -> int:
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in cluster.jobs)


def own_address(resolver) -> str:
    """The host:port of this worker."""
    return resolver.cluster_spec().task_address(resolver.task_type, resolver.task_id)


def wait_for_workers(resolver, timeout=WAIT_SECONDS, poll=0.5):
    """Return once every other worker has been reached.

    TensorFlow itself would wait for an hour, without a word. Until then this worker listens on its
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
                raise OSError(
                    f"after {timeout:g} s not reached: {_list(missing)}; start the same command "
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
            f"the variables of SLURM (SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST, ...) do not name "
            f"the workers ({' '.join(str(error).split())}): start with srun, or give --hosts and "
            "--task"
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
            reasons[address] = error.strerror or "no answer"
    return reasons


def _list(reasons):
    return ", ".join(f"{address} ({reason.lower()})" for address, reason in reasons.items())
