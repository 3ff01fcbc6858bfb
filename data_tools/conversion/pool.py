"""Runs tasks in all cores, in order of the tasks, with a progress bar; stops cleanly when it is told to or when it is killed."""

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

_SECONDS_PER_LINE = 10  # of plain progress lines, where the output is no terminal


class Stopped(Exception):
    """Raised in a worker that is told to stop."""


def count_cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(function, tasks, workers, total, what):
    """Yields function(task, tick) of each task, in their order. tick() is to be called once for each of `total` pictures."""
    with show_progress(total, what) as progress:
        if workers <= 1:
            counter = _Counter(progress)
            for task in tasks:
                yield function(task, counter.tick)
        else:
            yield from _run_in_processes(function, tasks, workers, progress)


def _run_in_processes(function, tasks, workers, progress):
    context = _make_context()
    done, stop = context.Value("q", 0), context.Value("b", 0)
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (done, stop)
    ) as executor:
        try:
            with _holding_interrupts():
                waiting = [executor.submit(_call, function, task) for task in tasks]
            for index, future in enumerate(waiting):
                yield _wait(future, waiting, lambda: progress(done.value))
                waiting[index] = None
        except concurrent.futures.process.BrokenProcessPool:
            raise OSError(
                "a worker process died, as happens where memory runs out; try fewer --workers"
            ) from None
        finally:
            stop.value = 1
            executor.shutdown(cancel_futures=True)


def _make_context():
    # Workers come from a server that has imported TensorFlow and started no thread: forking it is safe, and imports it once.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["data_tools.conversion.preloaded"])
    return context


def start_early():
    """Starts the workers' server, so that it imports while something else goes on here."""
    if _make_context().get_start_method() == "forkserver":
        multiprocessing.resource_tracker.ensure_running()  # once started inside, it would let Ctrl-C through again
        with _holding_interrupts():
            multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def _holding_interrupts():
    """Puts Ctrl-C off until the end. Processes that start meanwhile never hear it: we do, and stop them."""
    if (
        not hasattr(signal, "pthread_sigmask")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    heard = []
    handler = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    mask = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT}
    )  # children inherit a mask, and no handler
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


def _wait(future, waiting, show):
    while not future.done():
        concurrent.futures.wait([future], timeout=0.2)
        failed = next(
            (
                other
                for other in waiting
                if other is not None and other.done() and other.exception()
            ),
            None,
        )
        if failed:
            return failed.result()
        show()
    return future.result()


def _start_worker(done, stop):
    global _done, _stop
    _done, _stop = done, stop
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function, task):
    return function(task, _tick)


def _tick():
    if _stop.value:
        raise Stopped
    with _done.get_lock():
        _done.value += 1


class _Counter:
    def __init__(self, progress):
        self.done, self.progress, self.shown = 0, progress, 0.0

    def tick(self):
        self.done += 1
        if time.monotonic() - self.shown > 0.1:
            self.shown = time.monotonic()
            self.progress(self.done)


def show_waiting(what):
    """A context in which a terminal shows that something goes on whose length is not known."""
    return (
        rich.console.Console(stderr=True).status(what)
        if sys.stderr.isatty()
        else contextlib.nullcontext()
    )


@contextlib.contextmanager
def show_progress(total, what):
    """Gives a function that is told how many are done: a bar on a terminal, now and then a line elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress(total, what)
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
        task = bar.add_task(what, total=total, rate=0.0)
        yield lambda done: bar.update(
            task, completed=done, rate=done / max(time.monotonic() - start, 1e-3)
        )
        bar.update(task, completed=total)


def _plain_progress(total, what):
    start = last = None

    def show(done):
        nonlocal start, last
        now = time.monotonic()
        if start is None:  # workers take a while to begin
            start = last = now
        if done and now - last >= _SECONDS_PER_LINE:
            last, rate = now, done / (now - start)
            left = round((total - done) / rate)
            print(
                f"{what}: {done:,} of {total:,} images, {rate:.0f} images/s, {left} s left",
                file=sys.stderr,
                flush=True,
            )

    return show
