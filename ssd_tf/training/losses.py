"""MultiBox loss with hard negative mining (Liu et al. 2016, sec. 2.2), and its variants.

Shapes: `B` images of this replica, `A` default boxes, `C` foreground classes.
"""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import coding, geometry
from ssd_tf.config import Loss

# A predicted side is at most 62.5 of the default box, as torchvision's decoder has it: larger ones
# would overflow.
_MAX_RATIO = 62.5


class ImageLosses(typing.NamedTuple):
    """Sums over the default boxes of each image [B], *not* yet divided (see `image_weights`).

    localization is already multiplied by its weight.
    """

    classification: tf.Tensor
    localization: tf.Tensor


class ImageWeights(typing.NamedTuple):
    """Weights of the losses of a replica's images [B], and a scalar divisor.

    The training step sums `divisor` over the replicas first.
    """

    weights: tf.Tensor
    divisor: tf.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class MultiBoxLoss:
    """A function of Predictions and Targets -> ImageLosses. Labels of -1 are ignored.

    loss: the section of the config. Its normalizer is not applied here but by `image_weights`,
    because its sums go over more images than one micro-batch has.
    score_activation: "softmax" or "sigmoid".
    default_boxes: [A, 4]; smooth_l1 uses neither them nor the variances.
    static_shapes: see `mine_negatives`.
    trained_rows: the logits of the classes of the Targets, whose label n is the n-th of them; all
    other classes are background then. None: the logits are those of the Targets.
    """

    loss: Loss
    score_activation: str
    default_boxes: np.ndarray
    variances: tuple[float, float, float, float]
    static_shapes: bool = False
    trained_rows: np.ndarray | None = None

    def __call__(self, predictions, targets) -> ImageLosses:
        """predictions: {"offsets" [B, A, 4], "logits" [B, A, C + 1]}.

        targets: {"offsets" [B, A, 4], "labels" [B, A]}.
        """
        labels = on_device(targets)["labels"]
        positive = labels > 0
        logits = predictions["logits"]
        if self.trained_rows is not None:
            logits = merge_rows(logits, self.trained_rows, self.score_activation)
        classification = classification_loss(logits, labels, self.score_activation, self.loss)
        contributes = self._contributes(labels, classification)
        distance = self._distance(predictions["offsets"], targets["offsets"], positive)
        return ImageLosses(
            _sum_where(contributes, classification),
            self.loss.localization_weight * _sum_where(positive, distance),
        )

    def _contributes(self, labels, classification):
        """Whether each default box contributes to the classification loss [B, A] bool.

        With focal_gamma all but the ignored boxes do, else the positives and the mined negatives.
        """
        if self.loss.focal_gamma is not None:
            return labels >= 0
        negatives = mine_negatives(
            classification,
            labels,
            self.loss.negatives_per_positive,
            self.loss.min_negatives,
            self.static_shapes,
        )
        return (labels > 0) | negatives

    def _distance(self, predicted, target, positive):
        """Distance between predicted and target offsets [B, A, 4] -> [B, A]; valid if positive."""
        if self.loss.box_loss == "smooth_l1":
            return tf.reduce_sum(smooth_l1(predicted - target), -1)
        return 1.0 - giou(*self._decode_pairs(predicted, target, positive))

    def _decode_pairs(self, predicted, target, positive):
        """Offsets [B, A, 4] -> predicted and true boxes; default boxes unless positive.

        Decoding other boxes could overflow, and masking them later would not make the gradient
        finite.
        """
        mask = positive[..., None]
        predicted = coding.limit_sizes(predicted, self.variances, _MAX_RATIO)
        return [
            coding.decode(tf.where(mask, offsets, 0.0), self.default_boxes, self.variances)
            for offsets in (predicted, target)
        ]


def merge_rows(logits, trained_rows, score_activation):
    """Logits [B, A, C + 1] -> [B, A, T + 1]: those of T trained rows, all others as background.

    The merged background has the probability of all others together, and no gradient; the sigmoid
    does not use it, so the first logit stays as it is. Mined negatives are then those that score
    highest for a trained class: an object of another class that has no label is as good a negative
    as any.
    """
    if score_activation == "sigmoid":
        return tf.gather(logits, [0, *trained_rows], axis=-1)
    others = np.setdiff1d(np.arange(logits.shape[-1]), trained_rows)
    merged = tf.reduce_logsumexp(tf.gather(logits, others, axis=-1), -1, keepdims=True)
    return tf.concat([tf.stop_gradient(merged), tf.gather(logits, trained_rows, axis=-1)], -1)


def on_device(targets):
    """Targets with labels as int64: TensorFlow compares int32 on the host even beside a GPU."""
    return {**targets, "labels": tf.cast(targets["labels"], tf.int64)}


def _sum_where(mask, values):
    """The sums over the default boxes in the mask [B, A] -> [B]; the values are finite."""
    # A product, as tf.where and its gradient take three times as long.
    return tf.reduce_sum(tf.cast(mask, values.dtype) * values, 1)


