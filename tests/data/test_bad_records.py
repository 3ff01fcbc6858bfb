"""Records edited after their conversion: named with file, number and source_id, and refused or skipped."""

import itertools
import logging

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.config import ConfigError
from ssd_tf.data import bad_records, dataset_json, pipeline

DEFAULTS = np.array([[0.2, 0.2, 0.7, 0.7], [0, 0, 1, 1]], np.float32)


def longer(serialized, key, values):
    """A record with one of its lists replaced by another."""
    example = tf.train.Example.FromString(serialized)
    feature = example.features.feature[f"image/object/{key}"]
    feature.Clear()
    (feature.int64_list if key.startswith("class") else feature.float_list).value.extend(values)
    return example.SerializeToString()


# Made with the fixture `striped`. Record 7 is number 2 of shard 1 (1, 4, 7, ...).
BAD = {
    "no example": (lambda _: b"\xff\xffno example", ["source_id 'unknown'", "no tf.train.Example"]),
    "truncated image": (
        lambda s: s.make_record(7, image=s.picture_bytes(7)[:400]),
        ["'id7'", "image cannot be decoded"],
    ),
    "no image": (
        lambda s: s.make_record(7, image=b"GIF? no"),
        ["'id7'", "image cannot be decoded"],
    ),
    "empty box": (
        lambda s: s.make_record(7, boxes=[[0.5, 0.2, 0.5, 0.6]]),
        ["'id7'", "box 0 has no area (ymin 0.5, xmin 0.2, ymax 0.5"],
    ),
    "box in pixels": (
        lambda s: s.make_record(
            7, boxes=[[0.1, 0.2, 0.5, 0.6], [8, 10, 20, 30]], labels=[1, 1], texts=["a", "a"]
        ),
        [
            "box 1 has its centre outside the picture (ymin 8, xmin 10, ymax 20, xmax 30); are these pixels? boxes are wanted in"
        ],
    ),
    "box beside the picture": (
        lambda s: s.make_record(7, boxes=[[0.1, -0.8, 0.5, 0.6]]),
        ["'id7'", "box 0 has its centre outside the picture (ymin 0.1, xmin -0.8"],
    ),
    "endless box": (
        lambda s: s.make_record(7, boxes=[[0, 0, float("inf"), 1]]),
        ["'id7'", "box 0 has its centre outside the picture (ymin 0, xmin 0, ymax inf"],
    ),
    "box of nan": (
        lambda s: s.make_record(7, boxes=[[float("nan"), 0, 1, 1]]),
        ["'id7'", "box 0 has no area"],
    ),
    "one side too many": (
        lambda s: longer(s.make_record(7), "bbox/ymin", [0.1, 0.2]),
        ["'id7'", "keys do not fit together"],
    ),
    "one label too many": (
        lambda s: longer(s.make_record(7), "class/label", [1, 2]),
        ["'id7'", "labels 2, boxes 1"],
    ),
}


def run(config, data, number=7):
    """Consumes more than an epoch, as a training run does."""
    with bad_records.explain_record_errors(data, "train"):
        stream = pipeline.build_dataset(config, data, "train", DEFAULTS)
        return [image for image, _ in itertools.islice(stream.as_numpy_iterator(), number)]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_ends_the_run_with_its_name(kind, small_config, striped, tmp_path):
    make, parts = BAD[kind]
    data = striped.write_data(tmp_path, {7: make(striped)})
    with pytest.raises(bad_records.BadRecord) as caught:
        run(small_config(), data)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    for part in [
        "record 2 (from 0)",
        "train-00001-of-00003.tfrecord",
        "data.on_bad_record=skip",
        *parts,
    ]:
        assert part in line


def test_several_are_counted(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, {7: b"\xff", 8: b"\xff", 9: b"\xff"})
    with pytest.raises(
        bad_records.BadRecord, match=r"record 3 .*\(2 more records cannot be used\)"
    ):
        run(small_config(), data)


def test_skipped_records_are_named_and_counted_and_the_others_stay(
    small_config, striped, tmp_path, caplog
):
    data = striped.write_data(tmp_path, {7: BAD["truncated image"][0](striped), 11: b"\xff"})
    with caplog.at_level(logging.INFO):
        images = run(small_config(data__on_bad_record="skip"), data, 10)
    found = np.round((np.concatenate(images).mean((1, 2, 3)) - 10.2) / 10).astype(int)
    expected = [k for k in range(22) if k not in (7, 11)]
    assert sorted(found[:20]) == expected == sorted(found[20:])
    before, *lines = [record.getMessage() for record in caplog.records]
    assert (
        before
        == "looking for records to skip: all 22 pictures of the split 'train' are decoded once"
    )
    assert (
        len(lines) == 3
        and "on_bad_record" not in lines[0]
        and "'id7'" in lines[0]
        and "record 3 (from 0)" in lines[1]
    )
    assert lines[2] == "2 of 22 records are skipped"


