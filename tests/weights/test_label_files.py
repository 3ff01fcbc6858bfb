"""Class names of someone else's detector: text, label maps, COCO instances."""

import json

import pytest

from ssd_tf.config import ConfigError
from ssd_tf.weights.label_files import read_classes

CAT_AND_DOG = [{"name": "cat", "id": 1}, {"name": "dog", "id": 3}]
LABEL_MAP = """
# item { id: 2 name: 'bird' }
item {
  name: "/m/01yrx"
  id: 1
  display_name: "cat"
}
item: { id: 3, name: 'dog' }
"""


def test_without_a_file_the_ids_are_the_names():
    assert read_classes(None, 2, "model.pb") == [{"name": "1", "id": 1}, {"name": "2", "id": 2}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "cat\n???\ndog\n"),
        ("labels.txt", "???\ncat\n???\n dog \n"),
        ("labels.txt", "background\ncat\n???\ndog"),
        ("map.pbtxt", LABEL_MAP),
        ("map.pbtxt", "item { id: 0 name: 'background' }" + LABEL_MAP),
        (
            "instances.json",
            json.dumps({"categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}]}),
        ),
    ],
)
def test_every_kind_of_file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert read_classes(path, 3, "model.pb") == CAT_AND_DOG


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "", "labels.txt has 0 names, expected 3, one for each class of model.pb"),
        (
            "labels.txt",
            "cat\ndog\n",
            "labels.txt has 2 names, expected 3, one for each class of model.pb",
        ),
        ("labels.txt", "cat\ndog\ncat\n", "the name 'cat' is there more than once"),
        ("labels.txt", "???\n???\n???\n", "labels.txt names no classes"),
        ("map.pbtxt", "", "map.pbtxt names no classes"),
        ("map.pbtxt", "item { id: 1 }", "an item without id or name: id: 1"),
        (
            "map.pbtxt",
            "item { id: 4 name: 'cow' }",
            "map.pbtxt: cow has the id 4, expected 1 to 3, the ids of model.pb",
        ),
        (
            "map.pbtxt",
            "item { id: 1 name: 'cow' } item { id: 1 name: 'pig' }",
            "the id 1 is there more than once",
        ),
        ("a.json", "{", "cannot read classes from .*a.json"),
        ("a.json", "[]", "cannot read classes from .*a.json"),
        ("a.json", '{"categories": [{"id": 1}]}', "cannot read classes from .*a.json"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_classes(path, 3, "model.pb")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match=r"--labels: no file at .*nowhere.txt"):
        read_classes(tmp_path / "nowhere.txt", 3, "model.pb")
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"--labels: cannot read classes from .*labels.txt"):
        read_classes(path, 3, "model.pb")
