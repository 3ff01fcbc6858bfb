"""When a run reports, saves and evaluates: after steps that are multiples of an interval."""

import dataclasses
import typing

from ssd_tf.config import Config

_DEFAULT_EVALUATIONS = 10  # per run


class Due(typing.NamedTuple):
    """What follows a step."""

    report: bool
    save: bool
    evaluate: bool


@dataclasses.dataclass(frozen=True)
class Events:
    """The steps after which something happens; the last step is followed by all of it.

    evaluate_every: None without evaluation. others: further steps at which a call of the training
    function must end.
    """

    num_steps: int
    report_every: int
    save_every: int
    evaluate_every: int | None
    others: tuple[int, ...] = ()

    def due(self, step) -> Due:
        """What follows this step. An evaluation comes after a save, which comes after a report."""
        last = step == self.num_steps
        evaluate = self.evaluate_every is not None and (last or step % self.evaluate_every == 0)
        save = last or evaluate or step % self.save_every == 0
        return Due(save or step % self.report_every == 0, save, evaluate)

    def next_stop(self, step) -> int:
        """The first step after this one that something follows."""
        intervals = [self.report_every, self.save_every, self.evaluate_every or self.save_every]
        stops = [(step // interval + 1) * interval for interval in intervals]
        stops += [other for other in self.others if other > step]
        return min(self.num_steps, *stops)


def evaluation_interval(config: Config, num_images) -> int:
    """The steps between evaluations that eval.every stands for; by default a tenth of the run.

    num_images: of the training split, for intervals in epochs.
    """
    every = config.eval.every
    if every is None:
        return max(config.train.steps // _DEFAULT_EVALUATIONS, 1)
    if isinstance(every, int):
        return every
    epochs = float(every.split()[0])
    return max(round(epochs * num_images / config.train.batch_size), 1)
