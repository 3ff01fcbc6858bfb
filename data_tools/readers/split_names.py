"""The names under which tools keep training, validation and test sets."""

import os
import re

_SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Words beside them in the name of a folder: of `test images`, but not of `crash test`.
_FILLERS = {"annotations", "data", "dataset", "images", "imgs", "labels", "set", "split", "xml"}


def split_of_folder(name) -> str | None:
    """The split that a folder of this name holds: `train`, `val`, `test` or None.

    Case, digits and words such as `images` do not matter: `train2017`, `Test_images`.
    """
    words = set(_words(name)) - _FILLERS
    return _SPLIT_OF.get(words.pop()) if len(words) == 1 else None


def split_of_path(path) -> str | None:
    """The split of a relative path: of its file's name, else of its innermost folder that has one.

    Any word of a file's name counts: `instances_val2017.json`.
    """
    folder, name = os.path.split(path)
    splits = {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}
    if len(splits) == 1:
        return splits.pop()
    return split_of_folders(folder)


def split_of_folders(path) -> str | None:
    """The split of a relative path of folders: of the innermost that has one."""
    splits = map(split_of_folder, reversed(path.split(os.sep)))
    return next(filter(None, splits), None)


def _words(name):
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]
