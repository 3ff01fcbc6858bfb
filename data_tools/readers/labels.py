"""The record that every reader gives: one picture's file and the objects that its labels name, as they were written.

Boxes here are [xmin, ymin, xmax, ymax] in the label file's own unit; conversion/boxes.py makes the usual corners of them.
"""

import collections
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator

# How a label file counts.
PIXELS = "pixels"  # from 0, half-open: COCO
PIXELS_FROM_ONE = "pixels from one"  # from 1, the last one included: VOC, labelImg
SHARES = "shares"  # of the picture's width and height: YOLO

NOT_A_BOX = (math.nan,) * 4
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".jfif",
    ".avif",
    ".heic",
    ".heif",
)
SUFFIXES += (".JPG", ".JPEG", ".PNG", ".BMP", ".WEBP", ".TIF", ".JFIF", ".AVIF", ".HEIC", ".HEIF")
NAMED = 100  # of what is counted, so many are named


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


class Tally:
    """How many of something, and the first hundred of them."""

    def __init__(self):
        self.count, self.first = 0, []

    def add(self, thing):
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(thing)


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened label file or folder.

    classes: [{"name", "id"}] in label order where the format lists them, None where they are only seen in the objects.
    notes: what the reader chose by itself, a line each.
    folder: where pictures without labels are looked for, beside the folders of those with labels; None: nowhere.
    is_labelled: path -> whether a picture that `images` does not give has labels all the same, as those of another set have.
    unused: {what: names} of labels that belong to no picture; strays: objects of pictures that are not listed, each
    {"file", "box", "reason"}. Both are whole once `images` has been read to its end.
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


def to_line(image: LabeledImage) -> str:
    """The record as one line of JSON; from_line(to_line(x)) = x."""
    objects = [[o.name, o.box, o.area, o.crowd, o.difficult, o.fault] for o in image.objects]
    return json.dumps(
        [
            image.path,
            image.filename,
            image.source_id,
            objects,
            image.size_hw,
            image.unit,
            image.fault,
        ]
    )


def from_line(line: str | bytes) -> LabeledImage:
    path, filename, source_id, objects, size_hw, unit, fault = json.loads(line)
    objects = tuple(LabeledObject(name, tuple(box), *rest) for name, box, *rest in objects)
    return LabeledImage(
        path, filename, source_id, objects, tuple(size_hw) if size_hw else None, unit, fault
    )


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
    """The file of a picture in a folder: by its name as written, with any usual extension, at last by its base name alone.

    Backslashes of Windows may stand for slashes. Returns the path as written where there is none: whoever opens it reports it
    as absent.
    """
    written = os.path.join(folder, name)
    if os.path.isfile(written):  # unlike Path.is_file, takes names that no file can have
        return pathlib.Path(written)
    slashed = pathlib.Path(folder, name.replace("\\", "/"))
    places = dict.fromkeys((written, str(slashed), os.path.join(folder, slashed.name)))
    candidates = (path for place in places for path in (place, *_with_other_suffixes(place)))
    return next(
        (pathlib.Path(path) for path in candidates if os.path.isfile(path)), pathlib.Path(written)
    )


def _with_other_suffixes(path):
    stem, suffix = os.path.splitext(path)
    return [(stem if suffix in SUFFIXES else path) + other for other in SUFFIXES]


def walk_files(folder) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder below and its file names, in order; links to folders are followed, no folder is visited twice."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield root, sorted(files)


def read_lines(path, errors="strict") -> list[str]:
    """The lines of a text file, stripped, with or without the mark of UTF-8 that Windows puts first."""
    try:
        return [
            line.strip() for line in pathlib.Path(path).read_text("utf-8-sig", errors).splitlines()
        ]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None


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
