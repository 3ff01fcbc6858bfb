import numpy as np
import pytest
from coco_rows import voc_metrics

from ssd_tf.evaluation.metrics import all_points, eleven_point

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 11, "name": "dog"}]
BOXES = [
    [10.0, 5.0, 40.0, 20.0],
    [110.0, 20.0, 60.0, 60.0],
    [10.0, 60.0, 20.0, 30.0],
    [60.0, 10.0, 30.0, 80.0],
]
NOWHERE = [180.0, 80.0, 15.0, 15.0]


def truth(*annotations):
    rows = [{"image_id": 1, "category_id": 3, "bbox": box, **more} for box, more in annotations]
    return {
        "images": [{"id": 1, "height": 100, "width": 200}],
        "annotations": rows,
        "categories": CATEGORIES,
    }


def found(*boxes, image=1, category=3):
    """Detections, each scoring less than the one before."""
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": 0.9 - 0.1 * index}
        for index, box in enumerate(boxes)
    ]


def means(content, rows):
    return [voc_metrics(content, rows)[0][name] for name in ("AP50_11point", "AP50_all")]


def test_nothing_to_measure():
    assert voc_metrics(truth(), found(NOWHERE)) == ({"AP50_11point": -1.0, "AP50_all": -1.0}, {})


def test_no_detections():
    assert means(truth((BOXES[0], {})), []) == [0, 0]


def test_by_hand():
    # Four objects; a hit, a miss, a hit, the first object a second time, a hit.
    # Recall 1/4 1/4 2/4 2/4 3/4, precision 1 1/2 2/3 1/2 3/5.
    content = truth(*((box, {}) for box in BOXES))
    rows = found(BOXES[0], NOWHERE, BOXES[1], BOXES[0], BOXES[2])
    # Best precision at recall 0 0.1 0.2: 1; 0.3 0.4 0.5: 2/3; 0.6 0.7: 3/5; 0.8 0.9 1: 0.
    eleven = (3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11
    all_recalls = (1 + 2 / 3 + 3 / 5) / 4
    assert means(content, rows) == pytest.approx([eleven, all_recalls])
    # The scores order them, not the file.
    assert means(content, rows[::-1]) == pytest.approx([eleven, all_recalls])


def test_an_iou_of_one_half_is_enough():
    half = [10.0, 5.0, 20.0, 20.0]  # of BOXES[0]
    less = [10.0, 5.0, 19.9, 20.0]
    assert means(truth((BOXES[0], {})), found(half)) == [1, 1]
    assert means(truth((BOXES[0], {})), found(less)) == [0, 0]


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_difficult_objects_and_crowds_count_neither_as_found_nor_as_missed(flag):
    content = truth((BOXES[0], {}), (BOXES[1], {flag: 1}))
    assert means(content, found(BOXES[0])) == [1, 1]
    assert means(content, found(BOXES[1], BOXES[1], BOXES[0])) == [1, 1]


def test_a_detection_belongs_to_its_image_and_class():
    content = truth((BOXES[0], {}))
    content["images"].append({"id": 2, "height": 90, "width": 40})
    assert means(content, found(BOXES[0], image=2)) == [0, 0]
    assert means(content, found(BOXES[0], category=11)) == [0, 0]


def test_the_mean_is_over_classes_that_have_objects():
    content = truth((BOXES[0], {}), (BOXES[1], {"category_id": 11, "difficult": 1}))
    assert voc_metrics(content, found(BOXES[0])) == (
        {"AP50_11point": 1, "AP50_all": 1},
        {"cat": {"AP50_11point": 1, "AP50_all": 1}},
    )
    content = truth((BOXES[0], {}), (BOXES[1], {"category_id": 11}))
    assert means(content, found(BOXES[0])) == [0.5, 0.5]


def test_a_recall_of_three_tenths_counts_at_three_tenths():
    # 0, 0.1, 0.2 and 0.3, although 3 * 0.1 is slightly more than 0.3 in floating point.
    assert eleven_point(np.array([0.3]), np.array([1.0])) == pytest.approx(4 / 11)
    assert all_points(np.array([0.3]), np.array([1.0])) == pytest.approx(0.3)


def test_precision_is_made_monotone_from_the_right():
    # Between recall 0 and 0.5 the best precision to come is 0.8.
    assert all_points(np.array([0.5, 1.0]), np.array([0.4, 0.8])) == pytest.approx(0.8)


def test_ties_keep_the_order_of_the_file():
    # Thirty mistakes, then the hit, all with one score: precision 1/31 at full recall.
    rows = found(*[NOWHERE] * 30, BOXES[0])
    for row in rows:
        row["score"] = 0.5
    assert means(truth((BOXES[0], {})), rows) == pytest.approx([1 / 31, 1 / 31])


def test_images_and_classes_are_not_mixed_up():
    # The second class in the first image, and the first class in the second image.
    content = truth((BOXES[0], {"image_id": 2}))
    content["images"].append({"id": 2, "height": 90, "width": 40})
    assert means(content, found(BOXES[0], image=1, category=11)) == [0, 0]
    # The dog of image 1 does not take the cat of image 2 from its own detection.
    rows = found(BOXES[0], image=1, category=11) + found(BOXES[0], image=2)
    assert means(content, rows) == [1, 1]
    content["annotations"].append({"image_id": 1, "category_id": 11, "bbox": BOXES[1]})
    assert means(content, found(BOXES[0], image=1, category=11)) == [0, 0]
