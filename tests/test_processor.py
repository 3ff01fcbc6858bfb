"""The cores of this process; whether TensorFlow uses oneDNN, and what is set when it does."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ssd_tf import processor

ROOT = pathlib.Path(__file__).parents[1]
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"

ASK = """
import json
import ssd_tf
from ssd_tf import processor
ssd_tf.build_model
import tensorflow as tf
remapping = tf.config.optimizer.get_experimental_options().get("remapping", True)
print(json.dumps([processor.uses_onednn(), remapping]))
"""


@pytest.mark.parametrize(
    ("machine", "given", "expected"),
    [
        ("x86_64", None, "1"),
        ("AMD64", None, "1"),
        ("x86_64", "0", "0"),
        ("x86_64", "1", "1"),
        ("aarch64", None, None),
        ("arm64", None, None),
        ("arm64", "1", "1"),
    ],
)
def test_it_is_on_for_x86_unless_the_user_decides(monkeypatch, machine, given, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.delenv(VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(VARIABLE, given)
    processor.turn_on_onednn()
    assert os.environ.get(VARIABLE) == expected


def test_only_the_cores_of_this_process_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert processor.usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert processor.usable_cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processor.usable_cores() == 1


@pytest.mark.integration
def test_a_process_without_avx512():
    """That a process does without oneDNN is tested in tests/commands/test_train.py."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    environment.pop(VARIABLE, None)
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    is_on, remapping = json.loads(done.stdout)
    # Nothing is fused if oneDNN is on, whatever the processor is.
    assert remapping is not is_on


def test_fusions_are_off_only_without_avx512(monkeypatch):
    import tensorflow as tf

    chosen = []
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", chosen.append)
    for is_on, limit, has_avx512, expected in (
        (True, "AVX2", True, True),
        (True, "sse41", True, True),
        (False, "AVX2", True, False),
        (True, "AVX512_CORE", True, False),
        (True, "AVX512_CORE", False, True),
        (False, "DEFAULT", False, False),
    ):
        monkeypatch.setattr(processor, "uses_onednn", lambda is_on=is_on: is_on)
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        names = ("AVX512F", "AVX512BW", "AVX512VL") if has_avx512 else ("AVX2",)
        features = dict.fromkeys(names, True)
        monkeypatch.setattr("numpy._core._multiarray_umath.__cpu_features__", features)
        chosen.clear()
        processor.avoid_slow_fusions(tf)
        assert chosen == [{"remapping": False}] * expected, (is_on, limit, has_avx512)
