"""CSV with one line per object: filename,width,height,class,xmin,ymin,xmax,ymax.

A line without class and box is an image without objects. The rows of an image need not be
adjacent: they are sorted in a temporary database on disk, which vanishes with the process.
Columns may be separated by commas, semicolons, tabs or bars; unless by commas, numbers may have
decimal commas. The columns of VoTT and Open Images are known, too.
"""

import csv
import functools
import itertools
import math
import os
import pathlib
import sqlite3

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
    database = sqlite3.connect("")  # the empty name: a private file that SQLite deletes
    database.execute("pragma synchronous=off")
    columns = "file, width, height, class, xmin, ymin, xmax, ymax, crowd, fault"
    database.execute(f"create table object (path, first integer, {columns})")
    allowed = files.ImageFolders((images,), allow_outside)
    unit = labels.PIXELS_FROM_ONE if one_based else labels.PIXELS
    notes = []
    if _load(path, images, allowed, database):
        unit = labels.NORMALISED
        notes.append("columns of Open Images: boxes are read as fractions of the image")
    return labels.Source(None, _read(database, allowed, unit), notes, folder=images)


def _load(path, images, allowed, database):
    """Fill the table; return whether the file has the columns of Open Images."""

    @functools.lru_cache(10_000)
    def find(name):  # as bytes: folders need not be Unicode
        return os.fsencode(files.normalize(allowed.locate(images, name))) if name else b""

    with user_files.open_text(path, newline="") as file:
        try:
            table = _Table(file, path)
            rows = (_row(entry, find, table.has_decimal_commas) for entry in table.entries())
            database.executemany(f"insert into object values ({','.join('?' * 12)})", rows)
        except UnicodeError:
            raise ValueError(f"{path} is not CSV text in UTF-8: save it as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path} is not CSV text: {error}") from None
    database.execute("create index object_path on object (path)")
    database.execute(
        "update object set first = "
        "(select min(rowid) from object as other where other.path = object.path)"
    )
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


def _row(entry, find, has_decimal_commas):
    more = entry.pop(None, None)
    is_cut = any(entry[name] is None for name in _REQUIRED)
    text = {name: (value or "").strip() for name, value in entry.items()}
    name = text["class"]
    sides = [text[side] for side in _SIDES]
    numbers = [parsing.to_number(side, has_decimal_commas) for side in sides]
    file = text["filename"]
    if more or is_cut:
        fault = f"{'more' if more else 'fewer'} values than columns"
    else:
        fault = _find_fault(name, any(sides))
    crowd = parsing.to_flag(text.get("crowd"))
    size = (text.get("width"), text.get("height"))
    return (find(file), None, file, *size, name, *numbers, crowd, fault)


def _find_fault(name, has_box):
    if name:
        return "" if has_box else "no box"
    return "no class name" if has_box else _NO_OBJECT


def _read(database, allowed, unit):
    columns = "path, file, width, height, class, xmin, ymin, xmax, ymax, crowd, fault"
    rows = database.execute(f"select {columns} from object order by first, rowid")
    for path, group in itertools.groupby(rows, key=lambda row: row[0]):
        group = list(group)
        _, file, width, height = group[0][:4]
        found = allowed.check(os.fsdecode(path)) if file else None
        yield labels.LabeledImage(
            path=found.readable_path if found else "",
            filename=files.shorten(file) if file else "a line without a file name",
            source_id=pathlib.PurePath(files.shorten(file).replace("\\", "/")).stem,
            objects=tuple(_object(*row[4:]) for row in group if row[-1] != _NO_OBJECT),
            size_hw=parsing.to_size(height, width),
            unit=unit,
            fault=found.fault if found else "no file name",
        )


def _object(name, *box_and_rest):
    *box, crowd, fault = box_and_rest
    # The database keeps NaN as null.
    box = tuple(math.nan if side is None else side for side in box)
    return labels.LabeledObject(name, box, crowd=bool(crowd), fault=fault)
