"""The statistics of a split as lines of text, and what its records contradict."""

import numpy as np

_PERCENTILES = (5, 25, 50, 75, 95)
_SIZES_SHOWN = 3


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
    return ", ".join(f"{value:.3g} ({share} %)" for share, value in numbers)


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
    low = objects.boxes[:, :2]
    high = objects.boxes[:, 2:]
    bad = ~((low >= 0) & (high <= 1) & (high > low)).all(1)
    if bad.any():
        yield (
            f"{bad.sum():,} boxes are degenerate or reach outside 0 to 1, "
            f"the first {objects.boxes[bad][0].tolist()}"
        )
