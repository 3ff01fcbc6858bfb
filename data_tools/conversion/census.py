"""Whether the labels as a whole were understood, judged before any image is read."""

import collections

from data_tools.conversion import box_checks
from data_tools.readers import labels

_NEARLY_ALL = 0.9
# Pixel boxes that all lie in this corner of images at least twice as large are percentages.
_MIN_BOXES_OF_PERCENT = 20
_MIN_SIDE_OF_PERCENT = 200
_PIXEL_UNITS = (labels.PIXELS, labels.PIXELS_FROM_ONE)


class Reasons:
    """Why labels cannot be used: how often each reason occurs, and where first."""

    def __init__(self):
        self._counts = collections.Counter()
        self._first = {}

    def add(self, file, fault):
        """fault: `reason` or `reason: details`."""
        reason = fault.partition(":")[0]
        self._counts[reason] += 1
        self._first.setdefault(reason, f"{file}: {fault}")

    def describe(self) -> str:
        """The usual reasons with their counts, and an example of the most usual one."""
        usual = self._counts.most_common(3)
        counted = ", ".join(f"{reason} {count:,}" for reason, count in usual)
        return f"{counted}; the first is {self._first[usual[0][0]]}"


class Census:
    """What was understood of the labels, image by image.

    boxes: the unit of boxes that the user gives, or None.
    """

    def __init__(self, boxes):
        self._boxes = boxes
        self._num_images = 0
        self._faulty_images = 0
        self._image_reasons = Reasons()
        self._labeled = 0  # images that have labels, as far as the reader knows
        self._unusable = 0
        self._label_reasons = Reasons()
        self._units = _Units()

    def add(self, image: labels.LabeledImage):
        """Count an image."""
        self._num_images += 1
        fault = image.fault
        if fault:
            self._faulty_images += 1
            self._image_reasons.add(image.filename, fault)
            is_of_labels = fault.partition(":")[0] in labels.LABEL_FAULTS
        else:
            fault = self._find_fault(image)
            is_of_labels = bool(fault)
        self._labeled += is_of_labels or bool(image.objects)
        if is_of_labels:
            self._unusable += 1
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
        if self._num_images and self._faulty_images == self._num_images:
            raise ValueError(
                f"none of the images of {split!r} can be used ({self._image_reasons.describe()})"
            )
        if self._boxes is None:
            self._units.check()
        if self._unusable and self._unusable >= _NEARLY_ALL * self._labeled:
            raise ValueError(
                f"the labels of {self._unusable:,} of {self._labeled:,} images cannot be used "
                f"({self._label_reasons.describe()}); is this the right format?"
            )


class _Units:
    """In which unit the boxes seem to be written."""

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
