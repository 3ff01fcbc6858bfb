"""hotcoco's numbers are pycocotools', on made-up results with everything that tells them apart."""

import json

import numpy as np
import pytest

from ssd_tf.evaluation import coco_results, metrics
from ssd_tf.evaluation.coco_instances import make_truth


def make_case(rng, images, most_objects, most_detections, scores, more=()):
    """COCO instances and results: boxes near objects and elsewhere, in two of three classes."""
    category_ids = [0, 3, 11]  # no image shows the last
    annotations = []
    results = []
    for image_id in images:
        count = int(rng.integers(0, most_objects + 1))
        boxes = np.concatenate(
            [rng.integers(0, 150, (count, 2)), rng.integers(1, 120, (count, 2))], 1
        )
        own = [
            {
                "image_id": image_id,
                "category_id": int(rng.choice(category_ids[:2])),
                "bbox": box.tolist(),
                "area": int(box[2] * box[3]),
                "iscrowd": int("iscrowd" in more and rng.random() < 0.2),
                "difficult": int("difficult" in more and rng.random() < 0.2),
            }
            for box in boxes
        ]
        annotations += own
        for _ in range(int(rng.integers(0, most_detections + 1))):
            near = rng.choice(own) if own and rng.random() < 0.7 else None
            box = near["bbox"] if near else [*rng.integers(0, 150, 2), *rng.integers(1, 120, 2)]
            moved = np.maximum(np.array(box) + rng.integers(-4, 5, 4), [0, 0, 1, 1])
            category = (
                near["category_id"] if near and rng.random() < 0.8 else rng.choice(category_ids)
            )
            row = {"image_id": image_id, "category_id": int(category), "bbox": moved.tolist()}
            results.append({**row, "score": float(rng.choice(scores))})
    rows = [{"id": index, **row} for index, row in enumerate(annotations, start=1)]
    content = {
        "images": [{"id": image_id, "height": 200, "width": 300} for image_id in images],
        "annotations": rows,
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
    }
    return content, results


CASES = {
    "ties": {"images": range(1, 9), "scores": [0.25, 0.5, 0.75]},
    "crowds": {"images": range(1, 9), "scores": np.arange(1, 999) / 1000, "more": ("iscrowd",)},
    "difficult": {"images": range(1, 9), "scores": [0.1, 0.9], "more": ("difficult",)},
    "both": {"images": range(0, 7), "scores": [0.3, 0.6], "more": ("iscrowd", "difficult")},
    "ids from 0, with gaps, in any order": {"images": (40, 0, 7, 2**40), "scores": [0.5, 0.6]},
    "more than 100 detections": {"images": (1, 2), "scores": [0.2, 0.4], "most_detections": 400},
    "nothing detected": {"images": (1, 2), "scores": [1], "most_detections": 0},
    "no objects": {"images": (1, 2), "scores": [0.5], "most_objects": 0},
}


@pytest.mark.parametrize("name", CASES)
def test_all_twelve_numbers(name, tmp_path):
    case = {"most_objects": 12, "most_detections": 40, **CASES[name]}
    for seed in range(5):
        content, results = make_case(np.random.default_rng(seed), **case)
        paths = (tmp_path / "truth.json", tmp_path / "found.json")
        for path, value in zip(paths, (content, results), strict=True):
            path.write_text(json.dumps(value))
        truth = make_truth(content)
        stats = metrics.measure(truth, coco_results.read_results(paths[1], truth))["coco"]
        assert stats == pytest.approx(coco_results.pycocotools_metrics(*paths), abs=1e-6)
        coco_results.check_metrics(stats, *paths)
        with pytest.raises(ValueError, match=r"differ by more than 1e-06: APm .* and "):
            coco_results.check_metrics(stats | {"APm": stats["APm"] + 2e-6}, *paths)


def test_settings_of_hotcoco_take_effect():
    # Version 0.5.0 dropped some of them silently: derekallman/hotcoco#5.
    from coco_rows import make_tables

    content, results = make_case(np.random.default_rng(1), range(1, 9), 12, 40, [0.2, 0.4, 0.6])
    truth, found = make_tables(content, results)
    evaluation = metrics.make_evaluation(truth, found)
    evaluation.params.iou_thrs = [0.5]
    evaluation.params.area_rng = [[0.0, 1e10], [0.0, 500.0]]
    evaluation.params.area_rng_lbl = ["all", "tiny"]
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval["precision"].shape[0] == 1
    assert evaluation.eval["precision"].shape[3] == 2
    whole = metrics.make_evaluation(truth, found)
    whole.evaluate()
    whole.accumulate()
    np.testing.assert_array_equal(
        evaluation.eval["precision"][0, :, :, 0], whole.eval["precision"][0, :, :, 0]
    )
    # Areas of our own are used, for objects and for detections: all outside is ignored.
    large = np.full(len(truth.area), 1e6)
    outside = metrics.make_evaluation(truth, found, large, np.full(len(found.scores), 1e6))
    outside.params.area_rng = [[0.0, 1e10], [0.0, 1000.0]]
    outside.params.area_rng_lbl = ["all", "small"]
    outside.evaluate()
    outside.accumulate()
    assert (outside.eval["precision"][..., 0, -1] > -1).any()
    assert (outside.eval["precision"][..., 1, -1] == -1).all()
