"""Makes written splits part of the data set: file names, dataset.json, report.json.

The order makes an interrupted conversion harmless. All shards are written under temporary names, an
older split of the same name is withdrawn, the shards get their names, and dataset.json lists the
split when all of it is there.
"""

import dataclasses
import json
import os

from data_tools.conversion import report
from data_tools.conversion.counts import SplitCounts
from ssd_tf import pixels
from ssd_tf.data import dataset_json
from ssd_tf.files import write_json

# Digits are spelled out: the files of a split `train` are not those of a split `train-more`.
_SHARD = "{split}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9]*.tfrecord"
_FINISHED = (_SHARD, "{split}-images.tsv")
_TEMPORARY = (".{split}-plan.*.tmp", ".{split}-images.*.tmp", f".{_SHARD}.*.tmp*")


@dataclasses.dataclass(frozen=True)
class WrittenSplit:
    """A split that is written under temporary names. names: temporary path -> final file name."""

    counts: SplitCounts
    names: dict[str, str]


def temporary_path(output, name):
    """Where this process writes a file before it gets its name."""
    return output / f".{name}.{os.getpid()}.tmp"


def remove_temporary(output, splits):
    """Remove the temporary files of a conversion, those of an interrupted one included."""
    _remove(output, splits, _TEMPORARY)


def existing_dataset(output, splits):
    """The DatasetInfo in dataset.json if it has other splits than `splits`, else None."""
    if not (output / "dataset.json").is_file():
        return None
    dataset_info = dataset_json.read_dataset(output)
    return dataset_info if set(dataset_info.splits) - set(splits) else None


def withdraw(output, splits):
    """Take splits out of dataset.json and report.json, then remove their shards."""
    for name in ("dataset.json", "report.json"):
        path = output / name
        content = _read_json(path)
        remaining = {
            split: entry
            for split, entry in content.get("splits", {}).items()
            if split not in splits
        }
        if remaining:
            write_json(path, content | {"splits": remaining})
        else:
            path.unlink(missing_ok=True)
    _remove(output, splits, _FINISHED)


def publish(output, written, classes, source_flags, config) -> dict:
    """Give the files their names, then write report.json and, last, dataset.json.

    written: {split: WrittenSplit}; source_flags: for report.make_report_entry; config: a
    convert.ConversionConfig. Splits that were there before stay. Returns {split: its entry of
    report.json}.
    """
    for split in written.values():
        for path, name in split.names.items():
            os.replace(path, output / name)
    old_reports = _read_json(output / "report.json").get("splits", {})
    old_splits = _read_json(output / "dataset.json").get("splits", {})
    all_names = [*old_splits, *written]
    reports = {}
    for name, split in written.items():
        others = [other for other in all_names if other != name]
        reports[name] = report.make_report_entry(
            split.counts, source_flags, config.exif_boxes, output, name, others
        )
    write_json(output / "report.json", {"version": 1, "splits": old_reports | reports})
    new_splits = {
        name: report.make_dataset_entry(split.counts, split.names.values())
        for name, split in written.items()
    }
    dataset = {"version": 1, "classes": classes}
    if config.gray_range != pixels.FULL_RANGE:
        dataset["gray_range"] = list(config.gray_range)
    dataset["splits"] = old_splits | new_splits
    write_json(output / "dataset.json", dataset)
    return reports


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
