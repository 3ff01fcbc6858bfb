import json
import shutil

import numpy as np
import pytest

from ssd_tf.inference.detector import Detector, load_detector, read_labels

CLASSES = ["red", "green", "blue"]


def strong(found, score=0.5):
    """(name, corners) of the detections scored >= score, by name."""
    rows = np.flatnonzero(found["scores"] >= score)
    return sorted(
        ((CLASSES[found["labels"][row] - 1], found["boxes"][row]) for row in rows),
        key=lambda pair: pair[0],
    )


def test_no_object_in_the_picture(tiny_detector, pictures):
    found = tiny_detector(pictures[4])
    assert strong(found) == []
    number = len(found["scores"])
    assert number < 20  # what the model pads its output with is cut off
    assert (found["boxes"].shape, found["labels"].shape) == ((number, 4), (number,))
    assert (found["scores"] > 0).all()


def test_objects_of_pictures_that_are_not_square(tiny_detector, pictures):
    # The picture of 96 x 64: green on rows 30 to 78, columns 10 to 42.
    ((name, box),) = strong(tiny_detector(pictures[1]))
    assert name == "green"
    np.testing.assert_allclose(box, [30 / 96, 10 / 64, 78 / 96, 42 / 64], atol=0.05)
    # 80 x 120: green on rows 4 to 60, columns 8 to 36, and red on rows 30 to 76, columns 60 to 110.
    green, red = strong(tiny_detector(pictures[3]))
    assert (green[0], red[0]) == ("green", "red")
    np.testing.assert_allclose(green[1], [4 / 80, 8 / 120, 60 / 80, 36 / 120], atol=0.05)
    np.testing.assert_allclose(red[1], [30 / 80, 60 / 120, 76 / 80, 110 / 120], atol=0.05)


def test_a_list_of_pictures_of_several_sizes(tiny_detector, pictures):
    for one, many in zip(map(tiny_detector, pictures), tiny_detector.batch(pictures), strict=True):
        np.testing.assert_array_equal(many["labels"], one["labels"])
        np.testing.assert_allclose(many["boxes"], one["boxes"], atol=1e-5)
        np.testing.assert_allclose(many["scores"], one["scores"], atol=1e-5)


def test_best_first(tiny_detector, pictures):
    scores = tiny_detector(pictures[3])["scores"]
    assert len(scores) > 2
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8)],
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(
        ValueError, match=r"must be uint8 \[height, width, 3\], found (float32|uint8) \(4, 6"
    ):
        Detector(None, "test")(image)


def test_a_run_folder_tells_its_classes_and_config(tiny_detector, tiny_config):
    assert (tiny_detector.kind, tiny_detector.classes, tiny_detector.config) == (
        "keras",
        CLASSES,
        tiny_config,
    )


def test_folders_and_files_that_are_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model at .*gone"):
        load_detector(tmp_path / "gone")
    with pytest.raises(
        ValueError,
        match=r"no run folder \(config.yaml\), no SavedModel folder .* and no .tflite file",
    ):
        load_detector(tmp_path)


def test_a_run_that_has_no_checkpoint_yet(tiny_run, tmp_path):
    for name in ("config.yaml", "dataset.json"):
        shutil.copyfile(tiny_run / name, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no checkpoint under"):
        load_detector(tmp_path)


def test_a_class_more_than_the_checkpoint_knows(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    content = json.loads((tiny_run / "dataset.json").read_text())
    content["classes"].append({"name": "white", "id": 99})
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(content))
    # Of the finest map: 3 shapes of 5 classes with the background, where the checkpoint has 4.
    with pytest.raises(
        ValueError,
        match=r"does not fit the model: logits0_conv/.* wants shape .*, the checkpoint has shape",
    ):
        load_detector(tmp_path / "run")


def test_names_of_a_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("red\ngreen apple\n")
    assert read_labels(path) == ["red", "green apple"]
    for first in ("???", "background"):
        path.write_text(f"{first}\nred\n")
        assert read_labels(path) == ["red"]


def test_a_file_of_names_that_is_not_there(tmp_path):
    model = tmp_path / "saved_model"
    model.mkdir()
    (model / "saved_model.pb").touch()
    with pytest.raises(FileNotFoundError, match=r"no file of class names at .*names.txt"):
        load_detector(model, labels=tmp_path / "names.txt")
