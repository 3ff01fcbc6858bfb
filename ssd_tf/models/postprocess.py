"""Predictions to detections: softmax, score floor, top k per class, non-maximum suppression per class, top k of the picture.

Shapes: `B` batch, `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import tensorflow as tf

from ssd_tf.boxes import coding


def detect(predictions, default_boxes, variances, *, score_floor, nms_iou, pre_nms_top_k, max_detections):
    """Predictions {offsets [B, A, 4], logits [B, A, C + 1]} -> Detections {boxes [B, K, 4], scores, labels [B, K], count [B]}.

    Detections come by falling score, with zeros beyond `count`; boxes are clipped to the picture at the very end, so that
    suppression sees them whole (as in the authors' DetectionOutput layer).
    """
    boxes = coding.decode(predictions["offsets"], default_boxes, variances)
    scores = tf.nn.softmax(predictions["logits"])[..., 1:]

    def one(inputs):
        return _detect_one(*inputs, score_floor, nms_iou, pre_nms_top_k, max_detections)

    signature = (
        tf.TensorSpec([max_detections, 4], tf.float32),
        tf.TensorSpec([max_detections], tf.float32),
        tf.TensorSpec([max_detections], tf.int32),
        tf.TensorSpec([], tf.int32),
    )
    kept = tf.map_fn(one, (boxes, scores), fn_output_signature=signature)
    return dict(zip(("boxes", "scores", "labels", "count"), kept, strict=True))


def _detect_one(boxes, scores, score_floor, nms_iou, pre_nms_top_k, max_detections):
    """boxes [A, 4], scores [A, C] -> the K best of the picture, padded with zeros."""
    top_k = min(pre_nms_top_k, boxes.shape[0])
    best, index = tf.math.top_k(tf.transpose(scores), top_k)  # [C, top_k]

    def one_class(inputs):
        class_scores, class_boxes = inputs
        kept = tf.image.non_max_suppression(class_boxes, class_scores, top_k, nms_iou, score_floor)
        pad = [[0, top_k - tf.shape(kept)[0]]]
        return tf.pad(tf.gather(class_scores, kept), pad), tf.pad(tf.gather(class_boxes, kept), [*pad, [0, 0]])

    candidates = tf.gather(boxes, index)  # [C, top_k, 4]
    signature = (tf.TensorSpec([top_k], tf.float32), tf.TensorSpec([top_k, 4], tf.float32))
    kept_scores, kept_boxes = tf.map_fn(one_class, (best, candidates), fn_output_signature=signature)

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
