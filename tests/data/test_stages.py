"""The stages that the time of the input pipeline is told by."""

import tensorflow as tf

from ssd_tf.config import Augment
from ssd_tf.data import stages


def test_decoding_counts_as_decoding_whatever_the_format(small_config, striped):
    """A JPEG is decoded in the stage `decode`, where its part is cut out, a PNG where it is opened: both are told as one."""
    functions = stages._stages(
        small_config(data__augment=Augment(preset="caffe")), tf.constant([[0.0, 0, 1, 1]]), 2
    )
    for image_format, size in (("JPEG", (0, 0, 3)), ("PNG", (30, 44, 3))):
        record = tf.constant(striped.make_record(3, image=striped.picture_bytes(3, image_format)))
        value = functions["parse"](tf.constant(0, tf.int64), record)
        value = functions["open"](*value)
        assert tuple(value[1][1].shape) == size
        value = functions["decode"](*functions["zoom-out, crop, boxes"](*value))
        assert min(value[1].shape) > 0


def test_opening_is_part_of_decode(small_config, striped_data, monkeypatch):
    monkeypatch.setattr(
        stages, "_alone", lambda runs, *_: {name: 1.0 + index for index, name in enumerate(runs)}
    )
    monkeypatch.setattr(stages, "_steady", lambda *_: 100.0)
    times = stages.stage_times(small_config(), striped_data, "train", [[0.0, 0, 1, 1]], images=4)
    # In the order of the pipeline 2, 3, 4, ... milliseconds, each with the 1 that an empty stage takes: open 2, decode 4.
    assert list(times.values()) == [1, 3, 2 + 4, 5, 6, 7, 8, 100 - 36]
    assert list(times)[:3] == ["parse", "zoom-out, crop, boxes", "decode"]
