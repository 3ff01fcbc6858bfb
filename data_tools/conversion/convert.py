"""The conversion: labels from any reader -> shards, dataset.json, report.json.

The order of the steps is what makes a killed run harmless: all shards are written under other names, an older split of that name
is withdrawn, the shards get their names, and dataset.json names the split when all of it is there.
"""

import collections
import dataclasses
import json
import math
import os
import pathlib
import sys

import numpy as np
from absl import flags

from data_tools.conversion import (
    classes,
    duplicates,
    output_folder,
    plan,
    pool,
    remarks,
    report,
    shard_writer,
    splitting,
)
from ssd_tf.data import dataset_json
from ssd_tf.files import write_json

VALIDATION = "val"
# Digits are spelled out: the files of a split `train` are not those of a split `train-more`.
_SHARD = "{split}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9]*.tfrecord"
_FINISHED = (_SHARD, "{split}-images.tsv")
_TEMPORARY = (".{split}-plan.*.tmp", ".{split}-images.*.tmp", f".{_SHARD}.*.tmp*")
_LEAST_SHARDS = 8
_IMAGES_PER_SHARD = 1000
_FEWEST_FOR_PROCESSES = 200  # images; fewer are done before workers have started


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags say, whatever the format. shards 0: by the number of images; workers 0: all cores."""

    output: str
    split: str = "train"
    shards: int = 0
    workers: int = 0
    val_fraction: float = 0.0
    split_seed: int = 0
    classes: list[str] | None = None
    verify: bool = True
    drop_empty: bool = False
    strict: bool = False
    exif_boxes: str = "stored"
    beam_runner: str = ""
    beam_arguments: tuple[str, ...] = ()


def convert(open_source, options, source_flags) -> dict:
    """open_source() gives a labels.Source; source_flags: {flag: value}, for the report.

    Returns {split: its entry of report.json}.
    """
    output = pathlib.Path(options.output)
    splits = [options.split, VALIDATION] if options.val_fraction else [options.split]
    if len(set(splits)) < len(splits):
        raise flags.Error(
            f"--val_fraction writes a split {VALIDATION!r} beside --split, which must have another name"
        )
    with pool.show_waiting("reading the labels"):
        source = open_source()
    with output_folder.explain_write_errors(output), output_folder.lock_folder(output):
        _remove(output, splits, _TEMPORARY)
        plan_path = output / f".{options.split}-plan.{os.getpid()}.tmp"
        try:
            with pool.show_waiting("reading the labels"):
                images = _starting_workers(source.images, options)
                planned = plan.write_plan(
                    images, plan_path, keep_classes=bool(options.val_fraction)
                )
                found = remarks.find_remarks(source, planned)
            if not len(planned.offsets):
                raise ValueError(
                    f"the labels list no images ({_join(source_flags)}): there is nothing to convert"
                )
            if options.strict:
                remarks.refuse(found, source.strays)
            chosen = classes.choose_classes(
                source.classes, planned.seen, options.classes, _known_classes(output, splits)
            )
            options = dataclasses.replace(
                options, workers=_count_workers(options, len(planned.offsets))
            )
            parts = _divide(planned, options)
            written = _write_all(output, planned, parts, chosen, options)
            remarks.add_to(written[options.split][0], found, source.strays)
            _check_kept([account for account, _ in written.values()])
            withdraw(output, splits)
            return _publish(
                output,
                written,
                chosen,
                source_flags | ({"notes": source.notes} if source.notes else {}),
            )
        except BaseException:
            _remove(output, splits, _TEMPORARY)
            raise
        finally:
            plan_path.unlink(missing_ok=True)


def _starting_workers(images, options):
    """The images; on the way, once they are many enough for processes, those begin to start."""
    for number, image in enumerate(images, 1):
        if (
            number == _FEWEST_FOR_PROCESSES
            and not options.beam_runner
            and _count_workers(options, number) > 1
        ):
            pool.start_early()
        yield image


def withdraw(output, splits):
    """Takes splits out of dataset.json and report.json, then removes their shards: now nothing says that they are there."""
    for name in ("dataset.json", "report.json"):
        path = output / name
        content = _read_json(path)
        left = {
            split: entry
            for split, entry in content.get("splits", {}).items()
            if split not in splits
        }
        if left:
            write_json(path, content | {"splits": left})
        else:
            path.unlink(missing_ok=True)
    _remove(output, splits, _FINISHED)


def _known_classes(output, splits):
    """The classes of the splits that stay, or None where none does."""
    if not (output / "dataset.json").is_file():
        return None
    info = dataset_json.read_dataset(output)
    return list(info.classes) if set(info.splits) - set(splits) else None


def _divide(planned, options):
    """-> {split: offsets of its pictures' lines in the plan, in order}."""
    if not options.val_fraction:
        return {options.split: planned.offsets}
    tasks = [
        (planned.path, part)
        for part in np.array_split(planned.offsets, max(1, len(planned.offsets) // 500))
    ]
    results = pool.run_tasks(
        splitting.hash_files, tasks, options.workers, len(planned.offsets), "comparing files"
    )
    digests = np.concatenate(list(results))
    chosen = splitting.choose_validation(
        planned.classes_of, digests, options.val_fraction, options.split_seed
    )
    parts = {options.split: planned.offsets[~chosen], VALIDATION: planned.offsets[chosen]}
    for split, offsets in parts.items():
        if not len(offsets):
            raise ValueError(
                f"--val_fraction {options.val_fraction} of {len(chosen)} images leaves none for {split!r}: give more images, "
                "or another fraction"
            )
    return parts


def _write_all(output, planned, parts, chosen, options):
    """Writes every split under temporary names -> {split: (its account, {temporary path: name})}."""
    label_of = {entry["name"]: label for label, entry in enumerate(chosen, 1)}
    rules = shard_writer.Rules(
        label_of, options.verify, options.drop_empty, options.strict, options.exif_boxes
    )
    return {
        split: _write_split(output, split, offsets, planned.path, rules, options)
        for split, offsets in parts.items()
    }


def count_shards(images, wanted) -> int:
    """As many as --shards says, else one per 1,000 images and at least 8; none is empty."""
    return min(wanted or max(_LEAST_SHARDS, math.ceil(images / _IMAGES_PER_SHARD)), images)


def _write_split(output, split, offsets, plan_path, rules, options):
    number = count_shards(len(offsets), options.shards)
    names = [f"{split}-{index:05d}-of-{number:05d}.tfrecord" for index in range(number)]
    tasks = [
        shard_writer.ShardTask(str(output / f".{name}.{os.getpid()}.tmp"), plan_path, part, rules)
        for name, part in zip(names, np.array_split(offsets, number), strict=True)
    ]
    total = shard_writer.new_account()
    with duplicates.open_digests(output / f".{split}-images.{os.getpid()}.tmp", "w") as digests:
        for account in _run(tasks, options, len(offsets), f"converting {split}"):
            shard_writer.add_account(total, account)
            duplicates.write_digests(digests, account["digests"])
    if not total["images"]:
        raise ValueError(_nothing_left(split, total))
    final = {task.path: name for task, name in zip(tasks, names, strict=True)}
    return total, final | {digests.name: duplicates.digest_file(output, split).name}


def _run(tasks, options, total, what):
    if options.beam_runner:
        from data_tools.conversion import beam

        return beam.run_tasks(
            shard_writer.write_shard, tasks, options.beam_runner, options.beam_arguments
        )
    return pool.run_tasks(shard_writer.write_shard, tasks, options.workers, total, what)


def _count_workers(options, images):
    if options.workers:
        return options.workers
    return pool.count_cores() if images >= _FEWEST_FOR_PROCESSES else 1


def _publish(output, written, chosen, source_flags):
    """Gives the files their names, then writes report.json and, last, dataset.json, with the splits that stood there before."""
    for _, final in written.values():
        for path, name in final.items():
            os.replace(path, output / name)
    report_json, content = _read_json(output / "report.json"), _read_json(output / "dataset.json")
    standing = content.get("splits", {})
    others = [*standing, *written]
    entries = {
        split: report.make_report_entry(
            account, source_flags, output, split, [other for other in others if other != split]
        )
        for split, (account, _) in written.items()
    }
    write_json(
        output / "report.json", {"version": 1, "splits": report_json.get("splits", {}) | entries}
    )
    made = {
        split: report.make_dataset_entry(account, final.values())
        for split, (account, final) in written.items()
    }
    write_json(
        output / "dataset.json", {"version": 1, "classes": chosen, "splits": standing | made}
    )
    return entries


def _check_kept(accounts):
    """Refuses a conversion that keeps none of the objects that the labels name; where they name none, that is said."""
    if any(account["boxes"] or account["ignored"] for account in accounts):
        return
    lost = collections.Counter()
    for account in accounts:
        lost.update(
            {
                f"of the class {name!r}, which was not asked for": n
                for name, n in account["unlisted_classes"].items()
            }
        )
        lost.update(account["dropped_boxes"])
    if lost:
        found = ", ".join(f"{number:,} {reason}" for reason, number in lost.most_common(5))
        raise ValueError(f"none of the {lost.total():,} objects in the labels was kept: {found}")
    print(
        "WARNING: the labels name no object: every image counts as one without objects",
        file=sys.stderr,
    )


def _nothing_left(split, account):
    reasons = ", ".join(
        f"{reason} {number}" for reason, number in (account["dropped_images"]).items()
    )
    first = (
        account["left_out"][0]
        if account["left_out"]
        else {"file": "no file", "reason": "no objects, and --drop_empty"}
    )
    found = f"({reasons}); the first is {first['file']}: {first['reason']}"
    return f"none of the {account['read']} images of {split!r} can be used {found}"


def _remove(output, splits, patterns):
    for split in splits:
        for pattern in patterns:
            for path in output.glob(pattern.format(split=split)):
                path.unlink(missing_ok=True)


def _read_json(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ValueError(
            f"{path} is not JSON; remove it, and convert every split of this folder again"
        ) from None


def _join(source_flags):
    return ", ".join(f"--{name} {value}" for name, value in source_flags.items())
