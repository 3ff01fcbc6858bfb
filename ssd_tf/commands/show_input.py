"""python -m ssd_tf.commands.show_input --config C --data DIR [--output PNG] [--default_boxes]"""

import pathlib
import sys
import time
from typing import NamedTuple

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline
from ssd_tf.config import load_config

USAGE = """
Show what training sees: images per second, the share of each stage, and a sheet of augmented images
with their boxes.

  python -m ssd_tf.commands.show_input --config C --data DIR [--split train] [--output input.png]
      [--default_boxes] [--set KEY=VALUE ...]
"""
FLAGS = commandline.new_flags()
flags.DEFINE_string("config", None, "Experiment file (YAML).", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "split", None, "Split to show; default: data.train_split of the config.", flag_values=FLAGS
)
flags.DEFINE_string("output", "input.png", "Sheet of images to write.", flag_values=FLAGS)
flags.DEFINE_integer(
    "sheet_images", 16, "Number of images on the sheet.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "timed_images",
    1024,
    "Number of images to time; 0: no timing.",
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
    "set", [], "KEY=VALUE that replaces a value of the config; repeatable.", flag_values=FLAGS
)
_WARMUP_BATCHES = 4  # threads start and buffers fill


class DrawnBoxes(NamedTuple):
    """The boxes to draw on an image, as `draw.draw_boxes` takes them."""

    boxes: np.ndarray
    labels: np.ndarray
    captions: list[str]
    hatched: np.ndarray


def main(argv=None):
    return commandline.run(_main, FLAGS, USAGE, ("config", "data"), argv)


def _main(values, positional):
    config = load_config(values.config, commandline.read_overrides(values, positional))
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline
    from ssd_tf.models import ssd

    split = values.split or config.data.train_split
    dataset_info = dataset_json.read_dataset(values.data)
    dataset_info.shards(split)
    default_boxes = ssd.build_model(config, len(dataset_info.classes)).default_boxes
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    with bad_records.explain_record_errors(values.data, split):
        if values.timed_images:
            batches = pipeline.build_dataset(
                config, values.data, split, default_boxes, skipped=skipped
            )
            rate = _time_batches(iter(batches), config.train.batch_size, values.timed_images)
            del batches
            _print_stages(config, values.data, split, default_boxes, skipped)
            print(f"{rate:.0f} images/s, batch {config.train.batch_size}")
        _, stream = pipeline.open_records(config, values.data, split, skipped=skipped)
        prepare = pipeline.make_prepare(
            config, default_boxes, len(dataset_info.classes), with_example=True
        )
        samples = stream.take(values.sheet_images).map(prepare)
        drawn_defaults = default_boxes if values.default_boxes else None
        sheet = _draw_sheet(
            samples, dataset_info.names, config.data.train_difficult, drawn_defaults
        )
    pathlib.Path(values.output).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(values.output)
    print(f"written: {values.output}")


def _time_batches(batches, batch_size, num_images):
    """Images per second of an iterator of batches, over at least num_images images."""
    for _ in range(_WARMUP_BATCHES):
        next(batches)
    num_batches = -(-num_images // batch_size)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return num_batches * batch_size / (time.perf_counter() - start)


def _print_stages(config, data, split, default_boxes, skipped):
    """Print the CPU time per image of each stage of the input pipeline."""
    from ssd_tf.data import timing

    times = timing.stage_times(config, data, split, default_boxes, skipped=skipped)
    total = sum(times.values())
    table = Table("stage", "ms", "share", title="CPU time per image")
    for name, milliseconds in times.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / total:.0%}")
    table.add_row("all", f"{total:.3f}", "")
    Console().print(table)


def _draw_sheet(samples, names, train_difficult, default_boxes):
    """A contact sheet of training images with their boxes; ignore regions are hatched.

    samples: dataset of (image, Targets, Example). default_boxes: None, or [A, 4]; those matched to
    each object are drawn too.
    """
    from ssd_tf import draw

    images = []
    for image, _, example in samples.as_numpy_iterator():
        is_ignored = example["crowd"] | (example["difficult"] & (not train_difficult))
        captions = [draw.name_of(label, names) for label in example["labels"]]
        drawn = DrawnBoxes(example["boxes"], example["labels"], captions, is_ignored)
        if default_boxes is not None:
            drawn = add_matched_boxes(drawn, default_boxes)
        images.append(draw.draw_boxes(image, *drawn))
    return draw.contact_sheet(images, num_columns=min(4, len(images)))


def add_matched_boxes(drawn: DrawnBoxes, default_boxes) -> DrawnBoxes:
    """Add the default boxes [A, 4] that are matched to each object that is not hatched.

    Each object and its default boxes get a colour of their own; captions give their number.
    """
    from ssd_tf.boxes import matching

    num_drawn = len(drawn.labels)
    objects = np.flatnonzero(~drawn.hatched)
    matched = matching.match(drawn.boxes[objects], default_boxes).numpy()
    positives = np.flatnonzero(matched >= 0)
    owners = objects[matched[positives]]
    counts = np.bincount(owners, minlength=num_drawn)
    captions = [f"{caption}: {n}" for caption, n in zip(drawn.captions, counts, strict=True)]
    return DrawnBoxes(
        boxes=np.concatenate([default_boxes[positives], drawn.boxes]),
        labels=np.concatenate([owners, np.arange(num_drawn)]) + 1,
        captions=[""] * len(positives) + captions,
        hatched=np.concatenate([np.zeros(len(positives), bool), drawn.hatched]),
    )


if __name__ == "__main__":
    sys.exit(main())
