import pytest


@pytest.fixture(scope="session")
def trained(tiny_run):
    """Config, class names and Keras model of the run that learnt the pictures by heart."""
    from ssd_tf.inference.run import load_run

    config, info, model = load_run(tiny_run)
    return config, info.names, model
