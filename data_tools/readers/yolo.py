"""YOLO: a text file per picture, lines of `class centre_x centre_y width height` in shares of the picture, and a data.yaml.

Also a loose folder with classes.txt, as labelImg leaves it, and lines that hold a polygon, whose bounding box is taken.
"""

import math
import os
import pathlib

import yaml

from data_tools.readers import labels

_LISTS = (".txt",)


def read_yolo(path, image_set) -> labels.Source:
    """path: data.yaml, or the folder of it or of classes.txt; image_set: its key (train, val, test). `source_id`: the stem."""
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"--yolo: nothing at {path}; give data.yaml, or a folder with classes.txt")
    if path.is_dir():
        listed = next((found for found in sorted(path.glob("*.y*ml")) if found.suffix in (".yaml", ".yml")), None)
        if listed is None:
            return _read_loose(path)
        path = listed
    content = _read_yaml(path)
    names = _read_names(content, path)
    paths = _list_images(content, path, image_set)
    return _make_source(names, paths)


def _read_loose(folder):
    listed = next((file for file in (folder / "classes.txt", folder / "labels" / "classes.txt") if file.is_file()), None)
    if listed is None:
        raise FileNotFoundError(f"--yolo: {folder} holds neither a data.yaml nor a classes.txt")
    names = dict(enumerate(line.strip() for line in listed.read_text().splitlines() if line.strip()))
    images = folder / "images" if (folder / "images").is_dir() else folder
    return _make_source(names, _find_images(images))


def _make_source(names, paths):
    classes = [{"name": name, "id": number} for number, name in names.items()]
    if len(set(names.values())) < len(names):
        raise ValueError(f"--yolo: two classes have the same name: {', '.join(names.values())}")
    return labels.Source(classes, (_read_image(path, names) for path in paths))


def _read_yaml(path):
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no data.yaml: wanted keys such as train, val and names, found {type(content).__name__}")
    return content


def _read_names(content, path):
    """-> {class number: name} by number."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise ValueError(f"{path} wants `names`: a list, or numbers with names; found {str(names)[:60]!r}")
    return {number: str(names[number]) for number in sorted(names)}


def _list_images(content, path, image_set):
    places = content.get(image_set)
    if not places:
        known = [key for key in ("train", "val", "test") if content.get(key)]
        raise ValueError(f"{path} has no {image_set!r}; it has {', '.join(known) or 'no sets'}: give one as --image_set")
    places = [places] if isinstance(places, str) else places
    for place in places:
        found = _resolve(path, content.get("path"), place)
        yield from _read_list(found) if found.suffix in _LISTS else _find_images(found)


def _resolve(path, root, place):
    """The folder or list that data.yaml names: under its `path`, or beside the file, which some tools write as `../train`."""
    root = path.parent / str(root or "")
    candidates = [root / place, path.parent / place, path.parent / str(place).removeprefix("../")]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        raise FileNotFoundError(f"{path} names {place!r}, and there is nothing at {candidates[0]}")
    return found


def _read_list(listed):
    for line in listed.read_text().splitlines():
        if line.strip():
            yield listed.parent / line.strip()


def _find_images(folder):
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(labels.SUFFIXES):
                yield pathlib.Path(root, name)


def _label_file(image):
    """labels/x.txt for the last images/ in the path, else the file beside the picture."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            other = pathlib.Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt")
            return other if other.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


def _read_image(path, names):
    file = _label_file(path)
    try:
        lines = file.read_text().splitlines() if file.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        return labels.LabeledImage("", path.name, path.stem, fault=f"annotation cannot be read: {error}")
    objects = tuple(_read_object(line.split(), names) for line in lines if line.strip())
    return labels.LabeledImage(str(path), path.name, path.stem, objects, unit=labels.SHARES)


def _read_object(words, names):
    number, values = labels.to_number(words[0]), [labels.to_number(word) for word in words[1:]]
    if len(values) == 4:
        x, y, width, height = values
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        return labels.LabeledObject(words[0], labels.NOT_A_BOX, fault="not a box: wants class x y width height")
    known = number in names if math.isfinite(number) else False
    name = names[int(number)] if known else f"class {words[0]}"
    return labels.LabeledObject(name, box, fault="" if known else "unknown category")
