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
Show what a config builds: its layers with parameters and multiply-adds, the default boxes of each
feature map, and the receptive field of their predictions.

  python -m ssd_tf.commands.summary --config configs/NAME.yaml [--classes 80] [--time] [--row]
      [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_integer(
    "classes", 80, "Number of classes without the background.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_bool(
    "time", False, "Also time the model and post-processing on one image.", flag_values=FLAGS
)
flags.DEFINE_bool("row", False, "Print one row of a Markdown table instead.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "set", [], "KEY=VALUE that replaces a value of the config; repeatable.", flag_values=FLAGS
)
_WARMUP_CALLS = 3
_TIMED_CALLS = 15


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config",), argv)


def _main(values, positional):
    config = load_config(values.config, commandline.read_overrides(values, positional))
    commandline.import_tensorflow()
    from ssd_tf.models import measure, ssd

    network = ssd.build_model(config, values.classes)
    costs = measure.layer_costs(network.model)
    trainable = measure.trainable_parameters(network.model)
    multiply_adds = sum(cost.multiply_adds for cost in costs)
    milliseconds = _time_one_image(config, network) if values.time else None
    if values.row:
        name = pathlib.Path(values.config).stem
        print(_markdown_row(name, network, trainable, multiply_adds, milliseconds))
        return
    height, width = config.model.input_hw
    console = Console(highlight=False)
    console.print(_layer_table(costs))
    console.print(_level_table(config, network))
    console.print(
        f"parameters: {network.model.count_params():,}, of which {trainable:,} are trained "
        f"({values.classes} classes)"
    )
    console.print(f"multiply-adds: {multiply_adds / 1e9:.3f} G for one image of {height} x {width}")
    if milliseconds is not None:
        console.print(f"one image through model and post-processing: {milliseconds:.1f} ms")


def _markdown_row(name, network, trainable, multiply_adds, milliseconds):
    height, width = network.model.input_shape[1:3]
    cells = [
        name,
        f"{height} x {width}",
        f"{len(network.default_boxes):,}",
        f"{trainable / 1e6:.2f}",
        f"{multiply_adds / 1e9:.3f}",
    ]
    if milliseconds is not None:
        cells.append(f"{milliseconds:.0f}")
    return f"| {' | '.join(cells)} |"


def _layer_table(costs):
    table = Table("layer", "kind", "output", title="Layers with weights")
    for name in ("parameters", "multiply-adds"):
        table.add_column(name, justify="right")
    for cost in costs:
        table.add_row(
            cost.name,
            cost.kind,
            " x ".join(map(str, cost.shape)),
            f"{cost.parameters:,}",
            f"{cost.multiply_adds:,}" if cost.multiply_adds else "",
        )
    return table


def _level_table(config, network):
    """One row per feature map: its size, its default boxes and their receptive field.

    Box sizes are those of the first cell, clipped as the preset clips them.
    """
    from ssd_tf.models import measure

    fields = measure.level_fields(network.model)
    boxes = network.default_boxes
    title = f"{len(boxes):,} default boxes"
    table = Table(
        "map",
        "size",
        "per cell",
        "boxes",
        "height x width in pixels",
        "receptive field",
        title=title,
    )
    begin = 0
    for index, (level, map_hw) in enumerate(zip(network.levels, network.map_shapes, strict=True)):
        per_cell = len(level.shapes_hw)
        num_boxes = map_hw[0] * map_hw[1] * per_cell
        first_cell = boxes[begin : begin + per_cell]
        sizes_hw = (first_cell[:, 2:] - first_cell[:, :2]) * config.model.input_hw
        table.add_row(
            str(index),
            f"{map_hw[0]} x {map_hw[1]}",
            str(per_cell),
            f"{num_boxes:,}",
            ", ".join(f"{height:.0f} x {width:.0f}" for height, width in sizes_hw),
            f"{fields[index]} px",
        )
        begin += num_boxes
    return table


def _time_one_image(config, network):
    """Median milliseconds of one black image through the compiled detection function."""
    import numpy as np
    import tensorflow as tf

    from ssd_tf.inference.detector import make_detect

    detect = tf.function(make_detect(config, network))
    image = np.zeros((1, *config.model.input_hw, 3), np.float32)
    seconds = []
    for _ in range(_WARMUP_CALLS + _TIMED_CALLS):
        start = time.perf_counter()
        detect(image)["count"].numpy()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[_WARMUP_CALLS:])


if __name__ == "__main__":
    sys.exit(main())
