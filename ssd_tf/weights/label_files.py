"""The classes of someone else's detector, from the file that names them."""

import json
import pathlib
import re

from ssd_tf.config import ConfigError
from ssd_tf.weights.checks import shorten

# Names of classes that a text file lists for ids that are not in use.
_UNUSED_NAME = "???"
# A value of a field in a label map: a number, or text in quotes of either kind.
_FIELD = r"""\b{name}\s*:\s*(?:"([^"]*)"|'([^']*)'|(\d+))"""


def read_classes(labels, count, path) -> list[dict]:
    """The classes of a detector as in dataset.json; their ids are those of the detector, from 1.

    labels: None for names that are the ids, or a file:
        text with one name per line, where a first line `???` or `background` is the background's,
        and later lines `???` are ids that are not in use;
        a label map of the TF Object Detection API (.pbtxt);
        a COCO instances file (.json), of which the categories are read.
    Ids without a name are left out. Raises ConfigError if the file cannot be read, or does not fit
    the `count` classes of the detector in the file `path`.
    """
    if labels is None:
        return [{"name": str(number), "id": number} for number in range(1, count + 1)]
    labels = pathlib.Path(labels)
    classes = _read(labels, lambda text: _read_lines(text, count, labels, path))
    _check(classes, count, labels, path)
    return sorted(classes, key=lambda entry: entry["id"])


def read_names(labels) -> list[str | None]:
    """The name of each id from 1 on, None for an id without one.

    labels: a file as for `read_classes`. Raises ConfigError if it cannot be read.
    """
    classes = _read(pathlib.Path(labels), lambda text: _number(names_of_lines(text.splitlines())))
    if not classes:
        raise ConfigError(f"--labels: {labels} names no classes")
    names = [None] * max(entry["id"] for entry in classes)
    for entry in classes:
        names[entry["id"] - 1] = entry["name"]
    return names


def names_of_lines(lines, count=None) -> list[str | None]:
    """Names, one per line, None for `???`.

    A first line `???` or `background` is the background's, if `count` is not known or as many
    lines follow.
    """
    names = [line.strip() for line in lines]
    is_background = bool(names) and names[0] in (_UNUSED_NAME, "background")
    if is_background and count in (None, len(names) - 1):
        names = names[1:]
    return [None if name == _UNUSED_NAME else name for name in names]


def _number(names):
    """The classes of names that are in order of their ids; ids without a name are left out."""
    return [
        {"name": name, "id": number} for number, name in enumerate(names, 1) if name is not None
    ]


def _read(labels, read_text):
    """The classes in a file of any kind; read_text: those of the lines of a text file."""
    if not labels.is_file():
        raise ConfigError(f"--labels: no file at {labels}")
    try:
        text = labels.read_text(encoding="utf-8")
        if labels.suffix == ".pbtxt":
            return _read_label_map(text)
        if labels.suffix == ".json":
            rows = json.loads(text)["categories"]
            return [{"name": str(row["name"]), "id": int(row["id"])} for row in rows]
        return read_text(text)
    except (UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"--labels: cannot read classes from {labels} ({shorten(error)})"
        ) from None


def _read_lines(text, count, labels, path):
    names = names_of_lines(text.splitlines(), count)
    if len(names) != count:
        raise ConfigError(
            f"{labels} has {len(names)} names, expected {count}, one for each class of {path}"
        )
    return _number(names)


def _read_label_map(text):
    """Items { id, name, display_name }; the latter is for people, and preferred."""
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    classes = []
    for item in re.findall(r"\bitem\s*:?\s*\{([^{}]*)", text):
        number = _field(item, "id")
        name = _field(item, "display_name") or _field(item, "name")
        if number is None or name is None:
            raise ValueError(f"an item without id or name: {item.strip()}")
        if int(number) > 0:  # 0 is the background's
            classes.append({"name": name, "id": int(number)})
    return classes


def _field(item, name):
    match = re.search(_FIELD.format(name=name), item)
    return match and next(group for group in match.groups() if group is not None)


def _check(classes, count, labels, path):
    if not classes:
        raise ConfigError(f"--labels: {labels} names no classes")
    for key in ("id", "name"):
        values = [entry[key] for entry in classes]
        repeated = next((value for value in values if values.count(value) > 1), None)
        if repeated is not None:
            raise ConfigError(f"{labels}: the {key} {repeated!r} is there more than once")
    for entry in classes:
        if not 1 <= entry["id"] <= count:
            raise ConfigError(
                f"{labels}: {entry['name']} has the id {entry['id']}, "
                f"expected 1 to {count}, the ids of {path}"
            )
