"""Search sizes and aspect ratios of default boxes that overlap the objects of a split well.

Shapes: `N` objects, `L` levels, `S` default boxes per cell. Sizes are pixels of the model's input,
as in the config.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from data_tools.analysis import coverage, inspection
from ssd_tf.boxes import geometry
from ssd_tf.boxes.default_boxes import BoxLevel, make_default_boxes
from ssd_tf.models import measure, ssd

_MAX_OBJECTS = 10_000  # more objects give no better fit
_CHANGE_STD = (0.3, 0.02)  # of the logarithm of a change, at the first try and at the last
_MIN_SIZE = 2.0
_RATIOS = (1.05, 8.0)
# Boxes longer than this fraction of a receptive field count as limited by it.
_NEAR = 0.95


class Fitted(NamedTuple):
    """objects: to what default boxes were fitted; change: what that changes, lines of text.

    yaml: the fitted boxes as `boxes.levels` of a config.
    """

    objects: str
    change: str
    yaml: str


def fit_split(dataset_info, split, config, tries, seed) -> Fitted:
    """Fit a config's default boxes to a split; print their coverage before and after.

    tries, seed: as for `fit`. Raises ValueError if the split has no objects.
    """
    boxes = inspection.read_split(dataset_info, split).real_boxes
    if not len(boxes):
        raise ValueError(f"the split {split!r} of {dataset_info.folder} has no objects to fit to")
    network = ssd.build_model(config, len(dataset_info.classes))
    fields = measure.level_fields(network.model)
    maps = FeatureMaps(network.map_shapes, config.model.input_hw, tuple(fields))
    fitted = fit(network.levels, maps, boxes, tries, seed)
    levels = [level.to_box_level() for level in fitted]
    fitted_boxes = make_default_boxes(levels, maps.shapes_hw, maps.input_hw)
    before, after = (
        coverage.tabulate_levels(best, iou, network.levels, maps.shapes_hw)
        for best, iou in (
            geometry.best_overlaps(boxes, network.default_boxes),
            geometry.best_overlaps(boxes, fitted_boxes),
        )
    )
    coverage.print_rows("before: map", before)
    coverage.print_rows("after: map", after)
    change = _describe_change(before[-1], after[-1]) + _describe_limits(fitted, network, fields)
    return Fitted(f"{len(boxes):,} objects of the split {split!r}", change, _to_yaml(fitted))


def _describe_change(before, after):
    change = (
        f"objects with IoU >= 0.5: {before.fraction:.1%} before, {after.fraction:.1%} after; "
        f"mean best IoU: {before.mean_iou:.3f} before, {after.mean_iou:.3f} after"
    )
    if after.fraction < before.fraction:
        change += "; fewer objects are covered than before: keep the given boxes"
    return f"{change}."


def _describe_limits(fitted, network, fields):
    """The receptive fields that limit their map's default boxes; a line per map."""
    lines = []
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


def _to_yaml(fitted):
    lines = ["boxes:", "  levels:"]
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
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class LevelSizes:
    """The numbers that the search changes, and the keys of an entry of `boxes.levels`.

    A BoxLevel holds the shapes that follow from them.
    """

    size: float
    next_size: float | None
    aspect_ratios: tuple[float, ...]
    step: float | None = None

    @classmethod
    def from_box_level(cls, level):
        """The numbers that give as many shapes as a BoxLevel has.

        They give the level's own shapes if those follow from a size and aspect ratios.
        """
        shapes = np.array(level.shapes_hw, float)
        sides = np.sqrt(shapes.prod(1))
        ratios = shapes[:, 1] / shapes[:, 0]
        squares = np.sort(sides[np.isclose(ratios, 1)])
        size = float(squares[0] if len(squares) else sides.min())
        next_size = None
        if len(shapes) % 2 == 0:
            next_size = float(squares[1] ** 2 / size) if len(squares) > 1 else 2 * size
        num_ratios = (len(shapes) - 1) // 2
        wide = sorted({round(float(ratio), 6) for ratio in ratios if ratio > 1.01})
        wide += [2.0 + i for i in range(num_ratios)]
        step = None if level.step_hw is None else level.step_hw[0]
        return cls(size, next_size, tuple(wide[:num_ratios]), step)

    def to_box_level(self):
        return BoxLevel.from_sizes(self.size, self.next_size, self.aspect_ratios, self.step)

    @property
    def longest_side(self) -> float:
        return max(map(max, self.to_box_level().shapes_hw))


@dataclasses.dataclass(frozen=True)
class FeatureMaps:
    """shapes_hw: height and width of each feature map; input_hw: of the model's input, pixels.

    fields: side of the square that a position of each map sees (measure.receptive_fields), pixels.
    """

    shapes_hw: tuple[tuple[int, int], ...]
    input_hw: tuple[int, int]
    fields: tuple[float, ...]


class _Fit(NamedTuple):
    """coverage: fraction of the objects that are covered; score: what the search raises."""

    coverage: float
    score: float
    levels: list[LevelSizes]


