"""Learning rates as fractions of the full rate, by step: warm-up, steps, cosine, polynomial.

A step is the index of an update, from 0, a float32 scalar; so are the fractions.
"""

import math

import tensorflow as tf


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
