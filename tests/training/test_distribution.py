"""Two workers, here two processes that talk over the network, train as one does.

They run the very command, on the same records.
"""

import re
import types

import numpy as np
import pytest
import tensorflow as tf
from worker_processes import (
    command_of,
    error_of,
    finish,
    start,
    start_two,
    tf_config,
    two_replicas,
    wait_for_line,
)

from data_tools import coco_to_tfrecord, shapes
from ssd_tf.errors import ConfigError
from ssd_tf.training import distribution
from ssd_tf.training.monitor import read_metrics
from ssd_tf.weights import run_files, runs

# With its own statistics on each worker batch norm is not what it is on one.
FROZEN = ("train.bn=frozen",)


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


BAD_TF_CONFIGS = {
    "": "expected the workers in --hosts, in TF_CONFIG or from srun, got none",
    "{}": "expected the workers in --hosts, in TF_CONFIG or from srun, got none",
    "worker": "TF_CONFIG: expected JSON with .*, got 'worker'",
    tf_config(["a:1"]): "TF_CONFIG: expected JSON",
    tf_config({"worker": ["a:1"], "ps": ["b:1"]}): "TF_CONFIG: .*, got .*ps",
    tf_config(TWO_WORKERS, task={"type": "worker", "index": 2}): "TF_CONFIG: .* `task` .*: 2",
    tf_config(TWO_WORKERS, task={"type": "chief", "index": 0}): "TF_CONFIG: .* `task` .*chief",
    tf_config(TWO_WORKERS): "TF_CONFIG: .* `task` with a type and an index of it",
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


def convert_shapes(folder, seed):
    argv = ["shapes", "--output", str(folder), "--images", "24", "--seed", str(seed)]
    assert shapes.main(argv) == 0
    argv = [
        "convert",
        f"--images={folder / 'images'}",
        f"--annotations={folder / 'annotations.json'}",
        f"--output={folder / 'records'}",
        "--val_fraction=0.25",
    ]
    assert coco_to_tfrecord.main(argv) == 0
    return folder / "records"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return convert_shapes(tmp_path_factory.mktemp("workers"), 0)


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


@pytest.mark.slow
def test_two_workers_train_as_one_does(records, tmp_path):
    finish([start(command_of(records, tmp_path / "one", FROZEN))])
    messages = finish(start_two(command_of(records, tmp_path / "two", FROZEN)))
    assert "step 6  AP" in messages[0]
    assert "step 6" not in messages[1]  # only the chief reports, writes and evaluates
    steps = [row["step"] for row in read_metrics(tmp_path / "two" / "metrics.csv")]
    assert steps == ["1", "2", "3", "4", "5", "6"]
    assert_same_run(tmp_path / "two", tmp_path / "one", 1e-4)
    # A second worker that sees another run folder would begin at step 0.
    folders = ("two", "elsewhere")
    commands = [command_of(records, tmp_path / folder, FROZEN) for folder in folders]
    for text in finish(start_two(*commands), code=1):
        assert "error: the workers start from different steps ([0, 6])" in text


@pytest.mark.integration
def test_two_workers_train_with_the_defaults(records, tmp_path):
    """Batch norm is trained on each worker."""
    command = command_of(records, tmp_path / "run", ("train.steps=2", "data.val_split=none"))
    finish(start_two(command))
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == ["1", "2"]


FIFTY = (
    "train.steps=50",
    "train.checkpoint_every=10",
    "eval.every=25",
    # All negatives: a rounding error would soon choose other hard ones.
    "loss.negatives_per_positive=1e6",
    "train.learning_rate=0.0005",
)


@pytest.mark.slow
@pytest.mark.parametrize("bn", ["train", "frozen", "synchronized"])
def test_two_workers_train_as_one_does_for_fifty_steps(records, tmp_path, bn):
    settings = (*FIFTY, f"train.bn={bn}")
    one = command_of(records, tmp_path / "one", settings)
    finish([start(two_replicas(one) if bn == "train" else one)])
    finish(start_two(command_of(records, tmp_path / "two", settings)))
    assert_same_run(tmp_path / "two", tmp_path / "one", 1e-4)


EVERYTHING = (
    "train.strategy=multi_worker",
    "train.precision=mixed_float16",
    "train.accumulate=2",
    "train.clip_norm=1",
    "train.optimizer=AdamW",
    "train.steps_per_call=3",
    "data.shard=file",
    "train.deterministic=true",
)


@pytest.mark.slow
def test_two_workers_train_with_everything_at_once(records, tmp_path):
    folder = coco_shards(records, tmp_path, 2)
    finish(start_two(command_of(folder, tmp_path / "two", EVERYTHING)))
    rows = read_metrics(tmp_path / "two" / "metrics.csv")
    assert rows[-1]["step"] == "6"
    # Another number of workers would read other records.
    messages = finish([start(command_of(folder, tmp_path / "two", EVERYTHING[1:]))], code=2)
    assert "was trained by 2 workers with shards of their own" in error_of(messages[0])


def coco_shards(records, folder, count):
    """The data set that `records` come from, in several shards."""
    argv = [
        "convert",
        f"--images={records.parent / 'images'}",
        f"--annotations={records.parent / 'annotations.json'}",
        f"--output={folder / 'sharded'}",
        "--val_fraction=0.25",
        f"--shards={count}",
    ]
    assert coco_to_tfrecord.main(argv) == 0
    return folder / "sharded"


DIFFERENT = {
    "rate": (("train.learning_rate=0.05",), "train.learning_rate is 0.02 on .* and 0.05 on "),
    "seed": (("train.seed=7",), "train.seed is 0 on .* and 7 on "),
    "loss": (("loss.box_loss=giou",), "loss.box_loss is smooth_l1 on .* and giou on "),
}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_workers_with_other_settings_end_before_the_first_step(
    records, tmp_path, settings, message
):
    commands = [command_of(records, tmp_path / "run", each) for each in ((), settings)]
    for text in finish(start_two(*commands), code=2):
        assert re.search(message, error_of(text))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_with_other_records_end_before_the_first_step(records, tmp_path):
    others = convert_shapes(tmp_path / "others", 1)
    commands = [command_of(each, tmp_path / "run", ()) for each in (records, others)]
    for text in finish(start_two(*commands), code=2):
        line = error_of(text)
        assert "the split 'train' is " in line
        assert "the split 'val' is " in line


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_other_and_both_resume(records, tmp_path, victim):
    settings = (*FIFTY, *FROZEN)
    straight = command_of(records, tmp_path / "straight", settings)
    finish(start_two(straight))
    killed = command_of(records, tmp_path / "killed", settings)
    processes = start_two(killed)
    wait_for_line(processes[0], "step 15/50")
    processes[victim].kill()
    survivor = processes[1 - victim]
    # An end within 30 s, or TimeoutExpired.
    _, messages = survivor.communicate(timeout=30)
    assert survivor.returncode == 1, messages[-3000:]
    assert error_of(messages).startswith("error: another worker has stopped or cannot be reached")
    processes[victim].communicate()
    finish(start_two(killed))
    assert_same_run(tmp_path / "killed", tmp_path / "straight", 1e-4)


@pytest.mark.slow
def test_sigterm_to_one_worker_saves_and_ends_both(records, tmp_path):
    settings = ("train.steps=100000", *FROZEN)
    processes = start_two(command_of(records, tmp_path / "run", settings))
    wait_for_line(processes[0], "step 5/")
    processes[1].terminate()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 143]
    prefix = runs.find_checkpoint(tmp_path / "run")
    assert run_files.step_of(prefix) >= 5
