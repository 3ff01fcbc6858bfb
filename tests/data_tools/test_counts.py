"""Counts of shards add up to those of a split, and survive the way out of a worker process."""

import pickle

from data_tools.conversion import counts, report


def count_shard(num_dropped, size_hw, digest):
    """A shard with one object of 'cat', `num_dropped` dropped boxes and a dropped image."""
    shard = counts.SplitCounts(read=2, images=1, bytes=100)
    shard.add_object("cat", ignored=False, clipped=True, size_hw=size_hw)
    shard.classes["cat"].images += 1
    for index in range(num_dropped):
        shard.count_dropped("a.jpg", [index, 0, index, 5], "degenerate")
    shard.count_dropped("b.jpg", None, "absent: no file at b.jpg")
    shard.boxes_of_dropped_images += 3
    shard.digests.append((digest, "a.jpg"))
    return shard


def test_merge():
    total = counts.SplitCounts()
    total.merge(count_shard(70, size_hw=(10, 20), digest="0" * 16))
    total.merge(count_shard(70, size_hw=(40, 40), digest="1" * 16))
    assert (total.read, total.images, total.bytes, total.boxes, total.clipped) == (4, 2, 200, 2, 2)
    assert total.classes == {"cat": counts.ClassCounts(objects=2, ignored=0, images=2)}
    assert total.dropped_images.reasons == {"absent": 2} and total.boxes_of_dropped_images == 6
    second = {"file": "b.jpg", "box": None, "reason": "absent: no file at b.jpg"}
    assert total.dropped_images.first[1] == second
    # All are counted and the first hundred named: 70 of one shard, then 0 to 29 of the other.
    assert total.dropped_boxes.reasons == {"degenerate": 140}
    assert len(total.dropped_boxes.first) == 100
    assert total.dropped_boxes.first[99]["box"] == [29, 0, 29, 5]
    # sqrt(10 x 20) = 14.1 is in the bin from 8, 40 in that from 32; aspects are 2 and 1.
    assert total.size_histogram == {1: 1, 3: 1}
    assert total.aspect_histogram == {6: 1, 4: 1}
    assert total.digests == []


def test_merging_leaves_the_shard_as_it_was():
    shard = count_shard(1, size_hw=(10, 20), digest="0" * 16)
    before = pickle.loads(pickle.dumps(shard))
    assert before == shard
    total = counts.SplitCounts()
    total.merge(shard)
    total.merge(shard)
    assert shard == before


def test_ignored_objects_are_counted_apart():
    total = counts.SplitCounts()
    total.add_object("cat", ignored=True, clipped=False, size_hw=(8, 8))
    assert (total.boxes, total.ignored) == (0, 1)
    assert total.classes["cat"] == counts.ClassCounts(objects=0, ignored=1, images=0)
    assert total.size_histogram == {1: 1}  # an edge belongs to the bin above it


def test_duplicates_across_splits_are_counted_in_images(tmp_path):
    # One file twice in train and once in val, besides a file of train only.
    for split, images in (
        (
            "train",
            [("0" * 15 + "a", "a.jpg"), ("0" * 15 + "b", "b.jpg"), ("0" * 15 + "a", "c.jpg")],
        ),
        ("val", [("0" * 15 + "a", "v.jpg")]),
    ):
        with report.open_digests(report.digests_path(tmp_path, split), "w") as file:
            report.write_digests(file, images)
    assert report.find_duplicates(tmp_path, "train", ["val"])["val"] == {
        "images": 2,
        "files": [{"train": ["a.jpg", "c.jpg"], "val": ["v.jpg"]}],
    }
    assert report.find_duplicates(tmp_path, "val", ["train"])["train"] == {
        "images": 1,
        "files": [{"val": ["v.jpg"], "train": ["a.jpg", "c.jpg"]}],
    }
