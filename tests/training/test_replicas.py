"""One device, several devices and micro-batches train alike: the same losses and weights.

Run as a script, this file is a process of some device counts: a second MirroredStrategy in one
process can fail on leftovers of the first.
"""

import functools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.integration

NUM_STEPS = 10
BATCH_SIZE = 8
NUM_BOXES = 72
EVERYTHING = {"weight_decay": 0.01, "clip_norm": 0.5, "ema": 0.5}
FLOAT64 = {"bn": "frozen", "weight_decay": 0.01}
# train.* of the runs.
RUNS = {
    "plain": {"bn": "frozen", "weight_decay": 0.0},
    "frozen": {"bn": "frozen", **EVERYTHING},
    "frozen_2": {"bn": "frozen", "accumulate": 2, **EVERYTHING},
    "synchronized": {"bn": "synchronized", **EVERYTHING},
    "synchronized_2": {"bn": "synchronized", "accumulate": 2, **EVERYTHING},
    "train": {"bn": "train"},
    "adamw": {"bn": "frozen", "optimizer": "AdamW", "weight_decay": 0.1, "learning_rate": 0.01},
    "float16": {"bn": "frozen", "precision": "mixed_float16", **EVERYTHING},
    "float64": FLOAT64,
    "float64_2": {"accumulate": 2, **FLOAT64},
}
OWN_TESTS = ("train", "float16", "float64", "float64_2")
# `plain` is `frozen` without what changes the gradients.
ON_TWO_DEVICES = [name for name in RUNS if name != "plain"]
# What four devices run: the branches are those of two, which run everything.
ON_FOUR_DEVICES = ("frozen_2", "synchronized", "train", "float64")
# With four micro-batches of two images each, for one device.
FOUR = {"float64_4": {"accumulate": 4, **FLOAT64}}
# Positives of each of the eight images, by step, in turn.
POSITIVES = (
    (3, 2, 1, 0, 50, 0, 7, 1),
    (0, 0, 0, 0, 4, 3, 12, 0),
    (1, 0, 2, 2, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0),
    (5, 50, 3, 0, 0, 0, 1, 1),
)


def make_network(bn):
    """16 x 24 pixels to a 4 x 6 map with three default boxes per cell."""
    import keras
    from keras import layers

    from ssd_tf.boxes.default_boxes import BoxLevel
    from ssd_tf.models.batch_norm import BatchNormalization
    from ssd_tf.models.ssd import SSD

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 24, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    # The gradient of a bias before batch norm would be rounding errors only.
    x = layers.Conv2D(8, 4, strides=4, use_bias=False, name="conv")(x)
    x = BatchNormalization(momentum=0.8, synchronized=bn == "synchronized", name="bn")(x)
    # No ReLU, whose knee would make rounding visible.
    x = layers.Conv2D(8, 3, padding="same", activation="tanh", name="middle")(x)
    outputs = {
        name: layers.Reshape((NUM_BOXES, size), dtype="float32")(
            layers.Conv2D(3 * size, 1, name=name)(x)
        )
        for name, size in (("offsets", 4), ("logits", 4))
    }
    if keras.config.floatx() == "float64":
        outputs = {name: keras.ops.cast(value, "float64") for name, value in outputs.items()}
    # smooth_l1 does not use the default boxes.
    default_boxes = np.zeros((NUM_BOXES, 4), np.float32)
    levels = (BoxLevel(((4.0, 4.0),) * 3),)
    return SSD(keras.Model(image, outputs), default_boxes, levels, map_shapes=((4, 6),))


def make_dataset(slice_, dtype):
    """All batches, with as many positives as POSITIVES says, and with ignored boxes."""
    import tensorflow as tf

    assert slice_ == (0, 1, 0)
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (NUM_STEPS, BATCH_SIZE, 16, 24, 3)).astype(dtype)
    labels = np.where(random.uniform(size=(NUM_STEPS, BATCH_SIZE, NUM_BOXES)) < 0.1, -1, 0)
    offsets = np.zeros((NUM_STEPS, BATCH_SIZE, NUM_BOXES, 4), dtype)
    for step in range(NUM_STEPS):
        for image, count in enumerate(POSITIVES[step % len(POSITIVES)]):
            chosen = random.choice(NUM_BOXES, count, replace=False)
            labels[step, image, chosen] = random.integers(1, 4, count)
            offsets[step, image, chosen] = random.normal(size=(count, 4))
    targets = {"offsets": offsets, "labels": labels.astype(np.int32)}
    return tf.data.Dataset.from_tensor_slices((images, targets))


