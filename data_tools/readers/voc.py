"""VOC XML: a devkit year (Annotations, JPEGImages, ImageSets) or a loose folder of XML beside pictures, as labelImg leaves it.

Boxes count pixels from 1. Every tag but an object's name and box may be missing.
"""

import pathlib
import xml.etree.ElementTree

from data_tools.readers import labels


def read_voc(folder, image_set) -> labels.Source:
    """image_set: a name of ImageSets/Main; `all` is every XML file where no such set exists. `source_id` is the file's stem."""
    folder = labels.check_folder(folder, "--voc")
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    images = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    stems = _read_stems(folder, annotations, image_set)
    return labels.Source(None, (_read_image(annotations / f"{stem}.xml", images) for stem in stems))


def choose_image_set(folder, split):
    """The set for a split where none is named: trainval for train, else the one of the same name; all where there are no sets."""
    sets = pathlib.Path(folder) / "ImageSets" / "Main"
    if not sets.is_dir():
        return "all"
    names = ("trainval", "train") if split == "train" else (split,)
    return next((name for name in names if (sets / f"{name}.txt").is_file()), names[-1])


def _read_stems(folder, annotations, image_set):
    listed = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    if listed.is_file():
        lines = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        # A class's own list has a second word, 1 or -1; a stem may have a space, too.
        return [line if (annotations / f"{line}.xml").is_file() else line.split()[0] for line in lines]
    if image_set != "all":
        known = sorted(path.stem for path in listed.parent.glob("*.txt"))
        found = f"it has {', '.join(known)}, and `all` takes every XML file" if known else "it has none; leave --image_set out"
        raise FileNotFoundError(f"--image_set: no {image_set}.txt in {listed.parent}; {found}")
    stems = sorted(path.stem for path in annotations.glob("*.xml"))
    if not stems:
        raise FileNotFoundError(f"--voc: no XML files in {annotations}; give the folder that holds Annotations, or the XML files")
    return stems


def _read_image(path, images):
    stem = path.stem
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except FileNotFoundError:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault="no annotation file")
    except (xml.etree.ElementTree.ParseError, UnicodeDecodeError, ValueError, OSError) as error:
        return labels.LabeledImage("", f"{stem}.xml", stem, fault=f"annotation cannot be read: {error}")
    image = labels.find_image(images, f"{stem}.jpg")
    written = _text(root, "filename")
    if not image.is_file() and written:
        image = labels.find_image(images, written)
    return labels.LabeledImage(
        path=str(image),
        filename=image.name,
        source_id=stem,
        objects=tuple(_read_object(node) for node in root.findall("object")),
        size_hw=labels.to_size(_text(root, "size/height"), _text(root, "size/width")),
        unit=labels.PIXELS_FROM_ONE,
    )


def _read_object(node):
    name = _text(node, "name")
    box = tuple(labels.to_number(_text(node, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    fault = "no class name" if not name else "no box" if node.find("bndbox") is None else ""
    return labels.LabeledObject(name, box, difficult=_text(node, "difficult") == "1", fault=fault)


def _text(node, path):
    return (node.findtext(path) or "").strip()
