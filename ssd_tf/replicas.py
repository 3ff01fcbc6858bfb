"""Sums and means over the replicas of a step, whatever the strategy."""

import tensorflow as tf


def all_reduce(operation, values):
    """The sum or mean of each value over all replicas, inside strategy.run.

    operation: "sum" or "mean". values: tensors or variables, or a structure of them.
    """
    # A strategy with one replica per worker cannot reduce what a variable gives: it has no device.
    tensors = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_reduce(operation, tensors)
