"""Reads all labels once and judges them as a whole, before any image is read."""

import collections
import dataclasses
import os
import pickle

from data_tools.conversion import box_checks
from data_tools.readers import files, labels

UNLABELLED = "images that the labels do not name"
_SHARED = "several entries for one file"
_NEARLY_ALL = 0.9
# Pixel boxes that all lie in this corner of images at least twice as large are percentages.
_MIN_BOXES_OF_PERCENT = 20
_MIN_SIDE_OF_PERCENT = 200
_PIXEL_UNITS = (labels.PIXELS, labels.PIXELS_FROM_ONE)


@dataclasses.dataclass
class Survey:
    """The content of a source of labels.

    images: the LabeledImages, pickled: smaller than objects, and what worker processes get.
    files: how many images share each file, by its normalised path.
    class_names: those of the objects; classes_of: the class names of each image.
    """

    images: list[bytes] = dataclasses.field(default_factory=list)
    files: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    class_names: set[str] = dataclasses.field(default_factory=set)
    classes_of: list[frozenset[str]] = dataclasses.field(default_factory=list)


def read_images(images, split, boxes) -> Survey:
    """Read all LabeledImages of a split; boxes: their unit by --boxes, or None.

    Raises ValueError if there are none, nearly none can be used, or boxes are in another unit.
    """
    survey = Survey()
    census = _Census(boxes)
    shared = {}  # images of the same classes hold one set in memory
    for image in images:
        survey.images.append(pickle.dumps(image))
        if image.path:
            survey.files[os.path.normpath(image.path)] += 1
        names = frozenset(obj.name for obj in image.objects if obj.names_class)
        survey.classes_of.append(shared.setdefault(names, names))
        census.add(image)
    survey.class_names.update(*shared)
    census.check(split)
    return survey


class _Reasons:
    """Reasons why labels cannot be used: how often each occurs, and where first."""

    def __init__(self):
        self._counts = collections.Counter()
        self._first = {}

    def add(self, file, fault):
        """fault: `reason` or `reason: details`."""
        reason = fault.partition(":")[0]
        self._counts[reason] += 1
        self._first.setdefault(reason, f"{file}: {fault}")

    def total(self):
        return self._counts.total()

    def __str__(self):
        """The most frequent reasons with their counts, and an example of the first."""
        usual = self._counts.most_common(3)
        counted = ", ".join(f"{reason} {count:,}" for reason, count in usual)
        return f"{counted}; the first is {self._first[usual[0][0]]}"


class _Census:
    """Counts images whose labels can be used. boxes: the unit by --boxes, or None."""

    def __init__(self, boxes):
        self._boxes = boxes
        self._num_images = 0
        self._num_labeled = 0  # images that have labels, as far as the reader knows
        self._image_reasons = _Reasons()
        self._label_reasons = _Reasons()
        self._units = _Units()

    def add(self, image: labels.LabeledImage):
        """Count an image."""
        self._num_images += 1
        fault = image.fault
        if fault:
            self._image_reasons.add(image.filename, fault)
            is_of_labels = fault.partition(":")[0] in labels.LABEL_FAULTS
        else:
            fault = self._find_fault(image)
            is_of_labels = bool(fault)
        self._num_labeled += is_of_labels or bool(image.objects)
        if is_of_labels:
            self._label_reasons.add(image.filename, fault)

    def _find_fault(self, image):
        """The fault of the first object if no object can be used, else empty."""
        unit = box_checks.choose_unit(image.unit, self._boxes)
        first_fault = ""
        num_faults = 0
        for obj in image.objects:
            fault = box_checks.find_fault(obj, unit, is_unit_certain=True)
            if not fault:
                self._units.add(obj.box, unit, image)
                fault = "" if self._boxes else box_checks.doubt_unit(obj.box, unit)
            num_faults += bool(fault and fault not in box_checks.HARMLESS)
            first_fault = first_fault or fault
        return first_fault if image.objects and num_faults == len(image.objects) else ""

    def check(self, split):
        """Raise ValueError if the labels are in another unit, or nearly none can be used."""
        if self._num_images and self._image_reasons.total() == self._num_images:
            raise ValueError(f"none of the images of {split!r} can be used ({self._image_reasons})")
        if self._boxes is None:
            self._units.check()
        num_unusable = self._label_reasons.total()
        if num_unusable and num_unusable >= _NEARLY_ALL * self._num_labeled:
            raise ValueError(
                f"the labels of {num_unusable:,} of {self._num_labeled:,} images cannot be used "
                f"({self._label_reasons}); is this the right format?"
            )


