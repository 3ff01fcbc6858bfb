import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from data_sets import encode
from fixed_detector import IMAGES, NAMES, OBJECTS, assert_found, box_of, draw
from tensorflow.core.protobuf import saved_model_pb2

from ssd_tf.data.decoding import decode_image
from ssd_tf.errors import ConfigError
from ssd_tf.exporting import verify
from ssd_tf.exporting.saved_model import export_saved_model
from ssd_tf.inference.loading import load_detector, load_run
from ssd_tf.weights.importers import detectors

OUTPUTS = {
    "detection_boxes": ([None, 20, 4], tf.float32),
    "detection_boxes_pixels": ([None, 20, 4], tf.float32),
    "detection_scores": ([None, 20], tf.float32),
    "detection_classes": ([None, 20], tf.float32),
    "num_detections": ([None], tf.float32),
}


@pytest.fixture(scope="module")
def exported(tiny_config, network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved_model") / "model"
    export_saved_model(tiny_config, network, NAMES, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(exported):
    """What TensorFlow alone loads."""
    return tf.saved_model.load(str(exported))


@pytest.fixture(scope="module")
def signatures(loaded):
    return loaded.signatures


@pytest.fixture(scope="module")
def exported_detector(exported):
    return load_detector(exported)


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
    elif name == "serving_bytes":
        assert outputs == OUTPUTS | {"status": ([None], tf.int32)}
    else:
        assert outputs == OUTPUTS


def test_it_is_not_imported(exported):
    with pytest.raises(ConfigError, match=rf"{exported} was written by ssd export .*init_from"):
        detectors.read_detector(exported)


def test_finds_what_the_keras_model_finds(exported_detector, detector):
    assert (exported_detector.kind, exported_detector.classes) == ("saved_model", NAMES)
    report = verify.compare(detector, exported_detector, IMAGES)
    assert report["images"] == 4
    assert report["detections"] == 8  # four objects, found on both sides
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-5


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """The SavedModel of the tiny run."""
    run = load_run(tiny_run)
    folder = tmp_path_factory.mktemp("trained") / "model"
    export_saved_model(run.config, run.network, run.dataset_info.names, folder)
    return folder


def test_finds_what_a_trained_model_finds(trained, tiny_detector, images):
    report = verify.compare(tiny_detector, load_detector(trained), images)
    assert report["detections"] > 0
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-5


def test_a_batch(signatures):
    same_size = [IMAGES[0], IMAGES[3], IMAGES[0]]
    serve = signatures["serving_default"]
    together = serve(input_tensor=tf.constant(np.stack(same_size)))
    assert together["num_detections"].shape == (3,)
    for index, image in enumerate(same_size):
        for name, value in serve(input_tensor=tf.constant(image[None])).items():
            np.testing.assert_allclose(together[name][index], value[0], atol=1e-3, err_msg=name)


def test_encoded_images_of_several_sizes_and_formats(signatures):
    encoded = [encode(image, name) for image in IMAGES[:3] for name in ("PNG", "JPEG")]
    found = signatures["serving_bytes"](image_bytes=tf.constant(encoded))
    for index, image_bytes in enumerate(encoded):
        image = decode_image(image_bytes)
        one = signatures["serving_default"](input_tensor=image[None])
        for name, value in one.items():
            np.testing.assert_allclose(found[name][index], value[0], atol=1e-3, err_msg=name)
    # The first and best detection: green in the upper right cell of an image of 128 x 96.
    for index in (2, 3):
        np.testing.assert_allclose(found["detection_boxes"][index, 0], box_of(0, 2), atol=1e-5)
        assert float(found["detection_classes"][index, 0]) == 2


def test_boxes_in_pixels_of_the_image_and_classes_from_one(signatures):
    # 128 x 96: green, the second class. The cell begins at y 0 and x 64; its box lies 4 pixels of
    # the input lower, 8 of the image, and is 24 instead of 32 pixels wide.
    found = signatures["serving_default"](input_tensor=tf.constant(IMAGES[1][None]))
    np.testing.assert_allclose(found["detection_boxes_pixels"][0, 0], [8, 68, 72, 92], atol=1e-3)
    np.testing.assert_allclose(
        found["detection_boxes"][0, 0], [8 / 128, 68 / 96, 72 / 128, 92 / 96], atol=1e-5
    )
    assert float(found["detection_classes"][0, 0]) == 2
    beyond = int(found["num_detections"][0])
    assert beyond < 20
    for name in OUTPUTS.keys() - {"num_detections"}:
        assert not found[name][0, beyond:].numpy().any(), name


@pytest.mark.parametrize("index", range(len(IMAGES)))
def test_objects(exported_detector, index):
    assert_found(exported_detector(IMAGES[index]), OBJECTS[index])


def test_raw_is_the_model(signatures, network):
    noise = np.random.default_rng(0).uniform(0, 255, (3, 64, 96, 3)).astype(np.float32)
    raw = signatures["raw"](image=tf.constant(noise))
    for name, value in network.model(noise, training=False).items():
        np.testing.assert_allclose(raw[name], value, atol=1e-4, err_msg=name)


def test_a_failed_export_leaves_the_old_one(tiny_config, network, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()

    def fail(*_arguments, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(tiny_config, network, NAMES, folder)
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_it_is_called_as_the_object_detection_api_is(loaded):
    # The steps of the API's tutorial.
    input_tensor = tf.convert_to_tensor(IMAGES[2])[tf.newaxis, ...]
    detections = loaded(input_tensor)
    num_detections = int(detections.pop("num_detections")[0])
    detections = {key: value[0, :num_detections].numpy() for key, value in detections.items()}
    classes = detections["detection_classes"].astype(np.int64)
    assert sorted(NAMES[label - 1] for label in classes[:2]) == ["blue", "red"]
    assert len(detections["detection_boxes"]) == num_detections


@pytest.mark.parametrize("bad", [b"", b"no image", "cut"])
def test_one_corrupt_image_costs_only_itself(signatures, bad):
    encoded = [encode(image, "PNG") for image in IMAGES] + [encode(IMAGES[1], "JPEG")]
    corrupt = encoded[0][:60] if bad == "cut" else bad
    batch = [*encoded[:2], corrupt, *encoded[2:], corrupt]
    found = signatures["serving_bytes"](image_bytes=tf.constant(batch))
    assert found["status"].numpy().tolist() == [0, 0, 1, 0, 0, 0, 1]
    for index, image_bytes in enumerate(batch):
        one = signatures["serving_bytes"](image_bytes=tf.constant([image_bytes]))
        for name, value in one.items():
            np.testing.assert_allclose(found[name][index], value[0], atol=1e-3, err_msg=name)
    for index in (2, 6):
        assert float(found["num_detections"][index]) == 0
        for name in ("detection_boxes", "detection_boxes_pixels", "detection_scores"):
            assert not found[name][index].numpy().any()


def test_eight_images_of_eight_sizes(signatures):
    sizes = [(64, 96), (128, 96), (96, 90), (40, 200), (200, 40), (65, 97), (300, 300), (33, 47)]
    encoded = [encode(draw(*size, ("green", 1, 2)), "PNG") for size in sizes]
    encoded[5] = encoded[5][:-30]
    found = signatures["serving_bytes"](image_bytes=tf.constant(encoded))
    assert found["status"].numpy().tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    for index, image_bytes in enumerate(encoded):
        one = signatures["serving_bytes"](image_bytes=tf.constant([image_bytes]))
        for name, value in one.items():
            np.testing.assert_allclose(found[name][index], value[0], atol=2e-3, err_msg=name)


def test_nothing_but_corrupt_images(signatures):
    found = signatures["serving_bytes"](image_bytes=tf.constant([b"", b"x"]))
    assert found["status"].numpy().tolist() == [1, 1]
    assert found["num_detections"].numpy().tolist() == [0, 0]
    assert found["detection_boxes"].shape == (2, 20, 4)


def test_a_body_of_tensorflow_serving(signatures):
    # As its REST API decodes it: instances become batches by name, {"b64": ...} become bytes.
    encoded = [base64.b64encode(encode(image, "JPEG")).decode() for image in IMAGES[1:3]]
    instances = [{"image_bytes": {"b64": text}} for text in encoded]
    body = json.loads(json.dumps({"signature_name": "serving_bytes", "instances": instances}))
    signature = signatures[body["signature_name"]]
    images = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
    found = signature(image_bytes=tf.constant(images))
    assert found["detection_classes"][0, 0] == 2
    assert found["status"].numpy().tolist() == [0, 0]


def test_batch_norm_is_folded(trained):
    content = saved_model_pb2.SavedModel.FromString((trained / "saved_model.pb").read_bytes())
    functions = content.meta_graphs[0].graph_def.library.function
    types = {node.op for function in functions for node in function.node_def}
    assert "DepthwiseConv2dNative" in types
    assert not any("BatchNorm" in kind or kind == "Rsqrt" for kind in types)
