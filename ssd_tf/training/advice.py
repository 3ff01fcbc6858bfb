"""Logs the derived settings of a run, and warns of settings that probably are mistakes."""

import keras
from absl import logging

from ssd_tf import processor
from ssd_tf.config import Augment, Config
from ssd_tf.models.ssd import SSD
from ssd_tf.training.optimizer import full_learning_rate, longest_fitting_ema

# Below it the statistics of batch norm are too noisy (Wu & He 2018, fig. 1).
_MIN_BATCH = 8


def log_settings(config: Config, network: SSD, num_replicas):
    """Log sizes and the learning rate, and warn of settings that probably are mistakes."""
    train = config.train
    logging.info(
        "%d default boxes (boxes.assigner: %s), %.2f million parameters, oneDNN %s",
        len(network.default_boxes),
        config.assigner,
        network.model.count_params() / 1e6,
        "on" if processor.uses_onednn() else "off",
    )
    if train.base_batch is not None:
        logging.info(
            "learning rate %.4g: %g for a batch of %d, scaled to %d",
            full_learning_rate(train),
            train.learning_rate,
            train.base_batch,
            train.batch_size,
        )
    if config.data.augment == Augment():
        logging.info("no augmentation (data.augment: none), not even a flip")
    for warning in _suspicious_settings(config):
        logging.warning(warning)
    _warn_of_unreachable_detections(config.eval, network)
    _warn_of_small_batches(train, network, num_replicas)


def _suspicious_settings(config):
    train = config.train
    fitting = longest_fitting_ema(train.steps)
    if train.ema is not None and train.ema > fitting:
        yield (
            f"train.ema {train.ema:g} averages over about {1 / (1 - train.ema):.0f} steps, which "
            f"is long for a run of {train.steps}: the averaged weights will lag behind; "
            f"{fitting:g} would fit"
        )
    if train.steps_per_call > config.watch.log_every:
        yield (
            f"train.steps_per_call {train.steps_per_call} has the effect of "
            f"{config.watch.log_every}, as a report (watch.log_every) ends a call"
        )
    if train.bn == "frozen" and config.init_from is None:
        yield (
            "train.bn=frozen keeps the statistics of batch norm, which here are those of no data: "
            "give init_from, or set train.bn=train"
        )
    if config.loss.normalizer != "global" and config.loss.min_negatives:
        yield (
            f"loss.normalizer={config.loss.normalizer} goes with loss.min_negatives=0, got "
            f"{config.loss.min_negatives}"
        )


def _warn_of_unreachable_detections(settings, network):
    num_classes = network.model.output["logits"].shape[-1] - 1
    candidates = settings.pre_nms_top_k * (1 if settings.class_agnostic else num_classes)
    if settings.max_detections > candidates:
        logging.warning(
            "eval.max_detections %d cannot be reached: eval.pre_nms_top_k lets %d into NMS",
            settings.max_detections,
            candidates,
        )


def _warn_of_small_batches(train, network, num_replicas):
    images = train.batch_size // (num_replicas * train.accumulate)
    trains_statistics = any(
        layer.trainable
        for layer in network.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    is_small = images * (num_replicas if train.bn == "synchronized" else 1) < _MIN_BATCH
    if train.bn == "frozen" or not (is_small and trains_statistics):
        return
    remedy = "larger batches or train.bn=frozen"
    if num_replicas > 1 and train.bn == "train":
        remedy += ", or train.bn=synchronized"
    logging.warning(
        "batch norm sees %d images at a time, fewer than %d: its statistics are noisy; consider %s",
        images,
        _MIN_BATCH,
        remedy,
    )
