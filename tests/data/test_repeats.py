"""Repeat-factor sampling: its factors, and the stream that repeats records."""

import math

import data_sets
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.data import pipeline, records, repeats, shards
from ssd_tf.data.dataset_json import read_dataset


def factors(*labels, threshold=0.5):
    return repeats.repeat_factors([np.array(each, int) for each in labels], threshold).tolist()


def test_factors_without_objects():
    assert factors() == []
    assert factors([], []) == [1, 1]


def test_factors_by_hand():
    # Class 1 is in three of four images: sqrt(.5 / .75) is below 1. Class 2 is in one: sqrt(2).
    assert factors([1, 1, 1], [1], [1, 2, 2], []) == pytest.approx([1, 1, math.sqrt(2), 1])
    # The rarest class of an image counts: 2 is in two, 3 in one of eight images.
    found = factors([1, 2, 3], [1, 2], *[[1]] * 6)
    assert found == pytest.approx([2, math.sqrt(2), *[1] * 6])
    assert factors([1, 2, 3], [1, 2], *[[1]] * 6, threshold=0.125) == [1] * 8


def counts(made, num_epochs, seed=3):
    return np.array([made.draw(seed, tf.constant(epoch, tf.int64)) for epoch in range(num_epochs)])


def test_draw_by_hand():
    made = repeats.Repeats({"a": np.array([1, 2.5]), "b": np.array([0, 1.5, 1])})
    assert made.num_images == 6
    found = counts(made, 200)
    # 2.5 is twice or three times, then 1.5 is the other of once and twice.
    assert {tuple(row) for row in found.tolist()} == {(1, 2, 0, 2, 1), (1, 3, 0, 1, 1)}
    np.testing.assert_allclose(found.mean(0), [1, 2.5, 0, 1.5, 1], atol=0.1)
    np.testing.assert_array_equal(found, counts(made, 200))
    assert np.any(found != counts(made, 200, seed=4))


def test_rounding_does_not_add_an_image():
    # The sum of these floats is 6.000000000000001.
    assert repeats.Repeats({"a": np.array([1.1, 1.6, 1.6, 1.7])}).num_images == 6


def test_all_epochs_are_equally_long():
    made = repeats.Repeats({"a": np.array([1, 1.2, 1.1, 0])})
    assert made.num_images == 4
    found = counts(made, 300)
    assert set(found.sum(1)) == {4}
    assert found[:, :3].min() == 1
    # Each is multiplied by 4 / 3.3.
    np.testing.assert_allclose(found.mean(0), np.array([1, 1.2, 1.1, 0]) * 4 / 3.3, atol=0.1)


def test_the_counts_of_a_file():
    made = repeats.Repeats({"a": np.ones(2), "empty": np.ones(0), "b": np.ones(3)})
    drawn = tf.constant([5, 6, 7, 8, 9], tf.int64)
    assert made.select(drawn, tf.constant("a")).numpy().tolist()[:2] == [5, 6]
    assert made.select(drawn, tf.constant("b")).numpy().tolist() == [7, 8, 9]


@pytest.fixture
def rare(striped, tmp_path):
    """A function: a data set of eight records in two shards, of which record 0 has class 2."""

    def write(**changes):
        made = [striped.make_record(0, labels=[2], **changes)]
        made += [striped.make_record(index, labels=[1]) for index in range(1, 8)]
        split = data_sets.write_split(tmp_path, "train", [made[::2], made[1::2]], num_boxes=8)
        classes = [{"name": "a", "id": 1}, {"name": "b", "id": 2}]
        return data_sets.write_classes(tmp_path, classes, {"train": split})

    return write


def stream(config, data, count, skipped=None, **stream_slice):
    """(position, index of the record) of the first records of the stream."""
    part = pipeline.StreamSlice(**stream_slice)
    _, found = pipeline.open_records(config, data, "train", part, skipped)
    return [
        (int(position), int(records.parse_example(serialized)["source_id"].numpy()[2:]))
        for position, serialized in found.take(count)
    ]


def test_every_epoch_has_the_rare_record_twice(small_config, rare):
    # Class 2 is in an eighth of the images: sqrt(.5 * 8) = 2.
    config = small_config(data__repeat_threshold=0.5)
    data = rare()
    found = stream(config, data, 27)
    assert [position for position, _ in found] == list(range(27))
    order = [index for _, index in found]
    for epoch in (order[:9], order[9:18], order[18:]):
        assert sorted(epoch) == [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert order[:9] != order[9:18]
    # A run resumes: across the end of an epoch, and in the middle of the second.
    for step in (2, 3):
        assert stream(config, data, 27 - 4 * step, start_step=step) == found[4 * step :]
    # Two workers share the batches of 4.
    parts = [stream(config, data, 12, num_workers=2, worker=worker) for worker in (0, 1)]
    assert sorted(parts[0] + parts[1]) == found[:24]


def test_workers_with_files_of_their_own(small_config, rare):
    config = small_config(data__repeat_threshold=0.5, data__shard="file")
    data = rare()
    first, second = (
        [index for _, index in stream(config, data, 10, num_workers=2, worker=worker)]
        for worker in (0, 1)
    )
    assert sorted(first[:5]) == sorted(first[5:]) == [0, 0, 2, 4, 6]
    assert sorted(second[:4]) == sorted(second[4:8]) == [1, 3, 5, 7]


def test_skipped_records_neither_come_nor_count(small_config, rare):
    data = rare()
    first, second = read_dataset(data).shards("train")
    skipped = [shards.RecordId(first, 1), shards.RecordId(second, 0)]  # records 2 and 1
    read = repeats.read_factors([first, second], 2 / 3, False, skipped)
    # Of six records one has class 2: sqrt(2/3 * 6) = 2.
    np.testing.assert_allclose(read[first], [2, 0, 1, 1])
    np.testing.assert_allclose(read[second], [0, 1, 1, 1])
    config = small_config(data__repeat_threshold=2 / 3)
    found = [index for _, index in stream(config, data, 14, skipped)]
    assert sorted(found[:7]) == sorted(found[7:]) == [0, 0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("changes", "train_difficult", "factor"),
    [
        ({}, False, 2),
        ({"crowd": [1]}, True, 1),
        ({"difficult": [1]}, False, 1),
        ({"difficult": [1]}, True, 2),
    ],
)
def test_objects_that_are_not_trained_do_not_count(rare, changes, train_difficult, factor):
    paths = read_dataset(rare(**changes)).shards("train")
    found = repeats.read_factors(paths, 0.5, train_difficult)
    np.testing.assert_allclose(np.concatenate(list(found.values())), [factor] + [1] * 7)


def test_without_rare_classes_the_stream_is_the_plain_one(small_config, striped_data):
    plain = stream(small_config(), striped_data, 30)
    assert stream(small_config(data__repeat_threshold=0.001), striped_data, 30) == plain
