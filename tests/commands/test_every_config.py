"""Every config trains a step, saves, is restored at its own and another input size, and exports."""

import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

from ssd_tf.config import load_config
from ssd_tf.exporting import saved_model, tflite, verify
from ssd_tf.inference.detector import keras_detector
from ssd_tf.inference.loading import load_detector, load_run
from ssd_tf.models import ssd
from ssd_tf.training.train import train

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


NETWORKS = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {"finetune"})


def compare_exports(name, data, folder, *overrides):
    """Train one step, restore the run, export it; returns how the exports agree with the run."""
    # A small step: after a large one from random weights, all scores would be certain, and boxes
    # would have any size.
    settings = [
        "train.steps=1",
        "train.batch_size=2",
        "train.learning_rate=0.0001",
        "model.backbone.frozen_stages=0",
        "train.warmup_steps=0",
        "train.decay_steps=[]",
        "data.val_split=none",
    ]
    config = load_config(CONFIGS / f"{name}.yaml", ["init_from=null", *settings, *overrides])
    train(config, data, folder / "run")
    run = load_run(folder / "run")
    settle_statistics(run.network.model)
    check_other_size(run.config, run.network)
    names = run.dataset_info.names
    saved_model.export_saved_model(run.config, run.network, names, folder / "saved_model")
    converter = tflite.Converter(run.config, run.network, names)
    converter.export(folder / "model.tflite", "float32")
    reference = keras_detector(run.config, run.network, names)
    image = draw_noise(0)
    best = reference(image).scores[0]
    # After one step all scores are similar: only the very best must be found on both sides.
    return [
        verify.compare(
            reference, load_detector(folder / file), [image], best * 0.9999, best * 0.99, 0.02
        )
        for file in ("saved_model", "model.tflite")
    ]


def draw_noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 90, 3)).astype(np.uint8)


def settle_statistics(model):
    """Give batch norm the statistics of these weights.

    With the initial ones, random activations double in every block.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    height, width = model.input_shape[1:3]
    images = [
        Image.fromarray(draw_noise(seed)).resize((width, height), Image.Resampling.BILINEAR)
        for seed in range(4)
    ]
    model(np.stack(images).astype(np.float32), training=True)


def check_other_size(config, network):
    """The same weights fit a network for larger images, which has more default boxes."""
    height, width = config.model.input_hw
    larger_hw = (height + 64, width + 96)
    model_section = config.model.model_copy(update={"input_hw": larger_hw})
    larger = ssd.build_model(config.model_copy(update={"model": model_section}), 3)
    larger.model.set_weights(network.model.get_weights())
    found = larger.model(np.full((1, *larger_hw, 3), 99.0, np.float32))
    assert found["offsets"].shape == (1, len(larger.default_boxes), 4)
    assert len(larger.default_boxes) > len(network.default_boxes)
    assert np.isfinite(found["logits"]).all()


def assert_agreement(reports):
    for report in reports:
        assert report["detections"] > 0
        assert report["unpaired"] == 0, report


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_config(name, tiny_data, tmp_path):
    assert_agreement(compare_exports(name, tiny_data, tmp_path))


@pytest.mark.slow
def test_finetune_takes_over_the_network_of_a_run(tiny_data, tmp_path):
    (tmp_path / "source").mkdir()
    compare_exports("finetune_imagenet", tiny_data, tmp_path / "source")
    init_from = f"init_from={tmp_path / 'source' / 'run'}"
    assert_agreement(compare_exports("finetune", tiny_data, tmp_path, init_from))


@pytest.mark.integration
def test_loss_variants(tiny_data, tmp_path):
    focal = [
        "model.score_activation=sigmoid",
        "loss.focal_gamma=2",
        "loss.focal_alpha=0.25",
    ]
    others = ["loss.box_loss=giou", "loss.normalizer=nvidia"]
    assert_agreement(compare_exports("shapes_plain", tiny_data, tmp_path, *focal, *others))
