"""COCO instances JSON: pictures, boxes [xmin, ymin, width, height] in pixels from 0, category ids with gaps.

The annotations are sorted by picture in a temporary database on disk, which vanishes with the process.
"""

import itertools
import math
import sqlite3

from data_tools.readers import json_stream, labels

_TABLES = """
create table image (position integer primary key, id, file, height, width);
create table annotation (image, category, xmin, ymin, width, height, area, crowd);
"""
_JOINED = """
select image.position, image.id, image.file, image.height, image.width, annotation.*
from image left join annotation on annotation.image = image.id order by image.position, annotation.rowid
"""
_STRAY = "select annotation.* from annotation where not exists (select 1 from image where id = annotation.image)"


def read_coco(annotations, images) -> labels.Source:
    """annotations: the JSON file; images: the folder of its pictures. `source_id` is the image id."""
    annotations = labels.check_file(annotations, "--annotations")
    images = labels.check_folder(images, "--images")
    database = sqlite3.connect("")  # the empty name: a private file that is deleted by itself
    database.executescript("pragma journal_mode=off; pragma synchronous=off;" + _TABLES)
    categories = _load(annotations, database)
    classes = _check_categories(categories, annotations)
    return labels.Source(classes, _read(database, images, {entry["id"]: entry["name"] for entry in classes}))


def _load(path, database):
    """Fills the two tables; returns the categories."""
    categories, seen = [], set()
    put = {"images": _put_image, "annotations": _put_annotation, "categories": lambda _, entry: categories.append(entry)}
    for key, entry in json_stream.read_members(path, tuple(put)):
        if key not in seen:
            seen.add(key)
        elif not isinstance(entry, dict):
            raise ValueError(f"{path} is not COCO instances JSON: {key!r} holds {str(entry)[:40]!r}, not an object")
        else:
            put[key](database, entry)
    missing = [key for key in put if key not in seen]
    if missing:
        raise ValueError(f"{path} is not COCO instances JSON: it has no {' and no '.join(map(repr, missing))}")
    try:
        database.execute("create unique index image_id on image (id)")
    except sqlite3.IntegrityError:
        twice = database.execute("select id from image group by id having count(*) > 1").fetchone()[0]
        raise ValueError(f"{path}: two images have the id {twice}; ids must differ") from None
    database.execute("create index annotation_image on annotation (image)")
    return categories


def _put_image(database, entry):
    height, width = labels.to_size(entry.get("height"), entry.get("width")) or (None, None)
    file = entry.get("file_name")
    row = (_plain(entry.get("id")), file if isinstance(file, str) else None, height, width)
    database.execute("insert into image (id, file, height, width) values (?, ?, ?, ?)", row)


def _put_annotation(database, entry):
    box = entry.get("bbox")
    box = [labels.to_number(value) for value in box] if isinstance(box, list) and len(box) == 4 else labels.NOT_A_BOX
    crowd = labels.to_number(entry.get("iscrowd")) == 1
    row = (_plain(entry.get("image_id")), _plain(entry.get("category_id")), *box, labels.to_number(entry.get("area")), crowd)
    database.execute("insert into annotation values (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _plain(identity):
    """An id as the database can keep it."""
    return identity if isinstance(identity, (str, int)) and not isinstance(identity, bool) else str(identity)


def _check_categories(categories, path):
    classes = []
    for entry in categories:
        if not isinstance(entry.get("name"), str) or not isinstance(entry.get("id"), int):
            raise ValueError(f"{path}: a category wants a number `id` and a `name`, found {entry}")
        classes.append({"name": entry["name"], "id": entry["id"]})
    if not classes:
        raise ValueError(f"{path} lists no categories, so its objects have no classes")
    for key in ("id", "name"):
        values = [entry[key] for entry in classes]
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"{path}: two categories have the {key} {twice[0]!r}; they must differ")
    return sorted(classes, key=lambda entry: entry["id"])


def _read(database, folder, names):
    rows = database.execute(_JOINED)
    for (_, identity, file, height, width), group in itertools.groupby(rows, key=lambda row: row[:5]):
        objects = tuple(_object(row[5:], names) for row in group if row[5] is not None)
        yield labels.LabeledImage(
            path=str(labels.find_image(folder, file)) if file else "",
            filename=file or f"image id {identity}",
            source_id=str(identity),
            objects=objects,
            size_hw=(height, width) if height else None,
            fault="" if file else "no file name",
        )
    for row in database.execute(_STRAY):
        stray = (_object(row, names),)
        yield labels.LabeledImage("", f"image id {row[0]}", str(row[0]), stray, fault="annotation of an unlisted image")


def _object(row, names):
    _, category, *box, area, crowd = row
    xmin, ymin, width, height = (math.nan if value is None else value for value in box)  # the database keeps NaN as null
    known = category in names
    return labels.LabeledObject(
        name=names[category] if known else f"category {category}",
        box=(xmin, ymin, xmin + width, ymin + height),
        area=area,
        crowd=bool(crowd),
        fault="" if known else "unknown category",
    )
