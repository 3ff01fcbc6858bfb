"""The training loop: restore, then steps, reports, checkpoints and evaluations, then close."""

import contextlib
import dataclasses
import pathlib
import typing

import tensorflow as tf
from absl import logging

from ssd_tf.config import Config, to_yaml
from ssd_tf.training import distribution, events, restart
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.monitor import Monitor
from ssd_tf.training.progress import Plan
from ssd_tf.training.signals import Signals
from ssd_tf.training.state import TrainState
from ssd_tf.training.step import (
    StepValues,
    make_batch_loss,
    make_l2_penalty,
    make_run_steps,
    read_row,
)

# No run recovers from a larger loss; the first one of a network from scratch is below 100.
_MAX_LOSS = 1e6

_NOTE_ON_STEP_0 = (
    "(the loaded detector before training: it tells objects from background already, but scores "
    "of classes that are new to it are random)"
)


class DivergedError(ValueError):
    """The loss or a weight is NaN, infinite or huge; the message says where and what to do."""


@dataclasses.dataclass
class Loop:
    """A run from its last intact checkpoint to config.train.steps.

    Every worker takes the same steps and stops at the same one; only the chief writes, reports and
    evaluates. Keeps checkpoints/last and, with an evaluation, checkpoints/best by AP.

    make_dataset(StreamSlice) -> batches: the slice says which worker reads, and from which step.
    num_images: of the training split.
    evaluate() -> what metrics.measure returns, and HeldOuts to show; it is called every
    `evaluate_every` steps, with the averaged weights in place if EMA is on.
    name_images(step) -> the source_ids of the batch of a step, from 1, for messages.
    """

    config: Config
    state: TrainState
    workdir: pathlib.Path
    run_state: restart.RunState
    make_dataset: typing.Callable
    num_images: int
    evaluate: typing.Callable | None = None
    evaluate_every: int | None = None
    name_images: typing.Callable | None = None
    profiler: events.Profiler | None = None

    def __post_init__(self):
        train = self.config.train
        self._timetable = events.Timetable(
            num_steps=train.steps,
            report_every=self.config.watch.log_every,
            save_every=train.checkpoint_every,
            evaluate_every=self.evaluate_every if self.evaluate else None,
            others=(self.profiler.first - 1, self.profiler.last) if self.profiler else (),
        )
        self._is_chief = distribution.is_chief(self.state.strategy)
        self._checkpoints = Checkpoints(self.workdir, self.state, train.keep_checkpoints)
        self._signals = Signals()
        self._monitor = None
        self._batches = None
        self._run_steps = None
        self._l2_penalty = None
        self._stops_early = False  # whether eval.patience is used up

    def run(self):
        """Train until the end.

        Raises DivergedError, and Interrupted after a signal; neither costs an intact checkpoint.
        """
        step = self._restore()
        values = []
        with self._signals, contextlib.ExitStack() as stack:
            if self._is_chief:
                self._monitor = stack.enter_context(self._make_monitor(step))
                self._stops_early = self._is_out_of_patience()
                self._evaluate_if_missing(step)

            while step < self.config.train.steps and not self._should_stop():
                values = self._take_steps(step)
                step += len(values)
                actions = self._timetable.actions(step)
                if actions.report and self._is_chief:
                    self._monitor.report_step(step, values[-1] | {"l2": float(self._l2_penalty())})
                if actions.save:
                    self._save(step, values[-1])
                if actions.evaluate and self._is_chief and self._signals.received is None:
                    self._evaluate(step)
                if actions.save and self._is_chief:
                    self._monitor.restart_clock()

            if values and not self._timetable.actions(step).save:
                self._save(step, values[-1])
            # A worker that ends earlier breaks the connections of the others.
            distribution.barrier(self.state.strategy, step, self.workdir)
            self._signals.raise_if_received(f"stopped at step {step}, which is saved")

    def _restore(self) -> int:
        """Restore the newest intact checkpoint, if any; return the step to start from."""
        if self._checkpoints.restore_last():
            logging.info("resuming from step %d of %s", self.state.num_updates, self.workdir)
        start_step = self.state.num_updates
        distribution.barrier(self.state.strategy, start_step, self.workdir)
        if self._is_chief:
            self._checkpoints.delete_after(start_step)
        return start_step

    def _make_monitor(self, start_step):
        train = self.config.train
        plan = Plan(
            train.steps,
            train.batch_size,
            self.num_images,
            self._timetable.evaluate_every,
            self.run_state.comparable_from,
        )
        level_names = [f"{height}x{width}" for height, width in self.state.network.map_shapes]
        config = self.config if self.config.watch.live_page else None
        monitor = Monitor(self.workdir, plan, start_step, level_names, config=config)
        monitor.report_text("config", f"```yaml\n{to_yaml(self.config)}```")
        return monitor

    def _should_stop(self) -> bool:
        wish = self._signals.received is not None or self._stops_early
        return distribution.any_worker(self.state.strategy, wish)

    def _take_steps(self, step) -> list[dict]:
        """Take the steps after `step` that one call makes -> the values of each by name."""
        train = self.config.train
        compiles = self._run_steps is None
        if compiles:
            self._prepare_steps(step)
        end = min(step + train.steps_per_call, self._timetable.next_stop(step))
        with self.profiler.watch(step, end) if self.profiler else contextlib.nullcontext():
            rows = self._run_steps(self._batches, tf.constant(end - step)).numpy()
        values = [read_row(row) for row in rows]
        self._check_losses(step, values)
        if self._is_chief and compiles:  # its time would not be that of a step
            self._monitor.restart_clock(end)
        elif self._is_chief:
            self._monitor.count_steps(len(values), sum(row["input_seconds"] for row in values))
        return values

    def _prepare_steps(self, step):
        """Open the input after `step`, and make the functions that are compiled when called."""
        train = self.config.train
        if self._is_chief:
            self._monitor.show_phase("reading images and compiling the first step")
        self._batches = distribution.distribute(
            self.state.strategy, self.make_dataset, step, train.batch_size, train.accumulate
        )
        self._run_steps = make_run_steps(self.config, self.state)
        self._l2_penalty = make_l2_penalty(self.config, self.state)

    def _save(self, step, values):
        """Save the state after a step with these values, if its weights are good."""
        self._check_weights(step, values)
        if not self._is_chief:
            return
        self._checkpoints.save_last()
        diverged_step = self.run_state.diverged_step
        if diverged_step is not None and step > diverged_step:
            self.run_state.diverged_step = None
            self.run_state.write(self.workdir)

    def _check_losses(self, step, values):
        """Raise DivergedError if the loss of one of the steps after `step` has diverged."""
        for index, numbers in enumerate(values, start=step + 1):
            if not numbers["loss"] <= _MAX_LOSS:  # or NaN
                parts = ", ".join(f"{name} {numbers[name]:.4g}" for name in StepValues._fields[:-1])
                # The update before this step was the bad one.
                raise self._diverged(
                    index, index - 2, f"the loss has diverged at step {index} ({parts})"
                )

    def _check_weights(self, step, values):
        """Raise DivergedError if a weight is not finite or huge.

        After the last step no later loss would show that the update was bad: another batch does.
        """
        loss = values["loss"]
        message = None
        if bad_variable := self._checkpoints.find_bad_variable():
            message = f"weights have diverged after step {step} ({bad_variable}, loss {loss:.4g})"
        elif step == self.config.train.steps:
            next_loss = float(make_batch_loss(self.config, self.state)(*next(self._batches)))
            if not next_loss <= _MAX_LOSS:
                message = (
                    f"the loss has diverged after step {step} (loss {loss:.4g} before that update, "
                    f"{next_loss:.4g} after it)"
                )
        if message:
            raise self._diverged(step, step - 1, message)

    def _diverged(self, step, last_good_step, message) -> DivergedError:
        """The error to raise; the chief deletes the checkpoints after the last good step."""
        if self._is_chief:
            self._checkpoints.delete_after(last_good_step)
            self.run_state.diverged_step = step  # lets the restart change the rate
            self.run_state.write(self.workdir)
        kept_step = self._checkpoints.newest_step(last_good_step)
        resume = "there is no checkpoint yet, so it starts from scratch"
        if kept_step is not None:
            resume = f"it resumes from step {kept_step}"
        images = ""
        if self.name_images:
            images = f"; images of this batch: {', '.join(self.name_images(step))}"
        return DivergedError(
            f"{message}{images}. Lower train.learning_rate (now "
            f"{self.config.train.learning_rate:g}), warm up longer or set train.clip_norm, and run "
            f"the command again: {resume}"
        )

    def _evaluate(self, step):
        """Evaluate what has just been saved; a signal meanwhile ends the run at once."""
        averages = self.state.averages
        self._monitor.show_phase("evaluating the held-out images")
        self._signals.nothing_to_save = True
        with averages.in_place() if averages else contextlib.nullcontext():
            metrics, images = self.evaluate()
        self._signals.nothing_to_save = False
        # The images first: a run that is killed in between is evaluated again.
        self._monitor.report_images(step, images)
        self._monitor.report_evaluation(step, metrics, "" if step else _NOTE_ON_STEP_0)
        self._keep_if_best(step)
        self._stops_early = self._is_out_of_patience()

    def _evaluate_if_missing(self, step):
        """Make up for an evaluation that a stopped run did not finish.

        Another run's weights are evaluated before the first step, and kept if nothing is better.
        """
        starts_at_random = step == 0 and not self.config.starts_from_run
        if starts_at_random or not self._timetable.actions(step).evaluate:
            return
        if step in self._monitor.measured_ap():
            self._keep_if_best(step)
            return
        if step == 0:
            self._checkpoints.save_last()
        else:
            logging.info("step %d has not been evaluated yet", step)
        self._evaluate(step)

    def _keep_if_best(self, step):
        if step == self._monitor.best_step():
            self._checkpoints.copy_to_best()

    def _is_out_of_patience(self) -> bool:
        patience = self.config.eval.patience
        measured = self._monitor.comparable_ap()
        if patience is None or not measured:
            return False
        best_step = self._monitor.best_step()
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
