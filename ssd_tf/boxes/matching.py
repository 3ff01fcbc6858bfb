"""Which default box answers for which object (Liu et al. 2016, sec. 2.2).

Shapes: `N` objects of one picture, `A` default boxes, `G` ignore regions.
"""

import tensorflow as tf

from ssd_tf.boxes import coding, geometry


def match(boxes, default_boxes, threshold=0.5):
    """boxes [N, 4], default_boxes [A, 4] -> index of each default box's object [A] int32, -1 where it has none.

    First bipartite, as the authors' code does it: the pair of the greatest IoU of all is joined and both leave, until every
    object has a default box of its own. Then each default box left takes the object that it overlaps most, if by >= threshold.
    Ties: the earlier object, then the earlier default box.
    """
    overlaps = geometry.iou(boxes, default_boxes)  # [N, A]
    return tf.cond(
        tf.shape(boxes)[0] > 0,
        lambda: _match_some(overlaps, threshold),
        lambda: tf.fill([tf.shape(default_boxes)[0]], -1),
    )


def _match_some(overlaps, threshold):
    # The argmax over objects is the slowest pass of all, and few default boxes need it.
    positive = tf.where(tf.reduce_max(overlaps, 0) >= threshold)  # [P, 1]
    best_object = tf.argmax(tf.gather(overlaps, positive[:, 0], axis=1), 0, tf.int32)
    matched = tf.tensor_scatter_nd_update(
        tf.fill([tf.shape(overlaps)[1]], -1), positive, best_object
    )
    own = bipartite(overlaps)
    objects = tf.where(own >= 0)
    return tf.tensor_scatter_nd_update(
        matched, tf.gather_nd(own, objects)[:, None], tf.cast(objects[:, 0], tf.int32)
    )


def bipartite(overlaps):
    """IoU [N, A], N > 0 -> the default box of each object [N] int32; -1 where every one it touches is taken.

    The same as taking the greatest pair over and over, but in rounds: every object without a default box asks for the best that
    would have it, and each default box keeps the best that asked. Both sides rank by one and the same number,
    so the outcome does not depend on the order; pictures seldom need more than three rounds.
    """
    number, width = tf.unstack(tf.shape(overlaps))
    index = tf.range(number)

    def ask(asking, chosen, value):
        held = tf.tensor_scatter_nd_max(
            tf.zeros([width]), _rows(chosen, value), tf.gather_nd(value, tf.where(value > 0))
        )
        holder = tf.tensor_scatter_nd_update(
            tf.fill([width], number), _rows(chosen, value), tf.boolean_mask(index, value > 0)
        )
        mine, rows = tf.boolean_mask(index, asking), tf.boolean_mask(overlaps, asking)
        free = (rows > held) | ((rows == held) & (mine[:, None] < holder) & (rows > 0))
        rows = tf.where(free, rows, 0.0)
        chosen = tf.tensor_scatter_nd_update(chosen, mine[:, None], tf.argmax(rows, 1, tf.int32))
        value = tf.tensor_scatter_nd_update(value, mine[:, None], tf.reduce_max(rows, 1))
        return _losers(chosen, value, index), chosen, value

    def keep_asking(asking, chosen, value):
        losing, chosen, value = ask(asking, chosen, value)
        return losing, chosen, tf.where(losing, 0.0, value)

    first = tf.argmax(overlaps, 1, tf.int32), tf.reduce_max(overlaps, 1)
    losing = _losers(*first, index)
    _, chosen, value = tf.while_loop(
        lambda asking, *_: tf.reduce_any(asking),
        keep_asking,
        (losing, first[0], tf.where(losing, 0.0, first[1])),
    )
    return tf.where(value > 0, chosen, -1)


def _rows(chosen, value):
    return tf.boolean_mask(chosen, value > 0)[:, None]


def _losers(chosen, value, index):
    """Objects whose default box is also chosen by one that overlaps it more, or as much and comes first [N] bool."""
    rival = (chosen[:, None] == chosen) & (value > 0) & (value[:, None] > 0)
    stronger = (value > value[:, None]) | ((value == value[:, None]) & (index < index[:, None]))
    return tf.reduce_any(rival & stronger, 1)


def ignored(default_boxes, crowds, difficult, threshold=0.5):
    """Default boxes [A, 4] that are no negatives [A] bool: a crowd covers half of them, or they meet a difficult object.

    crowds [G, 4]: intersection / area of the default box >= threshold; difficult [G, 4]: IoU >= threshold.
    """
    inside = geometry.intersection(crowds, default_boxes) / geometry.area(
        tf.convert_to_tensor(default_boxes)
    )
    overlap = tf.concat([inside, geometry.iou(difficult, default_boxes)], 0)
    return tf.reduce_any(overlap >= threshold, 0)


def make_targets(
    example, default_boxes, variances=coding.VARIANCES, train_difficult=False, threshold=0.5
):
    """Example (boxes [N, 4], labels, crowd, difficult [N]) -> Targets: offsets [A, 4], labels [A] int32.

    Labels: the class where positive, -1 where ignored, else 0; positives win over ignore regions.
    Offsets are 0 where not positive.
    """
    default_boxes = tf.convert_to_tensor(default_boxes)
    boxes, crowd = example["boxes"], example["crowd"]
    difficult = example["difficult"] & ~crowd
    if train_difficult:
        difficult = tf.zeros_like(difficult)
    real = ~(crowd | difficult)
    rows = tf.where(real)[:, 0]
    objects, classes = tf.gather(boxes, rows), tf.gather(example["labels"], rows)
    matched = match(objects, default_boxes, threshold)
    labels = tf.cond(
        tf.reduce_all(real),
        lambda: tf.zeros([tf.shape(default_boxes)[0]], tf.int32),
        lambda: -tf.cast(ignored(default_boxes, boxes[crowd], boxes[difficult]), tf.int32),
    )
    where = tf.where(matched >= 0)
    object_of = tf.gather_nd(matched, where)
    offsets = encode_positives(objects, default_boxes, where, object_of, variances)
    labels = tf.tensor_scatter_nd_update(
        labels, where, tf.gather(tf.cast(classes, tf.int32), object_of)
    )
    return {"offsets": offsets, "labels": labels}


def encode_positives(objects, default_boxes, where, object_of, variances):
    """Offsets [A, 4] of the positives at `where` [P, 1] from their objects `object_of` [P]; 0 elsewhere."""
    coded = coding.encode(
        tf.gather(objects, object_of), tf.gather_nd(default_boxes, where), variances
    )
    return tf.scatter_nd(where, coded, tf.shape(default_boxes, tf.int64))
