"""Predictions to detections: score floor, top k and NMS per class, the best of the image.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from ssd_tf.boxes import coding
from ssd_tf.config import PostProcessing

_FARTHEST = 4.0  # in image sizes; see move_apart


@dataclasses.dataclass(frozen=True, eq=False)
class PostProcessor:
    """Turns a model's predictions into detections; the exporters read its parameters too.

    eval: the section of the config; K is its max_detections.
    default_boxes: [A, 4], in the order of the predictions.
    variances: the offsets were divided by them.
    score_activation: "softmax" or "sigmoid".
    """

    eval: PostProcessing
    default_boxes: np.ndarray
    variances: tuple[float, float, float, float]
    score_activation: str

    def __call__(self, predictions):
        """Predictions {offsets [B, A, 4], logits [B, A, C + 1]} -> Detections.

        Detections {boxes [B, K, 4], scores [B, K], labels [B, K] int32, count [B] int32}: highest
        score first, zeros beyond `count`.
        """
        offsets = self.limit_offsets(predictions["offsets"])
        boxes = coding.decode(offsets, self.default_boxes, self.variances)
        if self.eval.clip_first:
            boxes = tf.clip_by_value(boxes, 0.0, 1.0)
        scores = class_scores(predictions["logits"], self.score_activation)
        num_kept = self.eval.max_detections
        signature = {
            "boxes": tf.TensorSpec([num_kept, 4], tf.float32),
            "scores": tf.TensorSpec([num_kept], tf.float32),
            "labels": tf.TensorSpec([num_kept], tf.int32),
            "count": tf.TensorSpec([], tf.int32),
        }

        @tf.autograph.experimental.do_not_convert
        def detect_one(image):
            return self._detect_one(*image)

        return tf.map_fn(detect_one, (boxes, scores), fn_output_signature=signature)

    def limit_offsets(self, offsets):
        """offsets [..., A, 4] -> the same, with th and tw limited by `size_limit`."""
        if self.eval.size_limit is None:
            return offsets
        return coding.limit_sizes(offsets, self.variances, self.eval.size_limit)

    def _detect_one(self, boxes, scores):
        """boxes [A, 4], scores [A, C] of one image -> its Detections, without the batch axis."""
        settings = self.eval
        num_groups = 1 if settings.class_agnostic else scores.shape[1]
        scores = tf.where(scores >= 0.0, scores, 0.0)  # a NaN would take others' places in top_k
        if settings.class_agnostic:
            best_class = tf.argmax(scores, 1, tf.int32)
            scores = tf.reduce_max(scores, 1, keepdims=True)
        top_k = min(settings.pre_nms_top_k, boxes.shape[0])
        best, index = tf.math.top_k(tf.transpose(scores), top_k)  # [groups, top_k]
        scores = tf.reshape(best, [-1])
        index = tf.reshape(index, [-1])
        groups = tf.repeat(tf.range(num_groups), top_k)
        labels = 1 + (tf.gather(best_class, index) if settings.class_agnostic else groups)
        boxes = _zero_nan(tf.gather(boxes, index))
        kept = tf.image.non_max_suppression(
            move_apart(boxes, groups, num_groups),
            scores,
            min(settings.max_detections, num_groups * top_k),
            settings.nms_iou,
            settings.score_floor,
        )
        count = tf.shape(kept)[0]
        padding = [[0, settings.max_detections - count]]
        final_boxes = tf.pad(tf.clip_by_value(tf.gather(boxes, kept), 0.0, 1.0), [*padding, [0, 0]])
        return {
            "boxes": tf.ensure_shape(final_boxes, [settings.max_detections, 4]),
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
    and box together. Boxes are clipped to _FARTHEST image sizes around the image, so that one
    outlier does not cost the others precision.
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
