"""COCO instances files: ground truth, read and written."""

import collections
import math

import numpy as np
from absl import logging

from ssd_tf import class_names, coco_rows
from ssd_tf.coco_rows import LARGEST_ID, normalize_id
from ssd_tf.evaluation.json_files import brief, read_json
from ssd_tf.evaluation.tables import Truth
from ssd_tf.parsing import to_flag, to_number

# The lists of an instances file, and what their rows need.
_KEYS = {
    "images": "id",
    "annotations": "image_id, category_id, bbox",
    "categories": "id, name",
}
# Signs of boxes that are not in pixels.
_MAX_FRACTION = 1.5  # some normalised boxes end beyond their image
_OVERHANG = 1.05  # so do boxes in pixels, as models do not clip all of theirs
_SUSPICIOUS = 1 / 3  # of the boxes


def read_instances(path) -> dict:
    """Read a COCO instances file and complete its rows as pycocotools needs them.

    Rows that cannot be used are left out, and a warning counts them. Annotation ids become 1..n
    unless all of them are positive integers and differ. Raises FileNotFoundError, or ValueError if
    it is no such file, a class cannot have its name, or no row of a list can be used.
    """
    content = read_json(path)
    kind = f"{path} is not a COCO instances file"
    if not isinstance(content, dict):
        raise ValueError(f"{kind}: expected an object with {', '.join(_KEYS)}")
    for key, fields in _KEYS.items():
        _check_rows(content.get(key), fields, f"{kind}: {key}")
    has_zero = any(normalize_id(row.get("category_id")) == 0 for row in content["annotations"])
    rows, note = coco_rows.without_root(content["categories"], has_zero)
    if note:
        logging.info("%s: %s", path, note)
    categories = coco_rows.read_categories(rows, path)
    class_names.check_names([row["name"] for row in categories], path)
    images = _read_image_rows(content["images"], path)
    spelled = {normalize_id(row["id"]): row for row in rows}
    image_ids = _ids_of_one_type(images)
    category_ids = _ids_of_one_type(categories)
    return {
        **content,
        "images": [{**row, "id": image_ids[row["id"]]} for row in images],
        "annotations": _read_annotations(content["annotations"], image_ids, category_ids, path),
        "categories": [
            {**spelled[row["id"]], **row, "id": category_ids[row["id"]]} for row in categories
        ],
    }


def _check_rows(rows, fields, where):
    if not isinstance(rows, list):
        raise ValueError(f"{where}: expected a list of objects with {fields}, got {brief(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}[{index}]: expected an object, got {brief(row)}")


def _ids_of_one_type(rows):
    """{id: the same}, all of them text if one of them is: pycocotools sorts them."""
    ids = [row["id"] for row in rows]
    has_text = any(isinstance(value, str) for value in ids)
    return {value: str(value) if has_text else value for value in ids}


def _read_image_rows(rows, path):
    """Copies of `images` with ids and file names as `coco_rows` reads them."""
    images = {}
    skipped = _Skipped("images")
    for index, row in enumerate(rows):
        image_id = normalize_id(row.get("id"))
        if image_id is None:
            skipped.add("no id", index, row, "id")
            continue
        if image_id in images:
            raise ValueError(f"{path}: two images have the id {image_id}; ids must differ")
        images[image_id] = {**row, "id": image_id}
        file_name = coco_rows.read_file_name(row)
        if file_name:
            images[image_id]["file_name"] = file_name
    skipped.report(path, len(rows))
    if not images:
        raise ValueError(f"{path} has no images, so there is nothing to measure")
    return list(images.values())


def _read_annotations(rows, image_ids, category_ids, path):
    """Completed copies of the annotations that can be used, with these ids: {read: written}."""
    skipped = _Skipped("annotations")
    annotations = []
    for index, row in enumerate(rows):
        image_id = image_ids.get(normalize_id(row.get("image_id")))
        category_id = category_ids.get(normalize_id(row.get("category_id")))
        box, fault = coco_rows.read_box(row)
        if image_id is None:
            skipped.add("their image is not listed", index, row, "image_id")
        elif category_id is None:
            skipped.add("their category is not listed", index, row, "category_id")
        elif fault:
            skipped.add(fault, index, row, "bbox")
        else:
            more = {"image_id": image_id, "category_id": category_id, "bbox": box}
            annotations.append({**row, **more, **_read_more(row, box)})
    skipped.report(path, len(rows))
    ids = [row.get("id") for row in annotations]
    # To pycocotools, a match with id 0 is no match, and equal ids are one object.
    is_usable = all(type(i) is int and 0 < i <= LARGEST_ID for i in ids)
    if not is_usable or len(set(ids)) < len(ids):
        ids = range(1, len(annotations) + 1)
    return [{**row, "id": i} for row, i in zip(annotations, ids, strict=True)]


