"""One update of the weights, on all replicas of a strategy.

Shapes: `B` images of one replica, `A` default boxes, `C` foreground classes, `L` feature maps.
"""

import functools
import typing

import keras
import tensorflow as tf

from ssd_tf.config import Config
from ssd_tf.models.batch_norm import all_reduce
from ssd_tf.training import losses
from ssd_tf.training.losses import MultiBoxLoss
from ssd_tf.training.optimizer import is_decayed, l2_in_gradient, make_schedule
from ssd_tf.training.state import TrainState


class StepValues(typing.NamedTuple):
    """Numbers of the global batch: scalars, but positives_per_level [L].

    loss: classification + localization, without `l2_penalty`; localization is already weighted.
    positives_per_image: default boxes that are matched to an object, a mean over the batch;
    positives_per_level: the same for each feature map.
    gradient_norm: before clipping, without L2.
    """

    loss: tf.Tensor
    classification: tf.Tensor
    localization: tf.Tensor
    positives_per_image: tf.Tensor
    gradient_norm: tf.Tensor
    learning_rate: tf.Tensor
    positives_per_level: tf.Tensor


def make_run_steps(config: Config, state: TrainState):
    """A tf.function (iterator of batches, number of steps) -> float32 [number of steps, 7 + L].

    A row has the seconds that the step waited for its batch, then its StepValues; `read_row` names
    them.
    """
    train_step = make_train_step(config, state)
    # TensorFlow has no clock among deterministic operations.
    next_batch = _untimed_next if config.train.deterministic else _timed_next

    def run_step(index, rows, batches):
        batch, input_seconds = next_batch(batches)
        *scalars, positives_per_level = train_step(*batch)
        row = tf.concat([tf.stack([input_seconds, *scalars]), positives_per_level], 0)
        return index + 1, rows.write(index, row)

    @tf.function(autograph=False)
    def run_steps(batches, num_steps):
        _, rows = tf.while_loop(
            lambda index, _: index < num_steps,
            lambda index, rows: run_step(index, rows, batches),
            (tf.constant(0), tf.TensorArray(tf.float32, num_steps)),
            parallel_iterations=1,
        )
        return rows.stack()

    return run_steps


def read_row(row) -> dict:
    """A row of `make_run_steps` as {name: number}; positives_per_level is a list."""
    names = ("input_seconds", *StepValues._fields[:-1])
    numbers = {name: float(value) for name, value in zip(names, row, strict=False)}
    return {**numbers, "positives_per_level": row[len(names) :].tolist()}


def make_train_step(config: Config, state: TrainState):
    """A function of a batch (images, Targets) as the strategy distributes it -> StepValues.

    It belongs inside a tf.function, in cross-replica context, and updates the weights, the
    optimizer, the averaged weights and state.step. Every sum is divided by the positives of the
    *global* batch (or by what loss.normalizer says), so neither loss nor gradient depends on how
    images are spread over replicas and micro-batches.
    """
    network, optimizer, averages, step, strategy, trained_rows, _ = state
    train = config.train
    loss = make_loss(config, network.default_boxes, trained_rows)
    schedule = make_schedule(train)
    variables = network.model.trainable_variables
    statistics = _moving_statistics(network.model) if train.bn == "train" else []
    loss_and_gradients = functools.partial(_loss_and_gradients, state, loss, train.bn != "frozen")
    if train.xla:
        loss_and_gradients = tf.function(loss_and_gradients, jit_compile=True, autograph=False)

    def replica_step(images, targets):
        targets = losses.on_device(targets)
        weights = _image_weights(config.loss.normalizer, targets)
        batch = (images, targets, weights)
        parts, gradients = _sum_in_turn(loss_and_gradients, batch, train.accumulate)
        gradients = all_reduce("sum", gradients)
        norm = tf.linalg.global_norm(gradients)
        if train.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, train.clip_norm, use_norm=norm)
        optimizer.apply(_add_l2(gradients, variables, l2_in_gradient(train)), variables)
        _average_statistics(statistics)
        positives = tf.reduce_sum(tf.cast(targets["labels"] > 0, tf.float32), 0)
        return *parts, tf.math.segment_sum(positives, network.level_of_box), norm

    def train_step(images, targets):
        rate = schedule(step)
        optimizer.learning_rate.assign(rate)
        *sums, norm = strategy.run(replica_step, args=(images, targets))
        classification, localization, positives = [
            strategy.reduce("SUM", value, axis=None) for value in sums
        ]
        positives_per_level = positives / train.batch_size
        if averages is not None:
            averages.update(strategy, step)
        step.assign_add(1)
        return StepValues(
            loss=classification + localization,
            classification=classification,
            localization=localization,
            positives_per_image=tf.reduce_sum(positives_per_level),
            gradient_norm=strategy.reduce("MEAN", norm, axis=None),
            learning_rate=rate,
            positives_per_level=positives_per_level,
        )

    return train_step


