"""The end of a quickstart: what the detector can do, what to do next, and where everything is."""

import json
import shlex

from rich.console import Console

from ssd_tf.evaluation import verdict
from ssd_tf.exporting.folder import REPORT
from ssd_tf.inference import overview
from ssd_tf.long_tasks import format_metric
from ssd_tf.results import Result
from ssd_tf.weights import run_files

_HEADER = ("format", "AP", "AP50", "ms per image", "MB")
_RAW = "_raw"  # the end of names


def summarise(job) -> Result:
    """The Result of a finished quickstart. job: a job.Job."""
    split = job.quoted_split
    measured = _read(job.evaluation(split) / "metrics.json")
    verified = _read(job.exports / REPORT)["verify"]
    metrics = {
        "split": split,
        **{name: measured["coco"][name] for name in ("AP", "AP50")},
        **measured["verdict"],
        "formats": verified,
        "seconds": job.state.seconds(),
    }
    rows = tuple(_make_row(name, entry) for name, entry in verified.items())
    return Result(job.folder, metrics, _list_paths(job, split), _HEADER, rows)


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _make_row(name, entry):
    milliseconds = entry["latency_ms"]
    fastest = min(milliseconds, key=lambda threads: milliseconds[threads])
    shown = f"{milliseconds[fastest]:.1f}"
    if fastest not in ("all", "1"):
        shown += f" ({fastest} threads)"
    numbers = [format_metric(entry[metric]) for metric in ("AP", "AP50")]
    return (name, *numbers, shown, f"{entry['megabytes']:.1f}")


def _list_paths(job, split):
    return {
        "report": job.evaluation(split) / "report.html",
        "detections": job.drawn / overview.NAME,
        "training": job.run / "live.html",
        "run": job.run,
        "exports": job.exports,
        "web page": job.exports / "web" / "index.html",
        "config": job.config,
        "data": job.data,
        "labels": job.sheet,
    }


def print_summary(job, result: Result):
    """Print what a Result of `summarise` says."""
    console = Console()

    def show(*lines):
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    show("", f"On the images of the split {result['split']}: {result['sentence']}", "")
    show("The formats on the validation images:")
    console.print(result.as_table())
    show(*_explain_formats(result["formats"]))
    curve = job.state.result("curve")["text"]
    show(result["suggestion"], f"{curve[0].upper()}{curve[1:]}.", "", "Next:")
    for what, command in _next_commands(job).items():
        show(f"  {what}:", f"    {command}")
    show("", "Where everything is:")
    width = max(map(len, result.paths))
    show(*(f"  {name:{width}}  {path}" for name, path in result.paths.items()))
    show("", f"Times: {describe_times(result['seconds'])}")


def _explain_formats(names):
    """A line if there are files whose name does not say what they are for."""
    if any(name.endswith(_RAW) for name in names):
        yield (
            f"{_RAW}: without post-processing, which GPUs, NPUs and Coral cannot run; the app does "
            "it, as raw_decoder.py shows"
        )


def _next_commands(job):
    """{what: a command} that a user may want to run now."""
    label_format = job.state.result("convert")["label_format"]
    commands = {
        "label more images, starting from what the detector finds": _join(
            *("ssd", "detect", "--model", job.run, "--format", label_format),
            *("--output", f"{job.folder}-labels", "NEW_IMAGES"),
        )
    }
    if not verdict.is_long_past(run_files.find_peak(job.run)):
        minutes = 2 * job.request.minutes
        commands["train longer"] = _join(
            *("ssd", "quickstart", job.request.images),
            *("--output", f"{job.folder}-{minutes:g}-minutes"),
            *("--minutes", f"{minutes:g}", "--start", job.run),
        )
    commands["try it in a browser, or on a phone"] = _join("ssd", "serve", job.exports / "web")
    return commands


def _join(*words):
    return shlex.join(map(str, words))


def describe_times(seconds) -> str:
    """{step: seconds} as text, the steps of at least a second."""
    parts = []
    for name, value in seconds.items():
        minutes, rest = divmod(round(value), 60)
        if minutes or rest:
            parts.append(f"{name} {f'{minutes} min ' if minutes else ''}{rest} s")
    return ", ".join(parts)
