"""The classes of a data set: their names, their order and their original ids."""

import collections
import csv
import dataclasses
import difflib
import pathlib
import sys

from absl import flags

from data_tools.readers import labels
from ssd_tf import class_names, user_files


def normalize_names(source, requested) -> labels.Source:
    """The source with its class names as they are stored, whatever its format.

    requested: the names of --classes, the only ones that matter, or None.
    Raises ValueError, also while its images are read, for a name that a class cannot have, and for
    two entries of the label file's own list that become one name. Names of objects that become one
    are merged; a note says so once the images have been read.
    """
    declared = source.classes
    if declared is not None:
        declared = [entry | {"name": class_names.normalize(entry["name"])} for entry in declared]
        _check_needed([entry["name"] for entry in declared], requested, "the labels")
    images = _normalize_objects(source.images, requested, declared is None, source.notes)
    return dataclasses.replace(source, classes=declared, images=images)


def _check_needed(names, requested, where):
    class_names.check_names([name for name in names if name in (requested or names)], where)


def _normalize_objects(images, requested, is_open, notes):
    """is_open: whether only the objects name classes, so that merging two spellings is news."""
    stored = {}  # as written -> normalised
    num_written = collections.Counter()
    for image in images:
        for name in {obj.name for obj in image.objects if obj.names_class} - stored.keys():
            stored[name] = class_names.normalize(name)
            _check_needed([stored[name]], requested, image.filename)
        if any(stored.get(obj.name, obj.name) != obj.name for obj in image.objects):
            num_written.update(obj.name for obj in image.objects if obj.name in stored)
            objects = tuple(_rename(obj, stored) for obj in image.objects)
            image = dataclasses.replace(image, objects=objects)
        yield image
    if is_open:
        notes += _describe_merged(num_written, stored)


def _rename(obj, stored):
    return dataclasses.replace(obj, name=stored.get(obj.name, obj.name))


def _describe_merged(num_written, stored):
    num_spellings = collections.Counter(stored.values())
    for name, num_objects in sorted(num_written.items()):
        if stored[name] != name and num_spellings[stored[name]] > 1:
            yield f"class {stored[name]!r} is also written {name!r}: {num_objects:,} objects"


def describe_similar(names) -> list[str]:
    """A line for each group of class names that differ in case only."""
    groups = collections.defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    return [
        f"classes that differ in case only: {_list_names(group)}; they stay apart"
        for group in groups.values()
        if len(group) > 1
    ]


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
    """The names of --classes, given as a file with one name per line or as a,b,c; None if empty.

    In a,b,c a name with commas stands in quotation marks.
    """
    if not text:
        return None
    path = pathlib.Path(text)
    if path.is_file():
        names = user_files.read_lines(path)
    elif text.endswith(".txt"):
        raise flags.Error(
            f"--classes: no file at {text}{user_files.suggest_path(path)}; give a file with one "
            "class name per line, or a,b,c"
        )
    else:
        (names,) = csv.reader([text], skipinitialspace=True)
    names = [name for name in map(class_names.normalize, names) if name]
    if not names:
        raise flags.Error(f"--classes: {text} names no class")
    try:
        class_names.check_names(names, "--classes")
    except ValueError as error:
        raise flags.Error(str(error)) from None
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
            close = _find_close(name, names)
            hint = f"did you mean {close!r}?" if close else f"the labels have: {_list_names(names)}"
            message = f"--classes: the labels have no class {name!r}; {hint}"
            if declared:
                raise flags.Error(message)
            # Without a list of classes, a small split may just lack a rare one.
            print(f"WARNING: {message}", file=sys.stderr)


def _check_existing(ids, seen, requested, existing):
    existing_ids = {entry["name"]: entry["id"] for entry in existing}
    unknown = sorted(seen - set(existing_ids)) if not requested else []
    if unknown:
        close = _find_close(unknown[0], existing_ids)
        hint = f"did you mean {close!r}?" if close else _list_names(list(existing_ids))
        raise ValueError(
            f"the labels have the class {unknown[0]!r}, which dataset.json does not list "
            f"({hint}); convert all splits again, each with --classes "
            "and all names, or convert into another --output"
        )
    for name, class_id in ids.items():
        if name in existing_ids and existing_ids[name] != class_id:
            raise ValueError(
                f"the class {name!r} has the id {class_id} here and {existing_ids[name]} in "
                "dataset.json: is this another data set?"
            )


def _find_close(name, names):
    """The name that is most like another, or None; case does not count."""
    folded = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def _list_names(names):
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
