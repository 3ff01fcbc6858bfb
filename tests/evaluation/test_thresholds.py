"""Thresholds chosen from curves that are counted by hand."""

import numpy as np
import pytest
from coco_rows import make_tables

from ssd_tf.evaluation import analysis
from ssd_tf.evaluation.thresholds import may_choose
from ssd_tf.inference.thresholds import Thresholds

NAMES = ("cat", "dog", "owl")


def choose(right, wrong=None, num_objects=None, precision=None):
    """Thresholds of classes with these scores of right and wrong detections: {name: scores}."""
    wrong = wrong or {}
    num_objects = num_objects or {name: len(scores) for name, scores in right.items()}
    annotations = []
    results = []
    for category, name in enumerate(NAMES):
        for index in range(num_objects.get(name, 0)):
            box = [30 * index, 30 * category, 20, 20]
            row = {"image_id": 1, "category_id": category, "bbox": box}
            annotations.append({"id": len(annotations) + 1, "area": 400, **row})
            if index < len(right.get(name, ())):
                results.append({**row, "score": right[name][index]})
        for index, score in enumerate(wrong.get(name, ())):
            box = [30 * index, 500 + 30 * category, 20, 20]
            row = {"image_id": 1, "category_id": category, "bbox": box}
            results.append({**row, "score": score})
    content = {
        "images": [{"id": 1, "width": 900, "height": 700}],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(NAMES)],
    }
    return analysis.analyse(*make_tables(content, results), precision)


def test_nothing_to_choose_from():
    assert choose({}).chosen is None
    assert choose({}, {"cat": [0.9]}).chosen is None
    assert choose({}, num_objects={"cat": 12}, precision=0.5).chosen is None


def test_each_class_has_the_threshold_of_its_best_f1():
    # 40 cats are right from .80 down, 20 wrong from .50; 40 dogs are right from .40. All classes:
    # F1 is 80 / 120 from .80, 80 / 140 from .50, 160 / 180 from .40 down, whose middle is .20.
    # With a quarter of that, cats: 100 / 110 from .80, 120 / 145 from .40; middle of .51 to .80.
    chosen = choose({"cat": [0.8] * 40, "dog": [0.4] * 40}, {"cat": [0.5] * 20}).chosen
    assert chosen == Thresholds(0.2, {"cat": 0.65, "dog": 0.2, "owl": 0.2}, "best F1")


def test_a_class_with_few_objects_has_the_threshold_of_all():
    # As above, but 4 cats: with 20 / 44 of all, 11.6 / 29.8 from .80 and 48 / 50.9 from .40 down.
    analysed = choose({"cat": [0.8] * 4, "dog": [0.4] * 40}, {"cat": [0.5] * 2})
    assert analysed.chosen.classes == {"cat": 0.2, "dog": 0.2, "owl": 0.2}
    assert analysed.chosen.all == analysed.score == 0.2


def test_classes_without_objects_or_right_detections():
    # From .90 down 20 dogs are wrong, from .80 down 10 cats are right. All classes: 20 / 40 (of 20
    # objects) from .80; dogs with as many again: 20 / 80 from .80, and nothing right above it.
    analysed = choose({"cat": [0.8] * 10}, {"dog": [0.9] * 20}, {"cat": 10, "dog": 10})
    assert analysed.chosen == Thresholds(0.4, {"cat": 0.4, "dog": 0.4, "owl": 0.4}, "best F1")
    # Owls, of which there are none, are wrong from .50 down: cats of all classes are 2 / 3 as many.
    analysed = choose({"cat": [0.8] * 30}, {"owl": [0.5] * 9})
    assert analysed.chosen.classes == {"cat": 0.65, "dog": 0.65, "owl": 0.65}


def test_what_is_ignored_does_not_count():
    truth, found = choose({"cat": [0.8] * 4, "dog": [0.4] * 40}, {"cat": [0.5] * 2})[:2]
    truth.difficult[4:] = True  # the dogs
    assert analysis.analyse(truth, found).chosen.classes == {"cat": 0.65, "dog": 0.65, "owl": 0.65}
    # Neither as wrong, else the precision of cats would fall at .40, nor as objects, else F1 of
    # cats would be 10 / 53 from .40 and 8 / 49 from .80, instead of 10 / 13 and 8 / 9.
    scores = {"cat": [0.8] * 4 + [0.4], "dog": [0.4] * 40}
    truth, found = choose(scores)[:2]
    truth.difficult[5:] = True
    assert analysis.analyse(truth, found, precision=1.0).chosen.all == 0
    truth, found = choose(scores, {"cat": [0.4] * 3})[:2]
    truth.difficult[5:] = True
    assert analysis.analyse(truth, found).chosen.all == pytest.approx(0.6)


