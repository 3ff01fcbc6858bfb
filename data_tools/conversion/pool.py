"""Runs tasks on all cores, in their order, with a progress bar.

Stops cleanly when it is interrupted or killed.
"""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time

import rich.console
import rich.progress

SECONDS_PER_LINE = 10  # of plain progress lines, if the output is not a terminal
_SECONDS_PER_UPDATE = 0.1


class Stopped(Exception):
    """Raised in a worker that is told to stop."""


def count_cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(function, tasks, workers, num_images, title):
    """Yield function(task, tick) of each task, in their order.

    tick() is to be called once for each of `num_images` images; title: of the progress bar.
    """
    with show_progress(num_images, title) as show:
        if workers <= 1:
            ticker = _Ticker(show)
            for task in tasks:
                yield function(task, ticker.tick)
        else:
            yield from run_in_processes(function, tasks, workers, show)


def run_in_processes(function, tasks, workers, show):
    """As run_tasks; show(num_done) is called now and then."""
    context = _make_context()
    num_done = context.Value("q", 0)
    stop = context.Value("b", 0)
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (num_done, stop)
    ) as executor:
        try:
            with _interrupts_deferred():
                futures = [executor.submit(_call, function, task) for task in tasks]
            for index, future in enumerate(futures):
                yield _wait(future, futures, lambda: show(num_done.value))
                futures[index] = None  # frees the result
        except concurrent.futures.process.BrokenProcessPool:
            raise OSError(
                "a worker process died, as happens when memory runs out; try fewer --workers"
            ) from None
        finally:
            stop.value = 1
            executor.shutdown(cancel_futures=True)


def _make_context():
    # Workers are forked from a server that has imported TensorFlow once and started no thread.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["data_tools.conversion.preloaded"])
    return context


def start_early():
    """Start the workers' server, so that it imports while this process does other work."""
    if _make_context().get_start_method() == "forkserver":
        # If it started with interrupts deferred, it would let Ctrl-C through again.
        multiprocessing.resource_tracker.ensure_running()
        with _interrupts_deferred():
            multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def _interrupts_deferred():
    """Defer Ctrl-C to the end of the block.

    Processes that start inside never receive it: this process does, and stops them.
    """
    if (
        not hasattr(signal, "pthread_sigmask")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    received = []
    handler = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    # Children inherit a mask, but no handler.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if received:
        raise KeyboardInterrupt


def _wait(future, futures, show):
    """The result of a future; raises the error of any future that fails meanwhile."""
    while not future.done():
        concurrent.futures.wait([future], timeout=0.2)
        for other in futures:
            if other is not None and other.done() and other.exception():
                return other.result()
        show()
    return future.result()


def _start_worker(num_done, stop):
    global _num_done, _stop
    _num_done = num_done
    _stop = stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function, task):
    return function(task, _tick)


def _tick():
    if _stop.value:
        raise Stopped
    with _num_done.get_lock():
        _num_done.value += 1


class _Ticker:
    """Counts images and shows the count, not more often than is seen."""

    def __init__(self, show):
        self.show = show
        self.num_done = 0
        self.last_shown = 0.0

    def tick(self):
        self.num_done += 1
        if time.monotonic() - self.last_shown > _SECONDS_PER_UPDATE:
            self.last_shown = time.monotonic()
            self.show(self.num_done)


def show_waiting(title):
    """A context that shows on a terminal that work of unknown length is going on."""
    if sys.stderr.isatty():
        return rich.console.Console(stderr=True).status(title)
    return contextlib.nullcontext()


@contextlib.contextmanager
def show_progress(num_images, title):
    """Give a function that takes how many are done.

    It updates a bar on a terminal, and prints a line now and then elsewhere.
    """
    if not sys.stderr.isatty():
        yield _plain_progress(num_images, title)
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]:.0f} images/s"),
        rich.progress.TimeRemainingColumn(),
    )
    start = time.monotonic()
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(title, total=num_images, rate=0.0)
        yield lambda num_done: bar.update(
            task, completed=num_done, rate=num_done / max(time.monotonic() - start, 1e-3)
        )
        bar.update(task, completed=num_images)


def _plain_progress(num_images, title):
    start = last = None

    def show(num_done):
        nonlocal start, last
        now = time.monotonic()
        if start is None:  # workers take a while to begin
            start = last = now
        if num_done and now - last >= SECONDS_PER_LINE:
            last = now
            rate = num_done / (now - start)
            seconds_left = round((num_images - num_done) / rate)
            print(
                f"{title}: {num_done:,} of {num_images:,} images, {rate:.0f} images/s, "
                f"{seconds_left} s left",
                file=sys.stderr,
                flush=True,
            )

    return show
