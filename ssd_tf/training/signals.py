"""SIGINT and SIGTERM during a run; without TensorFlow."""

import os
import signal

from absl import logging

from ssd_tf.errors import Interrupted

_ADVICE = "run the same command again to resume"


class Signals:
    """Inside `with`, the first SIGINT or SIGTERM is only noted, unless `nothing_to_save` is true.

    A second one ends the process at once. Preemptible machines and SLURM send SIGTERM.
    """

    def __init__(self):
        self.received = None  # the number of the first signal
        self.nothing_to_save = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def raise_if_received(self, what):
        """Raise Interrupted if a signal has come; what: was stopped, and what is saved."""
        if self.received is not None:
            raise Interrupted(self.received, what, _ADVICE)

    def _handle(self, number, _frame):
        name = signal.Signals(number).name
        if self.received is not None:
            os.write(2, f"error: {name} again: ended without saving\n".encode())
            os._exit(128 + number)
        self.received = number
        if self.nothing_to_save:
            raise Interrupted(number, f"{name}: everything is saved", _ADVICE)
        logging.info("%s: saving after this step; a second one ends at once", name)
