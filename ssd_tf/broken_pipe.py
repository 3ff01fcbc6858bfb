"""A quiet end when nobody reads stdout any more, as after `ssd --help | head -1`."""

import os
import sys

EXIT_CODE = 141  # 128 + SIGPIPE, as of other programs


def reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads; what is printed from then on is dropped.

    Otherwise Python would complain about the pipe as it ends.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
