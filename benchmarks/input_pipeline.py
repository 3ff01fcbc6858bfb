"""The whole training input pipeline against decoding its JPEGs alone: same records, same threads, taken in turn.

    python benchmarks/input_pipeline.py --data DIR [--config configs/ssd300_vgg16_coco.yaml] [--torchvision_python PYTHON]

Prints images/s and milliseconds of CPU a picture of both, their ratio, and the pipeline stage by stage. The ratio of CPU time
is the one to compare between runs: others on the machine slow both down, but seldom by the same share at the same moment.
With the interpreter of an environment that has torch and torchvision, torchvision's SSD transforms run on the same pictures.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags
from rich.console import Console
from rich.table import Table

from ssd_tf import commandline
from ssd_tf.config import load_config
from ssd_tf.data.images import decode_image

FLAGS = commandline.new_flags()
flags.DEFINE_string("data", None, "Folder of TFRecords with dataset.json.", flag_values=FLAGS)
flags.DEFINE_string(
    "config", "configs/ssd300_vgg16_coco.yaml", "Experiment file.", flag_values=FLAGS
)
flags.DEFINE_integer("batches", 24, "Batches of a round.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rounds", 7, "Rounds, of which the first does not count.", lower_bound=2, flag_values=FLAGS
)
flags.DEFINE_string(
    "torchvision_python", None, "Python that has torch and torchvision.", flag_values=FLAGS
)
flags.DEFINE_integer("workers", 2, "Worker processes of torchvision's loader.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "set", [], "Replace a value of the config; may be repeated.", flag_values=FLAGS
)


def main():
    return commandline.run(_main, FLAGS, __doc__, ("data",))


def _main(options, rest):
    config = load_config(options.config, [*options.set, *rest])
    commandline.import_tensorflow()
    from ssd_tf.data import bad_records, dataset_json, pipeline, stages
    from ssd_tf.models import ssd

    default_boxes = ssd.build_model(config, 1).default_boxes
    info, split = dataset_json.read_dataset(options.data), config.data.train_split
    skipped = bad_records.scan_bad_records(info, split, config.data.on_bad_record)
    runs = {
        "decoding alone": iter(decoding(config, options.data, split, skipped)),
        "whole pipeline": iter(
            pipeline.build_dataset(config, options.data, split, default_boxes, skipped=skipped)
        ),
    }
    results = measure(runs, config.train.batch_size, options.batches, options.rounds)
    table = Table("", "images/s", "CPU ms a picture")
    for name, (rate, milliseconds) in results.items():
        table.add_row(name, f"{rate:.0f}", f"{milliseconds:.2f}")
    alone, whole = results.values()
    console = Console()
    console.print(table)
    console.print(
        f"ratio: {whole[0] / alone[0]:.2f} of images/s, {alone[1] / whole[1]:.2f} of CPU time"
    )
    runs.clear()
    stage_table = Table("stage", "CPU ms")
    for name, milliseconds in stages.stage_times(
        config, options.data, split, default_boxes, skipped=skipped
    ).items():
        stage_table.add_row(name, f"{milliseconds:.3f}")
    console.print(stage_table)
    console.print(torchvision_rate(options, config, info, split, skipped), soft_wrap=True)


def decoding(config, data, split, skipped):
    """Endless batches of the sizes of decoded pictures: parsing and decoding, and no pixel copied."""
    import tensorflow as tf

    from ssd_tf.data import pipeline, records

    def decode(_, serialized):
        return tf.shape(decode_image(records.parse_example(serialized)["image"]))

    _, stream = pipeline.open_records(config, data, split, skipped=skipped)
    decoded = stream.map(decode, pipeline.usable_cores(), deterministic=True).batch(
        config.train.batch_size
    )
    return decoded.prefetch(2).with_options(pipeline.options())


def measure(runs, batch, batches, rounds):
    """name -> medians of images/s and CPU ms a picture; the runs take turns, each between two equally full buffers."""
    found = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            for _ in range(6):  # what was made ahead while the others worked
                next(run)
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(batches):
                next(run)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            if turn:
                found[name].append((batches * batch / seconds, cpu / (batches * batch) * 1e3))
            time.sleep(0.5)  # until its buffers are full and its threads rest
    return {
        name: tuple(map(statistics.median, zip(*values, strict=True)))
        for name, values in found.items()
    }


def torchvision_rate(options, config, info, split, skipped):
    if options.torchvision_python is None:
        return "torchvision: skipped, no --torchvision_python was given"
    import tensorflow as tf

    from ssd_tf.data import records, shards

    with tempfile.TemporaryDirectory() as folder:
        for index, serialized in enumerate(
            shards.in_file_order(info.shards(split), skipped).take(512)
        ):
            example = records.parse_example(serialized)
            size = [example["height"], example["width"]] * 2
            row = {
                "boxes": (example["boxes"] * tf.cast(size, tf.float32)).numpy().tolist(),
                "labels": example["labels"].numpy().tolist(),
            }
            pathlib.Path(folder, f"{index}.jpg").write_bytes(example["image"].numpy())
            pathlib.Path(folder, f"{index}.json").write_text(json.dumps(row))
        script = pathlib.Path(__file__).with_name("torchvision_input.py")
        arguments = [folder, *config.model.input_hw, config.train.batch_size, options.workers]
        done = subprocess.run(
            [options.torchvision_python, script, *map(str, arguments)],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"torchvision: skipped, {options.torchvision_python} could not run it ({last})"
    return f"torchvision: {done.stdout.strip()}"


if __name__ == "__main__":
    sys.exit(main())
