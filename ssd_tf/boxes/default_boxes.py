"""Default boxes: which shapes sit at each cell of each feature map, and the array of all of them.

Order, shared with the heads of the model: level by level, row by row, column by column, then the shapes of the cell.
"""

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class BoxLevel:
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
        levels.append(BoxLevel.from_sizes(sizes[k], sizes[k + 1], ratios))
    return levels


# Authors' ssd_pascal.py and ssd_coco.py: sizes in pixels at 300 x 300 (six maps) and at 512 x 512 (seven), the last only "next".
_TABLES = {
    ("caffe_voc", 6): (30, 60, 111, 162, 213, 264, 315),
    ("caffe_coco", 6): (21, 45, 99, 153, 207, 261, 315),
    ("caffe_voc", 7): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    ("caffe_coco", 7): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
# Number of maps -> the input's side, the aspect ratios and the steps that belong to these tables.
_LAYOUTS = {
    6: (300, ((2.0,), *[(2.0, 3.0)] * 3, (2.0,), (2.0,)), (8, 16, 32, 64, 100, 300)),
    7: (512, ((2.0,), *[(2.0, 3.0)] * 4, (2.0,), (2.0,)), (8, 16, 32, 64, 128, 256, 512)),
}
# torchvision's ssd300_vgg16 (fractions .07, .15, ... 1.05 of 300) and NVIDIA's SSD300 have the COCO sizes and clip them.
_SAME_SIZES = {"torchvision": "caffe_coco", "nvidia": "caffe_coco"}
# Presets that exist for certain numbers of maps only.
TABLED_PRESETS = ("caffe_voc", "caffe_coco", *_SAME_SIZES)

# What a preset shortens; see make_default_boxes. The others clip nothing.
CLIP = {"torchvision": "size", "torchvision_ssdlite": "size", "nvidia": "centre_and_size"}


def preset_levels(name, number, input_hw, integer_sizes=False):
    """The BoxLevels of a named preset for `number` maps of an input; `paper` has its own function.

    caffe_voc, caffe_coco (300 and 512), torchvision, nvidia (300): the references' tables. At another input size the boxes scale
    with its shorter side, and neighbouring centres are input / map apart instead of the table's steps (for maps of another
    network than the table's, see `fit_steps`).
    torchvision_ssdlite, od_api: scales on a line from .2 to .95 of the shorter side over any number of maps.
    od_api_fpn: 4 strides of the map, from stride 8 on, whatever the input.
    integer_sizes cuts the caffe tables to whole pixels, as the authors' PriorBox layer held them in the released SSD512.
    Raises ValueError for a number of maps that the preset has no table for.
    """
    if name == "torchvision_ssdlite":
        return _ssdlite_levels(number, min(input_hw))
    if name == "od_api":
        return _od_api_levels(number, min(input_hw))
    if name == "od_api_fpn":
        return _od_api_fpn_levels(number)
    table = (_SAME_SIZES.get(name, name), number)
    if table not in _TABLES or (name in _SAME_SIZES and number != 6):
        known = "6 maps" if name in _SAME_SIZES else "6 and 7 maps"
        raise ValueError(f"{name} has a table for {known}, model.num_levels is {number}")
    side, ratios, steps = _LAYOUTS[number]
    sizes = _TABLES[table] if not integer_sizes else [int(size) for size in _TABLES[table]]
    if tuple(input_hw) != (side, side):
        sizes, steps = [size * min(input_hw) / side for size in sizes], [None] * number
    pairs = zip(sizes[:-1], sizes[1:], ratios, steps, strict=True)
    return [
        BoxLevel.from_sizes(size, following, some, step) for size, following, some, step in pairs
    ]


def fit_steps(levels, map_shapes, input_hw):
    """The levels, without a table's step where the map has other cells than that step cuts the input into: input / map then.

    The tables' steps are those of VGG16's maps. The authors' 32 on ten cells of 300 pixels (ceil(300 / 32)) stays.
    """
    fitted = []
    for level, map_hw in zip(levels, map_shapes, strict=True):
        step_hw = level.step_hw
        if step_hw and tuple(map_hw) != tuple(
            math.ceil(side / step) for side, step in zip(input_hw, step_hw, strict=True)
        ):
            step_hw = None
        fitted.append(dataclasses.replace(level, step_hw=step_hw))
    return fitted


def _line(number, side, last):
    """Scales .2 to .95 over `number` maps, then `last`, in pixels."""
    return [side * (0.2 + 0.75 * k / max(number - 1, 1)) for k in range(number)] + [side * last]


def _ssdlite_levels(number, side):
    """torchvision's ssdlite320: ratios 2 and 3 on every map; no steps."""
    sizes = _line(number, side, 1.0)
    return [BoxLevel.from_sizes(*pair, (2.0, 3.0)) for pair in itertools.pairwise(sizes)]


def _od_api_levels(number, side):
    """TF Object Detection API, create_ssd_anchors: the extra square comes last, and the finest map has three boxes only.

    Source: anchor_generators/multiple_grid_anchor_generator.py, reduce_boxes_in_lowest_layer; ratios as in its SSD configs.
    """
    sizes = _line(number, side, 1.0)
    levels = [_shapes([(0.1 * side, 1.0), (sizes[0], 2.0), (sizes[0], 0.5)])]
    for size, following in itertools.pairwise(sizes[1:]):
        pairs = [(size, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)]
        levels.append(_shapes([*pairs, (math.sqrt(size * following), 1.0)]))
    return levels


def _od_api_fpn_levels(number):
    """TF Object Detection API's SSD FPN: side 4 strides, two scales an octave, ratios 1, 2 and 1/2 on every map.

    Source: anchor_generators/multiscale_grid_anchor_generator.py with the values of its ssd_*_fpn_* configs.
    """
    sizes = [(4.0 * 8 * 2**k, 4.0 * 8 * 2 ** (k + 0.5)) for k in range(number)]
    return [
        _shapes([(size, ratio) for ratio in (1.0, 2.0, 0.5) for size in pair]) for pair in sizes
    ]


def _shapes(pairs):
    """(size, ratio) of each shape of a cell -> BoxLevel."""
    return BoxLevel(
        tuple((size / math.sqrt(ratio), size * math.sqrt(ratio)) for size, ratio in pairs)
    )


def make_default_boxes(levels, map_shapes, input_hw, clip=None) -> np.ndarray:
    """BoxLevels, the (height, width) of each map and of the input -> default boxes [A, 4].

    clip: None leaves boxes over the border as they are (the authors' models: `clip: false`); "size" makes none larger than the
    input (torchvision); "centre_and_size" also moves centres into it (NVIDIA). No reference clips corners: that moves centres.
    Raises ValueError where the number of levels and of maps differ.
    """
    if len(levels) != len(map_shapes):
        raise ValueError(
            f"{len(levels)} levels of default boxes for {len(map_shapes)} feature maps: give one level a map"
        )
    return np.concatenate(
        [_level_boxes(*pair, input_hw, clip) for pair in zip(levels, map_shapes, strict=True)]
    )


def _level_boxes(level, map_hw, input_hw, clip):
    step_hw = level.step_hw or (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1])
    centre_y = (np.arange(map_hw[0]) + 0.5) * step_hw[0]
    centre_x = (np.arange(map_hw[1]) + 0.5) * step_hw[1]
    centres = np.stack(np.meshgrid(centre_y, centre_x, indexing="ij"), -1)[
        :, :, None
    ]  # [H, W, 1, 2]
    half = np.array(level.shapes_hw) / 2  # [k, 2]
    if clip is not None:
        half = np.minimum(half, np.array(input_hw) / 2)
    if clip == "centre_and_size":
        centres = np.minimum(centres, input_hw)
    corners = np.concatenate([centres - half, centres + half], -1)  # [H, W, k, 4]
    return (corners.reshape(-1, 4) / np.tile(input_hw, 2)).astype(np.float32)
