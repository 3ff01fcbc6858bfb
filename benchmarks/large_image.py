"""A detector called on a photo of 12 megapixels beside its network alone.

    python benchmarks/large_image.py [--rounds 30]

detector(image) of an array of 3000 x 4000 pixels, for SSDLite320-MobileNetV3 with 80 classes and
BCCD's model with 3, both with random weights and few boxes above the score floor, as trained ones
have; the parts alternate. Prints milliseconds, medians, and the ratio of the whole call less 5 ms
to the network alone, which must be at most 1.3; then resizing the array by way of a float32 copy,
as it was before, and as it is.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_integer("rounds", 30, "Times that each part runs.", lower_bound=1, flag_values=FLAGS)

ROOT = pathlib.Path(__file__).parents[1]
MODELS = {"ssdlite320_mobilenet_v3_coco": 80, "bccd_mobilenet": 3}
IMAGE_HW = (3000, 4000)
LARGEST_RATIO = 1.3
ALLOWANCE_MS = 5


def main(argv=None):
    return commandline.run(_main, FLAGS, __doc__, argv=argv)


def _main(values, _positional):
    commandline.import_tensorflow()
    image = np.random.default_rng(0).integers(0, 256, (*IMAGE_HW, 3)).astype(np.uint8)
    ratios = [_compare(name, image, values.rounds) for name in MODELS]
    _compare_resizes(image, values.rounds)
    if max(ratios) > LARGEST_RATIO:
        raise ValueError(f"expected a ratio of at most {LARGEST_RATIO}, got {max(ratios):.2f}")


def _compare(name, image, rounds):
    """Print the times of a model and return the ratio."""
    detector = _make_detector(name)
    batch = detector.stages.preprocess([image])
    times = _time_in_turn(
        {
            "call": lambda: detector(image),
            "network": lambda: _finish(detector.stages.network(batch)),
        },
        rounds,
    )
    ratio = (times["call"] - ALLOWANCE_MS) / times["network"]
    print(f"{name}: call {times['call']:.1f} ms, network {times['network']:.1f} ms, {ratio:.2f}")
    return ratio


def _make_detector(name):
    from ssd_tf.config import load_config
    from ssd_tf.inference.detector import keras_detector
    from ssd_tf.models import ssd

    # Random weights score all boxes alike; a trained network has few above the floor.
    overrides = ["init_from=null", "eval.score_floor=0.1"]
    config = load_config(ROOT / "configs" / f"{name}.yaml", overrides)
    num_classes = MODELS[name]
    network = ssd.build_model(config, num_classes)
    return keras_detector(config, network, [f"class {i}" for i in range(num_classes)])


def _finish(predictions):
    return {name: value.numpy() for name, value in predictions.items()}


def _compare_resizes(image, rounds):
    import tensorflow as tf

    from ssd_tf.data.images import resize, resize_array

    hw = (300, 300)
    times = _time_in_turn(
        {
            "float32 copy": lambda: resize(tf.cast(image, tf.float32), hw).numpy(),
            "array": lambda: resize_array(image, hw),
        },
        rounds,
    )
    before, now = times["float32 copy"], times["array"]
    print(f"resize: with a float32 copy {before:.1f} ms, now {now:.1f} ms, {now / before:.3f}")


def _time_in_turn(functions, rounds):
    """{name: median milliseconds} of functions that run one after the other in each round."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
