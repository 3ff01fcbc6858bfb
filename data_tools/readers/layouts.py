"""Finds the labels of each format below a folder, as labelling tools lay them out.

Files are looked into as far as it takes to know that they hold labels of the format: a JSON file
need not be COCO, an XML file not VOC, and a text file beside an image not YOLO.
"""

import collections
import functools
import os
import pathlib
from typing import NamedTuple

from data_tools.readers import (
    coco_json,
    csv_table,
    files,
    labels,
    split_names,
    voc_xml,
    yolo_sets,
    yolo_txt,
)

_NUM_LOOKED_UP = 20  # images of a label file, to find the folder of all of them
_YAML = (".yaml", ".yml")
_JSON = (".json", ".jsonl")


class LabelSet(NamedTuple):
    """Labels that one conversion reads.

    split: `train`, `val` or `test`; None if nothing says which. flags: of that conversion; where:
    for messages.
    """

    split: str | None
    flags: tuple[str, ...]
    where: str


class FoundLabels(NamedTuple):
    """All labels of one format.

    num_files: of label files, each of which is a `unit`; example: the path of one; where: what was
    found where, for the reason that users read.
    """

    label_format: str
    num_files: int
    unit: str
    example: str
    where: str
    sets: list[LabelSet]

    @property
    def counted(self) -> str:
        """The number of files, as in `3 CSV files`."""
        return labels.count_of(self.num_files, self.unit)


