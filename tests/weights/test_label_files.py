"""Class names of someone else's detector: text, label maps, COCO instances."""

import json
import pathlib

import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.weights.label_files import (
    format_names,
    parse_classes,
    parse_own_names,
    read_classes,
    spread_names,
)

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
        ("labels.txt", "cat\ndog\ncat\n", "the class name 'cat' is there more than once"),
        ("labels.txt", "???\n???\n???\n", "labels.txt names no classes"),
        ("map.pbtxt", "", "map.pbtxt names no classes"),
        ("map.pbtxt", "item { id: 1 }", "an item without id or name: "),
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
    with pytest.raises(ConfigError, match=r"--labels: no file at "):
        read_classes(tmp_path, 3, "model.pb")
    path = tmp_path / "labels.txt"
    for content in (b"\xff\xfe\x00", b"\xe9cole\ncat\ndog\n", b"\x89PNG\r\n\x1a\n\0\0"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"--labels: .*labels.txt"):
            read_classes(path, 3, "model.pb")


COCO = [{"id": 0, "name": "cat"}, {"id": 2, "name": "dog"}]
ROOT = [{"id": 0, "name": "pets", "supercategory": "none"}]
CHILDREN = [{"id": 1, "name": "cat", "supercategory": "pets"}, {"id": 3, "name": "dog"}]


def names_of(text, count, name="labels.txt"):
    return spread_names(parse_classes(text, pathlib.Path(name), count, "the model"))


@pytest.mark.parametrize("count", [3, None])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\n???\ndog"),
        ("a.txt", "\ncat\n???\ndog\n\n \n".lstrip()),
        ("a.txt", "cat\r\n???\r\ndog\r\n"),
        ("a.txt", "???\ncat\n???\ndog\n"),
        ("a.txt", "Background\ncat\n???\ndog\n"),
        ("a.txt", "__background__\ncat\n???\ndog\n"),
        ("a.txt", "0  cat\n2  dog\n"),
        ("a.txt", "2: dog\n\n0: cat\n"),
        ("a.txt", "1 cat\n3 dog\n"),
        ("a.txt", "1,cat\n3,dog\n"),
        ("a.txt", "1. cat\n2. ???\n3. dog\n"),
        ("a.txt", "0 background\n1 cat\n3 dog\n"),
        ("a.json", json.dumps({"categories": COCO})),
        ("a.txt", json.dumps({"categories": COCO})),
        ("a.json", json.dumps({"categories": ROOT + CHILDREN})),
        ("a.json", json.dumps({"categories": [{"id": 0, "name": "cat"}, *CHILDREN]})),
        ("a.json", json.dumps({"categories": [{"id": "0", "name": "Background"}, *CHILDREN]})),
        ("a.json", json.dumps({"categories": COCO, "annotations": [{"category_id": 0}, 3]})),
        ("a.json", json.dumps({"categories": CHILDREN, "annotations": None})),
        ("a.json", json.dumps({"categories": CHILDREN})),
        ("a.JSON", json.dumps({"categories": [{"id": "1", "name": "cat"}, CHILDREN[1]]})),
        ("a.json", json.dumps({"categories": [{"id": 1.0, "name": " cat "}, CHILDREN[1]]})),
        ("a.pbtxt", "item { id: 0 name: 'cat' } item { id: 2 name: 'dog' }"),
        ("a.txt", "item { id: 1 name: 'cat' } # one\nitem { id: 3 name: 'dog' }"),
        ("a.pbtxt", "item { id: 1 name: 'cat' k { id: 9 } } item { id: 3 name: \"dog\" }"),
    ],
)
def test_ids_from_0_and_from_1(name, text, count):
    assert names_of(text, count, name) == ["cat", None, "dog"]


