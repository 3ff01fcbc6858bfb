"""YOLO: a text file per image, lines of `class centre_x centre_y width height`.

Coordinates are fractions of the image's width and height. A line may hold a polygon instead, whose
bounding box is taken, or, for poses, key points after the box. A confidence and the number of a
track may follow, as predictions have them.
"""

import collections
import functools
import math
import os
import pathlib

from data_tools.readers import files, labels, yolo_sets
from ssd_tf import class_names, parsing, user_files

_MAX_FIRST_LINE = 1 << 16  # bytes
_NUM_SHOWN = 60  # characters of a line in messages
_QUOTES = "\"'"


def read_yolo(path, image_set, allow_outside=False) -> labels.Source:
    """Read one set (train, val or test) of data.yaml, obj.data, or of the folder of one.

    A folder with classes.txt has a single set. allow_outside: whether lists of images may name
    files outside the data set. `source_id` is the stem.
    """
    chosen = yolo_sets.open_set(path, image_set, allow_outside)
    classes = [{"name": name, "id": index} for index, name in chosen.names.items() if name]
    unused = collections.defaultdict(labels.Tally)
    # YOLO tools (Ultralytics, for one) read images rotated as EXIF says.
    return labels.Source(
        classes,
        _read_images(chosen, unused),
        list(chosen.notes),
        unused=unused,
        boxes_follow_exif=True,
        other_sets=chosen.other_sets,
    )


def _read_images(chosen, unused):
    pairs = {}  # (folder of labels, folder of images): _Pair
    candidates = ()
    any_labels = False
    parse = _LineParser(chosen).parse
    for found in chosen.images:
        path = found.path
        if found.fault:
            yield labels.LabeledImage("", path.name, path.stem, fault=found.fault)
            continue
        candidates = label_paths(path)
        keys = [(candidate.parent, path.parent) for candidate in candidates]
        own = [pairs.setdefault(key, _Pair(*key)) for key in keys]
        file = _find_labels(path, candidates, own)
        any_labels = any_labels or file is not None
        yield _read_image(path, file, own, parse)
    if candidates and not any_labels:
        looked = " and ".join(map(str, candidates))
        raise FileNotFoundError(
            f"--yolo: no image has a label file; that of {path.name} was looked for at {looked}"
        )
    for pair in pairs.values():
        for name in pair.unmatched:
            unused["label files without an image"].add(name)


def label_paths(image):
    """Where an image's labels may be: in labels/ for the last images/ in its path, or beside it."""
    name = os.path.splitext(image.name)[0] + ".txt"
    candidates = [image.parent / name]
    parts = image.parts[:-1]
    if "images" in parts:
        index = len(parts) - 1 - parts[::-1].index("images")
        folder = pathlib.Path(*parts[:index], "labels", *parts[index + 1 :])
        candidates.insert(0, folder / name)
    return candidates


def _find_labels(image, candidates, pairs):
    file = next(filter(_is_label_file, candidates), None)
    if file is not None:
        return file
    found = (pair.find(files.split_stem(image.name)) for pair in pairs)
    return next((file for file in found if file and _is_label_file(file)), None)


def _is_label_file(path):
    # Not isfile: a FIFO is a fault of the image, which is not one without objects. os.path, unlike
    # Path, takes names that no file can have.
    return os.path.exists(path) and not os.path.isdir(path)


class _Pair:
    """A folder of label files and the folder of their images, listed when it is asked for."""

    def __init__(self, label_folder, image_folder):
        self._labels = label_folder
        self._images = image_folder

    @functools.cached_property
    def _files(self):
        return files.list_alike(self._labels, _label_stem)

    @functools.cached_property
    def _stems(self):
        alike = files.list_images(self._images)
        return {key: {files.split_stem(name) for name in names} for key, names in alike.items()}

    def find(self, stem):
        """The label file of the image of that stem if only its spelling differs, else None."""
        key = files.spell_alike(stem)
        name = _choose(stem, self._files.get(key, ()), self._stems.get(key, ()))
        return name and self._labels / name

    @functools.cached_property
    def unmatched(self) -> list[str]:
        """The paths of label files without an image."""
        paths = []
        for key, names in self._files.items():
            stems = self._stems.get(key, ())
            matched = {_choose(stem, names, stems) for stem in stems}
            paths += [self._labels / name for name in names if name not in matched]
        return sorted(str(path) for path in paths if holds_labels(path))


def _label_stem(name):
    stem, suffix = os.path.splitext(name)
    return files.split_stem(stem) if suffix.lower() == ".txt" else None


def _choose(stem, names, stems):
    """The label file of an image, or None. stems: of all images whose stems are spelt alike."""
    exact = next((name for name in names if _label_stem(name) == stem), None)
    return exact or next((name for name in names if _label_stem(name) not in stems), None)


def holds_labels(path):
    """False for a classes.txt or a note, judged by its first line."""
    try:
        with user_files.open_regular(path) as file:
            start = file.read(_MAX_FIRST_LINE)
    except OSError:
        return False
    text = user_files.decode_text(start, path, "replace").lstrip()
    words = _split(next(iter(user_files.split_lines(text)), ""))
    return sum(math.isfinite(parsing.to_number(word)) for word in words) >= 4


