"""Two workers with our own configs train as two replicas in one process do.

A few steps; SSD_TF_TEST_STEPS=50 and SSD_TF_TEST_BATCH=0 (the config's own) on an idle machine.
"""

import os
import sys

import numpy as np
import pytest
from worker_processes import ROOT, finish, start, start_two, two_replicas

from data_tools import voc_to_tfrecord
from ssd_tf.training.monitor import read_metrics

pytestmark = pytest.mark.slow
NUM_STEPS = int(os.environ.get("SSD_TF_TEST_STEPS", 3))
BATCH = int(os.environ.get("SSD_TF_TEST_BATCH", 8))
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


@pytest.mark.parametrize("name", CONFIGS)
def test_two_workers_train_as_two_replicas_do(bccd, shared_data, tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))

    def command(folder):
        settings = [f"train.steps={NUM_STEPS}", "watch.log_every=1", "data.val_split=none"]
        settings += ["train.warmup_steps=1", *CONFIGS[name]]
        settings += [f"train.batch_size={BATCH}"] if BATCH else []
        line = [sys.executable, "train.py", "--config", str(ROOT / "configs" / f"{name}.yaml")]
        line += ["--data", str(bccd), "--workdir", str(tmp_path / folder), "--set", *settings]
        return line

    finish([start(two_replicas(command("one")))], timeout=3000)
    finish(start_two(command("two")), timeout=3000)
    found, expected = (read_metrics(tmp_path / each / "metrics.csv") for each in ("two", "one"))
    assert [row["step"] for row in found] == [str(step + 1) for step in range(NUM_STEPS)]
    for key in ("loss", "gradient_norm", "positives_per_image"):
        numbers = [[float(row[key]) for row in rows] for rows in (found, expected)]
        # Rounding moves the choice of hard negatives from step to step.
        for step, (value, other) in enumerate(zip(*numbers, strict=True), start=1):
            np.testing.assert_allclose(value, other, rtol=1e-4 * step, err_msg=f"{key}, {step}")
