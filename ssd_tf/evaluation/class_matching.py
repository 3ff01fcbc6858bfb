"""Labels of a model that names its classes in another order than the data does."""

import dataclasses

import numpy as np
from absl import logging


def match_labels(detector, names):
    """The detector's `batch`, its labels those of the data set.

    names: class names of the data set, in label order. Classes are matched by name; detections of
    a class that the data lacks are dropped, and a warning names the classes of either side that the
    other lacks. Raises ValueError when the model has no class names or none in common.
    """
    if detector.classes is None:
        raise ValueError(
            "the model has no class names; give them with --labels FILE, one name per line"
        )
    if detector.classes == names:
        return detector.batch
    _report_unmatched(detector.classes, names)
    label_of = [names.index(name) + 1 if name in names else 0 for name in detector.classes]

    def batch(images):
        return [_relabel(detections, label_of) for detections in detector.batch(images)]

    return batch


def _report_unmatched(model_names, names):
    model_names = [name for name in model_names if name is not None]
    only_model = [name for name in model_names if name not in names]
    if len(only_model) == len(model_names):
        raise ValueError(
            "the model and the data have no class in common: the model has "
            f"{', '.join(only_model[:5])}, ..., the data has {', '.join(names[:5])}, ..."
        )
    if only_model:
        logging.warning("classes of the model that the data lacks: %s", ", ".join(only_model))
    only_data = [name for name in names if name not in model_names]
    if only_data:
        logging.warning("classes of the data that the model lacks: %s", ", ".join(only_data))


def _relabel(detections, label_of):
    """Replace each label by the table; drop those of label 0 or beyond the table."""
    labels = np.array(
        [label_of[label - 1] if 1 <= label <= len(label_of) else 0 for label in detections.labels],
        np.int32,
    )
    return dataclasses.replace(detections, labels=labels).select(labels > 0)
