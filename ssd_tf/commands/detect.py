"""python detect.py --model M --output DIR IMAGE|DIR|GLOB|VIDEO|camera ..."""

import collections
import itertools
import pathlib

import numpy as np
from absl import flags, logging

from ssd_tf import commandline, files
from ssd_tf.config import nearest
from ssd_tf.draw import draw_detections
from ssd_tf.inference.inputs import find_inputs
from ssd_tf.inference.label_writers import WRITERS, Labelled
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


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("model", "output"), argv)


def _main(values, positional):
    if not positional:
        raise flags.Error("name at least one image, folder, video or camera (see --help)")
    inputs = find_inputs(positional)
    output = pathlib.Path(values.output)
    _check_output(output, inputs)
    _check_formats(values.format, inputs)
    check_exists(values.model, "model")
    commandline.import_tensorflow()
    from ssd_tf.inference.detector import load_detector

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
    output.mkdir(parents=True, exist_ok=True)
    rows = _Run(detector, inputs, output, values).detect()
    files.write_json(output / "detections.json", rows)


def _check_output(output, inputs):
    paths = [path for path in (*inputs.images, *inputs.videos) if isinstance(path, pathlib.Path)]
    if output.resolve() in [path.resolve().parent for path in paths]:
        raise flags.Error(
            f"--output {output} holds input images, which drawn ones could replace; "
            "name another folder"
        )


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


class _Run:
    """One call of the command: its inputs, and what is found in them."""

    def __init__(self, detector, inputs, output, values):
        self._detector = detector
        self._inputs = inputs
        self._output = output
        self._values = values
        self._names = detector.classes or []
        self._rows = []
        self._labelled = []
        self._drawn = set()
        self._num_failed = 0
        self._last_id = 0

    def detect(self) -> list[dict]:
        """Draw everything; returns the rows of detections.json. Unreadable files are skipped.

        Raises ValueError when no file can be read.
        """
        num_inputs = len(self._inputs.images) + len(self._inputs.videos)
        with commandline.progress("detecting", num_inputs) as advance:
            for index, (path, image_id) in enumerate(self._image_ids(), start=1):
                self._last_id = max(self._last_id, image_id)
                self._detect_image(path, index, image_id)
                advance(None)
            for source in self._inputs.videos:
                self._detect_video(source)
                advance(None)
        if self._num_failed == num_inputs:
            raise ValueError(f"none of the {num_inputs} files could be read")
        self._write_labels()
        logging.info("%d files -> %s", num_inputs - self._num_failed, self._output)
        return self._rows

    def _image_ids(self):
        """Each image with its id: the number that is its name, if all names are numbers."""
        from ssd_tf.evaluation.coco_instances import image_ids

        ids = image_ids([path.stem for path in self._inputs.images])
        if self._inputs.videos:  # whose frames have no names
            ids = range(1, len(ids) + 1)
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

    def _detect_image(self, path, index, image_id):
        from ssd_tf.inference.image_files import read_image

        image = self._open(read_image, path)
        if image is None:
            return
        detections = self._select(self._detector(image))
        target = _free_path(self._output / f"{path.stem}.png", index, self._drawn)
        self._drawn.add(target)
        self._draw(detections).save(target)
        self._add_rows(detections, image_id, str(path))
        self._labelled.append(
            Labelled(path, image.shape[:2], detections.boxes, detections.labels, detections.scores)
        )
        logging.info("%s: %s", path, _count_classes(detections) or "nothing")

    def _detect_video(self, source):
        from ssd_tf.inference.video import Video

        video = self._open(Video, source)
        if video is None:
            return
        is_camera = isinstance(source, int)
        name = f"camera_{source}" if is_camera else source.stem
        target = _free_path(self._output / f"{name}.mp4", len(self._drawn) + 1, self._drawn)
        self._drawn.add(target)
        first_id = self._last_id + 1
        try:
            self._detect_frames(video, target)
        except KeyboardInterrupt:
            if not is_camera:
                raise
        num_frames = self._last_id + 1 - first_id
        if num_frames:
            logging.info("%s: %d frames -> %s", source, num_frames, target)
        else:
            logging.error("%s has no frames; skipped", source)
            self._num_failed += 1

    def _detect_frames(self, video, target):
        from ssd_tf.inference.video import write_video

        most_frames = None
        if isinstance(video.source, int) and self._values.seconds is not None:
            most_frames = round(self._values.seconds * video.rate)
        frames = itertools.islice(video, most_frames)
        with (
            write_video(target, video.rate) as append,
            commandline.progress(target.name, video.num_frames or None) as advance,
        ):
            for index, frame in enumerate(frames):
                detections = self._select(self._detector(frame))
                append(np.asarray(self._draw(detections)))
                self._last_id += 1
                self._add_rows(detections, self._last_id, str(video.source), frame=index)
                advance(None)

    def _select(self, detections):
        """The detections that --score, --classes and --max let through."""
        keep = detections.scores >= self._values.score
        if self._values.classes:
            keep &= np.array([name in self._values.classes for name in detections.names], bool)
        return detections.select(keep.nonzero()[0][: self._values.max])

    def _draw(self, detections):
        return draw_detections(detections.image, detections, self._names, score=0)

    def _add_rows(self, detections, image_id, file_name, **more):
        """Rows of detections.json for one image; category ids are the labels, from 1."""
        for row, name in zip(detections.to_coco(image_id), detections.names, strict=True):
            self._rows.append({**row, "file_name": file_name, "class": name, **more})

    def _write_labels(self):
        for name in self._values.format:
            WRITERS[name](self._output, self._labelled, self._names)


def _free_path(path, suffix, taken):
    """The path, with a suffix until no other image of this call has the same name."""
    while path in taken:
        path = path.with_stem(f"{path.stem}_{suffix}")
    return path


def _count_classes(detections):
    counts = collections.Counter(detections.names)
    return ", ".join(f"{count} {name}" for name, count in counts.items())
