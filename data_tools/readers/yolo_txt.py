"""YOLO: a text file per picture, lines of `class centre_x centre_y width height` in shares of the picture.

Lines may hold a polygon instead, whose bounding box is taken, or, for poses, key points after the box.
"""

import collections
import math
import os
import pathlib

from data_tools.readers import labels, yolo_sets


def read_yolo(path, image_set) -> labels.Source:
    """path: data.yaml, obj.data, or the folder of one or of classes.txt; image_set: its key (train, val, test).

    `source_id`: the stem.
    """
    chosen = yolo_sets.open_set(path, image_set)
    names = [name for name in chosen.names.values() if name]
    if len(set(names)) < len(names):
        raise ValueError(f"--yolo: two classes have the same name: {', '.join(names)}")
    classes = [{"name": name, "id": number} for number, name in chosen.names.items() if name]
    unused = collections.defaultdict(labels.Tally)
    return labels.Source(classes, _read_images(chosen, unused), unused=unused)


def _read_images(chosen, unused):
    folders, places, any_labels = {}, (), False
    for path in chosen.images:
        places = _label_places(path)
        file = next((place for place in places if place.is_file()), None)
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
    """labels/x.txt for the last images/ in the path, then the file beside the picture."""
    places, parts = [image.with_suffix(".txt")], image.parts[:-1]
    if "images" in parts:
        index = len(parts) - 1 - parts[::-1].index("images")
        places.insert(
            0,
            pathlib.Path(*parts[:index], "labels", *parts[index + 1 :], image.name).with_suffix(
                ".txt"
            ),
        )
    return places


def _note_unused(label_folder, image_folder, unused):
    """Notes label files without a picture."""
    for name in sorted(os.listdir(label_folder)) if label_folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        used = suffix != ".txt" or labels.find_image(image_folder, f"{stem}.jpg").is_file()
        if not used and _holds_labels(label_folder / name):
            unused["label files without an image"].add(str(label_folder / name))


def _holds_labels(path):
    """Not a classes.txt or a note."""
    with open(path, errors="replace") as file:
        return (
            len([word for word in file.readline().split() if math.isfinite(labels.to_number(word))])
            >= 5
        )


def _read_image(path, file, chosen):
    try:
        lines = labels.read_lines(file) if file else []
    except (OSError, ValueError) as error:
        return labels.LabeledImage(
            "", path.name, path.stem, fault=f"annotation cannot be read: {error}"
        )
    objects = tuple(_read_object(line.split(), chosen) for line in lines if line)
    return labels.LabeledImage(str(path), path.name, path.stem, objects, unit=labels.SHARES)


def _read_object(words, chosen):
    number, box = (
        labels.to_number(words[0]),
        _read_box([labels.to_number(word) for word in words[1:]], chosen.points),
    )
    if box is None:
        also = f" and {chosen.points} numbers of key points" if chosen.points else ""
        return labels.LabeledObject(
            words[0], labels.NOT_A_BOX, fault=f"not a box: wants class x y width height{also}"
        )
    name = chosen.names.get(int(number)) if number.is_integer() else None
    fault = "" if name else "unknown category" if name is None else "class without a name"
    return labels.LabeledObject(name or f"class {words[0]}", box, fault=fault)


def _read_box(values, points):
    """Corners; None where the count of numbers fits neither a box nor, without key points, a polygon."""
    if len(values) == 4 or (points and len(values) == 4 + points):
        x, y, width, height = values[:4]
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if points or len(values) < 6 or len(values) % 2:
        return None
    if not all(map(math.isfinite, values)):
        return labels.NOT_A_BOX
    return (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
