"""What every command shares: --help at once, one clear line instead of a traceback, exit codes 0, 1 and 2."""

import contextlib
import logging as python_logging
import os
import sys
import tempfile

from absl import flags, logging

from ssd_tf.config import ConfigError


def new_flags() -> flags.FlagValues:
    """An empty set of flags of one command, with --help and --traceback."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    flags.DEFINE_bool(
        "traceback", False, "Show the whole traceback of an error.", flag_values=values
    )
    return values


def run(main, values, usage, required=(), argv=None) -> int:
    """Parses argv into `values`, calls main(values, positional arguments) and returns the exit code.

    required: names of the flags that must be given (--help works without them).
    2: flags or config; 1: anything else that went wrong; 130: interrupted. Errors print one line; --traceback shows all.
    """
    for name in values:
        values[name].unparse()  # what an earlier call in this process left
    try:
        rest = values(sys.argv if argv is None else argv)[1:]
    except flags.Error as error:
        return _fail(f"{error} (see --help)", 2)
    if values.help:
        print(f"{usage.strip()}\n\nflags:\n{_help(values)}")
        return 0
    _log_plainly()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # file names need not be Unicode, nor terminals know all of it
    try:
        missing = [f"--{name}" for name in required if values[name].value in (None, [], "")]
        if missing:
            raise flags.Error(f"missing {', '.join(missing)} (see --help)")
        return main(values, rest) or 0
    except (ConfigError, flags.Error) as error:
        return _report(error, values, 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        return _report(error, values, 1)


def import_tensorflow():
    """Imports TensorFlow without the lines that its C++ side prints at that (no log level silences those)."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught, contextlib.ExitStack() as stack:
        terminal = os.dup(2)
        stack.callback(os.close, terminal)
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices()
        except BaseException:
            caught.seek(0)
            os.write(terminal, caught.read())
            raise
        finally:
            os.dup2(terminal, 2)


def _log_plainly():
    """Log lines go to stderr as they are, warnings with the word before them."""
    flags.FLAGS(
        sys.argv[:1]
    )  # absl's own flags, so that it does not speak of "logging before flag parsing"
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(
        lambda record: record.levelno > python_logging.INFO or "tensorflow" not in record.pathname
    )


class _PlainFormatter(python_logging.Formatter):
    def format(self, record):
        text = record.getMessage()
        return (
            text if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: {text}"
        )


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


def _help(values):
    lines = []
    for name in sorted(values):
        flag = values[name]
        if name == flag.name:
            default = "" if flag.default in (None, False, []) else f" (default: {flag.default})"
            lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join(lines)
