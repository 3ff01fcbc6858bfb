"""python detect.py --model M --output DIR IMAGE|DIR|GLOB|VIDEO|camera ..."""

import collections
import contextlib
import itertools
import json
import pathlib
import sys

import numpy as np
from absl import flags, logging

from ssd_tf import commandline, files
from ssd_tf.config import nearest
from ssd_tf.draw import JPEG_QUALITY, draw_detections, drawn_suffix
from ssd_tf.inference import label_writers
from ssd_tf.inference.inputs import find_inputs
from ssd_tf.inference.label_writers import WRITERS, Labelled
from ssd_tf.output_folder import OutputFolder
from ssd_tf.user_files import check_exists

USAGE = """
Detect objects in images and videos; writes a drawn copy of each, and detections.json.
With --format also label files, with which to begin labelling these images.

  python detect.py --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --output DIR [--score 0.5]
    [--max 100] [--classes a,b] [--labels FILE] [--format coco|yolo|voc|csv]
    IMAGE|DIR|GLOB|VIDEO|camera[:NUMBER] ...

A camera is recorded until Ctrl-C, or for --seconds. Videos need pip install 'ssd-tf[video]'.
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string(
    "model", None, "Run folder, SavedModel folder or .tflite file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "Folder for the drawn images and detections.json.", flag_values=FLAGS
)
flags.DEFINE_float(
    "score", 0.5, "Lowest score to report.", lower_bound=0, upper_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "max", 100, "Largest number of detections per image.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_list("classes", [], "Report these classes only.", flag_values=FLAGS)
flags.DEFINE_string(
    "labels",
    None,
    "Class names for a model that has none: lines of text, .pbtxt or COCO .json.",
    flag_values=FLAGS,
)
flags.DEFINE_list("format", [], "Label files to write: coco, yolo, voc, csv.", flag_values=FLAGS)
flags.DEFINE_float(
    "seconds", None, "How long to record a camera.", lower_bound=0, flag_values=FLAGS
)
commandline.define_input_range(FLAGS)
flags.DEFINE_bool(
    "raw_weights",
    False,
    "Use the weights of the last step, not the averaged ones (train.ema).",
    flag_values=FLAGS,
)

_ROWS = "detections.json"


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("model", "output"), argv)


def _main(values, positional):
    if not positional:
        raise flags.Error("name at least one image, folder, video or camera (see --help)")
    inputs = find_inputs(positional)
    drawn = _drawn_names(inputs)
    output = _check_output(values, inputs, drawn)
    check_exists(values.model, "model")
    commandline.import_tensorflow()
    from ssd_tf.inference.loading import load_detector

    detector = load_detector(
        values.model,
        values.labels,
        raw_weights=values.raw_weights,
        input_range=commandline.read_input_range(values),
    )
    names = detector.classes or []
    for name in values.classes:
        if name not in names:
            raise flags.Error(f"--classes: the model has no class {name!r}{nearest(name, names)}")
    if values.format and not names:
        raise flags.Error("--format: the model has no class names; give them with --labels FILE")
    if "yolo" in values.format:
        label_writers.check_classes(output, [path.stem for path in inputs.images], names)
    with (
        commandline.end_by_signals(),
        _Results(output, values.format, names) as results,
    ):
        _Run(detector, inputs, drawn, output, values, results).detect()


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


def _check_output(values, inputs, drawn) -> OutputFolder:
    """Check before any work that all files may be written."""
    paths = [path for path in (*inputs.images, *inputs.videos) if isinstance(path, pathlib.Path)]
    folder = pathlib.Path(values.output)
    if folder.resolve() in [path.resolve().parent for path in paths]:
        raise flags.Error(
            f"--output {folder} holds input images, which drawn ones could replace; "
            "name another folder"
        )
    _check_formats(values.format, inputs)
    stems = [path.stem for path in inputs.images]
    labels = [name for form in values.format for name in label_writers.file_names(form, stems)]
    output = OutputFolder(folder, filter(None, [*paths, values.model, values.labels]))
    output.check_absent("metrics.json", f"an evaluation, whose {_ROWS} would be replaced")
    output.check([_ROWS, *drawn, *labels])
    return output


def _check_formats(formats, inputs):
    for name in formats:
        if name not in WRITERS:
            raise flags.Error(f"--format: unknown format {name!r}{nearest(name, WRITERS)}")
    if formats and inputs.videos:
        raise flags.Error(f"--format labels image files; {inputs.videos[0]} is a video")
    stems = collections.Counter(path.stem for path in inputs.images)
    repeated = [stem for stem, count in stems.items() if count > 1]
    if formats and repeated:
        raise flags.Error(
            "--format: label files join to images by name, and several images are named "
            f"{repeated[0]}"
        )


class _Results:
    """detections.json and the label files, begun with the first image and written as images come.

    A context; what came before an error or an interruption is kept.
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
        """Rows of detections.json, and for an image file what its labels are made of."""
        if self._append_rows is None:
            self._begin()
        self._append_rows([json.dumps(row) for row in rows])
        for add in self._add_labels:
            add(labelled)

    def _begin(self):
        enter = self._stack.enter_context
        self._add_labels = [
            enter(WRITERS[name](self._output, self._names)) for name in self._formats
        ]
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
    """One call of the command: its inputs, and what is found in them."""

    def __init__(self, detector, inputs, drawn, output, values, results):
        self._detector = detector
        self._inputs = inputs
        self._drawn = iter(drawn)
        self._output = output
        self._values = values
        self._results = results
        self._names = detector.classes or []
        self._num_failed = 0
        self._last_id = 0

    def detect(self):
        """Detect in all inputs and write what is found; unreadable files are skipped.

        Raises ValueError when no file can be read.
        """
        num_inputs = len(self._inputs.images) + len(self._inputs.videos)
        with commandline.progress("detecting", num_inputs) as advance:
            for path, image_id in self._image_ids():
                self._last_id = max(self._last_id, image_id)
                self._detect_image(path, next(self._drawn), image_id)
                advance(None)
            for source in self._inputs.videos:
                self._detect_video(source, next(self._drawn))
                advance(None)
        if self._num_failed == num_inputs:
            raise ValueError(f"none of the {num_inputs} files could be read")
        skipped = f"; {self._num_failed} skipped" if self._num_failed else ""
        logging.info("%d files -> %s%s", num_inputs - self._num_failed, self._output.path, skipped)

    def _image_ids(self):
        """Each image with its id: the number that is its name, if all names are numbers."""
        from ssd_tf.inference.detections import image_ids

        ids = image_ids([path.stem for path in self._inputs.images])
        return zip(self._inputs.images, ids, strict=True)

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
        detections = self._select(self._detector(image))
        labelled = Labelled(
            path, image.shape[:2], detections.boxes, detections.labels, detections.scores
        )
        self._results.add(self._rows(detections, image_id, str(path)), labelled)
        drawn = self._draw(detections)
        self._output.write(drawn_name, lambda target: drawn.save(target, quality=JPEG_QUALITY))
        logging.info("%s: %s", path, _count_classes(detections) or "nothing")

    def _detect_video(self, source, drawn_name):
        from ssd_tf.inference.video import Video

        video = self._open(Video, source)
        if video is None:
            return
        first_id = self._last_id + 1
        try:
            with self._output.grow(drawn_name) as path:
                self._detect_frames(video, path, drawn_name)
        except KeyboardInterrupt:
            if not isinstance(source, int):
                raise
        num_frames = self._last_id + 1 - first_id
        if num_frames:
            logging.info("%s: %d frames -> %s", source, num_frames, self._output.path / drawn_name)
        else:
            logging.error("%s has no frames; skipped", source)
            self._num_failed += 1

    def _detect_frames(self, video, path, drawn_name):
        from ssd_tf.inference.video import write_video

        most_frames = None
        if isinstance(video.source, int) and self._values.seconds is not None:
            most_frames = round(self._values.seconds * video.rate)
        frames = itertools.islice(video, most_frames)
        with (
            write_video(path, video.rate) as append,
            commandline.progress(drawn_name, video.num_frames or None) as advance,
        ):
            for index, frame in enumerate(frames):
                detections = self._select(self._detector(frame))
                append(np.asarray(self._draw(detections)))
                self._last_id += 1
                rows = self._rows(detections, self._last_id, str(video.source), frame=index)
                self._results.add(rows)
                advance(None)

    def _select(self, detections):
        """The detections that --score, --classes and --max let through."""
        keep = detections.scores >= self._values.score
        if self._values.classes:
            keep &= np.array([name in self._values.classes for name in detections.names], bool)
        return detections.select(keep.nonzero()[0][: self._values.max])

    def _draw(self, detections):
        return draw_detections(detections.image, detections, self._names, score=0)

    def _rows(self, detections, image_id, file_name, **more):
        """Rows of detections.json for one image; category ids are the labels, from 1."""
        return [
            {**row, "file_name": file_name, "class": name, **more}
            for row, name in zip(detections.to_coco(image_id), detections.names, strict=True)
        ]


def _count_classes(detections):
    counts = collections.Counter(detections.names)
    return ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
