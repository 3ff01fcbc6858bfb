"""The NumPy decoder gives what the model's own post-processing gives."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ssd_tf.config import PostProcessing
from ssd_tf.inference import raw_decoder
from ssd_tf.models.postprocess import PostProcessor

DEFAULTS = {
    "score_floor": 0.1,
    "nms_iou": 0.45,
    "class_agnostic": False,
    "pre_nms_top_k": 20,
    "max_detections": 30,
    "clip_first": False,
    "size_limit": None,
}


def make(rng, num_boxes, num_classes, score_activation="softmax", **settings):
    corners = rng.random((num_boxes, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    offsets = rng.normal(0, 1.5, (1, num_boxes, 4)).astype(np.float32)
    logits = rng.normal(0, 2, (1, num_boxes, num_classes + 1)).astype(np.float32)
    settings = PostProcessing(**DEFAULTS | settings)
    postprocessor = PostProcessor(settings, boxes, (0.1, 0.1, 0.2, 0.2), score_activation)
    return postprocessor, offsets, logits


def settings_of(postprocessor):
    return {
        "boxes": postprocessor.default_boxes,
        "variances": postprocessor.variances,
        "score_activation": postprocessor.score_activation,
        **postprocessor.eval.model_dump(),
    }


def test_nothing_above_the_floor():
    postprocessor, offsets, logits = make(np.random.default_rng(0), 9, 2)
    logits[..., 0] = 50
    boxes, scores, classes = raw_decoder.decode(offsets, logits, settings_of(postprocessor))
    assert (boxes.shape, scores.shape, classes.shape) == ((0, 4), (0,), (0,))


def test_thresholds_of_the_classes():
    postprocessor, offsets, logits = make(np.random.default_rng(0), 40, 2)
    settings = settings_of(postprocessor)
    boxes, scores, classes = raw_decoder.decode(offsets, logits, settings)
    thresholds = [0.5, float(scores[classes == 1].max())]
    shown = scores >= np.array(thresholds, np.float32)[classes]
    assert (classes[shown] == 1).sum() == 1 and 0 < (classes[shown] == 0).sum() < 10
    settings["thresholds"] = thresholds
    for all_values, values in zip(
        (boxes, scores, classes), raw_decoder.decode(offsets, logits, settings), strict=True
    ):
        np.testing.assert_array_equal(values, all_values[shown])
    assert len(raw_decoder.decode(offsets, logits, settings, score=0)[0]) == len(scores)
    assert raw_decoder.decode(offsets, logits, settings, score=0.6)[1].min() >= 0.6


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"score_activation": "sigmoid", "score_floor": 0.6},
        {"class_agnostic": True},
        {"clip_first": True},
        {"size_limit": 1.2},
        {"max_detections": 3, "pre_nms_top_k": 5},
    ],
)
def test_equal_to_the_post_processing(settings):
    for seed in range(8):
        postprocessor, offsets, logits = make(np.random.default_rng(seed), 40, 3, **settings)
        expected = postprocessor({"offsets": offsets, "logits": logits})
        count = int(expected["count"][0])
        assert count > 0
        boxes, scores, classes = raw_decoder.decode(offsets, logits, settings_of(postprocessor))
        np.testing.assert_array_equal(classes + 1, expected["labels"][0, :count])
        np.testing.assert_allclose(scores, expected["scores"][0, :count], atol=1e-5)
        np.testing.assert_allclose(boxes, expected["boxes"][0, :count], atol=1e-5)


def test_it_needs_numpy_alone(tmp_path):
    postprocessor, offsets, logits = make(np.random.default_rng(0), 5, 2)
    settings = settings_of(postprocessor)
    settings["boxes"] = settings["boxes"].tolist()
    (tmp_path / "default_boxes.json").write_text(json.dumps(settings))
    np.savez(tmp_path / "outputs.npz", offsets=offsets, logits=logits)
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("raw_decoder", {raw_decoder.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import numpy as np
outputs = np.load("outputs.npz")
settings = module.load_settings("default_boxes.json")
found = module.decode(outputs["offsets"], outputs["logits"], settings)
print(len(found[0]), sorted({{"tensorflow", "keras", "ssd_tf"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    count = len(raw_decoder.decode(offsets, logits, settings_of(postprocessor))[0])
    assert done.stdout.split("\n")[0] == f"{count} []"
