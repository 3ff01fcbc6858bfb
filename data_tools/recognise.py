"""Recognises the label format and the splits of a folder of labelled images."""

import csv
import io
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from data_tools.readers import csv_table, files, labels, layouts, voc_xml
from ssd_tf import class_names

VAL_FRACTION = 0.2
_SPLITS = ("train", "val", "test")


class _Format(NamedTuple):
    """How to recognise a label format.

    title: for messages. find: its labels in a folder, or None. read: the labels that the flags of a
    conversion name, if it takes from them which classes there are, as no list says so; else None.
    """

    title: str
    find: Callable[[layouts.Contents], layouts.FoundLabels | None]
    read: Callable[[dict[str, str]], labels.Source] | None


def _read_voc(flags):
    return voc_xml.read_voc(flags["--voc"], flags["--image_set"])


def _read_csv(flags):
    return csv_table.read_csv(flags["--csv"], flags["--images"], one_based=False)


FORMATS = {
    "coco": _Format("COCO JSON", layouts.find_coco, None),
    "voc": _Format("VOC XML", layouts.find_voc, _read_voc),
    "yolo": _Format("YOLO", layouts.find_yolo, None),
    "csv": _Format("CSV", layouts.find_csv, _read_csv),
}


class Recognised(NamedTuple):
    """How to convert a folder of labelled images.

    label_format: of FORMATS; reason: one sentence, what was found where; conversions: per split,
    the arguments of `ssd convert` without --output, in the order in which to run them into one
    output folder; splits: those that result.
    """

    label_format: str
    reason: str
    conversions: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]


def recognise(folder, label_format=None, classes=(), val_fraction=VAL_FRACTION) -> Recognised:
    """Look at a folder of labelled images and say which converter reads it, and why.

    label_format: of FORMATS, to be looked for alone; classes: names for --classes. A validation
    split that is there is used, else `val_fraction` of the training images is held out; 0: none.
    Raises OSError or ValueError if the format is unknown, if there are no labels or no images, if
    there are labels of several formats, or several for one split, or none to train on.
    """
    if label_format not in (None, *FORMATS):
        known = ", ".join(FORMATS)
        raise ValueError(f"expected a label format, one of {known}, got {label_format!r}")
    folder = files.check_folder(folder, "the folder of images")
    contents = layouts.Contents(folder)
    found = _choose(contents, label_format)
    by_split = _assign_splits(found)
    splits = [split for split in _SPLITS if split in by_split]
    read = FORMATS[found.label_format].read
    if read and not classes:
        classes = _list_missing_classes(read, [by_split[split] for split in splits])
    conversions = []
    for split in splits:
        flags = [found.label_format, *by_split[split].flags, "--split", split]
        if split == "train" and "val" not in by_split and val_fraction:
            flags += ["--val_fraction", f"{val_fraction:g}"]
        if classes:
            flags += ["--classes", _join_names(classes)]
        conversions.append(tuple(flags))
    if "val" not in splits and val_fraction:
        splits.insert(1, "val")
    reason = f"{found.counted} and {_count_images(contents)} in {folder}: {found.where}"
    return Recognised(found.label_format, reason, tuple(conversions), tuple(splits))


def _choose(contents, label_format):
    """The labels of the only format, or of the requested one."""
    found = [one for one in (each.find(contents) for each in FORMATS.values()) if one]
    chosen = [each for each in found if label_format in (None, each.label_format)]
    if not chosen:
        raise ValueError(_explain_nothing(contents, label_format, found))
    if len(chosen) > 1:
        formats = " or ".join(f"--format {each.label_format}" for each in chosen)
        raise ValueError(
            f"{contents.folder} has labels of several formats: {_list_found(chosen)}; say which "
            f"to read: {formats}"
        )
    if not contents.images:
        raise ValueError(
            f"{contents.folder} has labels but no images: {_list_found(chosen)}; give the folder "
            "that holds both"
        )
    return chosen[0]


def _count_images(contents):
    return labels.count_of(len(contents.images), "image")


def _list_found(found):
    return ", ".join(
        f"{each.label_format} ({each.counted}, such as {each.example})" for each in found
    )


def _explain_nothing(contents, label_format, found):
    if (pathlib.Path(contents.folder) / "dataset.json").is_file():
        return f"{contents.folder} is a converted data set already (dataset.json)"
    *others, last = [FORMATS[name].title for name in FORMATS if label_format in (None, name)]
    expected = f"{', '.join(others)} or {last} labels" if others else f"{last} labels"
    if not contents.images:
        there = labels.count_of(len(contents.others), "file") if contents.others else "nothing"
        return f"{contents.folder} has no images: expected images with {expected}, got {there}"
    got = f"{_count_images(contents)}, such as {contents.images[0]}"
    more = _list_found(found) or layouts.explain_unread(contents)
    return f"{contents.folder} has no labels: expected {expected}, got {got}" + (
        f", and {more}" if more else ""
    )


def _assign_splits(found):
    """{split: LabelSet}; what no name assigns is for training."""
    by_split = {}
    for each in found.sets:
        split = each.split or "train"
        if split in by_split:
            raise ValueError(
                f"there are several {found.label_format} labels for the split {split!r}: "
                f"{by_split[split].where} and {each.where}; convert one with `ssd convert "
                f"{found.label_format}`, or give the folder of one"
            )
        by_split[split] = each
    if "train" not in by_split:
        first = next(iter(by_split.values()))
        raise ValueError(
            f"there are only {found.label_format} labels of {', '.join(by_split)}, none to train "
            f"on: {first.where}; rename the folder, or run `ssd convert {found.label_format}` with "
            f"--split train"
        )
    return by_split


def _list_missing_classes(read, sets):
    """The classes of all splits, sorted, if training lacks some of them; else none.

    Labels that do not list their classes have those of the training split, and a class that occurs
    in another split alone would end its conversion.
    """
    if len(sets) == 1:
        return ()
    flags = [dict(zip(each.flags[::2], each.flags[1::2], strict=True)) for each in sets]
    seen = [_list_classes(read(each)) for each in flags]
    return () if set().union(*seen[1:]) <= seen[0] else sorted(set().union(*seen))


def _list_classes(source):
    return {
        class_names.normalize(obj.name)
        for image in source.images
        for obj in image.objects
        if obj.names_class
    }


def _join_names(names):
    """Names as --classes takes them."""
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(names)
    return row.getvalue()
