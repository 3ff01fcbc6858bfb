"""Runs tasks on all cores, or on Apache Beam, in their order, with a progress bar.

Stops cleanly when it is interrupted or killed.
"""

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pathlib
import pickle
import signal
import sys
import threading
import time

import rich.console
import rich.progress

SECONDS_PER_LINE = 10  # of plain progress lines, if the output is not a terminal


class Stopped(Exception):
    """Raised in a worker that is told to stop."""


def run_tasks(function, tasks, workers, num_images, title):
    """Yield function(task, tick) of each task, in their order.

    tick() is to be called once for each of `num_images` images; title: of the progress bar.
    """
    with show_progress(title, num_images) as show:
        if workers > 1:
            yield from run_in_processes(function, tasks, workers, show)
            return
        num_done = itertools.count(1)
        for task in tasks:
            yield function(task, lambda: show(next(num_done)))


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


@contextlib.contextmanager
def show_progress(title, num_images=None):
    """A context with a function that takes how many images are done.

    It updates a bar on a terminal, and prints a line now and then elsewhere. num_images None:
    unknown; this shows on a terminal only.
    """
    if not sys.stderr.isatty():
        yield _plain_progress(title, num_images)
        return
    columns = [rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn()]
    if num_images is not None:
        columns += [
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[rate]:.0f} images/s"),
            rich.progress.TimeRemainingColumn(),
        ]
    start = time.monotonic()
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=num_images is None) as bar:
        task = bar.add_task(title, total=num_images, rate=0.0)
        yield lambda num_done: bar.update(
            task, completed=num_done, rate=num_done / max(time.monotonic() - start, 1e-3)
        )
        bar.update(task, completed=num_images)


def _plain_progress(title, num_images):
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


def run_on_beam(function, tasks, runner, arguments):
    """Yield function(task, tick) of each task, in order, once a whole Apache Beam pipeline has run.

    runner: name of a Beam runner; arguments: its own options. Its workers must see the images and
    the output folder under the same paths as this process. Raises OSError if the pipeline fails,
    ValueError if apache-beam is not installed.
    """
    try:
        import apache_beam
    except ImportError:
        raise ValueError(
            "--beam_runner needs apache-beam, which is not installed: pip install 'ssd-tf[beam]'"
        ) from None
    # Tasks travel through the output folder: a pipeline may hold a few megabytes only.
    for task in tasks:
        _beam_file(task.path, "task").write_bytes(pickle.dumps((function, task)))
    make_options = apache_beam.options.pipeline_options.PipelineOptions
    pipeline_options = make_options([f"--runner={runner}", *arguments])
    try:
        with apache_beam.Pipeline(options=pipeline_options) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create([task.path for task in tasks])
                | apache_beam.Reshuffle()
                | apache_beam.Map(_run_on_beam)
            )
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise OSError(f"the Beam pipeline on {runner} failed: {first_line}") from None
    for task in tasks:
        yield pickle.loads(_beam_file(task.path, "result").read_bytes())
        _beam_file(task.path, "task").unlink()
        _beam_file(task.path, "result").unlink()


def _run_on_beam(path):
    function, task = pickle.loads(_beam_file(path, "task").read_bytes())
    _beam_file(path, "result").write_bytes(pickle.dumps(function(task, lambda: None)))


def _beam_file(path, kind):
    """The file of a task, or of its result, beside the shard that it writes to `path`."""
    return pathlib.Path(f"{path}.{kind}")
