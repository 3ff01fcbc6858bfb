"""Counts of what happens while images become records: per shard, then added up per split.

Everything here pickles: worker processes and Beam workers return it.
"""

import bisect
import math
from collections import Counter
from dataclasses import dataclass, field, fields

from data_tools.readers.labels import Tally

# Edges of the histograms' bins; a value on an edge belongs to the bin above it.
SIZE_EDGES = (0.0, 8, 16, 32, 64, 96, 128, 256, 512, math.inf)  # square root of the area in pixels
ASPECT_EDGES = (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.5, 2, 3, 5, math.inf)  # width / height


@dataclass
class ClassCounts:
    """Of one class: objects to train on, ignored ones (crowd, difficult), images with either."""

    objects: int = 0
    ignored: int = 0
    images: int = 0


@dataclass
class GrayCounts:
    """Of gray images of 16 bits: their number, minimum and maximum value.

    coarse: names of those that are left with few gray levels and had more.
    """

    images: int = 0
    low: int = 65535
    high: int = 0
    coarse: Tally = field(default_factory=Tally)

    def add(self, levels, filename):
        """levels: an image_checks.GrayLevels."""
        self.images += 1
        self.low = min(self.low, levels.low)
        self.high = max(self.high, levels.high)
        if levels.is_coarse:
            self.coarse.add(filename)

    def merge(self, other):
        """Add the counts of other images."""
        self.images += other.images
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.coarse.merge(other.coarse)


@dataclass
class SplitCounts:
    """The counts of a shard or of a whole split. The tallies hold dicts as report.json has them."""

    # Images.
    read: int = 0
    images: int = 0  # written
    empty: int = 0  # written without objects
    empty_left_out: int = 0
    assumed_orientations: int = 0
    repaired: Tally = field(default_factory=Tally)  # re-encoded or misnamed
    dropped_images: Tally = field(default_factory=Tally)
    size_mismatches: Tally = field(default_factory=Tally)
    bytes: int = 0  # of the shards
    gray: GrayCounts = field(default_factory=GrayCounts)
    # Objects.
    boxes: int = 0  # to train on
    ignored: int = 0  # crowd or difficult
    clipped: int = 0
    boxes_of_dropped_images: int = 0
    dropped_boxes: Tally = field(default_factory=Tally)
    tiny: Tally = field(default_factory=Tally)  # names of files, by class
    unlisted_classes: Counter = field(default_factory=Counter)  # by class that --classes leaves out
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    size_histogram: Counter = field(default_factory=Counter)  # by index of the bin
    aspect_histogram: Counter = field(default_factory=Counter)
    # By description: known once all labels have been read, and set on the whole split.
    findings: dict[str, Tally] = field(default_factory=dict)
    # (16 hexadecimal digits of a file's SHA-256, file name) per image written. They go to disk
    # shard by shard: `merge` does not collect them.
    digests: list[tuple[str, str]] = field(default_factory=list)

    def count_dropped(self, file, box, reason):
        """Count a box, or a whole image if box is None. reason: `reason` or `reason: details`."""
        tally = self.dropped_images if box is None else self.dropped_boxes
        entry = {"file": file, "box": box, "reason": reason}
        tally.add(entry, reason.partition(":")[0])

    def add_object(self, name, ignored, clipped, size_hw):
        """Count an object that is written; size_hw: height and width of its box in pixels."""
        height, width = size_hw
        in_class = self.classes.setdefault(name, ClassCounts())
        if ignored:
            self.ignored += 1
            in_class.ignored += 1
        else:
            self.boxes += 1
            in_class.objects += 1
        self.clipped += clipped
        self.size_histogram[_find_bin(math.sqrt(height * width), SIZE_EDGES)] += 1
        self.aspect_histogram[_find_bin(width / height, ASPECT_EDGES)] += 1

    def merge(self, other):
        """Add the counts of another shard of the split; its digests stay out."""
        for each in fields(self):
            mine = getattr(self, each.name)
            theirs = getattr(other, each.name)
            if isinstance(mine, int):
                setattr(self, each.name, mine + theirs)
            elif isinstance(mine, Counter):
                mine.update(theirs)
            elif isinstance(mine, (Tally, GrayCounts)):
                mine.merge(theirs)
        for name, theirs in other.classes.items():
            mine = self.classes.setdefault(name, ClassCounts())
            mine.objects += theirs.objects
            mine.ignored += theirs.ignored
            mine.images += theirs.images


def _find_bin(value, edges):
    return bisect.bisect_right(edges, value) - 1
