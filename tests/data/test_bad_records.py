"""Damaged records: reported with file, index and source_id, and rejected or skipped."""

import itertools
import logging

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.data import bad_records, dataset_json, pipeline, shards, split_examples
from ssd_tf.errors import ConfigError

DEFAULT_BOXES = np.array([[0.2, 0.2, 0.7, 0.7], [0, 0, 1, 1]], np.float32)


def replace_list(serialized, key, values):
    """A record with one of its lists replaced."""
    example = tf.train.Example.FromString(serialized)
    feature = example.features.feature[f"image/object/{key}"]
    feature.Clear()
    (feature.int64_list if key.startswith("class") else feature.float_list).value.extend(values)
    return example.SerializeToString()


# How the fixture `striped` makes record 7, which has index 2 in shard 1 (1, 4, 7, ...), and what
# the message says about it.
BAD = {
    "no example": (
        lambda _: b"\xff\xffno example",
        ["source_id 'unknown'", "not a tf.train.Example"],
    ),
    "truncated image": (
        lambda striped: striped.make_record(7, image=striped.image_bytes(7)[:400]),
        ["'id7'", "image cannot be decoded"],
    ),
    "no image": (
        lambda striped: striped.make_record(7, image=b"GIF? no"),
        ["'id7'", "image cannot be decoded"],
    ),
    "empty box": (
        lambda striped: striped.make_record(7, boxes=[[0.5, 0.2, 0.5, 0.6]]),
        ["'id7'", "box 0 has no area (ymin 0.5, xmin 0.2, ymax 0.5"],
    ),
    "box in pixels": (
        lambda striped: striped.make_record(
            7, boxes=[[0.1, 0.2, 0.5, 0.6], [8, 10, 20, 30]], labels=[1, 1], texts=["a", "a"]
        ),
        [
            "box 1 has its centre outside the image (ymin 8, xmin 10, ymax 20, xmax 30); expected",
            "are these pixels?",
        ],
    ),
    "box beside the image": (
        lambda striped: striped.make_record(7, boxes=[[0.1, -0.8, 0.5, 0.6]]),
        ["'id7'", "box 0 has its centre outside the image (ymin 0.1, xmin -0.8"],
    ),
    "infinite box": (
        lambda striped: striped.make_record(7, boxes=[[0, 0, float("inf"), 1]]),
        ["'id7'", "box 0 has its centre outside the image (ymin 0, xmin 0, ymax inf"],
    ),
    "box of nan": (
        lambda striped: striped.make_record(7, boxes=[[float("nan"), 0, 1, 1]]),
        ["'id7'", "box 0 has no area"],
    ),
    "one side too many": (
        lambda striped: replace_list(striped.make_record(7), "bbox/ymin", [0.1, 0.2]),
        ["'id7'", "features do not fit together"],
    ),
    "one label too many": (
        lambda striped: replace_list(striped.make_record(7), "class/label", [1, 2]),
        ["'id7'", "labels 2, boxes 1"],
    ),
}


def run(config, data, num_batches=7):
    """Consume more than an epoch, as a training run does."""
    with bad_records.explain_record_errors(data, "train"):
        stream = pipeline.build_dataset(config, data, "train", DEFAULT_BOXES)
        return [image for image, _ in itertools.islice(stream.as_numpy_iterator(), num_batches)]


# One for each check: of the Example, of the image, of the boxes, of the lists.
FAST = ("no example", "truncated image", "box of nan", "one label too many")


@pytest.mark.parametrize(
    "kind",
    [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.integration) for kind in BAD],
)
def test_a_bad_record_stops_the_run_with_its_name(kind, small_config, striped, tmp_path):
    make, parts = BAD[kind]
    data = striped.write_data(tmp_path, {7: make(striped)})
    with pytest.raises(bad_records.BadRecordError) as caught:
        run(small_config(), data)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    remedy = "data.on_bad_record=skip"
    for part in ["record 2 (from 0)", "train-00001-of-00003.tfrecord", remedy, *parts]:
        assert part in line


