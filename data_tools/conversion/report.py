"""The report of a conversion: entries of dataset.json and report.json, terminal, duplicates."""

import array
import dataclasses
import itertools
import json
import math
import pathlib
import sys

import numpy as np
import rich.box
import rich.console
import rich.markup
import rich.table

from data_tools.conversion import counts, survey
from data_tools.readers import labels

_CLASSES_SHOWN = 30
_DROPPED_SHOWN = 10
_MANY = 0.5  # of the boxes
# Numbers of SplitCounts, in the order of report.json.
_NUMBERS = (
    *("read", "images", "empty", "empty_left_out", "boxes", "ignored", "clipped"),
    *("boxes_of_dropped_images", "bytes", "assumed_orientations"),
)


def make_dataset_entry(split, names) -> dict:
    """A split's entry of dataset.json; split: its SplitCounts; names: of all its files."""
    return {
        "images": split.images,
        "boxes": split.boxes,
        "ignored": split.ignored,
        "shards": [name for name in names if name.endswith(".tfrecord")],
        "repaired": dict(split.repaired.reasons),
        "dropped": [*split.dropped_images.first, *split.dropped_boxes.first],
        "dropped_images": split.dropped_images.count,
        "dropped_boxes": split.dropped_boxes.count,
    }


def make_report_entry(split, source_flags, exif_boxes, duplicates) -> dict:
    """A split's entry of report.json; split: its SplitCounts.

    source_flags: {flag: value} of what was converted; exif_boxes: "stored" or "shown", what was
    assumed of EXIF-rotated images whose labels do not give the orientation of the boxes;
    duplicates: of find_duplicates.
    """
    gray = split.gray
    entry = {"source": source_flags} | {name: getattr(split, name) for name in _NUMBERS}
    return entry | {
        "exif_boxes": exif_boxes,
        "repaired": _sorted(split.repaired.reasons),
        "dropped_images": _sorted(split.dropped_images.reasons),
        "dropped_boxes": _sorted(split.dropped_boxes.reasons),
        "unlisted_classes": _sorted(split.unlisted_classes),
        "dropped": [*split.dropped_images.first, *split.dropped_boxes.first],
        "repaired_files": split.repaired.first,
        "size_mismatches": {
            "images": split.size_mismatches.count,
            "files": split.size_mismatches.first,
        },
        "gray_16bit": {
            "images": gray.images,
            "low": gray.low if gray.images else None,
            "high": gray.high if gray.images else None,
            "coarse": gray.coarse.count,
            "first_coarse": gray.coarse.first,
        },
        "findings": {
            what: {"count": tally.count, "first": tally.first}
            for what, tally in split.findings.items()
        },
        "tiny_objects": {
            "objects": split.tiny.count,
            "classes": dict(split.tiny.reasons.most_common()),
            "files": list(dict.fromkeys(split.tiny.first)),
        },
        "classes": {
            name: dataclasses.asdict(of_class) for name, of_class in sorted(split.classes.items())
        },
        "box_size_pixels": _name_bins(split.size_histogram, counts.SIZE_EDGES),
        "box_aspect_ratio": _name_bins(split.aspect_histogram, counts.ASPECT_EDGES),
        "duplicates": duplicates,
    }


def _sorted(counter):
    return dict(sorted(counter.items()))


def _name_bins(histogram, edges):
    """{"8 to 16": count, ...}, the last one "512 and more"."""
    named = {}
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        name = f"{low:.3g} to {high:.3g}" if high < math.inf else f"{low:.3g} and more"
        named[name] = histogram[index]
    return named


def print_report(reports, class_names):
    """Print a table of the classes, what was repaired or dropped in each split, and warnings."""
    console = rich.console.Console(soft_wrap=True)
    notes = [note for entry in reports.values() for note in entry["source"].get("notes", ())]
    for note in dict.fromkeys(notes):
        console.print(note, markup=False, highlight=False)
    console.print(_make_table(reports, class_names))
    for split, entry in reports.items():
        for line in describe(split, entry):
            console.print(line, markup=False, highlight=False)
        warn_of_leaks(split, entry)
    for line in describe_gray([entry["gray_16bit"] for entry in reports.values()]):
        console.print(line, markup=False, highlight=False)
    for warning in itertools.chain.from_iterable(entry["warnings"] for entry in reports.values()):
        console.print(f"warning: {warning['text']}", markup=False, highlight=False)


