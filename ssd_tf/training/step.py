"""One update of the weights, on all replicas of a strategy.

Shapes: `B` images of one replica, `A` default boxes, `C` foreground classes, `L` feature maps.
"""

import typing

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.config import Config
from ssd_tf.models.ssd import SSD
from ssd_tf.replicas import all_reduce
from ssd_tf.training import losses
from ssd_tf.training.learner import Learner
from ssd_tf.training.losses import MultiBoxLoss
from ssd_tf.training.optimizer import is_decayed, l2_in_gradient, make_schedule


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


def make_loss(config: Config, default_boxes) -> MultiBoxLoss:
    """The loss that config.loss describes. default_boxes: [A, 4], normalised."""
    input_hw = np.array(config.model.input_hw, np.float32)
    return MultiBoxLoss(
        config.loss,
        score_activation=config.model.score_activation,
        default_boxes=default_boxes * np.tile(input_hw, 2),
        variances=config.boxes.variances,
        static_shapes=config.train.xla,
    )


def make_train_step(config: Config, learner: Learner):
    """A function of a batch (images, Targets) as the strategy distributes it -> StepValues.

    It belongs inside a tf.function, in cross-replica context, and updates the weights, the
    optimizer, the averaged weights and learner.step. Every sum is divided by the positives of the
    *global* batch (or by what loss.normalizer says), so neither loss nor gradient depends on how
    images are spread over replicas and micro-batches.
    """
    network, optimizer, averages, step, strategy = learner
    train = config.train
    schedule = make_schedule(train)
    variables = network.model.trainable_variables
    statistics = _statistics_of(network.model)
    gradients_of_batch = _make_batch_gradients(config, learner)

    def replica_step(images, targets):
        targets = losses.on_device(targets)
        gradients, parts = gradients_of_batch(images, targets)
        gradients = all_reduce("sum", gradients)
        norm = tf.linalg.global_norm(gradients)
        if train.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, train.clip_norm, use_norm=norm)
        gradients = _add_l2(gradients, variables, l2_in_gradient(train))
        if train.precision == "mixed_float16":
            gradients = [optimizer.scale_loss(gradient) for gradient in gradients]
        optimizer.apply(gradients, variables)
        if train.bn == "train":
            _average_statistics(statistics)
        return (*parts, _positives_by_level(network, targets["labels"])), norm

    def train_step(images, targets):
        rate = schedule(step)
        optimizer.learning_rate.assign(rate)
        per_replica, norm = strategy.run(replica_step, args=(images, targets))
        sums = [strategy.reduce("SUM", value, axis=None) for value in per_replica]
        classification, localization, positives_per_level = sums
        if averages is not None:
            averages.update(strategy, step)
        step.assign_add(1)
        positives_per_level /= train.batch_size
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


def make_probe(config: Config, learner: Learner):
    """A tf.function: a batch -> its loss with the present weights, which stay as they are."""
    network = learner.network
    strategy = learner.strategy
    loss = make_loss(config, network.default_boxes)

    def replica_loss(images, targets):
        targets = losses.on_device(targets)
        weights = _global_weights(config.loss.normalizer, targets["labels"], tf.float32)
        parts = loss(network.model(images, training=False), targets)
        return tf.reduce_sum(weights * (parts.classification + parts.localization))

    @tf.function
    def probe(images, targets):
        return strategy.reduce("SUM", strategy.run(replica_loss, args=(images, targets)), axis=None)

    return probe


def make_l2_penalty(config: Config, learner: Learner):
    """A tf.function of no arguments -> the L2 penalty that train.weight_decay stands for.

    It is the same number whether the decay is in the gradient or decoupled.
    """
    variables = learner.network.model.trainable_variables
    decay = config.train.weight_decay

    @tf.function
    def penalty():
        squares = [tf.nn.l2_loss(variable.value) for variable in variables if is_decayed(variable)]
        return decay * tf.add_n(squares) if squares else tf.constant(0.0)

    return penalty


def _make_batch_gradients(config, learner):
    """A function of a replica's batch -> gradients, and its (classification, localization).

    All are this replica's share of the sums over the global batch.
    """
    train = config.train
    loss = make_loss(config, learner.network.default_boxes)
    micro_gradients = _make_micro_gradients(config, learner, loss)

    def gradients_of_batch(images, targets):
        normalizer = config.loss.normalizer
        weights = _global_weights(normalizer, targets["labels"], targets["offsets"].dtype)
        if train.accumulate == 1:
            return micro_gradients(images, targets, weights)
        total = None
        for index in range(train.accumulate):
            # In turn: together they would need the memory that accumulation is to save.
            with tf.control_dependencies(tf.nest.flatten(total) if total else []):
                # Every k-th image: the same micro-batches for any number of replicas.
                micro_batch = tf.nest.map_structure(
                    lambda tensor: tf.identity(tensor[index :: train.accumulate]),  # noqa: B023
                    (images, targets, weights),
                )
            result = micro_gradients(*micro_batch)
            total = result if total is None else tf.nest.map_structure(tf.add, total, result)
        return total

    return gradients_of_batch


def _make_micro_gradients(config, learner, loss):
    """A function (images, Targets, weights [B]) -> gradients, (classification, localization)."""
    model = learner.network.model
    train = config.train
    values = [variable.value for variable in model.trainable_variables]

    def micro_gradients(images, targets, weights):
        with tf.GradientTape() as tape:
            predictions = model(images, training=train.bn != "frozen")
            parts = loss(predictions, targets)
            classification = tf.reduce_sum(weights * parts.classification)
            localization = tf.reduce_sum(weights * parts.localization)
            total = classification + localization
            if train.precision == "mixed_float16":
                total = learner.optimizer.scale_loss(total)
        gradients = tape.gradient(total, values)
        if train.precision == "mixed_float16":
            scale = learner.optimizer.dynamic_scale.value
            gradients = [gradient / scale for gradient in gradients]
        return gradients, (classification, localization)

    if train.xla:
        return tf.function(micro_gradients, jit_compile=True, autograph=False)
    return micro_gradients


def _global_weights(normalizer, labels, dtype):
    """What each image's loss [B] is multiplied by: image_weights, divided by the global divisor."""
    positives = tf.reduce_sum(tf.cast(labels > 0, dtype), 1)
    weights, divisor = losses.image_weights(normalizer, positives)
    divisor = all_reduce("sum", divisor)
    return weights / tf.maximum(divisor, 1.0)


def _positives_by_level(network: SSD, labels):
    """labels [B, A] -> the number of positives on each feature map [L], of this replica."""
    sizes = [
        height * width * len(level.shapes_hw)
        for level, (height, width) in zip(network.levels, network.map_shapes, strict=True)
    ]
    of_level = np.repeat(np.arange(len(sizes)), sizes)
    positives = tf.reduce_sum(tf.cast(labels > 0, tf.float32), 0)
    return tf.math.segment_sum(positives, of_level)


def _statistics_of(model):
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


def _add_l2(gradients, variables, weight_decay):
    """Add the gradient of the L2 penalty."""
    if not weight_decay:
        return gradients
    return [
        gradient + weight_decay * variable.value if is_decayed(variable) else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]