class Contents:
    """The files below a folder, without hidden ones and what macOS adds to archives.

    images, others: paths that begin with `folder`.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = str(folder)
        self.images: list[str] = []
        self.others: list[str] = []
        for root, names in files.walk_files(self.folder):
            if _is_hidden(os.path.relpath(root, self.folder)):
                continue
            for name in names:
                if not name.startswith("."):
                    kind = self.images if files.is_image(name) else self.others
                    kind.append(os.path.join(root, name))

    def list_by_suffix(self, *suffixes) -> list[str]:
        """The other files with one of these suffixes, given in lower case."""
        return [path for path in self.others if os.path.splitext(path)[1].lower() in suffixes]

    def shorten(self, path) -> str:
        """A path below the folder without the way to it."""
        return os.path.relpath(path, self.folder)

    @functools.cached_property
    def _images_alike(self):
        alike = collections.defaultdict(list)
        for path in self.images:
            alike[_spell_stem(path)].append(path)
        return alike

    def find_image_folder(self, names: list[str], label_file: str) -> str | None:
        """The folder in which most of the images are that a label file names, or None.

        Of several, the one that has most of them exactly as written, then that of the file's split,
        then that of the file, then the one nearest to the top.
        """
        num_found = collections.Counter[str]()
        num_exact = collections.Counter[str]()
        for name in names:
            for folder, is_exact in self._find_folders(name).items():
                num_found[folder] += 1
                num_exact[folder] += is_exact
        split = split_names.split_of_path(self.shorten(label_file))

        def rank(folder):
            inside = self.shorten(folder)
            is_of_split = split_names.split_of_folders(inside) == split
            is_beside = folder == os.path.dirname(label_file)
            return (
                *(-num_found[folder], -num_exact[folder], not is_of_split, not is_beside),
                *(inside.count(os.sep), folder),
            )

        return min(num_found, key=rank, default=None)

    def _find_folders(self, name: str) -> dict[str, bool]:
        """{folder in which a reader finds the image of that name: whether as written}."""
        found: dict[str, bool] = {}
        for way in files.list_candidates("", name) if name else ():
            inner = os.sep + os.path.dirname(way) if os.path.dirname(way) else ""
            for path in self._images_alike.get(_spell_stem(way), ()):
                folder = os.path.dirname(path)
                if folder.endswith(inner):
                    folder = folder.removesuffix(inner)
                    is_exact = path == os.path.join(folder, name)
                    found[folder] = found.get(folder, False) or is_exact
        return found


def _is_hidden(folder):
    parts = pathlib.PurePath(folder).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _spell_stem(path):
    return files.spell_alike(files.split_stem(os.path.basename(path)))


def find_coco(contents: Contents) -> FoundLabels | None:
    """The labels in COCO JSON, or None."""
    starts = _read_starts(contents.list_by_suffix(".json"), coco_json.read_start)
    return _find_lists("coco", "COCO JSON file", "--annotations", contents, _drop_others(starts))


def find_csv(contents: Contents) -> FoundLabels | None:
    """The labels in CSV tables, or None."""
    starts = _read_starts(contents.list_by_suffix(".csv", ".tsv"), csv_table.read_start)
    return _find_lists("csv", "CSV file", "--csv", contents, starts)


def _read_starts(paths, read):
    starts = {path: read(path, _NUM_LOOKED_UP) for path in paths}
    return {path: start for path, start in starts.items() if start and any(start.file_names)}


def _drop_others(starts):
    """The files without captions and key points of the images of `instances_*.json` beside them."""
    instances = {path for path in starts if os.path.basename(path).startswith("instances")}
    folders = {os.path.dirname(path) for path in instances}
    return {
        path: start
        for path, start in starts.items()
        if path in instances or os.path.dirname(path) not in folders
    }


def _find_lists(label_format, unit, flag, contents, starts):
    """The labels of a format with a file for many images."""
    if not starts:
        return None
    sets = []
    for path, start in starts.items():
        folder = contents.find_image_folder(start.file_names, path) or os.path.dirname(path)
        unit_flags = ("--boxes", labels.NORMALISED) if start.are_fractions else ()
        flags = ("--images", folder, flag, path, *unit_flags)
        where = f"{contents.shorten(path)} (images in {contents.shorten(folder)})"
        split = split_names.split_of_path(contents.shorten(path))
        sets.append(LabelSet(split, flags, where))
    return FoundLabels(
        label_format, len(starts), unit, next(iter(starts)), _join(sets), _in_order(sets)
    )


def _join(sets):
    shown = [each.where for each in _in_order(sets)[:4]]
    return ", ".join(shown) + (f" and {len(sets) - 4} more" if len(sets) > 4 else "")


def _in_order(sets):
    order = (None, "train", "val", "test")
    return sorted(sets, key=lambda each: order.index(each.split))


def find_voc(contents: Contents) -> FoundLabels | None:
    """The labels in VOC XML, or None."""
    paths = [path for path in contents.list_by_suffix(".xml") if voc_xml.is_annotation(path)]
    if not paths:
        return None
    roots = {_find_devkit(contents, path) for path in paths}
    devkits = sorted(root for root in roots if root)
    sets = []
    for root in devkits or [_find_common_folder(contents, paths)]:
        split = split_names.split_of_folders(contents.shorten(root))
        sets += [_make_voc_set(contents, root, split, each) for each in _list_voc_sets(root, split)]
    return FoundLabels("voc", len(paths), "VOC XML file", paths[0], _join(sets), _in_order(sets))


def _find_devkit(contents, path):
    """The folder above the innermost `Annotations` on the way to an XML file, or None."""
    folders = os.path.dirname(contents.shorten(path)).split(os.sep)
    is_annotations = [folder.lower() == "annotations" for folder in folders]
    if not any(is_annotations):
        return None
    index = len(folders) - 1 - is_annotations[::-1].index(True)
    return os.path.join(contents.folder, *folders[:index])


def _find_common_folder(contents, paths):
    """The innermost folder that holds all images and all these files."""
    folders = [os.path.dirname(path) for path in (*paths, *contents.images)]
    return os.path.commonpath(folders) or contents.folder


def _list_voc_sets(root, split):
    """The sets of a VOC folder; all of it is one if the folder itself is that of a split."""
    if split is None:
        return voc_xml.list_sets(root)
    count = sum(each.num_images for each in voc_xml.list_sets(root))
    return [labels.ImageSet("all", split, count)]


def _make_voc_set(contents, root, split, image_set):
    inside = contents.shorten(root)
    where = f"{image_set.name} {image_set.num_images:,}"
    where += "" if inside == os.curdir else f" in {inside}"
    flags = ("--voc", root, "--image_set", image_set.name)
    return LabelSet(split or image_set.split, flags, where)


def find_yolo(contents: Contents) -> FoundLabels | None:
    """The labels in YOLO's text files, or None."""
    paths = list_yolo_files(contents)
    lists = _find_yolo_lists(contents) if paths else []
    if not lists:
        return None
    sets = []
    for path in lists:
        split = split_names.split_of_folders(contents.shorten(os.path.dirname(path)))
        for each in yolo_sets.list_sets(pathlib.Path(path)):
            chosen = ("--image_set", each.name) if each.split else ()
            where = f"{each.name} of " * bool(each.split) + contents.shorten(path)
            flags = ("--yolo", _name_list(path), *chosen)
            sets.append(LabelSet(each.split or split, flags, where))
    return FoundLabels(
        "yolo", len(paths), "YOLO label file", paths[0], _join(sets), _in_order(sets)
    )