def test_category_0_is_a_class_if_it_has_objects():
    """As in the converters and in `ssd evaluate`, whatever its name."""
    content = {"categories": [*ROOT, {**CHILDREN[0], "id": 1}, {"id": 2, "name": "dog"}]}
    assert names_of(json.dumps(content), None, "a.json") == ["cat", "dog"]
    content["annotations"] = [{"category_id": 1}, {"category_id": "0"}]
    assert names_of(json.dumps(content), None, "a.json") == ["pets", "cat", "dog"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "???\n\u732b\n???\ndog\n"),
        ("labels.txt", "0  \u732b\n2  dog\n"),
        ("map.pbtxt", "item { id: 1 name: '\u732b' } item { id: 3 name: 'dog' }"),
        ("coco.json", '{"categories": [{"id": 0, "name": "\u732b"}, {"id": 2, "name": "dog"}]}'),
    ],
)
def test_encodings(tmp_path, encoding, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert [entry["name"] for entry in read_classes(path, 3, "model.pb")] == ["\u732b", "dog"]


def test_names_with_quotes_and_separators():
    text = (
        "item { id: 1 name: 'rubik\\'s {cube}' } item { id: 2 display_name: \"# 2, b\" name: '/m' }"
    )
    assert names_of(text, 2, "a.pbtxt") == ["rubik's {cube}", "# 2, b"]


def test_lines_of_which_some_begin_with_a_number_are_names():
    assert names_of("7 up\ncola\n", 2) == ["7 up", "cola"]
    assert names_of("1\n2\n", 2) == ["1", "2"]
    assert names_of("0.5 l\n1.5 l\n", 2) == ["0.5 l", "1.5 l"]
    assert names_of("0,5 l\n1,5 l\n", 2) == ["0,5 l", "1,5 l"]


def test_a_first_line_is_the_background_only_if_there_is_one_too_many():
    assert names_of("background\ncat\ndog\n", 3) == ["background", "cat", "dog"]
    assert names_of("background\ncat\ndog\n", 2) == ["cat", "dog"]
    assert names_of("???\ncat\ndog\n", 3) == [None, "cat", "dog"]
    assert names_of("0 background\n1 cat\n", 2) == ["background", "cat"]
    assert names_of("0 background\n1 cat\n", 1) == ["cat"]


@pytest.mark.parametrize("count", [90, None])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "-1 cat\n1 dog\n"),
        ("a.txt", "1 cat\n100000000 dog\n"),
        ("a.txt", "1 cat\n1 dog\n"),
        ("a.txt", "cat\n\ndog\n"),
        ("a.txt", "cat\ncat\n"),
        ("a.txt", "cat\u2028tail\ndog\n"),
        ("a.txt", ""),
        ("a.json", "{}"),
        ("a.json", "[" * 100_000),
        ("a.json", '["cat", "dog"]'),
        ("a.json", '{"categories": 3}'),
        ("a.json", '{"categories": []}'),
        ("a.json", '{"categories": [3]}'),
        ("a.json", '{"categories": [{"id": -1, "name": "cat"}, {"id": 1, "name": "dog"}]}'),
        ("a.json", '{"categories": [{"id": 100000000, "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": true, "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": null, "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": 1.5, "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": NaN, "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": "one", "name": "cat"}]}'),
        ("a.json", '{"categories": [{"id": 1, "name": 5}]}'),
        ("a.json", '{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}'),
        ("a.pbtxt", "item { id: -1 name: 'cat' }"),
        ("a.pbtxt", "item { id: 100000000 name: 'cat' }"),
        ("a.pbtxt", "item { id: one name: 'cat' }"),
        ("a.pbtxt", "item { id: 1 name: 'cat' } item { id: 2 name: 'do"),
        ("a.pbtxt", "item { id: 1 name: 'rubik's' }"),
        ("a.pbtxt", "item { id: 90 name: 'cat'"),
        ("a.JSON", "3"),
    ],
)
def test_what_is_rejected_in_one_line(name, text, count):
    with pytest.raises(ValueError, match=r"a\.\w+") as error:
        names_of(text, count, name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


EIGHTY = [f"class {index}" for index in range(80)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "".join(f"{name}\n" for name in EIGHTY)),
        ("a.txt", "".join(f"{index} {name}\n" for index, name in enumerate(EIGHTY))),
        ("a.txt", "".join(f"{index}: {name}\n" for index, name in enumerate(EIGHTY, 1))),
        (
            "a.json",
            json.dumps({"categories": [{"id": k, "name": n} for k, n in enumerate(EIGHTY, 1)]}),
        ),
        ("a.pbtxt", "".join(f"item {{ id: {k} name: '{n}' }}" for k, n in enumerate(EIGHTY, 1))),
    ],
)
def test_eighty_names_fit_eighty_classes_only(name, text):
    assert names_of(text, 80, name) == EIGHTY
    for count in (1, 79, 81, 90, 91):
        with pytest.raises(ValueError, match="the model"):
            names_of(text, count, name)


OWN = ["background", "\u4eba,\u7269", "???", "0 cat", "1 dog"]


def test_our_own_files_are_read_literally():
    path = pathlib.Path("labels.txt")
    text = format_names(OWN)
    assert text == "background\n\u4eba,\u7269\n???\n0 cat\n1 dog\n"
    assert parse_own_names(text, path, 5) == OWN
    assert parse_own_names(text.replace("\n", "\r\n") + "\r\n", path, 5) == OWN
    for changed in (text + "more\n", text.replace("???\n", ""), text.replace("???", "1 dog"), ""):
        with pytest.raises(ValueError, match=r"labels\.txt"):
            parse_own_names(changed, path, 5)
