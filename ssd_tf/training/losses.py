"""MultiBox loss with hard negative mining (Liu et al. 2016, sec. 2.2), and its variants.

Shapes: `B` images of this replica, `A` default boxes, `C` foreground classes.
"""

import math

import tensorflow as tf

from ssd_tf.boxes import coding, geometry


def multibox_loss(
    predictions,
    targets,
    *,
    negatives_per_positive=3.0,
    min_negatives=3,
    localization_weight=1.0,
    score_activation="softmax",
    focal_gamma=None,
    focal_alpha=None,
    label_smoothing=0.0,
    box_loss="smooth_l1",
    normalizer="global",
    default_boxes=None,
    variances=coding.VARIANCES,
):
    """Predictions {offsets [B, A, 4], logits [B, A, C + 1]}, Targets {offsets [B, A, 4], labels [B, A]} -> sums over the images.

    Returns {"classification", "localization", "positives", "divisor"}, float32 scalars. The first two are *not* yet divided:
    the training step sums `divisor` over the replicas and divides by that (see `normalize`). Labels of -1 take no part.
    focal_gamma: every box takes part, weighed by the focal loss, instead of mined negatives.
    default_boxes [A, 4]: wanted by the IoU losses alone, in pixels, so that those measure distances in pixels.
    """
    labels = targets["labels"]
    positive = labels > 0
    classification = classification_loss(
        predictions["logits"], labels, score_activation, focal_gamma, focal_alpha, label_smoothing
    )
    if focal_gamma is None:
        hardness = classification
        if label_smoothing:  # which would make a background box hard by being certain of itself
            hardness = classification_loss(predictions["logits"], labels, score_activation)
        taking_part = positive | mine_negatives(
            hardness, labels, negatives_per_positive, min_negatives
        )
    else:
        taking_part = labels >= 0
    if box_loss == "smooth_l1":
        distance = tf.reduce_sum(smooth_l1(predictions["offsets"] - targets["offsets"]), -1)
    else:
        distance = iou_loss(
            box_loss, predictions["offsets"], targets["offsets"], positive, default_boxes, variances
        )
    return normalize(
        normalizer,
        tf.reduce_sum(tf.where(taking_part, classification, 0.0), 1),
        localization_weight * tf.reduce_sum(tf.where(positive, distance, 0.0), 1),
        tf.reduce_sum(tf.cast(positive, tf.float32), 1),
    )


def normalize(normalizer, classification, localization, positives):
    """Sums of each image [B] -> sums of the replica, and the `divisor` that the training step sums over replicas and divides by.

    global: by the positives of the batch of all replicas together.
    caffe, torchvision: each replica by the positives of its own batch, at least 1, then the mean over replicas (caffe's
    multibox_loss_layer.cpp; torchvision's SSD.compute_loss). Both go with `min_negatives: 0`.
    nvidia: each image by its own positives, images without any count 0, then the mean over the images (NVIDIA
    DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py).
    """
    number = tf.reduce_sum(positives)
    if normalizer == "nvidia":
        share, divisor = (
            tf.math.divide_no_nan(1.0, positives),
            tf.cast(tf.size(positives), tf.float32),
        )
    elif normalizer in ("caffe", "torchvision"):
        share, divisor = 1.0 / tf.maximum(number, 1.0), tf.constant(1.0)
    else:
        share, divisor = 1.0, number
    return {
        "classification": tf.reduce_sum(classification * share),
        "localization": tf.reduce_sum(localization * share),
        "positives": number,
        "divisor": divisor,
    }


def classification_loss(
    logits, labels, score_activation="softmax", focal_gamma=None, focal_alpha=None, label_smoothing=0.0
):
    """logits [B, A, C + 1], labels [B, A] (-1 as 0) -> loss of each box [B, A].

    softmax: cross-entropy over the background and the classes. sigmoid: binary cross-entropies of the C classes, summed; a
    background box is no class, and the first logit takes no part (TF Object Detection API, encode_background_as_zeros).
    Focal loss: Lin et al. 2017, eq. 5, for the sigmoid; the same factor (1 - p)^gamma of the true class for the softmax.
    focal_alpha weighs objects, 1 - focal_alpha the background. Label smoothing: Szegedy et al. 2016, sec. 7.
    """
    if score_activation == "sigmoid":
        return _sigmoid_loss(logits[..., 1:], labels, focal_gamma, focal_alpha, label_smoothing)
    labels = tf.maximum(labels, 0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    factor = 1.0
    if focal_gamma is not None:
        factor = _power(-tf.math.expm1(-loss), focal_gamma)  # 1 - p of the true class
    if focal_alpha is not None:
        factor *= tf.where(labels > 0, focal_alpha, 1.0 - focal_alpha)
    if label_smoothing:
        uniform = tf.reduce_logsumexp(logits, -1) - tf.reduce_mean(
            logits, -1
        )  # cross-entropy with every class alike
        loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
    return factor * loss


def _sigmoid_loss(logits, labels, focal_gamma, focal_alpha, label_smoothing):
    wanted = tf.one_hot(labels - 1, logits.shape[-1])  # label 0 becomes index -1, which is no class
    smooth = wanted * (1.0 - label_smoothing) + label_smoothing / 2
    loss = tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits)
    if focal_gamma is not None:
        loss *= _power(
            tf.sigmoid(tf.where(wanted > 0, -logits, logits)), focal_gamma
        )  # 1 - p of the true answer
    if focal_alpha is not None:
        loss *= tf.where(wanted > 0, focal_alpha, 1.0 - focal_alpha)
    return tf.reduce_sum(loss, -1)


