"""Errors, thresholds and slices, counted by hand on a dozen boxes in two images of 200 x 100."""

import numpy as np
import pytest
from coco_rows import make_tables

from ssd_tf.evaluation import analysis, evaluate
from ssd_tf.evaluation.analysis import confusion_matrix, match, match_at_iou50, without_ignored

CATEGORIES = [{"id": 0, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "owl"}]
IMAGES = [{"id": 0, "height": 100, "width": 200}, {"id": 8, "height": 100, "width": 200}]
CAT, DOG, OWL = 0, 5, 9

# Objects: two cats and a dog in image 0; a cat, a difficult cat and a crowd of dogs in image 8.
OBJECTS = [
    (0, CAT, [0, 0, 20, 20], {}),
    (0, DOG, [50, 50, 40, 20], {}),
    (0, CAT, [150, 0, 10, 40], {}),
    (8, CAT, [0, 0, 20, 20], {}),
    (8, CAT, [60, 60, 30, 30], {"difficult": 1}),
    (8, DOG, [100, 50, 40, 40], {"iscrowd": 1}),
]
DETECTIONS = [
    (0, CAT, [0, 0, 20, 20], 0.90),  # right
    (0, CAT, [0, 0, 20, 19], 0.80),  # the same object again
    (0, CAT, [50, 50, 40, 20], 0.70),  # a dog
    (8, CAT, [0, 0, 20, 8], 0.60),  # IoU .4
    (8, CAT, [60, 60, 30, 30], 0.55),  # the difficult cat: ignored
    (8, DOG, [100, 50, 20, 20], 0.50),  # inside the crowd: ignored
    (8, DOG, [180, 0, 10, 10], 0.40),  # nothing there
    (0, DOG, [50, 50, 40, 21], 0.30),  # right
    (0, OWL, [150, 0, 10, 18], 0.20),  # another class, IoU .45
]


def tables_of(objects=OBJECTS, detections=DETECTIONS):
    annotations = [
        {"id": index, "image_id": image, "category_id": category, "bbox": box}
        | {"area": box[2] * box[3]}
        | flags
        for index, (image, category, box, flags) in enumerate(objects, start=1)
    ]
    content = {"images": IMAGES, "annotations": annotations, "categories": CATEGORIES}
    rows = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in detections
    ]
    return make_tables(content, rows)


@pytest.fixture(scope="module")
def analysed():
    return analysis.analyse(*tables_of())


def test_without_objects_and_without_detections():
    empty = analysis.analyse(*tables_of([], []))
    assert (empty.thresholds, empty.score) == (None, 0.5)
    assert not empty.confusion.any()
    assert all(row == {"count": 0, "cost": 0} for row in empty.errors.values())
    assert empty.image_counts["missed"].tolist() == [0, 0]


def test_all_is_wrong_without_objects():
    only_wrong = analysis.analyse(*tables_of([]))
    assert (only_wrong.thresholds, only_wrong.score) == (None, 0.5)
    assert only_wrong.errors["background"] == {"count": 9, "cost": 0}
    assert only_wrong.image_counts["wrong"].tolist() == [3, 3]  # that score at least .5


def test_all_is_missed_without_detections():
    missed = analysis.analyse(*tables_of(detections=[]))
    assert missed.thresholds["best"] is None
    assert missed.errors["missed"]["count"] == 4
    assert missed.confusion[:, -1].tolist() == [3, 1, 0, 0]
    assert missed.image_counts["missed"].tolist() == [3, 1]


def test_matches():
    matches = match(*tables_of())
    assert matches.status.tolist() == [1, 0, 0, 0, -1, -1, 0, 1, 0]
    assert matches.partner.tolist() == [0, 7, -1, -1, -1, -1]
    assert matches.label_errors == []  # the dog that was called a cat was found as a dog too


def test_likely_label_errors():
    # Without the dog of .30: the cat of .70 says that the dog is none. The other mistakes are
    # duplicates, near an object, or below .5.
    sure = (8, DOG, [180, 60, 15, 15], 0.95)
    matches = match(*tables_of(detections=[*DETECTIONS[:7], sure]))
    assert matches.label_errors == [
        {"type": "missing_annotation", "detection": 7, "object": None},
        {"type": "wrong_label", "detection": 2, "object": 1},
    ]


