"""The images, folders, globs, videos and cameras that a user names; frames need OpenCV."""

import contextlib
import glob
import os
import pathlib
import re
import typing

import numpy as np
from absl import logging

from ssd_tf import pixels

_VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
_CAMERA = re.compile(r"camera(?::(\d+))?")
_DEFAULT_FPS = 25.0  # for cameras that do not state theirs


class Inputs(typing.NamedTuple):
    """images: paths. videos: paths of videos, and indices of cameras."""

    images: list[pathlib.Path]
    videos: list


def find_inputs(arguments) -> Inputs:
    """Find the files that arguments name: files, the images of folders, matches of globs; cameras.

    Logs how many files of a folder are skipped. Raises FileNotFoundError.
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
            "%s: images: %d; other files, skipped: %d, the first: %s",
            folder,
            len(images),
            len(others),
            others[0].name,
        )
    return images


def _add_file(path, found):
    (found.videos if path.suffix.lower() in _VIDEO_SUFFIXES else found.images).append(path)


class Video:
    """A video file, or the camera of this index; iterating gives its frames, uint8 [H, W, 3] RGB.

    rate: frames per second. num_frames: as the file states it, 0 if it does not.
    """

    def __init__(self, source):
        cv2 = _import_opencv()
        self.source = source
        is_camera = isinstance(source, int)
        self._capture = cv2.VideoCapture(source if is_camera else str(source))
        if not self._capture.isOpened():
            raise ValueError(f"OpenCV cannot open it as a {'camera' if is_camera else 'video'}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_FPS
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self):
        cv2 = _import_opencv()
        try:
            while True:
                is_frame, frame = self._capture.read()
                if not is_frame:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()


@contextlib.contextmanager
def write_video(path, rate):
    """A context with a function that appends a frame, uint8 [H, W, 3] RGB, to an .mp4 file.

    The file is created with the first frame, and is complete however the context ends.
    """
    cv2 = _import_opencv()
    path = pathlib.Path(path)
    writer = None

    def append(frame):
        nonlocal writer
        height, width = frame.shape[:2]
        if writer is None:
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), codec, rate, (width, height))
            if not writer.isOpened():
                path.unlink(missing_ok=True)
                raise OSError(f"{path} cannot be written as a video of {width} x {height}")
        writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))

    try:
        yield append
    finally:
        if writer is not None:
            writer.release()


def _import_opencv():
    # Its own messages do not name the file.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise ValueError("videos need OpenCV: pip install 'ssd-tf[video]'") from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
