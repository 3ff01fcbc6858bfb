"""The stages that the timing of the input pipeline reports."""

import types

import numpy as np
import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import pipeline, timing

DEFAULT_BOXES = np.array([[0.2, 0.2, 0.7, 0.7], [0, 0, 1, 1]], np.float32)
NETWORK = types.SimpleNamespace(default_boxes=DEFAULT_BOXES, level_of_box=np.array([0, 1]))


def test_decoding_counts_as_decoding_in_any_format(small_config, striped):
    """A JPEG is decoded in the stage `decode`, a PNG in `open`: both are reported as `decode`."""
    config = small_config(data__augment=Augment(preset="caffe"))
    functions = pipeline.make_stages(config, DEFAULT_BOXES, 2)
    for image_format, size in (("JPEG", (0, 0, 3)), ("PNG", (30, 44, 3))):
        record = tf.constant(striped.make_record(3, image=striped.image_bytes(3, image_format)))
        value = functions["parse"](tf.constant(0, tf.int64), record)
        _, opened, _ = value = functions["open"](*value)
        assert tuple(opened.pixels.shape) == size
        _, part, *_ = functions["decode"](*functions["zoom-out, crop, boxes"](*value))
        assert min(part.shape) > 0


def test_opening_is_part_of_decode(small_config, striped_data, monkeypatch):
    def time_on_demand(runs, *_):
        return {name: 1.0 + index for index, name in enumerate(runs)}

    monkeypatch.setattr(timing, "time_on_demand", time_on_demand)
    monkeypatch.setattr(timing, "time_batches", lambda *_: 100.0)
    times = timing.stage_times(small_config(), striped_data, "train", NETWORK)
    # In the order of the pipeline 2, 3, 4, ... milliseconds, each with the 1 that an empty stage
    # takes: open 2, decode 4.
    assert list(times.values()) == [1, 3, 2 + 4, 5, 6, 7, 8, 100 - 36]
    assert list(times)[:3] == ["parse", "zoom-out, crop, boxes", "decode"]
