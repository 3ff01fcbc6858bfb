"""The class names of a detector, from the file that lists them."""

import collections
import json
import pathlib
import re

from ssd_tf import coco_rows
from ssd_tf.class_names import check_names, count_classes, normalize
from ssd_tf.errors import ConfigError, shorten
from ssd_tf.user_files import read_text, split_lines, suggest_path

# The name of an unused id in a file.
_UNUSED_NAME = "???"
# The maximum id when the number of classes is not known; data sets have a few thousand.
_MAX_ID = 100_000
# A line with an id: `0  person`, `0: person`, `1. cat`, `1,cat`. A decimal number is none.
_NUMBERED = re.compile(r"(-?[0-9]+)(?:\s*[:,;=]\s*(?=[^\s0-9])|\.\s+|\s+)(\S.*)")
# Of a label map: text in quotes of either kind, a mark, a word, or a comment, which has no group.
_TOKEN = re.compile(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}:"']|[^\s{}:#"',;]+)|#.*""")


def check_label_file(labels):
    """Raise ConfigError, with the most similar path, unless there is a file at --labels."""
    if not pathlib.Path(labels).is_file():
        raise ConfigError(f"--labels: no file at {labels}{suggest_path(labels)}")


def read_classes(labels, count, model) -> list[dict]:
    """The classes of a detector as in dataset.json; their ids are those of the detector, from 1.

    labels: None for names that are the ids, or a file:
        text with one name per line, where later lines `???` are unused ids, and a first line `???`
        or `background` is the background if there is one line too many;
        text in which every line begins with an id;
        a label map of the TF Object Detection API (.pbtxt);
        a COCO instances file (.json), of which the categories are read.
    Ids in a file may begin with 0: the number of classes decides. Ids without a name are left out.
    count: the number of classes of the detector, None if it is not known. model: what errors call
    the detector. Raises ConfigError if the file cannot be read or does not fit.
    """
    if labels is None:
        return [{"name": str(number), "id": number} for number in range(1, count + 1)]
    path = pathlib.Path(labels)
    check_label_file(path)
    try:
        return parse_classes(read_text(path), path, count, model)
    except ValueError as error:
        raise ConfigError(f"--labels: {error}") from None


def parse_classes(text, path, count, model) -> list[dict]:
    """The classes in the text of a file, as `read_classes` gives them; raises ValueError."""
    try:
        rows = _read_rows(text, path.suffix.lower())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot read classes from {path} ({shorten(error)})") from None
    if rows is None:
        named = list(enumerate(_names_of_lines(text, path, count, model), 1))
    else:
        named = _from_one(rows, path, count, model)
    classes = [{"name": name, "id": number} for number, name in named if name != _UNUSED_NAME]
    if not classes:
        raise ValueError(f"{path} names no classes")
    check_names([entry["name"] for entry in classes], path)
    return sorted(classes, key=lambda entry: entry["id"])


def spread_names(classes) -> list[str | None]:
    """The name of each id from 1 on, None for an id without one."""
    name_of = {entry["id"]: entry["name"] for entry in classes}
    return [name_of.get(number) for number in range(1, max(name_of) + 1)]


def parse_own_names(text, path, count) -> list[str]:
    """The names in a labels.txt that an export wrote: lines, and each of them is a name.

    Raises ValueError unless there are `count`, and each is what a class may be called.
    """
    names = _split_names(text)
    if len(names) != count:
        raise ValueError(f"{path} has {len(names)} names, expected {count}; export the model again")
    check_names(names, path)
    return names


def format_names(names) -> str:
    """The text of a labels.txt, which `parse_own_names` reads."""
    return "".join(f"{name}\n" for name in names)


def _split_names(text):
    """The lines, without empty ones at the end."""
    names = [normalize(line) for line in split_lines(text)]
    while names and not names[-1]:
        names.pop()
    return names


