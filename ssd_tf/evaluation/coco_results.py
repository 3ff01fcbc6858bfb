"""COCO results files: detections, written and read in parts, as a million rows take a gigabyte."""

import collections
import contextlib
import gc
import itertools
import json
import os
import pathlib
import re

import numpy as np
from absl import logging

from ssd_tf.evaluation.coco_rows import RESULTS, check_row, not_a_list, read_json, read_text
from ssd_tf.evaluation.tables import Found, Truth, image_rows, places

_ROWS_AT_ONCE = 1_000


def write_results(path, found: Found, ground_truth: dict, truth: Truth):
    """Write detections as a COCO results file, atomically; rows carry their image's names.

    ground_truth: the content of the instances file that truth was made of.
    """
    heads = [_row_head(image) for image in image_rows(ground_truth, truth)]
    categories = [json.dumps(category_id) for category_id in truth.category_ids]
    path = pathlib.Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        separator = "[\n"
        for start in range(0, len(found.scores), _ROWS_AT_ONCE):
            part = found.select(slice(start, start + _ROWS_AT_ONCE))
            # Formatted here, as json.dumps takes twice the time; a float's text is JSON.
            rows = [
                f'{heads[image]}"category_id": {categories[category]}, "bbox": {box}, '
                f'"score": {score}}}'
                for image, category, box, score in zip(*map(np.ndarray.tolist, part), strict=True)
            ]
            file.write(separator)
            file.write(",\n".join(rows))
            separator = ",\n"
        file.write("\n]\n" if len(found.scores) else "[]\n")
    os.replace(temporary, path)


def _row_head(image):
    """How the rows of an image begin."""
    names = {key: image[key] for key in ("file_name", "source_id") if key in image}
    return json.dumps({"image_id": image["id"], **names})[:-1] + ", "


def read_results(path, truth: Truth) -> Found:
    """Read a COCO results file.

    Detections of categories that the truth lacks are left out, with a warning. Raises
    FileNotFoundError, or ValueError if it is no such file or has images that the truth lacks.
    """
    parts = []
    unknown = collections.Counter()
    kind = f"{path} is not a COCO results file: rows"
    image_place = places(truth.image_ids)
    category_place = places(truth.category_ids)
    rows = rows_of(path, kind)
    count = 0
    with _without_garbage_collection():
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            columns = _result_columns(chunk)
            if columns is None or not image_place.keys() >= set(columns[0]):
                for index, row in enumerate(chunk, start=count):
                    check_row(row, RESULTS, f"{kind}[{index}]")
            parts.append(_place(*columns, image_place, category_place, unknown, path))
            count += len(chunk)
    if unknown:
        logging.warning(
            "%s: %d detections ignored, of categories that the annotations lack: %s",
            path,
            unknown.total(),
            ", ".join(map(str, list(unknown)[:5])),
        )
    empty = Found(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
    return Found(*map(np.concatenate, zip(empty, *parts, strict=True)))


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


def _result_columns(rows):
    """Image ids, category ids, boxes [n, 4] and scores [n]; None if a row may be at fault."""
    try:
        ids = [[row[key] for row in rows] for key in ("image_id", "category_id")]
        boxes = [row["bbox"] for row in rows]
        scores = [row["score"] for row in rows]
        numbers = itertools.chain(scores, itertools.chain.from_iterable(boxes))
        is_typed = (
            set(map(type, numbers)) <= {int, float, bool}
            and set(map(type, itertools.chain(*ids))) <= {int, float, str}
            and set(map(type, boxes)) == {list}
            and set(map(len, boxes)) == {4}
        )
        columns = (np.array(boxes, float), np.array(scores, float))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if is_typed and all(np.isfinite(column).all() for column in columns):
        return (*ids, *columns)
    return None


def _place(image_ids, category_ids, boxes, scores, image_place, category_place, unknown, path):
    """Columns with ids -> Found; categories that the truth lacks are left out, and counted."""
    images = [image_place.get(image_id, -1) for image_id in image_ids]
    if -1 in images:
        raise ValueError(
            f"{path} has detections of image {image_ids[images.index(-1)]!r}, "
            "which is not among the images of the annotations"
        )
    categories = np.array([category_place.get(i, -1) for i in category_ids])
    is_known = categories >= 0
    unknown.update(category_ids[row] for row in np.flatnonzero(~is_known))
    return Found(np.array(images), categories, boxes, scores).select(is_known)


def rows_of(path, kind):
    """The values of the list in a JSON file, one at a time: as objects they would take gigabytes.

    Raises ValueError if the file is not JSON, or not a list.
    """
    text = read_text(path)
    skip = re.compile(r"[ \t\n\r]*").match
    decode = json.JSONDecoder().raw_decode
    place = skip(text, 0).end()
    if text[place : place + 1] != "[":
        raise ValueError(not_a_list(kind, RESULTS, read_json(path)))
    place = skip(text, place + 1).end()
    try:
        if text[place : place + 1] == "]":
            place = skip(text, place + 1).end()
        else:
            separator = ","
            while separator == ",":
                row, place = decode(text, place)
                yield row
                place = skip(text, place).end()
                separator = text[place : place + 1]
                place = skip(text, place + 1).end()
            if separator != "]":
                raise json.JSONDecodeError("expected , or ]", text, min(place, len(text)))
        if place < len(text):
            raise json.JSONDecodeError("expected the end", text, place)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
