import types

import pytest

from ssd_tf.evaluation import latency


def test_without_images():
    assert latency.measure_latency([], []) == ({}, {})


def test_rates_and_medians(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(latency, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def stage(seconds_per_call, seconds_per_image):
        def run(images):
            now[0] += seconds_per_call + seconds_per_image * len(images)
            return images

        return run

    # 2 ms, 7 ms and 1 ms for one image; 16 ms, 28 ms and 8 ms for eight.
    stages = [stage(0, 0.002), stage(0.004, 0.003), stage(0, 0.001)]
    times, rates = latency.measure_latency(stages, ["a", "b", "c"])
    assert times == pytest.approx(
        {"per_image": 10, "p90": 10, "preprocessing": 2, "network": 7, "postprocessing": 1}
    )
    assert rates == pytest.approx({"batch_1": 100, "batch_8": 8 / 0.052})
