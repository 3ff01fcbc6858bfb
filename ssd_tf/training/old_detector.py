"""Runs the detector that data.keep_classes keeps the classes of over the training images, once.

What it finds goes into `kept_classes/` of the run folder, in files of PART images each, so that an
interrupted run resumes there, and one that resumes later does not need the old run.
"""

import itertools
import json
import shutil

import numpy as np
from absl import logging

from ssd_tf import files, long_tasks
from ssd_tf.boxes import validity
from ssd_tf.config import Config
from ssd_tf.data import bad_records, dataset_json, kept_classes, pipeline, shards, split_examples
from ssd_tf.errors import ConfigError
from ssd_tf.inference.loading import load_detector
from ssd_tf.training import distribution, restart

FOLDER = "kept_classes"
PART = 256  # images per file


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
    classes = kept_classes.extend_classes(old, dataset_info.classes)
    return dataset_json.with_classes(dataset_info, classes)


def detect_kept(
    config: Config, dataset_info, names, workdir, resumes, strategy
) -> kept_classes.KeptClasses | None:
    """What the old detector found in the training images; None without data.keep_classes.

    dataset_info: as the data set has it. names: the classes of the run. resumes: whether the run
    has a checkpoint. The chief runs the detector if it has not been run yet; all workers must call
    this. Raises ConfigError if detections are missing and init_from is not the run that they came
    from, ValueError if a worker does not see those of the chief.
    """
    if not config.data.keep_classes:
        return None
    split = config.data.train_split
    skipped = pipeline.list_skipped(config, dataset_info, split)
    num_images = dataset_info.splits[split]["images"] - len(skipped)
    num_parts = -(-num_images // PART)
    folder = workdir / FOLDER
    if distribution.is_chief(strategy):
        origin = _describe_origin(config, dataset_info)
        missing = _find_missing(folder, origin, num_parts, resumes)
        with bad_records.explain_record_errors(dataset_info.folder, split):
            examples = split_examples.read_examples(dataset_info.folder, split, skipped)
            _detect_parts(config, examples, folder, missing, num_images)
    distribution.barrier(strategy, 0, workdir)
    parts = [kept_classes.read_part(folder, index) for index in range(num_parts)]
    if any(part is None for part in parts):
        raise ValueError(f"{folder} is incomplete: it must be one folder that all workers see")
    detected = kept_classes.join_parts(parts)
    _log_summary(detected, config.data.keep_scores[1])
    return kept_classes.KeptClasses(detected, kept_classes.labels_in(names, dataset_info.names))


def _describe_origin(config, dataset_info):
    """What the detections depend on."""
    return {
        "init_from": restart.digest_source(config.init_from),
        "records": shards.fingerprint(dataset_info, config.data.train_split),
        "min_score": config.data.keep_scores[0],
        "fraction": config.data.fraction,
        "on_bad_record": config.data.on_bad_record,
    }


def _find_missing(folder, origin, num_parts, resumes) -> list[int]:
    """The parts that are still to be made; those of another origin are deleted.

    Raises ConfigError if a run that has a checkpoint lacks some, and they would be of another.
    """
    path = folder / "origin.json"
    is_same = _read_origin(path) == origin
    if not (is_same or resumes):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files.write_json(path, origin)
    parts = range(num_parts)
    missing = [index for index in parts if kept_classes.read_part(folder, index) is None]
    if missing and resumes and not is_same:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of {num_parts} files, and init_from does not name the "
            "run that they came from any more: use another --workdir"
        )
    return missing


def _read_origin(path):
    """The content of origin.json; None if there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _detect_parts(config, examples, folder, missing, num_images):
    """Write the parts of these indices; examples: of all parts, in the order of the files."""
    if not missing:
        return
    logging.info("data.keep_classes: running %s over the training images", config.init_from)
    floor = f"eval.score_floor={config.data.keep_scores[0]}"
    detector = load_detector(config.init_from, overrides=[floor])
    first = missing[0]
    stream = examples.skip(first * PART).as_numpy_iterator()
    with long_tasks.progress("labelling", num_images - first * PART) as advance:
        for index in range(first, missing[-1] + 1):
            part = itertools.islice(stream, PART)
            if index not in missing:
                advance(list(part), PART)
                continue
            found = []
            while batch := list(itertools.islice(part, config.eval.batch_size)):
                found.append(advance(_detect_batch(detector, batch), len(batch)))
            kept_classes.write_part(folder, index, kept_classes.concatenate(found))


def _detect_batch(detector, examples) -> kept_classes.Detected:
    """The detections in a few Examples, without boxes that cannot be trained on."""
    found = [
        each.select(validity.is_valid(each.boxes).all(-1))
        for each in detector.batch([example["image"] for example in examples])
    ]
    return kept_classes.Detected(
        np.array([example["image_key"] for example in examples]),
        np.array([len(each) for each in found]),
        np.concatenate([each.boxes for each in found]),
        np.concatenate([each.labels for each in found]),
        np.concatenate([each.scores for each in found]),
    )


def _log_summary(detected, min_score):
    is_sure = detected.scores >= min_score
    logging.info(
        "data.keep_classes: %d labels of %d classes for %d images, and %d detections to ignore",
        is_sure.sum(),
        len(np.unique(detected.labels[is_sure])),
        len(detected.keys),
        (~is_sure).sum(),
    )
