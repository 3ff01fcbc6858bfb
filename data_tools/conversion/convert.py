"""A conversion, step by step: labels from any reader -> shards, dataset.json, report.json."""

import collections
import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Callable

from data_tools.conversion import (
    classes,
    output,
    pool,
    report,
    shard_writer,
    splitting,
    survey,
)
from data_tools.conversion.config import new_flags, read_config
from data_tools.conversion.counts import SplitCounts
from data_tools.readers import labels
from ssd_tf import commandline, pixels, processor

_MIN_SHARDS = 8
_IMAGES_PER_SHARD = 1000
_MIN_IMAGES_FOR_PROCESSES = 200  # fewer are done before workers have started


def run_converter(values, usage, required, open_source, argv=None) -> int:
    """Run a converter's command and return its exit code.

    values: its flags; required: names of those that must be given; open_source(values) -> a
    labels.Source.
    """
    shared = set(new_flags())
    own = [name for name in values if name not in shared]

    def main(values, rest):
        config = read_config(values, rest)
        source_flags = {
            name: values[name].value for name in own if values[name].value not in (None, "", False)
        }
        reports, class_names = convert(lambda: open_source(values), config, source_flags)
        report.print_report(reports, class_names)
        print(f"details: {values.output}/dataset.json and report.json")
        sheet = os.path.join(values.output, "look.png")
        commandline.print_next(["ssd", "inspect", values.output, "--output", sheet])

    return commandline.run(main, values, usage, required=(*required, "output"), argv=argv)


def convert(open_source: Callable[[], labels.Source], config, source_flags):
    """Convert one source of labels into config.output.

    source_flags: {flag: value}, for the report. Returns {split: its entry of report.json} and the
    class names. Raises ValueError or OSError, and leaves nothing behind that looks complete.
    """
    folder = pathlib.Path(config.output)
    with pool.show_progress("reading the labels"):
        source = classes.normalize_names(open_source(), config.classes)
    with output.open_folder(folder, config.splits):
        with pool.show_progress("reading the labels"):
            images = _start_workers_early(source.images, config)
            found = survey.read_images(images, config.split, config.boxes)
            findings = survey.find_suspicious(source, found)
        num_images = len(found.images)
        if not num_images:
            given = ", ".join(f"--{name} {value}" for name, value in source_flags.items())
            raise ValueError(f"the labels list no images ({given}): there is nothing to convert")
        if config.strict:
            _check_strictly(findings, source.strays)
        existing = output.existing_dataset(folder, config.splits)
        chosen = classes.choose_classes(
            source.classes, found.class_names, config.classes, existing and list(existing.classes)
        )
        config = dataclasses.replace(
            config,
            workers=_count_workers(config, num_images),
            exif_boxes=config.exif_boxes or ("shown" if source.boxes_follow_exif else "stored"),
            gray_range=_choose_gray_range(config.gray_range, existing),
        )
        label_of = {entry["name"]: label for label, entry in enumerate(chosen, 1)}
        divided, groups = splitting.divide(found, config)
        written = {
            split: _write_split(split, images, label_of, config)
            for split, images in divided.items()
        }
        written[config.split].counts.findings = findings
        written[config.split].counts.dropped_boxes.merge(source.strays)
        _check_kept([split.counts for split in written.values()])
        notes = [*source.notes, *classes.describe_similar(label_of), *groups]
        if config.boxes:
            notes.append(f"boxes are read as {config.boxes} (--boxes)")
        if notes:
            source_flags = source_flags | {"notes": notes}
        splits = {*written, *(existing.splits if existing else ())}
        left_out = _list_left_out(source, source_flags, splits)
        reports = output.publish(folder, written, chosen, source_flags, config, left_out)
        return reports, list(label_of)


def _list_left_out(source, source_flags, splits):
    """The other sets of a source, unless the user has named one, that are not in `splits`."""
    if "image_set" in source_flags:
        return []
    return [each for each in source.other_sets if each.split and each.split not in splits]


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
    return processor.usable_cores() if num_images >= _MIN_IMAGES_FOR_PROCESSES else 1


def _check_strictly(findings, strays):
    """Raise StrictError if labels would be unused, or a file used twice (--strict).

    Images without labels are accepted: they may lie beside the labelled ones.
    """
    if strays.count:
        file, box, reason = strays.first[0].values()
        raise shard_writer.StrictError(f"--strict: {file}: a box is dropped ({reason}): {box}")
    for what, finding in findings.items():
        if what != survey.UNLABELLED:
            raise shard_writer.StrictError(
                f"--strict: {what}: {finding.count:,}, the first {finding.first[0]}"
            )


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


def count_shards(num_images, requested) -> int:
    """The number that --shards requests, else one per 1,000 images, at least 8; none is empty."""
    num_shards = requested or max(_MIN_SHARDS, math.ceil(num_images / _IMAGES_PER_SHARD))
    return min(num_shards, num_images)


def _write_split(split, images, label_of, config):
    """Write a split under temporary names -> output.WrittenSplit."""
    folder = pathlib.Path(config.output)
    num_shards = count_shards(len(images), config.shards)
    names = {}
    tasks = []
    for index, part in enumerate(splitting.split_evenly(images, num_shards)):
        name = f"{split}-{index:05d}-of-{num_shards:05d}.tfrecord"
        path = str(output.temporary_path(folder, name))
        names[path] = name
        tasks.append(shard_writer.ShardTask(path, part, label_of, config))
    total = SplitCounts()
    digests_path = output.temporary_path(folder, f"{split}-images")
    with report.open_digests(digests_path, "w") as digests:
        for counts in _write_shards(tasks, config, len(images), f"converting {split}"):
            total.merge(counts)
            report.write_digests(digests, counts.digests)
    if not total.images:
        raise ValueError(_explain_nothing_left(split, total))
    names[str(digests_path)] = report.digests_path(folder, split).name
    return output.WrittenSplit(total, names)


def _write_shards(tasks, config, num_images, title):
    if config.beam_runner:
        return pool.run_on_beam(
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
        lost.update(counts.dropped_boxes.reasons)
    if lost:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.most_common(5))
        raise ValueError(f"none of the objects in the labels was kept: {reasons}")
    print(
        "WARNING: no annotated objects found: every image becomes background",
        file=sys.stderr,
    )


def _explain_nothing_left(split, counts):
    reasons = ", ".join(
        f"{reason} {count}" for reason, count in counts.dropped_images.reasons.items()
    )
    message = f"none of the images of {split!r} can be used"
    if not reasons:
        return f"{message}: none has objects (--drop_empty)"
    first = counts.dropped_images.first[0]
    return f"{message} ({reasons}); the first is {first['file']}: {first['reason']}"
