import types

import data_sets
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.data import pipeline, records

RECORDS = 22
SHARDS = 3  # of 8, 7 and 7 records


def image_bytes(index, image_format="JPEG"):
    """An image 30 high and 44 wide, gray with a block; its mean identifies its index."""
    image = np.full((30, 44, 3), 10 + 10 * index, np.uint8)
    image[8:20, 10:30, 0] += 5
    return data_sets.encode(image, image_format)


def make_record(index, **changes):
    values = {
        "image": image_bytes(index),
        "image_format": "jpeg",
        "height": 30,
        "width": 44,
        "filename": f"{index}.jpg",
        "source_id": f"id{index}",
        "boxes": [[8 / 30, 10 / 44, 20 / 30, 30 / 44]],
        "labels": [1 + index % 2],
        "texts": ["a"],
    }
    return records.make_example(**(values | changes)).SerializeToString()


def write_data(folder, changed=None):
    """A data set of RECORDS images in SHARDS files.

    changed: {index of a record: its bytes instead}.
    """
    shards = [
        [(changed or {}).get(i) or make_record(i) for i in range(first, RECORDS, SHARDS)]
        for first in range(SHARDS)
    ]
    classes = [{"name": "a", "id": 4}, {"name": "b", "id": 9}]
    split = data_sets.write_split(folder, "train", shards, num_boxes=RECORDS)
    return data_sets.write_classes(folder, classes, {"train": split})


@pytest.fixture(scope="session")
def striped():
    """The functions that make images, records and data sets."""
    return types.SimpleNamespace(
        image_bytes=image_bytes, make_record=make_record, write_data=write_data
    )


@pytest.fixture(scope="session")
def striped_data(tmp_path_factory):
    """Record i of the 22 lies in shard i % 3; the mean of its image is about 10 + 10 i."""
    return write_data(tmp_path_factory.mktemp("striped"))


@pytest.fixture(scope="session")
def traced():
    """{what determines it: the tf.function that prepares a record}."""
    return {}


@pytest.fixture(autouse=True)
def traced_once(monkeypatch, traced):
    """To trace how a record is prepared takes a second: once for all streams of a config."""
    make_prepare = pipeline.make_prepare
    signature = [tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)]

    def make(config, default_boxes, num_classes, *level_of_box, **more):
        prepare = make_prepare(config, default_boxes, num_classes, *level_of_box, **more)
        is_stream_of_multibox = len(level_of_box) == 1 and level_of_box[0] is None
        if not is_stream_of_multibox:
            return prepare
        changes = {"on_bad_record": "stop", "shard": "record"}
        config = config.model_copy(update={"data": config.data.model_copy(update=changes)})
        key = (config, default_boxes.tobytes(), num_classes)
        function = tf.function(prepare, input_signature=signature, autograph=False)
        return traced.setdefault(key, function)

    monkeypatch.setattr(pipeline, "make_prepare", make)


@pytest.fixture
def small_config():
    """A function that makes a config: batches of 4, 24 x 36 pixels; changes: section__key=value."""

    def make(**changes):
        values = {
            "model": {"input_hw": [24, 36]},
            "boxes": {"preset": "caffe_voc"},
            "data": {"shuffle_buffer": 5, "augment": "none"},
            "train": {"batch_size": 4, "seed": 3},
        }
        for path, value in changes.items():
            section, key = path.split("__")
            values[section][key] = value
        return check_config(values, "test")

    return make
