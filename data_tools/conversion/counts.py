"""What is counted while images become records: per shard, then added up per split.

Everything here pickles: worker processes and Beam workers return it.
"""

import bisect
import math
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from data_tools.readers.labels import NAMED

# Edges of the histograms' bins; a value on an edge belongs to the bin above it.
SIZE_EDGES = (0.0, 8, 16, 32, 64, 96, 128, 256, 512, math.inf)  # square root of the area in pixels
ASPECT_EDGES = (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.5, 2, 3, 5, math.inf)  # width / height


@dataclass(frozen=True)
class Dropped:
    """A box or a whole image that is not in the data set.

    box: [xmin, ymin, xmax, ymax] as the labels write it, None for a value that is not finite; None
    instead of the list if the whole image was dropped.
    """

    file: str
    box: list[float | None] | None
    reason: str


@dataclass(frozen=True)
class RepairedFile:
    """An image that was re-encoded or is misnamed."""

    file: str
    reason: str


@dataclass(frozen=True)
class SizeMismatch:
    """An image whose size is not the one that its labels give: [height, width] of each."""

    file: str
    labels_hw: list[int]
    image_hw: list[int]


@dataclass
class ClassCounts:
    """Of one class: objects to train on, ignored ones (crowd, difficult), images with either."""

    objects: int = 0
    ignored: int = 0
    images: int = 0


class ImageDigest(NamedTuple):
    """digest: the first 16 hexadecimal digits of the SHA-256 of an image's file."""

    digest: str
    filename: str


class Finding(NamedTuple):
    """Something odd about the labels as a whole: how often it occurs, and the first names."""

    count: int
    first: list[str]


@dataclass
class GrayCounts:
    """Of gray images of 16 bits: their number, smallest and largest value, None without images.

    coarse: those that are left with few gray levels and had more.
    """

    images: int = 0
    low: int | None = None
    high: int | None = None
    coarse: int = 0
    first_coarse: list[str] = field(default_factory=list)

    def add(self, levels, filename):
        """levels: an image_checks.GrayLevels."""
        first = [filename] if levels.is_coarse else []
        self.merge(GrayCounts(1, levels.low, levels.high, len(first), first))

    def merge(self, other):
        """Add the counts of other images."""
        self.images += other.images
        self.low = min((low for low in (self.low, other.low) if low is not None), default=None)
        self.high = max(
            (high for high in (self.high, other.high) if high is not None), default=None
        )
        self.coarse += other.coarse
        self.first_coarse += other.first_coarse[: NAMED - len(self.first_coarse)]


@dataclass
class SplitCounts:
    """The counts of a shard or of a whole split.

    Lists beside a count hold the first hundred of what is counted.
    """

    # Images.
    read: int = 0
    images: int = 0  # written
    empty: int = 0  # written without objects
    empty_left_out: int = 0
    assumed_orientations: int = 0
    repaired: Counter = field(default_factory=Counter)  # by reason
    repaired_files: list[RepairedFile] = field(default_factory=list)
    dropped_images: Counter = field(default_factory=Counter)  # by reason
    first_dropped_images: list[Dropped] = field(default_factory=list)
    size_mismatches: int = 0
    size_mismatch_files: list[SizeMismatch] = field(default_factory=list)
    bytes: int = 0  # of the shards
    gray: GrayCounts = field(default_factory=GrayCounts)
    # Objects.
    boxes: int = 0  # to train on
    ignored: int = 0  # crowd or difficult
    clipped: int = 0
    boxes_of_dropped_images: int = 0
    dropped_boxes: Counter = field(default_factory=Counter)  # by reason
    first_dropped_boxes: list[Dropped] = field(default_factory=list)
    unlisted_classes: Counter = field(default_factory=Counter)  # by class that --classes leaves out
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    size_histogram: Counter = field(default_factory=Counter)  # by index of the bin
    aspect_histogram: Counter = field(default_factory=Counter)
    # {what: Finding}: known once all labels have been read, and set on the whole split.
    findings: dict[str, Finding] = field(default_factory=dict)
    # One per image written. They go to disk shard by shard: `merge` does not collect them.
    digests: list[ImageDigest] = field(default_factory=list)

    def count_dropped_image(self, file, error, num_objects):
        """error: an image_checks.BadImage; num_objects: those that its labels name."""
        self.dropped_images[error.reason.partition(":")[0]] += 1
        self.boxes_of_dropped_images += num_objects
        _append_named(self.first_dropped_images, Dropped(file, None, str(error)))

    def count_dropped_box(self, dropped):
        self.dropped_boxes[dropped.reason.partition(":")[0]] += 1
        _append_named(self.first_dropped_boxes, dropped)

    def count_repaired(self, repaired):
        self.repaired[repaired.reason] += 1
        _append_named(self.repaired_files, repaired)

    def count_size_mismatch(self, mismatch):
        self.size_mismatches += 1
        _append_named(self.size_mismatch_files, mismatch)

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
            elif isinstance(mine, list) and each.name != "digests":
                mine += theirs[: NAMED - len(mine)]
        self.gray.merge(other.gray)
        for name, theirs in other.classes.items():
            mine = self.classes.setdefault(name, ClassCounts())
            mine.objects += theirs.objects
            mine.ignored += theirs.ignored
            mine.images += theirs.images


def _append_named(entries, entry):
    if len(entries) < NAMED:
        entries.append(entry)


def _find_bin(value, edges):
    return bisect.bisect_right(edges, value) - 1
