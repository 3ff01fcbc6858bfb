"""data.fraction: a part of the training split, the same in every run."""

import itertools

import numpy as np
import pytest

from ssd_tf.config import load_config
from ssd_tf.data import dataset_json, pipeline, records, shards, split_examples
from ssd_tf.errors import ConfigError

# The first numbers of the permutation of RandomState(0), in the order of the files.
QUARTER = [3, 7, 16, 17, 19, 20]
HALF = [1, 3, 5, 7, 10, 14, 16, 17, 18, 19, 20]


def read_indices(config, data, count, split="train", **options):
    """The indices of the next records of the stream."""
    stream = pipeline.open_records(config, data, split, **options)[1]
    return [
        int(records.parse_example(serialized)["source_id"].numpy().decode()[2:])
        for _, serialized in itertools.islice(stream, count)
    ]


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.25, QUARTER), (0.5, HALF), (0.001, [17]), (1.0, [*range(22)])]
)
def test_every_epoch_has_the_same_part(small_config, striped_data, fraction, expected):
    config = small_config(data__fraction=fraction)
    count = len(expected)
    found = read_indices(config, striped_data, 2 * count)
    assert sorted(found[:count]) == sorted(found[count:]) == expected


def test_another_seed_trains_on_the_same_part(small_config, striped_data):
    config = small_config(data__fraction=0.25, train__seed=9)
    assert sorted(read_indices(config, striped_data, 6)) == QUARTER


def test_other_splits_are_whole(small_config, striped_data):
    config = small_config(data__fraction=0.25, data__train_split="other")
    assert sorted(read_indices(config, striped_data, 22)) == [*range(22)]


def test_it_is_a_part_of_the_usable_records(small_config, striped_data):
    paths = dataset_json.read_dataset(striped_data).shards("train")
    bad = [shards.RecordId(paths[0], 0), shards.RecordId(paths[1], 2)]  # 0 and 7
    config = small_config(data__fraction=0.25)
    found = read_indices(config, striped_data, 10, skipped=bad)
    assert sorted(found[:5]) == sorted(found[5:]) == [4, 6, 13, 17, 20]


def test_separate_files_per_worker(small_config, striped_data):
    config = small_config(data__fraction=0.5, data__shard="file")
    parts = [pipeline.StreamSlice(num_workers=2, worker=worker) for worker in (0, 1)]
    first = read_indices(config, striped_data, 6, stream_slice=parts[0])
    second = read_indices(config, striped_data, 5, stream_slice=parts[1])
    assert sorted(first) == [3, 5, 14, 17, 18, 20]
    assert sorted(second) == [1, 7, 10, 16, 19]


def test_examples_in_file_order(small_config, striped_data):
    info = dataset_json.read_dataset(striped_data)
    skipped = pipeline.list_skipped(small_config(data__fraction=0.25), info, "train")
    examples = split_examples.read_examples(striped_data, "train", skipped).as_numpy_iterator()
    found = [int(example["source_id"][2:]) for example in examples]
    assert found == [3, 7, 16, 19, 17, 20]  # the shards hold 0, 3, ..., then 1, 4, ..., 2, 5, ...


def test_no_records():
    assert shards.records_outside({}, 0.5) == []
    assert shards.records_outside({"a": 1}, 0.5) == []


@pytest.mark.parametrize("value", ["0", "1.5", "-0.5", "true"])
def test_other_values(tmp_path, value):
    path = tmp_path / "config.yaml"
    path.write_text("boxes: {preset: paper}")
    with pytest.raises(ConfigError, match=r"data\.fraction"):
        load_config(path, [f"data.fraction={value}"])


def test_images_keep_their_augmentation(small_config, striped_data):
    """A batch of a part is made as any batch is."""
    default_boxes = np.array([[0, 0, 1, 1]], np.float32)
    config = small_config(data__fraction=0.25)
    batches = pipeline.build_dataset(config, striped_data, "train", default_boxes)
    images = np.concatenate([image for image, _ in batches.take(3).as_numpy_iterator()])
    found = np.round((images.mean((1, 2, 3)) - 10.2) / 10).astype(int).tolist()
    assert sorted(found[:6]) == sorted(found[6:]) == QUARTER
