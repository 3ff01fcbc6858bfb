"""The stream: which records come when, at any parallelism, start and number of workers."""

import itertools

import data_sets
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf import processor
from ssd_tf.data import pipeline, records, shards, split_examples
from ssd_tf.errors import ConfigError

# Random, and traced in a fraction of the time of the reference presets.
BRIGHT = {"color": {"brightness": 32, "probability": 1}, "flip_probability": 0.5}
PYRAMID = {
    "boxes__assigner": "auto",
    "model__neck": "fpn_lite",
    "model__backbone": {"name": "mobilenet"},
}
DEFAULT_BOXES = np.array([[0.2, 0.2, 0.7, 0.7], [0, 0, 1, 1], [0.5, 0, 1, 0.4]], np.float32)


def batches(config, data, num_batches, **stream_slice):
    part = pipeline.StreamSlice(**stream_slice)
    stream = pipeline.build_dataset(config, data, "train", DEFAULT_BOXES, part)
    return list(itertools.islice(stream.as_numpy_iterator(), num_batches))


def assert_same(some, others):
    assert len(some) == len(others)
    for (image, targets), (other_image, other_targets) in zip(some, others, strict=True):
        np.testing.assert_array_equal(image, other_image)
        for key in ("offsets", "labels"):
            np.testing.assert_array_equal(targets[key], other_targets[key])


def order(config, data, num_records, **stream_slice):
    """The indices of the first records of the stream, from their source_ids."""
    part = pipeline.StreamSlice(**stream_slice)
    _, stream = pipeline.open_records(config, data, "train", part)
    names = [
        tf.train.Example.FromString(serialized).features.feature["image/source_id"]
        for _, serialized in stream.take(num_records).as_numpy_iterator()
    ]
    return [int(name.bytes_list.value[0].removeprefix(b"id")) for name in names]


def test_the_batches_have_the_order_of_the_records(small_config, striped_data):
    means = np.concatenate([image for image, _ in batches(small_config(), striped_data, 11)])
    found = np.round((means.mean((1, 2, 3)) - 10.2) / 10).astype(int).tolist()
    assert found == order(small_config(), striped_data, 44)


def test_shapes(small_config, striped_data):
    ((image, targets),) = batches(small_config(data__augment="caffe"), striped_data, 1)
    assert image.shape == (4, 24, 36, 3) and image.dtype == np.float32
    assert targets["offsets"].shape == (4, 3, 4) and targets["offsets"].dtype == np.float32
    assert targets["labels"].shape == (4, 3) and targets["labels"].dtype == np.int32


@pytest.mark.parametrize("preset", ["caffe", "torchvision"])
def test_parallelism_changes_nothing(small_config, striped_data, preset, monkeypatch):
    config = small_config(data__augment=preset)
    by_cores = []
    for cores in (1, 5):
        monkeypatch.setattr(processor, "usable_cores", lambda cores=cores: cores)
        by_cores.append(batches(config, striped_data, 14))
    assert_same(*by_cores)


def test_a_run_resumes_in_the_middle_of_an_epoch(small_config, striped_data):
    config = small_config(data__augment=BRIGHT)
    whole = batches(config, striped_data, 14)  # 56 records: two and a half epochs
    # In the first epoch, across its end (22 = 5.5 batches), at the end of the second.
    for start in (3, 6, 11):
        assert_same(whole[start:], batches(config, striped_data, 14 - start, start_step=start))


def test_the_workers_slices_make_up_the_single_workers_batch(small_config, striped_data):
    config = small_config(data__augment=BRIGHT)
    whole = batches(config, striped_data, 8)
    parts = [batches(config, striped_data, 8, num_workers=2, worker=worker) for worker in (0, 1)]
    joined = [
        (
            np.concatenate([first, second]),
            {key: np.concatenate([targets[key], others[key]]) for key in targets},
        )
        for (first, targets), (second, others) in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_every_epoch_has_every_record_once_in_a_new_order(small_config, striped_data):
    found = order(small_config(), striped_data, 44)  # two epochs
    assert sorted(found[:22]) == sorted(found[22:]) == list(range(22))
    assert found[:22] != found[22:]
    assert found[:22] != order(small_config(train__seed=4), striped_data, 22)


def test_a_bounded_buffer_moves_records_by_no_more_than_its_size(small_config, striped_data):
    # With a buffer of one, shards are read in turn: neighbours come from different shards.
    found = order(small_config(data__shuffle_buffer=1), striped_data, 20)
    assert all(a % 3 != b % 3 for a, b in itertools.pairwise(found))


def test_shards_and_buffer_are_reshuffled_every_epoch(small_config, striped_data):
    found = order(small_config(data__shuffle_buffer=1), striped_data, 44)
    assert found[:22] != found[22:]  # a buffer of one keeps the order, so the shards have moved
    one_file = [str(striped_data / "train-00000-of-00003.tfrecord")]
    stream = shards.record_stream(one_file, 8, 8, seed=0).take(24)
    found = [serialized for _, serialized in stream.as_numpy_iterator()]
    epochs = np.reshape(found, (3, 8)).tolist()
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])


