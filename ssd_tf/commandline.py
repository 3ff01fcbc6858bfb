"""What every command shares: --help at once, one clear line instead of a traceback, exit codes 0, 1 and 2."""

import sys

from absl import flags

from ssd_tf.config import ConfigError


def new_flags() -> flags.FlagValues:
    """An empty set of flags of one command, with --help and --traceback."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error.", flag_values=values)
    return values


def run(main, values, usage, required=(), argv=None) -> int:
    """Parses argv into `values`, calls main(values, positional arguments) and returns the exit code.

    required: names of the flags that must be given (--help works without them).
    2: flags or config; 1: anything else that went wrong; 130: interrupted. Errors print one line; --traceback shows all.
    """
    try:
        rest = values(sys.argv if argv is None else argv)[1:]
    except flags.Error as error:
        return _fail(f"{error} (see --help)", 2)
    if values.help:
        print(f"{usage.strip()}\n\nflags:\n{_help(values)}")
        return 0
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
