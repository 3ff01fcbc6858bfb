"""What a run says before it starts: the settings that are derived, and those that look unwise."""

import keras
from absl import logging

from ssd_tf import onednn
from ssd_tf.config import Augment, Config
from ssd_tf.models.ssd import SSD
from ssd_tf.training import averaging
from ssd_tf.training.optimizer import full_learning_rate

# Below it the statistics of batch norm are too noisy (Wu & He 2018, fig. 1).
_SMALLEST_BATCH = 8


def log_settings(config: Config, network: SSD, num_replicas):
    """Log sizes and the learning rate, and warn of settings that probably are mistakes."""
    train = config.train
    logging.info(
        "%d default boxes, %.2f million parameters, oneDNN %s",
        len(network.default_boxes),
        network.model.count_params() / 1e6,
        "on" if onednn.is_on() else "off",
    )
    if train.base_batch is not None:
        logging.info(
            "learning rate %.4g: %g for a batch of %d, scaled to %d (%s)",
            full_learning_rate(train),
            train.learning_rate,
            train.base_batch,
            train.batch_size,
            train.base_batch_rule,
        )
    if train.ema is not None and averaging.is_too_long(train.ema, train.steps):
        logging.warning(
            "train.ema %g averages over about %d steps, which is long for a run of %d: the "
            "averaged weights will lag behind; %.3g would fit",
            train.ema,
            round(1 / (1 - train.ema)),
            train.steps,
            max(1 - 5 / train.steps, 0.5),
        )
    if config.data.augment == Augment():
        logging.info("no augmentation (data.augment: none), not even a flip")
    _warn_of_odd_settings(config)
    _warn_of_unreachable_detections(config.eval, network)
    _warn_of_small_batches(train, network, num_replicas)


def _warn_of_odd_settings(config):
    train = config.train
    if train.steps_per_call > config.watch.log_every:
        logging.warning(
            "train.steps_per_call %d has the effect of %d, as a report (watch.log_every) ends a "
            "call",
            train.steps_per_call,
            config.watch.log_every,
        )
    if train.bn == "frozen" and config.init_from is None:
        logging.warning(
            "train.bn=frozen keeps the statistics of batch norm, which here are those of no data: "
            "give init_from, or set train.bn=train"
        )
    if config.loss.normalizer != "global" and config.loss.min_negatives:
        logging.warning(
            "loss.normalizer=%s goes with loss.min_negatives=0, got %d",
            config.loss.normalizer,
            config.loss.min_negatives,
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
    is_small = images * (num_replicas if train.bn == "synchronized" else 1) < _SMALLEST_BATCH
    if train.bn == "frozen" or not (is_small and trains_statistics):
        return
    remedy = "larger batches or train.bn=frozen"
    if num_replicas > 1 and train.bn == "train":
        remedy += ", or train.bn=synchronized"
    logging.warning(
        "batch norm sees %d images at a time, fewer than %d: its statistics are noisy; consider %s",
        images,
        _SMALLEST_BATCH,
        remedy,
    )
