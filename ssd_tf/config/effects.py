"""Keys without effect: an error if the author of a config set them, as they expect one."""

import functools
import json

from ssd_tf.config.augmentation import Augment
from ssd_tf.config.keys import Needs
from ssd_tf.config.sections import KEYS, Boxes, Config, Data


def find_idle(config: Config) -> dict[str, Needs]:
    """The keys that have no effect, nor the default or the value of their preset: {path: reason}.

    Values that a key has anyway pass, as saved configs spell all of them out.
    """
    start = starting_values(config)
    return {
        path: needs
        for path, key in KEYS.items()
        for needs in key.needs
        if not needs.holds(*(value_at(config, switch) for switch in needs.switches))
        and value_at(config, path) != value_at(start, path)
    }


def explain_idle(config: Config, path, needs: Needs) -> str:
    """The error for a key without effect."""
    default = json.dumps(value_at(starting_values(config), path))
    return f"{path} has no effect {needs.reason}: leave it out (default: {default})"


def starting_values(config: Config) -> Config:
    """The config with the defaults, those of its augmentation's preset included."""
    augment = Augment(preset=config.data.augment.preset)
    return Config(boxes=Boxes(preset="paper"), data=Data(augment=augment))


def value_at(config, path):
    """The value of the key at a path such as train.steps."""
    return functools.reduce(getattr, path.split("."), config)


def is_inherited(path, needs: Needs, layers) -> bool:
    """Whether a file inherits a key from another file and takes its effect away.

    layers: the values of the bases, of the file and with the overrides, each merged over those
    before it. The last that set one of the switches comes after the one that set the key.
    """
    last_switch = max(_last_change(switch, layers) for switch in needs.switches)
    return _last_change(path, layers) < last_switch


def _last_change(path, layers):
    """The index of the last layer that changed a key; -1 if none did."""
    values = [None, *(plain_value(layer, path) for layer in layers)]
    changes = [index for index in range(len(layers)) if values[index + 1] != values[index]]
    return max(changes, default=-1)


def plain_value(values, path):
    """The value at a path in plain values of a file; None if there is none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values