def _read_more(row, box):
    area = coco_rows.read_area(row.get("area"))
    more = {"area": box[2] * box[3] if math.isnan(area) else area}
    more["iscrowd"] = int(to_flag(row.get("iscrowd")))
    if "difficult" in row:
        more["difficult"] = int(to_flag(row["difficult"]))
    return more


class _Skipped:
    """Counts of rows that cannot be used, by reason, each with its first row."""

    def __init__(self, key):
        self._key = key
        self._counts = collections.Counter()
        self._first = {}

    def add(self, reason, index, row, field):
        self._counts[reason] += 1
        if reason not in self._first:
            self._first[reason] = f"{self._key}[{index}], {field} {brief(row.get(field))}"

    def report(self, path, num_rows):
        """Warn of each reason; raise ValueError if no row is left."""
        lines = [
            f"{count} of {num_rows} {self._key} left out: {reason}; the first is "
            f"{self._first[reason]}"
            for reason, count in self._counts.items()
        ]
        if lines and self._counts.total() == num_rows:
            raise ValueError(f"{path}: none of the {self._key} can be used: {'; '.join(lines)}")
        for line in lines:
            logging.warning("%s: %s", path, line)


def make_truth(instances: dict) -> Truth:
    """The Truth of COCO instances, as `read_instances` returns them."""
    images = {row["id"]: row for row in instances["images"]}
    categories = {row["id"]: row["name"] for row in instances["categories"]}
    rows = instances["annotations"]
    return Truth(
        images,
        categories,
        _indices(images, [row["image_id"] for row in rows]),
        _indices(categories, [row["category_id"] for row in rows]),
        np.array([row["bbox"] for row in rows], float).reshape(-1, 4),
        np.array([row["area"] for row in rows], float),
        np.array([bool(row["iscrowd"]) for row in rows], bool),
        np.array([bool(row.get("difficult")) for row in rows], bool),
    )


def _indices(ids, values):
    index_of = {value: index for index, value in enumerate(sorted(ids))}
    return np.array([index_of[value] for value in values], np.int64)


def make_instances(truth: Truth) -> dict:
    """The content of a COCO instances file; each annotation also has the flag `difficult`."""
    image_ids = truth.image_ids
    category_ids = truth.category_ids
    rows = zip(*map(np.ndarray.tolist, truth[2:]), strict=True)
    return {
        "images": list(truth.images.values()),
        "annotations": [
            {
                "id": annotation_id,
                "image_id": image_ids[image],
                "category_id": category_ids[category],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                "difficult": int(difficult),
            }
            for annotation_id, (image, category, box, area, crowd, difficult) in enumerate(rows, 1)
        ],
        "categories": [{"id": key, "name": name} for key, name in truth.categories.items()],
    }


def find_unit_fault(table, image_rows) -> str:
    """Why the boxes of a Truth or Found seem not to be in pixels; empty if they seem to be.

    image_rows: those of the Truth, with the sizes of the images if they are known.
    """
    if not len(table.image):
        return ""
    ends = table.boxes[:, :2] + table.boxes[:, 2:]
    if np.abs(np.concatenate([table.boxes, ends], 1)).max() <= _MAX_FRACTION:
        return "all boxes lie within 0 to 1; expected x, y, width, height in pixels"
    sizes = [[to_number(row.get(key)) for key in ("width", "height")] for row in image_rows]
    # Comparisons with NaN, of an unknown size, are false.
    is_beyond = (ends > _OVERHANG * np.array(sizes)[table.image]).any(1)
    if is_beyond.mean() <= _SUSPICIOUS:
        return ""
    return (
        f"{is_beyond.sum()} of {len(is_beyond)} boxes end beyond their image; expected x, y, "
        "width, height in pixels of the image, not corners or pixels of another size"
    )
