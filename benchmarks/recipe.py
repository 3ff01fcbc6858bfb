r"""AP of training recipes on several data sets, from several starts, at a fixed number of steps.

    python benchmarks/recipe.py --data bccd=records/bccd signs=records/signs \
      --start coco=runs/coco fpnlite=runs/fpnlite --seeds 0 1 2 --steps 600 --split val \
      --recipe today configs/finetune.yaml \
      --recipe atss configs/finetune.yaml boxes.assigner=atss loss.box_loss=giou \
      --runs runs/recipe --output recipe.csv --table recipe.md --figure recipe.png

Each recipe is a config with its changes. Every run trains on the split train, without validation,
and evaluates its last checkpoint on --split: val to choose a recipe, test once at the end. With
--best it evaluates on val during training too, and takes the best checkpoint, as a user would.

Each line of --output is one run, written when it ends; those that are there already are not
repeated. Stopped at any moment, the same command resumes, in the middle of a training, too. The
names of data sets and starts stand for them: with one --output and one --runs each should mean one
folder. A run's minutes are those from the first step's compilation to the last step, its
ms_per_step is the median over the run; neither is comparable unless the machine does nothing else.
"""

import argparse
import collections
import csv
import functools
import hashlib
import itertools
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import typing

import numpy as np

from ssd_tf import files
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.weights import run_files

KEY = ("recipe", "data", "start", "seed", "images", "split")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COLUMNS = (*KEY, "config", "steps", "parameters", "minutes", "ms_per_step", *METRICS)
# Two-sided 95 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
NO_SPLIT = "none"  # trains without validation


class RunError(Exception):
    """A training or an evaluation has failed; the others go on."""


class Recipe(typing.NamedTuple):
    """A config, and changes of its keys as `--set` takes them."""

    name: str
    config: str
    changes: tuple[str, ...] = ()


class Case(typing.NamedTuple):
    """One run. start, data: names; num_images: of the split train."""

    recipe: Recipe
    data: str
    start: str
    seed: int
    num_images: int

    @property
    def name(self):
        return f"{self.recipe.name}-{self.data}-{self.start}-{self.num_images}-{self.seed}"


def main(argv=None):
    arguments = parse_arguments(argv)
    num_failed = run_missing(arguments)
    rows = [row for row in read_rows(arguments.output) if row["split"] == arguments.split]
    table = make_table(rows)
    print(table)
    if arguments.table:
        files.write_text(arguments.table, table)
    if arguments.figure and group_rows(rows):
        draw_figure(rows, arguments.figure)
    if num_failed:
        raise SystemExit(f"error: {num_failed} runs failed; the lines above name them")


def run_missing(arguments):
    """Append a row for every run that the output lacks; returns how many failed."""
    rows = read_rows(arguments.output)
    cases = [(case, read_config(case, arguments)) for case in list_cases(arguments)]
    missing = [
        (case, config) for case, config in cases if not is_done(rows, case, config, arguments.split)
    ]
    num_failed = 0
    for case, config in missing:
        try:
            row = run(case, config, arguments)
        except RunError as error:
            print(f"error: {case.name}: {error}", file=sys.stderr, flush=True)
            num_failed += 1
            continue
        append_row(arguments.output, row)
        print(row, flush=True)
    return num_failed


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--recipe", nargs="+", action="append", default=[], help="NAME CONFIG [KEY=VALUE ...]")
    add("--data", nargs="+", type=split_name, default=[], help="NAME=FOLDER of TFRecords")
    add(
        "--start", nargs="+", type=split_name, default=[("config", None)],
        help="NAME=RUN (or imagenet) for init_from; default: what the config says",
    )  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--images", nargs="+", default=["all"], help="numbers of training images, or all")
    add("--steps", type=int, help="unless the recipe sets train.steps; default: its config's")
    add("--set", nargs="+", default=[], help="KEY=VALUE for every recipe")
    add("--split", default="val", help="split to evaluate on")
    add("--best", action="store_true", help="validate during training, take the best checkpoint")
    add("--runs", type=pathlib.Path, default=pathlib.Path("runs/recipe"), help="folder of the runs")
    add("--output", type=pathlib.Path, required=True, help="CSV file")
    add("--table", help="Markdown file for the table")
    add("--figure", help="PNG file to draw")
    arguments = parser.parse_args(argv)
    if any(len(words) < 2 for words in arguments.recipe):
        parser.error("--recipe: expected NAME CONFIG [KEY=VALUE ...]")
    arguments.recipe = [
        Recipe(check_name(name), config, tuple(changes))
        for name, config, *changes in arguments.recipe
    ]
    for flag in ("recipe", "data", "start"):
        counts = collections.Counter(name for name, *_ in getattr(arguments, flag))
        if repeated := [name for name, count in counts.items() if count > 1]:
            parser.error(f"--{flag}: expected different names, got {repeated[0]} twice or more")
    arguments.data = dict(arguments.data)
    arguments.start = dict(arguments.start)
    return arguments


