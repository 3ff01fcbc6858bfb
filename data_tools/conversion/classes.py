"""Which classes a data set has, in which order, and their original ids."""

import difflib
import pathlib
import sys

from absl import flags

from ssd_tf import user_files


def choose_classes(declared, seen, requested, existing) -> list[dict]:
    """[{"name", "id"}] in label order.

    declared: the label file's own list, or None; seen: names met in its objects; requested: the
    names of --classes, or None; existing: the list of the data set to add a split to, or None.
    The order is that of requested, else existing, else declared, else by name.
    """
    ids = {entry["name"]: entry["id"] for entry in declared or []}
    if requested:
        _check_requested(requested, existing)
        _check_names(requested, ids, seen)
    if existing:
        _check_existing(ids, seen, requested, existing)
        return list(existing)
    names = requested or list(ids) or sorted(seen)
    if not names:
        raise ValueError("the labels name no class: no image has an object with a name")
    return [{"name": name, "id": ids.get(name, label)} for label, name in enumerate(names, 1)]


def read_names(text) -> list[str] | None:
    """The names of --classes, given as a file with one name per line or as a,b,c; None if empty."""
    if not text:
        return None
    path = pathlib.Path(text)
    if path.is_file():
        names = user_files.read_lines(path)
    elif "/" in text or text.endswith(".txt"):
        raise flags.Error(
            f"--classes: no file at {text}; give a file with one class name per line, or a,b,c"
        )
    else:
        names = [name.strip() for name in text.split(",")]
    names = [name for name in names if name]
    if not names:
        raise flags.Error(f"--classes: {text} names no class")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise flags.Error(f"--classes: {text} names {repeated[0]!r} twice")
    return names


def _check_requested(requested, existing):
    if not existing:
        return
    existing_names = [entry["name"] for entry in existing]
    if existing_names != requested:
        raise flags.Error(
            f"--classes gives {_list_names(requested)}, but the data set to add a split to has "
            f"{_list_names(existing_names)}: leave --classes out, or give another --output"
        )


def _check_names(requested, declared, seen):
    names = list(declared) or sorted(seen)
    for name in requested:
        if names and name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"the labels have: {_list_names(names)}"
            if close:
                hint = f"did you mean {close[0]!r}?"
            message = f"--classes: the labels have no class {name!r}; {hint}"
            if declared:
                raise flags.Error(message)
            # Without a list of classes, a small split may just lack a rare one.
            print(f"WARNING: {message}", file=sys.stderr)


def _check_existing(ids, seen, requested, existing):
    existing_ids = {entry["name"]: entry["id"] for entry in existing}
    unknown = sorted(seen - set(existing_ids)) if not requested else []
    if unknown:
        raise ValueError(
            f"the labels have the class {unknown[0]!r}, which dataset.json does not list "
            f"({_list_names(list(existing_ids))}); convert all splits again, each with --classes "
            "and all names, or convert into another --output"
        )
    for name, class_id in ids.items():
        if name in existing_ids and existing_ids[name] != class_id:
            raise ValueError(
                f"the class {name!r} has the id {class_id} here and {existing_ids[name]} in "
                "dataset.json: is this another data set?"
            )


def _list_names(names):
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
