"""The network of a config in tables: layers, cost, default boxes, receptive fields."""

import statistics
import time

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from ssd_tf.class_names import count_classes
from ssd_tf.inference.detector import make_detect
from ssd_tf.models import measure, ssd

_WARMUP_CALLS = 3
_TIMED_CALLS = 15


def print_summary(config, num_classes, is_timed=False):
    """Print the tables of a config's network; is_timed: also how long one image takes."""
    network = ssd.build_model(config, num_classes)
    costs = measure.layer_costs(network.model)
    trainable = measure.trainable_parameters(network.model)
    multiply_adds = sum(cost.multiply_adds for cost in costs)
    height, width = config.model.input_hw
    console = Console(highlight=False)
    console.print(_layer_table(costs))
    console.print(_level_table(config, network))
    console.print(
        f"parameters: {network.model.count_params():,}, of which {trainable:,} are trained "
        f"({count_classes(num_classes)})"
    )
    console.print(f"multiply-adds: {multiply_adds / 1e9:.3f} G for one image of {height} x {width}")
    if is_timed:
        milliseconds = _time_one_image(config, network)
        console.print(f"one image through model and post-processing: {milliseconds:.1f} ms")


def print_markdown_row(name, config, num_classes, is_timed=False):
    """Print the numbers of a config, called `name`, as one row of a Markdown table."""
    network = ssd.build_model(config, num_classes)
    multiply_adds = sum(cost.multiply_adds for cost in measure.layer_costs(network.model))
    height, width = config.model.input_hw
    cells = [
        name,
        f"{height} x {width}",
        f"{len(network.default_boxes):,}",
        f"{measure.trainable_parameters(network.model) / 1e6:.2f}",
        f"{multiply_adds / 1e9:.3f}",
    ]
    if is_timed:
        cells.append(f"{_time_one_image(config, network):.0f}")
    print(f"| {' | '.join(cells)} |")


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
    detect = tf.function(make_detect(config, network), autograph=False)
    image = np.zeros((1, *config.model.input_hw, 3), np.float32)
    seconds = []
    for _ in range(_WARMUP_CALLS + _TIMED_CALLS):
        start = time.perf_counter()
        detect(image)["count"].numpy()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[_WARMUP_CALLS:])
