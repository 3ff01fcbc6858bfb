"""Print and write an evaluation: numbers, COCO files, tables and a report."""

import csv
import io
import json
import typing

from rich.console import Console

from ssd_tf import commandline
from ssd_tf.evaluation import analysis, coco_results
from ssd_tf.evaluation.report import report
from ssd_tf.evaluation.tables import Found, Truth
from ssd_tf.output_folder import OutputFolder

REPORT = "report.html"
_COCO_FILES = ("ground_truth.json", "detections.json")
_TABLES = ("metrics.json", "per_class.csv")
FILES = (REPORT, *_TABLES, *_COCO_FILES)


class Evaluation(typing.NamedTuple):
    """metrics: the content of metrics.json so far. instances: of ground_truth.json. settings: lines
    that say what was measured. fetch: indices of images -> {index: uint8 [H, W, 3]}, or None
    without images. coverage: an Analysis -> rows about its default boxes, or None.
    """

    metrics: dict
    truth: Truth
    found: Found
    instances: dict
    settings: list[str]
    fetch: typing.Callable | None = None
    coverage: typing.Callable | None = None


def open_folder(path, inputs, reference) -> OutputFolder | None:
    """The folder for the files of an evaluation; None if path is None.

    inputs: the files that are read, or None. Raises FileExistsError if a file in it must not be
    replaced, ValueError if pycocotools is asked for and there is no folder.
    """
    if path is None:
        if reference:
            raise ValueError("reference needs output: pycocotools reads the files written there")
        return None
    folder = OutputFolder(path, filter(None, inputs))
    folder.check(FILES)
    if not (folder.path / "ground_truth.json").exists():  # which an evaluation writes first
        folder.check_absent("detections.json", "the results of ssd detect, which would be replaced")
    return folder


def finish(evaluation: Evaluation, output: OutputFolder | None, reference=False) -> dict:
    """Analyse an evaluation, write its files and print its numbers; returns the metrics.

    reference: compute COCO's metrics with pycocotools, too. The numbers are written and printed
    before the report is made. Raises ValueError if pycocotools' numbers differ, or if the report
    fails.
    """
    if output:
        _write_coco_files(evaluation, output)
    analysed = analysis.analyse(evaluation.truth, evaluation.found)
    metrics = {**evaluation.metrics, **analysis.summary(analysed)}
    class_rows = analysis.class_rows(metrics["per_class"], analysed)
    if output:
        output.write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")
        output.write_text("per_class.csv", _to_csv(class_rows))
    if reference and output:
        coco_results.check_metrics(metrics["coco"], *(output.path / name for name in _COCO_FILES))
    for line in _describe(metrics, evaluation.settings, reference):
        print_line(line)
    if output:
        _write_report(evaluation, analysed, metrics, class_rows, output)
        names = f"{REPORT}, {', '.join(_TABLES)}"
        print_line(f"written: {names} and the COCO files in {output.path}")
    return metrics


def _write_coco_files(evaluation, output):
    """Write the pair of COCO files; remove the other files of an earlier evaluation."""
    output.write_text("ground_truth.json", json.dumps(evaluation.instances))
    output.write(
        "detections.json",
        lambda path: coco_results.write_results(path, evaluation.found, evaluation.truth),
    )
    output.remove([*_TABLES, REPORT])


def _write_report(evaluation, analysed, metrics, class_rows, output):
    try:
        coverage = evaluation.coverage(analysed) if evaluation.coverage else []
        text = report.render_report(
            analysed, metrics, class_rows, evaluation.settings, evaluation.fetch, coverage
        )
        output.write_text(REPORT, text)
    except Exception as error:
        raise ValueError(
            f"the numbers are in {output.path}, but {REPORT} could not be made: "
            f"{type(error).__name__}: {error}"
        ) from error


def _to_csv(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
    return stream.getvalue()


def print_line(line):
    """Print one line of text as it is, without wrapping or colours."""
    Console().print(line, soft_wrap=True, highlight=False, markup=False)


def describe_metric(coco, name) -> str:
    """The name and the value of one of COCO's metrics."""
    return f"{name} {commandline.format_metric(coco[name])}"


def _describe(metrics, settings, is_compared):
    """The numbers, what they were measured on and with which settings, as lines."""
    numbers = [describe_metric(metrics["coco"], name) for name in metrics["coco"]]
    if is_compared:
        numbers.append("(equal to pycocotools')")
    points, all_points = map(commandline.format_metric, metrics["voc"].values())
    yield "  ".join(numbers[:6])
    yield "  ".join(numbers[6:])
    yield f"VOC AP50: {points} (11 points), {all_points} (all points)"
    if metrics["thresholds"] is None:
        yield "these images have no objects that count, so there is no AP, recall or F1"
    elif best := metrics["thresholds"]["best"]:
        yield (
            f"best F1 {best['f1']:.3f} at score {best['score']:.2f}: "
            f"precision {best['precision']:.3f}, recall {best['recall']:.3f}"
        )
    yield from settings
    times = metrics["latency_ms"]
    if times:
        yield (
            f"{times['per_image']:.2f} ms per image, one at a time (p90 {times['p90']:.2f}): "
            f"preprocessing {times['preprocessing']:.2f}, network {times['network']:.2f}, "
            f"postprocessing {times['postprocessing']:.2f}; "
            f"{metrics['images_per_second']['batch_8']:.1f} images/s in batches of 8; "
            f"{metrics['model_mb']:.1f} MB"
        )
