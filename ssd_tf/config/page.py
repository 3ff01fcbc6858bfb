"""Writes docs/configuration.md from the keys and their descriptions: `make docs`."""

import functools
import inspect
import json
import typing

from ssd_tf.config.keys import Key, list_keys
from ssd_tf.config.sections import KEYS, Config, Level

_INTRODUCTION = """\
# Configuration

<!-- Generated from ssd_tf/config/ by `make docs`; edit the descriptions there. -->

A config is a YAML file; `configs/` has one for each experiment. `base: other.yaml` inherits from
another file; a list inherits from several, and later ones take precedence. On the command line,
`--set KEY=VALUE` replaces a value and may be repeated; the value is YAML:
`--set model.input_hw=[240,320]`.

Unknown keys, values out of range, keys without effect and settings that contradict each other are
errors; a key at its default, or at the value of its preset, passes. A key that a file inherits by
`base:`, or that `--set` finds in the file, is left out with a line in the log if the change takes
its effect away. A run folder keeps the resolved config, with all defaults spelled out, in
`config.yaml`.

The column "resume" says whether a run can be resumed with another value: always (yes), only if
training diverged, or never (empty).
"""


def make_page() -> str:
    """The text of docs/configuration.md."""
    sections = {}
    for path, key in KEYS.items():
        sections.setdefault(path.rpartition(".")[0], {})[path] = key
    parts = [_INTRODUCTION]
    for section, keys in sections.items():
        parts.append(_section_text(section, _section_at(section), keys))
        if section == "boxes":
            levels = list_keys(Level, "boxes.levels.")
            parts.append(_section_text("boxes.levels", Level, levels))
    return "\n".join(parts)


def _section_at(path):
    names = path.split(".") if path else []
    return functools.reduce(lambda each, name: each.model_fields[name].annotation, names, Config)


def _section_text(path, section, keys):
    title = f"## `{path}`" if path else "## Top level"
    rows = [
        f"| `{name}` | {_default(key)} | {_resume(key)} | {_describe(key)} |"
        for name, key in keys.items()
    ]
    table = "\n".join(["| key | default | resume | description |", "| -- | -- | -- | -- |", *rows])
    return f"{title}\n\n{inspect.cleandoc(section.__doc__)}\n\n{table}\n"


def _default(key: Key):
    value = key.field.default
    return "none" if value is None else json.dumps(value).strip('"')


def _resume(key: Key):
    if key.may_change is None:
        return ""
    return "diverged" if key.may_change.only_after_divergence else "yes"


def _describe(key: Key):
    """The description in one line, with the choices that it lacks and when it has no effect."""
    sentences = [" ".join((key.field.description or "").split())]
    choices = [f"`{value}`" for value in _choices(key.field.annotation)]
    if not all(choice in sentences[0] for choice in choices):
        sentences.append(f"One of {', '.join(choices)}.")
    sentences += [f"No effect {needs.reason}." for needs in key.needs]
    return " ".join(sentences)


def _choices(annotation):
    """The values of a Literal, also inside of a union."""
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return [value for part in typing.get_args(annotation) for value in _choices(part)]


if __name__ == "__main__":
    print(make_page(), end="")
