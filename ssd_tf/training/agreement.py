"""Whether the workers of a run were all started with the same settings, records and versions."""

import json

import tensorflow as tf

from ssd_tf import __version__
from ssd_tf.config import Config
from ssd_tf.errors import ConfigError
from ssd_tf.training import distribution, restart, workers

# Sections that change nothing in the steps that the workers take together.
_MAY_DIFFER = ("export", "watch")


def check_agreement(strategy, config: Config, dataset_info, state, profile_steps=None):
    """Compare the workers; all must call it, before they build anything together.

    Raises ConfigError that names each difference, on every worker.
    """
    if not distribution.has_several_workers(strategy):
        return
    own = {
        "worker": workers.own_address(strategy.cluster_resolver),
        "settings": _settings(config, dataset_info, state, profile_steps),
    }
    found = [json.loads(text) for text in distribution.gather_texts(strategy, json.dumps(own))]
    first = found[0]
    differences = [
        f"{difference.path} is {_show(difference.old)} on {first['worker']} and "
        f"{_show(difference.new)} on {worker}"
        for worker, settings in {each["worker"]: each["settings"] for each in found}.items()
        for difference in restart.differences(first["settings"], settings)
    ]
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise ConfigError(
            f"the workers differ: {'; '.join(differences[:5])}{more}; start the same command with "
            "the same files on all of them"
        )


def _settings(config, dataset_info, state, profile_steps):
    """All that the workers must share, as plain values by the names that messages show."""
    settings = config.model_dump(mode="json")
    for section in _MAY_DIFFER:
        del settings[section]
    if config.train.steps_per_call > 1:
        # A report ends a call of the training function, which all workers make alike.
        settings["watch.log_every"] = config.watch.log_every
    fingerprints = {
        config.data.val_split: state.evaluation["fingerprint"],
        config.data.train_split: state.fingerprint,
    }
    for split, fingerprint in fingerprints.items():
        num_images = dataset_info.splits.get(split, {}).get("images", 0)
        shown = f"{num_images} images with the checksum {fingerprint[:12]}" if fingerprint else None
        settings[f"the split {split!r}"] = shown
    settings["--profile_steps"] = profile_steps
    settings["the version of ssd_tf"] = __version__
    settings["the version of TensorFlow"] = tf.__version__
    return settings


def _show(value):
    return "none" if value is None else str(value)