def test_a_run_that_skips_goes_on_where_it_was(small_config, striped, tmp_path):
    config = small_config(data__on_bad_record="skip", data__augment="caffe")
    data = striped.write_data(tmp_path, {7: b"\xff"})
    whole = run(config, data, 12)  # 48 records: two epochs of 21 and more
    for start in (
        4,
        6,
        11,
    ):  # in the first epoch (21 records, 5.25 batches), in the second, in the third
        stream = pipeline.build_dataset(config, data, "train", DEFAULTS, start_step=start)
        for (image, _), expected in zip(
            stream.take(12 - start).as_numpy_iterator(), whole[start:], strict=True
        ):
            np.testing.assert_array_equal(image, expected)


def test_skipping_with_files_of_their_own(small_config, striped, tmp_path):
    config = small_config(data__on_bad_record="skip", data__shard="file")
    data = striped.write_data(tmp_path, {7: b"\xff", 9: b"\xff"})

    def indices(worker, number, start_step=0):
        arguments = {"start_step": start_step, "num_workers": 2, "worker": worker}
        stream = pipeline.build_dataset(config, data, "train", DEFAULTS, **arguments).take(number)
        means = np.concatenate([image for image, _ in stream.as_numpy_iterator()]).mean((1, 2, 3))
        return np.round((means - 10.2) / 10).astype(int).tolist()

    # Worker 0 reads shards 0 and 2, without record 9 in shard 0: 14; worker 1 reads shard 1 without record 7: 6.
    first, second = indices(0, 14), indices(1, 6)
    assert (
        sorted(first[:14]) == [k for k in range(22) if k % 3 != 1 and k != 9] == sorted(first[14:])
    )
    assert sorted(second[:6]) == [1, 4, 10, 13, 16, 19] == sorted(second[6:])
    assert indices(0, 5, start_step=9) == first[18:]


def test_a_worker_whose_records_are_all_bad_is_refused(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, dict.fromkeys(range(1, 22, 3), b"\xff"))  # all of shard 1
    config = small_config(data__on_bad_record="skip", data__shard="file")
    for worker in (0, 1):  # one machine alone would leave the others waiting
        with pytest.raises(
            ConfigError, match=r"worker 1 of 2 .*train-00001.*; set data.shard=record, or convert"
        ):
            pipeline.build_dataset(config, data, "train", DEFAULTS, num_workers=2, worker=worker)


def test_examples_without_those_skipped(striped, tmp_path):
    data = striped.write_data(tmp_path, {7: b"\xff", 0: BAD["truncated image"][0](striped)})
    skipped = bad_records.scan_bad_records(dataset_json.read_dataset(data), "train")
    found = [
        example["source_id"].decode()
        for example in pipeline.read_examples(data, "train", skipped).as_numpy_iterator()
    ]
    assert found == [f"id{k}" for start in range(3) for k in range(start, 22, 3) if k not in (0, 7)]


@pytest.mark.parametrize(
    "label", [3, 0, -1, 2**32 + 1, -(2**32) + 1]
)  # the last two are 1 in 32 bits
@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_label_beyond_the_class_list_is_always_refused(
    mode, label, small_config, striped, tmp_path
):
    data = striped.write_data(tmp_path, {7: striped.make_record(7, labels=[label])})
    with pytest.raises(
        bad_records.BadRecord,
        match=rf"record 2 .*'id7'.*labels must lie in \[1, 2\], found {label};",
    ):
        run(small_config(data__on_bad_record=mode), data)


def test_nothing_left_is_refused(small_config, striped, tmp_path):
    data = striped.write_data(tmp_path, dict.fromkeys(range(22), b"\xff"))
    with pytest.raises(bad_records.BadRecord, match="no record of the split 'train'"):
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
    with pytest.raises(
        bad_records.BadRecord,
        match=r"train-00001-of-00003.tfrecord: cut off or damaged at record \d",
    ):
        run(small_config(data__on_bad_record=mode), data)


def test_examples_for_evaluation_are_named_too(striped, tmp_path):
    data = striped.write_data(tmp_path, {7: BAD["truncated image"][0](striped)})
    with (
        pytest.raises(bad_records.BadRecord, match="'id7'"),
        bad_records.explain_record_errors(data, "train"),
    ):
        list(pipeline.read_examples(data, "train").as_numpy_iterator())


def test_other_errors_stay_what_they_are(striped_data):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="shapes"),
        bad_records.explain_record_errors(striped_data, "train"),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "shapes of something else")
