"""CSV with one line per object: filename,width,height,class,xmin,ymin,xmax,ymax.

A line without class and box is an image without objects. The rows of an image need not be
adjacent: they are sorted in a temporary database on disk, which vanishes with the process.
If the header has semicolons, so has the rest, and its numbers have decimal commas.
"""

import csv
import functools
import io
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
    columns = "path, first integer, file, width, height, class, xmin, ymin, xmax, ymax, fault"
    database.execute(f"create table object ({columns})")
    allowed = files.ImageFolders((images,), allow_outside)
    _load(path, images, allowed, database)
    unit = labels.PIXELS_FROM_ONE if one_based else labels.PIXELS
    return labels.Source(None, _read(database, allowed, unit), folder=images)


def _load(path, images, allowed, database):
    @functools.lru_cache(10_000)
    def find(name):  # as bytes: folders need not be Unicode
        return os.fsencode(files.normalize(allowed.locate(images, name))) if name else b""

    with (
        user_files.open_regular(path) as data,
        io.TextIOWrapper(data, "utf-8-sig", newline="") as file,
    ):
        try:
            rows = (_row(entry, find, comma) for entry, comma in _entries(file, path))
            database.executemany(f"insert into object values ({','.join('?' * 11)})", rows)
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not CSV text in UTF-8: save it as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path} is not CSV text: {error}") from None
    database.execute("create index object_path on object (path)")
    database.execute(
        "update object set first = "
        "(select min(rowid) from object as other where other.path = object.path)"
    )


def _entries(file, path):
    """Yield ({column: text}, the separator) of each row below the header."""
    lines = _lines(file, path)
    header = next(lines, "")
    comma = ";" if ";" in header and "," not in header else ","
    reader = csv.DictReader(itertools.chain([header], lines), delimiter=comma, strict=True)
    reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
    missing = [name for name in _REQUIRED if name not in reader.fieldnames]
    if missing:
        raise ValueError(
            f"{path} lacks the column {missing[0]!r}; expected {','.join(_COLUMNS)}, "
            f"got {','.join(reader.fieldnames)[:100]!r}"
        )
    while True:
        line = reader.line_num + 1
        try:
            yield next(reader), comma
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, the row from line {line}: {error}; is a quotation mark left open there?"
            ) from None


def _lines(file, path):
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(
                f"{path} is not CSV text: it has a line of over {MAX_LINE:,} characters"
            )
        yield line


def _row(entry, find, comma):
    text = {
        name: (value or "").strip() if not isinstance(value, list) else ""
        for name, value in entry.items()
    }
    name = text["class"]
    sides = [text[side] for side in _SIDES]
    if comma == ";":
        numbers = [parsing.to_number(side.replace(",", ".")) for side in sides]
    else:
        numbers = [parsing.to_number(side) for side in sides]
    file = text["filename"]
    fault = _find_fault(name, any(sides))
    return (find(file), None, file, text.get("width"), text.get("height"), name, *numbers, fault)


def _find_fault(name, has_box):
    if name:
        return "" if has_box else "no box"
    return "no class name" if has_box else _NO_OBJECT


def _read(database, allowed, unit):
    columns = "path, file, width, height, class, xmin, ymin, xmax, ymax, fault"
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


def _object(name, *box_and_fault):
    *box, fault = box_and_fault
    # The database keeps NaN as null.
    box = tuple(math.nan if side is None else side for side in box)
    return labels.LabeledObject(name, box, fault=fault)
