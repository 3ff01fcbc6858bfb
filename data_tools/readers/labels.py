"""The record that every reader gives: one picture's file and the objects that its labels name, as they were written.

Boxes here are [xmin, ymin, xmax, ymax] in the label file's own unit; conversion/boxes.py makes the usual corners of them.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator

# How a label file counts.
PIXELS = "pixels"  # from 0, half-open: COCO
PIXELS_FROM_ONE = "pixels from one"  # from 1, the last one included: VOC, labelImg
SHARES = "shares"  # of the picture's width and height: YOLO

NOT_A_BOX = (math.nan,) * 4
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".JPG", ".JPEG", ".PNG", ".BMP", ".WEBP", ".TIF")


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledObject:
    """One object. fault: why the reader knows that it cannot be used; else empty."""

    name: str
    box: tuple[float, float, float, float]
    area: float | None = None  # pixels, where the label file tells it
    crowd: bool = False
    difficult: bool = False
    fault: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledImage:
    """One picture. size_hw is what the labels claim. fault: why the reader knows that it cannot be used; else empty."""

    path: str
    filename: str
    source_id: str
    objects: tuple[LabeledObject, ...] = ()
    size_hw: tuple[int, int] | None = None
    unit: str = PIXELS
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened label file or folder.

    classes: [{"name", "id"}] in label order where the format lists them, None where they are only seen in the objects.
    """

    classes: list[dict] | None
    images: Iterator[LabeledImage]


def to_line(image: LabeledImage) -> str:
    """The record as one line of JSON; from_line(to_line(x)) = x."""
    objects = [[o.name, o.box, o.area, o.crowd, o.difficult, o.fault] for o in image.objects]
    return json.dumps([image.path, image.filename, image.source_id, objects, image.size_hw, image.unit, image.fault])


def from_line(line: str | bytes) -> LabeledImage:
    path, filename, source_id, objects, size_hw, unit, fault = json.loads(line)
    objects = tuple(LabeledObject(name, tuple(box), *rest) for name, box, *rest in objects)
    return LabeledImage(path, filename, source_id, objects, tuple(size_hw) if size_hw else None, unit, fault)


def to_number(value) -> float:
    """A coordinate as written -> float; NaN for what is no number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def to_size(height, width) -> tuple[int, int] | None:
    """Height and width as written -> whole numbers; None where they are absent, zero or no numbers."""
    height, width = to_number(height), to_number(width)
    return (int(height), int(width)) if 1 <= height < math.inf and 1 <= width < math.inf else None


def find_image(folder, name) -> pathlib.Path:
    """The file of a picture in a folder: by its name as written, else by its base name, else by its stem in any usual extension.

    Returns the path as written where there is none: whoever opens it reports it as absent.
    """
    written = os.path.join(folder, name)
    if os.path.isfile(written):
        return pathlib.Path(written)
    written = pathlib.Path(written)
    named = dict.fromkeys((str(written), os.path.join(folder, written.name)))
    stems = [path[: -len(written.suffix)] if written.suffix in SUFFIXES else path for path in named]
    candidates = [*named, *(stem + suffix for stem in stems for suffix in SUFFIXES)]
    # os.path.isfile, unlike Path.is_file, takes names that no file can have.
    return next((pathlib.Path(path) for path in candidates if os.path.isfile(path)), written)


def check_folder(path, what) -> pathlib.Path:
    """Raises FileNotFoundError, or NotADirectoryError, that says what was wanted."""
    path = pathlib.Path(path)
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(f"{what}: {path} is a file; give the folder")
    raise FileNotFoundError(f"{what}: no folder at {path}")


def check_file(path, what) -> pathlib.Path:
    """Raises FileNotFoundError, or IsADirectoryError, that says what was wanted."""
    path = pathlib.Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise IsADirectoryError(f"{what}: {path} is a folder; give the file")
    raise FileNotFoundError(f"{what}: no file at {path}")
