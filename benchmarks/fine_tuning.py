r"""AP after fine-tuning for the same time from three starts, by number of images.

    python benchmarks/fine_tuning.py --data bccd_records --detector runs/pedestrian \
      --output docs/fine_tuning.csv --figure docs/fine_tuning.png

--data needs the splits train and test. Starts: MobileNet v1 0.25 from scratch and with ImageNet
weights (SSD_TF_WEIGHTS names their folder), both by configs/finetune_imagenet.yaml, and a detector,
by configs/finetune.yaml. Every run trains for --seconds, turned into steps by the speed that was
measured before. Each line of the output is one run; those that it has already are not repeated.
Seconds are of training alone, on a machine that does nothing else.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import typing

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
COLUMNS = ("start", "images", "seed", "steps", "AP", "AP50")


class Start(typing.NamedTuple):
    """A config with its changes; images_per_second: measured on two cores."""

    label: str
    config: str
    changes: tuple[str, ...]
    images_per_second: float


_SMALL = ("model.backbone.name=mobilenet", "model.backbone.alpha=0.25")
# The recipe's rate is for runs that are ten times as long.
_FAST = ("train.learning_rate=0.03",)
_SCRATCH = ("init_from=null", "model.backbone.frozen_stages=0")
STARTS = {
    "from scratch": Start("MobileNet v1 0.25", "finetune_imagenet.yaml", (*_SMALL, *_SCRATCH), 105),
    "ImageNet": Start("MobileNet v1 0.25", "finetune_imagenet.yaml", _SMALL, 110),
    "detector": Start("SSDLite MobileNet v2", "finetune.yaml", _FAST, 28),
}


def main():
    arguments = parse_arguments()
    rows = read_rows(arguments.output)
    done = {(row["start"], int(row["images"]), int(row["seed"])) for row in rows}
    for seed in arguments.seeds:
        for num_images in arguments.images:
            for name, start in STARTS.items():
                if (name, num_images, seed) not in done:
                    row = run(name, start, num_images, seed, arguments)
                    append_row(arguments.output, row)
                    print(row, flush=True)
    rows = read_rows(arguments.output)
    print_table(rows, arguments.images)
    if arguments.figure:
        draw_curves(rows, arguments.images, arguments.figure)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of TFRecords")
    parser.add_argument("--detector", required=True, help="run folder to start from")
    parser.add_argument("--output", required=True, help="CSV file")
    parser.add_argument("--figure", help="PNG file to draw the curves into")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--images", type=int, nargs="+", default=[20, 50, 100, 205])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


def run(name, start, num_images, seed, arguments):
    """Train on some images and evaluate on the test split; returns a row of the output."""
    steps = round(arguments.seconds * start.images_per_second / 16)
    changes = [*start.changes, f"train.steps={steps}", f"train.seed={seed}"]
    changes += [f"train.warmup_steps={steps // 20}", f"train.ema={1 - 5 / steps:.4f}"]
    changes += ["watch.images=0", f"train.checkpoint_every={steps}"]
    if name == "detector":
        changes.append(f"init_from={pathlib.Path(arguments.detector).resolve()}")
    with tempfile.TemporaryDirectory() as folder:
        subset = pathlib.Path(folder) / "data"
        write_subset(arguments.data, num_images, seed, subset)
        workdir = f"{folder}/run"
        overrides = [part for change in changes for part in ("--set", change)]
        config = ROOT / "configs" / start.config
        call("train.py", "--config", config, "--data", subset, "--workdir", workdir, *overrides)
        test = f"{folder}/test"
        call(
            "evaluate.py", "--model", workdir, "--data", arguments.data, "--split", "test",
            "--output", test,
        )  # fmt: skip
        coco = json.loads(pathlib.Path(test, "metrics.json").read_text())["coco"]
    values = (name, num_images, seed, steps, round(coco["AP"], 4), round(coco["AP50"], 4))
    return dict(zip(COLUMNS, values, strict=True))


def call(script, *arguments):
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)


def write_subset(data, num_images, seed, folder):
    """Write a data set of num_images of the train split; smaller ones of a seed are within larger.

    Without a val split, so that no image is seen besides them.
    """
    import tensorflow as tf

    from ssd_tf.data import dataset_json

    info = dataset_json.read_dataset(data)
    records = list(tf.data.TFRecordDataset(info.shards("train")).as_numpy_iterator())
    order = np.random.default_rng(seed).permutation(len(records))[:num_images]
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "train.tfrecord")) as writer:
        for index in order:
            writer.write(records[index])
    content = {
        "version": 1,
        "classes": list(info.classes),
        "splits": {"train": {"images": len(order), "boxes": 0, "shards": ["train.tfrecord"]}},
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def read_rows(path):
    if not pathlib.Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def append_row(path, row):
    is_new = not pathlib.Path(path).exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def print_table(rows, image_counts):
    """Mean AP of the seeds with the smallest and largest, by start and number of images."""
    print("| start | " + " | ".join(f"{count} images" for count in image_counts) + " |")
    print("| -- |" + " -- |" * len(image_counts))
    for name in STARTS:
        cells = []
        for count in image_counts:
            values = find_aps(rows, name, count)
            low_high = f"{min(values):.3f} to {max(values):.3f}" if values else ""
            cells.append(f"{statistics.mean(values):.3f} ({low_high})" if values else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


def draw_curves(rows, image_counts, path):
    """A curve per start through the means, and a band from the smallest AP to the largest."""
    from matplotlib.figure import Figure

    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, start in STARTS.items():
        aps = np.array([find_aps(rows, name, count) for count in image_counts])
        (curve,) = axes.plot(image_counts, aps.mean(1), marker="o", label=f"{name} ({start.label})")
        axes.fill_between(image_counts, aps.min(1), aps.max(1), alpha=0.25, color=curve.get_color())
    axes.set_xscale("log")
    axes.set_xticks(image_counts, map(str, image_counts))
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("AP on the test split")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def find_aps(rows, name, num_images):
    """The AP of each seed of a start and a number of images."""
    found = [row for row in rows if row["start"] == name and int(row["images"]) == num_images]
    return [float(row["AP"]) for row in found]


if __name__ == "__main__":
    main()
