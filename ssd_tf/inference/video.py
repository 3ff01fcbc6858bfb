"""Frames of videos and cameras, and videos of drawn frames. Needs the extra `video` (OpenCV)."""

import contextlib
import os
import pathlib

import numpy as np

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
# Where a camera does not say.
_DEFAULT_RATE = 25.0


class Video:
    """A video file, or the camera of this number; iterating gives its frames, uint8 [H, W, 3] RGB.

    rate: frames per second. num_frames: what the file says, 0 if it does not.
    """

    def __init__(self, source):
        cv2 = _import_opencv()
        self.source = source
        is_camera = isinstance(source, int)
        self._capture = cv2.VideoCapture(source if is_camera else str(source))
        if not self._capture.isOpened():
            raise ValueError("no such camera" if is_camera else "OpenCV cannot open it as a video")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_RATE
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

    The file begins with the first frame, and can be played however the context ends.
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
    # Its own messages do not say which file they are about.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError:
        raise ValueError("videos need OpenCV: pip install 'ssd-tf[video]'") from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
