"""Searches sizes and aspect ratios of default boxes that overlap given objects well. NumPy only.

Shapes: `N` objects, `L` levels, `S` shapes of a cell. Sizes are pixels of the model's input, as in the config.
"""

import dataclasses
import itertools

import numpy as np

from ssd_tf.boxes.default_boxes import BoxLevel

_MOST_OBJECTS = 10_000  # a sample of so many tells as much
_STEP = (0.3, 0.02)  # standard deviation of a change's logarithm, at the first try and at the last
_LEAST_SIZE = 2.0
_RATIOS = (1.05, 8.0)


@dataclasses.dataclass(frozen=True)
class LevelShapes:
    """One entry of `boxes.levels`."""

    size: float
    next_size: float | None
    aspect_ratios: tuple[float, ...]
    step: float | None = None

    def to_anchor_level(self):
        return BoxLevel.from_sizes(*dataclasses.astuple(self))


def fit(levels, map_shapes, input_hw, boxes, tries, seed) -> list[LevelShapes]:
    """BoxLevels, their maps' (height, width), the input's, normalised boxes [N, 4] -> LevelShapes of as many shapes a cell.

    Hill climbing from the given levels and from sizes spread over those of the objects: a change stays if it raises the mean of
    the best overlaps plus the share of objects with one of at least .5. The result has no smaller a share than the given levels.
    """
    rng = np.random.default_rng(seed)
    if len(boxes) > _MOST_OBJECTS:
        boxes = boxes[np.sort(rng.choice(len(boxes), _MOST_OBJECTS, replace=False))]
    boxes = np.asarray(boxes, float) * np.tile(input_hw, 2)
    given = [_from_anchor_level(level) for level in levels]
    starts = (given, _spread(given, boxes))
    share, _ = _measure(_overlaps(given, map_shapes, input_hw, boxes))
    climbed = [
        _climb(start, map_shapes, input_hw, boxes, tries // len(starts), rng, share)
        for start in starts
    ]
    return max(climbed, key=lambda found: (found[0] >= share, found[1]))[2]


def level_overlaps(level, map_hw, input_hw, boxes):
    """LevelShapes, boxes [N, 4] in pixels -> the best IoU of each with a default box of that level [N].

    A shape overlaps an object most from the cell whose centre is nearest, so only that one is looked at.
    """
    anchor = level.to_anchor_level()
    step = np.array(anchor.step_hw or (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1]))
    cell = np.clip(np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / step), 0, np.array(map_hw) - 1)
    centre = ((cell + 0.5) * step)[:, None]  # [N, 1, 2]
    half = np.array(anchor.shapes_hw) / 2  # [S, 2]
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    shared = (
        (np.minimum(high, centre + half) - np.maximum(low, centre - half)).clip(0).prod(-1)
    )  # [N, S]
    return (shared / ((high - low).prod(-1) + (2 * half).prod(-1) - shared)).max(1)


def _climb(start, map_shapes, input_hw, boxes, tries, rng, least_share):
    """-> (share, score, levels)."""
    levels = list(start)
    overlaps = _overlaps(levels, map_shapes, input_hw, boxes)
    share, score = _measure(overlaps)
    for spread in np.geomspace(*_STEP, max(tries, 1)):
        index = rng.integers(len(levels))
        changed = _change(levels[index], spread, rng)
        if not _in_order([*levels[:index], changed, *levels[index + 1 :]]):
            continue
        others = overlaps.copy()
        others[index] = level_overlaps(changed, map_shapes[index], input_hw, boxes)
        new_share, new_score = _measure(others)
        if new_score > score and new_share >= min(share, least_share):
            levels[index], overlaps, share, score = changed, others, new_share, new_score
    return share, score, levels


def _overlaps(levels, map_shapes, input_hw, boxes):
    return np.array(
        [level_overlaps(*pair, input_hw, boxes) for pair in zip(levels, map_shapes, strict=True)]
    )  # [L, N]


def _in_order(levels):
    # A coarse map sees much of the picture around a cell, and few cells: it is for what is large.
    return all(finer.size <= coarser.size for finer, coarser in itertools.pairwise(levels))


def _measure(overlaps):
    """-> (share of the objects that are covered, score)."""
    best = overlaps.max(0)
    share = np.mean(best >= 0.5)
    return share, best.mean() + share


def _change(level, spread, rng):
    """A level with one of its numbers changed at random."""
    factor = np.exp(rng.normal(0, spread))
    which = rng.integers(2 + len(level.aspect_ratios))
    if which == 0 or (which == 1 and level.next_size is None):
        grown = None if level.next_size is None else level.next_size * factor
        return dataclasses.replace(
            level, size=max(level.size * factor, _LEAST_SIZE), next_size=grown
        )
    if which == 1:
        return dataclasses.replace(level, next_size=max(level.next_size * factor, level.size))
    ratios = list(level.aspect_ratios)
    ratios[which - 2] = float(np.clip(ratios[which - 2] * factor, *_RATIOS))
    return dataclasses.replace(level, aspect_ratios=tuple(sorted(ratios)))


def _from_anchor_level(level):
    """The entry that gives as many shapes; equal to the level's own where those follow the config's scheme."""
    shapes = np.array(level.shapes_hw, float)
    sides, ratios = np.sqrt(shapes.prod(1)), shapes[:, 1] / shapes[:, 0]
    has_next = len(shapes) % 2 == 0
    squares = np.sort(sides[np.isclose(ratios, 1)])
    size = float(squares[0] if len(squares) else sides.min())
    following = float(squares[1] ** 2 / size) if len(squares) > 1 else 2 * size
    wide = sorted({round(float(ratio), 6) for ratio in ratios if ratio > 1.01})
    number = (len(shapes) - 1) // 2
    wide = tuple([*wide, *[2.0 + k for k in range(number)]][:number])
    return LevelShapes(
        size,
        following if has_next else None,
        wide,
        None if level.step_hw is None else level.step_hw[0],
    )


def _spread(levels, boxes):
    """The same levels with sizes at even shares of the objects' sizes, smallest first."""
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    sizes = np.quantile(sides, (np.arange(len(levels)) + 0.5) / len(levels)).clip(_LEAST_SIZE)
    following = [*sizes[1:], sizes[-1] * 1.5]
    return [
        dataclasses.replace(
            level,
            size=float(size),
            next_size=None if level.next_size is None else float(max(after, size)),
        )
        for level, size, after in zip(levels, sizes, following, strict=True)
    ]
