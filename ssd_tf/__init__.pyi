"""Types of the names that `__init__.py` imports on first use."""

from ssd_tf.config import load_config as load_config
from ssd_tf.data.pipeline import build_dataset as build_dataset
from ssd_tf.evaluation.evaluate import evaluate as evaluate
from ssd_tf.exporting.export import export as export
from ssd_tf.inference.loading import load_detector as load_detector
from ssd_tf.models.ssd import build_model as build_model
from ssd_tf.quickstarting.quickstart import quickstart as quickstart
from ssd_tf.training.train import train as train

__version__: str
__all__: list[str]
