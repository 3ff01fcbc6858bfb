"""Default boxes: which shapes sit at each cell of each feature map, and the array of all of them.

Order, shared with the heads of the model: level by level, row by row, column by column, then the shapes of the cell.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class AnchorLevel:
    """The default boxes of one feature map, in pixels of the model's input.

    shapes_hw: height and width of each default box of a cell, in the order of the head's channels.
    step_hw: distance of neighbouring centres; None means input size / map size.
    """

    shapes_hw: tuple[tuple[float, float], ...]
    step_hw: tuple[float, float] | None = None

    @classmethod
    def from_sizes(cls, size, next_size=None, aspect_ratios=(), step=None):
        """The shapes of Liu et al. 2016, sec. 2.2, in the order of the authors' PriorBox layer.

        A square of side `size`, one of side sqrt(size * next_size), then for each ratio r a box of
        width size * sqrt(r) and height size / sqrt(r), followed by the same turned upright.
        """
        shapes = [(size, size)]
        if next_size is not None:
            shapes.append((math.sqrt(size * next_size),) * 2)
        for ratio in aspect_ratios:
            long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
            shapes += [(short, long), (long, short)]
        return cls(tuple(shapes), None if step is None else (step, step))


def paper_levels(number, input_hw, s_min=0.2, s_max=0.9, s_first=None, aspect_ratios=(2.0, 3.0)):
    """The formula of Liu et al. 2016, sec. 2.2: scales on a line from s_min to s_max over the `number` maps.

    Scales are shares of the input's shorter side; the line goes on for the last map's second square.
    Where `s_first` is given, the first map has that scale and the line spans the others (sec. 3.1: 0.1 for conv4_3).
    As there, the first map and the last two leave out every ratio but the first.
    """
    on_line = number if s_first is None else number - 1
    step = (s_max - s_min) / max(on_line - 1, 1)
    scales = [] if s_first is None else [s_first]
    scales += [s_min + step * k for k in range(on_line + 1)]
    sizes = [scale * min(input_hw) for scale in scales]
    levels = []
    for k in range(number):
        ratios = aspect_ratios[:1] if k == 0 or k >= number - 2 else aspect_ratios
        levels.append(AnchorLevel.from_sizes(sizes[k], sizes[k + 1], ratios))
    return levels


# Authors' ssd_pascal.py and ssd_coco.py: size, next size, aspect ratios, step, in pixels at 300 x 300.
_RATIOS_300 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
_STEPS_300 = (8, 16, 32, 64, 100, 300)
_SIZES_300 = {
    "caffe_voc": (30, 60, 111, 162, 213, 264, 315),
    "caffe_coco": (21, 45, 99, 153, 207, 261, 315),
}


def caffe_levels(name):
    """The table `caffe_voc` or `caffe_coco` of the authors' released SSD300 models."""
    sizes = _SIZES_300[name]
    return [
        AnchorLevel.from_sizes(size, following, ratios, step)
        for size, following, ratios, step in zip(sizes[:-1], sizes[1:], _RATIOS_300, _STEPS_300, strict=True)
    ]


def make_default_boxes(levels, map_shapes, input_hw) -> np.ndarray:
    """AnchorLevels, the (height, width) of each map and of the input -> default boxes [A, 4].

    Nothing is clipped: boxes may reach over the border, as in the authors' models (`clip: false`).
    Raises ValueError where the number of levels and of maps differ.
    """
    if len(levels) != len(map_shapes):
        raise ValueError(f"{len(levels)} levels of default boxes for {len(map_shapes)} feature maps: give one level a map")
    return np.concatenate([_level_boxes(*pair, input_hw) for pair in zip(levels, map_shapes, strict=True)])


def _level_boxes(level, map_hw, input_hw):
    step_hw = level.step_hw or (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1])
    centre_y = (np.arange(map_hw[0]) + 0.5) * step_hw[0]
    centre_x = (np.arange(map_hw[1]) + 0.5) * step_hw[1]
    centres = np.stack(np.meshgrid(centre_y, centre_x, indexing="ij"), -1)[:, :, None]  # [H, W, 1, 2]
    half = np.array(level.shapes_hw) / 2  # [k, 2]
    corners = np.concatenate([centres - half, centres + half], -1)  # [H, W, k, 4]
    return (corners.reshape(-1, 4) / np.tile(input_hw, 2)).astype(np.float32)
