"""The whole training input pipeline against decoding its JPEGs only.

Both take turns on the same records, with the same threads.

    python benchmarks/input_pipeline.py --data DIR [--config configs/ssd300_vgg16_coco.yaml]
        [--torchvision_python PYTHON]

Prints images/s and milliseconds of CPU per image of both, their ratio, and the pipeline stage by
stage. Compare the ratio of CPU time between runs: other processes on the machine slow both down,
but seldom by the same share at the same moment. If given the interpreter of an environment with
torch and torchvision, torchvision's SSD transforms run on the same images.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline, processor
from ssd_tf.config import load_config
from ssd_tf.data.records import decode_stored

FLAGS = commandline.new_flags()
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", "configs/ssd300_vgg16_coco.yaml", "Experiment file.", flag_values=FLAGS
)
flags.DEFINE_integer("batches", 24, "Batches per round.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rounds", 7, "Number of rounds; the first does not count.", lower_bound=2, flag_values=FLAGS
)
flags.DEFINE_string(
    "torchvision_python", None, "Python interpreter with torch and torchvision.", flag_values=FLAGS
)
flags.DEFINE_integer("workers", 2, "Worker processes of torchvision's loader.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "set", [], "KEY=VALUE that replaces a value of the config; repeatable.", flag_values=FLAGS
)


NUM_EXPORTED = 512  # images that torchvision's loader reads


class Rate(NamedTuple):
    """The speed of a pipeline."""

    images_per_second: float
    cpu_ms: float  # per image


def main():
    return commandline.run(_main, FLAGS, __doc__, ("data",))


def _main(values, positional):
    config = load_config(values.config, [*values.set, *positional])
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline, timing
    from ssd_tf.models import ssd

    data = values.data
    split = config.data.train_split
    network = ssd.build_model(config, 1)
    info = dataset_json.read_dataset(data)
    skipped = bad_records.scan_bad_records(info, split, config.data.on_bad_record)
    decoding = decode_only(config, data, split, skipped)
    whole = pipeline.build_dataset(
        config,
        data,
        split,
        network.default_boxes,
        skipped=skipped,
        level_of_box=network.level_of_box,
    )
    runs = {"decoding only": iter(decoding), "whole pipeline": iter(whole)}
    rates = measure(runs, config.train.batch_size, values.batches, values.rounds)
    runs.clear()
    console = Console()
    print_rates(console, rates)
    times = timing.stage_times(config, data, split, network, skipped=skipped)
    table = Table("stage", "CPU ms")
    for name, milliseconds in times.items():
        table.add_row(name, f"{milliseconds:.3f}")
    console.print(table)
    paths = info.shards(split)
    console.print(describe_torchvision(values, config, paths, skipped), soft_wrap=True)


def decode_only(config, data, split, skipped):
    """Endless batches of the sizes of decoded images: parses and decodes, copies no pixels."""
    import tensorflow as tf

    from ssd_tf.data import pipeline, records

    def decode(_, serialized):
        return tf.shape(decode_stored(records.parse_example(serialized)["image"]))

    _, stream = pipeline.open_records(config, data, split, skipped=skipped)
    decoded = stream.map(decode, processor.usable_cores(), deterministic=True).batch(
        config.train.batch_size
    )
    return decoded.prefetch(2).with_options(pipeline.dataset_options())


def measure(runs, batch_size, num_batches, rounds) -> dict[str, Rate]:
    """Return the median Rate of each of {name: iterator}.

    The runs take turns, each between two moments at which its buffers are equally full.
    """
    measured = {name: [] for name in runs}
    num_images = num_batches * batch_size
    for turn in range(rounds):
        for name, run in runs.items():
            for _ in range(6):  # what was prepared ahead while the others ran
                next(run)
            start = time.perf_counter()
            cpu_start = time.process_time()
            for _ in range(num_batches):
                next(run)
            seconds = time.perf_counter() - start
            cpu_seconds = time.process_time() - cpu_start
            if turn:
                measured[name].append(Rate(num_images / seconds, cpu_seconds / num_images * 1e3))
            time.sleep(0.5)  # until its buffers are full and its threads idle
    return {
        name: Rate(*map(statistics.median, zip(*rates, strict=True)))
        for name, rates in measured.items()
    }


def print_rates(console, rates):
    table = Table("", "images/s", "CPU ms per image")
    for name, rate in rates.items():
        table.add_row(name, f"{rate.images_per_second:.0f}", f"{rate.cpu_ms:.2f}")
    console.print(table)
    decoding, whole = rates.values()
    console.print(
        f"ratio: {whole.images_per_second / decoding.images_per_second:.2f} of images/s, "
        f"{decoding.cpu_ms / whole.cpu_ms:.2f} of CPU time"
    )


def describe_torchvision(values, config, paths, skipped) -> str:
    """Run torchvision's transforms on the first images and return their rate in one line."""
    if values.torchvision_python is None:
        return "torchvision: skipped, no --torchvision_python was given"
    with tempfile.TemporaryDirectory() as folder:
        export_images(pathlib.Path(folder), paths, skipped)
        script = pathlib.Path(__file__).with_name("torchvision_input.py")
        arguments = [folder, *config.model.input_hw, config.train.batch_size, values.workers]
        command = [values.torchvision_python, script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"torchvision: skipped, {values.torchvision_python} could not run it ({last})"
    return f"torchvision: {done.stdout.strip()}"


def export_images(folder, paths, skipped):
    """Write the first images of some shards as NAME.jpg and their objects as NAME.json."""
    import tensorflow as tf

    from ssd_tf.data import records, shards

    encoded = shards.records_in_file_order(paths, skipped).take(NUM_EXPORTED)
    for index, serialized in enumerate(encoded):
        example = records.parse_example(serialized)
        size = tf.cast([example["height"], example["width"]] * 2, tf.float32)
        objects = {
            "boxes": (example["boxes"] * size).numpy().tolist(),
            "labels": example["labels"].numpy().tolist(),
        }
        (folder / f"{index}.jpg").write_bytes(example["image"].numpy())
        (folder / f"{index}.json").write_text(json.dumps(objects))


if __name__ == "__main__":
    sys.exit(main())
