"""Milliseconds per image, by stage, and images per second."""

import time

import numpy as np

_WARM_UP_CALLS = 3
_BATCH = 8
_STAGES = ("preprocessing", "network", "postprocessing")


def measure_latency(stages, images, repeats=30) -> dict:
    """Time a detector's Stages, with one image at a time and with batches of 8.

    images: uint8 [H, W, 3], read and decoded. Returns {"per_image", "p90", "preprocessing",
    "network", "postprocessing"} in milliseconds, the first and the last three medians, and
    {"batch_1", "batch_8"} in images per second; both empty without images.
    """
    if not images:
        return {}, {}
    times = _time(stages, [[image] for image in images], repeats)
    whole = times.sum(1)
    latency = {"per_image": float(np.median(whole)), "p90": float(np.percentile(whole, 90))}
    latency |= dict(zip(_STAGES, np.median(times, 0).tolist(), strict=True))
    batch = [images[index % len(images)] for index in range(_BATCH)]
    batch_ms = np.median(_time(stages, [batch], max(repeats // _BATCH, 3)).sum(1))
    rates = {"batch_1": 1000 / latency["per_image"], "batch_8": float(1000 * _BATCH / batch_ms)}
    return latency, rates


def _time(stages, batches, repeats):
    """Milliseconds of each stage [repeats, 3], after a warm-up."""
    rows = []
    for index in range(_WARM_UP_CALLS + repeats):
        value = batches[index % len(batches)]
        marks = [time.perf_counter()]
        for stage in stages:
            value = stage(value)
            marks.append(time.perf_counter())
        rows.append(np.diff(marks) * 1000)
    return np.array(rows[_WARM_UP_CALLS:])
