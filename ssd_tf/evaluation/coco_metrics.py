"""COCO's twelve numbers and AP per class, computed by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_RESULT_KEYS = ("image_id", "category_id", "bbox", "score")
_ALL_AREAS = 0
_MOST_DETECTIONS = -1  # of the limits 1, 10 and 100 the last


def coco_metrics(ground_truth: dict, results: list[dict]) -> tuple[dict, dict]:
    """COCO instances and results -> the twelve numbers by name, {"AP", "AP50"} per class name.

    ground_truth: as `make_instances` or `read_instances` of coco_format return it. Annotations may
    carry `difficult`: such objects count neither as found nor as missed, like objects outside an
    area range. A number is -1 if there is nothing to measure it on, as in pycocotools; classes
    without objects are left out.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index_annotations(ground_truth)
        evaluation = _Evaluation(truth, _index_results(truth, results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    return stats, _per_class(evaluation, ground_truth)


class _Evaluation(COCOeval):
    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for obj in objects:
                obj["ignore"] = int(bool(obj["ignore"] or obj.get("difficult")))


def _index_annotations(ground_truth):
    """Ground truth as pycocotools' COCO, made of copies: pycocotools writes into the rows."""
    coco = COCO()
    annotations = [dict(row) for row in ground_truth["annotations"]]
    coco.dataset = {**ground_truth, "annotations": annotations}
    coco.createIndex()
    return coco


def _index_results(truth, results):
    """Results as pycocotools' COCO. Other keys than its own could change how it reads them."""
    if not results:
        return _index_annotations({**truth.dataset, "annotations": []})
    return truth.loadRes([{key: row[key] for key in _RESULT_KEYS} for row in results])


def _per_class(evaluation, ground_truth):
    precision = evaluation.eval["precision"]  # [IoU, recall, class, area, detection limit]
    precision = precision[:, :, :, _ALL_AREAS, _MOST_DETECTIONS]
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    per_class = {}
    for index, category_id in enumerate(evaluation.params.catIds):
        values = precision[:, :, index]
        if (values > -1).any():
            per_class[names[category_id]] = {
                "AP": float(np.mean(values)),
                "AP50": float(np.mean(values[0])),
            }
    return per_class
