"""Would more images help, or longer training? Short runs on a part of the images tell.

All extra runs take half of the steps of the main run. Then the run on all images is compared with
the one on half of them, at equal training, and with the main run, at equal images: each time one
thing is doubled. Fewer steps for fewer images would change both at once. A run on a quarter of the
images, if there is time for it, shows how the curve bends.

The schedules of the extra runs end with their steps. A main run that stopped early ended in the
middle of its schedule, so what twice the steps bring is then rather underestimated.
"""

import pathlib
import typing

from absl import logging

from ssd_tf.config import Config, check_config
from ssd_tf.long_tasks import format_metric
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.optimizer import longest_fitting_ema
from ssd_tf.training.train import train

# In this order: without the first two there is nothing to compare.
_FRACTIONS = (0.5, 1.0, 0.25)
_OVERHEAD_SECONDS = 60  # of an extra run: to build the network, to compile, and to evaluate once
_MIN_STEPS = 20  # of an extra run, or its AP says nothing
_MIN_IMAGES = 8  # a quarter of them is two
# Runs that differ only in their seed differ by about this much (docs/results.md).
NOTABLE_AP = 0.02


class Run(typing.NamedTuple):
    """A run to make: the fraction of the training images, and the number of steps."""

    fraction: float
    steps: int


class Point(typing.NamedTuple):
    """A finished run, with its AP on the val split after the last step."""

    fraction: float
    steps: int
    ap: float


def plan(minutes: float, seconds_per_step: float, steps: int, num_images: int) -> list[Run]:
    """The extra runs that fit into these minutes; none if not even the two that are needed.

    seconds_per_step, num_images: of the main run. steps: that it took.
    """
    half = steps // 2
    seconds = half * seconds_per_step + _OVERHEAD_SECONDS
    num_runs = min(int(60 * minutes / seconds), len(_FRACTIONS))
    if num_runs < 2 or half < _MIN_STEPS or num_images < _MIN_IMAGES:
        return []
    return [Run(fraction, half) for fraction in _FRACTIONS[:num_runs]]


def run(config: Config, data, folder, runs: list[Run]) -> list[Point]:
    """Train each of the runs in a folder of its own; those that are finished are not repeated.

    config: of the main run. data: the data set, with a val split. Raises as `train` does.
    """
    points = []
    for each in runs:
        workdir = pathlib.Path(folder) / f"fraction_{each.fraction:g}"
        logging.info("training on %g of the images for %d steps", each.fraction, each.steps)
        train(shorten(config, each), data, workdir)
        points += read_points(workdir, each.fraction)
    return points


def read_points(workdir, fraction=1.0) -> list[Point]:
    """The run folder's AP after its last step; no point if it was not measured."""
    rows = read_metrics(pathlib.Path(workdir) / "metrics.csv")
    last = rows[-1] if rows else {"AP": ""}
    if not last["AP"] or float(last["AP"]) < 0:  # COCO's -1: there was nothing to measure
        return []
    return [Point(fraction, int(last["step"]), float(last["AP"]))]


def shorten(config: Config, run: Run) -> Config:
    """The config of the main run, for fewer images and steps: its schedule shrinks with the steps.

    It is evaluated once, at the end.
    """
    values = config.model_dump(mode="json")
    values["data"]["fraction"] *= run.fraction
    values["eval"] |= {"every": run.steps, "patience": None}

    settings = config.train

    def scale(step):
        return max(step * run.steps // settings.steps, 1)

    values["train"] |= {
        "steps": run.steps,
        "warmup_steps": scale(settings.warmup_steps) if settings.warmup_steps else 0,
        "decay_steps": sorted({scale(step) for step in settings.decay_steps}),
    }
    if settings.ema is not None:
        values["train"]["ema"] = min(settings.ema, longest_fitting_ema(run.steps))
    return check_config(values, "the learning curve")


def describe(points: list[Point]) -> str:
    """A sentence: what twice the images and twice the steps bring.

    points: of the extra runs and of the main run, in any order.
    """
    measured = {(point.fraction, point.steps): point.ap for point in points}
    steps = max((point.steps for point in points), default=0)
    half = min((point.steps for point in points), default=0)
    needed = [(0.5, half), (1.0, half), (1.0, steps)]
    if half == steps or not all(key in measured for key in needed):
        return (
            "what twice the images and twice the steps would bring was not measured: that takes "
            "time for two more runs"
        )
    of_half, of_all, of_longer = (measured[key] for key in needed)
    more_images = of_all - of_half
    more_steps = of_longer - of_all
    curve = f"AP {format_metric(of_half)} with half of the images, {format_metric(of_all)} with all"
    if (0.25, half) in measured:
        curve = f"AP {format_metric(measured[0.25, half])} with a quarter of the images, " + curve
    return (
        f"{_judge(more_images, more_steps)}: twice the images brought {more_images:+.3f} AP and "
        f"twice the steps {more_steps:+.3f} ({curve}, both after {half} steps; "
        f"{format_metric(of_longer)} with all after {steps})"
    )


def _judge(more_images, more_steps) -> str:
    helps = (more_images >= NOTABLE_AP, more_steps >= NOTABLE_AP)
    if helps == (True, True):
        return "more images and longer training would both help"
    if helps == (True, False):
        return "more images would help, longer training hardly"
    if helps == (False, True):
        return "longer training would help, more images hardly"
    return "neither more images nor longer training would help much"