def split_name(text):
    name, _, value = text.partition("=")
    if not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return check_name(name), value


def check_name(name):
    """Names become parts of folder names."""
    if not re.fullmatch(r"[\w.+]+", name):
        raise SystemExit(f"error: expected a name of letters, digits, _ . and +, got {name!r}")
    return name


def list_cases(arguments):
    """Every run, all recipes of a seed before the next seed."""
    sizes = {name: count_images(folder) for name, folder in arguments.data.items()}
    product = itertools.product(
        arguments.seeds, arguments.images, arguments.data, arguments.start, arguments.recipe
    )
    cases = [
        Case(recipe, data, start, seed, sizes[data] if images == "all" else int(images))
        for seed, images, data, start, recipe in product
    ]
    for case in cases:
        if not 0 < case.num_images <= sizes[case.data]:
            raise SystemExit(
                f"error: --images: {case.data} has {sizes[case.data]} training images, "
                f"got {case.num_images}"
            )
    return list(dict.fromkeys(cases))


@functools.cache
def count_images(data):
    return dataset_json.read_dataset(data).splits["train"]["images"]


def read_config(case, arguments):
    """The resolved config of a run."""
    try:
        return load_config(case.recipe.config, list_changes(case, arguments))
    except ConfigError as error:
        raise SystemExit(f"error: {case.name}: {error}") from None


def list_changes(case, arguments):
    changes = [f"train.steps={arguments.steps}"] if arguments.steps else []
    changes += [*arguments.set, *case.recipe.changes, f"train.seed={case.seed}", "watch.images=0"]
    if not arguments.best:
        changes.append(f"data.val_split={NO_SPLIT}")
    source = arguments.start[case.start]
    if source is not None:
        changes.append(f"init_from={source}")
    return changes