def main(folders):
    """folders: {number of devices: where its arrays go}; one number may be above 1."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * 4
    tf.config.set_logical_device_configuration(cpu, devices)
    for num_devices, folder in folders.items():
        run_all(num_devices, pathlib.Path(folder))
    os._exit(0)


def run_all(num_devices, folder):
    import keras
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if num_devices > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_devices)])
    assert strategy.num_replicas_in_sync == num_devices
    for name, settings in runs_on(num_devices).items():
        keras.config.set_floatx("float64" if "float64" in name else "float32")
        np.savez(folder / f"{name}.npz", **train(strategy, settings))


def runs_on(num_devices):
    if num_devices == 1:
        return RUNS | FOUR
    names = ON_TWO_DEVICES if num_devices == 2 else ON_FOUR_DEVICES
    return {name: RUNS[name] for name in names}


# TensorFlow may wait for a minute, idle, when it deletes an iterator of several devices.
_iterators = []


def train(strategy, settings):
    """A run -> its values by step, its weights, its averaged weights, by name."""
    import keras
    import tensorflow as tf

    from ssd_tf.config import check_config
    from ssd_tf.training import distribution, state, step

    values = {
        "boxes": {"preset": "paper"},
        "train": {"steps": 100, "batch_size": BATCH_SIZE, "learning_rate": 0.05, **settings},
    }
    config = check_config(values, "replicas")
    keras.config.set_dtype_policy(
        config.train.precision if keras.config.floatx() == "float32" else "float64"
    )
    with strategy.scope():
        network = make_network(config.train.bn)
    keras.config.set_dtype_policy(keras.config.floatx())
    parts = state.attach_training(config, network, strategy)
    if config.train.precision == "mixed_float16":
        # At the scale that it starts with, the whole batch overflows where a part does not.
        parts.optimizer.dynamic_scale.assign(256.0)
    train_step = tf.function(step.make_train_step(config, parts))
    batches = distribution.distribute(
        strategy,
        lambda slice_: make_dataset(slice_, keras.config.floatx()),
        0,
        BATCH_SIZE,
        config.train.accumulate,
    )
    _iterators.append(batches)
    rows = [train_step(*next(batches))]
    first_mean = network.model.get_layer("bn").moving_mean.numpy()
    rows += [train_step(*next(batches)) for _ in range(NUM_STEPS - 1)]
    arrays = {f"weights/{v.path}": v.numpy() for v in network.model.variables}
    if parts.averages:
        arrays |= {f"averages/{path}": v.numpy() for path, v in parts.averages.by_path.items()}
    arrays["first_mean"] = first_mean
    for name in rows[0]._fields:
        arrays[f"values/{name}"] = np.array([getattr(row, name) for row in rows])
    return arrays


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A function: number of devices -> {run: {name: array}}."""
    tests = pathlib.Path(__file__).parents[1]

    @functools.cache
    def start(*counts):
        folders = {count: str(tmp_path_factory.mktemp(f"devices{count}")) for count in counts}
        code = (
            f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'training')!r}]; "
            f"import test_replicas; test_replicas.main({folders!r})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tests.parent
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return {
            count: {path.stem: dict(np.load(path)) for path in pathlib.Path(folder).glob("*.npz")}
            for count, folder in folders.items()
        }

    return lambda count: start(4)[4] if count == 4 else start(1, 2)[count]


def assert_alike(found, expected, tolerance):
    assert sorted(found) == sorted(expected)
    for key, value in expected.items():
        margin = tolerance * np.abs(value).max()
        np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=margin, err_msg=key)


ON_FOUR = pytest.param(4, marks=pytest.mark.slow)


def cases(*pairs):
    """Parameters (number of devices, run) of a test."""
    return [
        pytest.param(count, name, marks=pytest.mark.slow if count == 4 else ())
        for count, name in pairs
    ]


@pytest.mark.parametrize(
    ("count", "name"),
    cases(*((count, name) for count in (2, 4) for name in runs_on(count) if name not in OWN_TESTS)),
)
def test_several_devices_train_as_one_does(results, name, count):
    assert_alike(results(count)[name], results(1)[name], 1e-4)


def test_several_devices_train_alike_in_float16(results):
    """As far as 11 bits tell: each replica rounds its own sums."""
    expected = results(1)["float16"]["values/loss"]
    np.testing.assert_allclose(results(2)["float16"]["values/loss"], expected, rtol=0.005)
    assert not np.array_equal(expected, results(1)["frozen"]["values/loss"])


@pytest.mark.parametrize("count", [2, ON_FOUR])
def test_statistics_are_the_mean_over_the_replicas(results, count):
    """The mean of the means of equal parts is the mean of the batch, whatever the replica."""
    expected = results(1)["train"]["first_mean"]
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(results(count)["train"]["first_mean"], expected, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, ON_FOUR])
def test_micro_batches_train_as_the_batch_does(results, count):
    assert_alike(results(count)["frozen_2"], results(1)["frozen"], 1e-4)


@pytest.mark.parametrize(
    ("count", "name"),
    cases((2, "float64"), (4, "float64"), (1, "float64_2"), (1, "float64_4"), (2, "float64_2")),
)
def test_gradients_agree_in_float64(results, count, name):
    expected = results(1)["float64"]
    weights = {key: value for key, value in expected.items() if key.startswith("weights/")}
    assert {value.dtype for value in weights.values()} == {np.dtype("float64")}
    assert_alike({key: results(count)[name][key] for key in weights}, weights, 1e-9)


def test_the_comparison_means_something(results):
    one = results(1)
    assert one["frozen"]["values/positives_per_image"].tolist()[:4] == [8.0, 2.375, 0.625, 0.0]
    assert one["plain"]["values/loss"][0] > 1
    for first, second in (("plain", "frozen"), ("frozen", "synchronized")):
        difference = one[first]["weights/conv/kernel"] - one[second]["weights/conv/kernel"]
        assert np.abs(difference).max() > 1e-3
    for name in ("conv/kernel", "bn/moving_mean"):
        average = one["synchronized"][f"averages/{name}"]
        assert np.abs(average - one["synchronized"][f"weights/{name}"]).max() > 1e-4
    assert one["frozen"]["weights/bn/moving_mean"].tolist() == [0] * 8
