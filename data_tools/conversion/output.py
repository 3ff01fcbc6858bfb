"""The output folder: one conversion at a time, and splits that are complete or not listed.

The order makes an interrupted conversion harmless. All shards are written under temporary names, an
older split of the same name is withdrawn, the shards get their names, and dataset.json lists the
split when all of it is there.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib

from data_tools.conversion import advice, report
from data_tools.conversion.counts import SplitCounts
from ssd_tf import files, pixels
from ssd_tf.data import dataset_json

# Digits are spelled out: the files of a split `train` are not those of a split `train-more`.
_SHARD = "{split}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9]*.tfrecord"
_FINISHED = (_SHARD, "{split}-images.tsv")
_TEMPORARY = (".{split}-images.*.tmp", f".{_SHARD}.*.tmp*")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO)


@dataclasses.dataclass(frozen=True)
class WrittenSplit:
    """A split that is written under temporary names. names: temporary path -> final file name."""

    counts: SplitCounts
    names: dict[str, str]


@contextlib.contextmanager
def open_folder(folder, splits):
    """A context in which this process alone converts into a folder.

    Temporary files are removed at its start, and after an error. Raises ValueError if another
    conversion holds the folder, OSError with advice if it cannot be written.
    """
    message = (
        f"another conversion is writing to {folder}: wait until it ends, or give another --output"
    )
    with _explain_write_errors(folder), files.lock_folder(folder, message):
        _remove(folder, splits, _TEMPORARY)
        try:
            yield
        except BaseException:
            _remove(folder, splits, _TEMPORARY)
            raise


@contextlib.contextmanager
def _explain_write_errors(folder):
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise OSError(
            f"cannot write to {folder}: it, or a folder above it, is a file; give another --output"
        ) from None
    except OSError as error:
        if error.errno not in (*_FULL, *_NOT_WRITABLE):
            raise
        is_full = error.errno in _FULL
        remedy = "free some space there" if is_full else "check the path and its permissions"
        raise OSError(
            f"cannot write to {error.filename or folder}: {error.strerror}; "
            f"{remedy} or give another --output"
        ) from None


def temporary_path(folder, name):
    """The path under which this process writes a file before it gets its name."""
    return folder / f".{name}.{os.getpid()}.tmp"


def existing_dataset(folder, splits):
    """The DatasetInfo in dataset.json if it has other splits than `splits`, else None."""
    if not (folder / "dataset.json").is_file():
        return None
    dataset_info = dataset_json.read_dataset(folder)
    return dataset_info if set(dataset_info.splits) - set(splits) else None


def read_reports(folder) -> dict:
    """{split: its entry of report.json}; empty without a data set."""
    return _read_json(pathlib.Path(folder) / "report.json").get("splits", {})


def publish(folder, written, classes, source_flags, config, left_out=()) -> dict:
    """Replace splits: give the files their names, then write report.json and, last, dataset.json.

    written: {split: WrittenSplit}; source_flags: for report.make_report_entry; config: a
    ConversionConfig; left_out: as for advice.find_warnings. Other splits stay. Returns {split: its
    entry of report.json}.
    """
    withdraw(folder, written)
    for split in written.values():
        for path, name in split.names.items():
            os.replace(path, folder / name)
    old_reports = read_reports(folder)
    old_splits = _read_json(folder / "dataset.json").get("splits", {})
    all_names = [*old_splits, *written]
    reports = {}
    for name, split in written.items():
        other_names = [other for other in all_names if other != name]
        duplicates = report.find_duplicates(folder, name, other_names)
        reports[name] = report.make_report_entry(
            split.counts, source_flags, config.exif_boxes, duplicates
        )
        others = left_out if name == config.split else ()
        names = [entry["name"] for entry in classes]
        reports[name]["warnings"] = advice.find_warnings(name, reports[name], names, others)
    files.write_json(folder / "report.json", {"version": 1, "splits": old_reports | reports})
    new_splits = {
        name: report.make_dataset_entry(split.counts, split.names.values())
        for name, split in written.items()
    }
    dataset = {"version": 1, "classes": classes}
    if config.gray_range != pixels.FULL_RANGE:
        dataset["gray_range"] = list(config.gray_range)
    dataset["splits"] = old_splits | new_splits
    files.write_json(folder / "dataset.json", dataset)
    return reports


def withdraw(folder, splits):
    """Take splits out of dataset.json and report.json, then remove their shards."""
    for name in ("dataset.json", "report.json"):
        path = folder / name
        content = _read_json(path)
        remaining = {
            split: entry
            for split, entry in content.get("splits", {}).items()
            if split not in splits
        }
        if remaining:
            files.write_json(path, content | {"splits": remaining})
        else:
            path.unlink(missing_ok=True)
    _remove(folder, splits, _FINISHED)


def _remove(folder, splits, patterns):
    for split in splits:
        for pattern in patterns:
            for path in folder.glob(pattern.format(split=split)):
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