def test_more_images_than_are_matched_at_once():
    count = 600
    box = [10, 10, 30, 20]
    images = [{"id": index, "height": 100, "width": 200} for index in range(count)]
    annotation = {"category_id": CAT, "bbox": box, "area": 600}
    content = {
        "images": images,
        "annotations": [{"id": 1 + i, "image_id": i, **annotation} for i in range(0, count, 2)],
        "categories": CATEGORIES,
    }
    # In reverse; every third image has a detection, so every sixth a right one.
    rows = [
        {"image_id": i, "category_id": CAT, "bbox": box, "score": 0.9}
        for i in reversed(range(0, count, 3))
    ]
    truth, found = make_tables(content, rows)
    matches = match(truth, found)
    assert [row["image_id"] for row, right in zip(rows, matches.status, strict=True) if right] == [
        *reversed(range(0, count, 6))
    ]
    for index, partner in enumerate(matches.partner):
        image = 2 * index
        assert (rows[partner]["image_id"] if partner >= 0 else None) == (
            image if image % 6 == 0 else None
        )


def test_error_split(analysed):
    counts = {name: row["count"] for name, row in analysed.errors.items()}
    assert counts == {
        "classification": 1,
        "localisation": 1,
        "both": 1,
        "duplicate": 1,
        "background": 1,
        "missed": 1,  # the thin cat, whose detection has neither its class nor its place
    }
    # AP50 of dogs: a mistake at .40 before the hit at .30, so .5; else 1. Mean of two classes.
    assert analysed.errors["background"]["cost"] == pytest.approx((1 - 0.5) / 2)
    # AP50 of cats: 34 of 101 recalls at precision 1. The cat of .60 would be the second hit, after
    # two mistakes: for 33 recalls more the precision is 2 / 4.
    assert analysed.errors["localisation"]["cost"] == pytest.approx(33 / 101 * 0.5 / 2)
    # The cat that is a dog comes after the last hit of its class, and the dog was found anyway.
    assert analysed.errors["classification"]["cost"] == 0


def test_confusion(analysed):
    # At .25, without the owl. Rows cat, dog, owl and nothing; columns the same. A detection takes
    # one object, the best score first: the dog is taken by the cat of .70, the dog of .30 is left.
    assert analysed.confusion.tolist() == [[1, 0, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0], [2, 2, 0, 0]]
    truth, found = tables_of()
    matched = match_at_iou50(*without_ignored(truth, found, match(truth, found)))
    assert confusion_matrix(matched, 0.2)[3].tolist() == [2, 2, 1, 0]
    assert confusion_matrix(matched, 0.91)[:, 3].tolist() == [3, 1, 0, 0]


def test_thresholds(analysed):
    curves = analysed.thresholds
    at = {
        score: (curves["precision"][index], curves["recall"][index], curves["f1"][index])
        for index, score in enumerate(curves["score"])
    }
    # Of 4 objects; 7 detections count, 2 are right. F1 is 2 right / (detections + objects).
    assert at[0] == pytest.approx((2 / 7, 2 / 4, 4 / 11))
    assert at[0.3] == pytest.approx((2 / 6, 2 / 4, 4 / 10))
    assert at[0.31] == pytest.approx((1 / 5, 1 / 4, 2 / 9))
    assert at[0.9] == pytest.approx((1, 1 / 4, 2 / 5))
    assert at[0.91] == pytest.approx((1, 0, 0))
    # F1 is .4 from .21 to .30 and from .81 to .90: the middle of the first.
    assert analysed.score == curves["best"]["score"] == 0.25
    # With five times all: cats 12 / 29 from .81 and 22 / 57 from .21; dogs 10 / 26 and 22 / 53.
    assert analysed.chosen.classes == {"cat": 0.85, "dog": 0.25, "owl": 0.25}
    assert analysis.class_rows({}, analysed)[0]["precision"] == 1
    of_class = analysed.class_thresholds
    assert sorted(of_class) == ["cat", "dog"]
    assert of_class["dog"]["best"]["recall"] == 1
    assert of_class["cat"]["best"] == pytest.approx(
        {"score": 0.85, "precision": 1, "recall": 1 / 3, "f1": 0.5}
    )


