"""The optimizer: one of Keras' by name, its schedule, rates and weight decay per variable."""

import keras
import tensorflow as tf

from ssd_tf.config import Config, Train
from ssd_tf.models import ssd
from ssd_tf.training import schedules

_DECOUPLED = ("AdamW", "Lamb", "Lion")


def make_optimizer(config: Config, model) -> keras.optimizers.Optimizer:
    """The optimizer that config.train describes, built on the model's trainable variables.

    It expects gradients that are summed over the replicas already. Its learning rate is a variable
    for the training step to assign. With mixed_float16 it scales the loss (`scale_loss`, and
    `dynamic_scale`) and skips steps whose gradients are not finite.
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
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    optimizer.build(variables)
    return optimizer


def make_schedule(train: Train):
    """A function of the step -> learning rate, as a part of the training graph."""
    full = full_learning_rate(train)
    decay_steps = train.steps - train.warmup_steps

    def decay(step):
        if train.schedule == "cosine":
            return schedules.cosine_decay(step - train.warmup_steps, decay_steps, train.final_rate)
        if train.schedule == "polynomial":
            return schedules.polynomial_decay(
                step - train.warmup_steps, decay_steps, train.decay_power, train.final_rate
            )
        return schedules.step_decay(step, train.decay_steps, train.decay_factor)

    def learning_rate(step):
        step = tf.cast(step, tf.float32)
        if not train.warmup_steps:
            return full * decay(step)
        rising = schedules.linear_warmup(step, train.warmup_steps, train.warmup_from)
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


def l2_in_gradient(train: Train) -> float:
    """The weight decay that the gradient gets; 0 if the optimizer applies its own, decoupled."""
    return 0.0 if train.optimizer in _DECOUPLED else train.weight_decay


def is_decayed(variable) -> bool:
    """Weight decay is for kernels, not for biases, batch norm and scales."""
    return variable.name.endswith("kernel")


class _PerVariable:
    """Mixed into an optimizer of Keras: factors of the learning rate, decoupled weight decay."""

    def set_factors(self, rate_factors, decays):
        """Both: a number for each variable that `build` will get."""
        self._rate_factors = rate_factors
        self._decays = decays

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
