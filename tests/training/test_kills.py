"""A run that is killed again and again ends as one that never was: bit for bit, on the CPU."""

import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from ssd_tf.commands import train
from ssd_tf.weights import run_files, runs

pytestmark = pytest.mark.integration

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = (
    "train.warmup_steps=5",
    "train.ema=0.9",
    "train.weight_decay=0.0005",
    "data.augment=light",
    "watch.log_every=7",
    "watch.images=1",
)


@pytest.fixture(scope="module")
def start(tiny_config_file, tiny_data):
    """A function: `ssd train` as a process on a run folder."""

    def run(workdir, *settings):
        command = [sys.executable, "train.py"]
        command += flags(tiny_config_file, tiny_data, workdir, settings)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    return run


def flags(config_file, data, workdir, settings):
    paths = [f"--config={config_file}", f"--data={data}", f"--workdir={workdir}"]
    return [*paths, "--set", *SETTINGS, *settings]


def finish(process, code=0):
    _, messages = process.communicate(timeout=300)
    assert process.returncode == code, messages[-3000:]
    return messages


def is_over_after(process, seconds):
    """Whether the process ends by itself in this time; if not, it is killed."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0
    return True


def wait_for_line(process, text):
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended without a line that has {text!r}")


def assert_same_end(run, expected):
    assert (run / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    for name in ("last", "best"):
        folders = [each / "checkpoints" / name for each in (run, expected)]
        prefixes = [run_files.list_checkpoints(folder) for folder in folders]
        steps = [[run_files.step_of(prefix) for prefix in each] for each in prefixes]
        assert steps[0] == steps[1], name
        arrays, expected_arrays = (runs.read_arrays(each[0]) for each in prefixes)
        assert arrays.keys() == expected_arrays.keys()
        for key, value in expected_arrays.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(arrays[key], value, f"{name}: {key}")


SHORT = ("train.steps=12", "train.checkpoint_every=3", "eval.every=6")


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """The run folder of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    finish(start(workdir, *SHORT))
    return workdir


def test_a_kill_changes_nothing(start, straight, tmp_path):
    """Step 7 comes after an evaluation, and is not saved."""
    killed = start(tmp_path / "killed", *SHORT)
    wait_for_line(killed, "step 7/12")
    killed.kill()
    killed.communicate()
    finish(start(tmp_path / "killed", *SHORT))
    assert_same_end(tmp_path / "killed", straight)


def test_a_second_process_on_the_run_and_sigterm_to_the_first(
    start, tiny_config_file, tiny_data, tmp_path, capsys
):
    settings = ("train.steps=100000", "watch.log_every=1", "data.val_split=none")
    run = tmp_path / "run"
    first = start(run, *settings)
    wait_for_line(first, "step 2/100000")
    # This process is the second.
    assert train.main(["train", *flags(tiny_config_file, tiny_data, run, settings)]) == 1
    messages = capsys.readouterr().err
    assert f"error: another process is training in {run}: wait for it" in messages
    # A signal costs at most one step.
    first.send_signal(signal.SIGTERM)
    messages = finish(first, 143)
    assert "SIGTERM: saving after this step; a second one ends at once" in messages
    (prefix,) = run_files.list_checkpoints(run / "checkpoints" / "last")
    lines = [line for line in messages.splitlines() if line.startswith("step ")]
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in lines]
    last_step = [2, *steps][-1]
    assert run_files.step_of(prefix) == last_step
    assert f"stopped at step {last_step}, which is saved" in messages


@pytest.mark.slow
def test_ten_kills_at_random_moments(start, tmp_path):
    settings = ("train.steps=200", "train.checkpoint_every=20", "eval.every=50")
    finish(start(tmp_path / "straight", *settings))
    moments = random.Random(0)
    num_kills = 0
    for _ in range(100):
        num_kills += not is_over_after(
            start(tmp_path / "killed", *settings), moments.uniform(6, 16)
        )
        if num_kills == 10:
            break
    assert num_kills == 10
    finish(start(tmp_path / "killed", *settings))
    assert_same_end(tmp_path / "killed", tmp_path / "straight")
