"""`ssd detect`: objects in images and videos."""

import functools
import sys

from absl import flags

from ssd_tf import commandline, model_flags
from ssd_tf.inference.inputs import find_inputs
from ssd_tf.user_files import check_exists, check_output_folder, read_lines
from ssd_tf.weights import label_files

USAGE = """
Detect objects in images and videos; writes a drawn copy of each, and detections.json.
With --format also label files, as a starting point for labelling these images.

  ssd detect --model runs/NAME|SAVED_MODEL_DIR|FILE.tflite --output DIR [--score SCORE]
    [--max 100] [--classes a,b] [--labels FILE] [--format coco|yolo|voc|csv]
    [--list FILE] IMAGE|DIR|GLOB|VIDEO|camera[:NUMBER] ...

A camera is recorded until Ctrl-C, or for --seconds. Videos need pip install 'ssd-tf[video]'.
"""
FLAGS = commandline.new_flags()
_define_string = functools.partial(flags.DEFINE_string, flag_values=FLAGS)
_define_list = functools.partial(flags.DEFINE_list, flag_values=FLAGS)
_define_float = functools.partial(flags.DEFINE_float, flag_values=FLAGS)
_define_string("model", None, "Run folder, SavedModel folder or .tflite file.")
_define_string("output", None, "Folder for the drawn images and detections.json.")
_define_float(
    "score",
    None,
    "Minimum score to report; default: that of each class in the model's thresholds.json, or 0.5.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_integer(
    "max", 100, "Maximum number of detections per image.", lower_bound=1, flag_values=FLAGS
)
_define_list("classes", [], "Report these classes only.")
_define_string(
    "labels", None, "Class names for a model that has none: lines of text, .pbtxt or COCO .json."
)
_define_list("format", [], "Label files to write: coco, yolo, voc, csv.")
_define_string("list", None, "File with the path of an image per line, besides those named.")
_define_float("seconds", None, "How long to record a camera.", lower_bound=0)
model_flags.define_input_range(FLAGS)
model_flags.define_raw_weights(FLAGS)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("model", "output"), argv)


def _main(values, positional):
    if values.list is not None:
        check_exists(values.list, "list of images")
        positional = [*positional, *filter(None, read_lines(values.list))]
    if not positional:
        raise flags.Error("name at least one image, folder, video or camera (see --help)")
    inputs = find_inputs(positional)
    if values.seconds is not None and not any(isinstance(each, int) for each in inputs.videos):
        raise flags.Error("--seconds needs a camera; videos are read to their end")
    check_exists(values.model, "model")
    check_output_folder(values.output)
    if values.labels is not None:
        label_files.check_label_file(values.labels)
    input_range = model_flags.read_input_range(values)
    commandline.import_tensorflow()
    from ssd_tf.inference.detect import Selection, detect

    detect(
        values.model,
        inputs,
        values.output,
        Selection(values.score, values.max, values.classes),
        formats=values.format,
        seconds=values.seconds,
        labels=values.labels,
        input_range=input_range,
        raw_weights=values.raw_weights,
    )


if __name__ == "__main__":
    sys.exit(main())
