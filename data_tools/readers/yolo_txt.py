"""YOLO: a text file per image, lines of `class centre_x centre_y width height`.

Coordinates are fractions of the image's width and height. A line may hold a polygon instead, whose
bounding box is taken, or, for poses, key points after the box.
"""

import collections
import math
import os
import pathlib

from data_tools.readers import files, labels, yolo_sets
from ssd_tf import parsing, user_files

_MAX_FIRST_LINE = 1 << 16  # bytes


def read_yolo(path, image_set, allow_outside=False) -> labels.Source:
    """Read one set (train, val or test) of data.yaml, obj.data, or of the folder of one.

    A folder with classes.txt has a single set. allow_outside: whether lists of images may name
    files outside the data set. `source_id` is the stem.
    """
    chosen = yolo_sets.open_set(path, image_set, allow_outside)
    names = [name for name in chosen.names.values() if name]
    if len(set(names)) < len(names):
        ((repeated, _),) = collections.Counter(names).most_common(1)
        raise ValueError(f"--yolo: two classes have the same name: {repeated[:60]!r}")
    classes = [{"name": name, "id": index} for index, name in chosen.names.items() if name]
    unused = collections.defaultdict(labels.Tally)
    # YOLO tools (Ultralytics, for one) read images rotated as EXIF says.
    return labels.Source(
        classes, _read_images(chosen, unused), unused=unused, boxes_follow_exif=True
    )


def _read_images(chosen, unused):
    folders = {}
    places = ()
    any_labels = False
    for found in chosen.images:
        path = found.path
        if found.fault:
            yield labels.LabeledImage("", path.name, path.stem, fault=found.fault)
            continue
        places = _label_places(path)
        file = next(filter(_is_label_file, places), None)
        any_labels = any_labels or file is not None
        folders.update((place.parent, path.parent) for place in places)
        yield _read_image(path, file, chosen)
    if places and not any_labels:
        looked = " and ".join(map(str, places))
        raise FileNotFoundError(
            f"--yolo: no image has a label file; that of {path.name} was looked for at {looked}"
        )
    for label_folder, image_folder in folders.items():
        _note_unused(label_folder, image_folder, unused)


def _label_places(image):
    """labels/x.txt for the last images/ in the path, then the file beside the image."""
    name = os.path.splitext(image.name)[0] + ".txt"
    places = [image.parent / name]
    parts = image.parts[:-1]
    if "images" in parts:
        index = len(parts) - 1 - parts[::-1].index("images")
        folder = pathlib.Path(*parts[:index], "labels", *parts[index + 1 :])
        places.insert(0, folder / name)
    return places


def _is_label_file(path):
    # Not isfile: a FIFO is a fault of the image, which is not one without objects. os.path, unlike
    # Path, takes names that no file can have.
    return os.path.exists(path) and not os.path.isdir(path)


def _note_unused(label_folder, image_folder, unused):
    """Tally label files without an image."""
    for name in sorted(os.listdir(label_folder)) if label_folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        used = suffix != ".txt" or files.find_image(image_folder, f"{stem}.jpg").is_file()
        if not used and _holds_labels(label_folder / name):
            unused["label files without an image"].add(str(label_folder / name))


def _holds_labels(path):
    """Whether the file is not a classes.txt or a note, judged by its first line."""
    try:
        with user_files.open_regular(path) as file:
            line = file.readline(_MAX_FIRST_LINE).decode(errors="replace")
    except OSError:
        return False
    return sum(math.isfinite(parsing.to_number(word)) for word in line.split()) >= 5


def _read_image(path, file, chosen):
    try:
        lines = user_files.read_lines(file) if file else []
    except (OSError, ValueError) as error:
        return labels.LabeledImage(
            "", path.name, path.stem, fault=f"annotation cannot be read: {error}"
        )
    objects = tuple(_read_object(line.split(), chosen) for line in lines if line)
    return labels.LabeledImage(str(path), path.name, path.stem, objects, unit=labels.SHARES)


def _read_object(words, chosen):
    index = parsing.to_number(words[0])
    box = _read_box([parsing.to_number(word) for word in words[1:]], chosen.num_keypoint_values)
    if box is None:
        also = ""
        if chosen.num_keypoint_values:
            also = f" and {chosen.num_keypoint_values} numbers of key points"
        return labels.LabeledObject(
            words[0], labels.NOT_A_BOX, fault=f"not a box: expected class x y width height{also}"
        )
    name = chosen.names.get(int(index)) if index.is_integer() else None
    fault = "" if name else "unknown category" if name is None else "class without a name"
    return labels.LabeledObject(name or f"class {words[0]}", box, fault=fault)


def _read_box(values, num_keypoint_values):
    """Corners; None if so many numbers are neither a box nor, without key points, a polygon."""
    if len(values) == 4 or (num_keypoint_values and len(values) == 4 + num_keypoint_values):
        x, y, width, height = values[:4]
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if num_keypoint_values or len(values) < 6 or len(values) % 2:
        return None
    if not all(map(math.isfinite, values)):
        return labels.NOT_A_BOX
    xs = values[::2]
    ys = values[1::2]
    return (min(xs), min(ys), max(xs), max(ys))
