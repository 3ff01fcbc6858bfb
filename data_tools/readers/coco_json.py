"""COCO instances JSON: images, boxes [xmin, ymin, width, height] in pixels from 0, category ids.

The file is read element by element, and polygons are dropped at once, so that files of many
gigabytes fit in memory. ijson does the same more slowly (one pass per list), and rejects NaN.
"""

import dataclasses
import json
import math
import os
import re

from data_tools.readers import files, labels
from ssd_tf import coco_rows, parsing, user_files

CHUNK = 1 << 20  # characters
MAX_ELEMENT = 1 << 24  # characters
_SPACE = " \t\r\n"
_MAX_SIDE = 2**31  # pixels
_LISTS = ("images", "annotations", "categories")
_START = 1 << 16  # characters in which a file of another tool shows what it is
_BOX = re.compile(rb'"bbox"\s*:\s*\[([^\]]*)\]')
# A key of such a file -> what the file is, and what can be read instead.
_OTHER_FORMATS = {
    "assets": "VoTT's own JSON; export Pascal VOC or CSV",
    "image_url": "Azure ML's JSON lines; export COCO",
    "rectanglelabels": "Label Studio's own JSON; export COCO, YOLO or Pascal VOC",
    "shapes": "LabelMe's JSON; convert it to COCO with labelme2coco",
    "region_attributes": "VIA's own JSON; export COCO",
    "classTitle": "Supervisely's own JSON; export COCO, YOLO or Pascal VOC",
}
_raw_decode = json.JSONDecoder().raw_decode


def read_coco(annotations, images, allow_outside=False) -> labels.Source:
    """Read the JSON file `annotations` for the images in the folder `images`.

    `source_id` is the image id. allow_outside: whether a `file_name` may lead out of the folder.
    """
    annotations = files.check_file(annotations, "--annotations")
    images = files.check_folder(images, "--images")
    content = _Content(annotations)
    try:
        content.read()
    except ValueError as error:
        raise ValueError(f"{error}{name_other_format(annotations)}") from None
    rows, note = coco_rows.without_root(content.categories, 0 in content.category_ids)
    classes = _read_classes(rows, annotations)
    allowed = files.ImageFolders((images,), allow_outside)
    strays = labels.Tally()
    return labels.Source(
        classes,
        _read(content, images, allowed, strays, {entry["id"]: entry["name"] for entry in classes}),
        [note] if note else [],
        folder=images,
        strays=strays,
    )


def read_start(path, num_images) -> labels.LabelsStart | None:
    """The first images of a file; None if it is not COCO instances JSON.

    Reads no further than to the last of these images.
    """
    names: list[str] = []
    keys = set()
    try:
        for key, entry in read_members(path, _LISTS):
            keys.add(key)
            if entry is not None and not isinstance(entry, dict):
                return None
            if key == "images" and entry is not None:
                names.append(coco_rows.read_file_name(entry) or "")
            if len(names) == num_images:
                break
    except (OSError, ValueError):
        return None
    is_complete = len(names) == num_images or keys == set(_LISTS)
    return labels.LabelsStart(names, _has_fractions(path)) if names and is_complete else None


def _has_fractions(path):
    """Whether all boxes near the beginning and the end of a file are fractions, as Azure ML's."""
    with user_files.open_regular(path) as file:
        text = file.read(_START)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _START))
        text += b" " + file.read(_START)
    boxes = [re.split(rb"[\s,]+", found.strip()) for found in _BOX.findall(text)]
    sides = [parsing.to_number(side.decode()) for box in boxes for side in box]
    return bool(sides) and all(0 <= side <= 1 for side in sides)


def name_other_format(path) -> str:
    """The end of an error: which other format the file seems to be, or empty."""
    try:
        with user_files.open_text(path) as file:
            start = file.read(_START)
    except UnicodeError:
        return ""
    keys = set(re.findall(r'"(\w+)"\s*:', start))
    found = next((what for key, what in _OTHER_FORMATS.items() if key in keys), None)
    is_coco = bool(keys & {"images", "categories"})
    return f"; it seems to be {found}" if found and not is_coco else ""


class _Content:
    """The content of a file. images: [(id, file name, size)]; objects: by image id."""

    def __init__(self, path):
        self._path = path
        self.images = []
        self._image_ids = set()
        self.objects = labels.ObjectTable()
        self.category_ids = set()  # of the objects
        self.categories = []

    def read(self):
        """Read the file. Raises ValueError."""
        add = {
            "images": self._add_image,
            "annotations": self._add_annotation,
            "categories": self.categories.append,
        }
        missing = dict.fromkeys(_LISTS)
        for key, entry in read_members(self._path, _LISTS):
            if key in missing:
                del missing[key]
            elif not isinstance(entry, dict):
                raise ValueError(
                    f"{self._path} is not COCO instances JSON: "
                    f"{key!r} holds {str(entry)[:40]!r}, not an object"
                )
            else:
                add[key](entry)
        if missing:
            raise ValueError(
                f"{self._path} is not COCO instances JSON: "
                f"it has no {' and no '.join(map(repr, missing))}"
            )

    def _add_image(self, entry):
        image_id = coco_rows.normalize_id(entry.get("id"))
        if image_id in self._image_ids:
            raise ValueError(f"{self._path}: two images have the id {image_id}; ids must differ")
        if image_id is not None:
            self._image_ids.add(image_id)
        size_hw = parsing.to_size(entry.get("height"), entry.get("width"))
        if size_hw and max(size_hw) > _MAX_SIDE:
            size_hw = None
        self.images.append((image_id, coco_rows.read_file_name(entry), size_hw))

    def _add_annotation(self, entry):
        (xmin, ymin, width, height), fault = coco_rows.read_box(entry)
        category_id = coco_rows.normalize_id(entry.get("category_id"))
        self.category_ids.add(category_id)
        self.objects.add(
            coco_rows.normalize_id(entry.get("image_id")),
            category_id,
            (xmin, ymin, xmin + width, ymin + height),
            coco_rows.read_area(entry.get("area")),
            parsing.to_flag(entry.get("iscrowd")),
            fault,
        )


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


