"""COCO's twelve numbers and AP per class, by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_metrics(ground_truth: dict, detections: list[dict]) -> tuple[dict, dict]:
    """COCO instances JSON and COCO results, both as plain Python -> the twelve numbers by name, and per class {AP, AP50}.

    Annotations may carry `difficult`: those are neither wanted nor punished, like objects outside of an area range.
    A number is -1 where there is nothing to measure it on, as pycocotools has it; a class without objects is left out.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index(ground_truth)
        # A copy: pycocotools writes areas, ids and outlines into the rows.
        results = (
            truth.loadRes([dict(row) for row in detections])
            if detections
            else _index({**ground_truth, "annotations": []})
        )
        evaluation = _Evaluation(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    return stats, _per_class(evaluation, ground_truth)


class _Evaluation(COCOeval):
    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for item in objects:
                item["ignore"] = int(bool(item["ignore"] or item.get("difficult")))


def _index(content):
    coco = COCO()
    # A copy: pycocotools writes into the annotations.
    coco.dataset = {
        **content,
        "annotations": [dict(annotation) for annotation in content["annotations"]],
    }
    coco.createIndex()
    return coco


def _per_class(evaluation, ground_truth):
    precision = evaluation.eval["precision"][
        :, :, :, 0, -1
    ]  # IoU, recall, class; all areas, 100 detections
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    per_class = {}
    for column, category in enumerate(evaluation.params.catIds):
        values = precision[:, :, column]
        if (values > -1).any():
            per_class[names[category]] = {
                "AP": float(np.mean(values)),
                "AP50": float(np.mean(values[0])),
            }
    return per_class
