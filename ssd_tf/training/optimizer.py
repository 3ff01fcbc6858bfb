"""The optimizer: Keras' SGD or Adam, its learning rates and weight decay, averaged weights."""

import contextlib
import math

import keras
import numpy as np
import tensorflow as tf

from ssd_tf.config import Config, Train
from ssd_tf.models import ssd

# Liu et al. 2016, sec. 3: a momentum of .9, and rates of 1e-3, 1e-4, 1e-5.
_MOMENTUM = 0.9
_DECAY_FACTOR = 0.1


def make_optimizer(
    config: Config, model, trained_rows=None, new_layers=()
) -> keras.optimizers.Optimizer:
    """The optimizer that config.train describes, built on the model's trainable variables.

    `gradient(tape, loss, variables)` computes true gradients in every train.precision, and `apply`
    expects them summed over the replicas. The learning rate is a variable for the training step to
    assign. trained_rows: as `make_train_state` takes them; nothing moves the other rows.
    new_layers: before the heads, that init_from has not filled; they learn at the full rate.
    """
    train = config.train
    # Keras would number the names, and checkpoints go by name: a second run in one process could
    # not resume the first.
    if train.optimizer == "SGD":
        optimizer = _SGD(train.learning_rate, momentum=_MOMENTUM, name="sgd")
    else:
        optimizer = _AdamW(train.learning_rate, name="adamw")
    variables = model.trainable_variables
    rate_factors = _rate_factors(config, model, variables, new_layers)
    optimizer.set_factors(rate_factors, _decays(train, variables))
    if trained_rows is not None:
        optimizer.set_masks(_row_masks(model, variables, trained_rows))
    if train.precision == "mixed_float16":
        optimizer = _LossScale(optimizer, name="loss_scale")
    optimizer.build(variables)
    return optimizer


def make_schedule(train: Train):
    """A function of the index of an update -> learning rate, as a part of the training graph."""
    full = full_learning_rate(train)
    num_steps = train.steps - train.warmup_steps

    def decay(step):
        if train.schedule == "step":
            return step_decay(step, train.decay_steps)
        progress = tf.clip_by_value((step - train.warmup_steps) / num_steps, 0.0, 1.0)
        return cosine_decay(progress)

    def learning_rate(step):
        step = tf.cast(step, tf.float32)
        if not train.warmup_steps:
            return full * decay(step)
        # Linear, from warmup_from to 1.
        rising = train.warmup_from + (1 - train.warmup_from) * step / train.warmup_steps
        return full * tf.where(step < train.warmup_steps, rising, decay(step))

    return learning_rate


def step_decay(step, decay_steps):
    """1 at first; divided by 10 at each of decay_steps."""
    num_decays = tf.reduce_sum(tf.cast(step >= tf.constant(decay_steps, tf.float32), tf.float32))
    return tf.constant(_DECAY_FACTOR) ** num_decays


def cosine_decay(progress):
    """A cosine from 1 at progress 0 to 0 at progress 1 (Loshchilov, Hutter 2017)."""
    return 0.5 * (1 + tf.cos(math.pi * progress))


def full_learning_rate(train: Train) -> float:
    """The rate after the warm-up: train.learning_rate, scaled from base_batch to batch_size."""
    if train.base_batch is None:
        return train.learning_rate
    return train.learning_rate * train.batch_size / train.base_batch


def l2_in_gradient(train: Train) -> float:
    """The weight decay that the gradient gets; 0 if the optimizer applies its own, decoupled."""
    return train.weight_decay if train.optimizer == "SGD" else 0.0


def is_decayed(variable) -> bool:
    """Weight decay is for kernels, not for biases, batch norm and scales."""
    return variable.name.endswith("kernel")


def longest_fitting_ema(num_steps) -> float:
    """The largest train.ema that fits a run, in whole thousandths.

    An average reaches back about 1 / (1 - ema) steps: at most over a fifth of the run.
    """
    return max(1000 - math.ceil(5000 / num_steps), 500) / 1000


class Averages:
    """An average of each floating-point variable of a model, batch norm's statistics included.

    by_path: a tf.Variable for each path of the model's variables. Create it in the scope of the
    strategy, with the initial weights in place.
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
        fraction = 1.0 - tf.minimum(self._decay, (1.0 + count) / (10.0 + count))

        def move(average, value):
            # average -= fraction * (average - value), in fewer operations.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.handle, alpha=tf.cast(fraction, average.dtype), delta=average - value
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


class _PerVariable:
    """Mixed into an optimizer of Keras: factors of the learning rate, decoupled weight decay."""

    _masks = None

    def set_factors(self, rate_factors, decays):
        """Both: a number for each variable that `build` will get."""
        self._rate_factors = rate_factors
        self._decays = decays

    def set_masks(self, masks):
        """For each variable 1 where it is trained, and 0 elsewhere; without it all are trained."""
        self._masks = masks

    def gradient(self, tape, loss, variables):
        """The gradients of the loss that the tape has recorded."""
        return tape.gradient(loss, variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = learning_rate * self._rate_factors[index]
        decay = self._decays[index]
        if self._masks is not None:
            gradient *= self._masks[index]
            decay *= self._masks[index]
        if self._decays[index]:
            # Loshchilov & Hutter 2019: w -= rate * decay * w, outside of the moments.
            self.assign_sub(variable, rate * decay * variable)
        super().update_step(gradient, variable, rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras would sum over the replicas a second time."""
        return grads_and_vars


class _FusedSGD(keras.optimizers.SGD):
    """Keras' SGD in one operation instead of five, each of which passes over all weights."""

    def update_step(self, gradient, variable, learning_rate):
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )


class _SGD(_PerVariable, _FusedSGD):
    """SGD with momentum; its weight decay is in the gradient."""


class _AdamW(_PerVariable, keras.optimizers.Adam):
    """Keras' own AdamW has a decay that would also shrink biases and batch norm."""


class _LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' loss scaling, with true gradients between the backward pass and the update.

    Clipping and L2 need them. Steps whose gradients are not finite are skipped.
    """

    def gradient(self, tape, loss, variables):
        """The gradients of the loss, computed at the scale that float16 needs."""
        scale = self.dynamic_scale.value
        gradients = tape.gradient(loss, variables, output_gradients=scale)
        return [gradient / scale for gradient in gradients]

    def apply(self, gradients, trainable_variables=None):
        scaled = [self.scale_loss(gradient) for gradient in gradients]
        super().apply(scaled, trainable_variables)


def _rate_factors(config, model, variables, new_layers):
    train = config.train
    pretrained = set()
    if train.pretrained_rate != 1:
        pretrained = {
            variable.path
            for layer in ssd.pretrained_layers(model, config)
            for variable in layer.variables
            if layer.name not in new_layers
        }
    return [
        (train.pretrained_rate if variable.path in pretrained else 1.0)
        * (train.bias_rate if variable.name == "bias" else 1.0)
        for variable in variables
    ]


def _row_masks(model, variables, trained_rows):
    """1 for the trained rows of the class heads, 0 for the others, for each variable."""
    num_rows = model.output["logits"].shape[-1]
    is_trained = np.isin(np.arange(num_rows), trained_rows).astype(np.float32)
    return [np.tile(is_trained, variable.shape[-1] // num_rows) for variable in variables]


def _decays(train, variables):
    decay = train.weight_decay if train.optimizer == "AdamW" else 0.0
    return [decay if is_decayed(variable) else 0.0 for variable in variables]
