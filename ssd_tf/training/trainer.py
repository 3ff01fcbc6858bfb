"""The training loop: a plain loop over steps, each run by a tf.distribute strategy."""

import dataclasses
import math
import typing

from absl import logging

from ssd_tf.config import Config, Train
from ssd_tf.training import distribution, schedules
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.learner import Learner
from ssd_tf.training.monitor import Monitor
from ssd_tf.training.step import make_loss, make_train_step


def train(config: Config, learner: Learner, make_dataset, workdir, evaluate=None):
    """Train until config.train.steps, from the last checkpoint of the run folder if it has one.

    make_dataset(StreamSlice) -> batches: the slice says which worker reads, and from which step.
    evaluate(monitor, step) -> {"AP", "AP50", ...}, called with the averaged weights in place if EMA
    is on. Keeps checkpoints/last and, with evaluate, checkpoints/best by AP. If there are several
    workers, the chief writes, evaluates and reports.
    Raises ValueError with the step and the parts if the loss is no longer finite.
    """
    strategy = learner.strategy
    num_steps = config.train.steps
    checkpoints = Checkpoints(workdir, learner.network.model, learner.optimizer)
    if checkpoints.restore_last():
        logging.info("resuming from step %d of %s", int(checkpoints.step), workdir)
    start_step = int(checkpoints.step)
    distribution.barrier(strategy, start_step, workdir)
    chief = None
    if distribution.is_chief(strategy):
        monitor = Monitor(workdir, num_steps, config.train.batch_size, start_step)
        chief = _Chief(config, checkpoints, monitor, evaluate, start_step + 1)
    if start_step < num_steps:
        _run_steps(config, learner, make_dataset, start_step, chief)
    # A worker that ends earlier breaks the connections of the others.
    distribution.barrier(strategy, num_steps, workdir)
    if chief:
        monitor.close()


def make_schedule(train: Train):
    """A function of the step, from 0 -> learning rate."""

    def learning_rate(step):
        if step < train.warmup_steps:
            fraction = schedules.linear_warmup(step, train.warmup_steps, train.warmup_from)
        elif train.schedule == "step":
            fraction = schedules.step_decay(step, train.decay_steps, train.decay_factor)
        else:
            num_steps = train.steps - train.warmup_steps
            fraction = schedules.cosine_decay(step - train.warmup_steps, num_steps)
        return train.learning_rate * fraction

    return learning_rate


def _run_steps(config, learner, make_dataset, start_step, chief):
    """The loop. chief: None on the workers that neither write nor report."""
    network, optimizer, strategy = learner
    learning_rate = make_schedule(config.train)
    loss = make_loss(config, network.default_boxes)
    train_step = make_train_step(config.train, loss, network.model, optimizer, strategy)
    batch_size = config.train.batch_size
    batches = distribution.distribute(strategy, make_dataset, start_step, batch_size)
    for step in range(start_step + 1, config.train.steps + 1):
        rate = learning_rate(step - 1)
        optimizer.learning_rate.assign(rate)
        values = train_step(*next(batches))
        if step == start_step + 1:
            # All workers stop together if the first loss is not finite; later only the chief looks.
            _to_finite_numbers(values, step)
        if chief:
            chief.after_step(step, values, rate)


class _Due(typing.NamedTuple):
    """What follows a step."""

    report: bool
    save: bool
    evaluate: bool


@dataclasses.dataclass(frozen=True)
class _Chief:
    """What the only process, or the chief of several, does between the steps."""

    config: Config
    checkpoints: Checkpoints
    monitor: Monitor
    evaluate: typing.Callable | None
    first_step: int

    def after_step(self, step, values, learning_rate):
        """Report, evaluate and save if that is due. values: StepValues."""
        due = self._due(step)
        if due.report:
            numbers = {**_to_finite_numbers(values, step), "learning_rate": learning_rate}
            self.monitor.report_step(step, numbers)
        if due.save:
            self.checkpoints.step.assign(step)
            if due.evaluate:
                self._evaluate(step)
            self.checkpoints.save("last")
        if due.save or step == self.first_step:  # the first step compiles
            self.monitor.restart_clock(step)

    def _due(self, step):
        config = self.config
        last = step == config.train.steps
        evaluate = self.evaluate is not None and (last or _is_multiple(step, config.eval.every))
        save = last or evaluate or _is_multiple(step, config.train.checkpoint_every)
        report = save or _is_multiple(step, config.watch.log_every)
        return _Due(report, save, evaluate)

    def _evaluate(self, step):
        """Evaluate, with the averaged weights if EMA is on, and save if that is the best AP."""
        with self.checkpoints.averaged_weights():
            metrics = self.evaluate(self.monitor, step)
        self.monitor.report_metrics(step, metrics)
        if metrics["AP"] > float(self.checkpoints.best_ap):
            self.checkpoints.best_ap.assign(metrics["AP"])
            self.checkpoints.save("best")


def _is_multiple(step, interval):
    return interval is not None and step % interval == 0


def _to_finite_numbers(values, step) -> dict[str, float]:
    """StepValues as numbers. Raises ValueError if the loss is not finite."""
    numbers = {name: float(value) for name, value in values._asdict().items()}
    if not math.isfinite(numbers["loss"]):
        parts = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise ValueError(
            f"the loss is no longer finite at step {step} ({parts}); "
            "lower train.learning_rate, warm up longer, or set train.clip_norm"
        )
    return numbers
