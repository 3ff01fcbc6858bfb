"""Evaluation at COCO's size beside bare pycocotools, and the share of post-processing.

    python benchmarks/evaluate.py [--images 5000] [--detections 300] [--skip_pycocotools]

Makes up ground truth and detections of 80 classes, writes them as COCO files and evaluates them,
each way in a process of its own:

- ssd evaluate: reading the files, metrics of COCO and VOC, analysis, report and all files written;
- the metrics alone, of arrays in memory, as after running a model;
- pycocotools: loadRes, evaluate, accumulate and summarize on the same files.

Prints seconds and peak memory. Then, for SSDLite320-MobileNetV3 with 80 classes and BCCD's model
with 3, both with random weights, the milliseconds of preprocessing, network and post-processing of
an image, medians, and those of post-processing class by class, as it was before one suppression
served all classes.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from ssd_tf import commandline

FLAGS = commandline.new_flags()
flags.DEFINE_integer("images", 5000, "Number of images.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "detections", 300, "Detections of each image.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_bool("skip_pycocotools", False, "It takes minutes at COCO's size.", flag_values=FLAGS)
flags.DEFINE_string("worker", None, "Used by the benchmark itself.", flag_values=FLAGS)
flags.DEFINE_string("folder", None, "Used by the benchmark itself.", flag_values=FLAGS)

ROOT = pathlib.Path(__file__).parents[1]
NUM_CLASSES = 80
OBJECTS_PER_IMAGE = 7
MODELS = {"ssdlite320_mobilenet_v3_coco": 80, "bccd_mobilenet": 3}
ROUNDS = 40


def main(argv=None):
    return commandline.run(_main, FLAGS, __doc__, argv=argv)


def _main(values, _positional):
    if values.worker:
        WORKERS[values.worker](pathlib.Path(values.folder))
        print(json.dumps(_peak_mb()))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_files(folder, values.images, values.detections)
        print(f"{values.images} images, {values.images * values.detections} detections")
        for name in WORKERS:
            if name != "pycocotools" or not values.skip_pycocotools:
                seconds, megabytes = run_worker(name, folder)
                print(f"{name:14s} {seconds:7.1f} s  {megabytes:6.0f} MB", flush=True)
    commandline.import_tensorflow()
    for name, num_classes in MODELS.items():
        print_stages(name, num_classes)


def write_files(folder, num_images, num_detections):
    """Detections near objects of the image, and by chance of their class."""
    rng = np.random.default_rng(0)
    annotations = []
    with open(folder / "found.json", "w") as file:
        separator = "["
        for image_id in range(1, num_images + 1):
            boxes = rng.uniform((0, 0, 5, 5), (400, 300, 200, 150), (OBJECTS_PER_IMAGE, 4))
            labels = rng.integers(1, NUM_CLASSES + 1, OBJECTS_PER_IMAGE)
            for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
                row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label}
                row |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                annotations.append(row)
            chosen = rng.integers(0, OBJECTS_PER_IMAGE, num_detections)
            moved = boxes[chosen] + rng.normal(0, 10, (num_detections, 4))
            moved[:, 2:] = np.maximum(moved[:, 2:], 1)
            is_right = rng.random(num_detections) < 0.3
            other = rng.integers(1, NUM_CLASSES + 1, num_detections)
            columns = (
                moved.round(2).tolist(),
                np.where(is_right, labels[chosen], other).tolist(),
                rng.random(num_detections).round(5).tolist(),
            )
            for box, label, score in zip(*columns, strict=True):
                row = {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
                file.write(f"{separator}{json.dumps(row)}")
                separator = ",\n"
        file.write("]")
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, NUM_CLASSES + 1)]
    images = [{"id": i, "height": 480, "width": 640} for i in range(1, num_images + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))


def run_worker(name, folder):
    """(seconds, megabytes at most) of one way, in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, f"--worker={name}", f"--folder={folder}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *_, last = done.stdout.splitlines()
    seconds, megabytes = json.loads(last)
    if seconds is None:
        seconds = time.perf_counter() - start
    return seconds, megabytes


