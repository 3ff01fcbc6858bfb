"""What a conversion tells: the entries of dataset.json and report.json, and the table on the terminal."""

import itertools
import sys

import rich.box
import rich.console
import rich.markup
import rich.table

from data_tools.conversion import duplicates, shard_writer


def make_dataset_entry(account, names) -> dict:
    """A split's entry of dataset.json; names: of all its files."""
    return {
        "images": account["images"],
        "boxes": account["boxes"],
        "ignored": account["ignored"],
        "shards": [name for name in names if name.endswith(".tfrecord")],
        "repaired": dict(account["repaired"]),
        "dropped": [*account["left_out"], *account["dropped"]],
        "dropped_images": sum(account["dropped_images"].values()),
        "dropped_boxes": sum(account["dropped_boxes"].values()),
    }


def make_report_entry(account, source, folder, split, other_splits) -> dict:
    """A split's entry of report.json; source: {flag: value} of what was read."""
    numbers = (
        "read",
        "images",
        "empty",
        "empty_left_out",
        "boxes",
        "ignored",
        "clipped",
        "boxes_of_dropped_images",
        "bytes",
    )
    numbers += ("assumed_orientations",)
    counters = ("repaired", "dropped_images", "dropped_boxes", "unlisted_classes")
    return {
        "source": source,
        **{name: account[name] for name in numbers},
        **{name: dict(sorted(account[name].items())) for name in counters},
        "dropped": [*account["left_out"], *account["dropped"]],
        "repaired_files": account["repaired_files"],
        "size_mismatches": {
            "images": account["size_mismatches"],
            "files": account["size_mismatch_files"],
        },
        "remarks": account["remarks"],
        "classes": dict(sorted(account["classes"].items())),
        "box_size_pixels": _in_order(account["size_histogram"], shard_writer.SIZE_EDGES),
        "box_aspect_ratio": _in_order(account["aspect_histogram"], shard_writer.ASPECT_EDGES),
        "duplicates": {
            "within": duplicates.find_within(folder, split),
            **{other: duplicates.find_across(folder, split, other) for other in other_splits},
        },
    }


def _in_order(histogram, edges):
    return {
        shard_writer.name_bin(*pair): histogram.get(index, 0)
        for index, pair in enumerate(itertools.pairwise(edges))
    }


def print_report(entries, classes):
    """entries: split -> its entry of report.json; classes: names in label order. A table, and what was mended and dropped."""
    console = rich.console.Console(soft_wrap=True)
    for note in dict.fromkeys(
        note for entry in entries.values() for note in entry["source"].get("notes", ())
    ):
        console.print(note, markup=False, highlight=False)
    console.print(_make_table(entries, classes))
    for split, entry in entries.items():
        for line in describe(split, entry):
            console.print(line, markup=False, highlight=False)
        warn_of_leaks(split, entry)


_CLASSES_SHOWN = 30


def _make_table(entries, classes):
    columns = [(split, what) for split in entries for what in ("images", "objects", "ignored")]
    columns = [
        (split, what) for split, what in columns if what != "ignored" or entries[split]["ignored"]
    ]
    table = rich.table.Table("class", box=rich.box.SIMPLE)
    for split, what in columns:
        table.add_column(f"{split}\n{what}", justify="right")
    for name in classes[:_CLASSES_SHOWN]:
        numbers = (entries[split]["classes"].get(name, {}).get(what, 0) for split, what in columns)
        table.add_row(rich.markup.escape(name), *(f"{number:,}" for number in numbers))
    if len(classes) > _CLASSES_SHOWN:
        table.add_row(f"and {len(classes) - _CLASSES_SHOWN} more")
    totals = {"images": "images", "objects": "boxes", "ignored": "ignored"}
    table.add_row(
        "all", *(f"{entries[split][totals[what]]:,}" for split, what in columns), style="bold"
    )
    return table


def describe(split, entry):
    """The lines below the table: what was repaired, dropped, clipped, left out, doubled."""
    images = f"{entry['images']:,} of {entry['read']:,} images"
    yield f"{split}: {images}, {entry['empty']:,} without objects, {entry['bytes'] / 1e6:,.1f} MB"
    for key, what in (
        ("repaired", "images repaired"),
        ("dropped_images", "images dropped"),
        ("dropped_boxes", "boxes dropped"),
        ("unlisted_classes", "objects of classes that were not asked for"),
    ):
        if entry[key]:
            reasons = ", ".join(f"{reason} {number:,}" for reason, number in entry[key].items())
            lost = (
                f", with {entry['boxes_of_dropped_images']:,} objects"
                if key == "dropped_images"
                else ""
            )
            yield f"  {what}: {sum(entry[key].values()):,} ({reasons}){lost}"
    for dropped in entry["dropped"][:_DROPPED_SHOWN]:
        box = dropped["box"] if any(value is not None for value in dropped["box"] or ()) else ""
        yield f"    {dropped['file']}: {dropped['reason']} {box}".rstrip()
    if len(entry["dropped"]) > _DROPPED_SHOWN:
        yield "    … more of them in report.json"
    if entry["clipped"]:
        yield f"  boxes clipped at the picture's edge: {entry['clipped']:,}"
    if entry["empty_left_out"]:
        yield f"  images without objects left out (--drop_empty): {entry['empty_left_out']:,}"
    if entry["assumed_orientations"]:
        yield (
            f"  images turned by EXIF whose labels do not tell which way up they were drawn: {entry['assumed_orientations']:,}, taken "
            "by --exif_boxes; look at them with inspect_tfrecord"
        )
    if entry["size_mismatches"]["images"]:
        first = entry["size_mismatches"]["files"][0]
        yield (
            f"  sizes that differ from the labels': {entry['size_mismatches']['images']:,}, the first {first['file']}: "
            f"height and width {first['image_hw']}, labels {first['labels_hw']}"
        )
    for what, found in entry["remarks"].items():
        yield f"  {what}: {found['count']:,}, the first {found['first'][0]}"
    within = entry["duplicates"]["within"]
    if within["groups"]:
        first = ", ".join(within["files"][0])
        yield f"  equal files: {within['images']:,} images in {within['groups']:,} groups, the first {first}"


_DROPPED_SHOWN = 10


def warn_of_leaks(split, entry):
    for other, found in entry["duplicates"].items():
        if other != "within" and found["images"]:
            first = found["files"][0]
            print(
                f"WARNING: {found['images']:,} images of {split!r} are in {other!r} too (the first: {first[split][0]} = "
                f"{first[other][0]}). Results on one are no measure after training on the other.",
                file=sys.stderr,
            )
