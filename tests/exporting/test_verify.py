import numpy as np
import pytest
from detector_output import detections

from ssd_tf.exporting.verify import compare

# A red object in an image that is wider than high, and a green one far away.
RED, GREEN = ([0.1, 0.1, 0.5, 0.3], 0.9, 1), ([0.6, 0.5, 0.9, 0.9], 0.8, 2)
IMAGE = np.zeros((20, 40, 3), np.uint8)


def detector(*rows):
    return lambda _image: detections(*rows)


def moved(row, by, score=None, label=None):
    box, old_score, old_label = row
    return (
        [box[0], box[1], box[2], box[3] + by],
        old_score if score is None else score,
        label or old_label,
    )


def unpaired(reference, other):
    report = compare(detector(*reference), detector(*other), [IMAGE])
    return [row["side"] for row in report["first_unpaired"]]


def test_no_detections_on_either_side():
    report = compare(detector(), detector(), [IMAGE, IMAGE])
    assert report == {
        "images": 2,
        "detections": 0,
        "unpaired": 0,
        "first_unpaired": [],
        "largest_corner_difference": 0.0,
    }


def test_equal_and_slightly_moved():
    report = compare(
        detector(RED, GREEN), detector(moved(GREEN, 0.004), moved(RED, -0.008)), [IMAGE]
    )
    assert (report["images"], report["detections"], report["unpaired"]) == (1, 4, 0)
    assert report["largest_corner_difference"] == pytest.approx(0.008)


def test_moved_too_far_is_reported_with_its_image_and_side():
    report = compare(detector(RED, GREEN), detector(RED, moved(GREEN, 0.02)), [IMAGE])
    assert report["unpaired"] == 2
    assert report["first_unpaired"] == [
        {"image": 0, "side": "reference", "box": [0.6, 0.5, 0.9, 0.9], "label": 2},
        {"image": 0, "side": "other", "box": [0.6, 0.5, 0.9, 0.92], "label": 2},
    ]
    assert report["largest_corner_difference"] == 0


def test_missing_and_additional():
    assert unpaired([RED, GREEN], [RED]) == ["reference"]
    assert unpaired([RED], [RED, GREEN]) == ["other"]
    assert unpaired([RED], []) == ["reference"]


def test_a_partner_has_the_same_class():
    assert unpaired([RED], [moved(RED, 0, label=2)]) == ["reference", "other"]


def test_a_partner_may_score_slightly_less():
    assert unpaired([moved(RED, 0, score=0.36)], [moved(RED, 0, score=0.31)]) == []
    assert unpaired([moved(RED, 0, score=0.36)], [moved(RED, 0, score=0.29)]) == ["reference"]
    assert unpaired([moved(RED, 0, score=0.34)], []) == []


def test_the_report_stays_short():
    report = compare(detector(RED), detector(), [IMAGE] * 30)
    assert (report["unpaired"], len(report["first_unpaired"])) == (30, 20)
