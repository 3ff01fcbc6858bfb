import fixed_detector
import pytest


@pytest.fixture(scope="session")
def network():
    return fixed_detector.make_network()


@pytest.fixture(scope="session")
def detector(tiny_config, network):
    """The Keras detector with fixed weights."""
    from ssd_tf.inference.detector import keras_detector

    return keras_detector(tiny_config, network, fixed_detector.NAMES)
