"""Measures the data, the default boxes and the pace, and writes the config that follows."""

import pathlib

import numpy as np
import rich.box
import rich.markup
from absl import logging
from rich.console import Console
from rich.table import Column, Table

from data_tools.analysis import coverage, inspection
from ssd_tf import files, processor
from ssd_tf.config import load_config
from ssd_tf.config.inheritance import APART_FROM_PRESET
from ssd_tf.data import dataset_json
from ssd_tf.quickstarting import choices, config_file
from ssd_tf.quickstarting.choices import Choice
from ssd_tf.training.pace import measure_pace

_FITTED = "boxes.yaml"
# Until the steps are known: that of the recipe may be too long for those of --set.
_NO_WARMUP = Choice("warm-up", "none", "not chosen yet", {"train.warmup_steps": 0})


def write_config(path, data, start, request, command, fit_boxes):
    """Choose the settings of a training, print them, and write them to `path`.

    data: folder of TFRecords. start: a starts.Start. request: a state.Request. command: what the
    user ran, for the first line. fit_boxes(config path, output path): fits default boxes.
    Returns the choices.Pace of that training.
    """
    return _Chooser(pathlib.Path(path), data, start, request, command, fit_boxes).choose()


class _Chooser:
    """The choices made so far, and the config that they give."""

    def __init__(self, path, data, start, request, command, fit_boxes):
        self._path = path
        self._data = data
        self._start = start
        self._request = request
        self._command = command
        self._fit_boxes = fit_boxes
        self._dataset_info = dataset_json.read_dataset(data)
        self._objects = inspection.read_split(self._dataset_info, "train")
        self._choices = [_NO_WARMUP]
        self._base = [start.base]

    def choose(self):
        statistics = describe(self._dataset_info, self._objects)
        if not len(statistics.object_sides):
            raise ValueError(f"{self._data}: the split 'train' has no objects to learn from")
        self._add(Choice("start", self._start.shown, self._start.reason, self._start.values))
        config = self._add(self._or_given(choices.choose_batch(statistics.images["train"])))
        logging.info("measuring how long a step takes: about a minute")
        pace = measure_pace(config, self._data)
        old_hw = config.model.input_hw
        if config.data.keep_classes:
            # With another input or other default boxes the run would find less of its old classes.
            kept = "as the start and --set have them"
            config = self._add(Choice("input, default boxes", kept, "data.keep_classes"))
        else:
            config = self._choose_input(config, statistics, pace)
            config = self._choose_boxes(config)
        if config.model.input_hw != old_hw:
            pace = measure_pace(config, self._data)
        pace = choices.Pace(*pace)
        cores = processor.usable_cores()
        on = "1 core" if cores == 1 else f"{cores} cores"
        logging.info("measured on %s: %.2f s per step", on, pace.step)
        config = self._choose_schedule(config, statistics, pace)
        _print([self._recipe(), *self._choices])
        self._warn(config, statistics, pace)
        return pace

    def _add(self, *more):
        """Write and load the config with more choices."""
        self._choices += more
        made = [self._recipe(), *self._choices]
        text = config_file.render(self._command, made, self._request.overrides)
        files.write_text(self._path, text)
        return load_config(self._path)

    def _recipe(self):
        base = self._base[0] if len(self._base) == 1 else self._base
        return Choice("recipe", self._start.base, "goes with the start", {"base": base})

    def _or_given(self, choice):
        """The choice, or that of the user if --set names one of its keys."""
        given = config_file.given_values(choice.values, self._request.overrides)
        if not given:
            return choice
        return choice._replace(shown=", ".join(map(str, given)), reason="--set")

    def _choose_input(self, config, statistics, pace):
        seconds_per_image = pace.seconds_per_step / config.train.batch_size
        choice = choices.choose_input(
            statistics, config.model.input_hw, seconds_per_image, self._request.minutes
        )
        return self._add(self._or_given(choice))

    def _choose_boxes(self, config):
        others = tuple(f"boxes.{key}=" for key in APART_FROM_PRESET)
        given = [each for each in self._request.overrides if each.startswith("boxes")]
        if any(not each.startswith(others) for each in given):
            return self._add(Choice("default boxes", "given", "--set"))
        covered = self._measure_coverage(config)
        fitted = None
        if choices.needs_fitting(covered, config.starts_from_run):
            output = self._path.with_name(_FITTED)
            self._fit_boxes(self._path, output)
            self._base.append(_FITTED)
            fitted = self._measure_coverage(self._add())
        if not choices.is_worth_fitting(covered, fitted):
            self._base = self._base[:1]
        return self._add(choices.choose_boxes(covered, fitted))

    def _measure_coverage(self, config):
        by_level, _ = coverage.measure(config, self._objects, self._dataset_info.names)
        return by_level[-1].fraction

    def _choose_schedule(self, config, statistics, pace):
        steps = config_file.given_values({"train.steps": None}, self._request.overrides)
        found = choices.choose_schedule(
            statistics.images["train"],
            config.train.batch_size,
            pace,
            self._request.minutes,
            config.starts_from_run,
            steps[0] if steps else None,
        )
        self._choices.remove(_NO_WARMUP)
        return self._add(*map(self._or_given, found))

    def _warn(self, config, statistics, pace):
        for line in choices.find_weaknesses(statistics, config.model.input_hw):
            logging.warning("%s", line)
        short = choices.explain_short_budget(
            statistics.images["train"],
            config.train.batch_size,
            config.train.steps,
            pace,
            self._request.minutes,
        )
        if short:
            logging.warning("%s", short)


def describe(dataset_info, objects) -> choices.Statistics:
    """The Statistics of a data set. objects: inspection.SplitObjects of its training split."""
    names = dataset_info.names
    counts = np.bincount(objects.real_labels, minlength=len(names) + 1)[1:]
    height, width = np.median(objects.sizes_hw, 0)
    boxes = objects.real_boxes
    return choices.Statistics(
        images={name: entry["images"] for name, entry in dataset_info.splits.items()},
        objects=dict(zip(names, counts.tolist(), strict=True)),
        unlabelled=len(objects.sizes_hw) - len(np.unique(objects.image_of)),
        image_hw=(float(height), float(width)),
        object_sides=np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)),
    )


def _print(made):
    value = Column("value", overflow="fold")  # a path without spaces has to be complete
    table = Table("choice", value, Column("reason", ratio=1), box=rich.box.SIMPLE)
    for choice in made:
        table.add_row(*map(rich.markup.escape, choice[:3]))
    Console().print(table)
