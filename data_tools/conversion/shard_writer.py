"""The record function: one labelled picture -> one serialized record; and a shard of them, with an account of what was done.

Shards are a task each, for a process here or for a worker of a cluster; the same task always gives the same bytes.
"""

import bisect
import collections
import dataclasses
import math
import os

import numpy as np

from data_tools.conversion import box_checks, image_checks
from data_tools.readers import labels
from ssd_tf import commandline

SIZE_EDGES = (
    0.0,
    8,
    16,
    32,
    64,
    96,
    128,
    256,
    512,
    math.inf,
)  # square root of the box's area, in pixels
ASPECT_EDGES = (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.5, 2, 3, 5, math.inf)  # width / height


class Problem(ValueError):
    """What --strict ends at."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """How pictures become records. label_of: class name -> label from 1."""

    label_of: dict[str, int]
    verify: bool = True
    drop_empty: bool = False
    strict: bool = False
    exif_boxes: str = "stored"


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """Pictures of one shard: lines of the plan file that begin at `offsets`, written to `path`."""

    path: str
    plan: str
    offsets: np.ndarray
    rules: Rules


def write_shard(task, tick) -> dict:
    """Writes one shard and returns its account; calls tick() after each picture."""
    commandline.import_tensorflow()
    import tensorflow as tf

    account = new_account()
    try:
        with tf.io.TFRecordWriter(task.path) as writer, open(task.plan, "rb") as plan:
            for offset in task.offsets:
                plan.seek(offset)
                example = make_record(labels.from_line(plan.readline()), task.rules, account)
                if example is not None:
                    writer.write(example)
                tick()
    except tf.errors.OpError as error:
        found = error.message.removeprefix(f"{task.path}; ")
        raise OSError(
            f"cannot write {task.path}: {found}; free some space there or give another --output"
        ) from None
    account["bytes"] = os.path.getsize(task.path)
    return account


def make_record(labeled, rules, account) -> bytes | None:
    """One picture -> its serialized record, or None where it is left out; `account` is kept either way."""
    from ssd_tf.data import records

    account["read"] += 1
    try:
        if labeled.fault:
            raise image_checks.BadImage(labeled.fault)
        image = image_checks.check_image(labeled.path, rules.verify)
    except image_checks.BadImage as error:
        _leave_out(labeled, error, rules, account)
        return None
    _compare_sizes(labeled, image, rules, account)
    kept = _keep_objects(labeled, image, rules, account)
    if not kept and rules.drop_empty:
        account["empty_left_out"] += 1
        return None
    _count_image(labeled, image, kept, account)
    example = records.make_example(
        image=image.data,
        image_format="jpeg",
        height=image.height,
        width=image.width,
        filename=labeled.filename.encode(
            errors="backslashreplace"
        ),  # file names need not be Unicode
        source_id=labeled.source_id.encode(errors="backslashreplace"),
        boxes=[box.corners for _, box in kept],
        labels=[rules.label_of[thing.name] for thing, _ in kept],
        texts=[thing.name for thing, _ in kept],
        areas=[box.area for _, box in kept],
        crowd=[thing.crowd for thing, _ in kept],
        difficult=[thing.difficult for thing, _ in kept],
        sha256=image.digest if image.is_file else None,
    )
    return example.SerializeToString(deterministic=True)


def new_account() -> dict:
    """Counters of one shard, of plain types; add_account sums them."""
    counters = (
        "repaired",
        "dropped_images",
        "dropped_boxes",
        "unlisted_classes",
        "size_histogram",
        "aspect_histogram",
    )
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
    numbers += ("size_mismatches", "assumed_orientations")
    lists = ("left_out", "dropped", "repaired_files", "size_mismatch_files", "digests")
    account = (
        {name: collections.Counter() for name in counters}
        | dict.fromkeys(numbers, 0)
        | {name: [] for name in lists}
    )
    return account | {"classes": {}, "remarks": {}}


def add_account(total, account):
    """Adds a shard's account to the total; of named things the total keeps the first hundred. Digests stay out."""
    for name, value in account.items():
        if isinstance(value, collections.Counter):
            total[name].update(value)
        elif isinstance(value, int):
            total[name] += value
        elif isinstance(value, list) and name != "digests":
            total[name] = [*total[name], *value][: labels.NAMED]
    for name, numbers in account["classes"].items():
        mine = total["classes"].setdefault(name, dict.fromkeys(numbers, 0))
        for key, value in numbers.items():
            mine[key] += value


