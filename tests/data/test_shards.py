"""The fingerprint of a split."""

import json
import os
import pathlib
import shutil

import pytest

from ssd_tf.data import shards
from ssd_tf.data.dataset_json import read_dataset


def fingerprint(folder, split="train"):
    return shards.fingerprint(read_dataset(folder), split)


@pytest.fixture
def altered(tiny_data, tmp_path):
    """A function: a copy of the tiny data with a change of its dataset.json."""

    def make(change):
        folder = shutil.copytree(tiny_data, tmp_path / "altered")
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


def test_an_empty_split_has_none(altered):
    folder = altered(lambda content: content["splits"]["train"].update(images=0, shards=[]))
    with pytest.raises(ValueError, match="has no images"):
        fingerprint(folder)


def test_the_same_records_elsewhere_have_the_same(tiny_data, make_data):
    copy = make_data("copy", train=range(6), val=[0, 1, 3, 4])
    assert fingerprint(copy) == fingerprint(tiny_data)
    assert fingerprint(copy, "val") == fingerprint(tiny_data, "val")
    assert fingerprint(copy, "val") != fingerprint(copy)


def test_names_of_shards_do_not_matter(tiny_data, altered):
    folder = altered(lambda content: content["splits"]["train"].update(shards=["renamed"]))
    (folder / "train-00000-of-00001.tfrecord").rename(folder / "renamed")
    assert fingerprint(folder) == fingerprint(tiny_data)


@pytest.mark.parametrize("train", [[1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4]])
def test_other_records_have_another(tiny_data, make_data, train):
    assert fingerprint(make_data("other", train=train)) != fingerprint(tiny_data)


def test_other_names_of_classes_have_another(tiny_data, altered):
    folder = altered(lambda content: content["classes"][0].update(name="purple"))
    assert fingerprint(folder) != fingerprint(tiny_data)


def test_the_records_of_another_shard_are_not_those_of_one(tiny_data, altered):
    """The shards of an epoch are shuffled, so where one ends matters."""
    folder = altered(lambda content: content["splits"]["train"].update(shards=["first", "second"]))
    content = (folder / "train-00000-of-00001.tfrecord").read_bytes()
    # A record has its length in 8 bytes, a checksum of that, the content and a checksum.
    end = 8 + 4 + int.from_bytes(content[:8], "little") + 4
    (folder / "first").write_bytes(content[:end])
    (folder / "second").write_bytes(content[end:])
    assert fingerprint(folder) != fingerprint(tiny_data)


def test_the_lengths_of_a_shard_are_read_once(tiny_data, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_data, tmp_path / "copy")
    opened = []

    def note(path, *arguments):
        if str(path).endswith("tfrecord"):
            opened.append(path)
        return open(path, *arguments)

    monkeypatch.setattr(shards, "open", note, raising=False)
    dataset_info = read_dataset(folder)
    before = shards.fingerprint(dataset_info, "train")
    assert sum(shards.count_split(dataset_info, "train").values()) == 6
    assert len(opened) == 1
    # A file that has changed is read again.
    (path,) = dataset_info.shards("train")
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[:-4] + b"abcd")
    os.utime(path, ns=(1, 1))
    assert shards.fingerprint(dataset_info, "train") != before
    assert len(opened) == 2
