"""A trained run, read from its folder."""

import typing

from ssd_tf.config import Config, load_run_config
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import runs
from ssd_tf.weights.assign import assign


class Run(typing.NamedTuple):
    """A run folder's content; the network has the weights of the best checkpoint, else the last."""

    config: Config
    dataset_info: dataset_json.DatasetInfo
    network: ssd.SSD


def load_run(workdir, overrides=(), raw_weights=False) -> Run:
    """Read a run folder.

    overrides: `KEY=VALUE` for keys of eval and export, the sections that training does not fix.
    raw_weights: those of the last step instead of the averaged ones, if EMA is on.
    Raises FileNotFoundError, ConfigError or ValueError.
    """
    for override in overrides:
        if not override.startswith(("eval.", "export.")):
            raise ConfigError(
                f"--set {override}: expected a key of eval or export, as training fixed all others"
            )
    config = load_run_config(workdir, overrides)
    dataset_info = dataset_json.read_dataset(workdir)
    prefix = runs.find_checkpoint(workdir)
    weights = runs.read_weights(prefix, averaged=not raw_weights)
    network = ssd.build_model(config, len(dataset_info.classes))
    assign(network.model, runs.group_by_layer(weights, network.model), prefix)
    return Run(config, dataset_info, network)
