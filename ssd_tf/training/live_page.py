"""`live.html` of a run folder: a page that a browser keeps open while the run trains.

It needs no network, and reloads itself until training has ended.
"""

import json
import math
import pathlib
import time
import typing

from ssd_tf import files
from ssd_tf.config import Config, to_yaml
from ssd_tf.draw import jpeg_uri
from ssd_tf.long_tasks import format_metric
from ssd_tf.pages import make_environment
from ssd_tf.training.progress import Plan, show_number, show_seconds
from ssd_tf.user_files import show_name

PAGE = "live.html"
LOW_SCORE = 0.3  # from which detections are drawn while a network trains: it is unsure at first
_IMAGES = "live_images.json"
_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_RELOAD_SECONDS = 10
_WRITE_SECONDS = 5  # at least, between reports of steps: fast steps need not wait for the page
_STALE_SECONDS = 900  # without a write the process may have ended
_MAX_POINTS = 300  # of a curve; beyond, each is the mean of several reports
_LINES = 3  # at least so many lines of the grid of a curve
# Of a curve's drawing, in units of its view box.
_WIDTH = 480
_HEIGHT = 220
_LEFT = 48
_BOTTOM = 30
_MARGIN = 14


class Numbers(typing.NamedTuple):
    """What the page shows of the present. speed: of `Stopwatch.measure_steps`."""

    step: int
    speed: dict
    seconds_left: float | None
    best: tuple[int, float] | None  # step and AP


class LivePage:
    """Writes the page of a run, atomically each time.

    The held-out images of its first, its best and its latest evaluation are kept in a file, for a
    restart, and those of the best one before, as a restart may go back to a step between the two.
    While the run trains the first and the latest are shown, afterwards the first and the best: its
    weights are those that are kept.
    """

    def __init__(self, workdir, plan: Plan, config: Config, start_step):
        self._workdir = pathlib.Path(workdir)
        self.path = self._workdir / PAGE
        self._plan = plan
        self._config = config
        self._written = -math.inf
        self._images = read_evaluations(self._workdir, start_step)

    def keep_images(self, step, images, best_steps):
        """Keep what an evaluation drew, whose AP need not be known yet.

        images: HeldOuts. best_steps: those that had the highest AP in turn, the best one last.
        """
        if not images:
            return
        drawn = [
            {"name": each.name, "truth": jpeg_uri(each.truth), "found": jpeg_uri(each.found)}
            for each in images
        ]
        others = [each for each in self._images if each["step"] != step]
        kept = [each for each in others[1:] if each["step"] in best_steps[-2:]]
        self._images = [*others[:1], *kept, {"step": step, "images": drawn}]
        files.write_json(self._workdir / _IMAGES, self._images)

    def write_if_due(self, numbers: Numbers, rows):
        """Write the page of a run that trains, unless it was written a moment ago."""
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write("training", numbers, rows)

    def write(self, state, numbers: Numbers, rows, has_ended=False):
        """Write the page.

        state: a phrase such as `training`. rows: of metrics.csv, dicts of text.
        """
        content = {
            "title": show_name(self._workdir),
            "state": state,
            "reload_seconds": None if has_ended else _RELOAD_SECONDS,
            "stale_seconds": _STALE_SECONDS,
            "written": round(time.time()),
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "fraction": numbers.step / self._plan.num_steps,
            "cards": list(_cards(self._plan, numbers)),
            "plan": self._plan.describe(),
            "curves": [
                _draw_curve("AP", _read_points(rows, "AP"), numbers.best),
                _draw_curve("loss", _thin_out(_read_points(rows, "loss"))),
            ],
            "evaluations": _choose_shown(self._images, numbers.best, has_ended),
            "score": f"{LOW_SCORE:g}",
            "settings": _settings(self._config),
            "yaml": to_yaml(self._config),
        }
        text = make_environment(_TEMPLATES).get_template(PAGE).render(content)
        # File names may hold bytes that are not Unicode.
        files.write_bytes(self.path, text.encode("utf-8", "backslashreplace"))
        self._written = time.monotonic()