def _read(content, folder, allowed, strays, names):
    """Yield the images; names: {category id: class name}."""
    for image_id, file, size_hw in content.images:
        found = allowed.check(allowed.locate(folder, file)) if file else None
        fault = found.fault if found else "no file name"
        # Without an id, no annotation can name it: it would pass for an image without objects.
        has_id = image_id is not None
        objects = content.objects.pop(image_id) if has_id else ()
        yield labels.LabeledImage(
            path=found.readable_path if found else "",
            filename=files.shorten(file) if file else f"image id {image_id}",
            source_id=str(image_id),
            objects=tuple(_with_name(obj, names) for obj in objects),
            size_hw=size_hw,
            fault=fault if has_id else "no image id",
        )
    for image_id in content.objects.images():
        for obj in content.objects.pop(image_id):
            box = [value if math.isfinite(value) else None for value in obj.box]
            reason = "image not listed"
            strays.add({"file": f"image id {image_id}", "box": box, "reason": reason}, reason)


def _with_name(obj, names):
    """The object whose name is a category id, with the name of that class."""
    if obj.name in names:
        return dataclasses.replace(obj, name=names[obj.name])
    return dataclasses.replace(obj, name=f"category {obj.name}", fault="unknown category")


def read_members(path, keys):
    """Yield (key, element) for each element of the arrays under `keys`, in file order.

    (key, None) marks the beginning of an array. Raises ValueError if the file is not a JSON object,
    is cut short, or the value under one of the keys is not an array.
    """
    with user_files.open_text(path) as file:
        try:
            yield from _Scanner(file).members(keys)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON, or is cut short: {error.msg}") from None
        except UnicodeError:
            raise ValueError(f"{path} is not JSON in UTF-8: save it as UTF-8") from None
        except RecursionError:
            raise ValueError(f"{path} is nested too deeply for an annotation file") from None
        except ValueError as error:  # of this file, or a number of thousands of digits
            raise ValueError(f"{path} cannot be read: {error}") from None


class _Scanner:
    """A window on the text; everything before `position` has been consumed."""

    def __init__(self, file):
        self._file = file
        self._text = ""
        self._position = 0

    def members(self, keys):
        if self._peek() != "{":
            raise ValueError(
                f"it does not hold a JSON object with {', '.join(keys)}, "
                f"but begins with {self._text[:20]!r}"
            )
        for _ in self._separated("}"):
            key = self._value()
            self._expect(":")
            if key not in keys:
                self._value()
                continue
            if self._peek() != "[":
                raise ValueError(f"it holds no list under {key!r}")
            yield key, None
            for _ in self._separated("]"):
                yield key, self._value()
        if self._peek():
            raise json.JSONDecodeError("more text after the end", "", 0)

    def _separated(self, closing):
        """Step over the opening bracket, then stop at each element until the closing one."""
        self._position += 1
        is_first = True
        while self._peek() != closing:
            if not is_first:
                self._expect(",")
            is_first = False
            yield
        self._position += 1

    def _value(self):
        self._peek()
        while True:
            try:
                value, end = _raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if not self._refill():
                    raise
                continue
            # A number that touches the window's end may continue beyond it.
            if end < len(self._text) or not self._refill():
                self._position = end
                return value

    def _expect(self, character):
        if self._peek() != character:
            found = self._text[self._position : self._position + 20]
            raise json.JSONDecodeError(f"expected {character!r}, got {found!r}", "", 0)
        self._position += 1

    def _peek(self):
        """The next character that is not a space; empty at the end."""
        while True:
            while self._position < len(self._text):
                if self._text[self._position] not in _SPACE:
                    return self._text[self._position]
                self._position += 1
            if not self._refill():
                return ""

    def _refill(self):
        """Drop the consumed text and read on, in larger chunks the longer the element.

        Returns False at the end of the file.
        """
        rest = self._text[self._position :]
        if len(rest) > MAX_ELEMENT:
            raise ValueError(f"it has an element of over {MAX_ELEMENT:,} characters")
        chunk = self._file.read(max(CHUNK, len(rest)))
        if chunk:
            self._text = rest + chunk
            self._position = 0
        return bool(chunk)
