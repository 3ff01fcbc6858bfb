import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.export import verify
from ssd_tf.export.saved_model import export_saved_model
from ssd_tf.inference.detector import load_detector

OUTPUTS = {
    "detection_boxes": ([None, 20, 4], tf.float32),
    "detection_boxes_pixels": ([None, 20, 4], tf.float32),
    "detection_scores": ([None, 20], tf.float32),
    "detection_classes": ([None, 20], tf.float32),
    "num_detections": ([None], tf.float32),
}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved_model") / "model"
    config, names, model = trained
    export_saved_model(config, model, names, folder)
    return folder


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported))
    yield loaded.signatures


def encoded(image, image_format):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("serving_default", tf.TensorSpec([None, None, None, 3], tf.uint8, "input_tensor")),
        ("serving_bytes", tf.TensorSpec([None], tf.string, "image_bytes")),
        ("raw", tf.TensorSpec([None, 64, 96, 3], tf.float32, "image")),
    ],
)
def test_signatures(signatures, name, entry):
    assert signatures[name].structured_input_signature == ((), {entry.name: entry})
    outputs = {
        key: (spec.shape.as_list(), spec.dtype)
        for key, spec in signatures[name].structured_outputs.items()
    }
    if name == "raw":
        assert {key: (shape[-1], dtype) for key, (shape, dtype) in outputs.items()} == {
            "offsets": (4, tf.float32),
            "logits": (4, tf.float32),  # three classes and the background
        }
    else:
        assert outputs == OUTPUTS


def test_finds_what_the_keras_model_finds(exported, tiny_detector, pictures):
    report = verify.compare(tiny_detector, load_detector(exported), pictures)
    assert report["pictures"] == 6
    assert report["detections"] == 14  # seven objects, from both sides
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-5


def test_a_batch_of_three(signatures, pictures):
    same_size = [pictures[0], pictures[2], pictures[4]]
    serve = signatures["serving_default"]
    together = serve(input_tensor=tf.constant(np.stack(same_size)))
    assert together["num_detections"].shape == (3,)
    for index, image in enumerate(same_size):
        for name, value in serve(input_tensor=tf.constant(image[None])).items():
            np.testing.assert_allclose(together[name][index], value[0], atol=1e-3, err_msg=name)


def test_encoded_pictures_of_several_sizes_and_formats(signatures, pictures):
    chosen = [pictures[1], pictures[3], pictures[0]]
    found = signatures["serving_bytes"](
        image_bytes=tf.constant([encoded(image, "PNG") for image in chosen])
    )
    for index, image in enumerate(chosen):
        alone = signatures["serving_default"](input_tensor=tf.constant(image[None]))
        for name, value in alone.items():
            np.testing.assert_allclose(found[name][index], value[0], atol=1e-3, err_msg=name)
    jpeg = signatures["serving_bytes"](image_bytes=tf.constant([encoded(pictures[1], "JPEG")]))
    np.testing.assert_allclose(
        jpeg["detection_boxes"][0, 0], found["detection_boxes"][0, 0], atol=0.05
    )


def test_boxes_in_pixels_of_the_picture_and_classes_from_one(signatures, pictures):
    # 96 x 64: green, the second class, on rows 30 to 78 and columns 10 to 42.
    found = signatures["serving_default"](input_tensor=tf.constant(pictures[1][None]))
    np.testing.assert_allclose(found["detection_boxes_pixels"][0, 0], [30, 10, 78, 42], atol=4)
    np.testing.assert_allclose(
        found["detection_boxes"][0, 0], [30 / 96, 10 / 64, 78 / 96, 42 / 64], atol=0.05
    )
    assert float(found["detection_classes"][0, 0]) == 2
    beyond = int(found["num_detections"][0])
    assert beyond < 20
    for name in OUTPUTS.keys() - {"num_detections"}:
        assert not found[name][0, beyond:].numpy().any(), name


def test_raw_is_the_model(signatures, trained):
    images = np.random.default_rng(0).uniform(0, 255, (3, 64, 96, 3)).astype(np.float32)
    raw = signatures["raw"](image=tf.constant(images))
    for name, value in trained[2](images, training=False).items():
        np.testing.assert_allclose(raw[name], value, atol=1e-4, err_msg=name)


def test_names_travel_along(exported):
    assert load_detector(exported).classes == ["red", "green", "blue"]


def test_written_whole_over_what_was_there(trained, tmp_path, monkeypatch):
    config, names, model = trained
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()

    def fail(*_arguments, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(config, model, names, folder)
    assert [path.name for path in folder.iterdir()] == ["old"]
