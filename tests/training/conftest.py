"""A network with batch norm and biases that takes milliseconds per step, and its batches."""

import random

import numpy as np
import pytest

NUM_BOXES = 6  # default boxes of the network: one per cell of its 2 x 3 map
NUM_CLASSES = 2


@pytest.fixture(scope="session")
def toy_network():
    """A function: a seeded SSD of 8 x 12 pixels with cells of 4 x 4."""
    import keras
    from keras import layers

    from ssd_tf.boxes.default_boxes import BoxLevel, make_default_boxes
    from ssd_tf.models.ssd import SSD

    def build(seed=0):
        random.seed(seed)  # from which initializers take theirs
        image = keras.Input((8, 12, 3), name="image")
        x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        x = layers.Conv2D(5, 4, strides=4, name="conv")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.5, name="bn")(x))
        offsets = layers.Conv2D(4, 1, name="offsets")(x)
        logits = layers.Conv2D(NUM_CLASSES + 1, 1, name="logits")(x)
        outputs = {
            "offsets": layers.Reshape((NUM_BOXES, 4))(offsets),
            "logits": layers.Reshape((NUM_BOXES, NUM_CLASSES + 1))(logits),
        }
        levels = (BoxLevel.from_sizes(4.0, None, (), 4.0),)
        map_shapes = ((2, 3),)
        default_boxes = make_default_boxes(levels, map_shapes, (8, 12))
        return SSD(keras.Model(image, outputs), default_boxes, levels, map_shapes)

    return build


@pytest.fixture(scope="session")
def toy_state(toy_network):
    """A function: a TrainState of the toy network on one device."""
    import tensorflow as tf

    from ssd_tf.training.state import attach_training

    def build(config, seed=0):
        return attach_training(config, toy_network(seed), tf.distribute.get_strategy())

    return build


@pytest.fixture(scope="session")
def toy_config():
    """A function: a Config from keys of train, and eval_every and log_every."""
    from ssd_tf.config import check_config

    def build(eval_every=None, log_every=1, **train):
        defaults = {
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 0.05,
            "weight_decay": 0.0,
            "checkpoint_every": 100,
        }
        values = {
            "boxes": {"preset": "paper"},
            "train": defaults | train,
            "eval": {"every": eval_every},
            "watch": {"log_every": log_every},
        }
        return check_config(values, "toy")

    return build


def toy_batch(step, size=2):
    """Images and Targets of a step, the same in every call.

    There are positives, negatives and ignored boxes.
    """
    rng = np.random.default_rng(step)
    images = rng.uniform(0, 255, (size, 8, 12, 3)).astype(np.float32)
    labels = rng.integers(-1, NUM_CLASSES + 1, (size, NUM_BOXES)).astype(np.int32)
    offsets = rng.normal(size=(size, NUM_BOXES, 4)).astype(np.float32)
    offsets *= (labels > 0)[..., None]
    return images, {"offsets": offsets, "labels": labels}


@pytest.fixture(scope="session")
def make_toy_batch():
    return toy_batch


@pytest.fixture(scope="session")
def changed_batches():
    """A function: change(index, images, targets) -> make_dataset of the trainer.

    The batch of index n is what `change` makes of toy_batch(n), as (images, targets).
    """
    import tensorflow as tf

    def make(change):
        batches = [change(index, *toy_batch(index)) for index in range(20)]
        images, targets = zip(*batches, strict=True)
        targets = {name: np.stack([target[name] for target in targets]) for name in targets[0]}
        images = np.stack(images)

        def make_dataset(stream_slice):
            start_step, num_workers, worker = stream_slice
            assert (num_workers, worker) == (1, 0)
            return tf.data.Dataset.from_tensor_slices((images, targets)).skip(start_step)

        return make_dataset

    return make


@pytest.fixture(scope="session")
def toy_batches(changed_batches):
    """make_dataset of the trainer: the batch of index n is toy_batch(n)."""
    return changed_batches(lambda _index, images, targets: (images, targets))
