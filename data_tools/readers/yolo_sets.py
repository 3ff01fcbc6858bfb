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

from data_tools.readers import files, labels, split_names
from ssd_tf import user_files

_EXPECTED = "give data.yaml, obj.data, or a folder with one of them or with classes.txt"
_COLLECTIONS = (dict, list, set, tuple)
_NULLS = ("", "~", "null", "Null", "NULL")
_CLASS_LISTS = ("classes.txt", "labels/classes.txt")


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One set of a data set.

    names: {class index: name}; the name of a class may be empty.
    num_keypoint_values: how many numbers of key points follow the box on each line.
    notes: what is suspicious about the file, one line each.
    other_sets: those of the data set that `images` leaves out.
    """

    names: dict[int, str]
    images: Iterator[files.FoundImage]
    num_keypoint_values: int = 0
    notes: tuple[str, ...] = ()
    other_sets: tuple[labels.ImageSet, ...] = ()


def open_set(path, image_set, allow_outside=False) -> ImageSet:
    """Open data.yaml, obj.data, or the folder of one; image_set: the key that lists the images.

    allow_outside: whether the file may name a list of classes, and lists of images may name images,
    outside the data set.
    """
    path = pathlib.Path(path)
    if not path.exists():
        hint = user_files.suggest_path(path) or f"; {_EXPECTED}"
        raise FileNotFoundError(f"--yolo: nothing at {path}{hint}")
    path = find_list(path) if path.is_dir() else path
    if path.name == "classes.txt":
        return _open_loose(path, image_set)
    content = _read_content(path, allow_outside)
    names = _read_names(content, path)
    return ImageSet(
        names,
        _list_images(content, path, image_set, allow_outside),
        _count_keypoint_values(content),
        tuple(_describe_oddities(content, path, image_set, names)),
        tuple(each for each in _list_keys(content, path) if each.name != image_set),
    )


def list_sets(path) -> list[labels.ImageSet]:
    """The sets of a data.yaml or obj.data of which a file or folder is there, or of classes.txt.

    num_images is -1: they are not counted. One set of no split if nothing divides the images.
    Raises ValueError for a file that is none of these.
    """
    if path.name == "classes.txt":
        return _list_folders(_image_folder(path))
    content = _read_content(path, allow_outside=False)
    _read_names(content, path)
    return _list_keys(content, path)


def _list_keys(content, path):
    found = {}
    for key in content:
        split = split_names.split_of_folder(str(key))
        if split and _has_images(content, path, key) and split not in found:
            found[split] = labels.ImageSet(str(key), split, -1)
    is_shared = {"train", "val"} <= found.keys() and _are_same(content, path, found)
    if is_shared:
        del found["val"]
    return list(found.values())


def _list_folders(folder):
    divided = _find_set_folders(folder)
    sets = [labels.ImageSet(name, split, -1) for name, split in divided.items()]
    if not sets:
        return [labels.ImageSet("train", None, -1)]
    if "train" not in divided.values() and next(_find_rest(folder, divided), None):
        sets.append(labels.ImageSet("train", "train", -1))
    return sets


def _has_images(content, path, key):
    try:
        return all(map(os.path.exists, _resolve_all(content, path, key)))
    except (FileNotFoundError, ValueError):
        return False


def _are_same(content, path, found):
    """Whether `val` names the images of `train` again, as examples of a few images do."""
    train, val = (
        {os.path.realpath(each) for each in _resolve_all(content, path, found[split].name)}
        for split in ("train", "val")
    )
    return train == val


def _resolve_all(content, path, key):
    return [_resolve(path, content.get("path"), name) for name in _name_images(content, path, key)]


def find_list(folder):
    """The data.yaml, obj.data or classes.txt of a folder; raises FileNotFoundError."""
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


def _read_content(path, allow_outside):
    return _read_darknet(path, allow_outside) if path.suffix == ".data" else _read_yaml(path)


def _open_loose(listed, image_set):
    """The images beside a classes.txt: all, or those of a set if folders divide them."""
    folder = _image_folder(listed)
    divided = _find_set_folders(folder)
    same = (name for name, split in divided.items() if image_set in (name, split))
    chosen = next(same, None)
    images = _find_images(folder / (chosen or ""))
    if divided and not chosen:
        if image_set != "train":
            raise ValueError(
                f"--yolo: {folder} has no images of the set {image_set!r}; it has the folders "
                f"{', '.join(divided)}: give one as --image_set"
            )
        images = _find_rest(folder, divided)
    others = [each for each in list_sets(listed) if image_set not in (each.name, each.split)]
    names = dict(enumerate(_read_class_list(listed)))
    return ImageSet(names, images, other_sets=tuple(others) if divided else ())


def _find_rest(folder, divided):
    """The images that lie in none of the folders of `divided`."""
    for found in _find_images(folder):
        if found.path.relative_to(folder).parts[0] not in divided:
            yield found


def _image_folder(listed):
    folder = listed.parent.parent if listed.parent.name == "labels" else listed.parent
    return folder / "images" if (folder / "images").is_dir() else folder


def _find_set_folders(folder):
    """{name: its split} of the folders inside that are named like a split."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    splits = {name: split_names.split_of_folder(name) for name in names}
    return {name: split for name, split in splits.items() if split}


