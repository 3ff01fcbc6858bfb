"""Two workers with our own configs train as two replicas in one process do.

A few steps; SSD_TF_TEST_STEPS=50 and SSD_TF_TEST_BATCH=0 (the config's own) on an idle machine.
"""

import os
import sys

import numpy as np
import pytest
from worker_processes import ROOT, finish, start, start_two, two_replicas

from data_tools import voc_to_tfrecord
from ssd_tf.config import load_config
from ssd_tf.training.monitor import read_metrics

pytestmark = pytest.mark.slow
NUM_STEPS = int(os.environ.get("SSD_TF_TEST_STEPS", 3))
BATCH = int(os.environ.get("SSD_TF_TEST_BATCH", 8))
# Other kernels, which round differently: those of TensorFlow, and those of older processors.
OTHER_KERNELS = {
    "plain": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "sse41": {"TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
# What our folder of weights lacks, and what a user without it is told to set.
WITHOUT_WEIGHTS = ("init_from=null", "model.backbone.frozen_stages=0")
CONFIGS = {
    "finetune_imagenet": WITHOUT_WEIGHTS,
    "ssdlite320_mobilenet_v3_coco": (),
    "bccd_mobilenet": (),
}


@pytest.fixture(scope="module")
def bccd(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bccd")
    argv = ["convert", f"--voc={shared_data / 'bccd'}", f"--output={folder}"]
    assert voc_to_tfrecord.main(argv) == 0
    return folder


def first_rates(name):
    """Settings that give a run of NUM_STEPS the learning rates with which the config begins.

    Its full rate at the first step would magnify rounding to another run within four steps.
    """
    train = load_config(ROOT / "configs" / f"{name}.yaml").train
    warmup_steps = min(train.warmup_steps, NUM_STEPS - 1)
    rate = train.learning_rate * warmup_steps / train.warmup_steps
    return [f"train.warmup_steps={warmup_steps}", f"train.learning_rate={rate}"]


@pytest.mark.parametrize("name", CONFIGS)
def test_two_workers_train_as_two_replicas_do(bccd, shared_data, tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))

    def command(folder):
        settings = [f"train.steps={NUM_STEPS}", "watch.log_every=1", "data.val_split=none"]
        settings += [*first_rates(name), *CONFIGS[name]]
        settings += [f"train.batch_size={BATCH}"] if BATCH else []
        line = [sys.executable, "train.py", "--config", str(ROOT / "configs" / f"{name}.yaml")]
        line += ["--data", str(bccd), "--workdir", str(tmp_path / folder), "--set", *settings]
        return line

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    finish([start(two_replicas(command("one")))], timeout=3000)
    finish(start_two(command("two")), timeout=3000)
    for other, variables in OTHER_KERNELS.items():
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        finish([start(two_replicas(command(other)))], timeout=3000)
    one, two, *others = (
        read_metrics(tmp_path / run / "metrics.csv") for run in ("one", "two", *OTHER_KERNELS)
    )
    assert [row["step"] for row in two] == [str(step + 1) for step in range(NUM_STEPS)]
    for key in ("loss", "gradient_norm", "positives_per_image"):
        expected, found, *rounded = (
            np.array([float(row[key]) for row in rows]) for rows in (one, two, *others)
        )
        # Rounding moves the choice of hard negatives from step to step: workers may differ by as
        # much as that does. Before it has, in the first step, they differ by nothing.
        rounding = np.maximum.accumulate(abs(np.array(rounded) - expected).max(axis=0))
        tolerance = 1e-4 * np.arange(1, NUM_STEPS + 1) * abs(expected) + 3 * rounding
        assert (abs(found - expected) <= tolerance).all(), key
