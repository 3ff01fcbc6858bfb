"""COCO results files: detections, written and read in parts, as a million rows take a gigabyte.

And the metrics of a written pair of COCO files by pycocotools.
"""

import collections
import contextlib
import gc
import io
import itertools
import json

import numpy as np
from absl import logging
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_tf import files
from ssd_tf.coco_rows import normalize_id
from ssd_tf.evaluation.json_files import brief, rows_of
from ssd_tf.evaluation.metrics import NAMES
from ssd_tf.evaluation.tables import SCORE_TOLERANCE, Found, Truth, concatenate
from ssd_tf.parsing import to_number

_ROWS_AT_ONCE = 1_000
_FIELDS = "image_id, category_id, bbox, score"
_NO_DETECTIONS = (np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
_TOLERANCE = 1e-6  # of pycocotools' numbers


def write_results(path, found: Found, truth: Truth):
    """Write detections as a COCO results file; rows carry the file_name and source_id of images."""
    heads = [_row_head(row) for row in truth.image_rows]
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
    """The beginning of the rows of an image."""
    names = {key: image[key] for key in ("file_name", "source_id") if key in image}
    return json.dumps({"image_id": image["id"], **names})[:-1] + ", "


def read_results(path, truth: Truth) -> Found:
    """Read a COCO results file.

    Detections of categories that the truth lacks are left out, with a warning. Raises
    FileNotFoundError, or ValueError if it is no such file, has a score outside 0 to 1, an image
    that the truth lacks, or no category that the truth has.
    """
    image_index = {normalize_id(value): i for i, value in enumerate(truth.image_ids)}
    category_index = {normalize_id(value): i for i, value in enumerate(truth.category_ids)}
    listed = f"an image_id of the annotations ({_list_ids(truth.image_ids)})"
    unknown = collections.Counter()
    parts = []
    rows = rows_of(path, f"a COCO results file: a list of objects with {_FIELDS}")
    with _without_garbage_collection():
        for start in itertools.count(0, _ROWS_AT_ONCE):
            chunk = list(itertools.islice(rows, _ROWS_AT_ONCE))
            if not chunk:
                break
            where = (path, start)
            image_ids, category_ids, boxes, scores = _read_columns(chunk, where)
            image = np.array([image_index.get(value, -1) for value in image_ids])
            _check((image >= 0).tolist(), where, image_ids, listed)
            category = np.array([category_index.get(value, -1) for value in category_ids])
            unknown.update(category_ids[row] for row in np.flatnonzero(category < 0))
            parts.append(Found(image, category, boxes, scores).select(category >= 0))
    found = Found(*concatenate(_NO_DETECTIONS, parts))
    if unknown:
        text = (
            f"{path}: {unknown.total()} detections ignored, of categories that the annotations "
            f"lack: {', '.join(map(brief, list(unknown)[:5]))}"
        )
        if not len(found.scores):
            raise ValueError(f"{text}; they have {_list_ids(truth.category_ids)}")
        logging.warning("%s", text)
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


def _list_ids(ids):
    more = ", ..." if len(ids) > 5 else ""
    return ", ".join(map(brief, ids[:5])) + more if ids else "none"


def _read_columns(rows, where):
    """The image ids, category ids, boxes [n, 4] and scores [n] of rows of a results file.

    where: of an error, see `_check`.
    """
    is_object = [isinstance(row, dict) for row in rows]
    _check(is_object, where, rows, f"an object with {_FIELDS}")
    ids = []
    for key in ("image_id", "category_id"):
        values = [row.get(key) for row in rows]
        ids.append(list(map(normalize_id, values)))
        is_id = [value is not None for value in ids[-1]]
        _check(is_id, where, values, f"{key} as a number or a string")
    written = [row.get("bbox") for row in rows]
    text = "bbox as four finite numbers (x, y, width, height)"
    _check([isinstance(box, list) and len(box) == 4 for box in written], where, written, text)
    boxes = _to_numbers([value for box in written for value in box]).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = np.isfinite(boxes).all(1) & np.isfinite(boxes[:, 2] * boxes[:, 3])
    _check(is_finite.tolist(), where, written, text)
    written = [row.get("score") for row in rows]
    scores = _to_numbers(written)
    is_score = (scores >= -SCORE_TOLERANCE) & (scores <= 1 + SCORE_TOLERANCE)
    _check(is_score.tolist(), where, written, "score as a number from 0 to 1")
    return *ids, boxes, np.clip(scores, 0, 1)


def _check(is_right, where, values, expected):
    """Raise ValueError for the first value that is not right.

    where: the file, and the index of the first value in it.
    """
    if not all(is_right):
        row = is_right.index(False)
        path, start = where
        raise ValueError(f"{path}[{start + row}]: expected {expected}, got {brief(values[row])}")


def _to_numbers(values):
    """`to_number` of each value, in a tenth of the time if all of them are numbers."""
    if {*map(type, values)} <= {int, float}:
        with contextlib.suppress(OverflowError):
            return np.array(values, float)
    return np.array([to_number(value) for value in values], float)


def pycocotools_metrics(ground_truth, detections) -> dict:
    """The twelve numbers of a COCO instances file and a results file, by name."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        results = _load_results(truth, detections)
        evaluation = _Evaluation(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def check_metrics(stats, ground_truth, detections):
    """Raise ValueError if pycocotools has another value for one of the numbers `stats`."""
    expected = pycocotools_metrics(ground_truth, detections)
    wrong = [name for name in NAMES if not abs(stats[name] - expected[name]) <= _TOLERANCE]
    if wrong:
        values = ", ".join(f"{name} {stats[name]:.7f} and {expected[name]:.7f}" for name in wrong)
        raise ValueError(
            f"hotcoco and pycocotools differ by more than {_TOLERANCE:g}: {values}; the files in "
            "the output folder show it to either's authors"
        )


class _Evaluation(COCOeval):
    """Difficult objects, which COCO does not know, count neither as found nor as missed."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for obj in objects:
                obj["ignore"] = int(bool(obj["ignore"] or obj.get("difficult")))


def _load_results(truth, detections):
    try:
        return truth.loadRes(str(detections))
    except IndexError:  # of an empty list it reads the first row
        empty = COCO()
        empty.dataset = {**truth.dataset, "annotations": []}
        empty.createIndex()
        return empty