def fit(levels, maps, boxes, tries, seed) -> list[LevelSizes]:
    """BoxLevels, their FeatureMaps, normalised boxes [N, 4] -> sizes of as many shapes per cell.

    Hill climbing, from the given levels and from sizes spread over those of the objects. A change
    stays if it raises the mean of the best IoUs plus the fraction of objects whose best IoU is at
    least .5. No side of a default box is longer than what its map sees: the edges of an object
    beyond it could only be guessed. The result does not cover a smaller fraction of the objects
    than the given levels, shrunk until they keep to that.
    """
    rng = np.random.default_rng(seed)
    if len(boxes) > _MAX_OBJECTS:
        boxes = boxes[np.sort(rng.choice(len(boxes), _MAX_OBJECTS, replace=False))]
    boxes = np.asarray(boxes, float) * np.tile(maps.input_hw, 2)
    given = [LevelSizes.from_box_level(level) for level in levels]
    starts = [shrink_to_fields(start, maps.fields) for start in (given, _spread(given, boxes))]
    given = starts[0]
    covered, _ = _measure(_overlaps(given, maps, boxes))
    fits = [_climb(start, maps, boxes, tries // len(starts), rng, covered) for start in starts]
    return max(fits, key=lambda found: (found.coverage >= covered, found.score)).levels


def shrink_to_fields(levels, fields):
    """The levels, the sizes of those with sides above their field made smaller; still in order."""
    shrunk = []
    next_size = np.inf
    for level, field in zip(reversed(levels), reversed(fields), strict=True):
        factor = min(1, field / level.longest_side, next_size / level.size)
        if factor < 1:
            next_size = None if level.next_size is None else level.next_size * factor
            level = dataclasses.replace(level, size=level.size * factor, next_size=next_size)
        next_size = level.size
        shrunk.append(level)
    return shrunk[::-1]


def level_overlaps(level, map_hw, input_hw, boxes):
    """LevelSizes, boxes [N, 4] in pixels -> the best IoU of each with a box of the level [N].

    A shape overlaps an object most from the cell with the nearest centre, so only that is measured.
    """
    box_level = level.to_box_level()
    step = np.array(box_level.step_hw or (input_hw[0] / map_hw[0], input_hw[1] / map_hw[1]))
    cell = np.clip(np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / step), 0, np.array(map_hw) - 1)
    centre = ((cell + 0.5) * step)[:, None]  # [N, 1, 2]
    half = np.array(box_level.shapes_hw) / 2  # [S, 2]
    low = boxes[:, None, :2]
    high = boxes[:, None, 2:]
    sides = np.minimum(high, centre + half) - np.maximum(low, centre - half)  # [N, S, 2]
    shared = sides.clip(0).prod(-1)
    return (shared / ((high - low).prod(-1) + (2 * half).prod(-1) - shared)).max(1)


def _climb(start, maps, boxes, tries, rng, min_covered):
    levels = list(start)
    overlaps = _overlaps(levels, maps, boxes)
    covered, score = _measure(overlaps)
    for std in np.geomspace(*_CHANGE_STD, max(tries, 1)):
        index = rng.integers(len(levels))
        changed = _change(levels[index], std, rng)
        if changed.longest_side > maps.fields[index]:
            continue
        if not _in_order([*levels[:index], changed, *levels[index + 1 :]]):
            continue
        new_overlaps = overlaps.copy()
        new_overlaps[index] = level_overlaps(changed, maps.shapes_hw[index], maps.input_hw, boxes)
        new_covered, new_score = _measure(new_overlaps)
        if new_score > score and new_covered >= min(covered, min_covered):
            levels[index] = changed
            overlaps = new_overlaps
            covered = new_covered
            score = new_score
    return _Fit(covered, score, levels)


def _overlaps(levels, maps, boxes):
    """The best IoU of each object with the default boxes of each level [L, N]."""
    pairs = zip(levels, maps.shapes_hw, strict=True)
    return np.array([level_overlaps(*pair, maps.input_hw, boxes) for pair in pairs])


def _in_order(levels):
    # A coarse map has few cells, and each sees much of the image: it is for large objects.
    return all(finer.size <= coarser.size for finer, coarser in itertools.pairwise(levels))


def _measure(overlaps):
    """-> (fraction of the objects that are covered, score)."""
    best = overlaps.max(0)
    covered = np.mean(best >= 0.5)
    return covered, best.mean() + covered


def _change(level, std, rng):
    """The level with one of its numbers changed at random."""
    factor = np.exp(rng.normal(0, std))
    index = rng.integers(2 + len(level.aspect_ratios))
    if index == 0 or (index == 1 and level.next_size is None):
        size = max(level.size * factor, _MIN_SIZE)
        next_size = None if level.next_size is None else level.next_size * factor
        return dataclasses.replace(level, size=size, next_size=next_size)
    if index == 1:
        return dataclasses.replace(level, next_size=max(level.next_size * factor, level.size))
    ratios = list(level.aspect_ratios)
    ratios[index - 2] = float(np.clip(ratios[index - 2] * factor, *_RATIOS))
    return dataclasses.replace(level, aspect_ratios=tuple(sorted(ratios)))


def _spread(levels, boxes):
    """The levels with sizes at evenly spaced quantiles of the objects' sizes, smallest first."""
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    sizes = np.quantile(sides, (np.arange(len(levels)) + 0.5) / len(levels)).clip(_MIN_SIZE)
    next_sizes = [*sizes[1:], sizes[-1] * 1.5]
    return [
        dataclasses.replace(
            level,
            size=float(size),
            next_size=None if level.next_size is None else float(max(next_size, size)),
        )
        for level, size, next_size in zip(levels, sizes, next_sizes, strict=True)
    ]
