"""Post-processing of literal predictions: offsets are 0, so each decoded box is its default box."""

import numpy as np
import pytest

from ssd_tf.config import PostProcessing
from ssd_tf.models import postprocess
from ssd_tf.models.postprocess import PostProcessor

# Box 1 overlaps box 0 by 0.18 / 0.22 = 0.82; box 2 lies apart; box 3 reaches over the right edge
# and overlaps none.
BOXES = np.array(
    [[0.1, 0.1, 0.5, 0.6], [0.1, 0.15, 0.5, 0.65], [0.6, 0.1, 0.9, 0.3], [0.6, 0.7, 0.8, 1.2]],
    "float32",
)
# Whole, the first overlaps the second by .06 / .10 = .6 and the third by .06 / .30 = .2; clipped to
# the image, all three are the first.
OVER_THE_EDGE = np.array(
    [[0.6, 0.7, 0.8, 1.0], [0.6, 0.7, 0.8, 1.2], [0.6, 0.7, 0.8, 2.2]], "float32"
)
DEFAULTS = {
    "score_floor": 0.1,
    "nms_iou": 0.45,
    "class_agnostic": False,
    "pre_nms_top_k": 10,
    "max_detections": 4,
    "clip_first": False,
    "size_limit": None,
}


def detect_logits(
    logits,
    boxes=BOXES,
    offsets=None,
    variances=(0.1, 0.1, 0.2, 0.2),
    score_activation="softmax",
    **settings,
):
    """Logits [B, A, C + 1] -> Detections as NumPy arrays; settings replace the DEFAULTS."""
    logits = np.asarray(logits, "float32")
    if offsets is None:
        offsets = np.zeros((*logits.shape[:2], 4), "float32")
    settings = PostProcessing(**DEFAULTS | settings)
    postprocessor = PostProcessor(settings, boxes, variances, score_activation)
    detections = postprocessor({"offsets": offsets, "logits": logits})
    return {name: np.array(value) for name, value in detections.items()}


def detect(scores, boxes=BOXES, offsets=None, **settings):
    """Class probabilities [B, A, C] (background takes the rest) -> Detections."""
    scores = np.asarray(scores, "float32")
    background = 1 - scores.sum(-1, keepdims=True)
    logits = np.log(np.concatenate([background, scores], -1) + 1e-12)
    return detect_logits(logits, boxes, offsets, **settings)


def test_nothing_above_the_floor_gives_zeros():
    found = detect(np.full((1, 4, 2), 0.05))
    assert found["count"].tolist() == [0]
    assert not found["boxes"].any() and not found["scores"].any() and not found["labels"].any()


def test_a_weaker_overlapping_box_of_the_same_class_is_suppressed():
    found = detect([[[0.6, 0.0], [0.8, 0.0], [0.3, 0.0], [0.0, 0.0]]])
    assert found["count"].tolist() == [2]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.3, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, :2], BOXES[[1, 2]], atol=1e-6)
    assert found["labels"].tolist() == [[1, 1, 0, 0]]
    assert not found["boxes"][0, 2:].any()


def test_overlap_at_most_the_threshold_is_kept():
    assert detect([[[0.6], [0.8], [0.0], [0.0]]], nms_iou=0.85)["count"].tolist() == [2]


def test_overlapping_boxes_of_different_classes_are_both_kept():
    found = detect([[[0.6, 0.0], [0.0, 0.8], [0.0, 0.0], [0.0, 0.0]]])
    assert found["labels"].tolist() == [[2, 1, 0, 0]]
    np.testing.assert_allclose(found["boxes"][0, :2], BOXES[[1, 0]], atol=1e-6)


def test_one_box_may_be_detected_as_two_classes():
    found = detect([[[0.5, 0.4], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert found["labels"].tolist() == [[1, 2, 0, 0]]


def test_class_agnostic_boxes_have_their_best_class_and_suppress_each_other():
    # Box 0 is of class 2 by .6 and suppressed by box 1 of class 1, though classes differ. Box 2 is
    # found once, as class 1.
    scores = [[[0.1, 0.6], [0.8, 0.1], [0.4, 0.3], [0.0, 0.05]]]
    found = detect(scores, class_agnostic=True)
    assert found["labels"].tolist() == [[1, 1, 0, 0]]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.4, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, :2], BOXES[[1, 2]], atol=1e-6)
    per_class = detect(scores)
    assert per_class["labels"].tolist() == [[1, 2, 1, 2]]


def test_class_agnostic_top_k_counts_boxes_of_all_classes():
    scores = [[[0.6, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.4]]]
    found = detect(scores, class_agnostic=True, pre_nms_top_k=2)
    assert found["labels"].tolist() == [[1, 2, 0, 0]]
    assert detect(scores, class_agnostic=True)["count"].tolist() == [3]


def test_boxes_are_clipped_after_suppression():
    # Clipped first, only the first would remain; whole, it suppresses the second by .6 > .45.
    found = detect([[[0.9], [0.8], [0.7]]], OVER_THE_EDGE)
    np.testing.assert_allclose(found["scores"], [[0.9, 0.7, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, :2], [[0.6, 0.7, 0.8, 1.0]] * 2, atol=1e-6)


def test_clip_first_suppresses_by_the_visible_parts():
    found = detect([[[0.9], [0.8], [0.7]]], OVER_THE_EDGE, clip_first=True)
    assert found["count"].tolist() == [1]


def test_top_k_applies_to_each_class_before_suppression():
    # The best two of class 1 are boxes 0 and 1, of which one is suppressed; box 2 was out before.
    found = detect([[[0.6, 0.0], [0.8, 0.0], [0.3, 0.4], [0.0, 0.5]]], pre_nms_top_k=2)
    assert found["labels"].tolist() == [[1, 2, 2, 0]]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.5, 0.4, 0]], atol=1e-6)


