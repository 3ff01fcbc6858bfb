"""VOC XML: a devkit year (Annotations, JPEGImages, ImageSets), or a folder of XML beside images.

The latter is what labelImg leaves. Boxes count pixels from 1. Every tag but an object's name and
box may be missing. Both folders may have subfolders.
"""

import collections
import functools
import os
import pathlib
import re
import xml.etree.ElementTree

from data_tools.readers import files, labels, split_names
from ssd_tf import parsing, user_files

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_USUAL_SETS = {"train": ("trainval", "train"), "val": ("val", "valid"), "test": ("test",)}
_RESERVED = {name for names in _USUAL_SETS.values() for name in names}
_SET_NOTE = "image set {}: "  # the beginning of a note
_SET_FOLDERS = ("train", "val", "valid", "test")
_IMAGE_FOLDERS = ("JPEGImages", "images")
_START = 1 << 12  # bytes in which an XML file shows its root
_ROOT = re.compile(r"<([A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
# Text that claims the older standard often holds characters of the newer one.
_WIDE = ("utf-16", "utf16", "utf_16", "utf-32", "utf32", "ucs", "unicode")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030"}


def is_annotation(path) -> bool:
    """Whether the root of an XML file is that of a VOC annotation, judged by its beginning."""
    try:
        with user_files.open_regular(path) as file:
            start = file.read(_START)
    except OSError:
        return False
    text = start.decode(user_files.find_encoding(start), "replace")
    root = _ROOT.search(_COMMENT.sub("", text))
    return root is not None and root[2].lower() == "annotation"


def read_voc(folder, image_set, allow_outside=False) -> labels.Source:
    """Read one image set of a folder.

    image_set: a list of ImageSets/Main, all lists of one class for a set, such as `cat_train` for
    `train`, or a folder of XML files; `all` is every XML file if there is no list of that name.
    `train` without such a list or folder is what lies in no folder of another set.
    allow_outside: whether a list or a `filename` may lead out of the folder of the images, which
    is JPEGImages, else images, else `folder`.
    `source_id` is the path of the XML file within Annotations without its suffix, such as
    `2007_000027` or `camera1/07`.
    """
    folder = files.check_folder(folder, "--voc")
    annotations = _Annotations(_find_annotations(folder))
    images = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), folder)
    # Without Annotations, an image may lie beside its XML file although there is a folder `images`.
    roots = (images,) if annotations.folder != folder else tuple(dict.fromkeys((folder, images)))
    lists = _ImageLists(folder)
    chosen = lists.read(image_set, annotations) if lists.have(image_set) else None
    if chosen is None:
        chosen = _choose_by_folder(image_set, annotations, lists)
    allowed = files.ImageFolders(roots, allow_outside)

    def is_labelled(path):
        stems = (os.path.splitext(os.path.relpath(path, root))[0] for root in roots)
        return any(annotations.find(stem) for stem in stems)

    note = f"{_SET_NOTE.format(image_set)}{len(chosen):,} of {len(annotations.names):,} XML files"
    others = _describe_others(image_set, chosen, annotations, lists)
    return labels.Source(
        None,
        (_read_image(annotations.folder, name, roots, allowed) for name in chosen),
        [f"{note}; not converted: {', '.join(others)}" if others else note],
        folder=images,
        is_labelled=is_labelled,
        other_sets=tuple(_find_other_sets(image_set, annotations, lists)),
    )


def check_separate(folder, split, image_set, is_default, reports):
    """Raise ValueError if images of `val` would be in the split train, made of `trainval` unasked.

    image_set: of which the split is to be made; is_default: whether the user has named none.
    reports: {split: its entry of report.json} of the splits that stay in the data set.
    """
    found = {name: _made_of(entry, folder) for name, entry in reports.items()}
    made = {name: made_of for name, made_of in found.items() if made_of}
    made[split] = (image_set, is_default)
    part = next((name for name, (each, _) in made.items() if each in _USUAL_SETS["val"]), None)
    if made.get("train") != ("trainval", True) or part in (None, "train"):
        return
    advice = "convert train with --image_set train"
    lists = _ImageLists(pathlib.Path(folder))
    if not lists.have("train"):
        advice = (
            f"write {lists.folder / 'train.txt'} without them, or convert train alone into another "
            "--output with --val_fraction 0.2"
        )
    raise ValueError(
        f"--output: the split train, made of the set trainval, would hold the images of {part}, "
        f"made of the set {made[part][0]}: {advice}"
    )


