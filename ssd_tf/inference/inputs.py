"""What people name to be looked at: images, folders, globs, videos, cameras."""

import glob
import pathlib
import re
import typing

from absl import logging

from ssd_tf import pixels
from ssd_tf.inference.video import SUFFIXES

_CAMERA = re.compile(r"camera(?::(\d+))?")


class Inputs(typing.NamedTuple):
    """images: paths. videos: paths, and numbers of cameras."""

    images: list[pathlib.Path]
    videos: list


def find_inputs(arguments) -> Inputs:
    """Files, the image files of folders, what globs match, and cameras.

    A line of the log says what of a folder is passed over. Raises FileNotFoundError.
    """
    found = Inputs([], [])
    for argument in arguments:
        path = pathlib.Path(argument)
        camera = _CAMERA.fullmatch(argument)
        if path.is_dir():
            found.images.extend(_images_of(path))
        elif path.is_file():
            _add_file(path, found)
        elif camera:
            found.videos.append(int(camera.group(1) or 0))
        else:
            matches = sorted(map(pathlib.Path, glob.glob(argument, recursive=True)))
            if not matches:
                raise FileNotFoundError(f"no image, folder or video at {argument}")
            for match in matches:
                if match.is_file():
                    _add_file(match, found)
    if not found.images and not found.videos:
        suffixes = ", ".join(sorted(pixels.SUFFIXES))
        raise FileNotFoundError(f"no images ({suffixes}) in {', '.join(arguments)}")
    return found


def _images_of(folder):
    images = []
    others = []
    for path in sorted(folder.iterdir()):
        (images if path.suffix.lower() in pixels.SUFFIXES else others).append(path)
    if others:
        logging.info(
            "%s: %d images; passed over: %d others, the first %s",
            folder,
            len(images),
            len(others),
            others[0].name,
        )
    return images


def _add_file(path, found):
    (found.videos if path.suffix.lower() in SUFFIXES else found.images).append(path)
