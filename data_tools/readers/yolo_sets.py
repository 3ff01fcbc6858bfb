"""Which pictures and classes a YOLO data set has: by data.yaml, by the obj.data of Darknet and CVAT, or by a classes.txt."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

import yaml

from data_tools.readers import labels

_WANTED = "give data.yaml, obj.data, or a folder with one of them or with classes.txt"
_CLASS_LISTS = ("classes.txt", "labels/classes.txt")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """names: {class number: name}, empty for a class without one; images: paths; points: numbers of key points on each line."""

    names: dict[int, str]
    images: Iterator[pathlib.Path]
    points: int = 0


def open_set(path, image_set) -> ImageSet:
    """path: data.yaml, obj.data, or a folder; image_set: the key under which the pictures are listed."""
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"--yolo: nothing at {path}; {_WANTED}")
    path = _find_list(path) if path.is_dir() else path
    if path.name == "classes.txt":
        return _open_loose(path)
    content = _read_darknet(path) if path.suffix == ".data" else _read_yaml(path)
    return ImageSet(
        _read_names(content, path), _list_images(content, path, image_set), _count_points(content)
    )


def _find_list(folder):
    # Runs leave an args.yaml and the like beside the one that is meant.
    found = sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    found.sort(key=lambda path: path.stem != "data")
    with_names = [
        path for path in found if re.search(rb"^names\b", path.read_bytes(), re.MULTILINE)
    ]
    lists = [path for path in (folder / name for name in _CLASS_LISTS) if path.is_file()]
    for path in (*with_names, *sorted(folder.glob("*.data")), *lists, *found):
        return path
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
    raise FileNotFoundError(
        f"--yolo: {folder} holds neither a data.yaml nor a classes.txt, only {there or 'nothing'}; {_WANTED}"
    )


def _open_loose(listed):
    folder = listed.parent.parent if listed.parent.name == "labels" else listed.parent
    images = folder / "images" if (folder / "images").is_dir() else folder
    return ImageSet(dict(enumerate(_read_class_list(listed))), _find_images(images))


def _read_class_list(path):
    lines = labels.read_lines(path)
    while lines and not lines[-1]:  # a blank line between others keeps its number
        lines.pop()
    return lines


def _read_yaml(path):
    try:
        content = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is no data.yaml: wanted keys such as train, val and names, found {type(content).__name__}"
        )
    return content


def _read_darknet(path):
    """obj.data has lines such as `train = data/train.txt`."""
    pairs = (line.partition("=") for line in labels.read_lines(path))
    content = {key.strip(): value.strip() for key, _, value in pairs}
    if not content.get("names"):
        raise ValueError(f"{path} wants a line `names = FILE` for the class names")
    content["names"] = _read_class_list(_resolve(path, None, content["names"]))
    return content | {"val": content.get("val") or content.get("valid")}


def _read_names(content, path):
    """-> {class number: name} by number."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(number, int) for number in names)
    ):
        raise ValueError(
            f"{path} wants `names`: a list, or numbers with names; found {str(names)[:60]!r}"
        )
    return {number: "" if names[number] is None else str(names[number]) for number in sorted(names)}


def _count_points(content):
    shape = content.get("kpt_shape")
    is_shape = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(number, int) for number in shape)
    )
    return shape[0] * shape[1] if is_shape else 0


def _list_images(content, path, image_set):
    places = content.get(image_set)
    if not places:
        known = [key for key in ("train", "val", "test") if content.get(key)]
        raise ValueError(
            f"{path} has no {image_set!r}; it has {', '.join(known) or 'no sets'}: give one as --image_set"
        )
    places = places if isinstance(places, list) else [places]
    if not all(isinstance(place, str) for place in places):
        raise ValueError(
            f"{path} wants under {image_set!r} a folder, a list of files, or several of them; found {places}"
        )
    for place in places:
        found = _resolve(path, content.get("path"), place)
        yield from _read_list(found) if found.suffix == ".txt" else _find_images(found)


def _resolve(path, root, place):
    """What `place` names: under `root`, or beside the file, which some tools write as ../train or data/train."""
    place = place.replace("\\", "/")
    root = path.parent / str(root or "")
    others = (path.parent / place.removeprefix(prefix) for prefix in ("", "../", "data/"))
    candidates = [root / place, *others]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        raise FileNotFoundError(f"{path} names {place!r}, and there is nothing at {candidates[0]}")
    return found


def _read_list(listed):
    for line in filter(None, labels.read_lines(listed, "surrogateescape")):
        image = labels.find_image(listed.parent, line)
        yield (
            image
            if image.is_file()
            else labels.find_image(listed.parent, line.removeprefix("data/"))
        )


def _find_images(folder):
    for root, files in labels.walk_files(folder):
        for name in files:
            if name.lower().endswith(labels.SUFFIXES):
                yield pathlib.Path(root, name)
