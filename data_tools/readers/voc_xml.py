"""VOC XML: a devkit year (Annotations, JPEGImages, ImageSets) or a loose folder of XML beside pictures, as labelImg leaves it.

Boxes count pixels from 1. Every tag but an object's name and box may be missing. Both folders may have folders in them.
"""

import os
import pathlib
import xml.etree.ElementTree

from data_tools.readers import labels

_SUFFIXES = (".xml", ".XML")
_USUAL_SETS = {"train": ("trainval", "train"), "val": ("val", "valid")}


def read_voc(folder, image_set) -> labels.Source:
    """image_set: a list of ImageSets/Main, or a folder of XML files; `all` is every XML file where no such list exists.

    `source_id` is the path of the XML file within Annotations without its suffix, `2007_000027` or `camera1/07`.
    """
    folder = labels.check_folder(folder, "--voc")
    annotations = _find_annotations(folder)
    images = next(
        (folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder
    )
    found = sorted(_list_xml(annotations), key=lambda name: os.path.splitext(name)[0])
    chosen = _choose(folder, annotations, image_set, found)
    return labels.Source(
        None,
        (_read_image(annotations, name, images) for name in chosen),
        [f"image set {image_set}: {len(chosen):,} of {len(found):,} XML files"],
        folder=images,
        is_labelled=lambda path: bool(
            _find_xml(annotations, os.path.splitext(os.path.relpath(path, images))[0])
        ),
    )


def choose_image_set(folder, split):
    """The set for a split where none is named: trainval for train, else the one of the same name; all where there are no sets."""
    sets = pathlib.Path(folder) / "ImageSets" / "Main"
    places = [sets / f"{name}.txt" for name in _USUAL_SETS.get(split, (split,))]
    if not sets.is_dir():
        # Exports with a folder for each set.
        annotations = _find_annotations(pathlib.Path(folder))
        if not any((annotations / name).is_dir() for name in ("train", "val", "valid", "test")):
            return "all"
        places = [annotations / place.stem for place in places]
    return next((place.stem for place in places if place.exists()), split)


def _find_annotations(folder):
    return folder / "Annotations" if (folder / "Annotations").is_dir() else folder


def _list_xml(annotations):
    """Paths of the XML files within the folder."""
    for root, files in labels.walk_files(annotations):
        for name in files:
            if name.endswith(_SUFFIXES):
                yield os.path.relpath(os.path.join(root, name), annotations)


def _choose(folder, annotations, image_set, found):
    """The XML files of a set, as paths within `annotations`."""
    listed = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    if listed.is_file():
        lines = [
            line.replace("\\", "/") for line in labels.read_lines(listed, "surrogateescape") if line
        ]
        # A class's own list has a second word, 1 or -1; a stem may have a space, too.
        stems = [line if _find_xml(annotations, line) else line.split()[0] for line in lines]
        return [_find_xml(annotations, stem) or f"{stem}.xml" for stem in stems]
    if image_set != "all":
        names, found = (
            found,
            [name for name in found if pathlib.PurePath(name).parts[0] == image_set],
        )
        if not found:
            raise FileNotFoundError(
                f"--image_set: no {image_set}.txt in {listed.parent}; {_describe_sets(listed.parent, names)}"
            )
    if not found:
        raise FileNotFoundError(
            f"--voc: no XML files in {annotations}; give the folder that holds Annotations, or the XML files"
        )
    return found


def _describe_sets(folder, names):
    folders = {pathlib.PurePath(name).parts[0] for name in names if os.path.dirname(name)}
    known = sorted(folders | {path.stem for path in folder.glob("*.txt")})
    return (
        f"it has {', '.join(known)}, and `all` takes every XML file"
        if known
        else "it has none; leave --image_set out"
    )


def _find_xml(annotations, stem):
    """The name of the XML file of that stem, or None."""
    return next(
        (
            stem + suffix
            for suffix in _SUFFIXES
            if os.path.isfile(os.path.join(annotations, stem + suffix))
        ),
        None,
    )


def _read_image(annotations, name, images):
    stem = os.path.splitext(name)[0]
    try:
        root = xml.etree.ElementTree.parse(annotations / name).getroot()
    except FileNotFoundError:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault="no annotation file")
    except (xml.etree.ElementTree.ParseError, UnicodeDecodeError, ValueError, OSError) as error:
        return labels.LabeledImage(
            "", f"{stem}.xml", stem, fault=f"annotation cannot be read: {error}"
        )
    if root.tag != "annotation":
        return labels.LabeledImage(
            "", f"{stem}.xml", stem, fault=f"not a VOC annotation: it begins with <{root.tag}>"
        )
    image = _find_image(images, stem, _text(root, "filename"))
    return labels.LabeledImage(
        path=str(image),
        filename=image.name,
        source_id=stem,
        objects=tuple(_read_object(node) for node in root.findall("object")),
        size_hw=labels.to_size(_text(root, "size/height"), _text(root, "size/width")),
        unit=labels.PIXELS_FROM_ONE,
    )


def _find_image(images, stem, written):
    """The file that the XML names where that has the XML's own stem, else the picture of that stem, else the named file."""
    named = pathlib.PurePath(written.replace("\\", "/"))
    if named.stem == os.path.basename(stem):
        beside = pathlib.PurePath(stem).parent / named.name
        exact = (named, beside) if len(named.parts) > 1 else (beside,)
        found = next((images / path for path in exact if os.path.isfile(images / path)), None)
        if found:
            return found
    image = labels.find_image(images, f"{stem}.jpg")
    return image if image.is_file() or not written else labels.find_image(images, written)


def _read_object(node):
    name = _text(node, "name")
    box = tuple(
        labels.to_number(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    fault = "no class name" if not name else "no box" if node.find("bndbox") is None else ""
    return labels.LabeledObject(name, box, difficult=_text(node, "difficult") == "1", fault=fault)


def _text(node, path):
    return (node.findtext(path) or "").strip()
