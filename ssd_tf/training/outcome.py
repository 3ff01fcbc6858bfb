"""The Result of a run, from the files in its folder."""

import pathlib

from ssd_tf.long_tasks import format_metric
from ssd_tf.results import Result
from ssd_tf.training.live_page import PAGE, read_evaluations
from ssd_tf.training.monitor import METRICS, read_metrics
from ssd_tf.weights import run_files


def read_result(workdir) -> Result:
    """The best checkpoint of a run, or its last without evaluations, and its AP.

    metrics: "step" and, if it was evaluated, "AP", "AP50" and "AP75"; images: of that evaluation.
    """
    folder = pathlib.Path(workdir)
    checkpoints = [folder / "checkpoints" / name for name in ("best", "last")]
    prefixes = [prefix for each in checkpoints for prefix in run_files.list_checkpoints(each)]
    rows = {int(row["step"]): row for row in read_metrics(folder / "metrics.csv")}
    metrics = {}
    for prefix in prefixes[:1]:
        step = run_files.step_of(prefix)
        row = rows.get(step, {})
        metrics = {"step": step} | {name: float(row[name]) for name in METRICS if row.get(name)}
    paths = {"weights": pathlib.Path(prefixes[0])} if prefixes else {}
    others = {"curves": "tensorboard", "page": PAGE, "numbers": "metrics.csv"}
    paths |= {name: folder / file for name, file in others.items() if (folder / file).exists()}
    images = {
        f"{image['name']}, step {evaluation['step']}": image["found"]
        for evaluation in read_evaluations(folder)
        if evaluation["step"] == metrics.get("step")
        for image in evaluation["images"]
    }
    table = tuple((name, _show(value)) for name, value in metrics.items())
    return Result(folder, metrics, paths, ("number", "value"), table, images)


def describe(result: Result) -> str:
    """The Result of a run in a line."""
    numbers = "  ".join(f"{name} {value}" for name, value in result.rows if name != "step")
    if not result.metrics:
        return f"nothing was saved in {result.folder}"
    of_step = f"step {result['step']}, {result.paths['weights']}"
    return f"best: {numbers}  ({of_step})" if numbers else f"not evaluated: {of_step}"


def _show(value):
    return str(value) if isinstance(value, int) else format_metric(value)
