"""Turns labelled images into records and writes a shard of them, counting what was done.

Each shard is a task, for a process here or a worker of a cluster; the same task always gives the
same bytes.
"""

import dataclasses
import math
import os
import pickle

from data_tools.conversion import advice, box_checks, image_checks
from data_tools.conversion.config import ConversionConfig
from data_tools.conversion.counts import SplitCounts
from data_tools.readers import labels
from ssd_tf import commandline


class StrictError(ValueError):
    """A problem that ends the conversion under --strict."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write to `path`.

    images: pickled LabeledImages; label_of: class name -> label from 1; config: a ConversionConfig
    without None in exif_boxes and gray_range.
    """

    path: str
    images: list[bytes]
    label_of: dict[str, int]
    config: ConversionConfig


def write_shard(task, tick) -> SplitCounts:
    """Write one shard and return its counts; calls tick() after each image. Raises OSError."""
    commandline.import_tensorflow()  # here, so that a process with workers does without it
    from ssd_tf.data import records

    counts = SplitCounts()
    with records.open_file(task.path) as write:
        for packed in task.images:
            fields = make_record(pickle.loads(packed), task.label_of, task.config, counts)
            if fields is not None:
                write(records.make_example(**fields))
            tick()
    counts.bytes = os.path.getsize(task.path)
    return counts


def make_record(labeled, label_of, config, counts) -> dict | None:
    """The arguments of records.make_example for a LabeledImage, or None if it is left out.

    Adds to `counts` either way. Raises StrictError. The others: as in ShardTask.
    """
    counts.read += 1
    try:
        if labeled.fault:
            raise image_checks.BadImage(labeled.fault)
        image = image_checks.check_image(
            labeled.path, config.verify, config.gray_range, labeled.intact_digest
        )
    except image_checks.BadImage as error:
        if config.strict:
            raise StrictError(f"--strict: {labeled.filename}: {error}") from None
        counts.count_dropped(labeled.filename, None, str(error))
        counts.boxes_of_dropped_images += len(labeled.objects)
        return None
    _compare_sizes(labeled, image, config, counts)
    kept, fault = _keep_objects(labeled, image, label_of, config, counts)
    if fault and not kept:
        # Its objects would be trained as background. They are counted already.
        counts.count_dropped(labeled.filename, None, f"{labels.UNUSABLE}: {fault}")
        return None
    if not kept and config.drop_empty:
        counts.empty_left_out += 1
        return None
    _count_image(labeled, image, kept, counts)
    return _make_fields(labeled, image, kept, label_of)


def _compare_sizes(labeled, image, config, counts):
    # Both sizes of a rotated image are right: they say how its boxes were drawn.
    image_hw = (image.height, image.width)
    if labeled.size_hw in (None, image_hw, image.stored_hw):
        return
    labels_hw = list(labeled.size_hw)
    image_hw = list(image_hw)
    if config.strict:
        raise StrictError(
            f"--strict: {labeled.filename}: the labels say {labels_hw}, the image is {image_hw}"
        )
    counts.size_mismatches.add(
        {"file": labeled.filename, "labels_hw": labels_hw, "image_hw": image_hw}
    )


def _keep_objects(labeled, image, label_of, config, counts):
    """-> ([(LabeledObject, NormalizedBox)] of the objects that go into the record, a fault).

    The fault is the first one of an object that the image shows all the same; empty if none has.
    """
    kept = []
    first_fault = ""
    orientation, assumed = box_checks.boxes_orientation(labeled.size_hw, image, config.exif_boxes)
    counts.assumed_orientations += assumed and bool(labeled.objects)
    unit = box_checks.choose_unit(labeled.unit, config.boxes)
    for obj in labeled.objects:
        if obj.names_class and obj.name not in label_of:
            counts.unlisted_classes[obj.name] += 1
            continue
        box = box_checks.normalize_box(obj, unit, image, orientation, config.boxes is not None)
        if isinstance(box, box_checks.NormalizedBox):
            kept.append((obj, box))
            continue
        if box not in box_checks.HARMLESS:
            first_fault = first_fault or box
        _count_dropped(labeled, obj, box, config, counts)
    return kept, first_fault


def _count_dropped(labeled, obj, reason, config, counts):
    written = [value if math.isfinite(value) else None for value in obj.box]
    if config.strict:
        raise StrictError(
            f"--strict: {labeled.filename}: a box of {obj.name!r} is dropped ({reason}): {written}"
        )
    counts.count_dropped(labeled.filename, written, reason)


def _count_image(labeled, image, kept, counts):
    counts.images += 1
    counts.digests.append((image.digest[:16], labeled.filename))
    if not kept:
        counts.empty += 1
    if image.repair:
        counts.repaired.add({"file": labeled.filename, "reason": image.repair}, image.repair)
    if image.gray_levels:
        counts.gray.add(image.gray_levels, labeled.filename)
    for obj, box in kept:
        ymin, xmin, ymax, xmax = box.corners
        size_hw = ((ymax - ymin) * image.height, (xmax - xmin) * image.width)
        counts.add_object(obj.name, obj.crowd or obj.difficult, box.clipped, size_hw)
        if math.sqrt((ymax - ymin) * (xmax - xmin)) < advice.TINY:
            counts.tiny.add(labeled.filename, obj.name)
    for name in {obj.name for obj, _ in kept}:
        counts.classes[name].images += 1


def _make_fields(labeled, image, kept, label_of):
    return {
        "image": image.data,
        "image_format": "jpeg",
        "height": image.height,
        "width": image.width,
        # File names need not be Unicode.
        "filename": labeled.filename.encode(errors="backslashreplace"),
        "source_id": labeled.source_id.encode(errors="backslashreplace"),
        "boxes": [box.corners for _, box in kept],
        "labels": [label_of[obj.name] for obj, _ in kept],
        "texts": [obj.name for obj, _ in kept],
        "areas": [box.area for _, box in kept],
        "crowd": [obj.crowd for obj, _ in kept],
        "difficult": [obj.difficult for obj, _ in kept],
        "sha256": image.digest if image.is_file else None,
    }
