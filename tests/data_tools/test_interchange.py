"""Records made for the TF Object Detection API are read, and ours parse with its keys."""

import hashlib
import io

import data_sets
import numpy as np
import pytest
import small_networks
import tensorflow as tf
from PIL import Image

from ssd_tf.data import records
from ssd_tf.data.decoding import decode_image


def write_third_party_record(path):
    """A PNG, labels with a gap, no optional keys: what scripts for that API write."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((30, 50, 3), (10, 200, 30), np.uint8)).save(buffer, "PNG")

    def floats(*values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()])),
        "image/object/bbox/xmin": floats(0.1, 0.5),
        "image/object/bbox/xmax": floats(0.4, 0.9),
        "image/object/bbox/ymin": floats(0.2, 0.0),
        "image/object/bbox/ymax": floats(0.8, 0.6),
        "image/object/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 3])),
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(
            tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        )


def test_third_party_record_is_read(tmp_path):
    write_third_party_record(tmp_path / "a.tfrecord")
    (serialized,) = tf.data.TFRecordDataset(str(tmp_path / "a.tfrecord"))
    example = records.parse_example(serialized)
    assert (int(example["height"]), int(example["width"])) == (30, 50)
    assert example["labels"].numpy().tolist() == [1, 3]
    np.testing.assert_allclose(example["boxes"][1], [0.0, 0.5, 0.6, 0.9], rtol=1e-6)
    assert not example["crowd"].numpy().any() and not example["difficult"].numpy().any()
    np.testing.assert_allclose(
        example["area"], [0.6 * 30 * 0.3 * 50, 0.6 * 30 * 0.4 * 50], rtol=1e-5
    )
    assert decode_image(example["image"]).numpy()[7, 9].tolist() == [10, 200, 30]


def test_third_party_record_with_a_dataset_json_is_inspected(tmp_path, run):
    write_third_party_record(tmp_path / "a.tfrecord")
    classes = [{"name": name, "id": index} for index, name in enumerate("abc", 1)]
    entry = {"images": 1, "boxes": 2, "ignored": 0, "shards": ["a.tfrecord"]}
    data_sets.write_classes(tmp_path, classes, {"train": entry})
    assert run("inspect_tfrecord", str(tmp_path), output=tmp_path / "sheet.png") == (0, "")


def test_our_records_parse_with_the_apis_keys(tmp_path, paint, write_coco, convert_coco):
    paint(tmp_path / "images/a.jpg")
    boxes = [(1, 3, [8, 12, 16, 24], {}), (1, 1, [0, 0, 32, 48], {"iscrowd": 1})]
    write_coco(tmp_path / "annotations.json", [(1, "a.jpg", 64, 48)], boxes)
    assert convert_coco() == (0, "")
    (path,) = (tmp_path / "out").glob("*.tfrecord")
    (serialized,) = tf.data.TFRecordDataset(str(path))
    one = tf.io.FixedLenFeature
    many = tf.io.VarLenFeature
    parsed = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": one([], tf.string),
            "image/format": one([], tf.string),
            "image/filename": one([], tf.string),
            "image/key/sha256": one([], tf.string),
            "image/source_id": one([], tf.string),
            "image/height": one([], tf.int64),
            "image/width": one([], tf.int64),
            "image/object/bbox/xmin": many(tf.float32),
            "image/object/bbox/xmax": many(tf.float32),
            "image/object/bbox/ymin": many(tf.float32),
            "image/object/bbox/ymax": many(tf.float32),
            "image/object/class/label": many(tf.int64),
            "image/object/class/text": many(tf.string),
            "image/object/area": many(tf.float32),
            "image/object/is_crowd": many(tf.int64),
            "image/object/difficult": many(tf.int64),
        },
    )
    values = {key: getattr(value, "values", value).numpy() for key, value in parsed.items()}
    assert values["image/format"] == b"jpeg"
    assert values["image/filename"] == b"a.jpg"
    assert values["image/source_id"] == b"1"
    assert (values["image/height"], values["image/width"]) == (48, 64)
    assert values["image/object/class/label"].tolist() == [2, 1]
    assert values["image/object/class/text"].tolist() == [b"dog", b"cat"]
    assert values["image/object/bbox/xmin"].tolist() == [0.125, 0]
    assert values["image/object/bbox/xmax"].tolist() == [0.375, 0.5]
    assert values["image/object/bbox/ymin"].tolist() == [0.25, 0]
    assert values["image/object/bbox/ymax"].tolist() == [0.75, 1]
    assert values["image/object/is_crowd"].tolist() == [0, 1]
    assert values["image/object/difficult"].tolist() == [0, 0]
    assert tf.io.decode_image(values["image/encoded"]).shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["sound.jpg", "repaired.png"])
def test_key_is_the_digest_of_the_stored_image(tmp_path, paint, write_coco, convert_coco, name):
    paint(tmp_path / "images" / name)
    write_coco(tmp_path / "annotations.json", [(1, name, 64, 48)], [(1, 3, [8, 12, 16, 24], {})])
    assert convert_coco() == (0, "")
    (serialized,) = tf.data.TFRecordDataset(
        [str(path) for path in (tmp_path / "out").glob("*.tfrecord")]
    ).as_numpy_iterator()
    feature = tf.train.Example.FromString(serialized).features.feature
    (image,) = feature["image/encoded"].bytes_list.value
    (key,) = feature["image/key/sha256"].bytes_list.value
    assert key.decode() == hashlib.sha256(image).hexdigest()
    assert (image == (tmp_path / "images" / name).read_bytes()) == (name == "sound.jpg")


def test_third_party_records_are_trained_on(tmp_path, monkeypatch):
    from ssd_tf.commands import train

    monkeypatch.setattr("ssd_tf.models.ssd.build_model", small_networks.build_on_one_map)
    write_third_party_record(tmp_path / "a.tfrecord")
    classes = [{"name": name, "id": index} for index, name in enumerate("abc", 1)]
    entry = {"images": 1, "boxes": 2, "ignored": 0, "shards": ["a.tfrecord"]}
    data_sets.write_classes(tmp_path, classes, {"train": entry})
    (tmp_path / "c.yaml").write_text(
        "model: {input_hw: [64, 96], backbone: {name: plain}, num_levels: 2}\n"
        "boxes: {levels: [{size: 20, next_size: 40}, {size: 40, next_size: 60}]}\n"
        "train: {steps: 2, batch_size: 2}\nwatch: {log_every: 1}\n"
    )
    flags = [
        f"--config={tmp_path / 'c.yaml'}",
        f"--data={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert train.main(["x", *flags]) == 0
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert len(losses) == 2 and np.isfinite(losses).all() and losses[0] > 0
