"""A model so small that a training step takes milliseconds, with batch norm, a kernel and biases, and batches for it."""

import numpy as np
import pytest

NUMBER = 6  # default boxes of the model: one for each of the 2 x 3 cells of its map
CLASSES = 2


@pytest.fixture
def toy_model():
    import keras
    from keras import layers

    def build(seed=0):
        keras.utils.set_random_seed(seed)
        image = keras.Input((8, 12, 3), name="image")
        x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
        x = layers.Conv2D(5, 4, strides=4, name="conv")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.5, name="bn")(x))
        offsets = layers.Reshape((NUMBER, 4))(layers.Conv2D(4, 1, name="offsets")(x))
        logits = layers.Reshape((NUMBER, CLASSES + 1))(
            layers.Conv2D(CLASSES + 1, 1, name="logits")(x)
        )
        return keras.Model(image, {"offsets": offsets, "logits": logits})

    return build


@pytest.fixture
def toy_config():
    from ssd_tf.config import check_config

    def build(**train):
        settings = {
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 0.05,
            "weight_decay": 0.0,
            "checkpoint_every": 100,
            **train,
        }
        every = {
            "eval": {"every": settings.pop("eval_every", None)},
            "watch": {"log_every": settings.pop("log_every", 1)},
        }
        return check_config({"boxes": {"preset": "paper"}, "train": settings, **every}, "toy")

    return build


def toy_batch(step, size=2):
    """Images and Targets of a step: always the same for the same step, with positives, negatives and an ignored box."""
    numbers = np.random.default_rng(step)
    images = numbers.uniform(0, 255, (size, 8, 12, 3)).astype(np.float32)
    labels = numbers.integers(-1, CLASSES + 1, (size, NUMBER)).astype(np.int32)
    offsets = numbers.normal(size=(size, NUMBER, 4)).astype(np.float32) * (labels > 0)[..., None]
    return images, {"offsets": offsets.astype(np.float32), "labels": labels}


@pytest.fixture
def toy_batches():
    """make_dataset of the trainer: batch n is toy_batch(n), from 0."""
    import tensorflow as tf

    def make_dataset(start_step, machines=1, machine=0):
        assert (machines, machine) == (1, 0)
        images, targets = zip(*(toy_batch(step) for step in range(20)), strict=True)
        targets = {name: np.stack([target[name] for target in targets]) for name in targets[0]}
        return tf.data.Dataset.from_tensor_slices((np.stack(images), targets)).skip(start_step)

    return make_dataset