def _name_list(path):
    """What --yolo takes: the folder of a classes.txt, else the file."""
    folder, name = os.path.split(path)
    if name != "classes.txt":
        return path
    return os.path.dirname(folder) if os.path.basename(folder) == "labels" else folder


def list_yolo_files(contents: Contents) -> list[str]:
    """The text files of images, if one of them holds a YOLO box; else none."""
    there = {pathlib.Path(path): path for path in contents.list_by_suffix(".txt")}
    candidates = (
        path for image in contents.images for path in yolo_txt.label_paths(pathlib.Path(image))
    )
    found = [there[path] for path in dict.fromkeys(candidates) if path in there]
    return found if any(map(yolo_txt.holds_labels, found)) else []


def _find_yolo_lists(contents):
    """The data.yaml and obj.data of all folders; if there are none, the classes.txt."""
    suspects = contents.list_by_suffix(*_YAML, ".data")
    suspects += [path for path in contents.others if os.path.basename(path) == "classes.txt"]
    folders = dict.fromkeys(_name_folder(path) for path in suspects)
    found = sorted(filter(None, map(_find_yolo_list, folders)), key=lambda path: path.count(os.sep))
    divided = [path for path in found if os.path.basename(path) != "classes.txt"]
    return divided or found


def _explain_no_list(contents):
    """Why no list of the classes and images of YOLO labels can be used."""
    for path in contents.list_by_suffix(*_YAML, ".data"):
        try:
            next(yolo_sets.open_set(path, "train").images, None)
        except (OSError, ValueError) as error:
            return str(error)
    return "no data.yaml, obj.data or classes.txt; write a classes.txt with one class name per line"


def _name_folder(path):
    is_list = os.path.basename(path) == "classes.txt"
    return _name_list(path) if is_list else os.path.dirname(path)


def _find_yolo_list(folder):
    try:
        path = yolo_sets.find_list(pathlib.Path(folder))
        return os.path.join(folder, path.relative_to(folder)) if yolo_sets.list_sets(path) else None
    except (OSError, ValueError):  # a YAML file of something else
        return None


def explain_unread(contents: Contents) -> str:
    """Labels that no converter reads, as `PATH; it seems to be ...`; empty if there are none."""
    for path in contents.list_by_suffix(*_JSON):
        other = coco_json.name_other_format(path)
        if other:
            return f"{contents.shorten(path)}{other}"
    texts = list_yolo_files(contents)
    if texts:
        counted = labels.count_of(len(texts), "YOLO label file")
        return f"{counted}, such as {texts[0]}, but {_explain_no_list(contents)}"
    xml = contents.list_by_suffix(".xml")
    if xml:
        return f"{contents.shorten(xml[0])}, which is no VOC annotation; export VOC, COCO or YOLO"
    tables = contents.list_by_suffix(".csv", ".tsv")
    return next(filter(None, map(csv_table.find_fault, tables)), "")
