"""The objects of a converted split: their statistics, what contradicts dataset.json, a sheet.

Shapes: `N` objects.
"""

import dataclasses
import sys

import numpy as np
import tensorflow as tf

from data_tools.analysis import coverage
from ssd_tf import contact_sheet, draw, user_files
from ssd_tf.boxes import validity
from ssd_tf.class_names import count_classes
from ssd_tf.data import bad_records, records

_PERCENTILES = (5, 25, 50, 75, 95)
_SIZES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class SplitObjects:
    """The objects of a split, image after image.

    boxes: [N, 4] normalised corners.
    labels: [N] from 1.
    ignored: [N] bool, crowd or difficult.
    image_of: [N] index of the image.
    sizes_hw: [images, 2] height and width of each image, pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    image_of: np.ndarray
    sizes_hw: np.ndarray

    @property
    def real_boxes(self):
        return self.boxes[~self.ignored]

    @property
    def real_labels(self):
        return self.labels[~self.ignored]


def read_split(dataset_info, split) -> SplitObjects:
    """Read the objects of a split without decoding its images; images count in file order.

    Raises BadRecordError.
    """
    boxes = [np.zeros((0, 4), np.float32)]
    labels = [np.zeros(0, np.int32)]
    ignored = [np.zeros(0, bool)]
    image_of = [np.zeros(0, np.int64)]
    sizes_hw = []
    parsed = tf.data.TFRecordDataset(dataset_info.shards(split)).map(
        _parse_without_image, tf.data.AUTOTUNE
    )
    with bad_records.explain_record_errors(dataset_info.folder, split):
        for index, example in enumerate(parsed.as_numpy_iterator()):
            boxes.append(example["boxes"])
            labels.append(example["labels"])
            ignored.append(example["crowd"] | example["difficult"])
            image_of.append(np.full(len(example["labels"]), index))
            sizes_hw.append((example["height"], example["width"]))
    return SplitObjects(
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        ignored=np.concatenate(ignored),
        image_of=np.concatenate(image_of),
        sizes_hw=np.array(sizes_hw, np.int64).reshape(-1, 2),
    )


def _parse_without_image(serialized):
    example = records.parse_example(serialized)
    return {key: value for key, value in example.items() if key != "image"}


def inspect(dataset_info, split, config=None, sheet=None, num_images=16, seed=0) -> list[str]:
    """Print the statistics of a split; return what its records contradict, a line each.

    config: for the coverage by its default boxes, which is printed; sheet: PNG file to draw
    `num_images` random images into.
    """
    names = dataset_info.names
    objects = read_split(dataset_info, split)
    print(
        f"{dataset_info.folder}, split {split!r} of {', '.join(dataset_info.splits)}; "
        f"{count_classes(len(names))}"
    )
    print("\n".join(describe(objects, names)))
    faults = list(find_faults(objects, dataset_info.splits[split], len(names)))
    for fault in faults:
        print(f"WARNING: {fault}", file=sys.stderr)
    if sheet:
        total = len(objects.sizes_hw)
        chosen = np.random.default_rng(seed).choice(total, min(num_images, total), replace=False)
        with bad_records.explain_record_errors(dataset_info.folder, split):
            shown = "all" if len(chosen) == total else f"{len(chosen)} of"
            title = (
                f"{user_files.show_name(dataset_info.folder)}, {split}: {shown} {total:,} images"
            )
            draw_sheet(dataset_info.shards(split), names, chosen.tolist(), title).save(sheet)
        print(f"{len(chosen)} images: {sheet}")
    if config:
        by_level, by_class = coverage.measure(config, objects, names)
        coverage.print_rows("map of the best default box", by_level)
        coverage.print_rows("class", by_class)
        print(coverage.judge(by_class))
    return faults


def draw_sheet(shards, names, chosen, title=""):
    """Shards, class names, indices of images in file order -> a Pillow image of them all."""
    drawn = []
    image_names = []
    chosen = set(chosen)
    for index, serialized in enumerate(tf.data.TFRecordDataset(shards)):
        if index in chosen:
            example = records.parse_example(serialized)
            image = records.decode_stored(example["image"]).numpy()
            example = {key: value.numpy() for key, value in example.items()}
            drawn.append(draw.draw_truth(contact_sheet.scale_to_row(image), example, names))
            image_names.append(records.read_name(example))
    return contact_sheet.make_sheet(drawn, image_names, title)


def describe(objects, names):
    """SplitObjects, class names -> lines: counts, sizes of images and objects, counts by class."""
    num_images = len(objects.sizes_hw)
    per_image = np.bincount(objects.image_of, minlength=num_images)
    yield (
        f"{num_images:,} images, {np.sum(~objects.ignored):,} boxes, "
        f"{objects.ignored.sum():,} ignored"
    )
    yield (
        f"{np.sum(per_image == 0):,} images without objects, "
        f"at most {per_image.max(initial=0)} in one"
    )
    yield f"width x height: {_common_sizes(objects.sizes_hw)}"
    if not len(objects.boxes):
        return
    pixels = (objects.boxes[:, 2:] - objects.boxes[:, :2]) * objects.sizes_hw[objects.image_of]
    yield f"square root of a box's area, pixels: {_percentiles(np.sqrt(pixels.prod(1)))}"
    yield f"width / height of a box: {_percentiles(pixels[:, 1] / pixels[:, 0])}"
    for label, name in enumerate(names, 1):
        of_class = objects.labels == label
        if of_class.any():
            yield f"  {name}: {_describe_class(objects, of_class)}"


def _common_sizes(sizes_hw):
    sizes, counts = np.unique(sizes_hw, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SIZES_SHOWN]
    common = ", ".join(f"{sizes[i][1]} x {sizes[i][0]} ({counts[i]:,})" for i in order)
    more = len(sizes) - len(order)
    return f"{common} and {more} other sizes" if more else common


def _percentiles(values):
    numbers = zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)
    return ", ".join(f"{value:.3g} ({percent} %)" for percent, value in numbers)


def _describe_class(objects, of_class):
    num_images = len(np.unique(objects.image_of[of_class]))
    num_ignored = int(np.sum(of_class & objects.ignored))
    line = f"{np.sum(of_class) - num_ignored:,} in {num_images:,} images"
    return f"{line}, {num_ignored:,} ignored" if num_ignored else line


def find_faults(objects, entry, num_classes):
    """Yield a line for each way in which the records contradict `entry`, or cannot be right.

    entry: the split's entry of dataset.json.
    """
    found = {
        "images": len(objects.sizes_hw),
        "boxes": int(np.sum(~objects.ignored)),
        "ignored": int(objects.ignored.sum()),
    }
    for key, value in found.items():
        if entry.get(key, value) != value:
            yield f"dataset.json says {entry[key]:,} {key}, the records hold {value:,}"
    beyond = objects.labels[(objects.labels < 1) | (objects.labels > num_classes)]
    if len(beyond):
        yield (
            f"{len(beyond):,} objects have a label outside 1 to {num_classes}, "
            f"the first {beyond[0]}"
        )
    invalid = objects.boxes[~validity.is_valid(objects.boxes).all(-1)]
    if len(invalid):
        yield (
            f"{len(invalid):,} boxes have no area or their centre outside the image, "
            f"the first {invalid[0].tolist()}"
        )
