"""overview.html: the drawn images of a folder on one page, with counts per class."""

import collections
import contextlib
import typing
import urllib.parse

import numpy as np
from PIL import Image

from ssd_tf.draw import color_of, draw_detections, jpeg_uri, name_of
from ssd_tf.pages import make_environment

NAME = "overview.html"
_MAX_IMAGES = 300  # a thumbnail has some 30 KB
_MAX_SIZE = (800, 260)  # width and height of a thumbnail, pixels


class _Entry(typing.NamedTuple):
    """counts: of each label. num_frames, source, aspect: None of an image, or of a video."""

    name: str
    counts: collections.Counter
    num_frames: int | None = None
    source: str | None = None
    aspect: float | None = None


class Overview:
    """The page of one call of `detect`."""

    def __init__(self, model, classes):
        """model: what the page calls it. classes: the name of each label, or None."""
        self._model = str(model)
        self._classes = classes
        self._entries = []
        self._num_thumbnails = 0

    def add_image(self, name, found):
        """Add a drawn image: its file name in the folder, and what was detected in it."""
        thumbnail = None
        if self._num_thumbnails < _MAX_IMAGES:
            self._num_thumbnails += 1
            small = Image.fromarray(found.image)
            small.thumbnail(_MAX_SIZE)
            drawn = draw_detections(np.asarray(small), found, self._classes, score=0)
            thumbnail = jpeg_uri(drawn)
        height, width = found.image.shape[:2]
        counts = collections.Counter(found.labels.tolist())
        self._entries.append(_Entry(name, counts, source=thumbnail, aspect=width / height))

    def add_video(self, name, labels, num_frames):
        """Add a drawn video: its file name, the labels detected in all frames together."""
        self._entries.append(_Entry(name, collections.Counter(labels), num_frames))

    @contextlib.contextmanager
    def written_to(self, folder):
        """A context whose end, however it comes, writes the page if anything was added.

        folder: an OutputFolder.
        """
        try:
            yield
        finally:
            if self._entries:
                folder.write_text(NAME, self._render())

    def _render(self):
        labels = sorted({label for entry in self._entries for label in entry.counts})
        images = [entry for entry in self._entries if entry.num_frames is None]
        content = {
            "model": self._model,
            "classes": [self._class_row(label) for label in labels],
            "images": [self._entry_row(entry) for entry in images],
            "videos": [self._entry_row(entry) for entry in self._entries if entry.num_frames],
            "num_empty": sum(not entry.counts for entry in images),
        }
        return make_environment().get_template(NAME).render(content)

    def _class_row(self, label):
        return {
            "name": name_of(label, self._classes),
            "color": color_of(label),
            "objects": sum(entry.counts[label] for entry in self._entries),
            "files": sum(label in entry.counts for entry in self._entries),
        }

    def _entry_row(self, entry):
        counts = [
            f"{count} {name_of(label, self._classes)}" for label, count in entry.counts.items()
        ]
        address = urllib.parse.quote(entry.name, errors="surrogateescape")
        found = ", ".join(counts) or "nothing"
        text = f"{entry.name}: {found}"
        return {**entry._asdict(), "address": address, "counts": found, "text": text}
