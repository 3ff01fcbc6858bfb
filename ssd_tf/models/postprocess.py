"""Predictions to detections: softmax, score floor, top k per class, non-maximum suppression per class, top k of the picture.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import math

import tensorflow as tf

from ssd_tf.boxes import coding


def detect(
    predictions,
    default_boxes,
    variances,
    *,
    score_floor,
    nms_iou,
    pre_nms_top_k,
    max_detections,
    scores="softmax",
    clip_first=False,
    size_limit=None,
):
    """Predictions {offsets [B, A, 4], logits [B, A, C + 1]} -> Detections {boxes [B, K, 4], scores, labels [B, K], count [B]}.

    Detections come by falling score, with zeros beyond `count`; boxes are clipped to the picture at the very end, so that
    suppression sees them whole (as in the authors' DetectionOutput layer); clip_first clips them before (as torchvision does).
    size_limit: heights and widths grow no further than so many times those of the default box (torchvision: 1000 / 16).
    """
    offsets = predictions["offsets"]
    if size_limit is not None:
        offsets = tf.minimum(
            offsets,
            [math.inf] * 2 + [math.log(size_limit) / variance for variance in variances[2:]],
        )
    boxes = coding.decode(offsets, default_boxes, variances)
    if clip_first:
        boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    foreground = class_scores(predictions["logits"], scores)

    def one(inputs):
        return _detect_one(*inputs, score_floor, nms_iou, pre_nms_top_k, max_detections)

    signature = (
        tf.TensorSpec([max_detections, 4], tf.float32),
        tf.TensorSpec([max_detections], tf.float32),
        tf.TensorSpec([max_detections], tf.int32),
        tf.TensorSpec([], tf.int32),
    )
    kept = tf.map_fn(one, (boxes, foreground), fn_output_signature=signature)
    return dict(zip(("boxes", "scores", "labels", "count"), kept, strict=True))


def class_scores(logits, scores="softmax"):
    """logits [B, A, C + 1] -> scores of the foreground classes [B, A, C], by softmax or, for each class alone, by sigmoid."""
    return tf.sigmoid(logits[..., 1:]) if scores == "sigmoid" else tf.nn.softmax(logits)[..., 1:]


def _detect_one(boxes, scores, score_floor, nms_iou, pre_nms_top_k, max_detections):
    """boxes [A, 4], scores [A, C] -> the K best of the picture, padded with zeros."""
    top_k = min(pre_nms_top_k, boxes.shape[0])
    best, index = tf.math.top_k(tf.transpose(scores), top_k)  # [C, top_k]

    def one_class(inputs):
        own_scores, own_boxes = inputs
        kept = tf.image.non_max_suppression(own_boxes, own_scores, top_k, nms_iou, score_floor)
        pad = [[0, top_k - tf.shape(kept)[0]]]
        return tf.pad(tf.gather(own_scores, kept), pad), tf.pad(
            tf.gather(own_boxes, kept), [*pad, [0, 0]]
        )

    candidates = tf.gather(boxes, index)  # [C, top_k, 4]
    signature = (tf.TensorSpec([top_k], tf.float32), tf.TensorSpec([top_k, 4], tf.float32))
    kept_scores, kept_boxes = tf.map_fn(
        one_class, (best, candidates), fn_output_signature=signature
    )

    number = min(max_detections, kept_scores.shape[0] * top_k)
    final, order = tf.math.top_k(tf.reshape(kept_scores, [-1]), number)
    pad = [[0, max_detections - number]]
    live = final > 0
    labels = tf.where(live, order // top_k + 1, 0)
    final_boxes = tf.where(live[:, None], tf.gather(tf.reshape(kept_boxes, [-1, 4]), order), 0.0)
    return (
        tf.pad(tf.clip_by_value(final_boxes, 0.0, 1.0), [*pad, [0, 0]]),
        tf.pad(final, pad),
        tf.pad(labels, pad),
        tf.reduce_sum(tf.cast(live, tf.int32)),
    )
