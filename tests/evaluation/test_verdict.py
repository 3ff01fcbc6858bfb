"""The sentence and the suggestion, on tables that are built by hand and on drawn weaknesses."""

import re

import numpy as np
import pytest
from coco_rows import make_tables

from ssd_tf.evaluation import analysis, verdict
from ssd_tf.weights.run_files import Peak

WIDTH = 400
HEIGHT = 200
CELL = 50
CROWD = "crowd"
PER_IMAGE = (WIDTH // CELL) * (HEIGHT // CELL)


def make_case(objects, names=("cat",), size=(WIDTH, HEIGHT)):
    """Objects on a grid of cells, 8 x 4 in an image, each with what the detector says of it.

    objects: (class name or None if it is not labelled, side, [(class name, score, shift), ...]).
    CROWD stands for a crowd of the first class. shift: of the detection to the right, in parts of
    the side.
    """
    annotations = []
    results = []
    for index, (name, side, detections) in enumerate(objects):
        image, cell = divmod(index, PER_IMAGE)
        row, column = divmod(cell, WIDTH // CELL)
        box = [column * CELL, row * CELL, side, side]
        if name is not None:
            flags = {"iscrowd": int(name == CROWD)}
            name = names[0] if name == CROWD else name
            annotation = {"image_id": image, "category_id": names.index(name), "bbox": box, **flags}
            annotations.append({"id": index + 1, "area": side**2, **annotation})
        for found, score, shift in detections:
            moved = [box[0] + shift * side, *box[1:]]
            result = {"image_id": image, "category_id": names.index(found), "bbox": moved}
            results.append({**result, "score": score})
    num_images = -(-len(objects) // PER_IMAGE)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]}
            for i in range(num_images)
        ],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
    }
    return analysis.analyse(*make_tables(content, results))


def right(name, count, side=40, score=0.9):
    return [(name, side, [(name, score, 0)])] * count


def missed(name, count, side=40):
    return [(name, side, [])] * count


def false_alarms(name, count, score=0.9):
    return [(None, 40, [(name, score, 0)])] * count


def suggest(analysed, input_hw=None, peak=None):
    return verdict.suggest(analysed, verdict.count(analysed), input_hw, peak)


def numbers(text):
    return re.findall(r"\.?\d+(?:,\d+)*", text)


def test_nothing():
    empty = make_case([])
    assert set(verdict.judge(empty)) == {"sentence", "suggestion"}
    assert numbers(verdict.judge(empty)["sentence"]) == []
    assert suggest(empty).cause == "few"


def test_one_class():
    analysed = make_case(right("cat", 38) + missed("cat", 3) + false_alarms("cat", 2, 0.72))
    # The best F1 is that of .73 to .90, the middle of which is .81.
    counts = verdict.count(analysed)
    assert counts.found.tolist() == [38] and counts.wrong.tolist() == [0]
    sentence = verdict.describe(analysed, counts)
    assert numbers(sentence) == ["38", "41", ".81", "3"]
    assert "cat" in sentence


def test_false_alarms_as_sure_as_right_detections_are_counted():
    analysed = make_case(right("cat", 38) + missed("cat", 3) + false_alarms("cat", 2))
    sentence = verdict.describe(analysed, verdict.count(analysed))
    assert numbers(sentence) == ["38", "41", "2", ".45", "3"]


def test_several_classes_are_summed_and_the_worst_is_named():
    names = ("cat", "dog")
    objects = right("cat", 20, score=0.8) + right("dog", 12, score=0.35)
    objects += missed("dog", 8) + false_alarms("dog", 1, 0.9) + false_alarms("cat", 20, 0.5)
    counts = verdict.count(make_case(objects, names))
    assert counts.scores.tolist() == pytest.approx([0.65, 0.17])
    sentence = verdict.describe(make_case(objects, names), counts)
    assert numbers(sentence) == ["32", "40", "1", ".17", ".65", "12", "20", "1", "8"]
    assert "dog" in sentence and "cat" not in sentence


def test_a_crowd_is_neither_found_nor_missed():
    crowd = [(CROWD, 40, [("cat", 0.9, 0), ("cat", 0.9, 0.1)]), (CROWD, 40, [])]
    counts = verdict.count(make_case(right("cat", 9) + missed("cat", 1) + crowd))
    assert (counts.objects.tolist(), counts.found.tolist()) == ([10], [9])
    assert counts.wrong.tolist() == [0]
    assert {kind: number for kind, number in counts.errors.items() if number} == {"missed": 1}


def test_kinds_of_errors():
    names = ("cat", "dog")
    objects = [
        *right("cat", 10),
        ("cat", 40, [("dog", 0.9, 0)]),  # another class
        ("cat", 40, [("cat", 0.9, 0.5)]),  # IoU 1/3
        ("cat", 40, [("dog", 0.9, 0.5)]),
        ("cat", 40, [("cat", 0.95, 0), ("cat", 0.9, 0.1)]),
        *missed("cat", 1),
        *false_alarms("cat", 1),
    ]
    errors = verdict.count(make_case(objects, names)).errors
    assert {kind: errors[kind] for kind in ("classification", "localisation", "both")} == {
        "classification": 1,
        "localisation": 1,
        "both": 1,
    }
    assert (errors["duplicate"], errors["background"]) == (1, 1)


def test_without_a_right_detection():
    assert suggest(make_case(missed("cat", 8))).cause == "untrained"


def test_few_errors():
    assert suggest(make_case(right("cat", 4) + missed("cat", 2))).cause == "few"
    assert suggest(make_case(right("cat", 97) + missed("cat", 3))).cause == "good"
    # F1 = 2 * 90 / (90 + 100) < .95.
    assert suggest(make_case(right("cat", 90) + missed("cat", 10))).cause == "unclear"
    assert "10 of 10" in suggest(make_case(right("cat", 90) + missed("cat", 10))).text


def test_a_training_that_had_its_best_ap_long_before_its_end():
    analysed = make_case(right("cat", 90) + missed("cat", 10))
    plain = suggest(analysed)
    peak = Peak(1199, 1800, 3)
    past = suggest(analysed, peak=peak)
    for other in (Peak(200, 300, 3), Peak(0, 0, 0), Peak(1199, 1800, 2)):
        assert suggest(analysed, peak=other) == plain
    from_the_start = suggest(analysed, peak=Peak(0, 300, 3))
    assert numbers(from_the_start.text) == ["10", "10"]
    assert from_the_start != plain
    assert past.cause == plain.cause
    assert numbers(past.text) == ["10", "10", "1,199", "1,800"]
    assert numbers(plain.text) == ["10", "10"]
    assert verdict.judge(analysed, None, peak)["suggestion"] == past.text


def test_contradicted_labels():
    names = ("cat", "dog")
    wrong_label = [("dog", 40, [("cat", 0.9, 0)])] * 5
    found = right("cat", 20) + right("dog", 20)
    suggestion = suggest(make_case(found + wrong_label, names))
    # 5 suspects are less than a fifth of the 40 right detections.
    assert suggestion.cause == "confused"
    suggestion = suggest(make_case(found + wrong_label + false_alarms("dog", 3), names))
    assert suggestion.cause == "labels"
    # In image 1, as the first has 32 of the objects.
    assert numbers(suggestion.text) == ["1", "3", "5", ".90"]


def test_unsure_false_alarms_say_nothing_about_the_labels():
    objects = right("cat", 40) + false_alarms("cat", 30, 0.6) + missed("cat", 10)
    assert suggest(make_case(objects)).cause == "unclear"


def test_boxes_at_the_wrong_place():
    objects = right("cat", 30) + [("cat", 40, [("cat", 0.9, 0.5)])] * 10
    assert suggest(make_case(objects)).cause == "boxes"
    twice = [("cat", 40, [("cat", 0.95, 0), ("cat", 0.94, 0.1)])] * 10
    assert suggest(make_case(right("cat", 30) + twice)).cause == "boxes"
    # 10 of 21 errors do not dominate.
    assert suggest(make_case(objects + missed("cat", 11))).cause == "unclear"


def test_confused_classes():
    names = ("cat", "dog", "owl")
    confused = [("cat", 40, [("dog", 0.9, 0)])] * 10
    objects = right("cat", 30) + right("dog", 40) + right("owl", 40) + confused
    suggestion = suggest(make_case(objects, names))
    assert suggestion.cause == "confused"
    assert suggestion.text.index("cat") < suggestion.text.index("dog") and "owl" not in (
        suggestion.text
    )


def drawn(rng, count, name, side, recall, labelled=1.0):
    """Objects of a detector that finds this fraction of them, with scores from .5 to .99."""
    objects = []
    for _ in range(count):
        is_found = rng.random() < recall
        detections = [(name, float(rng.uniform(0.5, 0.99)), 0.1 * rng.random())] * is_found
        objects.append((name if rng.random() < labelled else None, side, detections))
    return objects


def noise(rng, count, names):
    """Detections where nothing is, with low scores."""
    return [(None, 30, [(str(rng.choice(names)), float(rng.uniform(0.1, 0.5)), 0)])] * count


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_rare_class(seed):
    rng = np.random.default_rng(seed)
    names = ("cat", "dog", "owl")
    objects = [
        *drawn(rng, 120, "cat", 40, 0.9),
        *drawn(rng, 110, "dog", 40, 0.9),
        *drawn(rng, 12, "owl", 40, 0.25),
        *noise(rng, 20, names),
    ]
    suggestion = suggest(make_case(objects, names), (200, 400))
    assert suggestion.cause == "rare"
    assert "owl" in suggestion.text and "cat" not in suggestion.text


def test_a_class_is_rare_and_found_less_often_than_the_others():
    names = ("cat", "dog")
    cats = right("cat", 90) + missed("cat", 10)
    # Of the median's half, 33.25 objects; recall .9 - .667 > .2.
    assert suggest(make_case(cats + right("dog", 22) + missed("dog", 11), names)).cause == "rare"
    # Recall .9 - .727 < .2.
    assert suggest(make_case(cats + right("dog", 24) + missed("dog", 9), names)).cause == "unclear"
    # The median's half is 33.5.
    objects = cats + right("dog", 22) + missed("dog", 12)
    assert suggest(make_case(objects, names)).cause == "unclear"


def test_small_objects_that_are_found_like_others():
    small = right("cat", 30, 12) + missed("cat", 10, 12)
    # Recall .75 and .9, .96.
    assert suggest(make_case(small + right("cat", 9) + missed("cat", 1))).cause == "unclear"
    assert suggest(make_case(small + right("cat", 24) + missed("cat", 1))).cause == "small"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num_large", [0, 80])
def test_objects_of_12_pixels(seed, num_large):
    rng = np.random.default_rng(seed)
    objects = [
        *drawn(rng, 80, "cat", 12, 0.4),
        *drawn(rng, num_large, "cat", 40, 0.9),
        *noise(rng, 20, ("cat",)),
    ]
    suggestion = suggest(make_case(objects), (200, 400))
    assert suggestion.cause == "small"
    # Twice the input: 400 x 800, in multiples of 32.
    assert "[416, 800]" in suggestion.text
    assert numbers(suggestion.text)[-1] == "12"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_half_of_the_labels_are_missing(seed):
    rng = np.random.default_rng(seed)
    names = ("cat", "dog")
    objects = [
        *drawn(rng, 100, "cat", 40, 0.9, labelled=0.5),
        *drawn(rng, 100, "dog", 40, 0.9, labelled=0.5),
        *noise(rng, 20, names),
    ]
    suggestion = suggest(make_case(objects, names), (200, 400))
    assert suggestion.cause == "labels"
    assert len(re.findall(r"\d\.jpg", suggestion.text)) == 3


def test_sizes_are_those_at_the_input():
    # 20 pixels in images of 400 x 200 are 10 x 20 at an input of 200 x 200 (square root 14.1), and
    # 40 x 20 at one of 200 x 800.
    objects = right("cat", 20, 40) + missed("cat", 10, 20)
    assert suggest(make_case(objects)).cause == "unclear"
    small = suggest(make_case(objects), (200, 200))
    assert small.cause == "small"
    assert numbers(small.text)[-1] == "14"
    assert suggest(make_case(objects), (200, 800)).cause == "unclear"
