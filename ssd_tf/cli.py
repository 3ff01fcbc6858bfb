"""The `ssd` program: it names the commands and passes the arguments on to one of them."""

import difflib
import importlib
import sys
import typing

from ssd_tf import __version__, errors


class _Command(typing.NamedTuple):
    """module: its `main(argv)` returns the exit code. summary: the line in `ssd --help`."""

    module: str
    summary: str


COMMANDS = {
    "quickstart": _Command(
        "ssd_tf.commands.quickstart", "labelled images to a detector, all steps"
    ),
    "train": _Command("ssd_tf.commands.train", "train a detector, or resume a run"),
    "evaluate": _Command("ssd_tf.commands.evaluate", "measure AP, speed and errors; compare runs"),
    "detect": _Command("ssd_tf.commands.detect", "detect objects in images and videos"),
    "export": _Command("ssd_tf.commands.export", "write a SavedModel, TFLite files or a web page"),
    "serve": _Command("ssd_tf.commands.serve", "show a page to a phone or another computer"),
    "import": _Command("ssd_tf.commands.import_weights", "make a run of published weights"),
    "convert auto": _Command("data_tools.auto_to_tfrecord", "any known labels to TFRecords"),
    "convert coco": _Command("data_tools.coco_to_tfrecord", "COCO labels to TFRecords"),
    "convert voc": _Command("data_tools.voc_to_tfrecord", "Pascal VOC labels to TFRecords"),
    "convert yolo": _Command("data_tools.yolo_to_tfrecord", "YOLO labels to TFRecords"),
    "convert csv": _Command("data_tools.csv_to_tfrecord", "CSV tables of boxes to TFRecords"),
    "inspect": _Command("data_tools.inspect_tfrecord", "show statistics and images of a data set"),
    "fit-boxes": _Command("data_tools.fit_boxes", "fit default boxes to a data set"),
    "summary": _Command("ssd_tf.commands.summary", "show layers, default boxes and cost"),
    "shapes": _Command("data_tools.shapes", "draw a data set of coloured shapes"),
    "show-input": _Command("ssd_tf.commands.show_input", "show and time the training input"),
    "demo": _Command("ssd_tf.commands.demo", "run all of these on drawn shapes"),
}


def main(argv=None) -> int:
    """Run a command; argv begins with the program's own name. Returns the exit code."""
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        return errors.end_quietly()
    return code


def _run(argv):
    arguments = list(sys.argv if argv is None else argv)[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_describe_commands())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"ssd-tf {__version__}")
        return 0
    if arguments in (["convert", "-h"], ["convert", "--help"]):
        print(_describe_commands())
        return 0
    name, arguments = split_name(arguments)
    if name not in COMMANDS:
        print(f"error: {_explain_unknown(name)} (see ssd --help)", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[name].module)
    return module.main([f"ssd {name}", *arguments])


def split_name(arguments):
    """(the command's name, its arguments); `convert` takes the label format as a second word."""
    has_format = arguments[0] == "convert" and not "".join(arguments[1:2]).startswith("-")
    num_words = 2 if has_format else 1
    return " ".join(arguments[:num_words]), arguments[num_words:]


def _explain_unknown(name):
    if name == "convert":
        formats = [command.split()[1] for command in COMMANDS if command.startswith("convert ")]
        return f"ssd convert: expected a label format, one of {', '.join(formats)}"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown command {name!r}{hint}"


def _describe_commands():
    lines = [f"  {name:14}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ssd COMMAND [FLAGS]",
            "",
            *lines,
            "",
            "`ssd COMMAND --help` describes the flags of a command.",
        ]
    )
