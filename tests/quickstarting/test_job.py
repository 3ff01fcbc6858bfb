"""Errors of a step, for a user who has given other flags."""

import pytest

from ssd_tf.quickstarting.job import in_own_terms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.jpg: corrupt",
        "--classes: no class 'x'; give another --output",
        "a--labels-b is empty",
    ],
)
def test_messages_without_flags_of_the_step_stay(text):
    assert in_own_terms(text, "convert voc") == text
    assert in_own_terms(text, "import") == text


def test_the_file_to_import_is_the_start():
    assert in_own_terms("--source: a.pb is empty", "import") == "--start: a.pb is empty"
    labels = in_own_terms("--labels: a.txt has 3 names, expected 4", "import")
    assert labels.startswith("--start: ") and labels.endswith(": a.txt has 3 names, expected 4")
    assert "--labels" not in labels


@pytest.mark.parametrize(
    ("command", "text", "flags", "then"),
    [
        ("import", "a.pb: give --pipeline_config", "--pipeline_config", "--start"),
        ("convert yolo", "--yolo: no a.txt; --image_set", "--yolo, --image_set", "by hand"),
        ("convert coco", "--source: a or another --output", "--source", "by hand"),
    ],
)
def test_other_flags_are_said_to_be_those_of_the_step(command, text, flags, then):
    explained = in_own_terms(text, command)
    assert explained.startswith(f"{text} ({flags}: of `ssd {command}`; ")
    assert then in explained
