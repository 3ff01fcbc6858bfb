"""Configs from files and plain values, checked, and their errors."""

import copy
import difflib
import functools
import os
import pathlib
import re
import typing
from collections.abc import Sequence

import pydantic
import yaml
from absl import logging

from ssd_tf import files
from ssd_tf.config import effects
from ssd_tf.config.inheritance import (
    APART_FROM_PRESET,
    apply_overrides,
    merge,
    read_layers,
)
from ssd_tf.config.keys import is_section
from ssd_tf.config.sections import Config, Eval, is_run
from ssd_tf.errors import ConfigError
from ssd_tf.user_files import suggest_path


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read an experiment file, its `base:` files and `key.path=value` overrides.

    With init_from and without model.backbone.name, network and default boxes are those of the run
    that init_from names, except for what the file sets.
    Raises ConfigError for a missing file, an unknown key (with the nearest known name), a value out
    of range, or a key without effect.
    """
    layers = read_layers(path, overrides)
    values = _inherit_network(layers[-1])
    boxes = values.get("boxes", {})
    if isinstance(boxes, dict) and boxes.keys() <= set(APART_FROM_PRESET):
        raise ConfigError(
            f"{path}: boxes: give either preset or levels, or take network and default boxes over "
            "from a run: --set init_from=RUN (`ssd import` makes a run of a detector file)"
        )
    return _check_effects(_validate(values, path), values, layers, path)


def load_run_config(folder, overrides=()) -> Config:
    """The config that a run folder holds; `overrides` and errors as for `load_config`."""
    check_run_folder(folder)
    return load_config(pathlib.Path(folder) / "config.yaml", overrides)


def check_run_folder(folder):
    """Raise ConfigError for the results of `ssd quickstart`, whose run folder is inside."""
    inside = pathlib.Path(folder) / "run"
    is_run = (inside.parent / "checkpoints").is_dir()
    if not is_run and (inside / "config.yaml").is_file():
        raise ConfigError(f"expected a run folder, got {folder}; did you mean {inside}?")


def load_source_config(folder) -> Config:
    """The config of the run folder that init_from names. Raises ConfigError."""
    if pathlib.Path(folder).is_file():
        raise ConfigError(
            f"init_from: expected a run folder, got the file {folder}; `ssd import --source` makes "
            "a run folder of a detector"
        )
    if not (pathlib.Path(folder) / "config.yaml").is_file():
        raise ConfigError(
            f"init_from: no run folder at {folder} (it would have a config.yaml)"
            f"{suggest_path(folder)}"
        )
    return load_run_config(folder)


def check_config(values: dict, where: str) -> Config:
    """Make a Config of plain values. `where` opens the message of a ConfigError."""
    return _check_effects(_validate(values, where), values, [values], where)


def check_eval(values, where):
    """Raise ConfigError for a value that its key of `eval` cannot have. where: the file's name."""
    _validate(values, where, Eval)


def check_overrides(overrides: Sequence[str]):
    """Raise ConfigError for unknown keys, and for values that their keys cannot have in any config.

    Whether they go together with other keys is only known when a config is loaded.
    """
    try:
        Config.model_validate(apply_overrides({}, overrides))
    except pydantic.ValidationError as error:
        depend_on_others = ("missing", "value_error")
        details = [each for each in error.errors() if each["type"] not in depend_on_others]
        if details:
            raise ConfigError(f"--set: {_explain(details[0], Config)}") from None


def save_config(config: Config, path):
    """Write the resolved config atomically, with all defaults spelled out."""
    files.write_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    """The resolved config, with all defaults spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _inherit_network(values):
    """Fill in model and boxes from the run that init_from names."""
    source = values.get("init_from")
    if not is_run(source) or effects.plain_value(values, "model.backbone.name") is not None:
        return values
    config = load_source_config(source).model_dump(mode="json")
    config["model"]["backbone"]["frozen_stages"] = 0
    return merge({"model": config["model"], "boxes": config["boxes"]}, values)


def _validate(values, where, section=Config):
    try:
        return section.model_validate(values)
    except pydantic.ValidationError as error:
        reasons = "; ".join(_explain(detail, section) for detail in error.errors())
        raise ConfigError(f"{where}: {reasons}") from None


def _check_effects(config, values, layers, where):
    """The Config without keys that a file inherits and takes the effect away from.

    Raises ConfigError for other keys without effect.
    """
    idle = effects.find_idle(config)
    inherited = [path for path, needs in idle.items() if effects.is_inherited(path, needs, layers)]
    reasons = [
        effects.explain_idle(config, path, needs)
        for path, needs in idle.items()
        if path not in inherited
    ]
    if reasons:
        raise ConfigError(f"{where}: {'; '.join(reasons)}")
    if not inherited:
        return config
    for path in inherited:
        logging.info("%s has no effect %s: it is left out", path, idle[path].reason)
    values = _without(values, inherited)
    # Keys that needed those which have gone may have to go, too.
    return _check_effects(_validate(values, where), values, [*layers, values], where)


def _without(values, paths):
    """The values without the keys at these paths."""
    values = copy.deepcopy(values)
    for path in paths:
        *sections, name = path.split(".")
        functools.reduce(dict.__getitem__, sections, values).pop(name, None)
    return values


def nearest(name, known) -> str:
    """A hint for an unknown name: the most similar known one, else all of them."""
    folded = {str(candidate).casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name).casefold(), list(folded), n=1)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    return f"; known: {', '.join(sorted(map(str, known)))}"


def _explain(detail, section) -> str:
    """One of pydantic's error details in a line, with the path of its key."""
    path = ".".join(str(part) for part in detail["loc"])
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        *parents, name = detail["loc"]
        return f"unknown key {path}{nearest(name, _section_at(section, parents).model_fields)}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "literal_error" and isinstance(value, str):
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return f"{path}: unknown value {value!r}{nearest(value, choices)}"
    if detail["type"] == "model_type":
        return f"{path}: expected a section of keys, got {value!r}"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(value, dict) else f", got {value!r}"
    start = f"{path}: " if path else ""
    return f"{start}{message[0].lower()}{message[1:]}{got}"


def _section_at(section, location):
    """The section at a location; indices of tuples are skipped."""
    for name in location:
        if isinstance(name, str):
            section = next(filter(is_section, _types_in(section.model_fields[name].annotation)))
    return section


def _types_in(annotation):
    """An annotation and all that it is made of: tuple[Level, ...] | None holds Level."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _types_in(part)
