"""The fields of COCO rows as tools write them: ids, boxes, flags, areas, names.

The converter and `ssd evaluate` read annotation files with these functions, so that a file means
the same to both.
"""

import collections
import math
import urllib.parse

from ssd_tf import class_names
from ssd_tf.parsing import to_number

LARGEST_ID = 2**63 - 1  # of the integers by which NumPy, and so pycocotools, sorts ids
_NOT_A_BOX = (math.nan,) * 4
_BACKGROUND = ("background", "__background__", "_background_")


def normalize_id(value) -> int | str | None:
    """An id of an image or a category; None if the value is none.

    1, 1.0, "1" and "001", which tools mix, are the same id. An id of more than 64 bits stays text.
    """
    if type(value) is int and -LARGEST_ID <= value <= LARGEST_ID:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = int(value) if value.is_integer() else value
    text = printable(str(value).strip())
    if not text:
        return None
    whole, _, decimals = text.partition(".")
    if len(whole) > 20 or decimals.strip("0") or not whole.removeprefix("-").isdecimal():
        return text
    return int(whole) if -LARGEST_ID <= int(whole) <= LARGEST_ID else text


def read_area(value) -> float:
    """The area of an annotation in pixels; NaN if it has none: then it is that of the box."""
    area = to_number(value)
    return area if 0 < area < math.inf else math.nan


def read_box(entry) -> tuple[list[float], str]:
    """-> ([xmin, ymin, width, height] in pixels, why it is no box; empty if it is one).

    The box is `bbox`, or if that cannot be used the extent of the polygons, which are all that some
    tools write.
    """
    written = entry.get("bbox")
    box = list(_NOT_A_BOX)
    fault = "not a box" if written else "no box"
    if isinstance(written, list) and len(written) == 4:
        box = [to_number(value) for value in written]
        fault = find_fault(box)
    if fault:
        extent = _find_extent(entry.get("segmentation"))
        if extent and (not find_fault(extent) or fault == "no box"):
            return extent, find_fault(extent)
    return box, fault


def find_fault(box) -> str:
    """Why [xmin, ymin, width, height] cannot be used; empty if it can."""
    x, y, width, height = box
    if not all(map(math.isfinite, (*box, x + width, y + height, width * height))):
        return "not a number"
    if width < 0 or height < 0:
        return "negative"
    return "" if x + width > x and y + height > y else "degenerate"


def _find_extent(polygons):
    """[xmin, ymin, width, height] around polygons; None if there are none."""
    if not isinstance(polygons, list):
        return None
    if polygons and not any(isinstance(ring, (list, dict)) for ring in polygons):
        polygons = [polygons]  # one polygon, not in a list
    if not all(isinstance(ring, list) for ring in polygons):
        return None
    xs = [to_number(value) for ring in polygons for value in ring[::2]]
    ys = [to_number(value) for ring in polygons for value in ring[1::2]]
    if not ys:
        return None
    if not all(map(math.isfinite, xs + ys)):
        return list(_NOT_A_BOX)
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def read_file_name(entry) -> str | None:
    """The file of an image: `file_name`, else the last part of `coco_url`, `url` or `path`."""
    name = entry.get("file_name")
    if isinstance(name, str) and name:
        return printable(name)
    for key in ("coco_url", "url", "path"):
        address = entry.get(key)
        if isinstance(address, str) and (last := _last_part(address)):
            return printable(last)
    return None


def _last_part(address):
    if "://" in address:
        address = urllib.parse.unquote(address.partition("?")[0].partition("#")[0])
    return address.replace("\\", "/").rsplit("/", 1)[-1]


def read_categories(rows, path) -> list[dict]:
    """The categories of a file as [{"id", "name"}], by id.

    Raises ValueError if one has no name or no id, or shares it with another.
    """
    categories = []
    for row in rows:
        category_id = normalize_id(row.get("id"))
        name = row.get("name")
        if not isinstance(name, str) or category_id is None:
            raise ValueError(
                f"{path}: expected a category with a `name` and an `id`, got {str(row)[:200]}"
            )
        categories.append({"id": category_id, "name": class_names.normalize(printable(name))})
    _check_unique(categories, "id", "name", path)
    _check_unique(categories, "name", "id", path)
    return sorted(categories, key=lambda row: (isinstance(row["id"], str), row["id"]))


def _check_unique(categories, key, other, path):
    counts = collections.Counter(row[key] for row in categories)
    for value, count in counts.items():
        if count > 1:
            found = " and ".join(repr(row[other]) for row in categories if row[key] == value)
            raise ValueError(
                f"{path}: two categories have the {key} {value!r} ({other}s {found}): rename one "
                "in `categories` of that file, or give its annotations the other's category_id "
                "and remove it"
            )


def without_root(rows, has_objects) -> tuple[list[dict], str]:
    """-> (the rows of `categories` without one that is no class, a note of it; else empty).

    rows: as the file has them. has_objects: whether annotations have the category 0. Roboflow's
    first category has id 0, the name of the whole project and no objects; other tools' is called
    background.
    """
    others = [row for row in rows if normalize_id(row.get("id")) != 0]
    roots = [row.get("name") for row in rows if normalize_id(row.get("id")) == 0]
    if has_objects or len(roots) != 1 or not others:
        return rows, ""
    claimed = [row.get(key) for row in others for key in ("name", "supercategory")]
    note = f"category 0 {roots[0]!r} is left out: it has no objects"
    if roots[0] in claimed:
        return others, f"{note}, and others have it as their name or supercategory"
    if isinstance(roots[0], str) and roots[0].strip().lower() in _BACKGROUND:
        return others, f"{note}, and its name is that of no class"
    return rows, ""


def printable(text) -> str:
    """Text that UTF-8 can hold: JSON may have half a surrogate pair, which becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
