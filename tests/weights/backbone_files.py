"""Start a network from the weights of a backbone, as training does."""

from ssd_tf.weights import transfer


def load(network, config):
    """Start a network of two classes from config.init_from; returns the names of filled layers."""
    source = transfer.read_source(config, network.model)
    outcomes = transfer.transfer(source, network, config, ["a", "b"])
    return {outcome.layer for outcome in outcomes if outcome.result == transfer.LOADED}
