"""COCO instances JSON: pictures, boxes [xmin, ymin, width, height] in pixels from 0, category ids with gaps.

The annotations are sorted by picture in a temporary database on disk, which vanishes with the process.
"""

import itertools
import math
import sqlite3

from data_tools.readers import json_stream, labels

_TABLES = """
create table image (position integer primary key, id, file, height, width);
create table annotation (image, category, xmin, ymin, width, height, area, crowd, fault);
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
    notes = []
    classes = _check_categories(_leave_out_root(categories, database, notes), annotations)
    names, strays = {entry["id"]: entry["name"] for entry in classes}, labels.Tally()
    return labels.Source(
        classes, _read(database, images, names, strays), notes, folder=images, strays=strays
    )


def _load(path, database):
    """Fills the two tables; returns the categories."""
    categories, seen = [], set()
    put = {
        "images": _put_image,
        "annotations": _put_annotation,
        "categories": lambda _, entry: categories.append(entry),
    }
    for key, entry in json_stream.read_members(path, tuple(put)):
        if key not in seen:
            seen.add(key)
        elif not isinstance(entry, dict):
            raise ValueError(
                f"{path} is not COCO instances JSON: {key!r} holds {str(entry)[:40]!r}, not an object"
            )
        else:
            put[key](database, entry)
    missing = [key for key in put if key not in seen]
    if missing:
        raise ValueError(
            f"{path} is not COCO instances JSON: it has no {' and no '.join(map(repr, missing))}"
        )
    try:
        database.execute("create unique index image_id on image (id)")
    except sqlite3.IntegrityError:
        twice = database.execute("select id from image group by id having count(*) > 1").fetchone()[
            0
        ]
        raise ValueError(f"{path}: two images have the id {twice}; ids must differ") from None
    database.execute("create index annotation_image on annotation (image)")
    return categories


def _put_image(database, entry):
    height, width = labels.to_size(entry.get("height"), entry.get("width")) or (None, None)
    file = entry.get("file_name")
    file = (
        file.encode(errors="backslashreplace").decode() if isinstance(file, str) else None
    )  # as the database can keep it
    row = (_plain(entry.get("id")), file, height, width)
    database.execute("insert into image (id, file, height, width) values (?, ?, ?, ?)", row)


def _put_annotation(database, entry):
    box, fault = _read_box(entry)
    crowd = labels.to_number(entry.get("iscrowd")) == 1
    area = labels.to_number(entry.get("area"))
    row = (
        _plain(entry.get("image_id")),
        _plain(entry.get("category_id")),
        *box,
        area,
        crowd,
        fault,
    )
    database.execute("insert into annotation values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _read_box(entry):
    """-> ([xmin, ymin, width, height], fault): bbox, else the extent of the polygons where a tool writes these alone."""
    box, polygons = entry.get("bbox"), entry.get("segmentation")
    if isinstance(box, list) and len(box) == 4:
        return [labels.to_number(value) for value in box], ""
    if box:
        return labels.NOT_A_BOX, ""
    rings = (
        polygons
        if isinstance(polygons, list) and all(isinstance(ring, list) for ring in polygons)
        else []
    )
    xs = [labels.to_number(value) for ring in rings for value in ring[::2]]
    ys = [labels.to_number(value) for ring in rings for value in ring[1::2]]
    if not ys:
        return labels.NOT_A_BOX, "no box"
    if not all(map(math.isfinite, xs + ys)):
        return labels.NOT_A_BOX, ""
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], ""


def _plain(identity):
    """An id as the database can keep it: 1, 1.0 and "1", which tools mix, are one; what has no 64 bits stays as text."""
    text = str(identity)
    if isinstance(identity, float) and identity.is_integer():
        text = str(int(identity))
    if len(text) > 20 or not text.removeprefix("-").isdecimal():
        return text
    return int(text) if -(2**63) <= int(text) < 2**63 else text


def _leave_out_root(categories, database, notes):
    """Roboflow's first category, id 0, names the whole project and has no objects: it is no class."""
    others = [entry for entry in categories if _plain(entry.get("id")) != 0]
    claimed = [entry.get(key) for entry in others for key in ("name", "supercategory")]
    used = database.execute("select 1 from annotation where category = 0 limit 1").fetchone()
    roots = [entry.get("name") for entry in categories if _plain(entry.get("id")) == 0]
    if used or len(roots) != 1 or roots[0] not in claimed:
        return categories
    notes.append(
        f"category 0 {roots[0]!r} is left out: it has no objects, and others have it as their name or supercategory"
    )
    return others


def _check_categories(categories, path):
    classes = []
    for entry in categories:
        number = _plain(entry.get("id"))
        if not isinstance(entry.get("name"), str) or not isinstance(number, int):
            raise ValueError(
                f"{path}: a category wants a number `id` and a `name`, and ids of at most 64 bits, found {entry}"
            )
        classes.append({"name": entry["name"], "id": number})
    if not classes:
        raise ValueError(f"{path} lists no categories, so its objects have no classes")
    for key, other in (("id", "name"), ("name", "id")):
        values = [entry[key] for entry in classes]
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            found = " and ".join(repr(entry[other]) for entry in classes if entry[key] == twice[0])
            raise ValueError(
                f"{path}: two categories have the {key} {twice[0]!r} ({other}s {found}): rename one in `categories` of that "
                "file, or give its annotations the other's category_id and remove it"
            )
    return sorted(classes, key=lambda entry: entry["id"])


def _read(database, folder, names, strays):
    rows = database.execute(_JOINED)
    for (_, identity, file, height, width), group in itertools.groupby(
        rows, key=lambda row: row[:5]
    ):
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
        box = [
            value if value is None or math.isfinite(value) else None
            for value in _object(row, names).box
        ]
        strays.add({"file": f"image id {row[0]}", "box": box, "reason": "image not listed"})


def _object(row, names):
    _, category, *box, area, crowd, fault = row
    xmin, ymin, width, height = (
        math.nan if value is None else value for value in box
    )  # the database keeps NaN as null
    known = category in names
    return labels.LabeledObject(
        name=names[category] if known else f"category {category}",
        box=(xmin, ymin, xmin + width, ymin + height),
        area=area,
        crowd=bool(crowd),
        fault=fault if known else "unknown category",
    )