def test_a_score_of_float32_is_not_below_its_decimal():
    score = float(np.float32(0.35))
    assert score < 0.35
    detections = [(0, CAT, [0, 0, 20, 20], score)]
    curves = analysis.analyse(*tables_of(OBJECTS[:1], detections)).thresholds
    assert curves["recall"][35] == 1
    assert curves["recall"][36] == 0


def test_calibration(analysed):
    bins = {round(row["bin_lower"], 1): row for row in analysed.calibration["bins"] if row["count"]}
    assert {low: row["count"] for low, row in bins.items()} == pytest.approx(
        {0.2: 1, 0.3: 1, 0.4: 1, 0.6: 1, 0.7: 1, 0.8: 1, 0.9: 1}
    )
    assert bins[0.9]["avg_accuracy"] == 1 and bins[0.8]["avg_accuracy"] == 0
    # Gaps .2, .7, .4, .6, .7, .8, .1, each of one in seven.
    assert analysed.calibration["ece"] == pytest.approx(3.5 / 7, abs=1e-6)


def test_slices(analysed):
    # Square roots of the areas: 20, 28.3, 20 and 20 pixels; the crowd and the difficult are out.
    sizes = {row["name"]: row["objects"] for row in analysed.by_size}
    assert sizes == dict.fromkeys(sizes, 0) | {"16 to 32": 4}
    # Widths per height: 1, 2, 1/4 and 1.
    aspects = {row["name"]: row for row in analysed.by_aspect}
    assert [row["objects"] for row in aspects.values()] == [1, 0, 2, 1, 0]
    assert aspects["below 1:3"]["AP50"] == 0
    assert aspects["1:3 to 2:3"]["AP"] == -1
    # The dog of 2:1 has one right detection; the mistakes of its class have other shapes.
    assert aspects["3:2 to 3:1"]["AP50"] == pytest.approx(1)


def test_counts_of_images(analysed):
    # At .25.
    assert {name: counts.tolist() for name, counts in analysed.image_counts.items()} == {
        "right": [2, 0],
        "wrong": [2, 2],
        "missed": [1, 1],
    }
    assert analysed.is_found.tolist() == [True, True, False, False, False, False]


def test_rows_of_classes(analysed):
    rows = analysis.class_rows({"cat": {"AP": 0.25}}, analysed)
    assert [(row["class"], row["objects"], row["detections"]) for row in rows] == [
        ("cat", 3, 4),
        ("dog", 1, 2),
        ("owl", 0, 1),
    ]
    assert (rows[0]["AP"], rows[0]["AP50"], rows[2]["threshold"]) == (0.25, None, None)


def test_a_class_of_which_nothing_is_shown_has_no_precision(analysed):
    chosen = analysed.chosen._replace(classes={"cat": 0.95, "dog": 0.25, "owl": 0.25})
    rows = analysis.class_rows({}, analysed._replace(chosen=chosen))
    assert (rows[0]["precision"], rows[0]["recall"]) == (None, 0)
    assert rows[1]["precision"] is not None


def test_coverage_by_default_boxes(analysed):
    is_found = np.array([True, False, False, True, True, True])
    analysed = analysed._replace(is_found=is_found)
    # One box equal to the first cat, one that covers 11 of 20 columns of the dog; of 200 x 100.
    boxes = np.array([[0, 0, 0.2, 0.1], [0.5, 0.25, 0.7, 0.36]], np.float32)
    rows = evaluate.coverage(analysed, boxes)
    assert {row["name"]: (row["objects"], row["found"]) for row in rows if row["objects"]} == {
        "0.7 to 1.0": (2, 2),
        "0.5 to 0.6": (1, 0),
        "0.0 to 0.3": (1, 0),
    }


def test_mistakes_count_in_the_slice_of_their_own_shape():
    # A square cat, found after a mistake that is square and one that is not.
    detections = [
        (0, CAT, [100, 0, 20, 20], 0.9),
        (0, CAT, [100, 50, 60, 10], 0.8),
        (0, CAT, [0, 0, 20, 20], 0.7),
    ]
    rows = {
        row["name"]: row for row in analysis.analyse(*tables_of(OBJECTS[:1], detections)).by_aspect
    }
    assert rows["2:3 to 3:2"]["AP50"] == pytest.approx(1 / 2)
    assert rows["above 3:1"]["AP50"] == -1


