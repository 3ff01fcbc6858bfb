"""VOC XML: a devkit year (Annotations, JPEGImages, ImageSets), or a folder of XML beside images.

The latter is what labelImg leaves. Boxes count pixels from 1. Every tag but an object's name and
box may be missing. Both folders may have subfolders.
"""

import os
import pathlib
import xml.etree.ElementTree

from data_tools.readers import files, labels
from ssd_tf import parsing, user_files

_SUFFIXES = (".xml", ".XML")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_USUAL_SETS = {"train": ("trainval", "train"), "val": ("val", "valid")}


def read_voc(folder, image_set, allow_outside=False) -> labels.Source:
    """Read one image set of a folder.

    image_set: a list of ImageSets/Main, or a folder of XML files; `all` is every XML file if there
    is no list of that name.
    allow_outside: whether a list or a `filename` may lead out of the folder of the images, which
    is JPEGImages, else images, else `folder`.
    `source_id` is the path of the XML file within Annotations without its suffix, such as
    `2007_000027` or `camera1/07`.
    """
    folder = files.check_folder(folder, "--voc")
    annotations = _find_annotations(folder)
    images = next(
        (folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder
    )
    found = sorted(_list_xml(annotations), key=lambda name: os.path.splitext(name)[0])
    chosen = _choose(folder, annotations, image_set, found)
    allowed = files.ImageFolders((images,), allow_outside)

    def is_labelled(path):
        return bool(_find_xml(annotations, os.path.splitext(os.path.relpath(path, images))[0]))

    return labels.Source(
        None,
        (_read_image(annotations, name, images, allowed) for name in chosen),
        [f"image set {image_set}: {len(chosen):,} of {len(found):,} XML files"],
        folder=images,
        is_labelled=is_labelled,
    )


def choose_image_set(folder, split):
    """The image set of a split if the user names none.

    It is trainval for train, else the set of the same name; `all` if there are no sets.
    """
    sets = pathlib.Path(folder) / "ImageSets" / "Main"
    places = [sets / f"{name}.txt" for name in _USUAL_SETS.get(split, (split,))]
    if not sets.is_dir():
        # Some exports have a folder for each set instead.
        annotations = _find_annotations(pathlib.Path(folder))
        if not any((annotations / name).is_dir() for name in ("train", "val", "valid", "test")):
            return "all"
        places = [annotations / place.stem for place in places]
    return next((place.stem for place in places if place.exists()), split)


def _find_annotations(folder):
    return folder / "Annotations" if (folder / "Annotations").is_dir() else folder


def _list_xml(annotations):
    """Paths of the XML files within the folder."""
    for root, names in files.walk_files(annotations):
        for name in names:
            if name.endswith(_SUFFIXES):
                yield os.path.relpath(os.path.join(root, name), annotations)


def _choose(folder, annotations, image_set, found):
    """The XML files of a set, as paths within `annotations`."""
    listed = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    if listed.is_file():
        return _read_list(listed, annotations)
    chosen = found
    if image_set != "all":
        chosen = [name for name in found if pathlib.PurePath(name).parts[0] == image_set]
        if not chosen:
            raise FileNotFoundError(
                f"--image_set: no {image_set}.txt in {listed.parent}; "
                f"{_describe_sets(listed.parent, found)}"
            )
    if not chosen:
        raise FileNotFoundError(
            f"--voc: no XML files in {annotations}; "
            "give the folder that holds Annotations, or the XML files"
        )
    return chosen


def _read_list(listed, annotations):
    lines = user_files.read_lines(listed, "surrogateescape", user_files.MAX_LIST_BYTES)
    lines = [files.shorten(line).replace("\\", "/") for line in lines if line]
    # The list of one class has a second word, 1 or -1; but a stem may contain a space, too.
    stems = [line if _find_xml(annotations, line) else line.split()[0] for line in lines]
    return [_find_xml(annotations, stem) or f"{stem}.xml" for stem in stems]


def _describe_sets(folder, names):
    folders = {pathlib.PurePath(name).parts[0] for name in names if os.path.dirname(name)}
    known = sorted(folders | {path.stem for path in folder.glob("*.txt")})
    if not known:
        return "it has none; leave --image_set out"
    return f"it has {', '.join(known)}, and `all` takes every XML file"


def _find_xml(annotations, stem):
    """The name of the XML file of that stem, or None."""
    names = (stem + suffix for suffix in _SUFFIXES)
    return next((name for name in names if os.path.isfile(os.path.join(annotations, name))), None)


def _read_image(annotations, name, images, allowed):
    stem = os.path.splitext(name)[0]
    try:
        data = user_files.read_bytes(annotations / name, user_files.MAX_LABEL_BYTES)
        root = xml.etree.ElementTree.fromstring(data)
    except FileNotFoundError:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault="no annotation file")
    # LookupError: an encoding that Python does not know.
    except (xml.etree.ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        return labels.LabeledImage(
            "", f"{stem}.xml", stem, fault=f"annotation cannot be read: {error}"
        )
    if root.tag != "annotation":
        return labels.LabeledImage(
            "", f"{stem}.xml", stem, fault=f"not a VOC annotation: it begins with <{root.tag}>"
        )
    written = _text(root, "filename")
    absent = os.path.join(images, written or f"{stem}.jpg")
    found = allowed.check(allowed.choose(_find_images(images, stem, written), absent))
    return labels.LabeledImage(
        path=found.readable_path,
        filename=found.path.name,
        source_id=stem,
        objects=tuple(_read_object(node) for node in root.findall("object")),
        size_hw=parsing.to_size(_text(root, "size/height"), _text(root, "size/width")),
        unit=labels.PIXELS_FROM_ONE,
        fault=found.fault,
    )


def _find_images(images, stem, written):
    """Yield the files that may be the image of an XML file, the likeliest first.

    It is the file that the XML names if that has the XML's own stem, else the image of that stem,
    else the named file.
    """
    named = pathlib.PurePath(files.shorten(written).replace("\\", "/"))
    if named.stem == os.path.basename(stem):
        beside = pathlib.PurePath(stem).parent / named.name
        exact = (named, beside) if len(named.parts) > 1 else (beside,)
        yield from (str(images / path) for path in exact if os.path.isfile(images / path))
    yield from files.find_images(images, f"{stem}.jpg")
    if written:
        yield from files.find_images(images, written)


def _read_object(node):
    name = _text(node, "name")
    box = tuple(parsing.to_number(_text(node, f"bndbox/{side}")) for side in _SIDES)
    fault = ""
    if not name:
        fault = "no class name"
    elif node.find("bndbox") is None:
        fault = "no box"
    return labels.LabeledObject(name, box, difficult=_text(node, "difficult") == "1", fault=fault)


def _text(node, path):
    return (node.findtext(path) or "").strip()
