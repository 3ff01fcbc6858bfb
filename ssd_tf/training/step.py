"""One update of the weights, on all replicas of a strategy.

Shapes: `B` images of one replica, `A` default boxes, `C` foreground classes.
"""

import typing

import numpy as np
import tensorflow as tf

from ssd_tf.config import Config, Train
from ssd_tf.training.losses import MultiBoxLoss


class StepValues(typing.NamedTuple):
    """Float32 scalars of the global batch.

    loss: classification + localization, without L2; localization is already weighted.
    positives: the number of default boxes that are matched to an object.
    """

    loss: tf.Tensor
    classification: tf.Tensor
    localization: tf.Tensor
    positives: tf.Tensor


def make_loss(config: Config, default_boxes) -> MultiBoxLoss:
    """The loss that config.loss describes. default_boxes: [A, 4], normalised."""
    input_hw = np.array(config.model.input_hw, np.float32)
    return MultiBoxLoss(
        negatives_per_positive=config.loss.negatives_per_positive,
        min_negatives=config.loss.min_negatives,
        localization_weight=config.loss.localization_weight,
        score_activation=config.loss.score_activation,
        focal_gamma=config.loss.focal_gamma,
        focal_alpha=config.loss.focal_alpha,
        label_smoothing=config.loss.label_smoothing,
        box_loss=config.loss.box_loss,
        normalizer=config.loss.normalizer,
        default_boxes=default_boxes * np.tile(input_hw, 2),
        variances=config.boxes.variances,
    )


def make_train_step(train: Train, loss: MultiBoxLoss, model, optimizer, strategy):
    """A tf.function: a batch (images, Targets) as the strategy distributes it -> StepValues.

    Every sum is divided by the positives of the *global* batch (or by what loss.normalizer says),
    so neither loss nor gradient depends on how images are spread over replicas.
    """
    variables = model.trainable_variables
    num_replicas = strategy.num_replicas_in_sync

    def replica_step(images, targets):
        with tf.GradientTape() as tape:
            predictions = model(images, training=train.bn == "train")
            values = _normalize_sums(loss(predictions, targets))
        gradients = tape.gradient(values.loss, [variable.value for variable in variables])
        if train.clip_norm is not None:
            gradients = _clip_by_global_norm(gradients, train.clip_norm, num_replicas)
        if train.weight_decay:
            # Each replica adds its fraction, because apply() sums over replicas.
            gradients = _add_l2(gradients, variables, train.weight_decay / num_replicas)
        optimizer.apply(gradients, variables)
        return values

    @tf.function
    def train_step(images, targets):
        per_replica = strategy.run(replica_step, args=(images, targets))
        return StepValues(*(strategy.reduce("SUM", value, axis=None) for value in per_replica))

    return train_step


def _normalize_sums(sums):
    """LossSums of a replica -> its StepValues, which add up to those of the global batch."""
    divisor = tf.distribute.get_replica_context().all_reduce("sum", sums.divisor)
    divisor = tf.maximum(divisor, 1.0)
    classification = sums.classification / divisor
    localization = sums.localization / divisor
    return StepValues(classification + localization, classification, localization, sums.positives)


def _clip_by_global_norm(gradients, norm, num_replicas):
    """Clip the gradient of the global batch; each replica returns its fraction of the result."""
    summed = tf.distribute.get_replica_context().all_reduce("sum", gradients)
    clipped, _ = tf.clip_by_global_norm(summed, norm)
    return [gradient / num_replicas for gradient in clipped]


def _add_l2(gradients, variables, weight_decay):
    """Add the gradient of the L2 penalty for kernels, not for biases and batch norm."""
    return [
        gradient + weight_decay * variable.value if variable.name.endswith("kernel") else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]
