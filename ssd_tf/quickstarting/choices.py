"""The choices of `ssd quickstart`: statistics in, values of the config with their reasons out.

Pure functions: no files, no clock, no network. docs/quickstart.md explains the numbers.
"""

import collections.abc
import math
import types
import typing

import numpy as np

from ssd_tf.training.optimizer import longest_fitting_ema

# Objects with a shorter side in pixels of the input are rarely found.
SMALL_SIDE = 16
_MANY_SMALL = 0.25  # of the objects
_TINY_SIDE = 8
_SCALES = (1, 1.5, 2)  # of the input, as far as the images have the pixels and the time allows
_STRIDE = 32
# Detectors were trained on photos of 4:3 and 3:2 made square, so these need no other shape.
_MAX_WARP = 1.6
_MIN_PASSES = 10  # over the training images, for a larger input to be worth its time

_MIN_COVERED = 0.8  # of the objects; below it default boxes are fitted
# New default boxes cost a detector its box heads: one that covered 62 % was better with its own
# (docs/results.md).
_MIN_COVERED_OF_RUN = 0.3
_MIN_GAIN = 0.05  # of the fraction that is covered

_BATCH = 16
_MIN_STEPS = 10
_FIRST_IMAGES = 100  # seconds of training until held-out images can be looked at
_EVALUATIONS = 10  # in the minutes of a short run
_MAX_EVALUATIONS = 40  # each writes a checkpoint, too
_EVALUATION_SHARE = 10  # training takes this many times as long as the evaluations
_PATIENCE = 0.4  # of the evaluations
_WARMUP = 0.05  # of the steps
_MAX_WARMUP = 100
_MAX_EMA = 0.995

_FEW_IMAGES = 50
_FEW_OBJECTS = 20  # of a class


class Choice(typing.NamedTuple):
    """A choice as it is shown, its reason, and the keys of the config that it sets, by path."""

    name: str
    shown: str
    reason: str
    values: collections.abc.Mapping = types.MappingProxyType({})


class Statistics(typing.NamedTuple):
    """What is known of a converted data set.

    images: {split: count}. objects: {class: count} in the training split. unlabelled: training
    images without objects. image_hw: medians of height and width, pixels. object_sides: [N] square
    root of each object's area, as a fraction of that of its image.
    """

    images: dict[str, int]
    objects: dict[str, int]
    unlabelled: int
    image_hw: tuple[float, float]
    object_sides: np.ndarray

    def fraction_below(self, side, input_hw) -> float:
        """The fraction of the objects that are smaller than `side` pixels in an input."""
        if not len(self.object_sides):
            return 0.0
        return float(np.mean(self.object_sides * math.sqrt(math.prod(input_hw)) < side))


class Pace(typing.NamedTuple):
    """Measured seconds: per training step, before the first one, and per evaluation."""

    step: float
    startup: float
    evaluation: float


def find_weaknesses(statistics: Statistics, input_hw) -> list[str]:
    """Warnings about a data set that limits any detector, a line each."""
    found = []
    num_images = statistics.images["train"]
    if num_images < _FEW_IMAGES:
        found.append(
            f"{num_images} training images are few: expect a first draft; {_FEW_IMAGES} and more "
            "give a usable detector"
        )
    absent = [name for name, count in statistics.objects.items() if not count]
    if absent:
        found.append(f"classes without a training object, never found: {_list(absent)}")
    rare = [name for name, count in statistics.objects.items() if 0 < count < _FEW_OBJECTS]
    if rare:
        found.append(f"classes with fewer than {_FEW_OBJECTS} training objects: {_list(rare)}")
    tiny = statistics.fraction_below(_TINY_SIDE, input_hw)
    if tiny > _MANY_SMALL:
        found.append(
            f"{tiny:.0%} of the objects are smaller than {_TINY_SIDE} pixels in the input and will "
            "mostly be missed: cut the images into parts, or take them from nearer"
        )
    if statistics.unlabelled > num_images / 2:
        found.append(
            f"{statistics.unlabelled} of {num_images} training images have no objects: they are "
            "background; if they are only unlabelled, move them away"
        )
    return found


