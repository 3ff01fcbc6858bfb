"""Two machines, here two processes that talk over the network, train as one does: the very command, on the same records."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from data_tools import shapes
from ssd_tf.config import ConfigError
from ssd_tf.training import checkpoints, distribution, monitor

ROOT = pathlib.Path(__file__).parents[2]
TWO = {"cluster": {"worker": ["a:1", "b:2"]}}
# Batch norm is frozen, as its statistics belong to each machine.
SETTINGS = (
    "train.steps=6",
    "train.batch_size=4",
    "train.bn=frozen",
    "train.warmup_steps=0",
    "train.checkpoint_every=3",
)
SETTINGS += (
    "model.input_hw=[64, 96]",
    "watch.log_every=1",
    "watch.images=0",
    "train.learning_rate=0.02",
)


def test_one_device(toy_config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = distribution.make_strategy(toy_config(strategy="one"))
    assert strategy.num_replicas_in_sync == 1
    assert distribution.is_chief(strategy)
    distribution.barrier(strategy, 3, "run")  # nobody to wait for


BAD_TF_CONFIGS = {
    "": "wants the machines in TF_CONFIG, found none",
    "{}": "wants the machines in TF_CONFIG, found none",
    "worker": "TF_CONFIG wants JSON with `cluster` and `task`, found 'worker'",
    '{"cluster": ["a:1"]}': "TF_CONFIG wants JSON with `cluster` and `task`",
    json.dumps(
        {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}
    ): "a cluster of workers .* is wanted, found ps, worker",
    json.dumps(
        {**TWO, "task": {"type": "worker", "index": 2}}
    ): "`task` wants a type and an index of its own cluster",
    json.dumps(
        {**TWO, "task": {"type": "chief", "index": 0}}
    ): "`task` wants a type and an index of its own cluster",
    json.dumps(TWO): "`task` wants a type and an index of its own cluster, found {}",
}


@pytest.mark.parametrize(("text", "message"), BAD_TF_CONFIGS.items())
def test_machines_that_cannot_be_used(toy_config, monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        distribution.make_strategy(toy_config(strategy="multi_worker"))


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        (("worker",), ("worker", 0), True),
        (("worker",), ("worker", 1), False),
        (("chief", "worker"), ("chief", 0), True),
        (("chief", "worker"), ("worker", 0), False),
    ],
)
def test_one_machine_is_the_chief(jobs, task, expected):
    resolver = types.SimpleNamespace(
        task_type=task[0], task_id=task[1], cluster_spec=lambda: types.SimpleNamespace(jobs=jobs)
    )
    assert distribution.is_chief(types.SimpleNamespace(cluster_resolver=resolver)) == expected


def test_the_batch_must_be_shared_out_evenly():
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    with pytest.raises(
        ConfigError, match=r"train.batch_size 3 must be a multiple of the 2 replicas"
    ):
        distribution.distribute(two, None, 0, 3)


def test_the_replicas_of_a_machine_share_its_batch():
    asked = []

    def make_dataset(*arguments):
        asked.append(arguments)
        return tf.data.Dataset.range(8).batch(4)

    def distribute_datasets_from_function(make):
        return make(
            tf.distribute.InputContext(
                num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=4
            )
        )

    strategy = types.SimpleNamespace(
        num_replicas_in_sync=4, distribute_datasets_from_function=distribute_datasets_from_function
    )
    batches = [
        batch.numpy().tolist() for batch in distribution.distribute(strategy, make_dataset, 5, 8)
    ]
    assert asked == [(5, 2, 1)]
    assert batches == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_machine_that_is_lost_is_one_line():
    with (
        pytest.raises(OSError, match=r"^another machine of TF_CONFIG has stopped"),
        distribution.explain_lost_worker(),
    ):
        raise tf.errors.UnavailableError(
            None, None, "recvmsg:Connection reset by peer\nGraph execution error"
        )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    from data_tools import coco_to_tfrecord

    folder = tmp_path_factory.mktemp("machines")
    assert shapes.main(["shapes", "--output", str(folder), "--images", "24"]) == 0
    given = [
        f"--{name}={folder / path}"
        for name, path in (("images", "images"), ("annotations", "annotations.json"))
    ]
    assert (
        coco_to_tfrecord.main(
            ["convert", *given, f"--output={folder / 'records'}", "--val_fraction=0.25"]
        )
        == 0
    )
    return folder / "records"


def start(records, workdir, machine=None, ports=()):
    """train.py as a process: alone, or as one of the machines that listen at these ports."""
    given = ["--config", "configs/shapes_plain.yaml", "--data", records, "--workdir", workdir]
    given += [part for setting in SETTINGS for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"} | {
        "CUDA_VISIBLE_DEVICES": "-1"
    }
    if machine is not None:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        environment["TF_CONFIG"] = json.dumps(
            {"cluster": cluster, "task": {"type": "worker", "index": machine}}
        )
    command = [sys.executable, "train.py", *map(str, given)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def finish(*processes):
    """The messages of each, once all have ended well."""
    messages = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(
        messages
    )[-4000:]
    return messages


def free_ports(number):
    with_ports = [socket.create_server(("localhost", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in with_ports]
    for server in with_ports:
        server.close()
    return ports


def test_two_machines_are_as_good_as_one(records, tmp_path):
    ports = free_ports(2)
    alone = start(records, tmp_path / "one")
    finish(alone)
    messages = finish(*(start(records, tmp_path / "two", machine, ports) for machine in (0, 1)))
    assert "step 6  AP" in messages[0]
    assert "step 6" not in messages[1]  # one machine speaks, writes and evaluates
    rows = {name: monitor.read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two")}
    assert [row["step"] for row in rows["two"]] == ["1", "2", "3", "4", "5", "6", "6"]
    losses = {name: [float(row["loss"]) for row in rows[name][:6]] for name in rows}
    assert [row["positives"] for row in rows["two"]] == [row["positives"] for row in rows["one"]]
    np.testing.assert_allclose(losses["two"], losses["one"], rtol=1e-4)
    one, two = (
        checkpoints.read_weights(checkpoints.find_checkpoint(tmp_path / name))
        for name in ("one", "two")
    )
    assert sorted(one) == sorted(two)
    for path, value in one.items():
        np.testing.assert_allclose(
            two[path], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=path
        )
    # A second machine that sees another run folder would begin at step 0.
    ports = free_ports(2)
    apart = [
        start(records, tmp_path / name, machine, ports)
        for machine, name in enumerate(("two", "elsewhere"))
    ]
    messages = [process.communicate(timeout=300)[1] for process in apart]
    assert [process.returncode for process in apart] == [1, 1]
    assert all(
        "error: the machines start from different steps ([0, 6])" in text for text in messages
    ), messages
