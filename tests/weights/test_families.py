"""Detectors that cannot be imported: each is called by its name, in one line."""

import tarfile

import numpy as np
import pytest
import tensorflow as tf
import test_od_tflite as tflite_files
from safetensors.numpy import save_file
from tensorflow.core.protobuf import saved_model_pb2

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import detectors, families


def rejection(path, *arguments):
    with pytest.raises(ConfigError) as caught:
        detectors.read_detector(path, *arguments)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ([], None),
        (["ssd_mobile_net_v2_fpn_keras_feature_extractor/Conv1", "logits"], None),
        (["efficientnet-lite0/model/stem/conv2d"], "EfficientDet"),
        (["x", "class_net/class-predict/pointwise"], "EfficientDet"),
        (["center_net_mobile_net_v2fpn_feature_extractor/model"], "CenterNet"),
        (["SecondStageBoxPredictor/ClassPredictor"], "Faster R-CNN"),
        (["roi_heads.box_head.fc6.weight"], "Faster R-CNN"),
        (["model.0.conv.weight"], "YOLO"),
    ],
)
def test_families_by_the_names_of_their_layers(names, family):
    found = families.find(names)
    assert (found is None) == (family is None)
    assert family is None or family in found


def write_checkpoint(prefix, name):
    """A checkpoint of TensorFlow 2 with one variable."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["_CHECKPOINTABLE_OBJECT_GRAPH", f"{name}/.ATTRIBUTES/VARIABLE_VALUE"],
        shape_and_slices=["", ""],
        tensors=[tf.constant(b""), tf.zeros([2])],
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("faster_rcnn { num_classes: 3 }", "Faster R-CNN"),
        ("center_net { num_classes: 3 }", "CenterNet"),
        (
            'ssd { num_classes: 7 feature_extractor { type: "ssd_efficientnet-b0_bifpn_keras" } '
            "image_resizer { keep_aspect_ratio_resizer { min_dimension: 512 } } }",
            "ssd_efficientnet-b0_bifpn_keras, 7 classes) is an EfficientDet",
        ),
        (
            'ssd { num_classes: 3 feature_extractor { type: "ssd_mobilenet_v1_ppn" } }',
            "ssd_mobilenet_v1_ppn, 3 classes",
        ),
    ],
)
def test_models_of_a_pipeline_config(model, words, tmp_path):
    write_checkpoint(tmp_path / "ckpt-0", "model/a")
    (tmp_path / "pipeline.config").write_text(f"model {{ {model} }}")
    with pytest.raises(ConfigError) as caught:
        detectors.read_detector(tmp_path)
    assert words in str(caught.value)
    assert str(tmp_path / "pipeline.config") in str(caught.value)


def test_a_checkpoint_of_a_center_net(tmp_path):
    write_checkpoint(tmp_path / "ckpt-0", "model/_prediction_head_dict/object_center/0/kernel")
    assert "CenterNet" in rejection(tmp_path / "ckpt-0")


def test_a_saved_model_of_an_efficient_det(tmp_path):
    model = saved_model_pb2.SavedModel()
    graph = model.meta_graphs.add()
    graph.object_graph_def.nodes.add()
    graph.graph_def.library.function.add().signature.name = "__inference_EfficientDet-D0_call_1"
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    assert "EfficientDet" in rejection(tmp_path)


def write_tflite(path, output_shape, name="output"):
    file = tflite_files.one_convolution({"values": tflite_files.FLOATS}, tflite_files.BIAS)
    file.graph.tensors[0].shape = [1, 320, 320, 3]
    output = file.tensor(name, output_shape)
    return file.write(path, outputs=[output])


@pytest.mark.parametrize(
    ("shape", "name", "words"),
    [
        # 40 x 40, 20 x 20 and 10 x 10 cells; one prediction for each, or three.
        ((1, 84, 2100), "output", "(320) is a YOLO"),
        ((1, 6300, 85), "output", "(320) is a YOLO"),
        ((1, 1001), "output", "1001 numbers"),
        ((1, 100, 4), "EfficientDet/box_net/box-predict", "EfficientDet"),
    ],
)
def test_tflite_files(shape, name, words, tmp_path):
    assert words in rejection(write_tflite(tmp_path / "a.tflite", shape, name))


def test_a_state_dict_of_a_faster_rcnn(tmp_path):
    content = {"backbone.body.conv1.weight": np.zeros(3), "rpn.head.conv.bias": np.zeros(2)}
    save_file(content, tmp_path / "a.safetensors")
    assert "Faster R-CNN" in rejection(tmp_path / "a.safetensors")


def test_an_archive_without_a_model(tmp_path):
    (tmp_path / "readme").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "readme", "zoo/readme")
    assert "ssd-tf-" not in rejection(tmp_path / "a.tar.gz")  # the folder that it is unpacked to


def test_an_archive_with_an_index_only(tmp_path):
    write_checkpoint(tmp_path / "ckpt-0", "model/a")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ckpt-0.index", "zoo/checkpoint/ckpt-0.index")
    found = rejection(tmp_path / "a.tar.gz")
    assert f"{tmp_path}/a.tar.gz/checkpoint/ckpt-0 has no data" in found
