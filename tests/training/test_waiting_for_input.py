"""The seconds that a step waits for its batch, on a processor with one core."""

import subprocess
import sys

import pytest

ONE_CORE = """
import time
import ssd_tf
import tensorflow as tf
from ssd_tf.training import step

tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.threading.set_intra_op_parallelism_threads(1)
kernel = tf.random.normal([500, 500])
batches = iter(tf.data.Dataset.range(100).prefetch(2))

@tf.function(autograph=False)
def run():
    batch, seconds = step._timed_next(batches)
    values = kernel + tf.cast(batch, tf.float32)
    for _ in range(40):
        values = tf.matmul(values, kernel) * 0.01
    return tf.reduce_sum(values), seconds

run()
start = time.perf_counter()
_, seconds = run()
print(float(seconds) / (time.perf_counter() - start))
"""


@pytest.mark.integration
def test_the_step_itself_does_not_count():
    command = [sys.executable, "-c", ONE_CORE]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 0.5