def evaluate_files(folder):
    from ssd_tf.commands import evaluate

    paths = [f"--annotations={folder / 'truth.json'}", f"--detections={folder / 'found.json'}"]
    if evaluate.main(["evaluate", *paths, f"--output={folder / 'out'}"]):
        raise RuntimeError("ssd evaluate failed")


def evaluate_arrays(folder):
    from ssd_tf.evaluation import coco_instances, coco_results, metrics

    truth = coco_instances.make_truth(coco_instances.read_instances(folder / "truth.json"))
    found = coco_results.read_results(folder / "found.json", truth)
    start = time.perf_counter()
    metrics.measure(truth, found)
    WORKER_SECONDS.append(time.perf_counter() - start)


def run_pycocotools(folder):
    from ssd_tf.evaluation import coco_results

    coco_results.pycocotools_metrics(folder / "truth.json", folder / "found.json")


WORKERS = {
    "ssd evaluate": evaluate_files,
    "metrics alone": evaluate_arrays,
    "pycocotools": run_pycocotools,
}
WORKER_SECONDS = []


def _peak_mb():
    """(seconds if the worker took them, peak memory of this process)."""
    # Not ru_maxrss, which a child inherits from the process that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmHWM:")[1].split()[0])
    return (WORKER_SECONDS[0] if WORKER_SECONDS else None), kilobytes / 1000


def print_stages(name, num_classes):
    """Milliseconds of the stages of one model, and of post-processing class by class."""
    import tensorflow as tf

    from ssd_tf.config import load_config
    from ssd_tf.inference.detector import keras_detector, make_postprocessor
    from ssd_tf.models import ssd

    config = load_config(ROOT / "configs" / f"{name}.yaml", ["init_from=null"])
    tf.keras.utils.set_random_seed(0)
    network = ssd.build_model(config, num_classes)
    detector = keras_detector(config, network, [f"class {i}" for i in range(num_classes)])
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    by_class = tf.function(ClassByClass(make_postprocessor(config, network.default_boxes)))
    times = {"preprocessing": [], "network": [], "postprocessing": [], "class by class": []}
    predictions = detector.stages.network(detector.stages.preprocess([image]))
    stages = dict(zip(times, [*detector.stages, by_class], strict=True))
    inputs = {"preprocessing": [image], "postprocessing": predictions}
    inputs |= {"class by class": predictions, "network": detector.stages.preprocess([image])}
    for _ in range(ROUNDS):
        for stage, function in stages.items():
            start = time.perf_counter()
            function(inputs[stage])
            times[stage].append((time.perf_counter() - start) * 1000)
    medians = {stage: statistics.median(values[3:]) for stage, values in times.items()}
    whole = sum(list(medians.values())[:3])
    print(
        f"{name}, {num_classes} classes: "
        + ", ".join(f"{stage} {value:.2f} ms" for stage, value in medians.items())
        + f"; post-processing is {medians['postprocessing'] / whole:.0%} of an image, "
        f"{medians['postprocessing'] / medians['class by class']:.2f} of class by class"
    )


class ClassByClass:
    """The same detections by a suppression for each class, to compare the time with."""

    def __init__(self, postprocessor):
        self._postprocessor = postprocessor

    def __call__(self, predictions):
        import tensorflow as tf

        from ssd_tf.boxes import coding
        from ssd_tf.models.postprocess import class_scores

        processor = self._postprocessor
        boxes = coding.decode(predictions["offsets"], processor.default_boxes, processor.variances)
        scores = class_scores(predictions["logits"], processor.score_activation)
        settings = processor.eval
        top_k = min(settings.pre_nms_top_k, boxes.shape[1])

        def suppress(pair):
            kept = tf.image.non_max_suppression(
                pair[1], pair[0], top_k, settings.nms_iou, settings.score_floor
            )
            return tf.scatter_nd(kept[:, None], tf.gather(pair[0], kept), [top_k])

        best, index = tf.math.top_k(tf.transpose(scores[0]), top_k)
        candidates = tf.gather(boxes[0], index)
        kept = tf.map_fn(suppress, (best, candidates), fn_output_signature=tf.float32)
        return tf.math.top_k(tf.reshape(kept, [-1]), settings.max_detections)


if __name__ == "__main__":
    sys.exit(main())