def _make_table(reports, class_names):
    columns = [
        (split, what)
        for split, entry in reports.items()
        for what in ("images", "objects", "ignored")
        if what != "ignored" or entry["ignored"]
    ]
    table = rich.table.Table("class", box=rich.box.SIMPLE)
    for split, what in columns:
        table.add_column(f"{split}\n{what}", justify="right")
    for name in class_names[:_CLASSES_SHOWN]:
        row = (reports[split]["classes"].get(name, {}).get(what, 0) for split, what in columns)
        table.add_row(rich.markup.escape(name), *(f"{count:,}" for count in row))
    if len(class_names) > _CLASSES_SHOWN:
        table.add_row(f"and {len(class_names) - _CLASSES_SHOWN} more")
    totals = {"images": "images", "objects": "boxes", "ignored": "ignored"}
    row = (reports[split][totals[what]] for split, what in columns)
    table.add_row("all", *(f"{count:,}" for count in row), style="bold")
    return table


def describe(split, entry):
    """Yield the lines below the table for a split; entry: of report.json."""
    images = f"{entry['images']:,} of {labels.count_of(entry['read'], 'image')}"
    yield f"{split}: {images}, {entry['empty']:,} without objects, {entry['bytes'] / 1e6:,.1f} MB"
    yield from _describe_reasons(entry)
    yield from _describe_dropped(entry["dropped"])
    if entry["clipped"]:
        yield f"  boxes clipped at the edge of the image: {entry['clipped']:,}"
    num_beyond = entry["clipped"] + entry["dropped_boxes"].get("outside", 0)
    if num_beyond > _MANY * sum(entry["dropped_boxes"].values(), entry["boxes"] + entry["ignored"]):
        yield (
            f"  {num_beyond:,} boxes reach beyond their image: are they in another unit, or of "
            "images of another size? Look at them with `ssd inspect`"
        )
    if entry["empty_left_out"]:
        yield f"  images without objects left out (--drop_empty): {entry['empty_left_out']:,}"
    if entry["assumed_orientations"]:
        yield (
            "  EXIF-rotated images whose labels do not give the orientation of the boxes: "
            f"{entry['assumed_orientations']:,}; boxes were taken to be drawn on the image as "
            f"{entry['exif_boxes']} (--exif_boxes); check them with `ssd inspect`"
        )
    mismatches = entry["size_mismatches"]
    if mismatches["images"]:
        first = mismatches["files"][0]
        yield (
            f"  images whose size is not the one in the labels: {mismatches['images']:,}, the "
            f"first {first['file']}: height and width {first['image_hw']}, labels "
            f"{first['labels_hw']}"
        )
    for what, found in entry["findings"].items():
        if what == survey.UNLABELLED:  # a warning
            continue
        yield f"  {what}: {found['count']:,}, the first {found['first'][0]}"
    within = entry["duplicates"]["within"]
    if within["groups"]:
        images = labels.count_of(within["images"], "image")
        groups = labels.count_of(within["groups"], "group")
        yield f"  identical files: {images} in {groups}, the first {', '.join(within['files'][0])}"


def describe_gray(entries):
    """Yield a line about 16-bit images that lost their contrast; entries: those of all splits."""
    coarse = [name for entry in entries for name in entry["first_coarse"]]
    if coarse:
        low = min(entry["low"] for entry in entries if entry["images"])
        high = max(entry["high"] for entry in entries if entry["images"])
        yield (
            f"  16-bit images left with few gray levels: {sum(e['coarse'] for e in entries):,}, "
            f"the first {coarse[0]}; the values of all are {low} to {high}: convert again with "
            f"--gray_range {low},{high} to keep their contrast"
        )


