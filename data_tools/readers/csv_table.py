"""CSV with one line per object: filename,width,height,class,xmin,ymin,xmax,ymax.

A line without class and box is an image without objects. The rows of an image need not be
adjacent. Columns may be separated by commas, semicolons, tabs or bars; unless by commas, numbers
may have decimal commas. The columns of VoTT and Open Images are known, too.
"""

import csv
import functools
import itertools
import math
import pathlib
from typing import NamedTuple

from data_tools.readers import files, labels
from ssd_tf import parsing, user_files

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("filename", "width", "height", "class", *_SIDES)
_REQUIRED = ("filename", "class", *_SIDES)
# What other tools call a column; a file has at most one of them.
_OTHER_NAMES = {
    "filename": ("file_name", "file", "image", "image_name", "imageid", "image_id", "path"),
    "class": ("label", "labelname", "class_name", "label_name", "name", "category"),
    "xmin": ("x_min", "x1"),
    "ymin": ("y_min", "y1"),
    "xmax": ("x_max", "x2"),
    "ymax": ("y_max", "y2"),
    "crowd": ("isgroupof",),
}
_OPEN_IMAGES = {"imageid", "labelname", "isgroupof"}  # its boxes are fractions
_SEPARATORS = ",;\t|"
_NO_OBJECT = "no object"  # marks a line that only names an image
MAX_LINE = 1 << 20  # characters


def read_csv(path, images, one_based, allow_outside=False) -> labels.Source:
    """Read the CSV file `path` for the images in the folder `images`.

    one_based: whether boxes count from 1 and include their last pixel, as in the TensorFlow
    tutorials. allow_outside: whether a file name may lead out of the folder.
    `source_id` is the stem. Rows that name one file in several ways make one image.
    """
    path = files.check_file(path, "--csv")
    images = files.check_folder(images, "--images")
    allowed = files.ImageFolders((images,), allow_outside)
    first_rows = {}
    objects = labels.ObjectTable()
    unit = labels.PIXELS_FROM_ONE if one_based else labels.PIXELS
    notes = []
    if _load(path, images, allowed, first_rows, objects):
        unit = labels.NORMALISED
        notes.append("columns of Open Images: boxes are read as fractions of the image")
    return labels.Source(None, _read(first_rows, objects, allowed, unit), notes, folder=images)


def read_start(path, num_images) -> labels.LabelsStart | None:
    """The first images of a file; None if it is not a table of boxes."""
    rows = {}
    try:
        with user_files.open_text(path, newline="") as file:
            table = _Table(file, path)
            for entry in table.entries():
                row = _read_row(entry, table.has_decimal_commas)
                rows.setdefault(row.file, row)
                if len(rows) == num_images:
                    break
    except (OSError, ValueError, csv.Error):
        return None
    sides = [side for row in rows.values() if not row.fault for side in row.box]
    are_fractions = bool(sides) and all(0 <= side <= 1 for side in sides)
    return labels.LabelsStart(list(rows), are_fractions and not table.is_open_images)


def find_fault(path) -> str:
    """Why a file is no table of boxes; empty if its columns are those of one."""
    try:
        with user_files.open_text(path, newline="") as file:
            _Table(file, path)
    except (OSError, ValueError, csv.Error) as error:
        return str(error)
    return ""


def _load(path, images, allowed, first_rows, objects):
    """Fill {path of an image: its first _Row} and the table of objects by path.

    Returns whether the file has the columns of Open Images.
    """

    @functools.lru_cache(10_000)
    def find(name):
        return files.normalize(allowed.locate(images, name)) if name else ""

    with user_files.open_text(path, newline="") as file:
        try:
            table = _Table(file, path)
            for entry in table.entries():
                row = _read_row(entry, table.has_decimal_commas)
                image = find(row.file)
                first_rows.setdefault(image, row)
                if row.fault != _NO_OBJECT:
                    objects.add(image, row.name, row.box, math.nan, row.crowd, row.fault)
        except UnicodeError:
            raise ValueError(f"{path} is not CSV text in UTF-8: save it as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path} is not CSV text: {error}") from None
    return table.is_open_images


class _Table:
    """The rows of a CSV file below its header. Raises ValueError."""

    def __init__(self, file, path):
        self._path = path
        lines = _lines(file, path)
        header = next(lines, "")
        separator = ""
        if header.lower().startswith("sep="):  # Excel's first line
            separator = header[4:5]
            header = next(lines, "")
        separator = separator or _find_separator(header)
        self.has_decimal_commas = separator != ","
        self._reader = csv.DictReader(
            itertools.chain([header], lines), delimiter=separator, strict=True
        )
        written = [(name or "").strip().lower() for name in self._reader.fieldnames or []]
        self._reader.fieldnames = _translate(written)
        self.is_open_images = set(written) >= _OPEN_IMAGES
        missing = [name for name in _REQUIRED if name not in self._reader.fieldnames]
        if missing:
            raise ValueError(
                f"{path} lacks the column {missing[0]!r}; expected {','.join(_COLUMNS)}, "
                f"got {','.join(written)[:100]!r}"
            )

    def entries(self):
        """Yield {column: text} of each row; None stands for a missing cell."""
        while True:
            line = self._reader.line_num + 1
            try:
                yield next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(
                    f"{self._path}, the row from line {line}: {error}; is a quotation mark left "
                    "open there?"
                ) from None


def _find_separator(header):
    """The separator that makes the most of the columns known; a comma if none does."""

    def count_known(separator):
        names = next(csv.reader([header], delimiter=separator), [])
        return len(set(_translate([name.strip().lower() for name in names])) & set(_REQUIRED))

    return max(_SEPARATORS, key=count_known)


def _translate(names):
    """The names of columns, with those of other tools replaced by ours."""
    for ours, others in _OTHER_NAMES.items():
        there = next((name for name in others if name in names), None)
        if ours not in names and there:
            names = [ours if name == there else name for name in names]
    return names


def _lines(file, path):
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(
                f"{path} is not CSV text: it has a line of over {MAX_LINE:,} characters"
            )
        yield line


class _Row(NamedTuple):
    """A row. size: height and width as written."""

    file: str
    size: tuple[str | None, str | None]
    name: str
    box: tuple[float, float, float, float]
    crowd: bool
    fault: str


def _read_row(entry, has_decimal_commas):
    more = entry.pop(None, None)
    is_cut = any(entry[name] is None for name in _REQUIRED)
    text = {name: (value or "").strip() for name, value in entry.items()}
    sides = [text[side] for side in _SIDES]
    if more or is_cut:
        fault = f"{'more' if more else 'fewer'} values than columns"
    else:
        fault = _find_fault(text["class"], any(sides))
    return _Row(
        text["filename"],
        (text.get("height"), text.get("width")),
        text["class"],
        tuple(parsing.to_number(side, has_decimal_commas) for side in sides),
        parsing.to_flag(text.get("crowd")),
        fault,
    )


def _find_fault(name, has_box):
    if name:
        return "" if has_box else "no box"
    return "no class name" if has_box else _NO_OBJECT


def _read(first_rows, objects, allowed, unit):
    for path, row in first_rows.items():
        found = allowed.check(path) if path else None
        file = files.shorten(row.file)
        yield labels.LabeledImage(
            path=found.readable_path if found else "",
            filename=file or "a line without a file name",
            source_id=pathlib.PurePath(file.replace("\\", "/")).stem,
            objects=objects.pop(path),
            size_hw=parsing.to_size(*row.size),
            unit=unit,
            fault=found.fault if found else "no file name",
        )
