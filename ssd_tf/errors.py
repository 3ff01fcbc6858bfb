"""Errors of the project's own, the texts of errors of others, and the end after a broken pipe."""

import os
import sys

_BROKEN_PIPE = 141  # 128 + SIGPIPE: the exit code of other programs


class ConfigError(ValueError):
    """An experiment file, key or value that cannot be used; the message gives its path."""


class InputTooSmallError(ValueError):
    """A map of a network vanishes before the last one: a larger input or fewer maps help."""


class Interrupted(BaseException):
    """A signal ended the command; the exit code is 128 + its number.

    Derives from BaseException, as KeyboardInterrupt does, so that `except Exception` does not
    swallow it.
    """

    def __init__(self, signal_number, what, advice=""):
        """what: was stopped, and what is saved. advice: how to continue."""
        super().__init__(f"{what}; {advice}" if advice else what)
        self.signal_number = signal_number
        self.what = what
        self.exit_code = 128 + signal_number


def shorten(error) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:120]


def end_quietly() -> int:
    """Drop what is printed from now on, as nobody reads stdout any more; returns the exit code.

    After `ssd --help | head -1` Python would complain about the pipe as it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE
