"""TrainState: the network with its initial weights, the optimizer, the averaged weights."""

import typing

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_tf.config import Config, Train
from ssd_tf.errors import ConfigError
from ssd_tf.models import heads, ssd
from ssd_tf.training.optimizer import Averages, make_optimizer
from ssd_tf.weights import transfer


class TrainState(typing.NamedTuple):
    """All that training changes, built in the scope of the strategy.

    averages: None without EMA. step: an int64 variable, the number of updates made. trained_rows:
    as `kept_classes.find_trained_rows` finds them. new_layers: those before the heads that
    init_from has not filled.
    """

    network: ssd.SSD
    optimizer: keras.optimizers.Optimizer
    averages: Averages | None
    step: tf.Variable
    strategy: tf.distribute.Strategy
    trained_rows: np.ndarray | None = None
    new_layers: typing.Sequence[str] = ()

    @property
    def num_updates(self) -> int:
        """The current value of `step`."""
        return int(self.step.numpy())


def make_train_state(
    config: Config, class_names, strategy, new_layers=None, trained_rows=None
) -> TrainState:
    """Build what the config describes. Raises ConfigError if it cannot be built or run here.

    class_names: of the foreground classes.
    new_layers: None loads what init_from names. A run that resumes replaces all weights by those of
    its last checkpoint, and gives the layers that init_from did not fill.
    trained_rows: None trains all that is not frozen, else only these rows of the class heads.
    """
    check_precision(config.train.precision)
    with strategy.scope():
        network = make_network(config, len(class_names))
        if new_layers is None:
            _check_pretrained_rate(config, network)
            _check_batch_norm(config, network)
            new_layers = load_initial_weights(config, network, class_names)
    return attach_training(config, network, strategy, trained_rows, new_layers)


def attach_training(
    config: Config, network: ssd.SSD, strategy, trained_rows=None, new_layers=()
) -> TrainState:
    """The TrainState of a network that was built in the scope of the strategy.

    trained_rows: as `make_train_state` takes them. new_layers: as the TrainState has them.
    """
    if trained_rows is not None:
        heads.freeze_all_but_rows(network.model)
    with strategy.scope():
        optimizer = make_optimizer(config, network.model, trained_rows, new_layers)
        averages = None
        if config.train.ema is not None:
            averages = Averages(network.model, config.train.ema)
        step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
    return TrainState(network, optimizer, averages, step, strategy, trained_rows, new_layers)


def check_precision(precision):
    """Raise ConfigError if the default device cannot train in this train.precision.

    Some processors have no bfloat16 convolution in oneDNN; TensorFlow finds out when it runs one.
    """
    if precision == "float32":
        return
    dtype = precision.removeprefix("mixed_")
    images = tf.ones([1, 8, 8, 3], dtype)
    kernel = tf.ones([3, 3, 3, 4], dtype)
    try:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            features = tf.nn.conv2d(images, kernel, strides=1, padding="SAME")
        tape.gradient(features, kernel).numpy()
    except tf.errors.OpError as error:
        device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
        raise ConfigError(
            f"train.precision: {precision} needs {dtype} convolutions, which {device.name} "
            f"cannot compute ({type(error).__name__}): use train.precision=float32, or set the "
            "environment variable TF_ENABLE_ONEDNN_OPTS=0 (slow)"
        ) from None


def make_network(config: Config, num_classes) -> ssd.SSD:
    """The network in train.precision.

    Mixed precisions compute in 16 bits; weights, outputs and loss stay float32.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.train.precision)
    try:
        return ssd.build_model(config, num_classes)
    finally:
        keras.config.set_dtype_policy(policy)


def load_initial_weights(config: Config, network: ssd.SSD, class_names) -> list[str]:
    """Load what fits of the weights that config.init_from names, if any.

    Logs a table of what was loaded; returns the layers before the heads that init_from does not
    fill. Raises ConfigError if there is nothing that fits.
    """
    if config.init_from is None:
        _check_frozen_layers(config, are_random=True)
        return []
    source = transfer.read_source(config, network.model)
    outcomes = transfer.transfer(source, network, config, class_names)
    logging.info("init_from %s:", config.init_from)
    for line in transfer.summarize(outcomes):
        logging.info("  %s", line)
    if config.data.keep_classes:
        _check_all_loaded(config, outcomes)
    frozen = {layer.name for layer in network.model.layers if not layer.trainable}
    from_scratch = any(
        outcome.layer in frozen and outcome.result.startswith("from scratch")
        for outcome in outcomes
    )
    _check_frozen_layers(config, from_scratch)
    return transfer.list_new_layers(outcomes)


def _check_all_loaded(config, outcomes):
    """Raise ConfigError if data.keep_classes lacks weights of the run that it keeps."""
    for outcome in outcomes:
        if outcome.result.startswith("from scratch"):
            raise ConfigError(
                f"data.keep_classes: expected all layers of {config.init_from}, as only rows of "
                f"class heads are trained, got {outcome.layer} {outcome.result}: leave out model "
                "and boxes to take over its network"
            )


def _check_frozen_layers(config, are_random):
    """Raise ConfigError if layers would stay random for ever."""
    backbone = config.model.backbone
    if are_random and backbone.frozen_stages:
        raise ConfigError(
            f"model.backbone.frozen_stages: {backbone.frozen_stages} would freeze layers with "
            "random weights: give an init_from that has them, or set "
            "model.backbone.frozen_stages=0"
        )


def _check_batch_norm(config, network):
    """Raise ConfigError for settings of batch norm if the network has none.

    A recipe for any detector, as configs/finetune.yaml, may have them.
    """
    layers = network.model.layers
    has_any = any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    settings = Train.model_fields
    for key in ("bn", "bn_momentum"):
        is_set = getattr(config.train, key) != settings[key].default
        if is_set and not has_any and not config.starts_from_run:
            name = config.model.backbone.name
            raise ConfigError(f"train.{key} has no effect on {name}, which has no batch norm here")


def _check_pretrained_rate(config, network):
    """Raise ConfigError for a rate of layers that are all frozen, or all new."""
    if config.train.pretrained_rate == 1:
        return
    layers = ssd.pretrained_layers(network.model, config)
    if not any(layer.trainable_variables for layer in layers):
        raise ConfigError(
            "train.pretrained_rate has no effect: expected an init_from with layers that are not "
            f"frozen, got {config.init_from} and model.backbone.frozen_stages: "
            f"{config.model.backbone.frozen_stages}"
        )