def digest(config):
    """A hash of all settings that are not the default, without those that differ between runs."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude={"init_from"})
    values.get("train", {}).pop("seed", None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def is_done(rows, case, config, split):
    """Whether the rows have this run. Ends the program if they have it with other settings."""
    key = tuple(map(str, key_of(case, split)))
    found = [row for row in rows if tuple(row[name] for name in KEY) == key]
    # Rows of before this column existed have an empty one.
    if others := {row["config"] for row in found} - {digest(config), ""}:
        raise SystemExit(
            f"error: {case.name} has a row with other settings (config {others.pop()}, now "
            f"{digest(config)}); give the recipe another name, or another --output"
        )
    return bool(found)


def key_of(case, split):
    return case.recipe.name, case.data, case.start, case.seed, case.num_images, split


def run(case, config, arguments):
    """Train and evaluate; returns a row of the output."""
    data = pathlib.Path(arguments.data[case.data])
    train_data = data
    if case.num_images < count_images(data):
        train_data = write_subset(
            data, case.num_images, case.seed, arguments.runs / "subsets" / case.data
        )
    # A folder for each config, or a run would go on where one with other settings ended.
    workdir = arguments.runs / f"{case.name}-{digest(config)}"
    overrides = [part for change in list_changes(case, arguments) for part in ("--set", change)]
    call(
        workdir, "train", "--config", case.recipe.config, "--data", train_data,
        "--workdir", workdir, *overrides,
    )  # fmt: skip
    output = workdir / arguments.split
    call(
        workdir, "evaluate", "--model", workdir, "--data", data, "--split", arguments.split,
        "--output", output,
    )  # fmt: skip
    coco = json.loads((output / "metrics.json").read_text())["coco"]
    minutes, ms_per_step = read_times(workdir / "tensorboard", config.train.batch_size)
    values = (
        *key_of(case, arguments.split), digest(config), config.train.steps,
        count_parameters(config, dataset_json.read_dataset(data).names),
        minutes, ms_per_step, *(round(coco[name], 4) for name in METRICS),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def call(workdir, *arguments):
    """Run a command of ssd in a process of its own; its output goes to the run's log file."""
    command = [sys.executable, "-m", "ssd_tf", *map(str, arguments)]
    log = workdir.with_name(f"{workdir.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=file, check=False)
    if done.returncode:
        last_line = log.read_text().strip().rpartition("\n")[2]
        raise RunError(f"{arguments[0]} failed, see {log}: {last_line}")


def write_subset(data, num_images, seed, parent):
    """Write a data set with num_images of the split train and all of the other splits.

    Returns its folder, in parent. The smaller ones of a seed are within the larger ones. The other
    splits are not copied.
    """
    source = (data / "dataset.json").read_bytes() + bytes(data.resolve())
    fingerprint = hashlib.sha256(source).hexdigest()[:8]
    folder = parent / f"{num_images}-{seed}-{fingerprint}"
    if (folder / "dataset.json").exists():
        return folder
    info = dataset_json.read_dataset(data)
    records = [record for path in info.shards("train") for record in read_records(path)]
    order = np.random.default_rng(seed).permutation(len(records))[:num_images]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.tfrecord").write_bytes(b"".join(records[index] for index in order))
    splits = {"train": {"images": num_images, "boxes": 0, "shards": ["train.tfrecord"]}}
    for name, split in info.splits.items():
        if name != "train" and split["images"]:
            paths = [str(pathlib.Path(path).resolve()) for path in info.shards(name)]
            splits[name] = {**split, "shards": paths}
    files.write_json(
        folder / "dataset.json", {"version": 1, "classes": list(info.classes), "splits": splits}
    )
    return folder


def read_records(path):
    """Yield the records of a TFRecord file as they are, with their lengths and checksums."""
    with open(path, "rb") as file:
        while length := file.read(8):
            yield length + file.read(4 + int.from_bytes(length, "little") + 4)


def read_times(folder, batch_size):
    """Minutes of training of all the processes that a run took, and its median ms per step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    seconds = 0.0
    speeds = []
    for path in sorted(pathlib.Path(folder).glob("events.out.tfevents.*")):
        events = list(EventFileLoader(str(path)).Load())
        if not events:  # a process that was stopped before it wrote any
            continue
        seconds += events[-1].wall_time - events[0].wall_time
        values = [value for event in events for value in event.summary.value]
        speeds += [
            make_ndarray(value.tensor).item()
            for value in values
            if value.tag == "train/images_per_second"
        ]
    ms_per_step = round(1000 * batch_size / statistics.median(speeds), 1) if speeds else ""
    return round(seconds / 60, 2), ms_per_step


@functools.cache
def count_parameters_of(network, num_classes):
    from ssd_tf.config import check_config
    from ssd_tf.models import ssd

    config = check_config(json.loads(network), "a run")
    return ssd.build_model(config, num_classes).model.count_params()


def count_parameters(config, class_names):
    """The number of weights, frozen ones included."""
    values = config.model_dump(mode="json", include={"model", "boxes"}, exclude_defaults=True)
    return count_parameters_of(json.dumps(values), len(class_names))


def read_rows(path):
    columns, rows = run_files.read_rows(path)
    # Without a complete line it must be the beginning of the header, or it is somebody else's.
    is_begun = columns is None and ",".join(COLUMNS).startswith(read_text(path))
    if columns != COLUMNS and not is_begun:
        raise SystemExit(f"error: {path} is not a file of this program: its columns differ")
    return rows


def read_text(path):
    """The text of a file, which may end within a character; empty if there is no file."""
    return path.read_text(errors="replace") if path.exists() else ""


def append_row(path, row):
    """Append a row, in place of a last line that was not written completely."""
    text = read_text(path)
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        files.write_text(path, complete)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not complete:
            writer.writeheader()
        writer.writerow(row)


def group_rows(rows, metric="AP"):
    """{(recipe, start): {(data, images): {seed: metric}}}, in the order of the rows.

    Without the rows of COCO's -1: there was nothing to measure.
    """
    lines = {}
    for row in rows:
        if float(row[metric]) < 0:
            continue
        columns = lines.setdefault((row["recipe"], row["start"]), {})
        column = columns.setdefault((row["data"], int(row["images"])), {})
        column[int(row["seed"])] = float(row[metric])
    return lines


def interval(values):
    """The mean, and half the width of its 95 % confidence interval; NaN of fewer than 2 values.

    Of more than ten values it is slightly wider.
    """
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, float("nan")
    quantile = STUDENT_T[min(len(values) - 1, len(STUDENT_T)) - 1]
    return mean, quantile * statistics.stdev(values) / len(values) ** 0.5


def make_table(rows):
    """A Markdown table: AP of each recipe and start by data set, mean and 95 % interval over seeds.

    The last columns: the mean over the data sets, and the difference of it from the first line,
    seed by seed.
    """
    lines = group_rows(rows)
    columns = sorted({column for line in lines.values() for column in line})
    names = [f"{data}, {num_images} images" for data, num_images in columns]
    header = ["recipe", "start", *names, "mean", "difference"]
    text = [" | ".join(header), " | ".join(["--"] * len(header))]
    first = None
    for (recipe, start), line in lines.items():
        means = mean_over_columns(line, columns)
        first = means if first is None else first
        differences = [means[seed] - first[seed] for seed in means if seed in first]
        cells = [list(line.get(column, {}).values()) for column in columns]
        cells += [list(means.values()), differences if means is not first else []]
        text.append(" | ".join([recipe, start, *map(show_interval, cells)]))
    return "".join(f"| {line} |\n" for line in text)


def mean_over_columns(line, columns):
    """{seed: mean over the columns}, for the seeds that every column has."""
    seeds = set.intersection(*(set(line.get(column, ())) for column in columns))
    return {seed: statistics.mean(line[column][seed] for column in columns) for seed in seeds}


def show_interval(values):
    """`.543 ± .012`; an empty string for no values."""
    if not values:
        return ""
    mean, half = interval(values)
    parts = [f"{mean:.3f}", f"{half:.3f}"] if len(values) > 1 else [f"{mean:.3f}"]
    return " ± ".join(re.sub(r"^(-?)0\.", r"\1.", part) for part in parts)


def draw_figure(rows, path):
    """A panel per data set: AP by number of images if there are several, else by recipe."""
    from matplotlib.figure import Figure

    lines = group_rows(rows)
    data_sets = sorted({data for line in lines.values() for data, _ in line})
    figure = Figure((4.2 * len(data_sets), 3.6), layout="constrained")
    panels = figure.subplots(1, len(data_sets), squeeze=False)[0]
    for axes, data in zip(panels, data_sets, strict=True):
        counts = sorted({count for line in lines.values() for name, count in line if name == data})
        draw = draw_curves if len(counts) > 1 else draw_points
        draw(axes, lines, data, counts)
        axes.set_title(data)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_curves(axes, lines, data, counts):
    """A curve per line through the means, and a band from the smallest AP to the largest."""
    for number, (label, line) in enumerate(label_lines(lines)):
        found = {
            count: list(line[data, count].values()) for count in counts if (data, count) in line
        }
        if not found:
            continue
        means = [*map(statistics.mean, found.values())]
        (curve,) = axes.plot(list(found), means, marker="o", color=f"C{number}", label=label)
        low = [min(values) for values in found.values()]
        high = [max(values) for values in found.values()]
        axes.fill_between(list(found), low, high, alpha=0.25, color=curve.get_color())
    axes.set_xscale("log")
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("AP")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def draw_points(axes, lines, data, counts):
    """A point per line at the mean with its interval, and small ones for the seeds."""
    labels = []
    for height, (label, line) in enumerate(label_lines(lines)):
        labels.append(label)
        values = list(line.get((data, counts[0]), {}).values())
        if values:
            mean, half = interval(values)
            axes.errorbar(mean, height, xerr=np.nan_to_num(half), fmt="o", color="C0", capsize=3)
            axes.plot(values, [height] * len(values), ".", color="C1")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("AP")


def label_lines(lines):
    """(label, line) of each; the start is left out if there is only one."""
    starts = {start for _, start in lines}
    for (recipe, start), line in lines.items():
        yield recipe if len(starts) == 1 else f"{recipe}, {start}", line


if __name__ == "__main__":
    # As an exception it ends the command that runs, too, which would go on and keep its run folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
