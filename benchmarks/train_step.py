"""A training step, its parts, and torchvision's, taking turns on the same machine.

    python benchmarks/train_step.py [--configs NAME,NAME] [--torchvision_python PYTHON]
    python benchmarks/train_step.py --onednn default,AVX2 [--configs NAME,NAME]

Prints milliseconds per image, medians over the rounds, and ratios of them, for each config:

- forward and backward through the network alone (the loss is the sum of its outputs), with Keras'
  batch norm and with ours;
- the whole step (loss, mining, gradient norm, L2, update), and the share of it that is spent
  outside of the network;
- the network in bfloat16 against float32, where the processor has bfloat16 convolutions (vgg16);
- for the SSDLite config, torchvision's whole step of the same network, if given the interpreter of
  an environment with torch and torchvision.

With --onednn, instead: the whole step with oneDNN off and on, for each value of ONEDNN_MAX_CPU_ISA;
AVX2 imitates a processor without AVX-512.

Images and targets are random, with about 40 positives per image, and already in memory.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import peers
from absl import flags

from ssd_tf import commandline
from ssd_tf.config import load_config
from ssd_tf.errors import ConfigError

FLAGS = commandline.new_flags()
flags.DEFINE_list(
    "configs",
    ["ssdlite320_mobilenet_v3_coco", "bccd_mobilenet", "ssd300_resnet50_coco", "ssd300_vgg16_coco"],
    "Experiment files in configs/, without .yaml.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("rounds", 9, "Rounds, after one to warm up.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string(
    "torchvision_python", None, "Python interpreter with torch and torchvision.", flag_values=FLAGS
)
flags.DEFINE_list("onednn", [], "Values of ONEDNN_MAX_CPU_ISA.", flag_values=FLAGS)
flags.DEFINE_bool("worker", False, "Used by the benchmark itself.", flag_values=FLAGS)

# Images per step; 80 classes, or BCCD's 3.
BATCHES = {"ssd300_resnet50_coco": 8, "ssd300_vgg16_coco": 8}
DEFAULT_BATCH = 16
NUM_CLASSES = {"bccd_mobilenet": 3}
TORCHVISION = "ssdlite320_mobilenet_v3_coco"


def main(argv=None):
    return commandline.run(_main, FLAGS, __doc__, argv=argv)


def _main(values, _positional):
    if values.onednn:
        for name in values.configs:
            for isa in values.onednn:
                compare_onednn(name, isa, values.rounds)
        return
    commandline.import_tensorflow()
    if values.worker:
        (name,) = values.configs
        config = read_config(name, BATCHES.get(name, DEFAULT_BATCH))
        peers.serve({"step": step_run(config, name)})
        return
    for name in values.configs:
        peer = values.torchvision_python if name == TORCHVISION else None
        report(name, measure(name, values.rounds, peer))


def compare_onednn(name, isa, rounds):
    command = [__file__, f"--configs={name}", "--worker"]
    limit = {} if isa == "default" else {"ONEDNN_MAX_CPU_ISA": isa}
    settings = {"off": {"TF_ENABLE_ONEDNN_OPTS": "0"}, "on": {"TF_ENABLE_ONEDNN_OPTS": "1"}}
    commands = {label: (command, value | limit) for label, value in settings.items()}
    medians = peers.take_turns(commands, rounds)
    off, on = (medians[label]["step"] / BATCHES.get(name, DEFAULT_BATCH) for label in settings)
    print(f"{name}, {isa}: whole step, ms per image, oneDNN off {off:.1f}, on {on:.1f}; ", end="")
    print(f"ratio {on / off:.2f}", flush=True)


def measure(name, rounds, torchvision_python):
    """{what: median milliseconds per image} of a config."""
    from ssd_tf.training.state import check_precision

    batch_size = BATCHES.get(name, DEFAULT_BATCH)
    config = read_config(name, batch_size)
    runs = {
        "network, Keras' batch norm": network_run(config, name, keras_batch_norm=True),
        "network": network_run(config, name),
        "whole step": step_run(config, name),
    }
    if name == "ssd300_vgg16_coco":
        try:
            check_precision("mixed_bfloat16")
            half = read_config(name, batch_size, "train.precision=mixed_bfloat16")
            runs["network, bfloat16"] = network_run(half, name)
        except ConfigError as error:
            print(f"bfloat16 is not measured: {error}")
    if torchvision_python:
        runs["torchvision, whole step"] = torchvision_run(torchvision_python, batch_size)
    times = {what: [] for what in runs}
    for turn in range(rounds + 1):
        for what, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                times[what].append((time.perf_counter() - start) / batch_size * 1e3)
    return {what: statistics.median(values) for what, values in times.items()}


def report(name, times):
    print(f"{name}, batches of {BATCHES.get(name, DEFAULT_BATCH)}, ms per image:")
    for what, value in times.items():
        print(f"  {what}: {value:.1f}")
    keras = times["network, Keras' batch norm"]
    network = times["network"]
    step = times["whole step"]
    print(f"  network, ours / Keras' batch norm: ratio {network / keras:.2f}")
    print(f"  outside of the network: {(step - network) / step:.1%} of the step")
    if "network, bfloat16" in times:
        print(f"  network, bfloat16 / float32: ratio {times['network, bfloat16'] / network:.2f}")
    if "torchvision, whole step" in times:
        ratio = step / times["torchvision, whole step"]
        print(f"  whole step, ours / torchvision's: ratio {ratio:.2f}")


def read_config(name, batch_size, *overrides):
    path = pathlib.Path(__file__).parents[1] / "configs" / f"{name}.yaml"
    fixed = (f"train.batch_size={batch_size}", "init_from=null")
    return load_config(path, [*fixed, *overrides])


def make_batch(config, num_boxes, num_classes):
    """Images and Targets with about 40 positives per image."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    size = config.train.batch_size
    images = random.uniform(0, 255, (size, *config.model.input_hw, 3)).astype(np.float32)
    positive = random.uniform(size=(size, num_boxes)) < 40 / num_boxes
    labels = (positive * random.integers(1, num_classes + 1, positive.shape)).astype(np.int32)
    offsets = random.normal(size=(size, num_boxes, 4)).astype(np.float32)
    targets = {"offsets": tf.constant(offsets), "labels": tf.constant(labels)}
    return tf.constant(images), targets


