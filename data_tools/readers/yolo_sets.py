"""The images and classes of a YOLO data set.

They are given by data.yaml, by the obj.data of Darknet and CVAT, or by a classes.txt.
"""

import dataclasses
import itertools
import os
import pathlib
import re
import reprlib
from collections.abc import Iterator

import yaml

from data_tools.readers import files
from ssd_tf import user_files

_EXPECTED = "give data.yaml, obj.data, or a folder with one of them or with classes.txt"
_COLLECTIONS = (dict, list, set, tuple)
_CLASS_LISTS = ("classes.txt", "labels/classes.txt")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One set of a data set.

    names: {class index: name}; the name of a class may be empty.
    num_keypoint_values: how many numbers of key points follow the box on each line.
    """

    names: dict[int, str]
    images: Iterator[files.FoundImage]
    num_keypoint_values: int = 0


def open_set(path, image_set, allow_outside=False) -> ImageSet:
    """Open data.yaml, obj.data, or the folder of one; image_set: the key that lists the images.

    allow_outside: whether the file may name a list of classes, and lists of images may name images,
    outside the data set.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"--yolo: nothing at {path}; {_EXPECTED}")
    path = _find_list(path) if path.is_dir() else path
    if path.name == "classes.txt":
        return _open_loose(path)
    is_darknet = path.suffix == ".data"
    content = _read_darknet(path, allow_outside) if is_darknet else _read_yaml(path)
    return ImageSet(
        _read_names(content, path),
        _list_images(content, path, image_set, allow_outside),
        _count_keypoint_values(content),
    )


def _find_list(folder):
    # Training runs leave an args.yaml and the like beside the right one.
    found = [path for path in _glob(folder, "*.y*ml") if path.suffix in (".yaml", ".yml")]
    found.sort(key=lambda path: path.stem != "data")
    with_names = [path for path in found if _has_names(path)]
    lists = [path for path in (folder / name for name in _CLASS_LISTS) if path.is_file()]
    for path in (*with_names, *_glob(folder, "*.data"), *lists, *found):
        return path
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:5])
    raise FileNotFoundError(
        f"--yolo: {folder} holds neither a data.yaml nor a classes.txt, only {there or 'nothing'}; "
        f"{_EXPECTED}"
    )


def _glob(folder, pattern):
    """The files that match, in order; without folders and dangling links."""
    return sorted(path for path in folder.glob(pattern) if path.exists() and not path.is_dir())


def _has_names(path):
    try:
        data = user_files.read_bytes(path, user_files.MAX_LABEL_BYTES)
    except (OSError, user_files.FileTooLargeError):
        return False
    return bool(re.search(rb"^names\b", data, re.MULTILINE))


def _open_loose(listed):
    folder = listed.parent.parent if listed.parent.name == "labels" else listed.parent
    images = folder / "images" if (folder / "images").is_dir() else folder
    return ImageSet(dict(enumerate(_read_class_list(listed))), _find_images(images))


def _read_class_list(path):
    lines = user_files.read_lines(path)
    while lines and not lines[-1]:  # a blank line between others keeps its index
        lines.pop()
    return lines


def _read_yaml(path):
    data = user_files.read_bytes(path, user_files.MAX_LABEL_BYTES)
    try:
        content = yaml.safe_load(data.decode("utf-8-sig"))
    # ValueError: an impossible date, for example; RecursionError: nested too deeply.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is not a data.yaml: expected keys such as train, val and names, "
            f"got {type(content).__name__}"
        )
    return content


def _read_darknet(path, allow_outside):
    """Read obj.data, which has lines such as `train = data/train.txt`.

    The class names must be in its folder, or at most in the folder above and below that.
    """
    pairs = (line.partition("=") for line in user_files.read_lines(path))
    content = {key.strip(): value.strip() for key, _, value in pairs}
    if not content.get("names"):
        raise ValueError(f"{path}: expected a line `names = FILE` for the class names")
    listed = _resolve(path, None, content["names"])
    above = files.normalize(os.path.abspath(path.parent / ".."))
    folder = path.parent if _is_filesystem_root(above) else above
    if files.ImageFolders((folder,), allow_outside).check(listed).fault:
        raise ValueError(
            f"{path} names {files.shorten(content['names'])!r}, and {listed} is not in {folder}; "
            "use --allow_outside to accept it"
        )
    content["names"] = _read_class_list(listed)
    return content | {"val": content.get("val") or content.get("valid")}


