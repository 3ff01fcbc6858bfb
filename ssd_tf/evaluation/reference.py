"""The same numbers by pycocotools, from the files that an evaluation wrote."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_tf.evaluation.coco_metrics import NAMES

_TOLERANCE = 1e-6


def pycocotools_metrics(ground_truth, detections) -> dict:
    """The twelve numbers of a COCO instances file and a results file, by name."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ground_truth))
        results = _load_results(truth, detections)
        evaluation = _Evaluation(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def check_metrics(stats, ground_truth, detections):
    """Raise ValueError if pycocotools has another value for one of the numbers `stats`."""
    expected = pycocotools_metrics(ground_truth, detections)
    wrong = [name for name in NAMES if not abs(stats[name] - expected[name]) <= _TOLERANCE]
    if wrong:
        values = ", ".join(f"{name} {stats[name]:.7f} and {expected[name]:.7f}" for name in wrong)
        raise ValueError(
            f"hotcoco and pycocotools differ by more than {_TOLERANCE:g}: {values}; the files in "
            "the output folder show it to either's authors"
        )


class _Evaluation(COCOeval):
    """Difficult objects, which COCO does not know, count neither as found nor as missed."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for obj in objects:
                obj["ignore"] = int(bool(obj["ignore"] or obj.get("difficult")))


def _load_results(truth, detections):
    try:
        return truth.loadRes(str(detections))
    except IndexError:  # of an empty list it reads the first row
        empty = COCO()
        empty.dataset = {**truth.dataset, "annotations": []}
        empty.createIndex()
        return empty
