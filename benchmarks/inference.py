"""Inference with oneDNN off and on, and with batch norm folded and not, taking turns.

    python benchmarks/inference.py [--configs NAME,NAME] [--isa default,AVX2] [--rounds 21]

Prints, for each config and instruction set, milliseconds of detector(image), of detector.batch of 8
images, and of an image through the SavedModel; medians, and their ratios to those with oneDNN off
and batch norm folded. `--isa AVX2` imitates a processor without AVX-512 by oneDNN's variable
ONEDNN_MAX_CPU_ISA; the kernels used with oneDNN off obey it as well.
Weights are random.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import peers
from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_list(
    "configs",
    [
        "bccd_mobilenet",
        "shapes_plain",
        "ssdlite320_mobilenet_v2_coco",
        "ssdlite320_mobilenet_v3_coco",
        "ssd300_resnet50_coco",
        "ssd300_vgg16_coco",
        "ssd640_resnet50_fpn_coco",
    ],
    "Experiment files in configs/, without .yaml.",
    flag_values=FLAGS,
)
flags.DEFINE_list("isa", ["default", "AVX2"], "Values of ONEDNN_MAX_CPU_ISA.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 21, "Rounds, after two to warm up.", flag_values=FLAGS)
flags.DEFINE_bool(
    "unfolded", True, "Measure batch norm that is not folded, too.", flag_values=FLAGS
)
flags.DEFINE_string("worker", None, "Used by the benchmark itself.", flag_values=FLAGS)

ROOT = pathlib.Path(__file__).parents[1]
NUM_CLASSES = {"bccd_mobilenet": 3, "shapes_plain": 4}
BATCH = 8


def main(argv=None):
    return commandline.run(_main, FLAGS, __doc__, argv=argv)


def _main(values, _positional):
    if values.worker:
        work(values.configs[0], values.worker == "folded")
        return
    for name in values.configs:
        for isa in values.isa:
            compare(name, isa, values)


def compare(name, isa, values):
    commands = {}
    for onednn in "01":
        for form in ("folded", "unfolded") if values.unfolded else ("folded",):
            environment = {"TF_ENABLE_ONEDNN_OPTS": onednn}
            if isa != "default":
                environment["ONEDNN_MAX_CPU_ISA"] = isa
            label = f"oneDNN {'on' if onednn == '1' else 'off'}, {form}"
            commands[label] = ([__file__, f"--configs={name}", f"--worker={form}"], environment)
    medians = peers.take_turns(commands, values.rounds)
    print(f"{name}, {isa}: ms, and ratios to oneDNN off, folded")
    reference = medians["oneDNN off, folded"]
    for label, times in medians.items():
        parts = [f"{what} {ms:.1f} ({ms / reference[what]:.2f})" for what, ms in times.items()]
        print(f"  {label:22s} {'  '.join(parts)}", flush=True)


def work(name, is_folded):
    commandline.import_tensorflow()
    from ssd_tf.config import load_config
    from ssd_tf.exporting import saved_model
    from ssd_tf.inference import detector, loading
    from ssd_tf.models import ssd

    if not is_folded:
        for module in (detector, saved_model):
            module.fold_batch_norm = lambda model: model
    config = load_config(ROOT / "configs" / f"{name}.yaml", ["init_from=null"])
    num_classes = NUM_CLASSES.get(name, 80)
    network = ssd.build_model(config, num_classes)
    names = [f"class {index}" for index in range(num_classes)]
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    detect = detector.keras_detector(config, network, names)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "saved_model"
        saved_model.export_saved_model(config, network, names, path)
        served = loading.load_detector(path)
        peers.serve(
            {
                "image": lambda: detect(image),
                "batch of 8": lambda: detect.batch([image] * BATCH),
                "SavedModel": lambda: served(image),
            }
        )


if __name__ == "__main__":
    sys.exit(main())
