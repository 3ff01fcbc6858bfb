"""The training loop: a plain loop over calls of the training function, each of a few steps."""

import contextlib
import dataclasses
import pathlib
import typing

import tensorflow as tf
from absl import logging

from ssd_tf.config import Config, to_yaml
from ssd_tf.training import distribution, events, interruption, learner, restart
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.learner import Learner
from ssd_tf.training.monitor import Monitor
from ssd_tf.training.step import StepValues, make_l2_penalty, make_probe, make_train_step

# No run recovers from a larger loss; the first one of a network from scratch is below 100.
_LARGEST_LOSS = 1e6


class DivergedError(ValueError):
    """The loss or the weights are no longer sound; the message says where and what to do."""


class Evaluation(typing.NamedTuple):
    """How the trainer evaluates.

    run() -> what evaluator.metrics returns, and a list of Pillow images to show. It is called with
    the averaged weights in place if EMA is on. every: steps between evaluations.
    """

    run: typing.Callable
    every: int


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same during a run.

    make_dataset(StreamSlice) -> batches: the slice says which worker reads, and from which step.
    name_images(step) -> the source_ids of the batch of a step, from 1, for messages.
    profiler: None, or a profiling.Profiler.
    """

    config: Config
    learner: Learner
    workdir: pathlib.Path
    state: restart.RunState
    make_dataset: typing.Callable
    evaluation: Evaluation | None = None
    name_images: typing.Callable | None = None
    profiler: typing.Any = None

    @property
    def events(self) -> events.Events:
        """When this run reports, saves and evaluates."""
        train = self.config.train
        others = [] if train.unfreeze_step is None else [train.unfreeze_step]
        if self.profiler:
            others += self.profiler.boundaries
        return events.Events(
            num_steps=train.steps,
            report_every=self.config.watch.log_every,
            save_every=train.checkpoint_every,
            evaluate_every=self.evaluation.every if self.evaluation else None,
            others=tuple(others),
        )


def train(run: Run):
    """Train until config.train.steps, from the last sound checkpoint if there is one.

    Keeps checkpoints/last and, with an evaluation, checkpoints/best by AP. If there are several
    workers, the chief writes, evaluates and reports.
    Raises DivergedError if the loss or the weights are no longer sound, and Interrupted after a
    signal; neither costs a sound checkpoint.
    """
    strategy = run.learner.strategy
    checkpoints = Checkpoints(run.workdir, run.learner, run.config.train.keep_checkpoints)
    if checkpoints.restore_last():
        logging.info("resuming from step %d of %s", run.learner.num_updates, run.workdir)
    start_step = run.learner.num_updates
    distribution.barrier(strategy, start_step, run.workdir)
    with interruption.Signals() as signals, contextlib.ExitStack() as stack:
        chief = None
        if distribution.is_chief(strategy):
            checkpoints.delete_after(start_step)
            chief = _Chief(run, checkpoints, signals)
            stack.callback(chief.monitor.close)
        _Loop(run, checkpoints, signals, chief).run_all()
        # A worker that ends earlier breaks the connections of the others.
        distribution.barrier(strategy, run.learner.num_updates, run.workdir)
        signals.raise_if_received(
            f"stopped at step {run.learner.num_updates}, which is saved; "
            "run the same command again to resume"
        )


class _Loop:
    """What every worker does: steps, and the decision to stop, which all take at the same step."""

    def __init__(self, run, checkpoints, signals, chief):
        """chief: None on the workers that neither write nor report."""
        self._run = run
        self._checkpoints = checkpoints
        self._signals = signals
        self._chief = chief
        self._events = run.events
        self._batches = None

    def run_all(self):
        run = self._run
        step = run.learner.num_updates
        if self._chief:
            self._chief.evaluate_if_missing(step)
        run_steps = None
        while step < run.config.train.steps:
            if self._shall_stop():
                self._save_unless_saved(step)
                return
            if run_steps is None or step == run.config.train.unfreeze_step:
                _unfreeze_if_due(run, step)
                run_steps = self._compile()
            end = min(step + run.config.train.steps_per_call, self._events.next_stop(step))
            values = self._call(run_steps, step, end)
            step = end
            self._after_call(step, values)

    def _compile(self):
        """What depends on the variables that are trained now; it is compiled at its first call."""
        run = self._run
        if self._chief:
            self._chief.expect_compilation(make_l2_penalty(run.config, run.learner))
        return _make_run_steps(run)

    def _shall_stop(self):
        wish = self._signals.received is not None or bool(self._chief and self._chief.stops_early)
        return distribution.any_worker(self._run.learner.strategy, wish)

    def _call(self, run_steps, step, end):
        """Run the steps after `step` up to `end` -> a dict of numbers for each."""
        run = self._run
        if self._batches is None:
            train = run.config.train
            self._batches = distribution.distribute(
                run.learner.strategy, run.make_dataset, step, train.batch_size, train.accumulate
            )
        with run.profiler.watch(step, end) if run.profiler else contextlib.nullcontext():
            rows = run_steps(self._batches, tf.constant(end - step)).numpy()
        values = [_as_dict(row) for row in rows]
        for index, numbers in enumerate(values, start=step + 1):
            if not numbers["loss"] <= _LARGEST_LOSS:  # or NaN
                parts = ", ".join(f"{name} {numbers[name]:.4g}" for name in StepValues._fields[:-1])
                # The update before this step was the bad one.
                self._diverged(index, index - 2, f"the loss has diverged at step {index} ({parts})")
        return values

    def _after_call(self, step, values):
        due = self._events.due(step)
        if self._chief:
            self._chief.report(step, values, due)
        if due.save:
            self._check_weights(step, values[-1])
            if step == self._run.config.train.steps:
                self._probe(step, values[-1])
            if self._chief:
                self._chief.save(step)
        if due.evaluate and self._chief and self._signals.received is None:
            self._chief.evaluate(step)
        if self._chief and due.save:
            self._chief.monitor.restart_clock()

    def _save_unless_saved(self, step):
        if step == 0 or self._events.due(step).save:
            return
        self._check_weights(step, {})
        if self._chief:
            self._chief.save(step)

    def _check_weights(self, step, values):
        unsound = self._checkpoints.find_unsound()
        if unsound:
            loss = f", loss {values['loss']:.4g}" if values else ""
            self._diverged(
                step,
                step - 1,
                f"the weights are no longer sound after step {step} ({unsound}{loss})",
            )

    def _probe(self, step, values):
        """No further step will show whether the last update was sound: another batch does."""
        loss = float(make_probe(self._run.config, self._run.learner)(*next(self._batches)))
        if not loss <= _LARGEST_LOSS:
            self._diverged(
                step,
                step - 1,
                f"the loss has diverged after step {step} (loss {values['loss']:.4g} before that "
                f"update, {loss:.4g} after it)",
            )

    def _diverged(self, step, last_sound_step, message):
        """Raise DivergedError; the chief first deletes checkpoints after the last sound step."""
        run = self._run
        if self._chief:
            self._chief.note_divergence(step, last_sound_step)
        sound_step = self._checkpoints.newest_step(last_sound_step)
        resume = "there is no checkpoint yet, so it starts from scratch"
        if sound_step is not None:
            resume = f"it resumes from step {sound_step}"
        images = ""
        if run.name_images:
            images = f"; images of this batch: {', '.join(run.name_images(step))}"
        raise DivergedError(
            f"{message}{images}. Lower train.learning_rate (now "
            f"{run.config.train.learning_rate:g}), warm up longer or set train.clip_norm, and run "
            f"the command again: {resume}"
        )


class _Chief:
    """What the only process, or the chief of several, does between the calls."""

    def __init__(self, run, checkpoints, signals):
        start_step = run.learner.num_updates
        network = run.learner.network
        self._run = run
        self._checkpoints = checkpoints
        self._signals = signals
        self._compiles = False
        self._l2_penalty = None
        self.monitor = Monitor(
            run.workdir,
            run.config.train.steps,
            run.config.train.batch_size,
            start_step,
            [f"{height}x{width}" for height, width in network.map_shapes],
        )
        # Whether eval.patience is used up.
        self.stops_early = self._is_out_of_patience()
        self.monitor.report_text("config", f"```yaml\n{to_yaml(run.config)}```")

    def expect_compilation(self, l2_penalty):
        """The next call compiles, so its time is no measure; l2_penalty: what it trains with."""
        self._compiles = True
        self._l2_penalty = l2_penalty

    def report(self, step, values, due):
        """values: a dict of numbers for each step of the call that has just ended."""
        if self._compiles:
            self._compiles = False
            self.monitor.restart_clock()
        else:
            self.monitor.count_steps(len(values), sum(row["input_seconds"] for row in values))
        if due.report:
            self.monitor.report_step(step, values[-1] | {"l2": float(self._l2_penalty())})

    def save(self, step):
        self._checkpoints.save_last()
        diverged_step = self._run.state.diverged_step
        if diverged_step is not None and step > diverged_step:
            self._run.state.diverged_step = None
            self._run.state.write(self._run.workdir)

    def evaluate(self, step):
        """Evaluate what has just been saved; a signal meanwhile ends the run at once."""
        averages = self._run.learner.averages
        self._signals.nothing_to_save = True
        with averages.in_place() if averages else contextlib.nullcontext():
            metrics, images = self._run.evaluation.run()
        self._signals.nothing_to_save = False
        self.monitor.report_evaluation(step, metrics)
        self.monitor.report_images(step, images)
        self._keep_if_best(step)
        self.stops_early = self._is_out_of_patience()

    def evaluate_if_missing(self, step):
        """Make up for an evaluation that a stopped run did not finish.

        Another run's weights are evaluated before the first step, and kept if nothing is better.
        """
        starts_at_random = step == 0 and not self._run.config.starts_from_run
        if starts_at_random or not self._run.events.due(step).evaluate:
            return
        if step not in self.monitor.measured_ap():
            if step == 0:
                self.save(step)
            else:
                logging.info("step %d has not been evaluated yet", step)
            self.evaluate(step)
        else:
            self._keep_if_best(step)

    def note_divergence(self, step, last_sound_step):
        """Delete the checkpoints after the last sound step; let the restart change the rate."""
        self._checkpoints.delete_after(last_sound_step)
        self._run.state.diverged_step = step
        self._run.state.write(self._run.workdir)

    def _is_out_of_patience(self):
        patience = self._run.config.eval.patience
        measured = self._comparable_ap()
        if patience is None or not measured:
            return False
        best_step = max(measured, key=lambda step: (measured[step], -step))
        num_worse = sum(step > best_step for step in measured)
        if num_worse < patience:
            return False
        logging.info(
            "stopping early: AP was best at step %d (%.3f), %d evaluations ago",
            best_step,
            measured[best_step],
            num_worse,
        )
        return True

    def _keep_if_best(self, step):
        measured = self._comparable_ap()
        earlier = [ap for other, ap in measured.items() if other < step]
        if step in measured and measured[step] > max(earlier, default=-1.0):
            self._checkpoints.copy_to_best()

    def _comparable_ap(self):
        """{step: AP} of the evaluations with the present settings."""
        first = self._run.state.comparable_from
        return {step: ap for step, ap in self.monitor.measured_ap().items() if step >= first}


def _unfreeze_if_due(run, step):
    unfreeze_step = run.config.train.unfreeze_step
    if unfreeze_step is not None and step >= unfreeze_step:
        learner.unfreeze(run.learner.network.model)
        logging.info("from step %d on all layers are trained", unfreeze_step)


def _make_run_steps(run):
    """A tf.function (iterator of batches, number of steps) -> a row of numbers for each step."""
    train_step = make_train_step(run.config, run.learner)
    next_batch = _untimed_next if run.config.train.deterministic else _timed_next

    def run_step(index, rows, batches):
        batch, input_seconds = next_batch(batches)
        *scalars, positives_per_level = train_step(*batch)
        row = tf.concat([tf.stack([input_seconds, *scalars]), positives_per_level], 0)
        return index + 1, rows.write(index, row)

    @tf.function(autograph=False)
    def run_steps(batches, num_steps):
        _, rows = tf.while_loop(
            lambda index, _: index < num_steps,
            lambda index, rows: run_step(index, rows, batches),
            (tf.constant(0), tf.TensorArray(tf.float32, num_steps)),
            parallel_iterations=1,
        )
        return rows.stack()

    return run_steps


def _timed_next(batches):
    """The next batch, and the seconds that it was waited for."""
    start = tf.timestamp()
    with tf.control_dependencies([start]):
        batch = next(batches)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.cast(tf.timestamp() - start, tf.float32)


def _untimed_next(batches):
    """The same without a clock, which TensorFlow refuses among deterministic operations."""
    return next(batches), tf.constant(float("nan"))


def _as_dict(row):
    """A row of the training function as {name: number}; positives_per_level is a list."""
    names = ("input_seconds", *StepValues._fields[:-1])
    numbers = {name: float(value) for name, value in zip(names, row, strict=False)}
    return {**numbers, "positives_per_level": row[len(names) :].tolist()}