@pytest.mark.parametrize(("num_wrong", "score"), [(34, 0.2), (36, 0.6)])
def test_all_classes_weigh_as_much_as_20_objects(num_wrong, score):
    # Of 90 objects 10 cats are right from .80, 80 dogs from .40, as are 34 wrong cats: with 20 / 90
    # of that, F1 of cats is 24.4 / 42.2 = .579 from .80 and 60 / 101.6 = .591 from .40; with 36
    # wrong ones it is 60 / 104 = .577 there.
    chosen = choose({"cat": [0.8] * 10, "dog": [0.4] * 80}, {"cat": [0.4] * num_wrong}).chosen
    assert chosen.classes["cat"] == pytest.approx(score)


def test_less_than_one_detection():
    # 1 of 2 is right from .90, 3 of 9 from .50, a fifth of which stands for owls.
    scores, wrong = {"dog": [0.9, 0.5, 0.5]}, {"dog": [0.9] + [0.5] * 5}
    chosen = choose(scores, wrong, {"dog": 100}, precision=0.5).chosen
    assert chosen.classes["owl"] == pytest.approx(0.51)


def test_the_lowest_score_with_a_precision():
    # 9 right at .9, 1 right at .5; 1 wrong at .6, 9 wrong at .3.
    scores = {"cat": [0.9] * 9 + [0.5]}
    wrong = {"cat": [0.6] + [0.3] * 9}
    at = {
        precision: choose(scores, wrong, precision=precision).chosen.all
        for precision in (0.5, 0.9, 0.91, 1.0)
    }
    # 10 of 20 from 0 on; 10 of 11 are .909, from .31 on; 9 of 9 from .61 on.
    assert at == pytest.approx({0.5: 0, 0.9: 0.31, 0.91: 0.61, 1.0: 0.61})
    assert choose(scores, wrong, precision=0.9).chosen.rule == "precision 0.9"


def test_a_precision_that_no_score_has():
    # 10 right at .5 and 10 wrong at .9, 10 wrong at .2: 10 of 20 from .21 to .50.
    analysed = choose({"cat": [0.5] * 10}, {"cat": [0.9] * 10 + [0.2] * 10}, precision=0.9)
    assert analysed.chosen.all == pytest.approx(0.21)
    assert analysis.at_score(analysed)["precision"] == 0.5


def test_rounding_decides_nothing():
    # The share of all classes is 20 / 6 and 20 / 12 of the counts of the only class with objects.
    # 3 of 4 are right from 0 on.
    chosen = choose({"cat": [0.8] * 3}, {"cat": [0.3]}, {"cat": 6}, precision=0.75).chosen
    assert chosen == Thresholds(0, {"cat": 0, "dog": 0, "owl": 0}, "precision 0.75")
    # F1 is 6 / 21 up to .40, whose middle is .20, and 4 / 14, the same, from .61 to .80.
    chosen = choose({"cat": [0.8, 0.8, 0.4]}, {"cat": [0.6] * 6}, {"cat": 12}).chosen
    assert chosen == Thresholds(0.2, {"cat": 0.2, "dog": 0.2, "owl": 0.2}, "best F1")


def test_given_thresholds_are_used():
    given = Thresholds(0.995, {"cat": 0.4})
    right, wrong = {"cat": [0.8] * 10}, {}
    truth, found = choose(right, wrong)[:2]
    analysed = analysis.analyse(truth, found, given=given)
    assert (analysed.chosen, analysed.score) == (given, 0.995)
    assert analysis.at_score(analysed) == {"score": 0.995, "precision": 1, "recall": 0, "f1": 0}
    row = analysis.class_rows({}, analysed)[0]
    assert (row["threshold"], row["recall"]) == (0.4, 1)
    assert not analysed.is_found.any()
    without_objects = analysis.analyse(truth.select([]), found, given=given)
    assert analysis.at_score(without_objects) is None


def test_thresholds_of_val_hold_for_other_splits():
    of_val = Thresholds(0.5, {}, split="val")
    of_test = Thresholds(0.5, {}, split="test")
    splits = ("val", "test", "train")
    assert [may_choose(None, split) for split in splits] == [True, True, True]
    assert [may_choose(of_val, split) for split in splits] == [True, False, False]
    assert [may_choose(of_test, split) for split in splits] == [True, True, True]


def test_scores_of_float32():
    analysed = choose({"cat": [float(np.float32(0.7))] * 10}, {"cat": [0.69]}, precision=1.0)
    assert analysed.chosen.all == 0.7
    assert analysed.is_found.all()
