"""The optimizer: one of Keras' by name, its learning rates and weight decay, averaged weights."""

import contextlib
import math

import keras
import tensorflow as tf

from ssd_tf.config import Config, Train
from ssd_tf.models import ssd

_DECOUPLED = ("AdamW", "Lamb", "Lion")


def make_optimizer(config: Config, model) -> keras.optimizers.Optimizer:
    """The optimizer that config.train describes, built on the model's trainable variables.

    `gradient(tape, loss, variables)` computes true gradients in every train.precision, and `apply`
    expects them summed over the replicas. The learning rate is a variable for the training step to
    assign.
    """
    train = config.train
    # Keras' AdamW is its Adam with a decay that would also shrink biases and batch norm.
    base = getattr(keras.optimizers, "Adam" if train.optimizer == "AdamW" else train.optimizer)
    # Keras would number the names, and checkpoints go by name: a second run in one process could
    # not resume the first.
    optimizer = type(train.optimizer, (_PerVariable, base), {})(
        learning_rate=train.learning_rate, name=train.optimizer.lower(), **_arguments(train)
    )
    variables = model.trainable_variables
    optimizer.set_factors(_rate_factors(config, model, variables), _decays(train, variables))
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
            return step_decay(step, train.decay_steps, train.decay_factor)
        progress = tf.clip_by_value((step - train.warmup_steps) / num_steps, 0.0, 1.0)
        if train.schedule == "cosine":
            return cosine_decay(progress, train.final_rate)
        if train.schedule == "flat_cosine":
            return cosine_decay(tf.maximum(2 * progress - 1, 0.0), train.final_rate)
        return polynomial_decay(progress, train.decay_power, train.final_rate)

    def learning_rate(step):
        step = tf.cast(step, tf.float32)
        if not train.warmup_steps:
            return full * decay(step)
        # Linear, from warmup_from to 1.
        rising = train.warmup_from + (1 - train.warmup_from) * step / train.warmup_steps
        return full * tf.where(step < train.warmup_steps, rising, decay(step))

    return learning_rate


def step_decay(step, decay_steps, decay_factor):
    """1 at first; multiplied by decay_factor at each of decay_steps."""
    num_decays = tf.reduce_sum(tf.cast(step >= tf.constant(decay_steps, tf.float32), tf.float32))
    return tf.constant(decay_factor) ** num_decays


def cosine_decay(progress, final_fraction):
    """A cosine from 1 at progress 0 to final_fraction at progress 1 (Loshchilov, Hutter 2017)."""
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + tf.cos(math.pi * progress))


def polynomial_decay(progress, power, final_fraction):
    """From 1 at progress 0 to final_fraction at progress 1; power 1 is a straight line."""
    return final_fraction + (1 - final_fraction) * (1 - progress) ** power


def full_learning_rate(train: Train) -> float:
    """The rate after the warm-up: train.learning_rate, scaled from base_batch to batch_size.

    linear: Goyal et al. 2017, for SGD; sqrt: Krizhevsky 2014, sec. 5, usual with Adam.
    """
    if train.base_batch is None:
        return train.learning_rate
    ratio = train.batch_size / train.base_batch
    return train.learning_rate * (ratio if train.base_batch_rule == "linear" else ratio**0.5)


def l2_in_gradient(train: Train) -> float:
    """The weight decay that the gradient gets; 0 if the optimizer applies its own, decoupled."""
    return 0.0 if train.optimizer in _DECOUPLED else train.weight_decay


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

    def set_factors(self, rate_factors, decays):
        """Both: a number for each variable that `build` will get."""
        self._rate_factors = rate_factors
        self._decays = decays

    def gradient(self, tape, loss, variables):
        """The gradients of the loss that the tape has recorded."""
        return tape.gradient(loss, variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = learning_rate * self._rate_factors[index]
        if self._decays[index]:
            # Loshchilov & Hutter 2019: w -= rate * decay * w, outside of the moments.
            self.assign_sub(variable, rate * self._decays[index] * variable)
        if isinstance(self, keras.optimizers.SGD) and self.momentum:
            self._apply_momentum(gradient, variable, rate, index)
        else:
            super().update_step(gradient, variable, rate)

    def _apply_momentum(self, gradient, variable, rate, index):
        """Keras' SGD in one operation instead of five, each of which passes over all weights."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=tf.cast(rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras would sum over the replicas a second time."""
        return grads_and_vars


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


def _arguments(train):
    """The arguments of the Keras class that the config sets."""
    arguments = {}
    if train.optimizer in ("SGD", "RMSprop"):
        arguments["momentum"] = train.momentum
    if train.optimizer == "SGD":
        arguments["nesterov"] = train.nesterov
    for name in ("beta_1", "beta_2"):
        if getattr(train, name) is not None:
            arguments[name] = getattr(train, name)
    return arguments


def _rate_factors(config, model, variables):
    train = config.train
    backbone = set()
    if train.backbone_rate != 1:
        layers = ssd.backbone_layers(model, config)
        backbone = {variable.path for layer in layers for variable in layer.variables}
    return [
        (train.backbone_rate if variable.path in backbone else 1.0)
        * (train.bias_rate if variable.name == "bias" else 1.0)
        for variable in variables
    ]


def _decays(train, variables):
    decay = train.weight_decay if train.optimizer in _DECOUPLED else 0.0
    return [decay if is_decayed(variable) else 0.0 for variable in variables]