def test_the_best_of_the_image_are_kept_over_all_classes():
    found = detect([[[0.6, 0.0], [0.0, 0.8], [0.3, 0.5], [0.2, 0.7]]], max_detections=2)
    assert found["labels"].tolist() == [[2, 2]]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.7]], atol=1e-6)


def test_fewer_candidates_than_max_detections_are_padded():
    found = detect([[[0.6], [0.0], [0.3], [0.0]]], max_detections=9)
    assert found["boxes"].shape == (1, 9, 4)
    assert found["count"].tolist() == [2]


def test_the_images_of_a_batch_do_not_affect_each_other():
    empty = [[0.0, 0.0]] * 4
    one = [[0.6, 0.0], [0.8, 0.0], [0.3, 0.0], [0.0, 0.0]]
    two = [[0.0, 0.6], [0.0, 0.0], [0.7, 0.0], [0.0, 0.9]]
    found = detect([one, empty, two])
    assert found["count"].tolist() == [2, 0, 3]
    assert found["labels"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [2, 1, 2, 0]]
    for index, scores in enumerate((one, empty, two)):
        single = detect([scores])
        assert found["labels"][index].tolist() == single["labels"][0].tolist()
        # Vectorised exponentials round differently for another number of rows.
        for name in ("boxes", "scores"):
            np.testing.assert_allclose(found[name][index], single[name][0], atol=1e-6)


def test_offsets_move_the_box():
    # ty = 1 moves by 1 * .1 * height .4; tx = -2 by -2 * .1 * width .5; tw = log(2) / .2 doubles
    # the width.
    offsets = np.zeros((1, 4, 4), "float32")
    offsets[0, 0] = [1.0, -2.0, 0.0, np.log(2) / 0.2]
    found = detect([[[0.9], [0.0], [0.0], [0.0]]], offsets=offsets)
    # Centre (.3 + .04, .35 - .1), height .4, width 1: columns -.25 to .75, clipped.
    np.testing.assert_allclose(found["boxes"][0, 0], [0.14, 0.0, 0.54, 0.75], atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 100.0, -100.0])
def test_scores_are_a_softmax_over_background_and_classes(shift):
    found = detect_logits([[[shift, np.log(3.0) + shift]]], BOXES[:1])
    np.testing.assert_allclose(found["scores"][0, 0], 0.75, atol=1e-5)


def test_sigmoid_scores_ignore_the_other_classes_and_the_background():
    logits = [[[50.0, np.log(3.0), -np.log(4.0)]]]
    found = detect_logits(logits, BOXES[:1], score_activation="sigmoid")
    np.testing.assert_allclose(found["scores"], [[0.75, 0.2, 0, 0]], atol=1e-6)
    assert found["labels"].tolist() == [[1, 2, 0, 0]]


def test_size_limit():
    # Sides of 8 times the default box's are limited to 2 times, whatever the variance; centres and
    # small sides are not limited.
    offsets = np.zeros((1, 2, 4), "float32")
    offsets[0, 0] = [10.0, 0.0, np.log(8) / 0.2, np.log(8) / 0.4]
    offsets[0, 1] = [0.0, 0.0, -np.log(4) / 0.2, np.log(1.5) / 0.4]
    found = detect(
        [[[0.9, 0.0], [0.0, 0.8]]],
        np.array([[0.3, 0.5, 0.5, 0.7]] * 2, "float32"),
        offsets,
        variances=(0.1, 0.1, 0.2, 0.4),
        size_limit=2.0,
    )
    # Centre (.4 + 10 * .1 * .2, .6), sides .4; centre (.4, .6), height .2 / 4, width .2 * 1.5.
    expected = [[0.4, 0.4, 0.8, 0.8], [0.375, 0.45, 0.425, 0.75]]
    np.testing.assert_allclose(found["boxes"][0, :2], expected, atol=1e-6)


def suppress_per_class(boxes, scores, score_floor, nms_iou, top_k, max_detections):
    """The same in NumPy, one class after the other: [(box, score, label)], best first."""
    found = []
    for label, column in enumerate(scores.T, start=1):
        order = np.argsort(-column, kind="stable")[:top_k]
        kept = []
        for index in order[column[order] > score_floor]:
            if np.all(overlaps(boxes[index], boxes[kept]) <= nms_iou):
                kept.append(index)
        found += [(boxes[index].tolist(), float(column[index]), label) for index in kept]
    return sorted(found, key=lambda row: -row[1])[:max_detections]


