"""python -m ssd_tf.commands.demo: the whole chain, command by command, on drawn shapes or on a folder of one's own."""

import itertools
import json
import pathlib
import subprocess
import sys
import time

from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline

USAGE = """
Draw a data set (or take --data), convert, train, evaluate, export and detect; every command is printed before it runs.

  python -m ssd_tf.commands.demo [--output demo] [--data DIR with images/ and annotations.json]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("output", "demo", "Folder for everything that is made.", flag_values=FLAGS)
flags.DEFINE_string(
    "data",
    None,
    "Folder with images/ and annotations.json (COCO); default: drawn shapes.",
    flag_values=FLAGS,
)
flags.DEFINE_string("config", "configs/shapes_plain.yaml", "Experiment file.", flag_values=FLAGS)
flags.DEFINE_integer(
    "images", 1400, "Number of pictures to draw.", lower_bound=20, flag_values=FLAGS
)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, argv=argv)


def _main(options, rest):
    if rest:
        raise flags.Error(f"unexpected {rest[0]!r} (see --help)")
    start = time.monotonic()
    out = pathlib.Path(options.output)
    source = pathlib.Path(options.data) if options.data else out / "shapes"
    records, run, exports = out / "tfrecords", out / "run", out / "exports"
    if not options.data:
        _call("-m", "data_tools.shapes", "--output", source, "--images", options.images)
    _call(
        *(
            "-m",
            "data_tools.coco_to_tfrecord",
            "--images",
            source / "images",
            "--annotations",
            source / "annotations.json",
        ),
        *("--output", records, "--val_fraction", 0.2),
    )
    settings = [part for pair in options.set for part in ("--set", pair)]
    _call("train.py", "--config", options.config, "--data", records, "--workdir", run, *settings)
    _call("export.py", "--workdir", run, "--output", exports, "--data", records, "--overwrite")
    models = {
        "Keras": run,
        "SavedModel": exports / "saved_model",
        "TFLite float32": exports / "model_float32.tflite",
    }
    folders = {name: out / "evaluation" / name.lower().replace(" ", "_") for name in models}
    for name, model in models.items():
        _call("evaluate.py", "--model", model, "--data", records, "--output", folders[name])
    with open(records / "val-images.tsv", encoding="utf-8", errors="surrogateescape") as file:
        held_out = [json.loads(f'"{line[17:-1]}"') for line in itertools.islice(file, 10)]
    pictures = [source / "images" / name for name in held_out]
    _call("detect.py", "--model", run, "--output", out / "detections", *pictures)
    _summary(folders, out, time.monotonic() - start)


def _call(*arguments):
    """Runs one command of ours; a failure ends the demonstration with its exit code shown."""
    arguments = [str(argument) for argument in arguments]
    shown = " ".join(arguments[:12]) + (
        f" ... ({len(arguments) - 12} more)" if len(arguments) > 12 else ""
    )
    print(f"\n$ python {shown}", flush=True)
    code = subprocess.run([sys.executable, *arguments]).returncode
    if code:
        raise RuntimeError(f"python {shown} ended with exit code {code}; see its message above")


def _summary(folders, out, seconds):
    table = Table(
        "model", "AP", "AP50", "ms per image", title="On the pictures that were not trained on"
    )
    for name, folder in folders.items():
        metrics = json.loads((folder / "metrics.json").read_text())
        coco, latency = metrics["coco"], metrics["latency_ms"]["per_image"]
        table.add_row(name, f"{coco['AP']:.3f}", f"{coco['AP50']:.3f}", f"{latency:.1f}")
    console = Console()
    console.print()
    console.print(table)
    console.print(f"drawn pictures:  {out / 'detections'}", highlight=False)
    console.print(f"exports:         {out / 'exports'}", highlight=False)
    console.print(
        f"training curves: .venv/bin/tensorboard --logdir {out / 'run' / 'tensorboard'}",
        highlight=False,
    )
    console.print(f"done in {int(seconds) // 60} min {int(seconds) % 60} s", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
