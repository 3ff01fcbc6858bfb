"""The frame of all commands: a fast --help, errors as one line, exit codes 0, 1 and 2."""

import contextlib
import contextvars
import gc
import logging as python_logging
import os
import shlex
import signal
import sys
import tempfile

from absl import flags, logging

from ssd_tf import pixels, processor
from ssd_tf.errors import ConfigError, Interrupted, end_quietly

# absl appends it to the help of flags that may be repeated; our help texts already say so.
_ABSL_ADVICE = ";\n    repeat this option"
_is_part = contextvars.ContextVar("is_part", default=False)  # of a larger command
# False in a user's own program.
_owns_process = contextvars.ContextVar("owns_process", default=False)


def new_flags() -> flags.FlagValues:
    """A set of flags for one command, with --help and --traceback."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    flags.DEFINE_bool("traceback", False, "Show the traceback of an error.", flag_values=values)
    return values


def run(main, values, usage, required=(), argv=None) -> int:
    """Parse argv into `values`, call main(values, positional arguments), return the exit code.

    required: names of the flags that must be given; --help works without them.
    Exit codes: 2 for flags and config, 1 for any other error, 130 for an interruption (128 + the
    number of another signal). An error prints one line; --traceback raises it instead. Inside
    `as_part`, an interruption is raised.
    """
    for name in values:
        values[name].unparse()  # forgets an earlier call in this process
    try:
        positional = values(sys.argv if argv is None else argv)[1:]
    except flags.Error as error:
        return _fail(f"{error} (see --help)", 2)
    if values.help:
        print(f"{usage.strip()}\n\nflags:\n{_describe_flags(values)}")
        return 0
    _set_up_logging()
    if hasattr(sys.stdout, "reconfigure"):
        # File names may hold bytes that are not Unicode, or characters that the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        missing = [f"--{name}" for name in required if values[name].value in (None, [], "")]
        if missing:
            raise flags.Error(f"missing {', '.join(missing)} (see --help)")
        return _call(main, values, positional)
    except (ConfigError, flags.Error) as error:
        return _report(error, values, 2)
    except KeyboardInterrupt:
        return _end(Interrupted(signal.SIGINT, "interrupted"))
    except Interrupted as error:
        return _end(error)
    except BrokenPipeError:
        return end_quietly()
    except Exception as error:
        if _follows_interruption(error):
            return _end(Interrupted(signal.SIGINT, "interrupted"))
        return _report(error, values, 1)


def _call(main, values, positional):
    token = _owns_process.set(_owns_process.get() or not _is_part.get())
    try:
        return main(values, positional) or 0
    finally:
        _owns_process.reset(token)


def read_gray_range(values) -> tuple[int, int] | None:
    """--gray_range as two numbers. Raises flags.Error if it is anything else."""
    if values.gray_range is None:
        return None
    try:
        return pixels.parse_gray_range(values.gray_range)
    except ValueError as error:
        raise flags.Error(f"--gray_range: {error}") from None


def print_next(*commands):
    """Print the commands that usually follow, lists of words, as a user would type them."""
    if _is_part.get():
        return
    for index, words in enumerate(commands):
        print("next: " if index == 0 else "  or: ", shlex.join(map(str, words)), sep="")


@contextlib.contextmanager
def as_part():
    """Inside `with`, commands are steps of a larger one, which knows what follows.

    `print_next` prints nothing, and `run` leaves it to the larger one to report an interruption.
    """
    token = _is_part.set(True)
    try:
        yield
    finally:
        _is_part.reset(token)


def import_tensorflow():
    """Import TensorFlow without the lines that its C++ code prints then at any log level."""
    if "tensorflow" not in sys.modules:
        with _loading_shown(), quiet_stderr(), _without_collector():
            import tensorflow

            tensorflow.config.list_physical_devices()
    processor.avoid_slow_fusions(sys.modules["tensorflow"])


@contextlib.contextmanager
def _loading_shown():
    """Inside `with`, stderr says that TensorFlow is being loaded, if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    print("loading TensorFlow ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _without_collector():
    """Inside `with`, the garbage collector is off: it would walk through TensorFlow many times.

    In a process of a command it leaves TensorFlow alone later, too. A user's program may have
    objects that it would never free then.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        if _owns_process.get():
            gc.freeze()
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def quiet_stderr():
    """Hold back what C++ code writes to stderr; it is shown if an exception is raised."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught, contextlib.ExitStack() as stack:
        terminal = os.dup(2)
        stack.callback(os.close, terminal)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except BaseException:
            caught.seek(0)
            os.write(terminal, caught.read())
            raise
        finally:
            os.dup2(terminal, 2)


def _set_up_logging():
    """Log messages go to stderr as plain lines; warnings begin with `warning:`."""
    # Parses absl's own flags, or absl complains about logging before flag parsing.
    flags.FLAGS(sys.argv[:1])
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(_is_shown)


def _is_shown(record):
    """False for TensorFlow's own log messages below a warning."""
    return record.levelno > python_logging.INFO or "tensorflow" not in record.pathname


class _PlainFormatter(python_logging.Formatter):
    def format(self, record):
        text = record.getMessage()
        if record.levelno <= python_logging.INFO:
            return text
        return f"{record.levelname.lower()}: {text}"


def _end(interruption):
    """Report an interruption, which is no error, and return the exit code."""
    if _is_part.get():
        raise interruption
    print(interruption, file=sys.stderr)
    return interruption.exit_code


def _follows_interruption(error):
    """Whether Ctrl-C led to the error: TensorFlow's own clean-up may fail after it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _report(error, values, code):
    if values.traceback:
        raise error
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (ValueError, OSError, flags.Error)):
        text = f"{type(error).__name__}: {text} (--traceback shows where)"
    return _fail(text, code)


def _fail(text, code):
    print(f"error: {text}", file=sys.stderr)
    return code


def _describe_flags(values):
    """One line per flag: its name, what it does and its default."""
    lines = []
    for name in sorted(values):
        flag = values[name]
        if name == flag.name:
            text = flag.help.partition(_ABSL_ADVICE)[0]
            lines.append(f"  --{name}: {text}{_describe_default(flag.default)}")
    return "\n".join(lines)


def _describe_default(default):
    """The end of a flag's line; empty if it has no default to speak of."""
    if default in (None, False, "", []):
        return ""
    value = ",".join(default) if isinstance(default, list) else default
    return f" (default: {value})"