def _names_of_lines(text, path, count, model):
    """The name of each id from 1 on; a first line for the background is left out."""
    names = _split_names(text)
    if names and _is_background(names[0]) and count in (None, len(names) - 1):
        names = names[1:]
    if count not in (None, len(names)):
        raise ValueError(
            f"{path} has {len(names)} names, expected {count}, one for each class of {model} "
            f"({_UNUSED_NAME} for an unused id)"
        )
    return names


def _is_background(name):
    return name == _UNUSED_NAME or name.strip("_").casefold() == "background"


def _read_rows(text, suffix):
    """[(id, name)] of a file with ids, None for lines that are names."""
    if suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return _read_categories(text)
    tokens = [token for token in _TOKEN.findall(text) if token]
    if suffix == ".pbtxt" or (tokens[:1] == ["item"] and "{" in tokens[1:3]):
        return _read_label_map(tokens)
    lines = list(filter(None, _split_names(text)))
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    if not lines or not all(matches):
        return None
    return [(_to_id(match[1]), match[2]) for match in matches]


def _read_categories(text):
    content = json.loads(text)
    rows = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a COCO instances file, with a list of categories")
    nameless = next((row for row in rows if not isinstance(row.get("name"), str)), None)
    if nameless is not None:
        raise ValueError(f"expected a category with a name, got {nameless}")
    annotations = content.get("annotations")
    used_ids = [
        coco_rows.normalize_id(row.get("category_id"))
        for row in (annotations if isinstance(annotations, list) else ())
        if isinstance(row, dict)
    ]
    rows, _ = coco_rows.without_root(rows, has_objects=0 in used_ids)
    return [(_to_id(row.get("id")), row["name"]) for row in rows]


def _to_id(value):
    """A whole number as 1, 1.0 or "1"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch("-?[0-9]+", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number as id, got {value!r}")
    return value


def _read_label_map(tokens):
    """Items { id, name, display_name }; the display_name is preferred."""
    rows = []
    for fields in _items(tokens):
        name = fields.get("display_name") or fields.get("name")
        if "id" not in fields or name is None:
            raise ValueError(f"an item without id or name: {fields}")
        rows.append((_to_id(fields["id"]), name))
    return rows


def _items(tokens):
    """The fields {name: text} of each item; deeper nested ones are skipped."""
    if {"'", '"'} & set(tokens):
        raise ValueError("a quote is not closed on its line")
    items = []
    depth = 0
    for index, token in enumerate(tokens):
        if token == "{":
            depth += 1
            if depth == 1:
                items.append({})
        elif token == "}":
            depth -= 1
        elif depth == 1 and tokens[index - 1] == ":" and index > 1:
            items[-1][tokens[index - 2]] = _unquote(token)
    if depth:
        raise ValueError("braces do not match; is the file complete?")
    return items


def _unquote(token):
    if token[0] in "\"'":
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return token


def _from_one(rows, path, count, model):
    """Rows with ids from 1, from those of a file, which begin with 1 or with 0."""
    rows = [(number, normalize(name)) for number, name in rows]
    ids = [number for number, _ in rows]
    for number, times in collections.Counter(ids).items():
        if times > 1:
            raise ValueError(f"{path}: the id {number} is there more than once")
    is_full = count is not None and sorted(ids) == list(range(count))
    if not is_full and any(number == 0 and _is_background(name) for number, name in rows):
        rows = [row for row in rows if row[0] != 0]
    first = 0 if any(number == 0 for number, _ in rows) else 1
    _check_ids(rows, first, path, count, model)
    return [(number + 1 - first, name) for number, name in rows]


def _check_ids(rows, first, path, count, model):
    last = (_MAX_ID if count is None else count) + first - 1
    whose = "the limit" if count is None else f"the ids of {model}"
    for number, name in rows:
        if not first <= number <= last:
            raise ValueError(
                f"{path}: {name} has the id {number}, expected {first} to {last}, {whose}"
            )
    highest = max((number for number, _ in rows), default=None)
    if count is not None and rows and highest != last:
        raise ValueError(
            f"{path} has {len(rows)} names with ids from {first} to {highest}, expected ids "
            f"up to {last}, as {model} has {count_classes(count)}"
        )
