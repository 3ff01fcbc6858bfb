"""Detect objects in files and videos: drawn copies, detections.json and label files in a folder."""

import collections
import contextlib
import itertools
import json
import pathlib
import typing

import numpy as np
from absl import logging

from ssd_tf import files, long_tasks
from ssd_tf.config import nearest
from ssd_tf.draw import JPEG_QUALITY, draw_detections, drawn_suffix
from ssd_tf.errors import ConfigError
from ssd_tf.inference import label_writers
from ssd_tf.inference.detections import image_ids
from ssd_tf.inference.inputs import Video, write_video
from ssd_tf.inference.label_writers import WRITERS, Labelled
from ssd_tf.inference.loading import load_detector
from ssd_tf.inference.overview import NAME as OVERVIEW
from ssd_tf.inference.overview import Overview
from ssd_tf.inference.thresholds import DEFAULT_SCORE, THRESHOLDS_FILE
from ssd_tf.output_folder import OutputFolder

_ROWS = "detections.json"


class Selection(typing.NamedTuple):
    """The detections of an image to report: the best `maximum` of these classes from `score` on.

    score: None: from the model's threshold of each class on. classes: their names; without any, all
    classes.
    """

    score: float | None = None
    maximum: int = 100
    classes: typing.Sequence = ()

    def apply(self, detections):
        """Detections -> those that are reported."""
        shown = detections.confident() if self.score is None else detections.above(self.score)
        if self.classes:
            shown = shown.select(np.array([name in self.classes for name in shown.names], bool))
        return shown.select(np.arange(len(shown))[: self.maximum])


def detect(
    model,
    inputs,
    output,
    selection,
    *,
    formats=(),
    seconds=None,
    labels=None,
    input_range=None,
    raw_weights=False,
):
    """Detect objects in inputs, and write what was found to the folder `output`.

    inputs: as `find_inputs` returns them. selection: a Selection. formats: keys of WRITERS, the
    label files to write. seconds: how long to record a camera, or None. model, labels, input_range,
    raw_weights: as `load_detector` takes them.
    Raises OSError, ConfigError or ValueError. Files that cannot be read are logged and skipped; it
    is an error if all are.
    """
    drawn = _drawn_names(inputs)
    folder = _check_output(output, inputs, drawn, formats, filter(None, [model, labels]))
    detector = load_detector(model, labels, raw_weights=raw_weights, input_range=input_range)
    names = detector.classes or []
    for name in selection.classes:
        if name not in names:
            raise ConfigError(f"--classes: the model has no class {name!r}{nearest(name, names)}")
    if formats and not names:
        raise ConfigError("--format: the model has no class names; give them with --labels FILE")
    if "yolo" in formats:
        label_writers.check_classes(folder, [path.stem for path in inputs.images], names)
    if selection.score is None:
        logging.info("%s", _describe_scores(detector, selection.classes))
    overview = Overview(model, detector.classes)
    with (
        long_tasks.end_by_signals(),
        overview.written_to(folder),
        _Results(folder, formats, names) as results,
    ):
        _Run(detector, folder, selection, seconds, results, overview).detect(inputs, drawn)


def _describe_scores(detector, chosen):
    """The scores from which on detections of the chosen classes are reported, or of all classes."""
    thresholds = detector.thresholds
    if thresholds is None:
        return f"minimum score {DEFAULT_SCORE:g}; ssd evaluate chooses one for each class"
    scores = thresholds.of(chosen or detector.classes or [None])
    shown = " to ".join(f"{score:g}" for score in sorted({min(scores), max(scores)}))
    split = f" on split {thresholds.split}" if thresholds.split else ""
    return f"minimum score {shown}, from {THRESHOLDS_FILE} ({thresholds.rule}{split})"


def _drawn_names(inputs):
    """The file name of each drawn image and video, in the order of the inputs."""
    names = [path.stem + drawn_suffix(path) for path in inputs.images]
    for source in inputs.videos:
        stem = f"camera_{source}" if isinstance(source, int) else source.stem
        names.append(f"{stem}.mp4")
    taken = {}
    for index, name in enumerate(names, start=1):
        taken[_free_name(name, index, taken)] = None
    return list(taken)


def _free_name(name, suffix, taken):
    """The name, with a suffix until no other image of this call has the same one."""
    path = pathlib.Path(name)
    while str(path) in taken:
        path = path.with_stem(f"{path.stem}_{suffix}")
    return str(path)


def _check_output(output, inputs, drawn, formats, more_inputs) -> OutputFolder:
    """Check before any work that all files may be written."""
    paths = [path for path in (*inputs.images, *inputs.videos) if isinstance(path, pathlib.Path)]
    folder = pathlib.Path(output)
    if folder.resolve() in [path.resolve().parent for path in paths]:
        raise ConfigError(
            f"--output {folder} holds input images, which drawn ones could replace; "
            "name another folder"
        )
    _check_formats(formats, inputs)
    stems = [path.stem for path in inputs.images]
    label_files = [name for each in formats for name in label_writers.file_names(each, stems)]
    checked = OutputFolder(folder, [*paths, *more_inputs])
    checked.check_absent("metrics.json", f"an evaluation, whose {_ROWS} would be replaced")
    checked.check([_ROWS, OVERVIEW, *drawn, *label_files])
    return checked


