"""Signals, apart from the training loop."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from ssd_tf.commandline import Interrupted
from ssd_tf.training.events import Signals

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
    with Signals() as signals:
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


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(second):
    code = (
        "import os, signal\n"
        "from ssd_tf.training.events import Signals\n"
        "with Signals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        f"    os.kill(os.getpid(), {int(second)})\n"
        "    print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 128 + second
    assert done.stdout == ""
    name = signal.Signals(second).name
    assert f"error: {name} again: ended without saving" in done.stderr
