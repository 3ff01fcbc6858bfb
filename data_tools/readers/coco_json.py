"""COCO instances JSON: images, boxes [xmin, ymin, width, height] in pixels from 0, category ids.

The annotations are sorted by image in a temporary database on disk, which vanishes with the
process.
"""

import itertools
import math
import sqlite3

from data_tools.readers import files, json_stream, labels
from ssd_tf import parsing

_TABLES = """
create table image (position integer primary key, id, file, height, width);
create table annotation (image, category, xmin, ymin, width, height, area, crowd, fault);
"""
_JOINED = """
select image.position, image.id, image.file, image.height, image.width, annotation.*
from image left join annotation on annotation.image = image.id
order by image.position, annotation.rowid
"""
_STRAY = """
select annotation.* from annotation
where not exists (select 1 from image where id = annotation.image)
"""


def read_coco(annotations, images, allow_outside=False) -> labels.Source:
    """Read the JSON file `annotations` for the images in the folder `images`.

    `source_id` is the image id. allow_outside: whether a `file_name` may lead out of the folder.
    """
    annotations = files.check_file(annotations, "--annotations")
    images = files.check_folder(images, "--images")
    database = sqlite3.connect("")  # the empty name: a private file that SQLite deletes
    database.executescript("pragma journal_mode=off; pragma synchronous=off;" + _TABLES)
    categories = _load(annotations, database)
    notes = []
    classes = _check_categories(_without_root(categories, database, notes), annotations)
    names = {entry["id"]: entry["name"] for entry in classes}
    allowed = files.ImageFolders((images,), allow_outside)
    strays = labels.Tally()
    return labels.Source(
        classes,
        _read(database, images, allowed, names, strays),
        notes,
        folder=images,
        strays=strays,
    )


def _load(path, database):
    """Fill the two tables; return the categories."""
    categories = []
    seen = set()
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
                f"{path} is not COCO instances JSON: "
                f"{key!r} holds {str(entry)[:40]!r}, not an object"
            )
        else:
            put[key](database, entry)
    missing = [key for key in put if key not in seen]
    if missing:
        raise ValueError(
            f"{path} is not COCO instances JSON: it has no {' and no '.join(map(repr, missing))}"
        )
    _index(database, path)
    return categories


def _index(database, path):
    """Index both tables by image id; raise ValueError if two images share an id."""
    try:
        database.execute("create unique index image_id on image (id)")
    except sqlite3.IntegrityError:
        query = "select id from image group by id having count(*) > 1"
        (repeated,) = database.execute(query).fetchone()
        raise ValueError(f"{path}: two images have the id {repeated}; ids must differ") from None
    database.execute("create index annotation_image on annotation (image)")


def _put_image(database, entry):
    height, width = parsing.to_size(entry.get("height"), entry.get("width")) or (None, None)
    file = entry.get("file_name")
    # SQLite takes no lone surrogates.
    file = file.encode(errors="backslashreplace").decode() if isinstance(file, str) else None
    row = (_normalize_id(entry.get("id")), file, height, width)
    database.execute("insert into image (id, file, height, width) values (?, ?, ?, ?)", row)


def _put_annotation(database, entry):
    box, fault = _read_box(entry)
    row = (
        _normalize_id(entry.get("image_id")),
        _normalize_id(entry.get("category_id")),
        *box,
        parsing.to_number(entry.get("area")),
        parsing.to_number(entry.get("iscrowd")) == 1,
        fault,
    )
    database.execute("insert into annotation values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _read_box(entry):
    """-> ([xmin, ymin, width, height], fault).

    The box is `bbox`, or the extent of the polygons, which are all that some tools write.
    """
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        return [parsing.to_number(value) for value in box], ""
    if box:
        return labels.NOT_A_BOX, ""
    polygons = entry.get("segmentation")
    if not isinstance(polygons, list) or not all(isinstance(ring, list) for ring in polygons):
        polygons = []
    xs = [parsing.to_number(value) for ring in polygons for value in ring[::2]]
    ys = [parsing.to_number(value) for ring in polygons for value in ring[1::2]]
    if not ys:
        return labels.NOT_A_BOX, "no box"
    if not all(map(math.isfinite, xs + ys)):
        return labels.NOT_A_BOX, ""
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], ""