def _check_formats(formats, inputs):
    for name in formats:
        if name not in WRITERS:
            raise ConfigError(f"--format: unknown format {name!r}{nearest(name, WRITERS)}")
    if formats and inputs.videos:
        raise ConfigError(f"--format labels image files; {inputs.videos[0]} is a video")
    stems = collections.Counter(path.stem for path in inputs.images)
    repeated = [stem for stem, count in stems.items() if count > 1]
    if formats and repeated:
        raise ConfigError(
            "--format: label files join to images by name, and several images are named "
            f"{repeated[0]}"
        )


class _Results:
    """detections.json and the label files, begun with the first image and written as images come.

    A context; what was written before an error or an interruption is kept.
    """

    def __init__(self, output, formats, names):
        self._output = output
        self._formats = formats
        self._names = names
        self._stack = contextlib.ExitStack()
        self._append_rows = None
        self._add_labels = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def add(self, rows, labelled=None):
        """Add the rows of an image or a frame; labelled: a Labelled of an image, for its labels."""
        if self._append_rows is None:
            self._begin()
        self._append_rows([json.dumps(row) for row in rows])
        for add in self._add_labels:
            add(labelled)

    def _begin(self):
        enter = self._stack.enter_context
        for name in self._formats:
            self._add_labels.append(enter(WRITERS[name](self._output, self._names)))
        self._append_rows = enter(_write_rows(self._output))


@contextlib.contextmanager
def _write_rows(output):
    """A context with a function that appends JSON texts to detections.json."""
    with (
        output.grow(_ROWS) as path,
        open(path, "w", encoding="utf-8") as file,
        files.json_list(file) as append,
    ):
        yield append


class _Run:
    """One call of `detect`: the detector, and where its results go."""

    def __init__(self, detector, folder, selection, seconds, results, overview):
        self._detector = detector
        self._folder = folder
        self._selection = selection
        self._seconds = seconds
        self._results = results
        self._overview = overview
        self._num_failed = 0
        self._last_id = 0

    def detect(self, inputs, drawn):
        """Detect in all inputs; drawn: the names of their drawn copies.

        Raises ValueError when no file can be read.
        """
        num_inputs = len(inputs.images) + len(inputs.videos)
        ids = image_ids([path.stem for path in inputs.images])
        num_images = len(inputs.images)
        with long_tasks.progress("detecting", num_inputs) as advance:
            for path, image_id, name in zip(inputs.images, ids, drawn[:num_images], strict=True):
                self._last_id = max(self._last_id, image_id)
                self._detect_image(path, name, image_id)
                advance(None)
            for source, name in zip(inputs.videos, drawn[num_images:], strict=True):
                self._detect_video(source, name)
                advance(None)
        if self._num_failed == num_inputs:
            raise ValueError(f"none of the inputs could be read: {num_inputs}")
        skipped = f"; skipped: {self._num_failed}" if self._num_failed else ""
        num_done = num_inputs - self._num_failed
        logging.info("files: %d -> %s%s", num_done, self._folder.path / OVERVIEW, skipped)

    def _open(self, read, source):
        """read(source), or None, with the reason logged, when it cannot be read."""
        try:
            return read(source)
        except (OSError, ValueError) as error:
            name = f"camera:{source}" if isinstance(source, int) else source
            logging.error("%s cannot be read (%s); skipped", name, error)
            self._num_failed += 1
            return None

    def _detect_image(self, path, drawn_name, image_id):
        image = self._open(self._detector.read_image, path)
        if image is None:
            return
        found = self._selection.apply(self._detector(image))
        labelled = Labelled(path, image.shape[:2], found.boxes, found.labels, found.scores)
        self._results.add(_rows(found, image_id, str(path)), labelled)
        drawn = draw_detections(found.image, found, found.classes, score=0)
        self._folder.write(drawn_name, lambda target: drawn.save(target, quality=JPEG_QUALITY))
        self._overview.add_image(drawn_name, found)
        counts = collections.Counter(found.names)
        shown = ", ".join(f"{count} {name}" for name, count in counts.items())
        logging.info("%s: %s", path, shown or "nothing")

    def _detect_video(self, source, drawn_name):
        video = self._open(Video, source)
        if video is None:
            return
        first_id = self._last_id + 1
        labels = []
        try:
            with self._folder.grow(drawn_name) as path:
                for found in self._detect_frames(video, path, drawn_name):
                    labels += found.labels.tolist()
        except KeyboardInterrupt:
            if not isinstance(source, int):
                raise
        num_frames = self._last_id + 1 - first_id
        if num_frames:
            self._overview.add_video(drawn_name, labels, num_frames)
            logging.info("%s: frames: %d -> %s", source, num_frames, self._folder.path / drawn_name)
        else:
            logging.error("%s has no frames; skipped", source)
            self._num_failed += 1

    def _detect_frames(self, video, path, drawn_name):
        """Yield the detections of each frame, after writing them."""
        max_frames = None
        if isinstance(video.source, int) and self._seconds is not None:
            max_frames = round(self._seconds * video.rate)
        with (
            write_video(path, video.rate) as append,
            long_tasks.progress(drawn_name, video.num_frames or None) as advance,
        ):
            for index, frame in enumerate(itertools.islice(video, max_frames)):
                found = self._selection.apply(self._detector(frame))
                append(np.asarray(draw_detections(found.image, found, found.classes, score=0)))
                self._last_id += 1
                self._results.add(_rows(found, self._last_id, str(video.source), frame=index))
                advance(None)
                yield found


def _rows(detections, image_id, file_name, **more):
    """Rows of detections.json for one image; category ids are the labels, from 1."""
    return [
        {**row, "file_name": file_name, "class": name, **more}
        for row, name in zip(detections.to_coco(image_id), detections.names, strict=True)
    ]