def _read_class_list(path):
    lines = user_files.read_lines(path)
    while lines and not lines[-1]:  # a blank line between others keeps its index
        lines.pop()
    return lines


class _TextLoader(yaml.BaseLoader):
    """Leaves all scalars text, as class names are; rejects an index that has two names."""

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value if _to_int(key.value) is not None]
            repeated = [key for key in keys if keys.count(key) > 1]
            if repeated:
                raise yaml.constructor.ConstructorError(
                    problem=f"it has the index {repeated[0]!r} twice", problem_mark=node.start_mark
                )
        return mapping


def _read_yaml(path):
    text = user_files.read_text(path)
    try:
        content = yaml.load(text, _TextLoader)
    # RecursionError: nested too deeply. ValueError: a character that YAML cannot have.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is not a data.yaml: expected keys such as train, val and names, "
            f"got {_abbreviate(content)}"
        )
    return content | {
        key: None
        for key, value in content.items()
        if key != "names" and isinstance(value, str) and value in _NULLS
    }


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
    is_complete = (
        isinstance(names, dict)
        and names
        and all(_to_int(index) is not None for index in names)
        and not any(isinstance(name, _COLLECTIONS) for name in names.values())
    )
    indices = {_to_int(index) for index in names} if is_complete else ()
    if not is_complete or len(indices) < len(names):
        raise ValueError(
            f"{path}: expected `names` to be a list, or to give a name for each index, "
            f"got {_abbreviate(names)}"
        )
    named = sorted((_to_int(index), name) for index, name in names.items())
    return {index: name.strip() for index, name in named}


def _to_int(value):
    """An integer as YAML writes it, or None."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _describe_oddities(content, path, image_set, names):
    """Yield a line for what the user may not expect of data.yaml or obj.data."""
    others = [key for key in ("train", "val", "test") if content.get(key) and key != image_set]
    if others:
        yield f"image set {image_set} of {path.name}; not converted: {', '.join(others)}"
    claimed = content.get("nc", content.get("classes"))
    if _to_int(claimed) not in (None, len(names)):
        yield f"{path.name} has {len(names)} class names, but says that there are {claimed}"


def _abbreviate(value):
    """A short repr, even if the aliases of a YAML file make the value huge."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)[:60]


def _count_keypoint_values(content):
    """Numbers that an object's key points take: kpt_shape is [points, numbers of each]."""
    shape = content.get("kpt_shape")
    lengths = [_to_int(length) for length in shape] if isinstance(shape, list) else []
    return lengths[0] * lengths[1] if len(lengths) == 2 and None not in lengths else 0


def _name_images(content, path, image_set):
    """The files and folders of a set, as written. Raises ValueError."""
    names = content.get(image_set)
    if not names:
        known = [key for key in ("train", "val", "test") if content.get(key)]
        raise ValueError(
            f"{path} has no {image_set!r}; it has {', '.join(known) or 'no sets'}: "
            "give one as --image_set"
        )
    names = names if isinstance(names, list) else [names]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{path}: expected a folder, a list of files, or several of them under {image_set!r}, "
            f"got {_abbreviate(names)}"
        )
    return names


def _list_images(content, path, image_set, allow_outside):
    root = _root(path, content.get("path"))
    for name in _name_images(content, path, image_set):
        found = _resolve(path, content.get("path"), name)
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
    """True if `root` is the file system's root, or holds `folder` more than one level down.

    A data.yaml from elsewhere could otherwise take in the whole disk by `path: /`.
    """
    below = files.spell_folder(folder)
    parents = [os.path.dirname(path) for path in below]
    return any(
        _is_filesystem_root(path)
        or (path not in (*below, *parents) and any(files.is_within(inner, path) for inner in below))
        for path in files.spell_folder(root)
    )


def _is_filesystem_root(folder):
    return os.path.dirname(folder) == folder


def _resolve(path, root, name):
    """The path that `name` means: under `root`, or beside the file.

    Some tools write the latter as ../train or data/train.
    """
    name = name.replace("\\", "/")
    others = (path.parent / name.removeprefix(prefix) for prefix in ("", "../", "data/"))
    candidates = [_root(path, root) / name, *others]
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if found is None:
        raise FileNotFoundError(
            f"{path} names {files.shorten(name)!r}, "
            f"and there is nothing at {files.shorten(str(candidates[0]))}{_suggest(path, name)}"
        )
    return found


def _suggest(path, name):
    """The end of a message about a path of another computer, of which the end may be here."""
    parts = name.split("/")
    ends = ("/".join(parts[index:]) for index in range(1, len(parts)))
    here = next((end for end in ends if end and os.path.exists(path.parent / end)), None)
    return f"; write {here!r} there, which is beside the file" if here else ""


def _read_list(listed, allowed):
    folder = listed.parent
    lines = user_files.read_lines(listed, "surrogateescape", user_files.MAX_LIST_BYTES)
    for line in filter(None, lines):
        short = line.removeprefix("data/")
        paths = itertools.chain(allowed.find(folder, line), allowed.find(folder, short))
        yield allowed.check(allowed.choose(paths, os.path.join(folder, short)))


def _find_images(folder):
    for root, names in files.walk_files(folder):
        for name in names:
            if files.is_image(name):
                yield files.FoundImage(pathlib.Path(root, name))
