"""COCO instances JSON: images, boxes [xmin, ymin, width, height] in pixels from 0, category ids.

The annotations are sorted by image in a temporary database on disk, which vanishes with the
process.
"""

import itertools
import math
import re
import sqlite3

from data_tools.readers import files, json_stream, labels
from ssd_tf import coco_rows, parsing, user_files

_LARGEST_SIDE = 2**31  # pixels; SQLite's integers end later
_COCO_KEYS = {"images", "categories"}
_START = 1 << 16  # characters in which a file of another tool shows what it is
# A key of such a file -> what the file is, and what can be read instead.
_OTHER_FORMATS = {
    "assets": "VoTT's own JSON; export Pascal VOC or CSV",
    "image_url": "Azure ML's JSON lines; export COCO",
    "rectanglelabels": "Label Studio's own JSON; export COCO, YOLO or Pascal VOC",
    "shapes": "LabelMe's JSON; convert it to COCO with labelme2coco",
    "region_attributes": "VIA's own JSON; export COCO",
    "classTitle": "Supervisely's own JSON; export COCO, YOLO or Pascal VOC",
}
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
    try:
        rows = _load(annotations, database)
    except ValueError as error:
        raise ValueError(f"{error}{_name_other_format(annotations)}") from None
    is_used = database.execute("select 1 from annotation where category = 0 limit 1").fetchone()
    rows, note = coco_rows.without_root(rows, is_used)
    classes = _read_classes(rows, annotations)
    names = {entry["id"]: entry["name"] for entry in classes}
    allowed = files.ImageFolders((images,), allow_outside)
    strays = labels.Tally()
    return labels.Source(
        classes,
        _read(database, images, allowed, names, strays),
        [note] if note else [],
        folder=images,
        strays=strays,
    )


def _name_other_format(path):
    """The end of an error: which other format the file seems to be, or empty."""
    try:
        with user_files.open_text(path) as file:
            start = file.read(_START)
    except UnicodeError:
        return ""
    keys = set(re.findall(r'"(\w+)"\s*:', start))
    found = next((what for key, what in _OTHER_FORMATS.items() if key in keys), None)
    return f"; it seems to be {found}" if found and not keys & _COCO_KEYS else ""


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
    size = parsing.to_size(entry.get("height"), entry.get("width"))
    height, width = size if size and max(size) <= _LARGEST_SIDE else (None, None)
    image_id = coco_rows.normalize_id(entry.get("id"))
    row = (image_id, coco_rows.read_file_name(entry), height, width)
    database.execute("insert into image (id, file, height, width) values (?, ?, ?, ?)", row)


def _put_annotation(database, entry):
    box, fault = coco_rows.read_box(entry)
    row = (
        coco_rows.normalize_id(entry.get("image_id")),
        coco_rows.normalize_id(entry.get("category_id")),
        *box,
        coco_rows.read_area(entry.get("area")),
        parsing.to_flag(entry.get("iscrowd")),
        fault,
    )
    database.execute("insert into annotation values (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _read_classes(rows, path):
    classes = coco_rows.read_categories(rows, path)
    for entry in classes:
        if isinstance(entry["id"], str):
            raise ValueError(
                f"{path}: expected categories with a numeric `id` of at most 64 bits, got {entry}"
            )
    if not classes:
        raise ValueError(f"{path} lists no categories, so its objects have no classes")
    return classes


def _read(database, folder, allowed, names, strays):
    rows = database.execute(_JOINED)
    for (_, image_id, file, height, width), group in itertools.groupby(
        rows, key=lambda row: row[:5]
    ):
        found = allowed.check(allowed.locate(folder, file)) if file else None
        fault = found.fault if found else "no file name"
        yield labels.LabeledImage(
            path=found.readable_path if found else "",
            filename=files.shorten(file) if file else f"image id {image_id}",
            source_id=str(image_id),
            objects=tuple(_object(row[5:], names) for row in group if row[5] is not None),
            size_hw=(height, width) if height else None,
            # No annotation can name it, so it would pass for an image without objects.
            fault="no image id" if image_id is None else fault,
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
