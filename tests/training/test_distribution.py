"""Two workers, here two processes that talk over the network, train as one does.

They run the very command, on the same records.
"""

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

from data_tools import coco_to_tfrecord, shapes
from ssd_tf.config import ConfigError
from ssd_tf.training import distribution
from ssd_tf.training.monitor import read_metrics
from ssd_tf.weights import runs

ROOT = pathlib.Path(__file__).parents[2]
# Batch norm is frozen, because each worker has its own statistics.
SETTINGS = (
    "train.steps=6",
    "train.batch_size=4",
    "train.bn=frozen",
    "train.warmup_steps=0",
    "train.checkpoint_every=3",
    "train.learning_rate=0.02",
    "model.input_hw=[64, 96]",
    "watch.log_every=1",
    "watch.images=0",
)


def fake_strategy(jobs, task=("worker", 0)):
    """What the functions under test read of a strategy whose cluster has these jobs."""
    resolver = types.SimpleNamespace(
        task_type=task[0], task_id=task[1], cluster_spec=lambda: tf.train.ClusterSpec(jobs)
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


TWO_WORKERS = {"worker": ["a:1", "b:2"]}


def test_one_device(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = distribution.make_strategy("one")
    assert strategy.num_replicas_in_sync == 1
    assert distribution.is_chief(strategy)
    assert not distribution.has_several_workers(strategy)
    distribution.barrier(strategy, 3, "run")  # returns at once


def tf_config(cluster, **task):
    return json.dumps({"cluster": cluster, **task})


BAD_TF_CONFIGS = {
    "": "expected the workers in --hosts, in TF_CONFIG or from srun, got none",
    "{}": "expected the workers in --hosts, in TF_CONFIG or from srun, got none",
    "worker": "TF_CONFIG: expected JSON with `cluster` and `task`, got 'worker'",
    tf_config(["a:1"]): "TF_CONFIG: expected JSON with `cluster` and `task`",
    tf_config({"worker": ["a:1"], "ps": ["b:1"]}): "expected a cluster of workers .*, got ps, work",
    tf_config(TWO_WORKERS, task={"type": "worker", "index": 2}): "a type and an index of its own",
    tf_config(TWO_WORKERS, task={"type": "chief", "index": 0}): "a type and an index of its own",
    tf_config(TWO_WORKERS): "a type and an index of its own cluster, got {}",
}


@pytest.mark.parametrize(("text", "message"), BAD_TF_CONFIGS.items())
def test_a_tf_config_that_cannot_be_used(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        distribution.make_strategy("multi_worker")


@pytest.mark.parametrize(
    ("jobs", "task", "expected"),
    [
        (("worker",), ("worker", 0), True),
        (("worker",), ("worker", 1), False),
        (("chief", "worker"), ("chief", 0), True),
        (("chief", "worker"), ("worker", 0), False),
    ],
)
def test_one_worker_is_the_chief(jobs, task, expected):
    strategy = fake_strategy({job: ["a:1", "b:2"] for job in jobs}, task)
    assert distribution.is_chief(strategy) == expected


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, False),
        ({"worker": ["a:1"]}, False),
        (TWO_WORKERS, True),
        ({"chief": ["a:1"], "worker": ["b:2"]}, True),
    ],
)
def test_several_workers(jobs, expected):
    assert distribution.has_several_workers(fake_strategy(jobs)) == expected


def test_the_batch_must_be_split_evenly():
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    message = r"train.batch_size 3 must be a multiple of the 2 replicas"
    with pytest.raises(ConfigError, match=message):
        distribution.distribute(strategy, None, 0, 3)


def test_a_replicas_share_must_be_split_into_micro_batches():
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    message = r"batch_size 12 must be a multiple of the 2 replicas with 4 micro-batches each"
    with pytest.raises(ConfigError, match=message):
        distribution.distribute(strategy, None, 0, 12, accumulate=4)


