"""The training input as images: how fast it comes, and a sheet of it with its boxes."""

import functools
import pathlib
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from ssd_tf import contact_sheet, draw
from ssd_tf.data import bad_records, dataset_json, pipeline, records, timing
from ssd_tf.models import ssd
from ssd_tf.user_files import show_name

_WARMUP_BATCHES = 4  # threads start and buffers fill


class DrawnBoxes(NamedTuple):
    """The boxes to draw on an image, as `draw.draw_boxes` takes them."""

    boxes: np.ndarray
    labels: np.ndarray
    captions: list[str]
    hatched: np.ndarray


def show_input(
    config, data, output, split=None, num_images=16, num_timed=1024, with_default_boxes=False
):
    """Write a sheet of num_images augmented images, after timing the input on num_timed images.

    split: default: data.train_split of the config. with_default_boxes: also draw those that are
    matched to each object. Raises FileNotFoundError or ValueError.
    """
    if pathlib.Path(output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output: expected an image file such as input.png, got {output}")
    split = split or config.data.train_split
    dataset_info = dataset_json.read_dataset(data)
    dataset_info.shards(split)
    network = ssd.build_model(config, len(dataset_info.classes))
    default_boxes = network.default_boxes
    level_of_box = network.level_of_box
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    with bad_records.explain_record_errors(data, split):
        if num_timed:
            batches = pipeline.build_dataset(
                config, data, split, default_boxes, skipped=skipped, level_of_box=level_of_box
            )
            rate = _time_batches(iter(batches), config.train.batch_size, num_timed)
            del batches
            _print_stages(config, data, split, network, skipped)
            print(f"{rate:.0f} images/s, batch {config.train.batch_size}")
        _, stream = pipeline.open_records(config, data, split, skipped=skipped)
        prepare = pipeline.make_prepare(
            config, default_boxes, len(dataset_info.classes), level_of_box, with_example=True
        )
        add_boxes = None
        if with_default_boxes:
            assign = pipeline.make_assign(config, default_boxes, level_of_box)
            add_boxes = functools.partial(
                add_matched_boxes, default_boxes=default_boxes, assign=assign
            )
        sheet = _draw_sheet(
            stream.take(num_images).map(prepare),
            dataset_info.names,
            config.data.train_difficult,
            add_boxes,
            f"{show_name(dataset_info.folder)}, {split}: images as training sees them",
        )
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output)
    print(f"written: {output}")


def _time_batches(batches, batch_size, num_images):
    """Images per second of an iterator of batches, over at least num_images images."""
    for _ in range(_WARMUP_BATCHES):
        next(batches)
    num_batches = -(-num_images // batch_size)
    start = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return num_batches * batch_size / (time.perf_counter() - start)


def _print_stages(config, data, split, network, skipped):
    """Print the CPU time per image of each stage of the input pipeline."""
    times = timing.stage_times(config, data, split, network, skipped=skipped)
    total = sum(times.values())
    table = Table("stage", "ms", "fraction", title="CPU time per image")
    for name, milliseconds in times.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{milliseconds / total:.0%}")
    table.add_row("all", f"{total:.3f}", "")
    Console().print(table)


def _draw_sheet(samples, names, train_difficult, add_boxes, title):
    """A contact sheet of training images with their boxes; ignore regions are hatched.

    samples: dataset of (image, Targets, Example). add_boxes: None, or what adds the default boxes
    of the objects to the DrawnBoxes of an image.
    """
    images = []
    image_names = []
    for image, _, example in samples.as_numpy_iterator():
        is_ignored = example["crowd"] | (example["difficult"] & (not train_difficult))
        captions = [draw.name_of(label, names) for label in example["labels"]]
        drawn = DrawnBoxes(example["boxes"], example["labels"], captions, is_ignored)
        if add_boxes is not None:
            drawn = add_boxes(drawn)
        images.append(draw.draw_boxes(contact_sheet.scale_to_row(image), *drawn))
        image_names.append(records.read_name(example))
    return contact_sheet.make_sheet(images, image_names, title)


def add_matched_boxes(drawn: DrawnBoxes, default_boxes, assign) -> DrawnBoxes:
    """Add the default boxes [A, 4] that `assign` gives to each object that is not hatched.

    assign: as `pipeline.make_assign` makes it, so that they are those of the training.
    Each object and its default boxes get a colour of their own; captions give their number.
    """
    num_drawn = len(drawn.labels)
    objects = np.flatnonzero(~drawn.hatched)
    matched = assign(tf.constant(drawn.boxes[objects])).numpy()
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