def _describe_reasons(entry):
    for key, what in (
        ("repaired", "images repaired"),
        ("dropped_images", "images dropped"),
        ("dropped_boxes", "boxes dropped"),
        ("unlisted_classes", "objects of classes that --classes leaves out"),
    ):
        if entry[key]:
            reasons = ", ".join(f"{_show(reason)} {n:,}" for reason, n in entry[key].items())
            line = f"  {what}: {sum(entry[key].values()):,} ({reasons})"
            if key == "dropped_images":
                line += f", with {labels.count_of(entry['boxes_of_dropped_images'], 'object')}"
            yield line


def _show(name):
    """A class name of the labels as one line."""
    return name if name.isprintable() else repr(name)


def _describe_dropped(dropped):
    for first in dropped[:_DROPPED_SHOWN]:
        has_box = any(value is not None for value in first["box"] or ())
        box = f" {first['box']}" if has_box else ""
        yield f"    {first['file']}: {first['reason']}{box}"
    if len(dropped) > _DROPPED_SHOWN:
        yield "    ... more of them in report.json"


def warn_of_leaks(split, entry):
    """Warn on stderr of images that are in another split, too."""
    for other, found in entry["duplicates"].items():
        if other != "within" and found["images"]:
            first = found["files"][0]
            print(
                f"WARNING: images of {split!r} that are in {other!r} too: {found['images']:,} "
                f"(the first: {first[split][0]} = {first[other][0]}). Results on one mean little "
                "after training on the other.",
                file=sys.stderr,
            )


def digests_path(folder, split) -> pathlib.Path:
    """The file with the digests of a split, by which identical images are found.

    One line per stored image: 16 hexadecimal digits of its file's SHA-256, a tab, its file name
    escaped as in JSON.
    """
    return pathlib.Path(folder) / f"{split}-images.tsv"


def open_digests(path, mode="r"):
    """Open a file of digests; file names need not be Unicode."""
    return open(path, mode, encoding="utf-8", errors="surrogateescape")


def write_digests(file, digests):
    """digests: (digest, file name) of each image."""
    for digest, name in digests:
        file.write(f"{digest}\t{json.dumps(name, ensure_ascii=False)[1:-1]}\n")


def find_duplicates(folder, split, other_splits) -> dict:
    """Identical image files within a split and across splits, counted, the first hundred named.

    {"within": {"groups", "images", "files": [names of a group]},
    OTHER: {"images": how many of `split` are in it too, "files": [{split: names, OTHER: names}]}}
    """
    digests = _read_digests(folder, split)
    values, num_images = np.unique(digests, return_counts=True)
    repeated = values[num_images > 1]
    found = {
        "within": {
            "groups": len(repeated),
            "images": int(num_images[num_images > 1].sum()),
            "files": list(_find_names(folder, split, repeated).values()),
        }
    }
    for other in other_splits:
        shared = np.intersect1d(digests, _read_digests(folder, other))
        there = _find_names(folder, other, shared)
        here = _find_names(folder, split, shared)
        found[other] = {
            "images": int(np.isin(digests, shared).sum()),
            "files": [
                {split: names, other: there[digest]}
                for digest, names in here.items()
                if digest in there
            ],
        }
    return found


def _read_digests(folder, split):
    digests = array.array("Q")
    path = digests_path(folder, split)
    if path.is_file():
        with open_digests(path) as file:
            digests.extend(int(line[:16], 16) for line in file)
    return np.array(digests, np.uint64)


def _find_names(folder, split, digests):
    """{digest: names of its images}, for the first hundred of `digests` in the split's order."""
    sought = set(digests.tolist())
    names = {}
    if not sought:
        return names
    with open_digests(digests_path(folder, split)) as file:
        for line in file:
            digest = int(line[:16], 16)
            if digest in sought and (digest in names or len(names) < labels.NAMED):
                names.setdefault(digest, []).append(json.loads(f'"{line[17:-1]}"'))
    return {digest: sorted(found) for digest, found in names.items()}
