"""python -m ssd_tf.commands.summary --config C"""

import pathlib
import statistics
import sys
import time

from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline
from ssd_tf.config import load_config

USAGE = """
What a config builds: its layers with their parameters and multiply-adds, the default boxes of each feature map, and how much of
the picture a prediction of that map can see.

  python -m ssd_tf.commands.summary --config configs/NAME.yaml [--classes 80] [--time] [--row] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_integer(
    "classes", 80, "Number of classes without the background.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_bool(
    "time", False, "Also time single pictures through model and post-processing.", flag_values=FLAGS
)
flags.DEFINE_bool("row", False, "Print one row of a Markdown table instead.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config",), argv)


def _main(options, rest):
    config = load_config(options.config, [*options.set, *rest])
    commandline.import_tensorflow()
    from ssd_tf.models import measure, ssd

    network = ssd.build_model(config, options.classes)
    model = network.model
    costs, boxes = measure.layer_costs(model), len(network.default_boxes)
    trainable, adds = measure.trainable_parameters(model), sum(cost.multiply_adds for cost in costs)
    milliseconds = _milliseconds(config, network) if options.time else None
    if options.row:
        height, width = config.model.input_hw
        speed = "" if milliseconds is None else f" {milliseconds:.0f} |"
        name = pathlib.Path(options.config).stem
        print(
            f"| {name} | {height} x {width} | {boxes:,} | {trainable / 1e6:.2f} | {adds / 1e9:.3f} |{speed}"
        )
        return
    console = Console(highlight=False)
    console.print(_layer_table(costs))
    console.print(_level_table(config, network))
    console.print(
        f"parameters: {model.count_params():,}, of which {trainable:,} are trained ({options.classes} classes)"
    )
    console.print(
        f"multiply-adds: {adds / 1e9:.3f} G for one image of {config.model.input_hw[0]} x {config.model.input_hw[1]}"
    )
    if milliseconds is not None:
        console.print(f"one image through model and post-processing: {milliseconds:.1f} ms")


def _layer_table(costs):
    table = Table("layer", "kind", "output", title="Layers with weights")
    for name in ("parameters", "multiply-adds"):
        table.add_column(name, justify="right")
    for cost in costs:
        shape = " x ".join(map(str, cost.shape))
        table.add_row(
            cost.name,
            cost.kind,
            shape,
            f"{cost.parameters:,}",
            f"{cost.multiply_adds:,}" if cost.multiply_adds else "",
        )
    return table


def _level_table(config, network):
    """One row for each feature map: its size, its default boxes as the preset clips them, and how much its predictions see."""
    from ssd_tf.models import measure

    fields = measure.receptive_fields(network.model)
    boxes = network.default_boxes
    table = Table(
        "map",
        "size",
        "a cell",
        "boxes",
        "height x width in pixels",
        "sees",
        title=f"{len(boxes):,} default boxes",
    )
    begin = 0
    for index, (level, (height, width)) in enumerate(
        zip(network.levels, network.map_shapes, strict=True)
    ):
        count = len(level.shapes_hw)
        sizes = (
            boxes[begin : begin + count, 2:] - boxes[begin : begin + count, :2]
        ) * config.model.input_hw  # of the first cell
        shapes = ", ".join(f"{h:.0f} x {w:.0f}" for h, w in sizes)
        sees = f"{fields[f'offsets{index}_conv']} px"
        table.add_row(
            str(index),
            f"{height} x {width}",
            str(count),
            f"{height * width * count:,}",
            shapes,
            sees,
        )
        begin += height * width * count
    return table


def _milliseconds(config, network, repeats=15):
    """Median time of one image of zeros through the compiled detection function, after three calls."""
    import numpy as np
    import tensorflow as tf

    from ssd_tf.inference.detector import make_detect

    detect, image = (
        tf.function(make_detect(config, network)),
        np.zeros((1, *config.model.input_hw, 3), np.float32),
    )
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        detect(image)["count"].numpy()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


if __name__ == "__main__":
    sys.exit(main())
