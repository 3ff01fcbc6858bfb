"""Default boxes: the shapes at each cell of each feature map, and the array of all of them.

Order, shared with the heads of the model: level by level, row by row, column by column, then the
shapes of the cell.
Shapes: `A` default boxes, `k` default boxes per cell.
"""

import dataclasses
import itertools
import math
import typing

import numpy as np


@dataclasses.dataclass(frozen=True)
class BoxLevel:
    """The default boxes of one feature map, in pixels of the model's input.

    shapes_hw: height and width of each default box of a cell, in the order of the head's channels.
    step_hw: distance of neighbouring centres; None means input size / map size.
    offset_hw: the first centre, in steps.
    """

    shapes_hw: tuple[tuple[float, float], ...]
    step_hw: tuple[float, float] | None = None
    offset_hw: tuple[float, float] = (0.5, 0.5)

    @classmethod
    def from_sizes(cls, size, next_size=None, aspect_ratios=(), step=None):
        """The shapes of Liu et al. 2016, sec. 2.2, in the order of the original PriorBox layer.

        A square of side `size`, one of side sqrt(size * next_size), then for each ratio r a box of
        width size * sqrt(r) and height size / sqrt(r), followed by its transpose.
        """
        shapes = [(size, size)]
        if next_size is not None:
            shapes.append((math.sqrt(size * next_size),) * 2)
        for ratio in aspect_ratios:
            long = size * math.sqrt(ratio)
            short = size / math.sqrt(ratio)
            shapes += [(short, long), (long, short)]
        return cls(tuple(shapes), None if step is None else (step, step))

    @classmethod
    def from_ratios(cls, sizes_and_ratios):
        """A box of width size * sqrt(ratio) and height size / sqrt(ratio) for each given pair."""
        return cls(
            tuple(
                (size / math.sqrt(ratio), size * math.sqrt(ratio))
                for size, ratio in sizes_and_ratios
            )
        )


def paper_levels(num_levels, input_hw, s_min, s_max, aspect_ratios):
    """BoxLevels by the formula of Liu et al. 2016, sec. 2.2: equally spaced scales s_min to s_max.

    Scales are fractions of the input's shorter side; the last map's second square takes the scale
    that would come next.
    As in the paper, the first map and the last two use the first ratio only.
    """
    spacing = (s_max - s_min) / (num_levels - 1)
    scales = [s_min + spacing * index for index in range(num_levels + 1)]
    sizes = [scale * min(input_hw) for scale in scales]
    levels = []
    for index in range(num_levels):
        few_ratios = index == 0 or index >= num_levels - 2
        ratios = aspect_ratios[:1] if few_ratios else aspect_ratios
        levels.append(BoxLevel.from_sizes(sizes[index], sizes[index + 1], ratios))
    return levels


class _Layout(typing.NamedTuple):
    """What the tables of one number of maps share: aspect ratios and a step for each map."""

    input_side: int
    aspect_ratios: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]


