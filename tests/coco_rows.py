"""Metrics of COCO rows as people write them by hand, by way of the tables."""

import numpy as np

from ssd_tf.evaluation import coco_instances, metrics, tables


def make_tables(ground_truth, results):
    """COCO instances and results -> Truth, Found."""
    complete = {"area": 0, "iscrowd": 0}
    rows = [complete | row for row in ground_truth["annotations"]]
    truth = coco_instances.make_truth({**ground_truth, "annotations": rows})
    return truth, tables.Found(
        np.array([truth.image_ids.index(row["image_id"]) for row in results], int),
        np.array([truth.category_ids.index(row["category_id"]) for row in results], int),
        np.array([row["bbox"] for row in results], float).reshape(-1, 4),
        np.array([row["score"] for row in results], float),
    )


def coco_metrics(ground_truth, results):
    return metrics.coco_metrics(*make_tables(ground_truth, results))[:2]


def voc_metrics(ground_truth, results):
    return metrics.voc_metrics(*make_tables(ground_truth, results))