def _made_of(entry, folder):
    """(image set, whether the user had named none) of a split made of the same folder, or None."""
    source = entry["source"]
    notes = "\n".join(source.get("notes", ()))
    found = re.search(_SET_NOTE.format("(.+?)") + r"[\d,]+ of", notes)
    if not found or os.path.abspath(source.get("voc", "")) != os.path.abspath(folder):
        return None
    return found[1], "image_set" not in source


def list_sets(folder) -> list[labels.ImageSet]:
    """The sets that the lists or folders of a VOC folder make up.

    It is one of all XML files and no split if nothing divides them. `trainval` is the training set
    only if there is no list `train`; sets without an XML file are left out.
    """
    folder = files.check_folder(folder, "--voc")
    annotations = _Annotations(_find_annotations(folder))
    sets = _list_sets(annotations, _ImageLists(folder))
    return sets or [labels.ImageSet("all", None, len(annotations.names))]


def _list_sets(annotations, lists):
    sets = _sets_of_lists(annotations, lists) if lists.names else _sets_of_folders(annotations)
    return [each for each in sets if each.num_images]


def _sets_of_lists(annotations, lists):
    there = set(annotations.names)

    def count(name):
        return len(there.intersection(lists.read(name, annotations)))

    if lists.have("trainval") and not lists.have("train"):  # it holds `val`, too
        usual = {"train": ("trainval",), "test": _USUAL_SETS["test"]}
    else:
        usual = _USUAL_SETS | {"train": ("train",)}
    for split, names in usual.items():
        name = next(filter(lists.have, names), None)
        if name:
            yield labels.ImageSet(name, split, count(name))
    if len(lists.names) == 1 and lists.names[0] not in _RESERVED:
        yield labels.ImageSet(lists.names[0], "train", count(lists.names[0]))


def _sets_of_folders(annotations):
    divided = collections.Counter()
    for name in annotations.names:
        divided[_find_set_folder(name)] += 1
    rest = divided.pop(None, 0)
    if not divided:
        return
    sets = [
        labels.ImageSet(folder, split_names.split_of_folder(folder), count)
        for folder, count in sorted(divided.items())
    ]
    yield from sets
    if rest and all(each.split != "train" for each in sets):
        yield labels.ImageSet("train", "train", rest)


def _list_rest(annotations):
    """The XML files beside the folders of sets; none if there are no such folders."""
    rest = [name for name in annotations.names if not _find_set_folder(name)]
    return rest if len(rest) < len(annotations.names) else []


def _find_set_folder(name):
    """The innermost folder on the way to an XML file that is named like a split, or None."""
    return next(filter(split_names.split_of_folder, reversed(_folders_of(name))), None)


def _find_other_sets(image_set, annotations, lists):
    """The sets of which nothing is in `image_set`."""
    if image_set == "all" and not lists.have("all"):
        return []
    taken = {image_set, *(("train", "val", "valid") if image_set == "trainval" else ())}
    return [
        each
        for each in _list_sets(annotations, lists)
        if each.name not in taken and not image_set.endswith(f"_{each.name}")
    ]


def choose_image_set(folder, split, others=()):
    """The image set of a split if the user names none.

    others: further splits of the data set. It is trainval for train, unless there is a split val,
    whose images trainval holds, too; else the set of the same name, else the only list if that is
    not the usual one of another split; `all` if there are no sets.
    """
    folder = files.check_folder(folder, "--voc")
    usual = _USUAL_SETS.get(split, (split,))
    if split == "train" and "val" in others:
        usual = usual[::-1]
    lists = _ImageLists(folder)
    if lists.names:
        chosen = next(filter(lists.have, usual), None)
        only = lists.names[0] if len(lists.names) == 1 else ""
        return chosen or (only if only and only not in _RESERVED else split)
    # Some exports have a folder for each set instead.
    annotations = _Annotations(_find_annotations(folder))
    sets = list(_sets_of_folders(annotations))
    if not sets:
        return "all"
    named = (name for name in usual if name in annotations.parts)
    return next(named, next((each.name for each in sets if each.split == split), split))


