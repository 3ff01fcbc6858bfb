"""The training loop: our own step under tf.distribute, counted in steps.

Shapes: `B` global batch, `A` default boxes.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_tf.config import Config
from ssd_tf.models import ssd
from ssd_tf.training import checkpoints, distribution, losses, schedules
from ssd_tf.training.monitor import Monitor


def make_network(config: Config, num_classes) -> ssd.SSD:
    """The model in train.precision: with mixed_bfloat16 it computes in bfloat16; weights, outputs and loss stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.train.precision)
    try:
        return ssd.build_model(config, num_classes)
    finally:
        keras.config.set_dtype_policy(before)


def make_optimizer(config: Config, model) -> keras.optimizers.Optimizer:
    """SGD with momentum (and averaged weights where train.ema says so), its variables built."""
    options = config.train
    average = {} if options.ema is None else {"use_ema": True, "ema_momentum": options.ema}
    # Named, as Keras would number it, and checkpoints go by name: a second run in one process could not go on from the first.
    optimizer = keras.optimizers.SGD(options.learning_rate, options.momentum, name="sgd", **average)
    optimizer.build(model.trainable_variables)
    return optimizer


def make_train_step(config: Config, network, optimizer, strategy):
    """A tf.function: batch (images, Targets) as the strategy distributes it -> loss parts of the global batch.

    Every sum is divided by the positives of the *global* batch (or by what loss.normalizer names), so that neither the loss nor
    the gradient depends on how pictures are spread over replicas. L2 is part of the gradient, on kernels alone (not on biases
    and batch norm).
    """
    options = config.train
    model = network.model
    variables = model.trainable_variables
    replicas = strategy.num_replicas_in_sync
    loss_options = _loss_options(config, network.default_boxes)
    decayed = [variable.name.endswith("kernel") for variable in variables]

    def replica_step(images, targets):
        with tf.GradientTape() as tape:
            predictions = model(images, training=options.bn == "train")
            sums = losses.multibox_loss(predictions, targets, **loss_options)
            divisor = tf.distribute.get_replica_context().all_reduce("sum", sums["divisor"])
            share = {
                name: sums[name] / tf.maximum(divisor, 1.0)
                for name in ("classification", "localization")
            }
            loss = share["classification"] + share["localization"]
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if options.clip_norm is not None:
            gradients = _clip_global(gradients, options.clip_norm, replicas)
        gradients = [
            # Each replica adds its share: apply() sums over them.
            gradient + options.weight_decay / replicas * variable.value
            if decays and options.weight_decay
            else gradient
            for gradient, variable, decays in zip(gradients, variables, decayed, strict=True)
        ]
        optimizer.apply(gradients, variables)
        return {"loss": loss, **share, "positives": sums["positives"]}

    @tf.function
    def train_step(images, targets):
        per_replica = strategy.run(replica_step, args=(images, targets))
        return {
            name: strategy.reduce("SUM", value, axis=None) for name, value in per_replica.items()
        }

    return train_step


def _loss_options(config, default_boxes):
    options = config.loss.model_dump()
    if config.loss.box_loss == "smooth_l1":
        return options
    default_boxes = default_boxes * np.tile(config.model.input_hw, 2).astype(np.float32)
    return {**options, "default_boxes": default_boxes, "variances": config.boxes.variances}


def train(config: Config, network, optimizer, strategy, make_dataset, workdir, evaluate=None):
    """Trains until config.train.steps, from the run folder's last checkpoint where it has one.

    make_dataset(start step, number of machines, this one's number) gives a machine's batches from there on;
    evaluate(monitor, step) -> {"AP", "AP50", ...}, called with the averaged weights in place where EMA is on. Keeps
    checkpoints/last and, with evaluate, checkpoints/best by AP. Of several machines one writes, evaluates and reports.
    Raises ValueError, naming the step and the parts, where the loss is no longer finite.
    """
    options = config.train
    chief = distribution.is_chief(strategy)
    model = network.model
    state = checkpoints.Checkpoints(workdir, model, optimizer)
    if state.restore_last():
        logging.info("going on from step %d of %s", int(state.step), workdir)
    start = int(state.step)
    distribution.barrier(strategy, start, workdir)
    monitor = Monitor(workdir, options.steps, start) if chief else None
    batches = (
        distribution.distribute(strategy, make_dataset, start, options.batch_size)
        if start < options.steps
        else None
    )
    train_step = make_train_step(config, network, optimizer, strategy)
    for step in range(start + 1, options.steps + 1):
        rate = schedules.learning_rate(options, step - 1)
        optimizer.learning_rate.assign(rate)
        values = train_step(*next(batches))
        last = step == options.steps
        saves = last or step % options.checkpoint_every == 0
        evaluates = evaluate is not None and (
            last or (config.eval.every and step % config.eval.every == 0)
        )
        if step == start + 1:
            _finite(values, step)
        if not chief:
            continue
        if saves or evaluates or last or step % config.watch.log_every == 0:
            numbers = {**_finite(values, step), "learning_rate": rate}
            monitor.progress(step, numbers, options.batch_size)
        if saves or evaluates:
            _keep(state, step, monitor, evaluate if evaluates else None, model, optimizer)
        if saves or evaluates or step == start + 1:  # the first step compiles
            monitor.restart_clock(step)
    distribution.barrier(
        strategy, options.steps, workdir
    )  # or the first to end would take the others' connection with it
    if chief:
        monitor.close()


def _keep(state, step, monitor, evaluate, model, optimizer):
    state.step.assign(step)
    if evaluate is not None:
        raw = _swap_in_averages(model, optimizer)
        metrics = evaluate(monitor, step)
        for variable, value in raw:
            variable.assign(value)
        monitor.record(step, metrics)
        monitor.say(f"step {step}  AP {metrics['AP']:.3f}  AP50 {metrics['AP50']:.3f}")
        if metrics["AP"] > float(state.best_ap):
            state.best_ap.assign(metrics["AP"])
            state.save("best")
    state.save("last")


def _swap_in_averages(model, optimizer):
    """Puts the averaged weights into the model; returns (variable, raw value) pairs to put back."""
    averages = checkpoints.average_variables(model, optimizer)
    raw = [
        (variable, variable.numpy())
        for variable in model.trainable_variables
        if variable.path in averages
    ]
    for variable, _ in raw:
        variable.assign(averages[variable.path].numpy())
    return raw


def _finite(values, step):
    numbers = {name: float(value) for name, value in values.items()}
    if not math.isfinite(numbers["loss"]):
        parts = ", ".join(f"{name} {value}" for name, value in numbers.items())
        raise ValueError(
            f"the loss is no longer finite at step {step} ({parts}); "
            "lower train.learning_rate, warm up longer, or set train.clip_norm"
        )
    return numbers


def _clip_global(gradients, norm, replicas):
    """Clips the gradient of the global batch; each replica returns its share, as apply() sums over them."""
    summed = tf.distribute.get_replica_context().all_reduce("sum", gradients)
    clipped, _ = tf.clip_by_global_norm(summed, norm)
    return [gradient / replicas for gradient in clipped]
