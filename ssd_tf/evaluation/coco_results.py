"""COCO results files: detections, written and read in parts, as a million rows take a gigabyte."""

import collections
import contextlib
import gc
import itertools
import json
import math

import numpy as np
from absl import logging

from ssd_tf import files
from ssd_tf.coco_rows import normalize_id
from ssd_tf.evaluation.json_files import brief, rows_of
from ssd_tf.evaluation.tables import SCORE_TOLERANCE, Found, Truth, image_rows
from ssd_tf.parsing import to_number

_ROWS_AT_ONCE = 1_000
_LARGE = 1e150  # pixels; areas beyond are infinite
_FIELDS = "image_id, category_id, bbox, score"


def write_results(path, found: Found, ground_truth: dict, truth: Truth):
    """Write detections as a COCO results file; rows carry their image's names.

    ground_truth: the content of the instances file that truth was made of.
    """
    heads = [_row_head(image) for image in image_rows(ground_truth, truth)]
    categories = [json.dumps(category_id) for category_id in truth.category_ids]
    with open(path, "w", encoding="utf-8") as file, files.json_list(file) as append:
        for start in range(0, len(found.scores), _ROWS_AT_ONCE):
            part = found.select(slice(start, start + _ROWS_AT_ONCE))
            # Formatted here, as json.dumps takes twice the time; a float's text is JSON.
            append(
                [
                    f'{heads[image]}"category_id": {categories[category]}, "bbox": {box}, '
                    f'"score": {score}}}'
                    for image, category, box, score in zip(
                        *map(np.ndarray.tolist, part), strict=True
                    )
                ]
            )


def _row_head(image):
    """How the rows of an image begin."""
    names = {key: image[key] for key in ("file_name", "source_id") if key in image}
    return json.dumps({"image_id": image["id"], **names})[:-1] + ", "


def read_results(path, truth: Truth) -> Found:
    """Read a COCO results file; ids and numbers are read as in annotations: `coco_rows`.

    Detections of categories that the truth lacks are left out, with a warning. Raises
    FileNotFoundError, or ValueError if it is no such file, has a score outside 0 to 1, an image
    that the truth lacks, or no category that the truth has.
    """
    parts = []
    count = 0
    images = _Ids(truth.image_ids)
    categories = _Ids(truth.category_ids)
    rows = rows_of(path, f"a COCO results file: a list of objects with {_FIELDS}")
    with _without_garbage_collection():
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            columns = _columns(chunk) or _columns_row_by_row(chunk, path, count)
            parts.append(_place(*columns, images, categories, path, count))
            count += len(chunk)
    empty = Found(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    found = Found(*map(np.concatenate, zip(empty, *parts, strict=True)))
    if categories.unknown:
        _report_unknown(categories, found, path)
    return found


@contextlib.contextmanager
def _without_garbage_collection():
    """A million short-lived rows, none of them in cycles, would start it a thousand times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Ids:
    """The index of each id, however it is spelled. unknown: counts of the ids without one."""

    def __init__(self, ids):
        self._ids = ids
        self._index = {normalize_id(value): index for index, value in enumerate(ids)}
        self.unknown = collections.Counter()

    def describe(self) -> str:
        """The first ids, for errors."""
        more = ", ..." if len(self._ids) > 5 else ""
        return ", ".join(map(brief, self._ids[:5])) + more if self._ids else "none"

    def find(self, values) -> list[int]:
        """The index of each value, -1 if it has none."""
        found = [self._index.get(value, -1) for value in values]
        for row, index in enumerate(found):
            if index < 0:
                found[row] = self._find_spelled(values[row])
        return found

    def _find_spelled(self, value):
        index = self._index.get(normalize_id(value), -1)
        if index < 0:
            self.unknown[value] += 1
        else:
            self._index[value] = index
        return index


def _columns(rows):
    """Image ids, category ids, boxes [n, 4] and scores [n]; None if a row may be at fault."""
    try:
        image_ids = [row["image_id"] for row in rows]
        category_ids = [row["category_id"] for row in rows]
        boxes = [row["bbox"] for row in rows]
        scores = [row["score"] for row in rows]
        numbers = itertools.chain(scores, itertools.chain.from_iterable(boxes))
        is_typed = (
            set(map(type, numbers)) <= {int, float}
            and set(map(type, itertools.chain(image_ids, category_ids))) <= {int, float, str}
            and set(map(type, boxes)) == {list}
            and set(map(len, boxes)) == {4}
        )
        boxes = np.array(boxes, float)
        scores = np.array(scores, float)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if is_typed and (np.abs(boxes) < _LARGE).all() and ((scores >= 0) & (scores <= 1)).all():
        return image_ids, category_ids, boxes, scores
    return None


def _columns_row_by_row(rows, path, start):
    """What `_columns` gives, for rows that need a closer look; raises ValueError for a fault."""
    read = [_read_row(row, f"{path}[{index}]") for index, row in enumerate(rows, start)]
    image_ids, category_ids, boxes, scores = zip(*read, strict=True)
    return image_ids, category_ids, np.array(boxes), np.array(scores)


def _read_row(row, where):
    """-> image id, category id, box and score."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object with {_FIELDS}, got {brief(row)}")
    for key in ("image_id", "category_id"):
        if normalize_id(row.get(key)) is None:
            raise ValueError(
                f"{where}: expected {key} as a number or a string, got {brief(row.get(key))}"
            )
    written = row.get("bbox")
    box = list(map(to_number, written)) if isinstance(written, list) else []
    if len(box) != 4 or not all(map(math.isfinite, (*box, box[2] * box[3]))):
        raise ValueError(
            f"{where}: expected bbox as four finite numbers (x, y, width, height), "
            f"got {brief(written)}"
        )
    score = to_number(row.get("score"))
    if not -SCORE_TOLERANCE <= score <= 1 + SCORE_TOLERANCE:
        raise ValueError(
            f"{where}: expected score as a number from 0 to 1, got {brief(row.get('score'))}"
        )
    return row["image_id"], row["category_id"], box, min(max(score, 0.0), 1.0)


def _place(image_ids, category_ids, boxes, scores, images, categories, path, start):
    """Columns with ids -> Found; categories that the truth lacks are left out, and counted."""
    image = np.array(images.find(image_ids))
    if images.unknown:
        row = int(np.flatnonzero(image < 0)[0])
        raise ValueError(
            f"{path}[{start + row}]: image_id {brief(image_ids[row])} is not among the images of "
            f"the annotations, which have {images.describe()}"
        )
    category = np.array(categories.find(category_ids))
    return Found(image, category, boxes, scores).select(category >= 0)


def _report_unknown(categories, found, path):
    """Warn of detections of categories that the truth lacks; an error if it lacks all."""
    text = (
        f"{path}: {categories.unknown.total()} detections ignored, of categories that the "
        f"annotations lack: {', '.join(map(brief, list(categories.unknown)[:5]))}"
    )
    if not len(found.scores):
        raise ValueError(f"{text}; they have {categories.describe()}")
    logging.warning("%s", text)
