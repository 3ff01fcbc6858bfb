"""Signals, apart from the training loop."""

import logging
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ssd_tf.errors import Interrupted
from ssd_tf.training.signals import Signals

ROOT = pathlib.Path(__file__).parents[2]


def test_without_a_signal_nothing_happens():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signals.received is None
        signals.raise_if_received("stopped")
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_noted(number, code, caplog):
    with caplog.at_level(logging.INFO, logger="absl"), Signals() as signals:
        os.kill(os.getpid(), number)
        assert signals.received == number
        with pytest.raises(Interrupted, match="stopped") as caught:
            signals.raise_if_received("stopped")
    assert caught.value.exit_code == code
    assert caplog.messages == [f"{number.name}: saving after this step; a second one ends at once"]


def test_with_nothing_to_save_it_ends_what_is_going_on():
    with Signals() as signals, pytest.raises(Interrupted, match="SIGTERM: everything is saved"):
        signals.nothing_to_save = True
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_ends_the_process_at_once():
    """In a child of another process, which has not imported TensorFlow, for each signal."""
    code = (
        "import os, signal\n"
        "from ssd_tf.training.signals import Signals\n"
        "for second in (signal.SIGINT, signal.SIGTERM):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        with Signals():\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            os.kill(os.getpid(), second)\n"
        "            os.write(1, b'alive ')\n"
        "        os._exit(0)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(128 + signal.SIGINT), str(128 + signal.SIGTERM)]
    for name in ("SIGINT", "SIGTERM"):
        assert f"error: {name} again: ended without saving" in done.stderr