def _read_names(content, path):
    """-> {class index: name}, in the order of the indices."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(index, int) for index in names)
        or any(isinstance(name, _COLLECTIONS) for name in names.values())
    ):
        raise ValueError(
            f"{path}: expected `names` to be a list, or to give a name for each index, "
            f"got {_abbreviate(names)}"
        )
    return {index: "" if names[index] is None else str(names[index]) for index in sorted(names)}


def _abbreviate(value):
    """A short repr, even if the aliases of a YAML file make the value huge."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)[:60]


def _count_keypoint_values(content):
    """How many numbers the key points of an object have: kpt_shape is [points, numbers of each]."""
    shape = content.get("kpt_shape")
    is_shape = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(length, int) for length in shape)
    )
    return shape[0] * shape[1] if is_shape else 0


def _list_images(content, path, image_set, allow_outside):
    places = content.get(image_set)
    if not places:
        known = [key for key in ("train", "val", "test") if content.get(key)]
        raise ValueError(
            f"{path} has no {image_set!r}; it has {', '.join(known) or 'no sets'}: "
            "give one as --image_set"
        )
    places = places if isinstance(places, list) else [places]
    if not all(isinstance(place, str) for place in places):
        raise ValueError(
            f"{path}: expected a folder, a list of files, or several of them under {image_set!r}, "
            f"got {_abbreviate(places)}"
        )
    root = _root(path, content.get("path"))
    for place in places:
        found = _resolve(path, content.get("path"), place)
        if found.suffix == ".txt":
            folders = [path.parent, found.parent]
            if not _is_far_above(root, path.parent):
                folders.insert(0, root)
            folders = tuple(dict.fromkeys(folders))
            yield from _read_list(found, files.ImageFolders(folders, allow_outside))
        else:
            yield from _find_images(found)


def _root(path, root):
    if isinstance(root, _COLLECTIONS):
        raise ValueError(f"{path}: expected `path` to be a folder, got {_abbreviate(root)}")
    return path.parent / str(root or "")


def _is_far_above(root, folder):
    """Whether `root` is the file system's root, or holds `folder` more than one level down.

    A data.yaml from elsewhere could otherwise take in the whole disk by `path: /`.
    """
    below = files.spell_folder(folder)
    parents = [os.path.dirname(place) for place in below]
    return any(
        _is_filesystem_root(place)
        or (
            place not in (*below, *parents)
            and any(files.is_within(inner, place) for inner in below)
        )
        for place in files.spell_folder(root)
    )


def _is_filesystem_root(folder):
    return os.path.dirname(folder) == folder


def _resolve(path, root, place):
    """What `place` names: under `root`, or beside the file.

    Some tools write the latter as ../train or data/train.
    """
    place = place.replace("\\", "/")
    others = (path.parent / place.removeprefix(prefix) for prefix in ("", "../", "data/"))
    candidates = [_root(path, root) / place, *others]
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if found is None:
        raise FileNotFoundError(
            f"{path} names {files.shorten(place)!r}, "
            f"and there is nothing at {files.shorten(str(candidates[0]))}"
        )
    return found


def _read_list(listed, allowed):
    folder = listed.parent
    lines = user_files.read_lines(listed, "surrogateescape", user_files.MAX_LIST_BYTES)
    for line in filter(None, lines):
        short = line.removeprefix("data/")
        paths = itertools.chain(files.find_images(folder, line), files.find_images(folder, short))
        yield allowed.check(allowed.choose(paths, os.path.join(folder, short)))


def _find_images(folder):
    for root, names in files.walk_files(folder):
        for name in names:
            if name.lower().endswith(files.IMAGE_SUFFIXES):
                yield files.FoundImage(pathlib.Path(root, name))
