"""Two workers on two hosts, here two network namespaces, whose cable has troubles.

As root on Linux only; run with `make test-network`.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from worker_processes import command_of, error_of, finish, start, wait_for_line

from ssd_tf.training.monitor import read_metrics
from ssd_tf.weights import run_files, runs

pytestmark = pytest.mark.network
CABLE = pathlib.Path(__file__).with_name("slow_cable.py")
ADDRESSES = ("10.77.31.1", "10.77.31.2")
# Small, so that a step sends little.
SMALL = (
    "model.input_hw=[64, 64]",
    "model.num_levels=3",
    "train.checkpoint_every=2",
    "train.keep_checkpoints=1000",
    "data.val_split=none",
)


def run(command, check=True):
    return subprocess.run(command.split(), check=check, capture_output=True, text=True)


class Hosts:
    """Two namespaces, each with one end of a cable."""

    def __init__(self):
        self.names = [f"ssd_tf_{os.getpid()}_{end}" for end in "ab"]
        self.ends = ["cable_a", "cable_b"]
        self._forwarder = None

    def build(self):
        for name in self.names:
            run(f"ip netns add {name}")
        first, second = self.names
        run(f"ip link add cable_a netns {first} type veth peer name cable_b netns {second}")
        for name, end, address in zip(self.names, self.ends, ADDRESSES, strict=True):
            run(f"ip -n {name} addr add {address}/24 dev {end}")
            run(f"ip -n {name} link set lo up")
            run(f"ip -n {name} link set {end} up")

    def remove(self):
        if self._forwarder:
            self._forwarder.kill()
            self._forwarder.wait()
        for name in [*self.names, f"{self.names[0]}_middle"]:
            run(f"ip netns del {name}", check=False)

    def delay(self, milliseconds, percent):
        """Delay and lose packets on the cable, by the kernel if it can."""
        name = self.names[0]
        netem = f"netem delay {milliseconds}ms loss {percent}%"
        done = run(f"ip netns exec {name} tc qdisc add dev cable_a root {netem}", check=False)
        if done.returncode:
            self._carry_packets(milliseconds / 1000 / 2, percent / 100 / 2)

    def _carry_packets(self, delay, loss):
        """Cut the cable, and let a process in a third namespace join its two halves."""
        middle = f"{self.names[0]}_middle"
        run(f"ip netns add {middle}")
        run(f"ip -n {self.names[0]} link del cable_a")
        for name, end, address in zip(self.names, self.ends, ADDRESSES, strict=True):
            run(f"ip link add {end} netns {name} type veth peer name to_{end} netns {middle}")
            run(f"ip -n {name} addr add {address}/24 dev {end}")
            run(f"ip -n {name} link set {end} up")
            run(f"ip -n {middle} link set to_{end} up")
            run(f"ip netns exec {name} {sys.executable} {CABLE} offload {end}")
        command = f"ip netns exec {middle} {sys.executable} {CABLE} forward"
        command += f" to_cable_a to_cable_b {delay} {loss}"
        self._forwarder = subprocess.Popen(command.split())

    def pull(self):
        run(f"ip -n {self.names[1]} link set cable_b down")

    def plug_in(self):
        run(f"ip -n {self.names[1]} link set cable_b up")

    def start(self, command):
        addresses = [f"{address}:2222" for address in ADDRESSES]
        return [
            start(command, worker, addresses, ("ip", "netns", "exec", self.names[worker]))
            for worker in (0, 1)
        ]


@pytest.fixture
def hosts():
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (iproute2)")
    hosts = Hosts()
    try:
        try:
            hosts.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel has no network namespaces or veth: {error.stderr.strip()}")
        yield hosts
    finally:
        hosts.remove()


@pytest.fixture
def workers(hosts, tiny_data, tmp_path):
    """A function: two workers train for so many steps; they end with the test."""
    started = []

    def train(steps):
        command = command_of(tiny_data, tmp_path / "run", (*SMALL, f"train.steps={steps}"))
        started.extend(hosts.start(command))
        return started[-2:]

    yield train
    for process in started:
        process.kill()
        process.communicate()


def steps_of(folder):
    return [int(row["step"]) for row in read_metrics(folder / "run" / "metrics.csv")]


def test_delayed_and_lost_packets(hosts, workers, tmp_path):
    hosts.delay(100, 1)
    finish(workers(4), timeout=400)
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_a_cable_pulled_for_ten_seconds(hosts, workers, tmp_path):
    processes = workers(100_000)
    wait_for_line(processes[0], "step 5/")
    hosts.pull()
    time.sleep(10)
    hosts.plug_in()
    deadline = time.monotonic() + 60
    wait_for_line(processes[0], f"step {steps_of(tmp_path)[-1] + 5}/")
    assert time.monotonic() < deadline
    assert [process.poll() for process in processes] == [None, None]


def test_a_cable_pulled_for_good_and_a_restart(hosts, workers, tmp_path):
    processes = workers(100_000)
    wait_for_line(processes[0], "step 5/")
    hosts.pull()
    for messages in finish(processes, code=1, timeout=120):
        assert "another worker has stopped or cannot be reached" in error_of(messages)
    hosts.plug_in()
    last = max(run_files.step_of(prefix) for prefix in checkpoints(tmp_path))
    finish(workers(last + 4))
    assert steps_of(tmp_path) == list(range(1, last + 5))
    weights = runs.read_weights(runs.find_checkpoint(tmp_path / "run"))
    assert all(np.isfinite(value).all() for value in weights.values())


def checkpoints(folder):
    return run_files.list_checkpoints(folder / "run" / "checkpoints" / "last")
