"""CSV with a line per object: filename,width,height,class,xmin,ymin,xmax,ymax. A line without class and box: an empty picture.

Rows of a picture need not stand together: they are sorted in a temporary database on disk, which vanishes with the process.
"""

import csv
import itertools
import math
import pathlib
import sqlite3

from data_tools.readers import labels

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_WANTED = ("filename", "class", *_SIDES)
_EMPTY = "no object"  # the mark of a line that only names a picture


def read_csv(path, images, one_based) -> labels.Source:
    """one_based: boxes count from 1 and include their last pixel, as in the TensorFlow tutorials. `source_id`: the stem."""
    path = labels.check_file(path, "--csv")
    images = labels.check_folder(images, "--images")
    database = sqlite3.connect("")  # the empty name: a private file that is deleted by itself
    database.execute("pragma synchronous=off")
    database.execute("create table object (file, first integer, width, height, class, xmin, ymin, xmax, ymax, fault)")
    _load(path, database)
    return labels.Source(None, _read(database, images, labels.PIXELS_FROM_ONE if one_based else labels.PIXELS))


def _load(path, database):
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in _WANTED if name not in reader.fieldnames]
            if missing:
                raise ValueError(
                    f"{path} lacks the column {missing[0]!r}; wanted filename,width,height,class,xmin,ymin,xmax,ymax, "
                    f"found {','.join(reader.fieldnames)[:100]!r}"
                )
            database.executemany(f"insert into object values ({','.join('?' * 10)})", map(_row, reader))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not CSV text: {error}") from None
    database.execute("create index object_file on object (file)")
    database.execute("update object set first = (select min(rowid) from object as other where other.file = object.file)")


def _row(entry):
    text = {name: (value or "").strip() if not isinstance(value, list) else "" for name, value in entry.items()}
    sides, name = [text[side] for side in _SIDES], text["class"]
    fault = "" if name and any(sides) else "no box" if name else "no class name" if any(sides) else _EMPTY
    numbers = map(labels.to_number, sides)
    return (text["filename"], None, text.get("width"), text.get("height"), name, *numbers, fault)


def _read(database, folder, unit):
    rows = database.execute("select file, width, height, class, xmin, ymin, xmax, ymax, fault from object order by first, rowid")
    for file, group in itertools.groupby(rows, key=lambda row: row[0]):
        group = list(group)
        path = labels.find_image(folder, file)
        yield labels.LabeledImage(
            path=str(path) if file else "",
            filename=file or "a line without a file name",
            source_id=pathlib.PurePath(file).stem,
            objects=tuple(_object(*row[3:]) for row in group if row[-1] != _EMPTY),
            size_hw=labels.to_size(group[0][2], group[0][1]),
            unit=unit,
            fault="" if file else "no file name",
        )


def _object(name, *box_and_fault):
    *box, fault = box_and_fault
    box = tuple(math.nan if side is None else side for side in box)  # the database keeps NaN as null
    return labels.LabeledObject(name, box, fault=fault)