def _loss_and_gradients(state, loss, training, images, targets, weights):
    """(classification, localization) and the gradients of their sum: one replica's contribution.

    weights: [B], what the loss of each image is multiplied by.
    """
    model = state.network.model
    with tf.GradientTape() as tape:
        parts = loss(model(images, training=training), targets)
        classification = tf.reduce_sum(weights * parts.classification)
        localization = tf.reduce_sum(weights * parts.localization)
        total = classification + localization
    values = [variable.value for variable in model.trainable_variables]
    return (classification, localization), state.optimizer.gradient(tape, total, values)


def make_loss(config: Config, default_boxes, trained_rows=None) -> MultiBoxLoss:
    """The loss that config.loss describes. default_boxes: [A, 4].

    trained_rows: as `make_train_state` takes them.
    """
    return MultiBoxLoss(
        config.loss,
        score_activation=config.model.score_activation,
        default_boxes=default_boxes,
        variances=config.boxes.variances,
        static_shapes=config.train.xla,
        trained_rows=trained_rows,
    )


def make_batch_loss(config: Config, state: TrainState):
    """A tf.function: a batch -> its loss with the current weights, without an update."""
    network = state.network
    strategy = state.strategy
    loss = make_loss(config, network.default_boxes, state.trained_rows)

    def replica_loss(images, targets):
        targets = losses.on_device(targets)
        weights = _image_weights(config.loss.normalizer, targets)
        parts = loss(network.model(images, training=False), targets)
        return tf.reduce_sum(weights * (parts.classification + parts.localization))

    @tf.function(autograph=False)
    def batch_loss(images, targets):
        return strategy.reduce("SUM", strategy.run(replica_loss, args=(images, targets)), axis=None)

    return batch_loss


def make_l2_penalty(config: Config, state: TrainState):
    """A tf.function of no arguments -> the L2 penalty that train.weight_decay stands for.

    It is the same number whether the decay is in the gradient or decoupled.
    """
    variables = state.network.model.trainable_variables
    decay = config.train.weight_decay

    @tf.function(autograph=False)
    def penalty():
        squares = [tf.nn.l2_loss(variable.value) for variable in variables if is_decayed(variable)]
        return decay * tf.add_n(squares) if squares else tf.constant(0.0)

    return penalty


def _timed_next(batches):
    """The next batch, and the seconds that it was waited for."""
    start = tf.timestamp()
    with tf.control_dependencies([start]):
        batch = next(batches)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        seconds = tf.cast(tf.timestamp() - start, tf.float32)
    # A processor with one core might run the step before it reads the clock.
    with tf.control_dependencies([seconds]):
        return tf.nest.map_structure(_copy_tensor, batch), seconds


def _copy_tensor(value):
    """The same tensor; values of several replicas stay as they are."""
    return tf.identity(value) if isinstance(value, tf.Tensor) else value


def _untimed_next(batches):
    return next(batches), tf.constant(float("nan"))


def _sum_in_turn(function, batch, num_micro_batches):
    """The sums of what a function of a batch (tensors [B, ...]) returns over its micro-batches."""
    if num_micro_batches == 1:
        return function(*batch)
    total = None
    for index in range(num_micro_batches):
        # In turn: together they would need the memory that accumulation is to save.
        with tf.control_dependencies(tf.nest.flatten(total) if total else []):
            # Every k-th image: the same micro-batches for any number of replicas.
            every_kth = slice(index, None, num_micro_batches)
            micro_batch = tf.nest.map_structure(
                lambda tensor, kept=every_kth: tf.identity(tensor[kept]), batch
            )
        result = function(*micro_batch)
        total = result if total is None else tf.nest.map_structure(tf.add, total, result)
    return total


def _image_weights(normalizer, targets):
    """What the loss of each image of this replica is multiplied by [B]."""
    positives = tf.reduce_sum(tf.cast(targets["labels"] > 0, targets["offsets"].dtype), 1)
    weights, divisor = losses.image_weights(normalizer, positives)
    return weights / tf.maximum(all_reduce("sum", divisor), 1.0)


def _add_l2(gradients, variables, weight_decay):
    """Add the gradient of the L2 penalty."""
    if not weight_decay:
        return gradients
    return [
        gradient + weight_decay * variable.value if is_decayed(variable) else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _moving_statistics(model):
    """The moving statistics of batch norm that training changes."""
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    return [value for layer in layers for value in (layer.moving_mean, layer.moving_variance)]


def _average_statistics(statistics):
    """Give every replica the mean of all replicas' statistics of batch norm.

    Otherwise each would keep its own, and checkpoints would have those of the first.
    """
    num_replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    if num_replicas == 1 or not statistics:
        return
    means = all_reduce("mean", [variable.value for variable in statistics])
    for variable, mean in zip(statistics, means, strict=True):
        variable.assign(mean)
