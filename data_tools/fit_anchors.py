"""Fits the sizes and aspect ratios of a config's default boxes to a data set, and writes them as a file that `base:` can take.

    python -m data_tools.fit_anchors DIR --config configs/NAME.yaml --output fitted.yaml [--split train]

The number of maps and of default boxes a cell stays as it is. To use the result: `base: [NAME.yaml, fitted.yaml]`.
"""

import pathlib
import sys

from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "config", None, "Experiment file whose default boxes are fitted.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "YAML file to write.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to fit to; without it, the config's data.train_split.", flag_values=FLAGS
)
flags.DEFINE_integer("tries", 4000, "Changes that are tried.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Another seed tries other changes.", lower_bound=0, flag_values=FLAGS
)


def measure(levels, map_shapes, input_hw, boxes, clip=None):
    """BoxLevels, their maps, the input, boxes [N, 4] -> coverage Rows by level."""
    from data_tools.analysis import coverage
    from ssd_tf.boxes import default_boxes as default_box_levels

    default_boxes = default_box_levels.make_default_boxes(levels, map_shapes, input_hw, clip)
    index, overlaps = coverage.best_overlaps(boxes, default_boxes)
    names = [f"{height} x {width}" for height, width in map_shapes]
    return coverage.tabulate(coverage.level_of_boxes(levels, map_shapes)[index], overlaps, names)


def write_fragment(path, fitted, comment):
    """fitted: [fitting.LevelShapes] -> YAML with `boxes.levels`, under a comment that tells where it comes from."""
    lines = [f"# {line}" for line in comment.splitlines()] + ["boxes:", "  levels:"]
    for level in fitted:
        values = {
            "size": f"{level.size:.4g}",
            "next_size": level.next_size and f"{level.next_size:.4g}",
        }
        values["aspect_ratios"] = (
            f"[{', '.join(f'{ratio:.3g}' for ratio in level.aspect_ratios)}]"
            if level.aspect_ratios
            else None
        )
        values["step"] = level.step and f"{level.step:.4g}"
        lines.append(
            "    - {" + ", ".join(f"{key}: {value}" for key, value in values.items() if value) + "}"
        )
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def _fit(values, rest):
    if len(rest) != 1:
        raise flags.Error("give one folder of a converted data set (see --help)")
    output = pathlib.Path(values.output)
    if not output.parent.is_dir():
        raise flags.Error(f"--output: there is no folder {output.parent}")
    if output.exists() and output.samefile(values.config):
        raise flags.Error(
            f"--output {output} is --config itself: give another name, and take both with `base:`"
        )
    from ssd_tf.config import load_config
    from ssd_tf.data import dataset_json

    config = load_config(values.config)
    info = dataset_json.read_dataset(rest[0])
    split = values.split or config.data.train_split
    shards = info.shards(split)
    commandline.import_tensorflow()
    from data_tools import inspect_tfrecord
    from data_tools.analysis import fitting, split_objects
    from ssd_tf.boxes import default_boxes as default_box_levels
    from ssd_tf.data import bad_records
    from ssd_tf.models import ssd

    with bad_records.explain_record_errors(rest[0], split):
        boxes = split_objects.read_split(shards).real_boxes
    if not len(boxes):
        raise ValueError(f"the split {split!r} of {rest[0]} has no objects to fit to")
    network = ssd.build_model(config, len(info.classes))
    levels, map_shapes, input_hw = (
        network.levels,
        network.map_shapes,
        config.model.input_hw,
    )
    before = measure(
        levels, map_shapes, input_hw, boxes, default_box_levels.CLIP.get(config.boxes.preset)
    )
    fitted = fitting.fit(levels, map_shapes, input_hw, boxes, values.tries, values.seed)
    after = measure([level.to_anchor_level() for level in fitted], map_shapes, input_hw, boxes)
    inspect_tfrecord.print_coverage("before: map", before)
    inspect_tfrecord.print_coverage("after: map", after)
    change = (
        f"objects with IoU >= 0.5: {before[-1].share:.1%} before, {after[-1].share:.1%} after; "
        f"mean best IoU: {before[-1].mean_iou:.3f} before, {after[-1].mean_iou:.3f} after"
    )
    if after[-1].share < before[-1].share:
        change += "; fewer objects are covered than before: the given boxes are better here"
    comment = f"Default boxes fitted to {len(boxes):,} objects of the split {split!r}, starting from {values.config}.\n{change}."
    write_fragment(values.output, fitted, comment)
    print(
        f"{change}\n{values.output}: take it with `base: [{values.config}, {values.output}]`, paths relative to your file"
    )


def main(argv=None):
    return commandline.run(_fit, FLAGS, __doc__, required=("config", "output"), argv=argv)


if __name__ == "__main__":
    sys.exit(main())
