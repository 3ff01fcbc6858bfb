"""What training updates: the network with its initial weights, and the optimizer."""

import typing

import keras
import tensorflow as tf
from absl import logging

from ssd_tf.config import Config, ConfigError, Train
from ssd_tf.models import ssd
from ssd_tf.weights import pretrained, runs


class Learner(typing.NamedTuple):
    """A network and its optimizer, both built in the scope of the strategy."""

    network: ssd.SSD
    optimizer: keras.optimizers.Optimizer
    strategy: tf.distribute.Strategy


def make_learner(config: Config, num_classes, strategy) -> Learner:
    """Build what the config describes. Raises ConfigError if it cannot be built or run here."""
    check_precision(config.train.precision)
    with strategy.scope():
        network = make_network(config, num_classes)
        load_initial_weights(config, network.model)
        optimizer = make_optimizer(config.train, network.model)
    return Learner(network, optimizer, strategy)


def check_precision(precision):
    """Raise ConfigError if the default device cannot train in this train.precision.

    Some processors have no bfloat16 convolution in oneDNN; TensorFlow finds out when it runs one.
    """
    if precision == "float32":
        return
    images = tf.ones([1, 8, 8, 3], tf.bfloat16)
    kernel = tf.ones([3, 3, 3, 4], tf.bfloat16)
    try:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            features = tf.nn.conv2d(images, kernel, strides=1, padding="SAME")
        tape.gradient(features, kernel).numpy()
    except tf.errors.OpError as error:
        device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
        raise ConfigError(
            f"train.precision: {precision} needs bfloat16 convolutions, which {device.name} "
            f"cannot compute ({type(error).__name__}): use train.precision=float32, or set the "
            "environment variable TF_ENABLE_ONEDNN_OPTS=0 (slow)"
        ) from None


def make_network(config: Config, num_classes) -> ssd.SSD:
    """The network in train.precision.

    With mixed_bfloat16 it computes in bfloat16; weights, outputs and loss stay float32.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.train.precision)
    try:
        return ssd.build_model(config, num_classes)
    finally:
        keras.config.set_dtype_policy(policy)


def load_initial_weights(config: Config, model):
    """Load the backbone's weights, then those of the run that config.init_from names, if any.

    All weights except the class head are reused. Raises ConfigError if others do not fit.
    """
    pretrained.load_backbone(model, config)
    if config.init_from is None:
        return
    weights = runs.read_weights(runs.find_checkpoint(config.init_from))
    mismatches = runs.assign_weights(model, weights, allow_partial=True)
    unexpected = [
        mismatch
        for mismatch in mismatches
        if not mismatch.variable.path.startswith(ssd.CLASS_HEAD_PREFIX)
    ]
    if unexpected:
        raise ConfigError(
            f"init_from {config.init_from}: {unexpected[0]} "
            f"({len(unexpected)} variables outside the class head do not fit)"
        )
    logging.info(
        "init_from %s: %d variables of the class head start from scratch",
        config.init_from,
        len(mismatches),
    )


def make_optimizer(train: Train, model) -> keras.optimizers.Optimizer:
    """SGD with momentum, and with averaged weights if train.ema is set; its variables are built."""
    optimizer = keras.optimizers.SGD(
        train.learning_rate,
        train.momentum,
        use_ema=train.ema is not None,
        ema_momentum=train.ema,
        # Keras would number the name, and checkpoints go by name: a second run in one process
        # could not resume the first.
        name="sgd",
    )
    optimizer.build(model.trainable_variables)
    return optimizer