def image_weights(normalizer, positives) -> ImageWeights:
    """positives: of each image [B] float, all images of one replica in one step.

    global: divide by the positives of the global batch, all replicas together.
    torchvision: divide each replica's sums by the positives of its own batch, at least 1, then
    average over the replicas (torchvision's SSD.compute_loss; the original Caffe code's
    multibox_loss_layer.cpp). It goes with `min_negatives: 0`.
    nvidia: divide each image's sums by its own positives, count images without positives as 0,
    then average over the images (NVIDIA DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py).
    """
    if normalizer == "nvidia":
        divisor = tf.cast(tf.size(positives), positives.dtype)
        return ImageWeights(tf.math.divide_no_nan(tf.ones_like(positives), positives), divisor)
    num_positives = tf.reduce_sum(positives)
    if normalizer == "torchvision":
        weights = tf.ones_like(positives) / tf.maximum(num_positives, 1.0)
        return ImageWeights(weights, tf.ones_like(num_positives))
    return ImageWeights(tf.ones_like(positives), num_positives)


def classification_loss(logits, labels, score_activation, loss: Loss):
    """logits [B, A, C + 1], labels [B, A] (-1 counts as 0) -> loss per box [B, A].

    softmax: cross-entropy over the background and the classes.
    sigmoid: binary cross-entropies of the C classes, summed. A background box has no class, and the
    first logit is unused (TF Object Detection API, encode_background_as_zeros).
    loss.focal_gamma: the exponent of Lin et al. 2017, eq. 5, which is for the sigmoid; the softmax
    gets the same factor (1 - p)^gamma of the true class.
    """
    if score_activation == "sigmoid":
        return _sigmoid_loss(logits[..., 1:], labels, loss)
    labels = tf.maximum(labels, 0)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    result = entropy
    if loss.focal_gamma is not None:
        probability_of_others = -tf.math.expm1(-entropy)
        result *= _power(probability_of_others, loss.focal_gamma)
    if loss.focal_alpha is not None:
        result *= tf.where(labels > 0, loss.focal_alpha, 1.0 - loss.focal_alpha)
    return result


def _sigmoid_loss(logits, labels, loss):
    """logits [B, A, C] without the background -> loss per box [B, A]."""
    # Label 0 becomes index -1, which is no class.
    one_hot = tf.one_hot(labels - 1, logits.shape[-1])
    entropies = tf.nn.sigmoid_cross_entropy_with_logits(one_hot, logits)
    if loss.focal_gamma is not None:
        probability_of_wrong = tf.sigmoid(tf.where(one_hot > 0, -logits, logits))
        entropies *= _power(probability_of_wrong, loss.focal_gamma)
    if loss.focal_alpha is not None:
        entropies *= tf.where(one_hot > 0, loss.focal_alpha, 1.0 - loss.focal_alpha)
    return tf.reduce_sum(entropies, -1)


def _power(probability, gamma):
    """probability^gamma; the floor keeps the slope at 0 finite for every gamma below 1."""
    return tf.maximum(probability, 1e-6) ** gamma


def mine_negatives(hardness, labels, negatives_per_positive, min_negatives, static_shapes=False):
    """The hardest negatives of each image [B, A] bool.

    Per image: negatives_per_positive for each positive, at least min_negatives, at most all.
    hardness: [B, A], the classification loss; with softmax, a negative's is -log p(background), the
    score that Liu et al. rank by. Ties: the earlier default box.
    static_shapes: sort all boxes, as XLA requires, instead of only as many as an image mines.
    """
    is_negative = labels == 0
    num_boxes = hardness.shape[1]
    positives = tf.reduce_sum(tf.cast(labels > 0, tf.float32), 1)
    num_negatives = tf.math.floor(positives * negatives_per_positive)
    num_negatives = tf.minimum(tf.maximum(num_negatives, min_negatives), num_boxes)  # [B]
    hardness = tf.where(is_negative, tf.stop_gradient(hardness), -1.0)
    num_sorted = num_boxes if static_shapes else tf.cast(tf.reduce_max(num_negatives), tf.int32)
    values, hardest = tf.math.top_k(hardness, tf.maximum(num_sorted, 1))
    # The easiest mined box of each image; of equal values the earlier one comes first.
    easiest = tf.cast(tf.maximum(num_negatives - 1.0, 0.0), tf.int32)[:, None]
    floor = tf.gather(values, easiest, batch_dims=1)
    last = tf.gather(tf.cast(hardest, tf.float32), easiest, batch_dims=1)
    index = np.arange(num_boxes, dtype=np.float32)
    is_mined = (hardness > floor) | ((hardness == floor) & (index <= last))
    return is_negative & is_mined & (num_negatives > 0.0)[:, None]


@tf.custom_gradient
def smooth_l1(difference):
    """0.5 x^2 if |x| < 1, else |x| - 0.5, elementwise (Girshick 2015, eq. 3)."""
    slope = tf.clip_by_value(difference, -1.0, 1.0)
    return slope * (difference - 0.5 * slope), lambda upstream: upstream * slope


def giou(boxes, others):
    """Generalised IoU of pairs (Rezatofighi et al. 2019); boxes, others [..., 4] -> [...].

    IoU minus the fraction of the enclosing box that neither covers.
    """
    shared = geometry.paired_intersection(boxes, others)
    union = geometry.area(boxes) + geometry.area(others) - shared
    low = tf.minimum(boxes[..., :2], others[..., :2])
    high = tf.maximum(boxes[..., 2:], others[..., 2:])
    hull = tf.reduce_prod(high - low, -1)
    return shared / union - (hull - union) / hull
