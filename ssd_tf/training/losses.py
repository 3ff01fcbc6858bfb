"""MultiBox loss with hard negative mining (Liu et al. 2016, sec. 2.2).

Shapes: `B` images of this replica, `A` default boxes, `C` foreground classes.
"""

import tensorflow as tf


def multibox_loss(predictions, targets, *, negatives_per_positive=3.0, min_negatives=3, localization_weight=1.0):
    """Predictions {offsets [B, A, 4], logits [B, A, C + 1]}, Targets {offsets [B, A, 4], labels [B, A]} -> sums over the images.

    Returns {"classification", "localization", "positives"}, float32 scalars that are *not* yet divided: the normaliser is the
    number of positives of the global batch, which only the training step knows. Labels of -1 take no part.
    """
    labels = targets["labels"]
    positive = labels > 0
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), predictions["logits"])
    negative = mine_negatives(cross_entropy, labels, negatives_per_positive, min_negatives)
    distance = smooth_l1(predictions["offsets"] - targets["offsets"])
    return {
        "classification": tf.reduce_sum(tf.where(positive | negative, cross_entropy, 0.0)),
        "localization": localization_weight * tf.reduce_sum(tf.where(positive[..., None], distance, 0.0)),
        "positives": tf.reduce_sum(tf.cast(positive, tf.float32)),
    }


def mine_negatives(cross_entropy, labels, per_positive, least):
    """The hardest negatives of each image [B, A] bool: per_positive for each positive, but at least `least`, while there are any.

    For a negative the cross-entropy is -log p(background), the score that the authors rank by. Ties: the earlier default box.
    """
    is_negative = labels == 0
    positives = tf.reduce_sum(tf.cast(labels > 0, tf.float32), 1)
    wanted = tf.maximum(tf.cast(positives * per_positive, tf.int32), least)  # [B]
    hardness = tf.where(is_negative, tf.stop_gradient(cross_entropy), -1.0)
    order = tf.argsort(hardness, 1, "DESCENDING", stable=True)
    rank = tf.argsort(order, 1)
    return is_negative & (rank < wanted[:, None])


def smooth_l1(difference):
    """0.5 x^2 where |x| < 1, |x| - 0.5 beyond, elementwise (Girshick 2015, eq. 3)."""
    size = tf.abs(difference)
    return tf.where(size < 1.0, 0.5 * size**2, size - 0.5)