def test_an_object_at_the_edge_of_a_range_is_in_both():
    # COCO's area ranges include both ends: 16 x 16 pixels, and 3:1.
    objects = [(0, CAT, [0, 0, 16, 16], {}), (0, DOG, [50, 50, 60, 20], {})]
    detections = [(0, CAT, [0, 0, 16, 16], 0.9), (0, DOG, [50, 50, 60, 20], 0.8)]
    analysed = analysis.analyse(*tables_of(objects, detections))
    sizes = {row["name"]: (row["objects"], row["AP"]) for row in analysed.by_size}
    assert sizes["0 to 16"] == sizes["16 to 32"] == (1, pytest.approx(1))
    aspects = {row["name"]: (row["objects"], row["AP"]) for row in analysed.by_aspect}
    assert aspects["3:2 to 3:1"] == aspects["above 3:1"] == (1, pytest.approx(1))
    assert aspects["1:3 to 2:3"] == (0, -1)


def test_a_score_that_float32_made_smaller_counts_at_its_score():
    # .35 in float32 is .34999999.
    detections = [(0, CAT, [0, 0, 20, 20], float(np.float32(0.35)))]
    truth, found = tables_of(OBJECTS[:1], detections)
    matched = match_at_iou50(*without_ignored(truth, found, match(truth, found)))
    assert confusion_matrix(matched, 0.35)[0].tolist() == [1, 0, 0, 0]
    assert confusion_matrix(matched, 0.3501)[0].tolist() == [0, 0, 0, 1]


def dense_case(num_categories, num_objects, seed):
    """Two images of a grid of objects, and detections near most of them and elsewhere."""
    rng = np.random.default_rng(seed)
    categories = [{"id": i, "name": f"class {i}"} for i in range(num_categories)]
    annotations = []
    results = []
    for image_id in (1, 2):
        for index in range(num_objects):
            category = int(rng.integers(num_categories))
            box = [30 * (index % 20), 30 * (index // 20), 20, 20]
            flags = {"iscrowd": int(rng.random() < 0.03), "difficult": int(rng.random() < 0.03)}
            row = {"image_id": image_id, "category_id": category, "bbox": box, "area": 400}
            annotations.append({**row, **flags})
            if rng.random() < 0.9:
                found = category if rng.random() < 0.8 else int(rng.integers(num_categories))
                moved = [box[0] + int(rng.integers(-4, 5)), box[1], 20, 20]
                row = {"image_id": image_id, "category_id": found, "bbox": moved}
                results.append({**row, "score": float(rng.random())})
    content = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"id": i, **row} for i, row in enumerate(annotations, 1)],
        "categories": categories,
    }
    return make_tables(content, results)


@pytest.mark.parametrize(
    ("num_categories", "num_objects"),
    [(1, 0), (1, 3), (1, 90), (1, 250), (2, 150), (3, 400), (10, 350)],
)
def test_the_confusion_matrix_has_every_object_and_every_detection(num_categories, num_objects):
    truth, found = dense_case(num_categories, num_objects, num_categories + num_objects)
    analysed = analysis.analyse(truth, found)
    counts = ~truth.ignored
    objects = np.bincount(truth.category[counts], minlength=num_categories)
    assert analysed.confusion.sum(1)[:-1].tolist() == objects.tolist()
    shown = (analysed.matches.status != -1) & (found.scores >= analysed.score - 1e-7)
    detections = np.bincount(found.category[shown], minlength=num_categories)
    assert analysed.confusion.sum(0)[:-1].tolist() == detections.tolist()


def test_all_of_150_objects_of_two_classes_are_found():
    boxes = [[12 * (i % 20), 12 * (i // 20), 10, 10] for i in range(150)]
    rows = [
        {"image_id": 1, "category_id": i % 2, "bbox": box, "area": 100}
        for i, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 1}],
        "annotations": [{"id": i, **row} for i, row in enumerate(rows, 1)],
        "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
    }
    truth, found = make_tables(content, [{**row, "score": 0.9} for row in rows])
    assert analysis.analyse(truth, found).confusion.tolist() == [[75, 0, 0], [0, 75, 0], [0, 0, 0]]
