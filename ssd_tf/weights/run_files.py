"""What the files of a run folder say, without TensorFlow: its checkpoints, when AP was best."""

import csv
import pathlib
import typing


class Peak(typing.NamedTuple):
    """When the AP of a training was best.

    best, last: the steps of the best AP and of the last evaluation; num_later: how many evaluations
    came after the best one.
    """

    best: int
    last: int
    num_later: int


def find_peak(run) -> Peak | None:
    """The Peak of a run; None if no AP above 0 was measured in its training, or by others."""
    run = pathlib.Path(run)
    columns, rows = read_rows(run / "metrics.csv")
    if not columns or "step" not in columns:
        return None
    measured = {int(row["step"]): float(row["AP"]) for row in rows if row.get("AP")}
    for prefix in list_checkpoints(run / "checkpoints" / "best")[:1]:
        best = step_of(prefix)
        if measured.get(best, 0.0) > 0:
            return Peak(best, max(measured), sum(step > best for step in measured))
    return None


def read_rows(path) -> tuple[tuple[str, ...] | None, list[dict]]:
    """The columns of a metrics.csv and its rows as dicts of strings; None, [] if nothing is there.

    What was not written completely is left out.
    """
    if not path.is_file():
        return None, []
    complete, _, _ = path.read_text(errors="replace").rpartition("\n")
    rows = csv.DictReader(complete.splitlines())
    columns = tuple(rows.fieldnames or ()) if complete else None
    return columns, [row for row in rows if None not in row and None not in row.values()]


def list_checkpoints(folder) -> list[str]:
    """The prefixes of the checkpoints of a folder, the newest first."""
    paths = pathlib.Path(folder).glob("ckpt-*.index")
    prefixes = [str(path.with_suffix("")) for path in paths if path.stem[5:].isdigit()]
    return sorted(prefixes, key=step_of, reverse=True)


def step_of(prefix) -> int:
    """The step of a checkpoint, from its name."""
    return int(prefix.rpartition("-")[2])