def _power(wrong, gamma):
    """wrong^gamma; the floor keeps the slope finite at 0 for every gamma below 1."""
    return tf.maximum(wrong, 1e-6) ** gamma


def mine_negatives(hardness, labels, per_positive, least):
    """The hardest negatives of each image [B, A] bool: per_positive for each positive, but at least `least`, while there are any.

    hardness [B, A]: the classification loss without label smoothing; with softmax that is -log p(background) for a negative, the
    score that the authors rank by. Ties: the earlier default box.
    """
    is_negative = labels == 0
    positives = tf.reduce_sum(tf.cast(labels > 0, tf.float32), 1)
    wanted = tf.maximum(tf.cast(positives * per_positive, tf.int32), least)  # [B]
    hardness = tf.where(is_negative, tf.stop_gradient(hardness), -1.0)
    order = tf.argsort(hardness, 1, "DESCENDING", stable=True)
    rank = tf.argsort(order, 1)
    return is_negative & (rank < wanted[:, None])


def smooth_l1(difference):
    """0.5 x^2 where |x| < 1, |x| - 0.5 beyond, elementwise (Girshick 2015, eq. 3)."""
    size = tf.abs(difference)
    return tf.where(size < 1.0, 0.5 * size**2, size - 0.5)


def iou_loss(kind, offsets, wanted, positive, default_boxes, variances=coding.VARIANCES):
    """1 - GIoU, DIoU or CIoU of the boxes that offsets and wanted [B, A, 4] decode to [B, A]; of use where positive [B, A]."""
    # Elsewhere decoding could overflow, and the gradient of what is masked away later would not be finite.
    mask = positive[..., None]
    boxes = coding.decode(tf.where(mask, offsets, 0.0), default_boxes, variances)
    truth = coding.decode(tf.where(mask, wanted, 0.0), default_boxes, variances)
    return 1.0 - {"giou": giou, "diou": diou, "ciou": ciou}[kind](boxes, truth)


def giou(boxes, others):
    """IoU less the share of the enclosing box that neither covers [...] (Rezatofighi et al. 2019); boxes, others [..., 4]."""
    iou, union = _iou(boxes, others)
    height, width = _enclosing(boxes, others)
    hull = height * width
    return iou - (hull - union) / hull


def diou(boxes, others):
    """IoU less the squared distance of the centres in diagonals of the enclosing box [...] (Zheng et al. 2020, eq. 6)."""
    iou, _ = _iou(boxes, others)
    height, width = _enclosing(boxes, others)
    apart = coding.to_centre_form(boxes)[..., :2] - coding.to_centre_form(others)[..., :2]
    return iou - tf.reduce_sum(apart**2, -1) / (height**2 + width**2)


def ciou(boxes, others):
    """DIoU less a term for the aspect ratio, whose weight has no gradient [...] (Zheng et al. 2020, eq. 8 to 11)."""
    box, other = coding.to_centre_form(boxes), coding.to_centre_form(others)
    angle = tf.atan2(box[..., 3], box[..., 2]) - tf.atan2(other[..., 3], other[..., 2])
    v = 4 / math.pi**2 * angle**2
    iou, _ = _iou(boxes, others)
    weight = tf.stop_gradient(tf.math.divide_no_nan(v, 1.0 - iou + v))
    return diou(boxes, others) - weight * v


def _iou(boxes, others):
    """IoU and union of pairs [...]."""
    low, high = (
        tf.maximum(boxes[..., :2], others[..., :2]),
        tf.minimum(boxes[..., 2:], others[..., 2:]),
    )
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), -1)
    union = geometry.area(boxes) + geometry.area(others) - shared
    return shared / union, union


def _enclosing(boxes, others):
    """Height and width of the smallest box around each pair [...]."""
    low, high = (
        tf.minimum(boxes[..., :2], others[..., :2]),
        tf.maximum(boxes[..., 2:], others[..., 2:]),
    )
    return tf.unstack(high - low, axis=-1)
