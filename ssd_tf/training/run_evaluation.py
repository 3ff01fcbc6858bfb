"""The evaluation of a network while it trains."""

import dataclasses

from absl import logging

from ssd_tf.data import bad_records, split_examples
from ssd_tf.draw import draw_held_out
from ssd_tf.evaluation import metrics
from ssd_tf.evaluation.run_detector import relabel_batch, run_detector
from ssd_tf.inference.detector import keras_detector
from ssd_tf.models import folding
from ssd_tf.training.live_page import LOW_SCORE


def make_evaluate(config, dataset_info, network, names=None):
    """A function () -> metrics on the val split as `metrics.measure` returns them, and HeldOuts.

    Its argument limits the number of images. names: the classes of the network, by default those of
    the data set, on whose own classes it is measured. It is None, with a warning, without a val
    split.
    """
    split = config.data.val_split
    if not dataset_info.splits.get(split, {}).get("images"):
        logging.warning(
            "%s has no images in a split %r: training keeps checkpoints/last only",
            dataset_info.folder,
            split,
        )
        return None
    # Missing shards and, if bad records are skipped, what skipping does not repair are reported
    # now, not after hours of training.
    skipped = bad_records.scan_bad_records(dataset_info, split, config.data.on_bad_record)
    examples = split_examples.read_examples(dataset_info.folder, split, skipped)
    folded = folding.fold_batch_norm(network.model)
    folded_network = dataclasses.replace(network, model=folded)
    names = names or dataset_info.names
    detector = keras_detector(config, folded_network, names, weights_change=True)
    detect = relabel_batch(detector, dataset_info.names)

    def evaluate(num_images=-1):  # all
        folding.assign_folded(folded, network.model)
        with bad_records.explain_record_errors(dataset_info.folder, split):
            truth, found = run_detector(
                detect, examples.take(num_images), dataset_info.classes, config.eval.batch_size
            )
        drawn = draw_held_out(detect, examples, dataset_info.names, config.watch.images, LOW_SCORE)
        return metrics.measure(truth, found), drawn

    return evaluate
