"""Which classes a data set has, in which order, and their original ids."""

import difflib
import pathlib
import sys

from absl import flags


def choose_classes(declared, seen, wanted, known) -> list[dict]:
    """-> [{"name", "id"}] in label order.

    declared: the label file's own list or None; seen: names met in its objects; wanted: --classes, a list or None;
    known: the list of the data set that a split is added to, or None.
    The order is that of wanted, else known, else declared, else by name.
    """
    ids = {entry["name"]: entry["id"] for entry in declared or []}
    if wanted:
        _check_wanted(wanted, known)
        _check_names(wanted, ids, seen)
    if known:
        _check_known(ids, seen, wanted, known)
        return list(known)
    names = wanted or list(ids) or sorted(seen)
    if not names:
        raise ValueError("the labels name no class: no picture has an object with a name")
    return [{"name": name, "id": ids.get(name, position)} for position, name in enumerate(names, 1)]


def read_names(text) -> list[str] | None:
    """--classes: a file with one name a line, or names with commas between -> names; None where it is not given."""
    if not text:
        return None
    path = pathlib.Path(text)
    if path.is_file():
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    elif "/" in text or text.endswith(".txt"):
        raise flags.Error(
            f"--classes: no file at {text}; give a file with one class name a line, or a,b,c"
        )
    else:
        names = [name.strip() for name in text.split(",")]
    names = [name for name in names if name]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise flags.Error(
            f"--classes: {text} names {repr(twice[0]) + ' twice' if twice else 'no class'}"
        )
    return names


def _check_wanted(wanted, known):
    if known and [entry["name"] for entry in known] != wanted:
        raise flags.Error(
            f"--classes gives {_few(wanted)}; the data set that is added to has {_few([entry['name'] for entry in known])}: "
            "leave --classes out, or give another --output"
        )


def _check_names(wanted, declared, seen):
    names = list(declared) or sorted(seen)
    for name in wanted:
        if names and name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            line = f"--classes: the labels have no class {name!r}; {f'did you mean {close[0]!r}?' if close else _few(names)}"
            if declared:
                raise flags.Error(line)
            # Where classes are only seen, a small split may well lack a rare one.
            print(f"WARNING: {line}", file=sys.stderr)


def _check_known(ids, seen, wanted, known):
    known_ids = {entry["name"]: entry["id"] for entry in known}
    unknown = sorted(seen - set(known_ids)) if not wanted else []
    if unknown:
        raise ValueError(
            f"the labels have the class {unknown[0]!r}, which dataset.json does not know ({_few(list(known_ids))}); "
            "convert all splits again, each with --classes and the names of all, or convert it into another --output"
        )
    for name, number in ids.items():
        if name in known_ids and known_ids[name] != number:
            raise ValueError(
                f"the class {name!r} has the id {number} here and {known_ids[name]} in dataset.json: another data set?"
            )


def _few(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
