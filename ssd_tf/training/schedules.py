"""Learning rates by step: warm-up, then steps, a cosine or a polynomial, as TensorFlow operations.

A step is the index of an update, from 0: a scalar of any number type. Rates are float32 scalars.
"""

import math

import tensorflow as tf

from ssd_tf.config import Train


def make_schedule(train: Train):
    """A function of the step -> learning rate, as a part of the training graph."""
    full = full_learning_rate(train)
    decay_steps = train.steps - train.warmup_steps

    def decay(step):
        if train.schedule == "cosine":
            return cosine_decay(step - train.warmup_steps, decay_steps, train.final_rate)
        if train.schedule == "polynomial":
            return polynomial_decay(
                step - train.warmup_steps, decay_steps, train.decay_power, train.final_rate
            )
        return step_decay(step, train.decay_steps, train.decay_factor)

    def learning_rate(step):
        step = tf.cast(step, tf.float32)
        if not train.warmup_steps:
            return full * decay(step)
        rising = linear_warmup(step, train.warmup_steps, train.warmup_from)
        return full * tf.where(step < train.warmup_steps, rising, decay(step))

    return learning_rate


def full_learning_rate(train: Train) -> float:
    """The rate after the warm-up: train.learning_rate, scaled from base_batch to batch_size.

    linear: Goyal et al. 2017, for SGD; sqrt: Krizhevsky 2014, sec. 5, usual with Adam.
    """
    if train.base_batch is None:
        return train.learning_rate
    ratio = train.batch_size / train.base_batch
    return train.learning_rate * (ratio if train.base_batch_rule == "linear" else ratio**0.5)


def linear_warmup(step, num_steps, first_fraction):
    """A linear rise from first_fraction at step 0 to 1 at num_steps."""
    return first_fraction + (1 - first_fraction) * step / num_steps


def step_decay(step, decay_steps, decay_factor):
    """1 at first; multiplied by decay_factor at each of decay_steps."""
    num_decays = tf.reduce_sum(tf.cast(step >= tf.constant(decay_steps, tf.float32), tf.float32))
    return tf.constant(decay_factor) ** num_decays


def cosine_decay(step, num_steps, final_fraction):
    """A cosine from 1 at step 0 to final_fraction at num_steps and after (Loshchilov, Hutter 2017).

    num_steps is above 0.
    """
    progress = tf.clip_by_value(step / num_steps, 0.0, 1.0)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + tf.cos(math.pi * progress))


def polynomial_decay(step, num_steps, power, final_fraction):
    """From 1 at step 0 to final_fraction at num_steps and after; power 1 is a straight line.

    num_steps is above 0.
    """
    progress = tf.clip_by_value(step / num_steps, 0.0, 1.0)
    return final_fraction + (1 - final_fraction) * (1 - progress) ** power
