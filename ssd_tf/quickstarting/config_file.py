"""`config.yaml` of a quickstart: the choices as an experiment file, with their reasons."""

import math
import textwrap

import yaml

from ssd_tf.config import apply_overrides
from ssd_tf.config.effects import plain_value

_WIDTH = 100


def render(command, choices, overrides=()) -> str:
    """The text of the file.

    command: what the user ran. choices: in this order; those with values become keys, below a
    comment that says why. overrides: `KEY=VALUE`, which stand at the end and win.
    """
    sections: dict[str, list[str]] = {}
    for choice in choices:
        values = _without_overridden(choice.values, overrides)
        if not values:
            continue
        comment = f"{choice.name}: {choice.shown}: {choice.reason}"
        for section, keys in _by_section(values).items():
            lines = sections.setdefault(section, [])
            indent = "  " if section else ""
            lines += _comment(comment, indent)
            lines += [indent + line for line in _dump(keys)]
    given = apply_overrides({}, overrides)
    for section, keys in given.items():
        is_section = isinstance(keys, dict)
        lines = sections.setdefault(section if is_section else "", [])
        indent = "  " if is_section else ""
        lines += _comment("given by --set", indent)
        lines += [indent + line for line in _dump(keys if is_section else {section: keys})]
    text = [*_comment(f"Written by `{command}`; `ssd train --config` takes it as it is.", "")]
    text += sections.pop("", [])
    for section, lines in sections.items():
        text += [f"{section}:", *lines]
    return "\n".join(text) + "\n"


def given_values(paths, overrides) -> list:
    """The values that overrides give to some of the keys at these paths."""
    given = apply_overrides({}, overrides)
    values = [plain_value(given, path) for path in paths]
    return [value for value in values if value is not None]


def _without_overridden(values, overrides):
    """The values without those that an override replaces, a key above or below it included."""
    given = [override.partition("=")[0].strip() for override in overrides]
    return {
        path: value
        for path, value in values.items()
        if not any(_overlap(path, other) for other in given)
    }


def _overlap(path, other):
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _by_section(values):
    """{section: {key: value or nested values}} of values by path; "" for keys outside sections."""
    found: dict[str, dict] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        section = parents[0] if parents else ""
        keys = found.setdefault(section, {})
        for parent in parents[1:]:
            keys = keys.setdefault(parent, {})
        keys[name] = value
    return found


def _dump(keys):
    """A line of YAML for each key."""
    # In a list, as a scalar of its own would be followed by the end of the document.
    texts = {
        key: yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=math.inf)
        for key, value in keys.items()
    }
    return [f"{key}: {text.strip()[1:-1]}" for key, text in texts.items()]


def _comment(text, indent):
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
