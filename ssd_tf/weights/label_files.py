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
    if not labels.is_file():
        raise ConfigError(f"--labels: no file at {labels}")
    try:
        text = labels.read_text(encoding="utf-8")
        if labels.suffix == ".pbtxt":
            classes = _read_label_map(text)
        elif labels.suffix == ".json":
            rows = json.loads(text)["categories"]
            classes = [{"name": str(row["name"]), "id": int(row["id"])} for row in rows]
        else:
            classes = _read_lines(text, count, labels, path)
    except (UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"--labels: cannot read classes from {labels} ({shorten(error)})"
        ) from None
    _check(classes, count, labels, path)
    return sorted(classes, key=lambda entry: entry["id"])


def _read_lines(text, count, labels, path):
    names = [line.strip() for line in text.splitlines()]
    if names and names[0] in (_UNUSED_NAME, "background") and len(names) == count + 1:
        names = names[1:]
    if len(names) != count:
        raise ConfigError(
            f"{labels} has {len(names)} names, expected {count}, one for each class of {path}"
        )
    rows = enumerate(names, start=1)
    return [{"name": name, "id": number} for number, name in rows if name != _UNUSED_NAME]


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