# ssd_pascal.py and ssd_coco.py of the original Caffe code, by the number of maps.
_LAYOUTS = {
    6: _Layout(
        input_side=300,
        aspect_ratios=((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
        steps=(8, 16, 32, 64, 100, 300),
    ),
    7: _Layout(
        input_side=512,
        aspect_ratios=((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
        steps=(8, 16, 32, 64, 128, 256, 512),
    ),
}
# Of the same scripts: sizes in pixels by preset and number of maps; the last serves as next_size.
_SIZES = {
    ("caffe_voc", 6): (30, 60, 111, 162, 213, 264, 315),
    ("caffe_coco", 6): (21, 45, 99, 153, 207, 261, 315),
    ("caffe_voc", 7): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    ("caffe_coco", 7): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
# torchvision's ssd300_vgg16 (fractions .07, .15, ... 1.05 of 300) and NVIDIA's SSD300 have the
# sizes of the COCO table and clip the boxes.
_SAME_SIZES = {"torchvision": "caffe_coco", "nvidia": "caffe_coco"}
# Presets that exist for certain numbers of maps only.
TABLED_PRESETS = ("caffe_voc", "caffe_coco", *_SAME_SIZES)

# How presets clip their boxes, see make_default_boxes; those that are not listed do not.
CLIP: dict[str | None, str] = {
    "torchvision": "size",
    "torchvision_ssdlite": "size",
    "nvidia": "centre_and_size",
}


def preset_levels(name, num_levels, input_hw, integer_sizes):
    """The BoxLevels of a named preset; `paper` has its own function.

    caffe_voc, caffe_coco (300 and 512), torchvision, nvidia (300): the tables of the references. At
    another input size the boxes scale with its shorter side, and neighbouring centres are
    input / map apart instead of the table's steps (for the maps of another network than the
    table's, see `fit_steps`).
    torchvision_ssdlite, od_api: equally spaced scales from .2 to .95 of the shorter side.
    od_api_fpn: 4 strides of the map, from stride 8 on, at every input size.
    integer_sizes truncates the caffe tables to whole pixels, as the original PriorBox layer stored
    them in the released SSD512.
    Raises ValueError for a number of maps that the preset has no table for.
    """
    if name == "torchvision_ssdlite":
        return _ssdlite_levels(num_levels, min(input_hw))
    if name == "od_api":
        return _od_api_levels(num_levels, min(input_hw))
    if name == "od_api_fpn":
        return _od_api_fpn_levels(num_levels, input_hw)
    return _table_levels(name, num_levels, input_hw, integer_sizes)


def _table_levels(name, num_levels, input_hw, integer_sizes):
    key = (_SAME_SIZES.get(name, name), num_levels)
    if key not in _SIZES or (name in _SAME_SIZES and num_levels != 6):
        known = "6 maps" if name in _SAME_SIZES else "6 and 7 maps"
        raise ValueError(f"{name} has a table for {known}, model.num_levels is {num_levels}")
    layout = _LAYOUTS[num_levels]
    steps = layout.steps
    sizes = _SIZES[key]
    if integer_sizes:
        sizes = [int(size) for size in sizes]
    if tuple(input_hw) != (layout.input_side, layout.input_side):
        sizes = [size * min(input_hw) / layout.input_side for size in sizes]
        steps = [None] * num_levels
    rows = zip(sizes[:-1], sizes[1:], layout.aspect_ratios, steps, strict=True)
    return [BoxLevel.from_sizes(*row) for row in rows]


def _spaced_sizes(num_levels, side):
    """Scales .2 to .95 over the maps, then 1, in pixels."""
    scales = [0.2 + 0.75 * index / max(num_levels - 1, 1) for index in range(num_levels)]
    return [side * scale for scale in (*scales, 1.0)]


def _ssdlite_levels(num_levels, side):
    """torchvision's ssdlite320: ratios 2 and 3 on every map; no steps."""
    sizes = _spaced_sizes(num_levels, side)
    return [BoxLevel.from_sizes(*pair, (2.0, 3.0)) for pair in itertools.pairwise(sizes)]


def _od_api_levels(num_levels, side):
    """create_ssd_anchors of the TF Object Detection API.

    The extra square comes last, and the finest map has three boxes per cell only.
    Source: anchor_generators/multiple_grid_anchor_generator.py, reduce_boxes_in_lowest_layer; the
    ratios are those of its SSD configs.
    """
    sizes = _spaced_sizes(num_levels, side)
    levels = [BoxLevel.from_ratios([(0.1 * side, 1.0), (sizes[0], 2.0), (sizes[0], 0.5)])]
    for size, next_size in itertools.pairwise(sizes[1:]):
        shapes = [(size, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        levels.append(BoxLevel.from_ratios([*shapes, (math.sqrt(size * next_size), 1.0)]))
    return levels


def _od_api_fpn_levels(num_levels, input_hw):
    """SSD FPN of the TF Object Detection API: side 4 strides, two scales per octave, three ratios.

    Where the stride does not divide the input, the first centre is at 0 instead of half a stride.
    Source: anchor_generators/multiscale_grid_anchor_generator.py with the values of its ssd_*_fpn_*
    configs.
    """
    levels = []
    for stride in (8 * 2**index for index in range(num_levels)):
        sizes = (4.0 * stride, 4.0 * stride * math.sqrt(2))
        level = BoxLevel.from_ratios([(s, ratio) for ratio in (1.0, 2.0, 0.5) for s in sizes])
        offset_hw = tuple(0.0 if side % stride else 0.5 for side in input_hw)
        levels.append(dataclasses.replace(level, step_hw=(stride, stride), offset_hw=offset_hw))
    return levels


def fit_steps(levels, map_shapes, input_hw):
    """The levels, without a table's step on maps that have other cells than it cuts the input into.

    There, centres are input / map apart. The tables' steps are those of VGG16's maps. The original
    step of 32 on ten cells of 300 pixels (ceil(300 / 32)) stays.
    """
    fitted = []
    for level, map_hw in zip(levels, map_shapes, strict=True):
        step_hw = level.step_hw
        if step_hw is not None:
            sides = zip(input_hw, step_hw, strict=True)
            if tuple(map_hw) != tuple(math.ceil(side / step) for side, step in sides):
                level = BoxLevel(level.shapes_hw)
        fitted.append(level)
    return fitted


def make_default_boxes(levels, map_shapes, input_hw, clip=None, rounding=None) -> np.ndarray:
    """BoxLevels, (height, width) of each map and of the input -> default boxes [A, 4].

    clip: None keeps boxes that extend beyond the border (`clip: false` of the original models);
    "size" limits heights and widths to the input's (torchvision); "centre_and_size" also moves
    centres into it (NVIDIA). No reference clips corners: that would move centres.
    rounding: None, or the fraction of the input that centres and sizes become multiples of.
    Raises ValueError if the numbers of levels and maps differ.
    """
    if len(levels) != len(map_shapes):
        raise ValueError(
            f"{len(levels)} levels of default boxes for {len(map_shapes)} feature maps: "
            "give one level per map"
        )
    pairs = zip(levels, map_shapes, strict=True)
    return np.concatenate(
        [_level_boxes(level, map_hw, input_hw, clip, rounding) for level, map_hw in pairs]
    )


def _level_boxes(level, map_hw, input_hw, clip, rounding):
    step_hw = level.step_hw or (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1])
    centre_y = (np.arange(map_hw[0]) + level.offset_hw[0]) * step_hw[0]
    centre_x = (np.arange(map_hw[1]) + level.offset_hw[1]) * step_hw[1]
    grid = np.stack(np.meshgrid(centre_y, centre_x, indexing="ij"), -1)
    centres = grid[:, :, None]  # [H, W, 1, 2]
    half = np.array(level.shapes_hw) / 2  # [k, 2]
    if clip is not None:
        half = np.minimum(half, np.array(input_hw) / 2)
    if clip == "centre_and_size":
        centres = np.minimum(centres, input_hw)
    if rounding is not None:
        unit = rounding * np.array(input_hw)
        centres = np.round(centres / unit) * unit
        half = np.round(2 * half / unit) * unit / 2
    corners = np.concatenate([centres - half, centres + half], -1)  # [H, W, k, 4]
    return (corners.reshape(-1, 4) / np.tile(input_hw, 2)).astype(np.float32)
