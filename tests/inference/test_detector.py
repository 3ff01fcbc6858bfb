import json
import shutil

import numpy as np
import pytest
from fixed_detector import IMAGES, OBJECTS, assert_found

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.inference.detector import Detector, make_postprocessor
from ssd_tf.inference.loading import load_detector


@pytest.mark.parametrize("index", range(len(IMAGES)))
def test_images_of_several_sizes(detector, index):
    assert_found(detector(IMAGES[index]), OBJECTS[index])


def test_only_real_detections(detector):
    # Of 6 gray cells x 3 classes; the model itself pads its output to 20 rows.
    found = detector(IMAGES[3])
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == (
        (18, 4),
        (18,),
        (18,),
    )
    assert (found.scores > 0.01).all()
    assert sorted(found.labels) == [1] * 6 + [2] * 6 + [3] * 6


def test_a_batch_of_several_sizes(detector):
    for one, many in zip(map(detector, IMAGES), detector.batch(IMAGES), strict=True):
        np.testing.assert_array_equal(many.labels, one.labels)
        np.testing.assert_allclose(many.boxes, one.boxes, atol=1e-5)
        np.testing.assert_allclose(many.scores, one.scores, atol=1e-5)


def test_best_first(detector):
    scores = detector(IMAGES[2]).scores
    assert len(scores) > 2
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8)],
)
def test_other_arrays_are_rejected(image):
    with pytest.raises(
        ValueError, match=r"as uint8 \[height, width, 3\], got (float32|uint8) \[4, 6"
    ):
        Detector(None, "test")(image)


def test_the_postprocessor_takes_every_value_of_the_config():
    values = {
        "score_floor": 0.2,
        "nms_iou": 0.6,
        "pre_nms_top_k": 30,
        "max_detections": 9,
        "clip_first": True,
        "size_limit": 50.0,
    }
    sections = {
        "boxes": {"preset": "paper", "variances": [0.3, 0.4, 0.5, 0.6]},
        "model": {"score_activation": "sigmoid"},
        "eval": values,
    }
    default_boxes = np.array([[0.1, 0.2, 0.5, 0.75]], np.float32)
    postprocessor = make_postprocessor(check_config(sections, "test"), default_boxes)
    assert {name: getattr(postprocessor.eval, name) for name in values} == values
    assert postprocessor.variances == (0.3, 0.4, 0.5, 0.6)
    assert postprocessor.score_activation == "sigmoid"
    assert postprocessor.default_boxes is default_boxes


def test_a_run_folder(tiny_detector, tiny_config):
    assert tiny_detector.kind == "keras"
    assert tiny_detector.classes == ["red", "green", "blue"]
    assert tiny_detector.config == tiny_config


def test_overrides_of_a_run(tiny_run, images):
    detector = load_detector(tiny_run, overrides=["eval.max_detections=1", "eval.score_floor=0"])
    assert detector.config.eval.max_detections == 1
    assert len(detector(images[3]).scores) == 1


@pytest.mark.parametrize("override", ["train.steps=5", "model.num_levels=2", "evaluate.nms_iou=1"])
def test_only_eval_and_export_can_be_overridden(tiny_run, override):
    with pytest.raises(ConfigError, match=f"--set {override}: expected a key of eval or export"):
        load_detector(tiny_run, overrides=[override])


def test_an_exported_model_takes_no_overrides(tmp_path):
    (tmp_path / "model.tflite").touch()
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").touch()
    for name in ("model.tflite", "saved_model"):
        with pytest.raises(ConfigError, match=r"--set eval.nms_iou=1: .* with fixed settings"):
            load_detector(tmp_path / name, overrides=["eval.nms_iou=1"])
    with pytest.raises(FileNotFoundError, match=r"no model at .*gone"):
        load_detector(tmp_path / "gone", overrides=["eval.nms_iou=1"])


def test_what_is_not_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model at .*gone"):
        load_detector(tmp_path / "gone")
    with pytest.raises(
        ValueError,
        match=r"expected a run folder \(config.yaml\), a SavedModel folder .* or a .tflite file",
    ):
        load_detector(tmp_path)


def test_a_run_without_a_checkpoint(tiny_run, tmp_path):
    for name in ("config.yaml", "dataset.json"):
        shutil.copyfile(tiny_run / name, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_detector(tmp_path)


def test_one_class_more_than_the_checkpoint(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((tiny_run / "dataset.json").read_text())
    content["classes"].append({"name": "white", "id": 99})
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(content))
    # Of the finest map: 3 shapes of 5 classes with the background; the checkpoint has 4.
    with pytest.raises(
        ValueError,
        match=r"ckpt-\d+: .*logits0_conv",
    ):
        load_detector(tmp_path / "run")


def test_a_missing_file_of_class_names(tmp_path):
    model = tmp_path / "saved_model"
    model.mkdir()
    (model / "saved_model.pb").touch()
    with pytest.raises(ConfigError, match=r"--labels: no file at .*names.txt"):
        load_detector(model, labels=tmp_path / "names.txt")


def test_no_images(detector):
    assert detector.batch([]) == []


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 6, 3), (4, 0, 3)])
def test_images_without_pixels(detector, shape):
    with pytest.raises(ValueError, match="expected an image with pixels"):
        detector.batch([IMAGES[0], np.zeros(shape, np.uint8)])


@pytest.mark.parametrize("model", ["run", "model.tflite", "saved_model"])
def test_labels_are_looked_for_first(tmp_path, model):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "saved_model.pb").touch()
    (tmp_path / "model.tflite").touch()
    for labels in (tmp_path / "gone.txt", tmp_path):
        with pytest.raises(ConfigError, match="--labels: no file at"):
            load_detector(tmp_path / model, labels=labels)


def test_a_run_folder_takes_no_labels(tiny_run, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    with pytest.raises(ConfigError, match=r"--labels: .* is a run folder"):
        load_detector(tiny_run, labels=tmp_path / "names.txt")