def _find_annotations(folder):
    return folder / "Annotations" if (folder / "Annotations").is_dir() else folder


class _Annotations:
    """The XML files of a folder."""

    def __init__(self, folder):
        self.folder = folder

    @functools.cached_property
    def names(self) -> list[str]:
        """Their paths within the folder, in order."""
        found = []
        for root, names in files.walk_files(self.folder):
            paths = (os.path.join(root, name) for name in names if _is_xml(name))
            found += [os.path.relpath(path, self.folder) for path in paths]
        return sorted(found, key=lambda name: os.path.splitext(name)[0])

    @functools.cached_property
    def parts(self) -> collections.Counter:
        """The number of XML files below a folder of each name."""
        found = collections.Counter()
        for name in self.names:
            found.update(set(_folders_of(name)))
        return found

    @functools.cached_property
    def _alike(self):
        return {files.spell_alike(os.path.splitext(name)[0]): name for name in self.names}

    def find(self, stem):
        """The name of the XML file of that stem, or None."""
        name = f"{stem}.xml"
        if os.path.isfile(os.path.join(self.folder, name)):
            return name
        return self._alike.get(files.spell_alike(stem))

    def find_listed(self, line):
        """The name of the XML file that a line of a list means, or None."""
        stem = files.split_stem(line.removesuffix(".xml"))
        return self.find(line) or self.find(stem) or self.find(os.path.basename(stem))


def _is_xml(name):
    return os.path.splitext(name)[1].lower() == ".xml"


def _folders_of(name):
    return os.path.dirname(name).split(os.sep) if os.path.dirname(name) else []


class _ImageLists:
    """The lists of a devkit: ImageSets/Main/NAME.txt, and CLASS_NAME.txt for each class."""

    def __init__(self, folder):
        self.folder = folder / "ImageSets" / "Main"

    @functools.cached_property
    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.txt") if path.is_file())

    def have(self, image_set) -> bool:
        return bool(self._of(image_set))

    def _of(self, image_set):
        """The list of a set, else those of its classes, which together name all its images."""
        if image_set in self.names:
            return [image_set]
        return [name for name in self.names if name.endswith(f"_{image_set}")]

    def read(self, image_set, annotations) -> list[str]:
        """The XML files of a set."""
        chosen = {}
        for name in self._of(image_set):
            # What is not of the class is all the same of the set that its lists make up.
            for line in self._read_lines(name):
                found, is_member = _read_member(line, annotations)
                if is_member or name != image_set:
                    chosen[found] = None
        return list(chosen)

    def _read_lines(self, name):
        path = self.folder / f"{name}.txt"
        lines = user_files.read_lines(path, "surrogateescape", user_files.MAX_LIST_BYTES)
        return [files.shorten(line).replace("\\", "/") for line in lines if line]


def _read_member(line, annotations):
    """-> (the XML file of a line, whether its image is in the set).

    The list of one class has a second word: -1 if the class is not in the image, 0 if all of it is
    difficult. But the name of an image may contain a space, too.
    """
    found = annotations.find_listed(line)
    if found:
        return found, True
    name, *flag = line.rsplit(None, 1)
    if flag not in (["-1"], ["0"], ["1"]):
        name = line
    absent = files.split_stem(name.removesuffix(".xml")) + ".xml"
    return annotations.find_listed(name) or absent, flag != ["-1"]


def _choose_by_folder(image_set, annotations, lists):
    """The XML files below a folder of the set's name, as paths within the annotations."""
    chosen = annotations.names
    if image_set != "all":
        chosen = [name for name in chosen if image_set in _folders_of(name)]
        if not chosen and image_set == "train":
            chosen = _list_rest(annotations)
        if not chosen:
            raise FileNotFoundError(
                f"--image_set: no {image_set}.txt in {lists.folder}; "
                f"{_describe_sets(lists, annotations)}"
            )
    if not chosen:
        raise FileNotFoundError(
            f"--voc: no XML files in {annotations.folder}; "
            "give the folder that holds Annotations, or the XML files"
        )
    return chosen


def _describe_sets(lists, annotations):
    known = sorted({*annotations.parts, *lists.names})
    if not known:
        return "it has none; leave --image_set out"
    return f"it has {', '.join(known)}, and `all` takes every XML file"


