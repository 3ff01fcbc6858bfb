"""A quiet end when nobody reads stdout any more, as after `ssd --help | head -1`."""

import os
import sys

_EXIT_CODE = 141  # 128 + SIGPIPE, as of other programs


def end_quietly() -> int:
    """Drop what is printed from now on; returns the exit code.

    Otherwise Python would complain about the pipe as it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _EXIT_CODE
