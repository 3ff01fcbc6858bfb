"""Which object each default box is trained on (Liu et al. 2016, sec. 2.2).

Shapes: `N` objects of one image, `A` default boxes, `P` positive default boxes, `G` ignore regions.
"""

import tensorflow as tf

from ssd_tf.boxes import coding, geometry

# A default box is positive if its IoU with an object is at least this.
POSITIVE_IOU = 0.5
# A default box is ignored if a crowd covers at least this fraction of it, or if its IoU with an
# ignored difficult object is at least this.
IGNORE_OVERLAP = 0.5


def make_targets(example, default_boxes, variances, train_difficult, assign=None):
    """Example (boxes [N, 4], labels, crowd, difficult [N]) -> Targets: offsets [A, 4], labels [A].

    Labels (int32) are the class of a positive, -1 if ignored, else 0; positives win over ignore
    regions. Offsets are 0 unless positive. train_difficult: difficult objects count as objects
    instead of ignore regions. assign: a function of objects [N, 4] that returns
    the object of each default box; default: `match`.
    """
    default_boxes = tf.convert_to_tensor(default_boxes)
    boxes = example["boxes"]
    crowd = example["crowd"]
    difficult = example["difficult"] & ~crowd
    if train_difficult:
        difficult = tf.zeros_like(difficult)
    is_object = ~(crowd | difficult)
    object_rows = tf.where(is_object)[:, 0]
    objects = tf.gather(boxes, object_rows)
    classes = tf.cast(tf.gather(example["labels"], object_rows), tf.int32)

    matched = match(objects, default_boxes) if assign is None else assign(objects)
    positives = tf.where(matched >= 0)  # [P, 1]
    object_index = tf.gather_nd(matched, positives)  # [P]
    labels = tf.cond(
        tf.reduce_all(is_object),
        lambda: tf.zeros([tf.shape(default_boxes)[0]], tf.int32),
        lambda: -tf.cast(is_ignored(default_boxes, boxes[crowd], boxes[difficult]), tf.int32),
    )
    labels = tf.tensor_scatter_nd_update(labels, positives, tf.gather(classes, object_index))
    encoded = coding.encode(
        tf.gather(objects, object_index), tf.gather_nd(default_boxes, positives), variances
    )
    offsets = tf.scatter_nd(positives, encoded, tf.shape(default_boxes, tf.int64))
    return {"offsets": offsets, "labels": labels}


def match(boxes, default_boxes):
    """boxes [N, 4], default_boxes [A, 4] -> each default box's object [A] int32, -1 if none.

    Bipartite matching comes first, as in the original Caffe code: the pair with the greatest IoU is
    matched and removed, until every object has a default box of its own. Then each remaining
    default box takes the object that it overlaps most, if their IoU is at least POSITIVE_IOU.
    Ties go to the earlier object, then to the earlier default box.
    """
    overlaps = geometry.iou(boxes, default_boxes)  # [N, A]
    return tf.cond(
        tf.shape(boxes)[0] > 0,
        lambda: _match_overlaps(overlaps),
        lambda: tf.fill([tf.shape(default_boxes)[0]], -1),
    )


def _match_overlaps(overlaps):
    # The argmax over objects is the slowest step, and few default boxes need it.
    positives = tf.where(tf.reduce_max(overlaps, 0) >= POSITIVE_IOU)  # [P, 1]
    best_object = tf.argmax(tf.gather(overlaps, positives[:, 0], axis=1), 0, tf.int32)
    unmatched = tf.fill([tf.shape(overlaps)[1]], -1)
    matched = tf.tensor_scatter_nd_update(unmatched, positives, best_object)
    box_of_object = bipartite(overlaps)
    objects = tf.where(box_of_object >= 0)
    forced_boxes = tf.gather_nd(box_of_object, objects)[:, None]
    return tf.tensor_scatter_nd_update(matched, forced_boxes, tf.cast(objects[:, 0], tf.int32))


def bipartite(overlaps):
    """IoU [N, A], N > 0 -> each object's own default box [N] int32, -1 if it gets none.

    Deferred acceptance (Gale and Shapley 1962). In each round, every object without a default box
    proposes to the one it overlaps most among those that would accept it; each default box holds
    the best proposal so far and rejects the others. Objects and default boxes rank each other by
    the same IoU, so the result is that of matching the greatest remaining pair again and again.
    An object gives up when no default box that it overlaps would accept it. Images seldom need more
    than three rounds.
    """
    # The first round needs no masks: every object proposes, and no default box holds a proposal.
    first_round = _reject_weaker(tf.argmax(overlaps, 1, tf.int32), tf.reduce_max(overlaps, 1))
    _, choice, choice_iou = tf.while_loop(
        lambda rejected, *_: tf.reduce_any(rejected),
        lambda *state: _propose_again(overlaps, *state),
        first_round,
    )
    return tf.where(choice_iou > 0, choice, -1)


def _propose_again(overlaps, rejected, choice, choice_iou):
    """One round of proposals, by the objects that the round before rejected.

    rejected [N] bool; choice [N]: the default box that each object proposed to; choice_iou [N]: the
    IoU of that pair if the default box holds the proposal, else 0. Returns the three after the
    round.
    """
    num_objects, num_boxes = tf.unstack(tf.shape(overlaps))
    index = tf.range(num_objects)
    is_held = choice_iou > 0
    holding_boxes = tf.boolean_mask(choice, is_held)[:, None]
    held_iou = tf.tensor_scatter_nd_update(
        tf.zeros([num_boxes]), holding_boxes, tf.boolean_mask(choice_iou, is_held)
    )
    held_object = tf.tensor_scatter_nd_update(
        tf.fill([num_boxes], num_objects), holding_boxes, tf.boolean_mask(index, is_held)
    )
    proposers = tf.boolean_mask(index, rejected)
    ious = tf.boolean_mask(overlaps, rejected)  # [proposers, A]
    wins_tie = (ious == held_iou) & (proposers[:, None] < held_object) & (ious > 0)
    accepted_ious = tf.where((ious > held_iou) | wins_tie, ious, 0.0)
    choice = tf.tensor_scatter_nd_update(
        choice, proposers[:, None], tf.argmax(accepted_ious, 1, tf.int32)
    )
    choice_iou = tf.tensor_scatter_nd_update(
        choice_iou, proposers[:, None], tf.reduce_max(accepted_ious, 1)
    )
    return _reject_weaker(choice, choice_iou)


def _reject_weaker(choice, choice_iou):
    """Of the objects that chose one default box, reject all but the one with the greatest IoU.

    choice, choice_iou [N] -> rejected [N] bool, choice [N], choice_iou [N], the last 0 if rejected.
    Ties go to the earlier object.
    """
    index = tf.range(tf.size(choice))
    is_rival = (choice[:, None] == choice) & (choice_iou > 0) & (choice_iou[:, None] > 0)
    is_greater = choice_iou > choice_iou[:, None]
    wins_tie = (choice_iou == choice_iou[:, None]) & (index < index[:, None])
    rejected = tf.reduce_any(is_rival & (is_greater | wins_tie), 1)
    return rejected, choice, tf.where(rejected, 0.0, choice_iou)


def is_ignored(default_boxes, crowds, difficult):
    """Default boxes [A, 4], crowds [G, 4], difficult [G, 4] -> which are not used as negatives [A].

    Those of which a crowd covers at least IGNORE_OVERLAP, and those that overlap a difficult object
    by at least that IoU.
    """
    covered = geometry.intersection(crowds, default_boxes) / geometry.area(default_boxes)
    overlaps = tf.concat([covered, geometry.iou(difficult, default_boxes)], 0)
    return tf.reduce_any(overlaps >= IGNORE_OVERLAP, 0)
