"""CSV with a line per object: filename,width,height,class,xmin,ymin,xmax,ymax. A line without class and box: an empty picture.

Rows of a picture need not stand together: they are sorted in a temporary database on disk, which vanishes with the process.
Where the header has semicolons, so has the rest, and decimal commas in its numbers.
"""

import csv
import functools
import itertools
import math
import os
import pathlib
import sqlite3

from data_tools.readers import labels

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_WANTED = ("filename", "class", *_SIDES)
_EMPTY = "no object"  # the mark of a line that only names a picture


def read_csv(path, images, one_based) -> labels.Source:
    """one_based: boxes count from 1 and include their last pixel, as in the TensorFlow tutorials.

    `source_id`: the stem. Rows that name one file in several ways make one picture.
    """
    path = labels.check_file(path, "--csv")
    images = labels.check_folder(images, "--images")
    database = sqlite3.connect("")  # the empty name: a private file that is deleted by itself
    database.execute("pragma synchronous=off")
    database.execute(
        "create table object (path, first integer, file, width, height, class, xmin, ymin, xmax, ymax, fault)"
    )
    _load(path, images, database)
    return labels.Source(
        None, _read(database, labels.PIXELS_FROM_ONE if one_based else labels.PIXELS), folder=images
    )


def _load(path, images, database):
    @functools.lru_cache(10_000)
    def find(name):  # as bytes: folders need not be Unicode
        return os.fsencode(os.path.normpath(labels.find_image(images, name))) if name else b""

    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            header = file.readline()
            file.seek(0)
            comma = ";" if ";" in header and "," not in header else ","
            reader = csv.DictReader(file, delimiter=comma, strict=True)
            reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in _WANTED if name not in reader.fieldnames]
            if missing:
                raise ValueError(
                    f"{path} lacks the column {missing[0]!r}; wanted filename,width,height,class,xmin,ymin,xmax,ymax, "
                    f"found {','.join(reader.fieldnames)[:100]!r}"
                )
            rows = (_row(entry, find, comma) for entry in _entries(reader, path))
            database.executemany(f"insert into object values ({','.join('?' * 11)})", rows)
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not CSV text in UTF-8: save it as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path} is not CSV text: {error}") from None
    database.execute("create index object_path on object (path)")
    database.execute(
        "update object set first = (select min(rowid) from object as other where other.path = object.path)"
    )


def _entries(reader, path):
    while True:
        line = reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, the row from line {line}: {error}; is a quotation mark left open there?"
            ) from None


def _row(entry, find, comma):
    text = {
        name: (value or "").strip() if not isinstance(value, list) else ""
        for name, value in entry.items()
    }
    sides, name = [text[side] for side in _SIDES], text["class"]
    fault = (
        ""
        if name and any(sides)
        else "no box"
        if name
        else "no class name"
        if any(sides)
        else _EMPTY
    )
    numbers = [labels.to_number(side.replace(",", ".") if comma == ";" else side) for side in sides]
    file = text["filename"]
    return (find(file), None, file, text.get("width"), text.get("height"), name, *numbers, fault)


def _read(database, unit):
    columns = "path, file, width, height, class, xmin, ymin, xmax, ymax, fault"
    rows = database.execute(f"select {columns} from object order by first, rowid")
    for path, group in itertools.groupby(rows, key=lambda row: row[0]):
        group = list(group)
        _, file, width, height = group[0][:4]
        yield labels.LabeledImage(
            path=os.fsdecode(path),
            filename=file or "a line without a file name",
            source_id=pathlib.PurePath(file.replace("\\", "/")).stem,
            objects=tuple(_object(*row[4:]) for row in group if row[-1] != _EMPTY),
            size_hw=labels.to_size(height, width),
            unit=unit,
            fault="" if file else "no file name",
        )


def _object(name, *box_and_fault):
    *box, fault = box_and_fault
    box = tuple(
        math.nan if side is None else side for side in box
    )  # the database keeps NaN as null
    return labels.LabeledObject(name, box, fault=fault)
