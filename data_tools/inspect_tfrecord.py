"""Look at a converted data set: its statistics, and a sheet of its images with their boxes.

    python -m data_tools.inspect_tfrecord DIR [--split train] [--config C] --output sheet.png

On the sheet, boxes have class names, and ignored regions are hatched. With --config also: how many
objects its default boxes cover, by level and by class.
"""

import sys

import numpy as np
from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_string("split", None, "Split to look at; default: the first.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", None, "Experiment file, for the coverage by its default boxes.", flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "PNG file for the sheet of images.", flag_values=FLAGS)
flags.DEFINE_integer(
    "images", 16, "Number of images on the sheet.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0, "Another seed draws other images.", lower_bound=0, flag_values=FLAGS
)


def measure_coverage(config, objects, names):
    """Config, SplitObjects, class names -> coverage Rows by level, and by class.

    Ignored objects are not counted.
    """
    from data_tools.analysis import coverage
    from ssd_tf.models import ssd

    network = ssd.build_model(config, len(names))
    best = coverage.find_best_matches(objects.real_boxes, network.default_boxes)
    by_level = coverage.tabulate_levels(best, network.levels, network.map_shapes)
    return by_level, coverage.tabulate(objects.real_labels - 1, best.iou, names)


def draw_sheet(shards, names, chosen):
    """Shards, class names, indices of images in file order -> a Pillow image of them all."""
    import tensorflow as tf

    from ssd_tf import draw
    from ssd_tf.data import records
    from ssd_tf.data.images import decode_stored

    drawn = []
    chosen = set(chosen)
    for index, serialized in enumerate(tf.data.TFRecordDataset(shards)):
        if index in chosen:
            example = records.parse_example(serialized)
            image = decode_stored(example["image"]).numpy()
            boxes = example["boxes"].numpy()
            labels = example["labels"].numpy()
            hatched = (example["crowd"] | example["difficult"]).numpy()
            captions = [draw.name_of(label, names) for label in labels]
            drawn.append(draw.draw_boxes(image, boxes, labels, captions, hatched))
    return draw.contact_sheet(drawn)


def _inspect(values, rest):
    if not rest:
        raise flags.Error("give the folder of a converted data set (see --help)")
    overrides = commandline.read_overrides(values, rest[1:])
    if values.output and not values.output.lower().endswith(".png"):
        raise flags.Error(f"--output: expected the name of a PNG file, got {values.output!r}")
    from ssd_tf.config import load_config
    from ssd_tf.data import dataset_json

    config = load_config(values.config, overrides) if values.config else None
    dataset_info = dataset_json.read_dataset(rest[0])
    if not dataset_info.splits:
        raise ValueError(f"{rest[0]}/dataset.json lists no split; convert the data again")
    split = values.split or next(iter(dataset_info.splits))
    shards = dataset_info.shards(split)
    commandline.import_tensorflow()
    from data_tools.analysis import coverage, split_objects, summary
    from ssd_tf.data import bad_records

    with bad_records.explain_record_errors(rest[0], split):
        objects = split_objects.read_split(shards)
    print(
        f"{rest[0]}, split {split!r} of {', '.join(dataset_info.splits)}; "
        f"{len(dataset_info.names)} classes"
    )
    print("\n".join(summary.describe(objects, dataset_info.names)))
    faults = list(summary.find_faults(objects, dataset_info.splits[split], len(dataset_info.names)))
    for fault in faults:
        print(f"WARNING: {fault}", file=sys.stderr)
    if values.output:
        num_images = min(values.images, len(objects.sizes_hw))
        rng = np.random.default_rng(values.seed)
        chosen = rng.choice(len(objects.sizes_hw), num_images, replace=False)
        with bad_records.explain_record_errors(rest[0], split):
            draw_sheet(shards, dataset_info.names, chosen.tolist()).save(values.output)
        print(f"{num_images} images: {values.output}")
    if config:
        by_level, by_class = measure_coverage(config, objects, dataset_info.names)
        coverage.print_rows("map of the best default box", by_level)
        coverage.print_rows("class", by_class)
    return 1 if faults else 0


def main(argv=None):
    return commandline.run(_inspect, FLAGS, __doc__, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
