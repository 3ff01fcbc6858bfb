"""Looks at a converted data set: its numbers, and a sheet of its pictures with boxes and class names, ignore regions hatched.

    python -m data_tools.inspect_tfrecord DIR [--split train] [--config configs/NAME.yaml] --output sheet.png

With --config also: how many objects its default boxes reach, by level and by class.
"""

import sys

import numpy as np
from absl import flags

from ssd_tf import commandline
from ssd_tf.data.images import decode_image

FLAGS = commandline.new_flags()
flags.DEFINE_string("split", None, "Split to look at; without it, the first.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", None, "Experiment file, for the coverage by its default boxes.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "PNG file for the sheet of pictures.", flag_values=FLAGS)
flags.DEFINE_integer(
    "pictures", 16, "Number of pictures on the sheet.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0, "Another seed draws other pictures.", lower_bound=0, flag_values=FLAGS
)


def measure_coverage(config, objects, names):
    """Config, SplitObjects, class names -> coverage Rows by level, and by class. Ignored objects are not counted."""
    from data_tools.analysis import coverage
    from ssd_tf.models import ssd

    network = ssd.build_model(config, len(names))
    index, overlaps = coverage.best_overlaps(objects.real_boxes, network.default_boxes)
    map_shapes = network.map_shapes
    level = coverage.level_of_boxes(network.levels, map_shapes)[index]
    by_level = coverage.tabulate(
        level, overlaps, [f"{height} x {width}" for height, width in map_shapes]
    )
    return by_level, coverage.tabulate(objects.real_labels - 1, overlaps, names)


def draw_sheet(shards, names, chosen):
    """Shards, class names, indices of pictures in file order -> a Pillow image of them all."""
    import tensorflow as tf

    from ssd_tf import draw
    from ssd_tf.data import records

    pictures, chosen = [], set(chosen)
    for index, serialized in enumerate(tf.data.TFRecordDataset(shards)):
        if index in chosen:
            example = records.parse_example(serialized)
            labels = example["labels"].numpy()
            hatched = (example["crowd"] | example["difficult"]).numpy()
            captions = [draw.name_of(label, names) for label in labels]
            image = decode_image(example["image"]).numpy()
            pictures.append(
                draw.draw_boxes(image, example["boxes"].numpy(), labels, captions, hatched)
            )
    return draw.contact_sheet(pictures)


def describe(objects, names):
    """SplitObjects, class names -> lines of text: counts, sizes of pictures and of objects, numbers by class."""
    images = len(objects.sizes_hw)
    per_image = np.bincount(objects.image_of, minlength=images)
    yield f"{images:,} images, {np.sum(~objects.ignored):,} boxes, {objects.ignored.sum():,} ignored"
    yield f"{np.sum(per_image == 0):,} images without objects, at most {per_image.max(initial=0)} in one"
    sizes, counts = np.unique(objects.sizes_hw, axis=0, return_counts=True)
    common = ", ".join(
        f"{sizes[k][1]} x {sizes[k][0]} ({counts[k]:,})"
        for k in np.argsort(-counts, kind="stable")[:3]
    )
    yield f"width x height: {common}{f' and {len(sizes) - 3} other sizes' if len(sizes) > 3 else ''}"
    if not len(objects.boxes):
        return
    pixels = (objects.boxes[:, 2:] - objects.boxes[:, :2]) * objects.sizes_hw[objects.image_of]
    side, aspect = np.sqrt(pixels.prod(1)), pixels[:, 1] / pixels[:, 0]
    yield f"square root of a box's area, pixels: {_percentiles(side)}"
    yield f"width / height of a box: {_percentiles(aspect)}"
    for label, name in enumerate(names, 1):
        mine = objects.labels == label
        if mine.any():
            images = len(np.unique(objects.image_of[mine]))
            ignored = int(np.sum(mine & objects.ignored))
            yield f"  {name}: {np.sum(mine) - ignored:,} in {images:,} images" + (
                f", {ignored:,} ignored" if ignored else ""
            )


def _percentiles(values):
    numbers = zip((5, 25, 50, 75, 95), np.percentile(values, (5, 25, 50, 75, 95)), strict=True)
    return ", ".join(f"{value:.3g} ({share} %)" for share, value in numbers)


def find_faults(objects, entry, classes):
    """What the records contradict: dataset.json's counts, or sense. Yields lines."""
    found = {
        "images": len(objects.sizes_hw),
        "boxes": int(np.sum(~objects.ignored)),
        "ignored": int(objects.ignored.sum()),
    }
    for key, value in found.items():
        if entry.get(key, value) != value:
            yield f"dataset.json says {entry[key]:,} {key}, the records hold {value:,}"
    beyond = objects.labels[(objects.labels < 1) | (objects.labels > classes)]
    if len(beyond):
        yield f"{len(beyond):,} objects have a label outside 1 to {classes}, the first {beyond[0]}"
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    bad = ~((low >= 0) & (high <= 1) & (high > low)).all(1)
    if bad.any():
        yield f"{bad.sum():,} boxes are degenerate or reach outside 0 to 1, the first {objects.boxes[bad][0].tolist()}"


def print_coverage(title, rows):
    import rich.box
    import rich.console
    import rich.markup
    import rich.table

    table = rich.table.Table(
        title, "objects", "IoU >= 0.5", "share", "forced only", "mean best IoU", box=rich.box.SIMPLE
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        if row.objects or row.name == "all":
            shares = (f"{row.share:.1%}", f"{row.mean_iou:.3f}") if row.objects else ("", "")
            numbers = (
                f"{row.objects:,}",
                f"{row.covered:,}",
                shares[0],
                f"{row.forced:,}",
                shares[1],
            )
            table.add_row(rich.markup.escape(row.name), *numbers)
    rich.console.Console().print(table)


def _inspect(values, rest):
    if len(rest) != 1:
        raise flags.Error("give one folder of a converted data set (see --help)")
    if values.output and not values.output.lower().endswith(".png"):
        raise flags.Error(f"--output wants the name of a PNG file, found {values.output!r}")
    from ssd_tf.config import load_config
    from ssd_tf.data import dataset_json

    config = load_config(values.config) if values.config else None
    info = dataset_json.read_dataset(rest[0])
    if not info.splits:
        raise ValueError(f"{rest[0]}/dataset.json lists no split; convert the data again")
    split = values.split or next(iter(info.splits))
    shards = info.shards(split)
    commandline.import_tensorflow()
    from data_tools.analysis import split_objects
    from ssd_tf.data import bad_records

    with bad_records.explain_record_errors(rest[0], split):
        objects = split_objects.read_split(shards)
    print(f"{rest[0]}, split {split!r} of {', '.join(info.splits)}; {len(info.names)} classes")
    print("\n".join(describe(objects, info.names)))
    faults = list(find_faults(objects, info.splits[split], len(info.names)))
    for fault in faults:
        print(f"WARNING: {fault}", file=sys.stderr)
    if values.output:
        number = min(values.pictures, len(objects.sizes_hw))
        chosen = np.random.default_rng(values.seed).choice(
            len(objects.sizes_hw), number, replace=False
        )
        with bad_records.explain_record_errors(rest[0], split):
            draw_sheet(shards, info.names, chosen.tolist()).save(values.output)
        print(f"{number} pictures: {values.output}")
    if config:
        by_level, by_class = measure_coverage(config, objects, info.names)
        print_coverage("map of the best default box", by_level)
        print_coverage("class", by_class)
    return 1 if faults else 0


def main(argv=None):
    return commandline.run(_inspect, FLAGS, __doc__, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