def read_evaluations(workdir, last_step=math.inf) -> list[dict]:
    """The drawn images of a run's first, best and latest evaluation, up to a step.

    [{"step", "images": [{"name", "truth", "found"}]}], images as data URIs; none if they were not
    kept or the file cannot be used.
    """
    try:
        kept = json.loads((pathlib.Path(workdir) / _IMAGES).read_text())
        return [
            {"step": each["step"], "images": each["images"]}
            for each in kept
            if each["step"] <= last_step and each["images"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _choose_shown(evaluations, best, has_ended):
    """(caption, evaluation) of those on the page, the first one first. best: as Numbers has it."""
    name = "latest evaluation"
    others = evaluations[-1:]
    kept = [each for each in evaluations if best and each["step"] == best[0]]
    if has_ended and kept:
        name = "best evaluation, whose weights are kept"
        others = kept
    first = [each for each in evaluations[:1] if each not in others]
    return [*(("first evaluation", each) for each in first), *((name, each) for each in others)]


def _cards(plan, numbers):
    """(value, label) of each number at the top of the page."""
    yield f"{numbers.step:,} of {plan.num_steps:,}", "steps"
    yield f"{numbers.step * plan.batch_size:,}", "images seen"
    passes = [show_number(plan.passes(step)) for step in (numbers.step, plan.num_steps)]
    yield " of ".join(passes), "passes"
    if numbers.seconds_left:
        yield show_seconds(numbers.seconds_left), "left"
    if numbers.best is not None:
        step, ap = numbers.best
        yield format_metric(ap), f"best AP, at step {step:,}"
    if numbers.speed:
        yield f"{numbers.speed['images_per_second']:.1f}", "images per second"
    if "input_share" in numbers.speed:
        yield f"{numbers.speed['input_share']:.0%}", "of the time waiting for input"


def _settings(config):
    """(key, value) of the settings that matter most."""
    yield "init_from", config.init_from or "none: random weights"
    backbone = config.model.backbone
    yield "model.backbone.name", backbone.name
    yield "model.input_hw", " x ".join(map(str, config.model.input_hw))
    yield "train.batch_size", config.train.batch_size
    yield "train.learning_rate", f"{config.train.learning_rate:g}"
    yield "train.schedule", config.train.schedule
    yield "train.ema", config.train.ema or "none"
    yield "model.backbone.frozen_stages", backbone.frozen_stages
    yield "eval.patience", config.eval.patience or "none"


def _read_points(rows, name):
    """(step, value) of the rows that have a finite value."""
    points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _thin_out(points):
    """At most _MAX_POINTS, each the mean of as many neighbours."""
    size = -(-len(points) // _MAX_POINTS) or 1
    parts = [points[index : index + size] for index in range(0, len(points), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _draw_curve(name, points, best=None):
    """A curve from 0 up, as the template draws it; without points there is no line."""
    steps, values = zip(*points, strict=True) if points else ((0,), (0,))
    last = max(steps[-1], 1)
    top = max(*values, 1e-9)

    def x(step):
        return round(_LEFT + step / last * (_WIDTH - _LEFT - _MARGIN), 1)

    def y(value):
        return round(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _MARGIN), 1)

    return {
        "name": name,
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "bottom": _HEIGHT - _BOTTOM,
        "right": _WIDTH - _MARGIN,
        "points": [(x(step), y(value), f"step {step}: {value:.3f}") for step, value in points],
        "rows": [(y(value), f"{value:g}") for value in grid_lines(top)],
        "columns": [(x(step), f"{step:,.0f}") for step in grid_lines(last) if step % 1 == 0],
        "best": (x(best[0]), y(best[1])) if best and points else None,
    }


def grid_lines(top) -> list[float]:
    """0 and the multiples of 1, 2 or 5 times a power of ten up to `top`, at least three of them."""
    power = math.floor(math.log10(top))
    for factor in (5, 2, 1, 0.5, 0.2, 0.1):
        distance = factor * 10.0**power
        count = math.floor(top / distance * (1 + 1e-9))
        if count >= _LINES - 1:
            break
    return [round(index * distance, 12) for index in range(count + 1)]
