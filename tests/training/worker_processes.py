"""`ssd train` as processes: alone, or as one of several workers."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = (
    "train.steps=6",
    "train.batch_size=4",
    "train.warmup_steps=0",
    "train.checkpoint_every=3",
    "train.learning_rate=0.02",
    "model.input_hw=[64, 96]",
    "watch.log_every=1",
    "watch.images=0",
)


def tf_config(cluster, **task):
    return json.dumps({"cluster": cluster, **task})


def command_of(records, workdir, settings, config="configs/shapes_plain.yaml"):
    """The command that trains with SETTINGS, and then with these KEY=VALUE."""
    command = [sys.executable, "train.py", "--config", config]
    command += ["--data", str(records), "--workdir", str(workdir)]
    for setting in (*SETTINGS, *settings):
        command += ["--set", setting]
    return command


def start(command, worker=None, addresses=(), prefix=()):
    """Start a command: alone, or as one of the workers at these addresses.

    prefix: what the command is an argument of, such as `ip netns exec NAME`.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    if worker is not None:
        task = {"type": "worker", "index": worker}
        environment["TF_CONFIG"] = tf_config({"worker": list(addresses)}, task=task)
    return subprocess.Popen(
        [*prefix, *command], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


REPLICAS = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
make_strategy = tf.distribute.MirroredStrategy
tf.distribute.MirroredStrategy = lambda: make_strategy(["CPU:0", "CPU:1"])
from ssd_tf.commands import train
sys.exit(train.main(["train", *sys.argv[1:]]))
"""


def two_replicas(command):
    """The command with two replicas in one process, each with its own batch norm."""
    return [sys.executable, "-c", REPLICAS, *command[2:], "--set", "train.strategy=mirrored"]


def start_two(*commands):
    """Two workers on this machine; one command for both, or one for each."""
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    return [start(commands[i % len(commands)], i, addresses) for i in (0, 1)]


def finish(processes, code=0, timeout=1200):
    """The messages of each process, after all have ended with this exit code.

    timeout: in seconds, for a machine with other work; processes that hang are killed, which is
    another exit code.
    """
    try:
        messages = [process.communicate(timeout=timeout)[1] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        messages = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), "\n".join(messages)[-4000:]
    return messages


def error_of(messages):
    """The one line that says why a process has ended."""
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, messages[-3000:]
    assert "Traceback" not in messages
    return errors[0]


def free_ports(count):
    servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def wait_for_line(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended without a line that has {text!r}")