def _list(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def choose_input(statistics: Statistics, start_hw, seconds_per_image, minutes) -> Choice:
    """The size of the network's input.

    start_hw: of the start. seconds_per_image: of a training step with that size.
    """
    shape, reason = _choose_shape(statistics.image_hw, start_hw)
    native = _scale(shape, 1)
    size, limit = _enlarge(statistics, shape, start_hw, seconds_per_image, minutes)
    small = statistics.fraction_below(SMALL_SIDE, native)
    if size == native:
        reason += f"; {small:.0%} of the objects are below {SMALL_SIDE} pixels there"
    else:
        left = statistics.fraction_below(SMALL_SIDE, size)
        reason = f"{small:.0%} of the objects would be below {SMALL_SIDE} pixels in "
        reason += f"{_show(native)}, here {left:.0%}"
    return Choice("input", _show(size), reason + limit, {"model.input_hw": list(size)})


def _choose_shape(image_hw, start_hw):
    """((height, width) of the start's area, not rounded; the reason)."""
    aspect = image_hw[1] / image_hw[0]
    warp = aspect / (start_hw[1] / start_hw[0])
    if max(warp, 1 / warp) <= _MAX_WARP:
        return start_hw, "as the start has it"
    height = math.sqrt(math.prod(start_hw) / aspect)
    return (height, height * aspect), f"the images are {aspect:.2f} times as wide as high"


def _enlarge(statistics, shape, start_hw, seconds_per_image, minutes):
    """(the smallest of the sizes with few small objects, what kept it from growing further)."""
    size = _scale(shape, 1)
    for factor in _SCALES:
        larger = _scale(shape, factor)
        if factor > 1 and math.prod(larger) > 1.1 * math.prod(statistics.image_hw):
            return size, "; the images have no more pixels"
        seconds = seconds_per_image * math.prod(larger) / math.prod(start_hw)
        passes = minutes * 60 / (seconds * statistics.images["train"])
        if factor > 1 and passes < _MIN_PASSES:
            return size, f"; a larger one does not fit into --minutes {minutes:g}"
        size = larger
        if statistics.fraction_below(SMALL_SIDE, size) <= _MANY_SMALL:
            return size, ""
    return size, ""


def _scale(shape, factor):
    return tuple(max(round(side * factor / _STRIDE), 1) * _STRIDE for side in shape)


def _show(size):
    return f"{size[0]} x {size[1]}"


def needs_fitting(covered, from_run) -> bool:
    """Whether to fit default boxes; `is_worth_fitting` says whether they are used.

    covered: as for `is_worth_fitting`. from_run: whether the box heads are trained.
    """
    return covered < (_MIN_COVERED_OF_RUN if from_run else _MIN_COVERED)


def is_worth_fitting(covered, fitted) -> bool:
    """Whether fitted default boxes replace those of the start.

    The fraction of the objects that have an IoU of at least .5 with a default box of the start, and
    with a fitted one; None if none were fitted.
    """
    return fitted is not None and fitted >= covered + _MIN_GAIN


def choose_boxes(covered, fitted=None) -> Choice:
    """The default boxes; arguments as for `is_worth_fitting`."""
    reason = f"{covered:.0%} of the objects have an IoU of at least .5 with one"
    if fitted is not None:
        reason += f", {fitted:.0%} with a fitted one"
    if is_worth_fitting(covered, fitted):
        return Choice("default boxes", "fitted to the objects", reason)
    if fitted is not None:
        reason += ", which gains too little"
    return Choice("default boxes", "as the start has them", reason)


def choose_batch(num_images) -> Choice:
    """The images per step."""
    size = _BATCH
    while size > 2 and size > num_images:
        size //= 2
    reason = "enough for a stable gradient" if size == _BATCH else f"there are {num_images} images"
    return Choice("batch", f"{size} images per step", reason, {"train.batch_size": size})


def choose_schedule(
    num_images, batch_size, pace: Pace, minutes, from_run, steps=None
) -> list[Choice]:
    """Steps, evaluations, warm-up, averaging and early stop of a training of `minutes`.

    num_images: of the training split. from_run: whether it starts from a run, which is evaluated
    before the first step. steps: if the user gave them.
    """
    interval = _choose_interval(pace, minutes)
    if steps is None:
        steps, reason = _count_steps(pace, minutes, interval, from_run)
    else:
        reason = "--set"
    passes = steps * batch_size / num_images
    evaluations = max(round(steps / interval), 1)
    every = math.ceil(steps / evaluations)
    patience = max(round(evaluations * _PATIENCE), 4)
    first = pace.startup + pace.evaluation + (0 if from_run else every * pace.step)
    warmup = max(min(round(steps * _WARMUP), _MAX_WARMUP, steps - 1), 0)
    ema = min(longest_fitting_ema(steps), _MAX_EMA)
    return [
        Choice(
            "steps",
            f"{steps}, {passes:.1f} passes over {num_images} images",
            reason,
            {"train.steps": steps},
        ),
        Choice(
            "evaluations",
            f"every {every} steps",
            f"one takes about {pace.evaluation:.0f} s; the first held-out images come after about "
            f"{first:.0f} s",
            {"eval.every": every, "train.checkpoint_every": every},
        ),
        Choice(
            "early stop",
            f"after {patience} evaluations without a better AP",
            f"{_PATIENCE:.0%} of the evaluations ({evaluations}), at least 4",
            {"eval.patience": patience},
        ),
        Choice(
            "warm-up",
            f"{warmup} steps",
            f"{_WARMUP:.0%} of the steps, at most {_MAX_WARMUP}",
            {"train.warmup_steps": warmup},
        ),
        Choice(
            "averaging",
            f"decay {ema:g}",
            f"averages over {1 / (1 - ema):.0f} steps, a fifth of a short run",
            {"train.ema": ema},
        ),
    ]


def _choose_interval(pace, minutes):
    """Steps between evaluations, not rounded: soon at first, and few enough to be cheap."""
    seconds = max(_FIRST_IMAGES - pace.startup, minutes * 60 / _MAX_EVALUATIONS)
    seconds = min(seconds, minutes * 60 / _EVALUATIONS)
    seconds = max(seconds, _EVALUATION_SHARE * pace.evaluation, pace.step)
    return seconds / pace.step


def _count_steps(pace, minutes, interval, from_run):
    """(the steps that fit into the minutes, the reason)."""
    seconds = minutes * 60 - pace.startup - (pace.evaluation if from_run else 0)
    fitting = int(seconds / (pace.step + pace.evaluation / interval))
    # However few they are, there is a whole evaluation after the last step.
    fitting = min(fitting, int((seconds - pace.evaluation) / pace.step))
    steps = max(fitting, _MIN_STEPS)
    reason = (
        f"--minutes {minutes:g}, less {pace.startup:.0f} s to start and the evaluations, at "
        f"{pace.step:.2f} s per step"
    )
    if fitting < _MIN_STEPS:
        reason = f"the minimum: --minutes {minutes:g} allows no more"
    return steps, reason


def explain_short_budget(num_images, batch_size, steps, pace: Pace, minutes) -> str | None:
    """A warning if training does not see every image once, else None."""
    if steps * batch_size >= num_images:
        return None
    needed = (num_images / batch_size * pace.step + pace.startup + 2 * pace.evaluation) / 60
    return (
        f"--minutes {minutes:g} shows {steps * batch_size} of {num_images} images once: the "
        f"detector will be poor. One pass needs --minutes {math.ceil(needed)}, a good start "
        f"--minutes {math.ceil(needed * _MIN_PASSES)}"
    )
