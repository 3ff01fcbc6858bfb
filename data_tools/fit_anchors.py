"""Fit the sizes and aspect ratios of default boxes ("anchors" in other frameworks) to a data set.

    python -m data_tools.fit_anchors DIR --config configs/NAME.yaml --output fitted.yaml

The result is a file that `base:` can take: `base: [NAME.yaml, fitted.yaml]`. The numbers of maps
and of default boxes per cell stay those of the config. No default box becomes longer than what its
map sees of the image (its receptive field).
"""

import os
import pathlib
import sys

from absl import flags

from ssd_tf import commandline, files

FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "config", None, "Experiment file whose default boxes are fitted.", flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "YAML file to write.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to fit to; default: the config's data.train_split.", flag_values=FLAGS
)
flags.DEFINE_integer("tries", 4000, "Number of changes to try.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Another seed tries other changes.", lower_bound=0, flag_values=FLAGS
)
# Longer ones than this share of a receptive field count as limited by it.
_NEAR = 0.95
# How a file of this command begins, by which it knows what it may replace.
_FIRST_LINE = "# Default boxes fitted to"


def fit_to_boxes(network, input_hw, boxes, tries, seed):
    """Fit a network's default boxes to normalised boxes [N, 4]; input_hw: of the network.

    Returns the fitted levels [fitting.LevelSizes], and the coverage Rows by level of the network's
    own default boxes and of the fitted ones.
    """
    from data_tools.analysis import coverage, fitting
    from ssd_tf.boxes import default_boxes
    from ssd_tf.models import measure

    best = coverage.find_best_matches(boxes, network.default_boxes)
    before = coverage.tabulate_levels(best, network.levels, network.map_shapes)
    maps = fitting.FeatureMaps(network.map_shapes, input_hw, measure.level_fields(network.model))
    fitted = fitting.fit(network.levels, maps, boxes, tries, seed)
    levels = [level.to_box_level() for level in fitted]
    fitted_boxes = default_boxes.make_default_boxes(levels, network.map_shapes, input_hw)
    best = coverage.find_best_matches(boxes, fitted_boxes)
    return fitted, before, coverage.tabulate_levels(best, levels, network.map_shapes)


def write_fragment(path, fitted, origin):
    """Write [fitting.LevelSizes] as `boxes.levels` in YAML, below a comment with their origin."""
    lines = [f"{_FIRST_LINE} {origin}".replace("\n", "\n# "), "boxes:", "  levels:"]
    for level in fitted:
        values = [f"size: {level.size:.4g}"]
        if level.next_size:
            values.append(f"next_size: {level.next_size:.4g}")
        if level.aspect_ratios:
            ratios = ", ".join(f"{ratio:.3g}" for ratio in level.aspect_ratios)
            values.append(f"aspect_ratios: [{ratios}]")
        if level.step:
            values.append(f"step: {level.step:.4g}")
        lines.append(f"    - {{{', '.join(values)}}}")
    files.write_text(path, "\n".join(lines) + "\n")


def _fit(values, rest):
    if not rest:
        raise flags.Error("give the folder of a converted data set (see --help)")
    overrides = commandline.read_overrides(values, rest[1:])
    output = pathlib.Path(values.output)
    _check_output(output)
    from ssd_tf.config import load_config
    from ssd_tf.data import dataset_json

    config = load_config(values.config, overrides)
    dataset_info = dataset_json.read_dataset(rest[0])
    split = values.split or config.data.train_split
    shards = dataset_info.shards(split)
    commandline.import_tensorflow()
    from data_tools.analysis import coverage, split_objects
    from ssd_tf.data import bad_records
    from ssd_tf.models import ssd

    with bad_records.explain_record_errors(rest[0], split):
        boxes = split_objects.read_split(shards).real_boxes
    if not len(boxes):
        raise ValueError(f"the split {split!r} of {rest[0]} has no objects to fit to")
    network = ssd.build_model(config, len(dataset_info.classes))
    fitted, before, after = fit_to_boxes(
        network, config.model.input_hw, boxes, values.tries, values.seed
    )
    coverage.print_rows("before: map", before)
    coverage.print_rows("after: map", after)
    change = _describe_change(before[-1], after[-1]) + _describe_limits(fitted, network)
    origin = (
        f"{len(boxes):,} objects of the split {split!r}, "
        f"starting from {' '.join([str(values.config), *overrides])}.\n{change}"
    )
    write_fragment(output, fitted, origin)
    base = os.path.relpath(values.config, output.parent)
    print(f"{change}\nwritten: {output}; a config in that folder uses it with")
    print(f"base: [{base}, {output.name}]")


def _check_output(output):
    if not output.parent.is_dir():
        raise flags.Error(f"--output: there is no folder {output.parent}")
    if output.exists() and not (
        output.is_file() and output.read_bytes().startswith(_FIRST_LINE.encode())
    ):
        raise flags.Error(
            f"--output {output} exists and was not written by this command; give another name, and "
            "use both with `base:`"
        )


def _describe_change(before, after):
    change = (
        f"objects with IoU >= 0.5: {before.share:.1%} before, {after.share:.1%} after; "
        f"mean best IoU: {before.mean_iou:.3f} before, {after.mean_iou:.3f} after"
    )
    if after.share < before.share:
        change += "; fewer objects are covered than before: keep the given boxes"
    return f"{change}."


def _describe_limits(fitted, network):
    """What each map sees, where that limits its default boxes; a line per map."""
    from data_tools.analysis.fitting import LevelSizes
    from ssd_tf.models import measure

    lines = []
    fields = measure.level_fields(network.model)
    for index, (level, own, field) in enumerate(zip(fitted, network.levels, fields, strict=True)):
        own_side = LevelSizes.from_box_level(own).longest_side
        sees = f"\nmap {index} sees {field} pixels of the input"
        if own_side > field:
            lines.append(
                f"{sees}: the config's default boxes of {own_side:.0f} are too long for it."
            )
        elif level.longest_side > _NEAR * field:
            lines.append(f"{sees}, which limits its default boxes ({level.longest_side:.0f}).")
    return "".join(lines)


def main(argv=None):
    return commandline.run(_fit, FLAGS, __doc__, required=("config", "output"), argv=argv)


if __name__ == "__main__":
    sys.exit(main())