def test_several_bad_records_are_counted(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, {7: b"\xff", 8: b"\xff", 9: b"\xff"})
    with pytest.raises(
        bad_records.BadRecordError, match=r"record 3 .*\(2 more records cannot be used\)"
    ):
        run(small_config(), data)


def test_skipped_records_are_named_and_counted_and_the_others_remain(
    small_config, striped, tmp_path, caplog
):
    data = striped.write_data(tmp_path, {7: BAD["truncated image"][0](striped), 11: b"\xff"})
    with caplog.at_level(logging.INFO, logger="absl"):
        images = run(small_config(data__on_bad_record="skip"), data, 10)
    found = np.round((np.concatenate(images).mean((1, 2, 3)) - 10.2) / 10).astype(int)
    expected = [i for i in range(22) if i not in (7, 11)]
    assert sorted(found[:20]) == expected == sorted(found[20:])
    before, *lines = [record.getMessage() for record in caplog.records]
    assert before == (
        "looking for records to skip: decoding all 22 images of the split 'train' once"
    )
    assert len(lines) == 3
    assert "on_bad_record" not in lines[0] and "'id7'" in lines[0]
    assert "record 3 (from 0)" in lines[1]
    assert lines[2] == "2 of 22 records are skipped"


@pytest.mark.integration
def test_a_run_that_skips_resumes_where_it_was(small_config, striped, tmp_path):
    config = small_config(data__on_bad_record="skip", data__augment="caffe")
    data = striped.write_data(tmp_path, {7: b"\xff"})
    whole = run(config, data, 12)  # 48 records: two epochs of 21 and more
    # In the first epoch (21 records, 5.25 batches), in the second, in the third.
    for start in (4, 6, 11):
        rest = pipeline.StreamSlice(start_step=start)
        stream = pipeline.build_dataset(config, data, "train", DEFAULT_BOXES, rest)
        for (image, _), expected in zip(
            stream.take(12 - start).as_numpy_iterator(), whole[start:], strict=True
        ):
            np.testing.assert_array_equal(image, expected)


@pytest.mark.integration
def test_skipping_with_separate_files_per_worker(small_config, striped, tmp_path):
    config = small_config(data__on_bad_record="skip", data__shard="file")
    data = striped.write_data(tmp_path, {7: b"\xff", 9: b"\xff"})

    def indices(worker, num_batches, start_step=0):
        part = pipeline.StreamSlice(start_step, num_workers=2, worker=worker)
        stream = pipeline.build_dataset(config, data, "train", DEFAULT_BOXES, part)
        images = [image for image, _ in stream.take(num_batches).as_numpy_iterator()]
        means = np.concatenate(images).mean((1, 2, 3))
        return np.round((means - 10.2) / 10).astype(int).tolist()

    # Worker 0 reads shards 0 and 2, without record 9 in shard 0: 14 records; worker 1 reads shard 1
    # without record 7: 6 records.
    first, second = indices(0, 14), indices(1, 6)
    of_first = [i for i in range(22) if i % 3 != 1 and i != 9]
    assert sorted(first[:14]) == of_first == sorted(first[14:])
    assert sorted(second[:6]) == [1, 4, 10, 13, 16, 19] == sorted(second[6:])
    assert indices(0, 5, start_step=9) == first[18:]


def test_a_worker_whose_records_are_all_bad_is_rejected(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, dict.fromkeys(range(1, 22, 3), b"\xff"))  # all of shard 1
    config = small_config(data__on_bad_record="skip", data__shard="file")
    line = r"worker 1 of 2 .*train-00001.*; set data.shard=record, or convert"
    for worker in (0, 1):  # if only one machine failed, it would leave the others waiting
        part = pipeline.StreamSlice(num_workers=2, worker=worker)
        with pytest.raises(ConfigError, match=line):
            pipeline.build_dataset(config, data, "train", DEFAULT_BOXES, part)