def _leave_out(labeled, error, rules, account):
    if rules.strict:
        raise Problem(f"--strict: {labeled.filename}: {error}")
    account["dropped_images"][error.reason.partition(":")[0]] += 1
    account["boxes_of_dropped_images"] += len(labeled.objects)
    _name(account["left_out"], {"file": labeled.filename, "box": None, "reason": str(error)})


def _compare_sizes(labeled, image, rules, account):
    # Either size of a turned picture is right: it tells how its boxes were drawn.
    if labeled.size_hw in (None, (image.height, image.width), image.stored_hw):
        return
    found = {
        "file": labeled.filename,
        "labels_hw": list(labeled.size_hw),
        "image_hw": [image.height, image.width],
    }
    if rules.strict:
        raise Problem(
            f"--strict: {found['file']}: the labels say {found['labels_hw']}, the picture is {found['image_hw']}"
        )
    account["size_mismatches"] += 1
    _name(account["size_mismatch_files"], found)


def _keep_objects(labeled, image, rules, account):
    """The objects that go into the record, each with its NormalizedBox."""
    kept = []
    turn, assumed = box_checks.boxes_orientation(labeled.size_hw, image, rules.exif_boxes)
    account["assumed_orientations"] += assumed and bool(labeled.objects)
    for thing in labeled.objects:
        if not thing.fault and thing.name not in rules.label_of:
            account["unlisted_classes"][thing.name] += 1
            continue
        box = box_checks.normalize_box(thing, labeled.unit, image, turn)
        if isinstance(box, box_checks.NormalizedBox):
            kept.append((thing, box))
            continue
        dropped = {
            "file": labeled.filename,
            "box": [_or_none(value) for value in thing.box],
            "reason": box,
        }
        if rules.strict:
            raise Problem(
                f"--strict: {labeled.filename}: a box of {thing.name!r} is dropped ({box}): {dropped['box']}"
            )
        account["dropped_boxes"][box] += 1
        _name(account["dropped"], dropped)
    return kept


def _count_image(labeled, image, kept, account):
    account["images"] += 1
    account["digests"].append((image.digest[:16], labeled.filename))
    if not kept:
        account["empty"] += 1
    if image.repair:
        account["repaired"][image.repair] += 1
        _name(account["repaired_files"], {"file": labeled.filename, "reason": image.repair})
    for thing, box in kept:
        ignored = thing.crowd or thing.difficult
        account["ignored" if ignored else "boxes"] += 1
        account["clipped"] += box.clipped
        numbers = account["classes"].setdefault(
            thing.name, {"objects": 0, "ignored": 0, "images": 0}
        )
        numbers["ignored" if ignored else "objects"] += 1
        _count_shape(box.corners, image, account)
    for name in {thing.name for thing, _ in kept}:
        account["classes"][name]["images"] += 1


def _count_shape(corners, image, account):
    height, width = (
        (corners[2] - corners[0]) * image.height,
        (corners[3] - corners[1]) * image.width,
    )
    account["size_histogram"][_bin(math.sqrt(height * width), SIZE_EDGES)] += 1
    account["aspect_histogram"][_bin(width / height, ASPECT_EDGES)] += 1


def _bin(value, edges):
    return bisect.bisect_right(edges, value) - 1


def name_bin(low, high):
    """How a bin of a histogram is called."""
    return f"{low:.3g} to {high:.3g}" if high < math.inf else f"{low:.3g} and more"


def _name(names, entry):
    if len(names) < labels.NAMED:
        names.append(entry)


def _or_none(value):
    return value if math.isfinite(value) else None
