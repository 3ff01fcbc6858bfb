"""data.keep_classes: the classes of the run that init_from names stay, those of the data join.

Only the rows of the data set's classes in the class heads are trained. Every other weight keeps its
value, and with it the scores of all other classes.
"""

import numpy as np

from ssd_tf.config import Config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.training import restart


def list_classes(config: Config, dataset_info, workdir) -> dataset_json.DatasetInfo:
    """The data set with the classes of the run: with data.keep_classes, those of the old run first.

    A run that resumes has them in its folder. Raises ConfigError if there is no such run.
    """
    if not config.data.keep_classes:
        return dataset_info
    source = workdir if restart.can_resume(workdir) else config.init_from
    try:
        old = dataset_json.read_dataset(source).classes
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"data.keep_classes: {error}") from None
    return dataset_json.with_classes(dataset_info, extend_classes(old, dataset_info.classes))


def extend_classes(old, new) -> tuple[dict, ...]:
    """The classes of the old run, then those of the new data that it lacks by name.

    Both: {"name", "id"} in label order. An id that is taken becomes the first free one above all.
    """
    classes = list(old)
    names = {entry["name"] for entry in old}
    ids = {entry["id"] for entry in old}
    for entry in new:
        if entry["name"] in names:
            continue
        class_id = max(ids) + 1 if entry["id"] in ids else entry["id"]
        ids.add(class_id)
        classes.append({"name": entry["name"], "id": class_id})
    return tuple(classes)


def find_trained_rows(config: Config, names, data_names) -> np.ndarray | None:
    """The rows of the class heads that are trained, in the order of the data set's classes.

    names, data_names: the classes of the run and of the data set. Row 0 is the background's. None
    without data.keep_classes: all rows are trained.
    """
    if not config.data.keep_classes:
        return None
    return np.array([names.index(name) + 1 for name in data_names], np.int32)