def test_examples_without_the_skipped_ones(striped, tmp_path):
    data = striped.write_data(tmp_path, {7: b"\xff", 0: BAD["truncated image"][0](striped)})
    skipped = bad_records.scan_bad_records(dataset_json.read_dataset(data), "train", "skip")
    shard = str(data / "train-0000{}-of-00003.tfrecord")
    assert skipped == [
        shards.RecordId(file=shard.format(0), index=0),
        shards.RecordId(file=shard.format(1), index=2),
    ]
    found = [
        example["source_id"].decode()
        for example in split_examples.read_examples(data, "train", skipped).as_numpy_iterator()
    ]
    in_order = [i for start in range(3) for i in range(start, 22, 3)]
    assert found == [f"id{i}" for i in in_order if i not in (0, 7)]


def test_what_is_reported_of_a_bad_record(striped, tmp_path):
    beyond = striped.make_record(7, labels=[3])
    data = striped.write_data(tmp_path, {3: b"\xff", 7: beyond})
    paths = dataset_json.read_dataset(data).shards("train")
    first, second = bad_records.find_bad_records(paths, num_classes=2)
    assert (first.file, first.index, first.can_be_skipped) == (paths[0], 1, True)
    assert (second.file, second.index, second.can_be_skipped) == (paths[1], 2, False)
    assert first.message.startswith(f"{paths[0]}: record 1 (from 0), source_id 'unknown'")
    assert second.message.startswith(f"{paths[1]}: record 2 (from 0), source_id 'id7'")


@pytest.mark.parametrize(
    ("mode", "label"),
    # The large ones are 1 in 32 bits.
    [
        ("stop", 2**32 + 1),
        ("skip", 3),
        ("skip", 0),
        ("skip", -1),
        ("skip", -(2**32) + 1),
    ],
)
def test_a_label_outside_the_class_list_is_always_rejected(
    mode, label, small_config, striped, tmp_path
):
    data = striped.write_data(tmp_path, {7: striped.make_record(7, labels=[label])})
    line = rf"record 2 .*'id7'.*expected labels in \[1, 2\], got {label};"
    with pytest.raises(bad_records.BadRecordError, match=line):
        run(small_config(data__on_bad_record=mode), data)


def test_a_label_outside_the_class_list_never_leaves_the_stream(small_config, striped):
    prepare = pipeline.make_prepare(small_config(), DEFAULT_BOXES, num_classes=2)
    position = tf.constant(0, tf.int64)
    for label in (1, 2):
        _, targets = prepare(position, tf.constant(striped.make_record(7, labels=[label])))
        assert label in targets["labels"].numpy()
    for label in (3, 0, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
            prepare(position, tf.constant(striped.make_record(7, labels=[label])))


def test_a_split_without_usable_records_is_rejected(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, dict.fromkeys(range(22), b"\xff"))
    with pytest.raises(bad_records.BadRecordError, match="no record of the split 'train'"):
        run(small_config(data__on_bad_record="skip"), data)


@pytest.mark.parametrize("mode", ["stop", "skip"])
@pytest.mark.parametrize("damage", ["cut off", "one byte"])
def test_a_damaged_file_is_named(damage, mode, small_config, striped, tmp_path):
    data = striped.write_data(tmp_path)
    file = data / "train-00001-of-00003.tfrecord"
    content = bytearray(file.read_bytes())
    if damage == "one byte":
        content[300] ^= 255
    file.write_bytes(content if damage == "one byte" else content[:-200])
    line = r"train-00001-of-00003.tfrecord: cut off or corrupt at record \d"
    with pytest.raises(bad_records.BadRecordError, match=line):
        run(small_config(data__on_bad_record=mode), data)


def test_bad_examples_for_evaluation_are_named_too(striped, tmp_path):
    data = striped.write_data(tmp_path, {7: BAD["truncated image"][0](striped)})
    with (
        pytest.raises(bad_records.BadRecordError, match="'id7'"),
        bad_records.explain_record_errors(data, "train"),
    ):
        list(split_examples.read_examples(data, "train").as_numpy_iterator())


def test_other_errors_stay_unchanged(striped_data):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="shapes"),
        bad_records.explain_record_errors(striped_data, "train"),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "shapes of something else")