def _normalize_id(value):
    """An id as the database can keep it.

    1, 1.0 and "1", which tools mix, are the same id. An id of more than 64 bits stays text.
    """
    text = str(value)
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    if len(text) > 20 or not text.removeprefix("-").isdecimal():
        return text
    return int(text) if -(2**63) <= int(text) < 2**63 else text


def _without_root(categories, database, notes):
    """The categories without Roboflow's first one, which is not a class.

    It has id 0, is named after the whole project and has no objects.
    """
    others = [entry for entry in categories if _normalize_id(entry.get("id")) != 0]
    claimed = [entry.get(key) for entry in others for key in ("name", "supercategory")]
    used = database.execute("select 1 from annotation where category = 0 limit 1").fetchone()
    roots = [entry.get("name") for entry in categories if _normalize_id(entry.get("id")) == 0]
    if used or len(roots) != 1 or roots[0] not in claimed:
        return categories
    notes.append(
        f"category 0 {roots[0]!r} is left out: it has no objects, "
        "and others have it as their name or supercategory"
    )
    return others


def _check_categories(categories, path):
    classes = []
    for entry in categories:
        category_id = _normalize_id(entry.get("id"))
        if not isinstance(entry.get("name"), str) or not isinstance(category_id, int):
            raise ValueError(
                f"{path}: expected a category with a `name` and a numeric `id` of at most 64 bits, "
                f"got {entry}"
            )
        classes.append({"name": entry["name"], "id": category_id})
    if not classes:
        raise ValueError(f"{path} lists no categories, so its objects have no classes")
    _check_unique(classes, "id", "name", path)
    _check_unique(classes, "name", "id", path)
    return sorted(classes, key=lambda entry: entry["id"])


def _check_unique(classes, key, other, path):
    values = [entry[key] for entry in classes]
    repeated = [value for value in values if values.count(value) > 1]
    if repeated:
        found = " and ".join(repr(entry[other]) for entry in classes if entry[key] == repeated[0])
        raise ValueError(
            f"{path}: two categories have the {key} {repeated[0]!r} ({other}s {found}): rename one "
            "in `categories` of that file, or give its annotations the other's category_id and "
            "remove it"
        )


def _read(database, folder, allowed, names, strays):
    rows = database.execute(_JOINED)
    for (_, image_id, file, height, width), group in itertools.groupby(
        rows, key=lambda row: row[:5]
    ):
        found = allowed.check(allowed.locate(folder, file)) if file else None
        yield labels.LabeledImage(
            path=found.readable_path if found else "",
            filename=files.shorten(file) if file else f"image id {image_id}",
            source_id=str(image_id),
            objects=tuple(_object(row[5:], names) for row in group if row[5] is not None),
            size_hw=(height, width) if height else None,
            fault=found.fault if found else "no file name",
        )
    for row in database.execute(_STRAY):
        box = [
            value if value is None or math.isfinite(value) else None
            for value in _object(row, names).box
        ]
        strays.add({"file": f"image id {row[0]}", "box": box, "reason": "image not listed"})


def _object(row, names):
    _, category, *box, area, crowd, fault = row
    # The database keeps NaN as null.
    xmin, ymin, width, height = (math.nan if value is None else value for value in box)
    known = category in names
    return labels.LabeledObject(
        name=names[category] if known else f"category {category}",
        box=(xmin, ymin, xmin + width, ymin + height),
        area=area,
        crowd=bool(crowd),
        fault=fault if known else "unknown category",
    )
