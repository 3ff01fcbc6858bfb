"""Predictions to detections: score floor, top k and NMS per class, the best of the image.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import coding

# In image sizes; see move_apart.
_FARTHEST = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class PostProcessor:
    """Turns a model's predictions into detections; the exporters read its parameters too.

    default_boxes: [A, 4], in the order of the predictions.
    variances: those that the offsets were divided by.
    score_activation: "softmax" or "sigmoid".
    score_floor: detections score more than this.
    nms_iou: if two boxes of a class overlap more, the one with the lower score is dropped.
    class_agnostic: a default box has only its best class, and boxes of all classes suppress each
        other, as with the TFLite operator's fast NMS.
    pre_nms_top_k: number of candidates that enter NMS, per class unless class_agnostic.
    max_detections: K.
    clip_first: boxes are clipped to the image before NMS, as in torchvision, instead of at the end.
        Clipping at the end lets NMS see whole boxes, as in the original DetectionOutput layer.
    size_limit: the largest ratio of a box's height or width to its default box's, or None for no
        limit (torchvision: 62.5).
    """

    default_boxes: np.ndarray
    variances: tuple[float, float, float, float]
    score_activation: str
    score_floor: float
    nms_iou: float
    class_agnostic: bool
    pre_nms_top_k: int
    max_detections: int
    clip_first: bool
    size_limit: float | None

    def __call__(self, predictions):
        """Predictions {offsets [B, A, 4], logits [B, A, C + 1]} -> Detections.

        Detections {boxes [B, K, 4], scores [B, K], labels [B, K] int32, count [B] int32}: highest
        score first, zeros beyond `count`.
        """
        offsets = self.limit_offsets(predictions["offsets"])
        boxes = coding.decode(offsets, self.default_boxes, self.variances)
        if self.clip_first:
            boxes = tf.clip_by_value(boxes, 0.0, 1.0)
        scores = class_scores(predictions["logits"], self.score_activation)
        signature = {
            "boxes": tf.TensorSpec([self.max_detections, 4], tf.float32),
            "scores": tf.TensorSpec([self.max_detections], tf.float32),
            "labels": tf.TensorSpec([self.max_detections], tf.int32),
            "count": tf.TensorSpec([], tf.int32),
        }
        return tf.map_fn(
            lambda image: self._detect_one(*image), (boxes, scores), fn_output_signature=signature
        )

    def limit_offsets(self, offsets):
        """offsets [..., A, 4] -> the same, with th and tw limited by `size_limit`."""
        if self.size_limit is None:
            return offsets
        largest = [math.log(self.size_limit) / variance for variance in self.variances[2:]]
        return tf.minimum(offsets, [math.inf, math.inf, *largest])

    def _detect_one(self, boxes, scores):
        """boxes [A, 4], scores [A, C] of one image -> its Detections, without the batch axis."""
        num_groups = 1 if self.class_agnostic else scores.shape[1]
        scores = tf.where(scores >= 0.0, scores, 0.0)  # a NaN would take others' places in top_k
        if self.class_agnostic:
            best_class = tf.argmax(scores, 1, tf.int32)
            scores = tf.reduce_max(scores, 1, keepdims=True)
        top_k = min(self.pre_nms_top_k, boxes.shape[0])
        best, index = tf.math.top_k(tf.transpose(scores), top_k)  # [groups, top_k]
        scores = tf.reshape(best, [-1])
        index = tf.reshape(index, [-1])
        groups = tf.repeat(tf.range(num_groups), top_k)
        labels = 1 + (tf.gather(best_class, index) if self.class_agnostic else groups)
        boxes = _zero_nan(tf.gather(boxes, index))
        kept = tf.image.non_max_suppression(
            move_apart(boxes, groups, num_groups),
            scores,
            min(self.max_detections, num_groups * top_k),
            self.nms_iou,
            self.score_floor,
        )
        count = tf.shape(kept)[0]
        padding = [[0, self.max_detections - count]]
        final_boxes = tf.pad(tf.clip_by_value(tf.gather(boxes, kept), 0.0, 1.0), [*padding, [0, 0]])
        return {
            "boxes": tf.ensure_shape(final_boxes, [self.max_detections, 4]),
            "scores": tf.pad(tf.gather(scores, kept), padding),
            "labels": tf.pad(tf.gather(labels, kept), padding),
            "count": count,
        }


def _zero_nan(boxes):
    """boxes [n, 4], with zeros for those that have a NaN: it would spread to all others."""
    is_nan = tf.reduce_any(tf.math.is_nan(boxes), -1, keepdims=True)
    return tf.where(is_nan, 0.0, boxes)


def move_apart(boxes, groups, num_groups):
    """Shift boxes so that one suppression over all of them acts within each group only.

    boxes: [n, 4]. groups: [n] from 0 to num_groups - 1, which become the cells of a square grid.
    Whole steps keep small shifts exact; a square keeps them small: float32 has 24 bits for shift
    and box together. What lies more than _FARTHEST image sizes outside the image is cut off, lest
    one absurd box takes these bits from all others.
    """
    side = math.ceil(math.sqrt(num_groups))
    boxes = tf.clip_by_value(boxes, -_FARTHEST, 1.0 + _FARTHEST)
    step = tf.math.ceil(tf.reduce_max(boxes) - tf.reduce_min(boxes))
    cells = tf.stack([groups // side - side // 2, groups % side - side // 2], 1)
    return boxes + step * tf.cast(tf.tile(cells, [1, 2]), boxes.dtype)


def class_scores(logits, score_activation):
    """logits [B, A, C + 1] -> scores of the foreground classes [B, A, C].

    The sigmoid treats each class by itself and does not use the background's logit.
    """
    if score_activation == "sigmoid":
        return tf.sigmoid(logits[..., 1:])
    return tf.nn.softmax(logits)[..., 1:]
