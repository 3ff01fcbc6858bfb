"""What tasks of many images need: a progress bar, an end by signals, and numbers as they print."""

import contextlib
import signal
import sys

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssd_tf.errors import Interrupted


@contextlib.contextmanager
def end_by_signals():
    """Inside `with`, SIGTERM and SIGHUP raise Interrupted, so that unfinished files are completed.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """

    def handle(number, _frame):
        raise Interrupted(number, f"ended by {signal.Signals(number).name}")

    previous = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def progress(description, total):
    """A progress bar on a terminal: a function (result, count) -> result, which moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(description, total=total)

        def advance(result, count=1):
            bar.advance(task, count)
            return result

        yield advance


def format_metric(value) -> str:
    """A metric with three decimals; a dash for -1, which is COCO's for nothing to measure."""
    return "-" if value == -1 else f"{value:.3f}"
