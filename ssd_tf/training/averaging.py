"""Averaged weights (EMA): an exponential moving average of all variables of the model."""

import contextlib

import keras
import tensorflow as tf


class Averages:
    """An average of each floating-point variable of a model, batch norm's statistics included.

    A kernel's average fits only statistics that are averaged alike. `by_path` has a tf.Variable for
    each path of the model's variables. Create it in the scope of the strategy, with the initial
    weights in place.
    """

    def __init__(self, model, decay):
        self._decay = decay
        self._variables = [
            variable for variable in model.variables if keras.backend.is_float_dtype(variable.dtype)
        ]
        self.by_path = {
            variable.path: tf.Variable(variable.value, trainable=False)
            for variable in self._variables
        }

    def update(self, strategy, num_updates):
        """Move each average towards its variable; in cross-replica context, after an update.

        num_updates: how many came before, a scalar. The decay is min(decay, (1 + n) / (10 + n)), as
        in tf.train.ExponentialMovingAverage: a short run does not remember its random start.
        """
        count = tf.cast(num_updates, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + count) / (10.0 + count))

        def move(average, value):
            # average -= share * (average - value), in fewer operations.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.handle, alpha=tf.cast(share, average.dtype), delta=average - value
            )

        for variable in self._variables:
            average = self.by_path[variable.path]
            strategy.extended.update(average, move, args=(variable.value,), group=False)

    @contextlib.contextmanager
    def in_place(self):
        """Inside, the model has its averaged weights; afterwards, the raw ones."""
        raw_values = [variable.numpy() for variable in self._variables]
        for variable in self._variables:
            variable.assign(self.by_path[variable.path].numpy())
        try:
            yield
        finally:
            for variable, value in zip(self._variables, raw_values, strict=True):
                variable.assign(value)


def is_too_long(decay, num_steps) -> bool:
    """Whether the average would still remember a fifth of the run at its end.

    It reaches back about 1 / (1 - decay) steps.
    """
    return 5 / (1 - decay) > num_steps
