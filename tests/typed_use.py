"""A program that uses the whole API, for mypy: `make types` checks it, nothing runs it."""

import pathlib
from typing import assert_type

import numpy as np
from PIL import Image

import ssd_tf
from ssd_tf.config import Config
from ssd_tf.inference.detections import Detections
from ssd_tf.inference.detector import Detector
from ssd_tf.models.ssd import SSD
from ssd_tf.results import Result


def train_and_deploy(folder: pathlib.Path) -> dict[str, float]:
    config = assert_type(ssd_tf.load_config("configs/finetune.yaml", ["train.steps=3"]), Config)
    run = assert_type(ssd_tf.train(config, folder / "data", folder / "run"), Result)
    print(run["step"], run.get("AP"), assert_type(run.paths["weights"], pathlib.Path))
    exported = ssd_tf.export(folder / "run", folder / "exports", ["web"], data=folder / "data")
    print(assert_type(exported, Result).paths["web"], exported.metrics["verify"])
    evaluated = ssd_tf.evaluate(folder / "run", folder / "data", overrides=["eval.nms_iou=0.5"])
    return assert_type(evaluated, Result)["coco"]


def detect(path: str, image: np.ndarray) -> Image.Image:
    detector = assert_type(ssd_tf.load_detector(path, input_range=(-1, 1)), Detector)
    found = assert_type(detector(image), Detections)
    for name, score in zip(found.names, found.scores, strict=True):
        print(name, float(score))
    return found.above(0.5).draw()


def build(config: Config) -> None:
    network = assert_type(ssd_tf.build_model(config, num_classes=3), SSD)
    ssd_tf.build_dataset(config, "data", "train", network.default_boxes)