@pytest.fixture
def devices(monkeypatch):
    """A function: TensorFlow has this many GPUs; returns the strategies made and growth set."""

    def install(num_gpus, initialized=False):
        made = []
        names = [f"/gpu:{index}" for index in range(num_gpus)]
        gpus = [types.SimpleNamespace(name=name) for name in names]
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _kind: gpus)
        monkeypatch.setattr("tensorflow.config.list_logical_devices", lambda _kind: gpus)

        def set_growth(gpu, enabled):
            if initialized:
                raise RuntimeError("Physical devices cannot be modified after being initialized")
            made.append((gpu.name, enabled))

        monkeypatch.setattr("tensorflow.config.experimental.set_memory_growth", set_growth)
        for name in ("MirroredStrategy", "OneDeviceStrategy"):
            monkeypatch.setattr(
                f"tensorflow.distribute.{name}",
                lambda *device, name=name: made.append((name, *device)),
            )
        return made

    monkeypatch.delenv("TF_CONFIG", raising=False)
    return install


@pytest.mark.parametrize(
    ("num_gpus", "name", "expected"),
    [
        (0, "auto", []),
        (0, "mirrored", [("MirroredStrategy",)]),
        (1, "auto", [("OneDeviceStrategy", "/gpu:0")]),
        (2, "auto", [("MirroredStrategy",)]),
        (2, "one", [("OneDeviceStrategy", "/gpu:0")]),
    ],
)
def test_the_strategy_of_the_gpus(devices, num_gpus, name, expected):
    made = devices(num_gpus)
    distribution.make_strategy(name)
    growth = [(f"/gpu:{index}", True) for index in range(num_gpus)]
    assert made == growth + expected


def test_gpu_memory_that_cannot_grow_is_a_warning(devices, caplog):
    made = devices(1, initialized=True)
    distribution.make_strategy("auto")
    assert made == [("OneDeviceStrategy", "/gpu:0")]
    assert "/gpu:0: TensorFlow takes all of its memory from the start" in caplog.text


def test_any_worker_without_others():
    assert distribution.any_worker(fake_strategy({}), True) is True
    assert distribution.any_worker(fake_strategy({"worker": ["a:1"]}), False) is False


def test_the_batch_of_a_worker_is_split_over_its_replicas():
    slices = []

    def make_dataset(stream_slice):
        slices.append(stream_slice)
        return tf.data.Dataset.range(8).batch(4)

    def distribute_datasets_from_function(make_worker_dataset):
        context = tf.distribute.InputContext(
            num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=4
        )
        return make_worker_dataset(context)

    strategy = types.SimpleNamespace(
        num_replicas_in_sync=4, distribute_datasets_from_function=distribute_datasets_from_function
    )
    batches = distribution.distribute(strategy, make_dataset, 5, 8)
    assert [batch.numpy().tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert slices == [(5, 2, 1)]


LOST = [
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.CancelledError,
]


@pytest.mark.parametrize("error", LOST)
def test_a_lost_worker_is_one_line(error):
    with (
        pytest.raises(OSError, match=r"^another worker has stopped"),
        distribution.explain_lost_worker(fake_strategy(TWO_WORKERS)),
    ):
        raise error(None, None, "recvmsg:Connection reset by peer\nGraph execution error")


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError])
@pytest.mark.parametrize("jobs", [{}, {"worker": ["a:1"]}])
def test_an_error_of_the_only_worker_is_no_lost_worker(error, jobs):
    with pytest.raises(error), distribution.explain_lost_worker(fake_strategy(jobs)):
        raise error(None, None, "could not create a primitive")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    assert shapes.main(["shapes", "--output", str(folder), "--images", "24"]) == 0
    argv = [
        "convert",
        f"--images={folder / 'images'}",
        f"--annotations={folder / 'annotations.json'}",
        f"--output={folder / 'records'}",
        "--val_fraction=0.25",
    ]
    assert coco_to_tfrecord.main(argv) == 0
    return folder / "records"