class _Units:
    """The unit in which the boxes seem to be written."""

    def __init__(self):
        self._unit = None
        self._first = ""
        self._boxes = 0
        self._doubted = 0
        self._within_hundred = 0
        self._on_large = 0  # boxes of images that are large enough to tell pixels from percent
        self._on_large_within_hundred = 0

    def add(self, box, unit, image):
        self._unit = unit
        self._boxes += 1
        doubted = bool(box_checks.doubt_unit(box, unit))
        within_hundred = max(box) <= 100
        self._doubted += doubted
        self._within_hundred += within_hundred
        if image.size_hw and min(image.size_hw) >= _MIN_SIDE_OF_PERCENT:
            self._on_large += 1
            self._on_large_within_hundred += within_hundred
        if not self._first and (doubted or within_hundred):
            self._first = f"{image.filename}: {', '.join(f'{side:g}' for side in box)}"

    def check(self):
        """Raise ValueError if nearly all boxes are in another unit."""
        likely = self._find_likely()
        if likely:
            raise ValueError(
                f"the boxes seem to be {likely}, not {self._unit}: "
                f"{self._doubted or self._boxes:,} of {self._boxes:,}, the first of "
                f"{self._first}; give --boxes {likely}, or "
                f"--boxes {self._unit.split()[0]} if they are right"
            )

    def _find_likely(self):
        if self._boxes and self._doubted >= _NEARLY_ALL * self._boxes:
            if self._unit in _PIXEL_UNITS:
                return labels.NORMALISED
            is_percent = self._within_hundred >= _NEARLY_ALL * self._boxes
            return labels.PERCENT if is_percent else labels.PIXELS
        if self._unit in _PIXEL_UNITS and self._on_large >= _MIN_BOXES_OF_PERCENT:
            return labels.PERCENT if self._on_large_within_hundred == self._on_large else ""
        return ""


def find_suspicious(source, survey) -> dict[str, labels.Tally]:
    """Suspicious findings by description; `source.images` must have been read to its end."""
    found = {_SHARED: _find_shared(survey), UNLABELLED: _find_unlabelled(source, survey.files)}
    return {what: tally for what, tally in (found | source.unused).items() if tally.count}


def _find_shared(survey):
    """Files that several images share."""
    shared = {path for path, count in survey.files.items() if count > 1}
    names = collections.defaultdict(list)
    for image in map(pickle.loads, survey.images if shared else ()):
        path = os.path.normpath(image.path)
        if path in shared:
            names[path].append(f"{image.filename} (id {image.source_id})")
    return _tally(" = ".join(entries) for entries in names.values())


def _find_unlabelled(source, labelled):
    """Images in the source's folder, and in the folders of labelled images, that have no labels."""
    if source.folder is None:
        return labels.Tally()
    folders = {os.path.dirname(path) for path in labelled} - {""}
    names = []
    for folder in sorted(folders | {os.path.normpath(source.folder)}):
        names += sorted(
            os.path.relpath(path, source.folder)
            for path in _list_images(folder)
            if os.path.normpath(path) not in labelled
            and not (source.is_labelled and source.is_labelled(path))
        )
    return _tally(names)


def _tally(names):
    tally = labels.Tally()
    for name in names:
        tally.add(name)
    return tally


def _list_images(folder):
    try:
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if files.is_image(entry.name))
    except OSError:  # a folder that the labels name and that does not exist
        return