def test_a_record_is_augmented_differently_in_every_epoch(small_config, striped_data):
    config = small_config(data__augment=BRIGHT)
    plain, bright = (
        np.concatenate([image for image, _ in batches(each, striped_data, 11)])
        for each in (small_config(), config)
    )
    order = np.round((plain.mean((1, 2, 3)) - 10.2) / 10).astype(int)
    shifts = (bright - plain).mean((1, 2, 3))
    of_record_9 = shifts[order == 9]
    assert len(of_record_9) == 2 and abs(of_record_9[0] - of_record_9[1]) > 0.1


def test_separate_files_per_worker(small_config, striped_data):
    config = small_config(data__shard="file")
    # Worker 0 of 2 reads shards 0 and 2 (records i with i % 3 != 1: 8 + 7), worker 1 shard 1 (7).
    first = order(config, striped_data, 30, num_workers=2, worker=0)
    second = order(config, striped_data, 14, num_workers=2, worker=1)
    assert sorted(first[:15]) == [i for i in range(22) if i % 3 != 1] == sorted(first[15:])
    assert sorted(second[:7]) == list(range(1, 22, 3)) == sorted(second[7:])
    resumed = order(config, striped_data, 10, num_workers=2, worker=0, start_step=10)
    assert resumed == first[20:]


def test_impossible_numbers_of_workers_are_rejected(small_config, striped_data):
    def build(num_workers, worker=0, **changes):
        part = pipeline.StreamSlice(num_workers=num_workers, worker=worker)
        config = small_config(**changes)
        pipeline.build_dataset(config, striped_data, "train", DEFAULT_BOXES, part)

    with pytest.raises(ConfigError, match="batch_size 4 must be a multiple of the 3 workers"):
        build(num_workers=3)
    with pytest.raises(ConfigError, match="one shard per worker, got 3 for 4 workers"):
        build(num_workers=4, data__shard="file")
    for worker in (-1, 2):
        line = rf"expected worker in \[0, 1\] for 2 workers, got {worker}"
        with pytest.raises(ConfigError, match=line):
            build(num_workers=2, worker=worker)


def write_shards(folder, contents, images):
    """A data set of lists of records, a shard per list; its dataset.json says `images` images."""
    split = data_sets.write_split(folder, "train", contents, num_boxes=images)
    classes = [{"name": "a", "id": 1}, {"name": "b", "id": 2}]
    return data_sets.write_classes(folder, classes, {"train": split | {"images": images}})


@pytest.mark.parametrize(
    ("held", "images"), [((3, 2), 6), ((3, 2), 4), ((0, 0), 5)], ids=["fewer", "more", "none"]
)
def test_a_count_that_differs_from_dataset_json_is_rejected(
    held, images, small_config, striped, tmp_path
):
    contents = [[striped.make_record(i) for i in range(count)] for count in held]
    data = write_shards(tmp_path, contents, images)
    line = (
        rf"split 'train' has {images} images, its shards hold {sum(held)} records; "
        "convert the split again"
    )
    with pytest.raises(ValueError, match=line):
        pipeline.build_dataset(small_config(), data, "train", DEFAULT_BOXES)
    with pytest.raises(ValueError, match=line):
        split_examples.read_examples(data, "train")


def test_empty_shards(small_config, striped, tmp_path):
    data = write_shards(tmp_path, [[striped.make_record(5)], [], []], 1)
    assert order(small_config(), data, 8) == [5] * 8
    assert order(small_config(data__shard="file"), data, 8) == [5] * 8
    line = r"no usable record in the shards of worker 1 of 2 .*train-00001-of-00003.tfrecord"
    with pytest.raises(ConfigError, match=line):
        order(small_config(data__shard="file"), data, 1, num_workers=2)


def test_the_seed_determines_the_augmentation(small_config, striped):
    """The same record at the same position of the stream, so that the order does not matter."""
    serialized, position = tf.constant(striped.make_record(4)), tf.constant(7, tf.int64)

    def shift(seed):
        config = small_config(train__seed=seed, data__augment=BRIGHT)
        image, _ = pipeline.make_prepare(config, DEFAULT_BOXES, 2)(position, serialized)
        return float(tf.reduce_mean(image))

    assert shift(3) == shift(3)
    assert len({round(shift(seed), 2) for seed in (3, 4, 5)}) == 3


