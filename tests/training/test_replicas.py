"""Two replicas train as one does: the same global batches give the same losses and weights.

Run as a script, this file is the process of one replica count: a second MirroredStrategy in one process can fail on
leftovers of the first.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

STEPS, BATCH = 5, 4
# train.* of the runs that are compared; batch norm is frozen, as its statistics belong to each replica.
RUNS = {
    "plain": {"weight_decay": 0.0},
    "everything": {"weight_decay": 0.01, "clip_norm": 0.5, "ema": 0.5},
}
# Positives of each of the four pictures, by step; the first two are one replica's, the last two the other's.
POSITIVES = ((3, 2, 1, 0), (0, 0, 4, 3), (1, 0, 2, 2), (0, 0, 0, 0), (5, 3, 0, 0))


BOXES = 48


def make_model():
    """16 x 24 pixels to a 4 x 6 map with two default boxes a cell; no layer that makes the gradient vanish."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 24, 3))
    x = layers.Conv2D(8, 4, strides=4, name="conv")(layers.Rescaling(1 / 127.5, offset=-1.0)(image))
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh", name="middle")(x)
    heads = {"offsets": 4, "logits": 4}
    return keras.Model(
        image,
        {
            name: layers.Reshape((BOXES, size))(layers.Conv2D(2 * size, 1, name=name)(x))
            for name, size in heads.items()
        },
    )


def make_dataset():
    """All five batches: pictures, and Targets with the number of positives that POSITIVES says, ignored boxes among them."""
    import tensorflow as tf

    numbers = np.random.default_rng(0)
    images = numbers.uniform(0, 255, (STEPS, BATCH, 16, 24, 3)).astype(np.float32)
    labels = np.where(numbers.uniform(size=(STEPS, BATCH, BOXES)) < 0.1, -1, 0)
    offsets = np.zeros((STEPS, BATCH, BOXES, 4), np.float32)
    for step, row in enumerate(POSITIVES):
        for picture, count in enumerate(row):
            chosen = numbers.choice(BOXES, count, replace=False)
            labels[step, picture, chosen] = numbers.integers(1, 4, count)
            offsets[step, picture, chosen] = numbers.normal(size=(count, 4))
    return tf.data.Dataset.from_tensor_slices(
        (images, {"offsets": offsets, "labels": labels.astype(np.int32)})
    )


def main(replicas, folder):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = tf.distribute.get_strategy()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]) if replicas == 2 else one
    assert strategy.num_replicas_in_sync == replicas
    for name, options in RUNS.items():
        np.savez(folder / f"{name}.npz", **train(strategy, options, folder / name))


def train(strategy, options, workdir):
    """A run -> its losses by step, its weights, and a kernel as evaluation and as training see it."""
    from ssd_tf.config import check_config
    from ssd_tf.training import checkpoints, monitor, trainer

    settings = {
        "steps": STEPS,
        "batch_size": BATCH,
        "learning_rate": 0.05,
        "bn": "frozen",
        **options,
    }
    config = check_config(
        {"boxes": {"preset": "paper"}, "train": settings, "watch": {"log_every": 1}}, "replicas"
    )
    with strategy.scope():
        model = make_model()
        optimizer = trainer.make_optimizer(config, model)
    kernel, evaluated = model.get_layer("conv").kernel, []

    def evaluate(_monitor, _step):
        evaluated.append(kernel.numpy())
        return {"AP": 0.5, "AP50": 0.5}

    trainer.train(config, model, optimizer, strategy, lambda *_: make_dataset(), workdir, evaluate)
    rows = [row for row in monitor.read_metrics(workdir / "metrics.csv") if row["loss"]]
    parts = {
        part: [float(row[part]) for row in rows] for part in ("loss", "localization", "positives")
    }
    weights = checkpoints.read_weights(checkpoints.find_checkpoint(workdir))
    return {**parts, **weights, "evaluated": evaluated[0], "raw": kernel.numpy()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one and what two replicas arrived at: {run: {name: array}} of each."""
    tests = pathlib.Path(__file__).parents[1]
    folders, processes = {}, {}
    for count in (1, 2):
        folders[count] = tmp_path_factory.mktemp(f"replicas{count}")
        code = f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'training')!r}]; import pathlib, test_replicas;"
        code += f"test_replicas.main({count}, pathlib.Path({str(folders[count])!r}))"
        processes[count] = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=tests.parent
        )
    for process in processes.values():
        _, messages = process.communicate()
        assert process.returncode == 0, messages[-3000:]
    return {
        count: {name: dict(np.load(folder / f"{name}.npz")) for name in RUNS}
        for count, folder in folders.items()
    }


@pytest.mark.parametrize("name", RUNS)
def test_two_replicas_are_as_good_as_one(runs, name):
    one, two = runs[1][name], runs[2][name]
    assert sorted(one) == sorted(two)
    assert one["positives"].tolist() == two["positives"].tolist() == [6, 7, 5, 0, 8]
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    for key in one:
        np.testing.assert_allclose(
            two[key], one[key], rtol=1e-4, atol=1e-4 * np.abs(one[key]).max(), err_msg=key
        )


def test_the_comparison_means_something(runs):
    plain, everything = runs[1].values()
    assert plain["loss"][0] > 1
    assert not np.array_equal(plain["raw"], everything["raw"])
    for two in runs.values():
        np.testing.assert_array_equal(
            two["everything"]["evaluated"], two["everything"]["conv/kernel"]
        )
        assert not np.array_equal(two["everything"]["evaluated"], two["everything"]["raw"])