def network_run(config, name, keras_batch_norm=False):
    """A function that runs forward and backward through the network once."""
    import tensorflow as tf

    from ssd_tf.training.state import make_network

    num_classes = NUM_CLASSES.get(name, 80)
    network = make_network(config, num_classes)
    model = with_keras_batch_norm(network.model) if keras_batch_norm else network.model
    images, _ = make_batch(config, len(network.default_boxes), num_classes)
    values = [variable.value for variable in model.trainable_variables]

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.add_n([tf.reduce_sum(output) for output in outputs.values()])
        return tape.gradient(loss, values)

    return lambda: run()[0].numpy()


def with_keras_batch_norm(model):
    import keras

    from ssd_tf.models.batch_norm import BatchNormalization

    def copy(layer):
        is_ours = isinstance(layer, BatchNormalization)
        kind = keras.layers.BatchNormalization if is_ours else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=copy)


def step_run(config, name):
    """A function that makes one whole step."""
    import tensorflow as tf

    from ssd_tf.training.state import make_train_state
    from ssd_tf.training.step import make_train_step

    num_classes = NUM_CLASSES.get(name, 80)
    state = make_train_state(
        config, list(map(str, range(num_classes))), tf.distribute.get_strategy()
    )
    batch = make_batch(config, len(state.network.default_boxes), num_classes)
    train_step = tf.function(make_train_step(config, state))
    return lambda: train_step(*batch).loss.numpy()


def torchvision_run(python, batch_size):
    """A function that lets torchvision's process make one step."""
    script = pathlib.Path(__file__).with_name("torchvision_train_step.py")
    process = subprocess.Popen(
        [python, script, str(batch_size), str(len(os.sched_getaffinity(0)))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run():
        process.stdin.write("step\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise OSError(f"{python} {script} has ended; run it to see why")

    return run


if __name__ == "__main__":
    sys.exit(main())
