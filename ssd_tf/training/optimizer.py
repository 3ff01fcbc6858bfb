"""The optimizer: one of Keras' by name, with a learning rate and a weight decay per variable."""

import keras

from ssd_tf.config import Config, Train
from ssd_tf.models import ssd

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
        super().update_step(gradient, variable, rate)

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
