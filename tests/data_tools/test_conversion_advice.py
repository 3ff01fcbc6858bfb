"""Warnings about a converted split: when each is given, with its count and names."""

import pytest

from data_tools.conversion import advice, survey
from data_tools.readers import labels

NAMES = ["cat", "dog"]


def make_entry(**more):
    """An entry of report.json that deserves no warning."""
    of_class = {"objects": 100, "ignored": 0, "images": 50}
    return {
        "images": 100,
        "empty": 0,
        "boxes": 200,
        "ignored": 0,
        "classes": {"cat": of_class, "dog": of_class},
        "tiny_objects": {"objects": 0, "classes": {}, "files": []},
        "findings": {},
    } | more


def warn(split="train", left_out=(), **more):
    """[(what, count, names)] of the warnings."""
    found = advice.find_warnings(split, make_entry(**more), NAMES, left_out)
    assert all("\n" not in warning["text"] for warning in found)
    return [(warning["what"], warning["count"], warning["names"]) for warning in found]


def objects(**num_objects):
    return {name: {"objects": count, "images": 1} for name, count in num_objects.items()}


def tiny(count):
    return {"objects": count, "classes": {"dog": count}, "files": ["a.jpg"]}


@pytest.mark.parametrize(
    ("split", "more", "expected"),
    [
        ("train", {}, []),
        ("train", {"images": 50}, []),
        ("train", {"images": 3}, [("few_images", 3, [])]),
        ("val", {"images": 20}, []),
        ("test", {"images": 19}, [("few_images", 19, [])]),
        ("other", {"images": 1}, []),
        ("train", {"classes": objects(cat=20, dog=19)}, [("few_objects", 1, ["dog"])]),
        ("val", {"classes": objects(cat=5, dog=4)}, [("few_objects", 1, ["dog"])]),
        ("train", {"classes": objects(cat=9, dog=2)}, [("few_objects", 2, ["dog", "cat"])]),
        ("train", {"classes": objects(dog=50)}, [("classes_without_objects", 1, ["cat"])]),
        ("train", {"tiny_objects": tiny(39)}, []),
        ("train", {"tiny_objects": tiny(40)}, [("tiny_objects", 40, ["dog"])]),
        ("train", {"tiny_objects": tiny(40), "ignored": 1}, []),
        ("val", {"empty": 30}, []),
        ("val", {"empty": 31}, [("images_without_objects", 31, [])]),
        (
            "train",
            {"findings": {survey.UNLABELLED: {"count": 3, "first": ["x.jpg", "y.jpg"]}}},
            [("unlabelled_images", 3, ["x.jpg", "y.jpg"])],
        ),
    ],
)
def test_warnings(split, more, expected):
    assert warn(split, **more) == expected


def test_no_object_at_all():
    empty = {"boxes": 0, "classes": {}, "empty": 100}
    assert warn(**empty) == [
        ("classes_without_objects", 2, ["cat", "dog"]),
        ("images_without_objects", 100, []),
    ]


def test_sets_left_out():
    sets = [labels.ImageSet("valid", "val", 7), labels.ImageSet("test", "test", -1)]
    assert warn(left_out=sets) == [("set_left_out", 7, ["valid"]), ("set_left_out", 0, ["test"])]
    texts = [each["text"] for each in advice.find_warnings("train", make_entry(), NAMES, sets)]
    assert "--split val --image_set valid" in texts[0]
    assert "--split test --image_set test" in texts[1]
