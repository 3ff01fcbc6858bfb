"""python -m ssd_tf.commands.show_input --config C --data DIR [--output PNG] [--default_boxes]"""

import pathlib
import sys
import time

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline
from ssd_tf.config import load_config

USAGE = """
Show what a training run is fed: pictures a second, the share of each stage, and a sheet of augmented pictures with boxes.

  python -m ssd_tf.commands.show_input --config C --data DIR [--split train] [--output input.png] [--default_boxes]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to show; default: data.train_split of the config.", flag_values=FLAGS
)
flags.DEFINE_string("output", "input.png", "Sheet of pictures to write.", flag_values=FLAGS)
flags.DEFINE_integer("pictures", 16, "Pictures on the sheet.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "images",
    1024,
    "Pictures to measure with; 0 measures nothing.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "default_boxes",
    False,
    "Draw the default boxes matched to each object, in its colour.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data"), argv)


def _main(options, rest):
    config = load_config(options.config, [*options.set, *rest])
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json
    from ssd_tf.models import ssd

    split = options.split or config.data.train_split
    info = dataset_json.read_dataset(options.data)
    info.shards(split)
    default_boxes = ssd.build_model(config, len(info.classes)).default_boxes
    skipped = bad_records.scan_bad_records(info, split, config.data.on_bad_record)
    with bad_records.explain_record_errors(options.data, split):
        if options.images:
            _measure(config, options.data, split, default_boxes, options.images, skipped)
        sheet = _sheet(
            config,
            options.data,
            split,
            default_boxes,
            options.pictures,
            options.default_boxes,
            skipped,
        )
    pathlib.Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.output)
    print(f"written: {options.output}")


def _measure(config, data, split, default_boxes, images, skipped):
    """Prints the rate of the whole pipeline and, of one core's time, the share of each stage."""
    from ssd_tf.data import pipeline, stages

    batches = iter(pipeline.build_dataset(config, data, split, default_boxes, skipped=skipped))
    number = -(-images // config.train.batch_size)
    for _ in range(4):
        next(batches)  # threads start, buffers fill
    start = time.perf_counter()
    for _ in range(number):
        next(batches)
    rate = number * config.train.batch_size / (time.perf_counter() - start)
    del batches
    times = stages.stage_times(config, data, split, default_boxes, skipped=skipped)
    total = sum(times.values())
    table = Table("stage", "ms", "share")
    for name, milliseconds in times.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / total:.0%}")
    table.add_row("all", f"{total:.3f}", "")
    console = Console()
    console.print(table)
    console.print(
        f"{rate:.0f} images/s, batch {config.train.batch_size}; the table: milliseconds of one core a picture"
    )


def _sheet(config, data, split, default_boxes, number, matched, skipped):
    """The first pictures of the training run, each with its boxes (ignore regions hatched)."""
    from ssd_tf import draw
    from ssd_tf.data import pipeline

    info, stream = pipeline.open_records(config, data, split, skipped=skipped)
    prepare = pipeline.make_prepare(config, default_boxes, len(info.classes), with_example=True)
    pictures = []
    for image, _, example in stream.take(number).map(prepare).as_numpy_iterator():
        ignored = example["crowd"] | (example["difficult"] & (not config.data.train_difficult))
        captions = [draw.name_of(label, info.names) for label in example["labels"]]
        rows = (example["boxes"], example["labels"], captions, ignored)
        if matched:
            rows = _with_default_boxes(*rows, default_boxes)
        pictures.append(draw.draw_boxes(image, *rows))
    return draw.contact_sheet(pictures, columns=min(4, number))


def _with_default_boxes(boxes, labels, captions, ignored, default_boxes):
    """Rows to draw: under each object, in a colour of its own, the default boxes that answer for it."""
    from ssd_tf.boxes import matching

    objects = np.flatnonzero(~ignored)
    owner = matching.match(boxes[objects], default_boxes).numpy()
    positive = np.flatnonzero(owner >= 0)
    return (
        np.concatenate([default_boxes[positive], boxes]),
        np.concatenate([objects[owner[positive]], np.arange(len(labels))]) + 1,
        [""] * len(positive)
        + [
            f"{caption}: {np.sum(objects[owner[positive]] == k)}"
            for k, caption in enumerate(captions)
        ],
        np.concatenate([np.zeros(len(positive), bool), ignored]),
    )


if __name__ == "__main__":
    sys.exit(main())