def overlaps(box, others):
    """The IoU of a box with each of the others [n, 4]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    intersections = np.prod(np.maximum(sides, 0), 1)
    areas = np.prod(others[:, 2:] - others[:, :2], 1)
    unions = np.prod(box[2:] - box[:2]) + areas - intersections
    return np.divide(intersections, unions, out=np.zeros_like(unions), where=unions > 0)


@pytest.mark.parametrize("case", ["spread", "all background", "all above", "outside", "one class"])
def test_equal_to_suppression_class_by_class(case, monkeypatch):
    # Exponentials of equal logits may differ in the last bit, which would order ties.
    monkeypatch.setattr(postprocess, "class_scores", lambda logits, _: logits[..., 1:])
    rng = np.random.default_rng(0)
    num_classes = 1 if case == "one class" else 7
    total = 0
    for _ in range(40):
        # Corners and scores of a coarse grid: many ties, boxes without area, and exact sums.
        corners = rng.integers(0, 17, (60, 2, 2)) / 16
        if case == "outside":
            corners = corners * 4 - 1.5
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype("float32")
        scores = (rng.integers(0, 33, (60, num_classes)) / 32).astype("float32")
        if case == "all background":
            scores *= 0
        if case == "all above":
            scores = (scores + 1) / 4
        logits = np.concatenate([np.zeros((60, 1)), scores], 1)[None]
        settings = {"score_floor": 0.2, "pre_nms_top_k": 20, "max_detections": 50}
        found = detect_logits(logits, boxes, **settings)
        expected = suppress_per_class(boxes, scores, 0.2, 0.45, 20, 50)
        assert found["count"][0] == len(expected)
        total += len(expected)
        for row, (box, score, label) in enumerate(expected):
            assert found["boxes"][0, row].tolist() == np.clip(box, 0, 1).tolist()
            assert found["scores"][0, row] == score
            assert found["labels"][0, row] == label
    assert (total == 0) == (case == "all background")


def test_an_absurd_box_does_not_blur_the_others():
    # Class 1 has box 0 and the weaker box 1 (IoU .82), and a box 1e30 times the image.
    boxes = np.concatenate([BOXES, [[-1e30, -1e30, 1e30, 1e30]]]).astype("float32")
    scores = [[[0.8, 0.0], [0.6, 0.0], [0.0, 0.7], [0.0, 0.0], [0.5, 0.0]]]
    found = detect(scores, boxes)
    assert found["labels"].tolist() == [[1, 2, 1, 0]]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.7, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("clip_first", [False, True])
@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_an_offset_that_is_no_number_costs_its_own_box_only(value, column, clip_first):
    # Box 2 lies apart. Box 1 suppresses box 0, and box 3 reaches over the edge.
    offsets = np.zeros((1, 4, 4), "float32")
    offsets[0, 2, column] = value
    scores = [[[0.6, 0.0], [0.8, 0.0], [0.0, 0.3], [0.0, 0.7]]]
    found = detect(scores, offsets=offsets, clip_first=clip_first)
    assert found["labels"].tolist() == [[1, 2, 2, 0]]
    np.testing.assert_allclose(found["scores"], [[0.8, 0.7, 0.3, 0]], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, 0], BOXES[1], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][0, 1], [0.6, 0.7, 0.8, 1.0], atol=1e-6)
    assert np.isfinite(found["boxes"]).all()
    assert found["boxes"].min() >= 0 and found["boxes"].max() <= 1


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("score_activation", ["softmax", "sigmoid"])
def test_logits_that_are_no_numbers_cost_their_own_boxes_only(score_activation, class_agnostic):
    # Sixty boxes in a row, of which all but box 50 to 52 have no numbers: more than enter NMS.
    edges = np.arange(61, dtype="float32") / 61
    boxes = np.stack([0 * edges[1:], edges[:-1], 0 * edges[1:] + 1, edges[1:]], 1)
    logits = np.full((1, 60, 3), np.nan, "float32")
    logits[0, 50:53] = [[-9, 3, -9], [-9, -9, 2], [-9, 1, -9]]
    options = {"score_activation": score_activation, "class_agnostic": class_agnostic}
    found = detect_logits(logits, boxes, pre_nms_top_k=5, **options)
    assert found["labels"].tolist() == [[1, 2, 1, 0]]
    np.testing.assert_allclose(found["boxes"][0, :3], boxes[50:53], atol=1e-6)
    assert np.isfinite(found["scores"]).all()


def test_a_batch_in_which_one_image_has_no_numbers():
    logits = np.zeros((2, 4, 3), "float32")
    logits[:, 1, 2] = 3.0
    offsets = np.zeros((2, 4, 4), "float32")
    alone = detect_logits(logits[1:], offsets=offsets[1:])
    logits[0] = np.nan
    offsets[0] = np.nan
    found = detect_logits(logits, offsets=offsets)
    assert found["count"].tolist() == [0, alone["count"][0]]
    np.testing.assert_allclose(found["boxes"][1], alone["boxes"][0], atol=1e-6)