def start(records, workdir, worker=None, ports=(), settings=()):
    """Start train.py as a process: alone, or as one of the workers that listen at these ports.

    settings: further KEY=VALUE.
    """
    command = [sys.executable, "train.py", "--config", "configs/shapes_plain.yaml"]
    command += ["--data", str(records), "--workdir", str(workdir)]
    for setting in (*SETTINGS, *settings):
        command += ["--set", setting]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    if worker is not None:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        task = {"type": "worker", "index": worker}
        environment["TF_CONFIG"] = tf_config(cluster, task=task)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def finish(processes, code=0):
    """The messages of each process, after all have ended with this exit code."""
    messages = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), "\n".join(messages)[-4000:]
    return messages


def free_ports(count):
    servers = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def start_two(records, workdir, settings=()):
    ports = free_ports(2)
    return [start(records, workdir, worker, ports, settings) for worker in (0, 1)]


def assert_same_run(two, one, rtol):
    """The same rows of metrics.csv and the same weights, up to rounding."""
    rows = [read_metrics(folder / "metrics.csv") for folder in (two, one)]
    for name in ("step", "positives_per_image"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]
    losses = [[float(row["loss"]) for row in each] for each in rows]
    np.testing.assert_allclose(losses[0], losses[1], rtol=rtol)
    weights, expected = (runs.read_weights(runs.find_checkpoint(folder)) for folder in (two, one))
    assert sorted(weights) == sorted(expected)
    for path, value in expected.items():
        margin = rtol * np.abs(value).max()
        np.testing.assert_allclose(weights[path], value, rtol=10 * rtol, atol=margin, err_msg=path)


def test_two_workers_train_as_one_does(records, tmp_path):
    finish([start(records, tmp_path / "one")])
    messages = finish(start_two(records, tmp_path / "two"))
    assert "step 6  AP" in messages[0]
    assert "step 6" not in messages[1]  # only the chief reports, writes and evaluates
    steps = [row["step"] for row in read_metrics(tmp_path / "two" / "metrics.csv")]
    assert steps == ["1", "2", "3", "4", "5", "6"]
    assert_same_run(tmp_path / "two", tmp_path / "one", 1e-4)
    # A second worker that sees another run folder would begin at step 0.
    ports = free_ports(2)
    folders = ("two", "elsewhere")
    processes = [start(records, tmp_path / folders[i], i, ports) for i in (0, 1)]
    for text in finish(processes, code=1):
        assert "error: the workers start from different steps ([0, 6])" in text


FIFTY = (
    "train.steps=50",
    "train.checkpoint_every=10",
    "eval.every=25",
    # All negatives: a rounding error would soon choose other hard ones.
    "loss.negatives_per_positive=1e6",
    "train.learning_rate=0.0005",
)


@pytest.mark.slow
def test_two_workers_train_as_one_does_for_fifty_steps(records, tmp_path):
    finish([start(records, tmp_path / "one", settings=FIFTY)])
    finish(start_two(records, tmp_path / "two", FIFTY))
    assert_same_run(tmp_path / "two", tmp_path / "one", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_other_and_both_resume(records, tmp_path, victim):
    finish(start_two(records, tmp_path / "straight", FIFTY))
    processes = start_two(records, tmp_path / "killed", FIFTY)
    wait_for_line(processes[0], "step 15/50")
    processes[victim].kill()
    survivor = processes[1 - victim]
    # An end within 30 s, or TimeoutExpired.
    _, messages = survivor.communicate(timeout=30)
    assert survivor.returncode == 1, messages[-3000:]
    errors = [line for line in messages.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, messages[-3000:]
    assert errors[0].startswith("error: another worker has stopped or cannot be reached")
    assert "Traceback" not in messages
    processes[victim].communicate()
    finish(start_two(records, tmp_path / "killed", FIFTY))
    assert_same_run(tmp_path / "killed", tmp_path / "straight", 1e-4)


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_ends_both(records, tmp_path):
    processes = start_two(records, tmp_path / "run", ("train.steps=100000", "train.decay_steps=[]"))
    wait_for_line(processes[0], "step 5/")
    processes[1].terminate()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 143]
    prefix = runs.find_checkpoint(tmp_path / "run")
    assert runs.step_of(prefix) >= 5


def wait_for_line(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended without a line that has {text!r}")
