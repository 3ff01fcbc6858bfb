"""A conversion, step by step: labels from any reader -> shards, dataset.json, report.json."""

import collections
import dataclasses
import math
import pathlib
import sys

import numpy as np
from absl import flags

from data_tools.conversion import (
    classes,
    duplicates,
    findings,
    output_folder,
    plan,
    pool,
    publish,
    shard_writer,
    splitting,
)
from data_tools.conversion.counts import SplitCounts
from ssd_tf import pixels

VALIDATION = "val"
_IN_ORDER = (VALIDATION, "valid", "test")
_MIN_SHARDS = 8
_IMAGES_PER_SHARD = 1000
_MIN_IMAGES_FOR_PROCESSES = 200  # fewer are done before workers have started
_IMAGES_PER_HASH_TASK = 500


@dataclasses.dataclass(frozen=True)
class ConversionConfig:
    """What the flags say, for any label format; command.py has their defaults.

    shards 0: by the number of images; workers 0: one per core; exif_boxes, boxes None: the
    default of the label format; gray_range None: that of the splits already there.
    """

    output: str
    split: str
    shards: int
    workers: int
    val_fraction: float
    split_seed: int
    classes: list[str] | None
    verify: bool
    drop_empty: bool
    strict: bool
    exif_boxes: str | None
    boxes: str | None
    beam_runner: str
    beam_arguments: tuple[str, ...]
    gray_range: tuple[int, int] | None = None

    @property
    def splits(self):
        return [self.split, VALIDATION] if self.val_fraction else [self.split]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was converted.

    reports: {split: its entry of report.json}; class_names: in label order.
    """

    reports: dict[str, dict]
    class_names: list[str]


def convert(open_source, config, source_flags) -> Conversion:
    """Convert one source of labels into config.output.

    open_source() gives a labels.Source; source_flags: {flag: value}, for the report. Raises
    ValueError or OSError, and leaves nothing behind that looks complete.
    """
    if len(set(config.splits)) < len(config.splits):
        raise flags.Error(
            f"--val_fraction writes a split {VALIDATION!r} beside --split: give --split another "
            "name"
        )
    output = pathlib.Path(config.output)
    with pool.show_waiting("reading the labels"):
        source = classes.normalize_names(open_source(), config.classes)
    with output_folder.explain_write_errors(output), output_folder.lock_folder(output):
        publish.remove_temporary(output, config.splits)
        plan_path = publish.temporary_path(output, f"{config.split}-plan")
        try:
            return _convert_source(source, plan_path, config, source_flags)
        except BaseException:
            publish.remove_temporary(output, config.splits)
            raise
        finally:
            plan_path.unlink(missing_ok=True)


def _convert_source(source, plan_path, config, source_flags):
    output = pathlib.Path(config.output)
    with pool.show_waiting("reading the labels"):
        images = _start_workers_early(source.images, config)
        planned = plan.write_plan(images, plan_path, bool(config.val_fraction), config.boxes)
        found = findings.collect_findings(source, planned)
    if not len(planned.offsets):
        given = ", ".join(f"--{name} {value}" for name, value in source_flags.items())
        raise ValueError(f"the labels list no images ({given}): there is nothing to convert")
    planned.census.check(config.split)
    if config.strict:
        findings.refuse_findings(found, source.strays)
    existing = publish.existing_dataset(output, config.splits)
    existing_classes = existing and list(existing.classes)
    chosen = classes.choose_classes(
        source.classes, planned.class_names, config.classes, existing_classes
    )
    config = dataclasses.replace(
        config,
        workers=_count_workers(config, len(planned.offsets)),
        exif_boxes=config.exif_boxes or ("shown" if source.boxes_follow_exif else "stored"),
        gray_range=_choose_gray_range(config.gray_range, existing),
    )
    written = _write_splits(planned, chosen, config)
    counts = written[config.split].counts
    counts.findings = found
    findings.count_strays(counts, source.strays)
    _check_kept([split.counts for split in written.values()])
    publish.withdraw(output, config.splits)
    class_list = [entry["name"] for entry in chosen]
    notes = [*source.notes, *classes.describe_similar(class_list)]
    if config.boxes:
        notes.append(f"boxes are read as {config.boxes} (--boxes)")
    if notes:
        source_flags = source_flags | {"notes": notes}
    reports = publish.publish(output, written, chosen, source_flags, config)
    return Conversion(reports, class_list)


def _choose_gray_range(requested, existing):
    """The gray range of the data set. existing: the DatasetInfo of other splits, or None."""
    if existing is None:
        return requested or pixels.FULL_RANGE
    if requested not in (None, existing.gray_range):
        low, high = existing.gray_range
        raise ValueError(
            f"--gray_range: the splits {', '.join(existing.splits)} in {existing.folder} have "
            f"{low},{high}; give the same, or convert them again"
        )
    return existing.gray_range


def _start_workers_early(images, config):
    """Yield the images; once there are enough for processes, let those begin to start."""
    for num_images, image in enumerate(images, 1):
        if (
            num_images == _MIN_IMAGES_FOR_PROCESSES
            and not config.beam_runner
            and _count_workers(config, num_images) > 1
        ):
            pool.start_early()
        yield image


def _count_workers(config, num_images):
    if config.workers:
        return config.workers
    return pool.count_cores() if num_images >= _MIN_IMAGES_FOR_PROCESSES else 1


def count_shards(num_images, requested) -> int:
    """The number that --shards requests, else one per 1,000 images, at least 8; none is empty."""
    num_shards = requested or max(_MIN_SHARDS, math.ceil(num_images / _IMAGES_PER_SHARD))
    return min(num_shards, num_images)


def _write_splits(planned, chosen, config):
    """Write every split under temporary names -> {split: publish.WrittenSplit}."""
    rules = shard_writer.Rules(
        label_of={entry["name"]: label for label, entry in enumerate(chosen, 1)},
        verify=config.verify,
        drop_empty=config.drop_empty,
        strict=config.strict,
        exif_boxes=config.exif_boxes,
        gray_range=config.gray_range,
        boxes=config.boxes,
    )
    return {
        split: _write_split(split, offsets, planned.path, rules, config)
        for split, offsets in _divide(planned, config).items()
    }


def _divide(planned, config):
    """{split: offsets of its images' lines in the plan}.

    Labels are often sorted by class, and training shuffles a few thousand neighbours at a time: its
    images are permuted. Those of validation and test keep their order.
    """
    order = np.arange(len(planned.offsets))
    if config.split not in _IN_ORDER:
        order = np.random.default_rng(config.split_seed).permutation(order)
    if not config.val_fraction:
        return {config.split: planned.offsets[order]}
    num_images = len(planned.offsets)
    parts = np.array_split(planned.offsets, max(1, num_images // _IMAGES_PER_HASH_TASK))
    tasks = [splitting.HashTask(planned.path, part) for part in parts]
    digests = pool.run_tasks(
        splitting.hash_files, tasks, config.workers, num_images, "comparing files"
    )
    in_validation = splitting.choose_validation(
        planned.classes_of, np.concatenate(list(digests)), config.val_fraction, config.split_seed
    )
    divided = {
        config.split: planned.offsets[order[~in_validation[order]]],
        VALIDATION: planned.offsets[in_validation],
    }
    for split, offsets in divided.items():
        if not len(offsets):
            raise ValueError(
                f"--val_fraction {config.val_fraction} of {num_images} images leaves none for "
                f"{split!r}: give more images, or another fraction"
            )
    return divided


def _write_split(split, offsets, plan_path, rules, config):
    output = pathlib.Path(config.output)
    num_shards = count_shards(len(offsets), config.shards)
    names = {}
    tasks = []
    for index, part in enumerate(np.array_split(offsets, num_shards)):
        name = f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"
        path = str(publish.temporary_path(output, name))
        names[path] = name
        tasks.append(shard_writer.ShardTask(path, plan_path, part, rules))
    total = SplitCounts()
    digests_path = publish.temporary_path(output, f"{split}-images")
    with duplicates.open_digests(digests_path, "w") as digests:
        for counts in _write_shards(tasks, config, len(offsets), f"converting {split}"):
            total.merge(counts)
            duplicates.write_digests(digests, counts.digests)
    if not total.images:
        raise ValueError(_explain_nothing_left(split, total))
    names[str(digests_path)] = duplicates.digests_path(output, split).name
    return publish.WrittenSplit(total, names)


def _write_shards(tasks, config, num_images, title):
    if config.beam_runner:
        from data_tools.conversion import beam

        return beam.run_tasks(
            shard_writer.write_shard, tasks, config.beam_runner, config.beam_arguments
        )
    return pool.run_tasks(shard_writer.write_shard, tasks, config.workers, num_images, title)


def _check_kept(splits_counts):
    """Raise ValueError if no object was kept although the labels name some; warn if they do not."""
    if any(counts.boxes or counts.ignored for counts in splits_counts):
        return
    lost = collections.Counter()
    for counts in splits_counts:
        for name, num_objects in counts.unlisted_classes.items():
            lost[f"of the class {name!r}, which --classes leaves out"] += num_objects
        lost.update(counts.dropped_boxes)
    if lost:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.most_common(5))
        raise ValueError(f"none of the objects in the labels was kept: {reasons}")
    print(
        "WARNING: the labels name no object: every image counts as one without objects",
        file=sys.stderr,
    )


def _explain_nothing_left(split, counts):
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.dropped_images.items())
    message = f"none of the images of {split!r} can be used"
    if not reasons:
        return f"{message}: none has objects (--drop_empty)"
    first = counts.first_dropped_images[0]
    return f"{message} ({reasons}); the first is {first.file}: {first.reason}"
