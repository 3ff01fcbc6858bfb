"""`quickstart(images)`: from a folder of labelled images to a verified detector for a phone."""

import math
import os
import pathlib
import shlex
import signal
import time
from collections.abc import Sequence

from data_tools.recognise import FORMATS, recognise
from ssd_tf import commandline, files, long_tasks
from ssd_tf.config import check_overrides
from ssd_tf.errors import ConfigError, Interrupted
from ssd_tf.quickstarting import starts, summary
from ssd_tf.quickstarting.job import Job
from ssd_tf.quickstarting.state import Request, State
from ssd_tf.results import Result
from ssd_tf.user_files import check_exists, check_output_folder

MIN_MINUTES = 0.1
LABEL_FORMATS = tuple(FORMATS)
_PREPARATIONS = ("convert", "look", "start", "choose")  # the steps before the training
_DEFAULTS = Request(pathlib.Path())


def quickstart(
    images: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    minutes: float = 15,
    start: str | None = None,
    classes: Sequence[str] = (),
    label_format: str | None = None,
    overrides: Sequence[str] = (),
) -> Result:
    """Convert, train, evaluate and export with settings that follow from the data.

    images: a folder of labelled images. output: a folder for all results; default: beside `images`,
    with `-ssd` after its name. minutes: of training. start: the weights to start from, a name of
    `ssd import --list`, a file, a run folder, `imagenet` or `scratch`; default: the best that can
    be had. classes: names of those to learn; default: all. label_format: a
    format of `ssd convert`, such as yolo; default: recognised. overrides: `KEY=VALUE` for keys of
    the config.

    Prints each step as the command that does it. The same call after an interruption continues;
    after the end it does nothing. Returns a Result with the table of the formats. Raises
    ConfigError for labels that are not recognised and for an output folder of another request,
    ValueError or OSError for data that cannot be used, Interrupted after a signal.
    """
    check_exists(images, "folder of images")
    images = pathlib.Path(images)
    if not images.is_dir():
        raise ConfigError(f"expected a folder of labelled images, got the file {images}")
    request = Request(images, float(minutes), start, tuple(classes), label_format, tuple(overrides))
    if not MIN_MINUTES <= request.minutes < math.inf:
        raise ConfigError(f"--minutes: expected at least {MIN_MINUTES}, got {request.minutes:g}")
    check_overrides(request.overrides)
    folder = choose_folder(images, output)
    check_output_folder(folder)
    message = f"another process is working in {folder}: wait for it, or stop it"
    with files.lock_folder(folder, message):
        state = State(folder, request)
        job = Job(request, folder, state, _command(request, output))
        if state.is_finished():
            print(f"{folder} is finished: nothing to do")
        else:
            _run(job)
        result = summary.summarise(job)
        summary.print_summary(job, result)
    return result


def choose_folder(images, output) -> pathlib.Path:
    """The output folder. Raises ConfigError if it would lie in the folder of images."""
    if output is None:
        resolved = images.resolve()
        name = f"{resolved.name}-ssd"
        return images.parent / name if images.name == resolved.name else resolved.parent / name
    folder = pathlib.Path(output)
    if folder.resolve().is_relative_to(images.resolve()):
        raise ConfigError(
            f"--output: {folder} is in {images}, where its files would be taken for images: name a "
            "folder beside it"
        )
    return folder


def _run(job):
    """Run the steps that are not done."""
    if job.request.start is not None and not job.state.is_done("start"):
        next(starts.find_starts(job.request.start))  # raises, before the time of a conversion
    if not job.state.is_done("convert"):
        request = job.request
        job.recognised = recognise(request.images, request.label_format, request.classes)
        print(f"labels: {job.recognised.label_format} ({job.recognised.reason})")
    print(f"results: {job.folder}")
    print("after each $: a command that you could run yourself; hints below it name its flags")
    commandline.import_tensorflow()
    from ssd_tf.quickstarting.steps import STEPS

    done = [step.name for step in STEPS if job.state.is_done(step.name)]
    if "train" not in done:
        # The run folder was removed: what was made of that run says nothing of a new one.
        done = [name for name in done if name in _PREPARATIONS]
    if done:
        print(f"continuing; done before: {', '.join(done)}")
    job.state.start()
    try:
        with long_tasks.end_by_signals():
            for number, step in enumerate(STEPS, 1):
                if step.name not in done:
                    print(f"\n[{number}/{len(STEPS)}] {step.title}", flush=True)
                    _run_step(job, step)
    except KeyboardInterrupt:
        raise _interrupted(job, signal.SIGINT, "interrupted") from None
    except Interrupted as error:
        raise _interrupted(job, error.signal_number, error.what) from None
    except Exception:
        job.state.abandon()
        raise
    job.state.finish()


def _interrupted(job, signal_number, what):
    advice = f"run the same command again to continue: {job.command}"
    return Interrupted(signal_number, what, advice)


def _run_step(job, step):
    job.commands = []
    begin = time.monotonic()
    try:
        done = step.run(job)
    except BaseException:
        job.state.note_stop(step.name, time.monotonic() - begin)
        raise
    job.state.note(step.name, done, job.commands, time.monotonic() - begin)


def _command(request, output):
    """What the user ran, as text."""
    words = ["ssd", "quickstart", str(request.images)]
    if output is not None:
        words += ["--output", str(output)]
    if request.minutes != _DEFAULTS.minutes:
        words += ["--minutes", f"{request.minutes:g}"]
    if request.start is not None:
        words += ["--start", request.start]
    if request.classes:
        words += ["--classes", ",".join(request.classes)]
    if request.label_format is not None:
        words += ["--format", request.label_format]
    for override in request.overrides:
        words += ["--set", override]
    return shlex.join(words)
