"""Two replicas train as one does: the same global batches give the same losses and weights.

Run as a script, this file is the process of one replica count: a second MirroredStrategy in one
process can fail on leftovers of the first.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

NUM_STEPS = 5
BATCH_SIZE = 4
NUM_BOXES = 48
# train.* of the runs that are compared; batch norm is frozen, because each replica has its own
# statistics.
RUNS = {
    "plain": {"weight_decay": 0.0},
    "everything": {"weight_decay": 0.01, "clip_norm": 0.5, "ema": 0.5},
}
# Positives of each of the four images, by step; one replica has the first two images, the other
# has the last two.
POSITIVES = ((3, 2, 1, 0), (0, 0, 4, 3), (1, 0, 2, 2), (0, 0, 0, 0), (5, 3, 0, 0))


def make_network():
    """16 x 24 pixels to a 4 x 6 map with two default boxes per cell; the gradient cannot vanish."""
    import keras
    from keras import layers

    from ssd_tf.models.ssd import SSD

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 24, 3))
    x = layers.Conv2D(8, 4, strides=4, name="conv")(layers.Rescaling(1 / 127.5, offset=-1.0)(image))
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh", name="middle")(x)
    outputs = {
        name: layers.Reshape((NUM_BOXES, 4))(layers.Conv2D(2 * 4, 1, name=name)(x))
        for name in ("offsets", "logits")
    }
    # smooth_l1 does not use the default boxes.
    default_boxes = np.zeros((NUM_BOXES, 4), np.float32)
    return SSD(keras.Model(image, outputs), default_boxes, levels=(), map_shapes=((4, 6),))


def make_dataset(_stream_slice):
    """All five batches, with as many positives as POSITIVES says, and with ignored boxes."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (NUM_STEPS, BATCH_SIZE, 16, 24, 3)).astype(np.float32)
    labels = np.where(random.uniform(size=(NUM_STEPS, BATCH_SIZE, NUM_BOXES)) < 0.1, -1, 0)
    offsets = np.zeros((NUM_STEPS, BATCH_SIZE, NUM_BOXES, 4), np.float32)
    for step, counts in enumerate(POSITIVES):
        for image, count in enumerate(counts):
            chosen = random.choice(NUM_BOXES, count, replace=False)
            labels[step, image, chosen] = random.integers(1, 4, count)
            offsets[step, image, chosen] = random.normal(size=(count, 4))
    targets = {"offsets": offsets, "labels": labels.astype(np.int32)}
    return tf.data.Dataset.from_tensor_slices((images, targets))


def main(num_replicas, folder):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.get_strategy()
    if num_replicas == 2:
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == num_replicas
    for name, settings in RUNS.items():
        np.savez(folder / f"{name}.npz", **train(strategy, settings, folder / name))


def train(strategy, settings, workdir):
    """A run -> its losses by step, its weights, a kernel as evaluation and as training see it."""
    from ssd_tf.config import check_config
    from ssd_tf.training import learner, trainer
    from ssd_tf.training.monitor import read_metrics
    from ssd_tf.weights import runs

    values = {
        "boxes": {"preset": "paper"},
        "train": {
            "steps": NUM_STEPS,
            "batch_size": BATCH_SIZE,
            "learning_rate": 0.05,
            "bn": "frozen",
            **settings,
        },
        "watch": {"log_every": 1},
    }
    config = check_config(values, "replicas")
    with strategy.scope():
        network = make_network()
        optimizer = learner.make_optimizer(config.train, network.model)
    kernel = network.model.get_layer("conv").kernel
    evaluated = []

    def evaluate(_monitor, _step):
        evaluated.append(kernel.numpy())
        return {"AP": 0.5, "AP50": 0.5}

    parts = learner.Learner(network, optimizer, strategy)
    trainer.train(config, parts, make_dataset, workdir, evaluate)
    rows = [row for row in read_metrics(workdir / "metrics.csv") if row["loss"]]
    arrays = runs.read_weights(runs.find_checkpoint(workdir))
    for name in ("loss", "localization", "positives"):
        arrays[name] = [float(row[name]) for row in rows]
    return {**arrays, "evaluated": evaluated[0], "raw": kernel.numpy()}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The arrays of one and of two replicas: {number of replicas: {run: {name: array}}}."""
    tests = pathlib.Path(__file__).parents[1]
    folders = {}
    processes = {}
    for count in (1, 2):
        folders[count] = tmp_path_factory.mktemp(f"replicas{count}")
        code = (
            f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'training')!r}]; "
            "import pathlib, test_replicas; "
            f"test_replicas.main({count}, pathlib.Path({str(folders[count])!r}))"
        )
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
def test_two_replicas_train_as_one_does(results, name):
    one = results[1][name]
    two = results[2][name]
    assert sorted(one) == sorted(two)
    assert one["positives"].tolist() == two["positives"].tolist() == [6, 7, 5, 0, 8]
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-4)
    for key, value in one.items():
        tolerance = 1e-4 * np.abs(value).max()
        np.testing.assert_allclose(two[key], value, rtol=1e-4, atol=tolerance, err_msg=key)


def test_the_comparison_means_something(results):
    plain = results[1]["plain"]
    assert plain["loss"][0] > 1
    assert not np.array_equal(plain["raw"], results[1]["everything"]["raw"])
    for runs_of_count in results.values():
        everything = runs_of_count["everything"]
        np.testing.assert_array_equal(everything["evaluated"], everything["conv/kernel"])
        assert not np.array_equal(everything["evaluated"], everything["raw"])
