"""Every config trains a step, saves, is restored at its own and at another input size, and exports."""

import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

from ssd_tf.commands.train import run_training
from ssd_tf.config import load_config
from ssd_tf.export import saved_model, tflite, verify
from ssd_tf.inference.detector import keras_detector, load_detector, load_run
from ssd_tf.models import ssd

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def one_round(name, data, folder, *overrides):
    """One step of training into a run folder, that run restored twice, exported and called; returns the detectors' agreement."""
    # A small step: a large one from random weights would leave nothing but certain scores and boxes of every size.
    settings = [
        "train.steps=1",
        "train.batch_size=2",
        "train.learning_rate=0.0001",
        "train.warmup_steps=0",
        "data.val_split=none",
    ]
    config = load_config(
        CONFIGS / f"{name}.yaml", ["model.backbone.weights=none", *settings, *overrides]
    )
    run_training(config, data, folder / "run")
    config, info, model = load_run(folder / "run")
    settle_statistics(model)
    check_other_size(config, model)
    saved_model.export_saved_model(config, model, info.names, folder / "saved_model")
    tflite.export_tflite(config, model, len(info.classes), folder / "model.tflite")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in info.names))
    images = [noise(0)]
    reference = keras_detector(config, model, info.names)
    best = reference(images[0])["scores"][0]
    exports = [load_detector(folder / "saved_model"), load_detector(folder / "model.tflite")]
    # After one step scores are all alike: the very best must be found on both sides.
    return [
        verify.compare(reference, other, images, best * 0.9999, best * 0.99, 0.02)
        for other in exports
    ]


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 90, 3)).astype(np.uint8)


def settle_statistics(model):
    """Gives batch norm the statistics of these weights: with its first ones, random activations double in every block."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    height, width = model.input_shape[1:3]
    images = [
        Image.fromarray(noise(seed)).resize((width, height), Image.Resampling.BILINEAR)
        for seed in range(4)
    ]
    model(np.stack(images).astype(np.float32), training=True)


def check_other_size(config, model):
    height, width = config.model.input_hw
    other_hw = (height + 64, width + 96)
    other = config.model_copy(
        update={"model": config.model.model_copy(update={"input_hw": other_hw})}
    )
    larger = ssd.build_model(other, 3).model
    larger.set_weights(model.get_weights())
    boxes = ssd.build_model(other, 2).default_boxes
    found = larger(np.full((1, *other_hw, 3), 99.0, np.float32))
    assert found["offsets"].shape == (1, len(boxes), 4)
    assert len(boxes) > len(ssd.build_model(config, 2).default_boxes)
    assert np.isfinite(found["logits"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_config_goes_all_the_way(name, tiny_data, tmp_path):
    for report in one_round(name, tiny_data, tmp_path):
        assert report["detections"] > 0
        assert report["unpaired"] == 0, report


def test_loss_variants_go_all_the_way(tiny_data, tmp_path):
    focal = [
        "loss.score_activation=sigmoid",
        "loss.focal_gamma=2",
        "loss.focal_alpha=0.25",
        "loss.label_smoothing=0.1",
    ]
    for report in one_round(
        "shapes_plain", tiny_data, tmp_path, *focal, "loss.box_loss=ciou", "loss.normalizer=nvidia"
    ):
        assert report["detections"] > 0
        assert report["unpaired"] == 0, report
