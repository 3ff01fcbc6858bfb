"""Real detectors of the TF Object Detection API, imported and used as a user would."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_tools import coco_to_tfrecord
from ssd_tf.boxes import geometry
from ssd_tf.commands import evaluate, export, import_weights, train
from ssd_tf.inference.loading import load_detector

pytestmark = pytest.mark.slow

FINETUNE = pathlib.Path(__file__).parents[2] / "configs" / "finetune.yaml"
PER_CLASS = ("eval.class_agnostic=false", "eval.max_detections=100")


def call(command, *positional, **flags):
    """Run a command's main, which must succeed."""
    argv = [command.__name__, *map(str, positional)]
    for name, value in flags.items():
        argv += [f"--{name}={each}" for each in (value if isinstance(value, tuple) else (value,))]
    assert command.main(argv) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("imported")


@pytest.fixture(scope="module")
def coco_file(shared_data):
    return shared_data / "weights" / "ssd_mobilenet_v1_coco_quant.tflite"


@pytest.fixture(scope="module")
def coco_run(coco_file, work):
    labels = coco_file.with_suffix(".txt")
    flags = {"labels": labels, "output": work / "coco_run", "keep_settings": "true"}
    call(import_weights, source=coco_file, **flags)
    return work / "coco_run"


def convert(shared_data, output, **flags):
    folder = shared_data / "coco128"
    annotations = folder / "instances_train2017.json"
    flags = {"annotations": annotations, "output": output, "split": "val"} | flags
    call(coco_to_tfrecord, images=folder / "images", **flags)
    return output


@pytest.fixture(scope="module")
def coco128(shared_data, work):
    return convert(shared_data, work / "coco128")


def measure(model, data, output, **flags):
    """The metrics of `evaluate`."""
    call(evaluate, model=model, data=data, output=output, **flags)
    return json.loads((output / "metrics.json").read_text())


def test_ap_is_that_of_the_file(coco_file, coco_run, coco128, work):
    labels = coco_file.with_suffix(".txt")
    theirs = measure(coco_file, coco128, work / "theirs", labels=labels)["coco"]["AP"]
    ours = measure(coco_run, coco128, work / "ours")["coco"]["AP"]
    per_class = measure(coco_run, coco128, work / "per_class", set=PER_CLASS)["coco"]["AP"]
    assert 0.15 < theirs < 0.3
    assert ours == pytest.approx(theirs, abs=0.01)
    assert per_class > theirs + 0.015


def test_nearly_all_its_detections_are_found(coco_file, coco_run, shared_data):
    theirs = load_detector(coco_file, coco_file.with_suffix(".txt"))
    ours = load_detector(coco_run)
    paired = []
    for path in sorted((shared_data / "coco128" / "images").glob("*.jpg")):
        image = np.array(Image.open(path).convert("RGB"))
        paired += pair(theirs, ours, image)
    assert len(paired) > 300
    assert np.mean(paired) >= 0.95


def pair(theirs, ours, image):
    """Of each of their detections >= .5: has ours one of the same class with an IoU >= .8?"""
    expected, found = theirs(image), ours(image)
    overlaps = np.array(geometry.iou(expected.boxes, found.boxes))
    for row in np.flatnonzero(expected.scores >= 0.5):
        name = theirs.classes[expected.labels[row] - 1]
        same = np.array([ours.classes[label - 1] == name for label in found.labels], bool)
        yield bool((overlaps[row, same] >= 0.8).any())


def test_exports_agree_with_the_run(coco_run, coco128, work):
    formats = "saved_model,tflite_float32"
    call(export, workdir=coco_run, data=coco128, output=work / "exported", formats=formats)
    reports = json.loads((work / "exported" / "export.json").read_text())["verify"]
    assert len(reports) == 2
    for report in reports.values():
        assert report["detections"] > 20 and report["unpaired"] == 0


def test_kept_classes_are_found_after_a_step_that_changes_nothing(coco_run, shared_data, work):
    classes = "elephant,zebra,dog,cat"
    data = convert(shared_data, work / "animals", classes=classes, drop_empty="true")
    settings = (
        f"init_from={coco_run}",
        "train.steps=1",
        "train.warmup_steps=0",
        "train.batch_size=2",
        "train.learning_rate=1e-9",
        "data.train_split=val",
        "data.val_split=none",
    )
    call(train, config=FINETUNE, data=data, workdir=work / "tuned", set=settings)
    per_class = measure(work / "tuned", data, work / "animals_found")["per_class"]
    assert list(per_class) == classes.split(",")
    # Four classes by chance have an AP near 0.
    assert all(per_class[name]["AP"] > 0.2 for name in ("elephant", "dog", "cat")), per_class
