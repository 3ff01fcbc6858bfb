"""Print and write an evaluation: numbers, COCO files, tables and a report."""

import csv
import io
import json
import os
import typing

from absl import logging
from rich.console import Console

from ssd_tf import long_tasks
from ssd_tf.evaluation import analysis, coco_results, verdict
from ssd_tf.evaluation.report import report
from ssd_tf.evaluation.tables import Found, Truth
from ssd_tf.inference.thresholds import THRESHOLDS_FILE, Thresholds
from ssd_tf.output_folder import OutputFolder
from ssd_tf.weights.run_files import Peak

REPORT = "report.html"
_COCO_FILES = ("ground_truth.json", "detections.json")
_TABLES = ("metrics.json", "per_class.csv")
FILES = (REPORT, *_TABLES, *_COCO_FILES)
_MAIN_METRICS = ("AP", "AP50", "AP75")


class Evaluation(typing.NamedTuple):
    """metrics: the content of metrics.json so far. instances: of ground_truth.json. settings: lines
    that say what was measured. fetch: indices of images -> {index: uint8 [H, W, 3]}, or None
    without images. coverage: an Analysis -> rows about its default boxes, or None. precision,
    thresholds: as `analysis.analyse` takes them, the latter as `given`. run: the run folder that
    gets the thresholds, or None. input_hw: of the network, or None. peak: of its training,
    or None.
    """

    metrics: dict
    truth: Truth
    found: Found
    instances: dict
    settings: list[str]
    fetch: typing.Callable | None = None
    coverage: typing.Callable | None = None
    precision: float | None = None
    thresholds: Thresholds | None = None
    run: str | os.PathLike[str] | None = None
    input_hw: typing.Sequence[int] | None = None
    peak: Peak | None = None


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
    folder.check([*FILES, THRESHOLDS_FILE])
    if not (folder.path / "ground_truth.json").exists():  # which an evaluation writes first
        folder.check_absent("detections.json", "the results of ssd detect, which would be replaced")
        folder.check_absent(REPORT, "a comparison, whose report would be replaced")
    return folder


def finish(evaluation: Evaluation, output: OutputFolder | None, reference=False) -> dict:
    """Analyse an evaluation, write its files and print its numbers; returns the metrics.

    reference: compute COCO's metrics with pycocotools, too. The numbers are written and printed
    before the report is made. Raises ValueError if pycocotools' numbers differ, or if the report
    fails.
    """
    if output:
        _write_coco_files(evaluation, output)
    analysed = _analyse(evaluation)
    judged = verdict.judge(analysed, evaluation.input_hw, evaluation.peak)
    metrics = {**evaluation.metrics, **analysis.summary(analysed), "verdict": judged}
    class_rows = analysis.class_rows(metrics["per_class"], analysed)
    if output:
        output.write_text("metrics.json", _to_json(metrics))
        output.write_text("per_class.csv", _to_csv(class_rows))
        if analysed.chosen:
            output.write_text(THRESHOLDS_FILE, _to_json(analysed.chosen.to_json()))
    _warn_of_precision(evaluation.precision, analysis.at_score(analysed))
    if reference and output:
        coco_results.check_metrics(metrics["coco"], *(output.path / name for name in _COCO_FILES))
    for line in _describe(metrics, analysed, evaluation.settings, reference):
        print_line(line)
    if evaluation.run is not None and analysed.chosen:
        _give_thresholds(evaluation.run, analysed.chosen)
    if output:
        _write_report(evaluation, analysed, metrics, class_rows, output)
        names = [REPORT, *_TABLES, *([THRESHOLDS_FILE] if analysed.chosen else [])]
        print_line(f"written: {', '.join(names)} and the COCO files in {output.path}")
    return metrics


def _analyse(evaluation):
    """The Analysis; thresholds that it chose say on which images."""
    analysed = analysis.analyse(
        evaluation.truth, evaluation.found, evaluation.precision, evaluation.thresholds
    )
    if analysed.chosen is None or evaluation.thresholds:
        return analysed
    settings = evaluation.metrics["settings"]
    data = settings.get("data") or settings.get("annotations")
    return analysed._replace(
        chosen=analysed.chosen._replace(split=settings.get("split"), data=data)
    )


def _warn_of_precision(precision, reached):
    if precision is not None and reached and reached["precision"] < precision:
        logging.warning(
            "no score has a precision of %g; the highest is %.3f, at a score of %.2f",
            precision,
            reached["precision"],
            reached["score"],
        )


def _give_thresholds(run, thresholds):
    """Write the thresholds into a run folder; warn if its own were edited, or it is read-only."""
    try:
        folder = OutputFolder(run, flag="run folder")
        path = folder.write_text(THRESHOLDS_FILE, _to_json(thresholds.to_json()))
    except OSError as error:
        logging.warning("the run's thresholds stay as they are: %s", error)
        return
    print_line(f"written: {path}, from now on the minimum scores of this run")


def _to_json(content):
    return json.dumps(content, indent=1) + "\n"


def _write_coco_files(evaluation, output):
    """Write the pair of COCO files; remove the other files of an earlier evaluation."""
    output.write_text("ground_truth.json", json.dumps(evaluation.instances))
    output.write(
        "detections.json",
        lambda path: coco_results.write_results(path, evaluation.found, evaluation.truth),
    )
    output.remove([*_TABLES, THRESHOLDS_FILE, REPORT])


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
    return f"{name} {long_tasks.format_metric(coco[name])}"


def _describe(metrics, analysed, settings, is_compared):
    """The verdict, the numbers, what they were measured on and with which settings, as lines."""
    yield from metrics["verdict"].values()
    coco = metrics["coco"]
    compared = "  (equal to pycocotools')" if is_compared else ""
    yield "  ".join(describe_metric(coco, name) for name in _MAIN_METRICS) + compared
    others = [describe_metric(coco, name) for name in coco if name not in _MAIN_METRICS]
    points, all_points = map(long_tasks.format_metric, metrics["voc"].values())
    yield f"also: {'  '.join(others)}  VOC AP50 {points} (11 points), {all_points} (all points)"
    if reached := analysis.at_score(analysed):
        yield (
            f"threshold {reached['score']:.2f} ({analysed.chosen.rule}): precision "
            f"{reached['precision']:.3f}, recall {reached['recall']:.3f}, F1 {reached['f1']:.3f}"
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
