import io
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.config import check_config
from ssd_tf.data import records
from ssd_tf.files import write_json

RECORDS = 22
SHARDS = 3  # of 8, 7 and 7 records


def picture_bytes(index, image_format="JPEG"):
    """A picture 30 high and 44 wide, gray with a block, whose mean tells its index."""
    image = np.full((30, 44, 3), 10 + 10 * index, np.uint8)
    image[8:20, 10:30, 0] += 5
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


def make_record(index, **changes):
    values = {
        "image": picture_bytes(index),
        "image_format": "jpeg",
        "height": 30,
        "width": 44,
        "filename": f"{index}.jpg",
    }
    values |= {
        "source_id": f"id{index}",
        "boxes": [[8 / 30, 10 / 44, 20 / 30, 30 / 44]],
        "labels": [1 + index % 2],
        "texts": ["a"],
    }
    return records.make_example(**{**values, **changes}).SerializeToString()


def write_data(folder, changed=None):
    """A data set of RECORDS pictures in SHARDS files; changed maps the index of a record to other bytes."""
    shards = [f"train-{k:05d}-of-{SHARDS:05d}.tfrecord" for k in range(SHARDS)]
    for number, shard in enumerate(shards):
        with tf.io.TFRecordWriter(str(folder / shard)) as writer:
            for index in range(number, RECORDS, SHARDS):
                writer.write((changed or {}).get(index) or make_record(index))
    classes = [{"name": "a", "id": 4}, {"name": "b", "id": 9}]
    split = {
        "images": RECORDS,
        "boxes": RECORDS,
        "ignored": 0,
        "shards": shards,
        "repaired": {},
        "dropped": [],
    }
    write_json(
        folder / "dataset.json", {"version": 1, "classes": classes, "splits": {"train": split}}
    )
    return folder


@pytest.fixture(scope="session")
def striped():
    """The functions that make records and data sets of them."""
    return types.SimpleNamespace(
        picture_bytes=picture_bytes, make_record=make_record, write_data=write_data
    )


@pytest.fixture(scope="session")
def striped_data(tmp_path_factory):
    """Record k of the 22 lies in shard k % 3; its picture's mean is about 10 + 10 k."""
    return write_data(tmp_path_factory.mktemp("striped"))


@pytest.fixture
def small_config():
    """A function: a config of batches of 4 at 24 x 36 pixels with some values replaced (section__key=value)."""

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