def _read_image(path, file, pairs, parse):
    try:
        lines = user_files.read_lines(file) if file else []
    except (OSError, ValueError) as error:
        fault = f"{labels.UNREADABLE}: {error}"
        return labels.LabeledImage("", path.name, path.stem, fault=fault)
    objects = tuple(parse(line) for line in lines if line)
    unmatched = () if file else [name for pair in pairs for name in pair.unmatched]
    fault = ""
    if unmatched:  # one of them may be this image's
        fault = f"{labels.UNUSABLE}: no label file has its name, and {unmatched[0]} has no image"
    return labels.LabeledImage(
        str(path), path.name, path.stem, objects, unit=labels.NORMALISED, fault=fault
    )


class _LineParser:
    """Lines of label files -> labels.LabeledObject. image_set: a yolo_sets.ImageSet."""

    def __init__(self, image_set):
        self._names = image_set.names
        self._index_of = {class_names.normalize(name): index for index, name in self._names.items()}
        self._num_keypoint_values = image_set.num_keypoint_values

    def parse(self, line) -> labels.LabeledObject:
        """Read one line, which is not empty."""
        words = _split(line) or [line]
        num_name_words = _count_name_words(words)
        name = " ".join(words[:num_name_words])
        values = [parsing.to_number(word, True) for word in words[num_name_words:]]
        shown = line if len(line) <= _NUM_SHOWN else f"{line[:_NUM_SHOWN]}..."
        fault = ""
        box = _read_box(values, words[-1], self._num_keypoint_values)
        if box is None:
            box = labels.NOT_A_BOX
            fault = f"not a box: {self._explain()}, got {shown!r}"
        elif not all(map(math.isfinite, box)):
            fault = f"not a number: {shown!r}"
        index = self._find_index(name)
        known = self._names.get(index)
        if not fault and not known:
            what = "unknown category" if known is None else "class without a name"
            fault = f"{what}: {shown!r}; the classes have the indices {self._describe_indices()}"
        return labels.LabeledObject(known or f"class {name}", box, fault=fault)

    def _find_index(self, name):
        number = parsing.to_number(name)
        if number.is_integer():
            return int(number)
        return self._index_of.get(class_names.normalize(name))

    def _explain(self):
        also = ""
        if self._num_keypoint_values:
            also = f" and {self._num_keypoint_values} numbers of key points"
        return f"expected class x y width height{also}"

    def _describe_indices(self):
        return f"{min(self._names)} to {max(self._names)}" if self._names else "of none"


def _split(line):
    """The words of a line, which may stand in quotation marks and be separated by commas."""
    if ";" in line:
        words = line.split(";")
    else:
        words = line.split()
        if len(words) < 5 and "," in line:
            words = line.split(",")
    words = (word.strip().strip(_QUOTES).rstrip(",").strip() for word in words)
    return [word for word in words if word]


def _count_name_words(words):
    """The number of words that name the class: all before the last numbers, at least one."""
    count = len(words)
    while count > 1 and not math.isnan(parsing.to_number(words[count - 1])):
        count -= 1
    return count if math.isnan(parsing.to_number(words[0])) else 1


def _read_box(values, last_word, num_keypoint_values):
    """Corners; None if so many numbers are neither a box nor, without key points, a polygon."""
    if num_keypoint_values:
        num_more = {len(values) - 4, len(values) - 4 - num_keypoint_values} & {0, 1, 2}
        is_box = bool(num_more) and all(map(_may_follow, values[len(values) - min(num_more) :]))
        return _from_centre(values) if is_box else None
    values = _without_prediction(values)
    if len(values) == 4:
        return _from_centre(values)
    if len(values) < 6 or len(values) % 2 or _may_be_tracked(values, last_word):
        return None
    if not all(map(math.isfinite, values)):
        return labels.NOT_A_BOX
    xs = values[::2]
    ys = values[1::2]
    return (min(xs), min(ys), max(xs), max(ys))


def _from_centre(values):
    x, y, width, height = values[:4]
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _without_prediction(values):
    """The numbers of a box or polygon without the confidence and the track that follow them."""
    if len(values) == 5:
        return values[:4] if _may_follow(values[4]) else values
    is_track = len(values) > 5 and _is_index(values[-1]) and values[-1] > 1
    if is_track and all(value <= 1 for value in values[:-1]):
        values = values[:-1]
    if len(values) > 4 and len(values) % 2 and 0 <= values[-1] <= 1:
        values = values[:-1]
    return values


def _may_follow(value):
    """True if a number may be a confidence or the number of a track."""
    return 0 <= value <= 1 or _is_index(value)


def _is_index(value):
    return value >= 0 and value.is_integer()


def _may_be_tracked(values, last_word):
    """True if a triangle may as well be a box with a confidence and the track 1."""
    if len(values) != 6 or last_word != "1" or not 0 <= values[4] <= 1:
        return False
    xmin, ymin, xmax, ymax = _from_centre(values)
    return 0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1
