"""The record that every reader gives: the file of an image and the objects that its labels name.

Boxes are [xmin, ymin, xmax, ymax] as written, in the label file's own unit;
conversion/box_checks.py turns them into normalised corners.
"""

import array
import collections
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

# How a label file measures its boxes.
PIXELS = "pixels"  # from 0, half-open: COCO
PIXELS_FROM_ONE = "pixels from one"  # from 1, the last pixel included: VOC, labelImg
NORMALISED = "normalised"  # fractions of the image's width and height: YOLO
PERCENT = "percent"  # of the image's width and height

# Reasons why the labels of an image cannot be used; it may show objects all the same.
UNREADABLE = "annotation cannot be read"
NOT_VOC = "not a VOC annotation"
UNUSABLE = "labels cannot be used"
LABEL_FAULTS = (UNREADABLE, NOT_VOC, UNUSABLE)

NOT_A_BOX = (math.nan,) * 4
NAMED = 100  # reports count everything and give this many names


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledObject:
    """One object. fault: why the reader knows that it cannot be used; else empty."""

    name: str
    box: tuple[float, float, float, float]
    area: float | None = None  # pixels, if the label file gives it
    crowd: bool = False
    difficult: bool = False
    fault: str = ""

    @property
    def names_class(self) -> bool:
        """True if `name` is that of a class; beside a box that is no number it may be anything."""
        return not self.fault and all(map(math.isfinite, self.box))


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledImage:
    """One image.

    path: of the file; empty if there is none that may be read.
    size_hw: height and width as the labels claim them.
    fault: why the reader knows that the image cannot be used, as `reason` or `reason: details`;
    else empty.
    intact_digest: SHA-256 of the file, if it has been decoded completely before; else empty.
    """

    path: str
    filename: str
    source_id: str
    objects: tuple[LabeledObject, ...] = ()
    size_hw: tuple[int, int] | None = None
    unit: str = PIXELS
    fault: str = ""
    intact_digest: str = ""


class LabelsStart(NamedTuple):
    """The beginning of a label file that lists many images.

    file_names: of its first images. are_fractions: whether the boxes looked at are fractions of the
    image although the format's are pixels.
    """

    file_names: list[str]
    are_fractions: bool


class ImageSet(NamedTuple):
    """One of the sets that a folder of labels is divided into.

    name: for --image_set; split: `train`, `val` or `test`; None if nothing says which; num_images:
    how many have labels.
    """

    name: str
    split: str | None
    num_images: int


def count_of(number, noun) -> str:
    """The number and its noun, as in `2,000 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class ObjectTable:
    """Objects by image, 64 bytes each, for label files that name the images in any order.

    Names and faults are hashable values of any kind; equal ones are held once.
    """

    def __init__(self):
        self._rows = collections.defaultdict(lambda: array.array("d"))
        self._values = []  # names and faults
        self._index_of = {}

    def add(self, image, name, box, area, crowd, fault):
        """Add an object of an image, which is any key. box: corners; area NaN: not given."""
        name, fault = map(self._find_index, (name, fault))
        self._rows[image].extend((name, *box, area, crowd, fault))

    def _find_index(self, value):
        index = self._index_of.setdefault(value, len(self._values))
        if index == len(self._values):
            self._values.append(value)
        return index

    def pop(self, image) -> tuple[LabeledObject, ...]:
        """Remove and return the objects of an image."""
        rows = zip(*[iter(self._rows.pop(image, ()))] * 8, strict=True)
        return tuple(
            LabeledObject(
                name=self._values[int(name)],
                box=tuple(box),
                area=None if math.isnan(area) else area,
                crowd=bool(crowd),
                fault=self._values[int(fault)],
            )
            for name, *box, area, crowd, fault in rows
        )

    def images(self) -> list:
        """The images that have objects left."""
        return list(self._rows)


@dataclasses.dataclass
class Tally:
    """How often something occurs, by reason, and the first hundred entries."""

    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    first: list = dataclasses.field(default_factory=list)

    @property
    def count(self) -> int:
        return self.reasons.total()

    def add(self, entry, reason=""):
        """entry: a file name, or a dict for report.json."""
        self.reasons[reason] += 1
        if len(self.first) < NAMED:
            self.first.append(entry)

    def merge(self, other):
        """Add what another tally counted."""
        self.reasons.update(other.reasons)
        self.first += other.first[: NAMED - len(self.first)]


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened label file or folder.

    classes: [{"name", "id"}] in label order if the format lists them, None if only the objects
    name them.
    notes: what the reader decided by itself, one line each.
    folder: where to look for images without labels, besides the folders of the labelled images;
    None: nowhere.
    is_labelled: path -> whether an image that `images` does not give has labels all the same, for
    example in another set.
    unused: by description, the names of labels without an image.
    strays: objects of images that are not listed, each {"file", "box", "reason"}.
    Both are complete once `images` has been read to its end.
    boxes_follow_exif: whether the format's tools draw boxes on an EXIF-rotated image as shown.
    other_sets: those of the folder that `images` leaves out.
    """

    classes: list[dict] | None
    images: Iterator[LabeledImage]
    notes: list[str] = dataclasses.field(default_factory=list)
    folder: str | os.PathLike | None = None
    is_labelled: Callable[[str], bool] | None = None
    unused: dict[str, Tally] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(Tally)
    )
    strays: Tally = dataclasses.field(default_factory=Tally)
    boxes_follow_exif: bool = False
    other_sets: tuple[ImageSet, ...] = ()