def _describe_others(image_set, chosen, annotations, lists):
    """The other sets of which XML files are left out."""
    if lists.have(image_set):
        parts = ("train", "val") if image_set == "trainval" else ()
        return [
            name
            for name in _SET_FOLDERS
            if lists.have(name) and name not in parts and not f"_{image_set}".endswith(f"_{name}")
        ]
    if len(chosen) == len(annotations.names):
        return []
    taken = set(chosen)
    left_out = collections.Counter()
    for name in annotations.names:
        if name not in taken:
            left_out[os.path.dirname(name) or "."] += 1
    return [f"{folder} {count:,}" for folder, count in sorted(left_out.items())[:10]]


def _read_image(annotations, name, roots, allowed):
    stem = os.path.splitext(name)[0]
    try:
        data = user_files.read_bytes(annotations / name, user_files.MAX_LABEL_BYTES)
        root = _parse(data)
    except FileNotFoundError:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault="no annotation file")
    except (ValueError, OSError) as error:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault=f"{labels.UNREADABLE}: {error}")
    if root.tag != "annotation":
        return labels.LabeledImage(
            "", f"{stem}.xml", stem, fault=f"{labels.NOT_VOC}: it begins with <{root.tag}>"
        )
    written = _text(root, "filename")
    absent = os.path.join(roots[-1], written or f"{stem}.jpg")
    found = allowed.check(allowed.choose(_find_images(allowed, roots, stem, written), absent))
    return labels.LabeledImage(
        path=found.readable_path,
        filename=found.path.name,
        source_id=stem,
        objects=tuple(map(_read_object, root.iter("object"))),
        size_hw=parsing.to_size(_text(root, "size/height"), _text(root, "size/width")),
        unit=labels.PIXELS_FROM_ONE,
        fault=found.fault,
    )


def _parse(data):
    """The root of the XML in `data`, with tags in lower case and without namespaces.

    Raises ValueError.
    """
    try:
        root = xml.etree.ElementTree.fromstring(data)
    # LookupError, ValueError: an encoding that the parser does not know.
    except (xml.etree.ElementTree.ParseError, ValueError, LookupError) as error:
        root = _parse_decoded(data, error)
    for node in root.iter():
        if isinstance(node.tag, str):  # comments have a function
            node.tag = node.tag.rpartition("}")[2].lower()
    return root


def _parse_decoded(data, error):
    """As _parse, decoded by the encoding that the XML declares, of which Python knows more."""
    found = _DECLARATION.match(data)
    declared = found[1].decode().lower() if found else ""
    if not declared or declared.startswith(_WIDE):  # bytes that hold this in ASCII are not wide
        encoding = user_files.find_encoding(data)
    else:
        encoding = _SUPERSETS.get(declared, declared)
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError):
        raise ValueError(
            f"expected text in {declared or 'UTF-8'}: save it as UTF-8, or name its encoding in "
            f"the first line ({error})"
        ) from None
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text).strip()
    try:
        return xml.etree.ElementTree.fromstring(text)
    except (xml.etree.ElementTree.ParseError, ValueError):
        raise ValueError(str(error)) from None


def _find_images(allowed, roots, stem, written):
    """Yield the files that may be the image of an XML file, the likeliest first.

    It is the file that the XML names if that has the XML's own stem, else the image of that stem,
    else the named file.
    """
    named = pathlib.PurePath(files.shorten(written).replace("\\", "/"))
    if named.stem == os.path.basename(stem):
        beside = pathlib.PurePath(stem).parent / named.name
        exact = (named, beside) if len(named.parts) > 1 else (beside,)
        paths = (root / path for path in exact for root in roots)
        yield from (str(path) for path in paths if os.path.isfile(path))
    for name in (f"{stem}.jpg", written):
        for root in roots if name else ():
            yield from allowed.find(root, name)


def _read_object(node):
    name = _text(node, "name")
    box = tuple(parsing.to_number(_text(node, f"bndbox/{side}")) for side in _SIDES)
    fault = ""
    if not name:
        fault = "no class name"
    elif node.find("bndbox") is None:
        fault = "no box"
    return labels.LabeledObject(
        name, box, difficult=parsing.to_flag(_text(node, "difficult")), fault=fault
    )


def _text(node, path):
    return (node.findtext(path) or "").strip()