def test_the_seed_determines_the_order_of_the_shards(striped_data):
    paths = sorted(map(str, striped_data.glob("*.tfrecord")))
    firsts = [
        next(shards.record_stream(paths, 22, 1, seed).as_numpy_iterator())[1] for seed in range(12)
    ]
    assert len(set(firsts)) == 3  # each shard comes first for some seed


def test_the_targets_use_the_variances_of_the_config(small_config, striped_data):
    ((_, targets),) = batches(small_config(), striped_data, 1)
    ((_, others),) = batches(small_config(boxes__variances=[0.2, 0.4, 0.1, 0.05]), striped_data, 1)
    assert np.any(targets["offsets"])
    np.testing.assert_allclose(others["offsets"], targets["offsets"] * [0.5, 0.25, 2, 4], rtol=1e-5)


def test_the_config_says_whether_difficult_objects_are_trained(small_config, striped, tmp_path):
    data = write_shards(tmp_path, [[striped.make_record(i, difficult=[1]) for i in range(4)]], 4)
    ((_, ignored),) = batches(small_config(), data, 1)
    ((_, trained),) = batches(small_config(data__train_difficult=True), data, 1)
    # The object's IoU with the first default box is above one half, with the others below.
    assert ignored["labels"].tolist() == [[-1, 0, 0]] * 4
    assert sorted(trained["labels"].tolist()) == [[1, 0, 0]] * 2 + [[2, 0, 0]] * 2


def test_records_are_counted_without_being_read(striped_data):
    files = sorted(striped_data.glob("*.tfrecord"))
    assert [shards.count_records(file) for file in files] == [8, 7, 7]


def test_examples_come_in_file_order(striped_data):
    found = [
        example["source_id"].decode()
        for example in split_examples.read_examples(striped_data, "train").as_numpy_iterator()
    ]
    assert found == [f"id{i}" for start in range(3) for i in range(start, 22, 3)]


def test_an_example_has_the_file_name_of_its_record(striped):
    named = records.parse_example(striped.make_record(4))
    assert (named["file_name"], named["source_id"]) == (b"4.jpg", b"id4")
    example = tf.train.Example.FromString(striped.make_record(4))
    del example.features.feature["image/filename"]
    assert records.parse_example(example.SerializeToString())["file_name"] == b""


def test_the_images_of_a_step_have_names(small_config, striped_data):
    config = small_config()
    stream = pipeline.open_records(config, striped_data, "train")[1]
    expected = [
        records.parse_example(serialized)["source_id"].numpy().decode()
        for _, serialized in stream.take(12)
    ]
    found = [pipeline.name_batch(config, striped_data, "train", step) for step in (1, 2, 3)]
    assert found == [expected[:4], expected[4:8], expected[8:]]
    assert len(set(expected)) == 12


def test_the_images_of_a_step_of_two_workers_with_shards_of_their_own(small_config, striped_data):
    """The names are those of the batches that the two read."""
    config = small_config()
    config = config.model_copy(update={"data": config.data.model_copy(update={"shard": "file"})})
    expected = []
    for worker in (0, 1):
        slice_ = pipeline.StreamSlice(2, 2, worker)
        stream = pipeline.open_records(config, striped_data, "train", slice_)[1]
        expected += [
            records.parse_example(serialized)["source_id"].numpy().decode()
            for _, serialized in stream.take(2)
        ]
    assert pipeline.name_batch(config, striped_data, "train", 3, 2) == expected
    # Worker 1 has the second of three shards, with the records 1, 4, 7, ...
    assert [int(name.removeprefix("id")) % 3 for name in expected[2:]] == [1, 1]
    assert pipeline.name_batch(config, striped_data, "train", 3) != expected


@pytest.mark.parametrize("changes", [{"boxes__assigner": "atss"}, PYRAMID])
def test_atss_needs_the_maps_of_the_default_boxes(small_config, striped, striped_data, changes):
    pipeline.make_prepare(small_config(boxes__assigner="auto"), DEFAULT_BOXES, 2)
    config = small_config(**changes)
    with pytest.raises(ValueError, match="level_of_box"):
        pipeline.build_dataset(config, striped_data, "train", DEFAULT_BOXES)
    level_of_box = np.zeros(len(DEFAULT_BOXES), int)
    prepare = pipeline.make_prepare(config, DEFAULT_BOXES, 2, level_of_box)
    record = tf.constant(striped.make_record(4))
    _, targets = prepare(tf.constant(0, tf.int64), record)
    assert targets["labels"].shape == (len(DEFAULT_BOXES),)
