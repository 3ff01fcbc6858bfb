"""Detectors of the TF Object Detection API: files with random weights, and two real ones."""

import functools

import numpy as np
import od_files
import pytest
import tensorflow as tf

from ssd_tf.config import apply_overrides, check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import label_files
from ssd_tf.weights.importers import detectors, imported, od_api, od_graph

NETWORKS = ["ssd_mobilenet_v1", "ssdlite_mobilenet_v2"]
IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 96, 128, 3)).astype("float32")


@pytest.fixture(autouse=True, scope="module")
def built_once():
    """A config's network is built once: each import gives it all of its weights anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssd, "build_model", functools.cache(ssd.build_model))
        yield


@pytest.fixture(scope="module")
def models():
    return {name: od_files.make_network(name) for name in NETWORKS}


def import_file(path, overrides=()):
    """The config and the network of a file, with all its classes."""
    detector = detectors.read_detector(path)
    classes = label_files.read_classes(None, imported.num_classes(detector, path), path)
    config = check_config(apply_overrides(detector.values, overrides), str(path))
    return config, imported.build_network(detector, config, classes, path), detector


def assert_equal_outputs(network, expected):
    found = network.model(IMAGE)
    for name, value in expected(IMAGE).items():
        difference = np.abs(found[name] - value).max() / np.abs(value).max()
        assert difference < 1e-5, name


def test_names_of_layers():
    assert od_api.our_name("FeatureExtractor/MobilenetV1/Conv2d_0/weights") == "conv1"
    name = "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_13_pointwise/Relu6"
    assert od_api.our_name(name) == "conv_pw_13"
    extra = "FeatureExtractor/MobilenetV1/Conv2d_13_pointwise_2_Conv2d_3_3x3_s2_256"
    assert od_api.our_name(f"{extra}/weights_quant/FakeQuantWithMinMaxVars") == "extra2_shrink"
    assert od_api.our_name("FeatureExtractor/MobilenetV2/expanded_conv_3/add") is None
    assert od_api.our_name("FeatureExtractor/MobilenetV2/Conv_2/weights") is None
    assert od_api.our_name("FeatureExtractor/MobilenetV1/Conv2d_0_extra/weights") is None


@pytest.mark.parametrize("network", NETWORKS)
def test_a_checkpoint_gives_the_same_outputs(models, network, tmp_path):
    arrays = od_files.arrays_of(network, models[network])
    arrays["global_step"] = np.array(7, np.int64)
    arrays |= {f"{name}/Momentum": value for name, value in list(arrays.items())[:3]}
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    config, ours, detector = import_file(tmp_path / "model.ckpt", ["model.input_hw=[96,128]"])
    assert_equal_outputs(ours, models[network])
    assert config.model.num_levels == 4
    assert config.model.head == od_files.VALUES[network]["head"]
    assert config.model.backbone.alpha == od_files.VALUES[network]["backbone"]["alpha"]
    assert "not in the file, so the API's default: model.input_hw = [300, 300]" in detector.notes
    assert "not in the file, so the API's default: boxes.preset = od_api" in detector.notes
    # All forms of the path.
    for suffix in ("index", "data-00000-of-00001"):
        again = detectors.read_detector(tmp_path / f"model.ckpt.{suffix}")
        assert again.arrays.keys() == detector.arrays.keys()


def test_averaged_weights_of_a_checkpoint_replace_the_raw_ones(models, tmp_path):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    name = "BoxPredictor_0/ClassPredictor/biases"
    averaged = arrays[name] + 1
    arrays[f"{name}/ExponentialMovingAverage"] = averaged
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    layers = od_graph.read_checkpoint(tmp_path / "model.ckpt").layers
    np.testing.assert_array_equal(layers["BoxPredictor_0/ClassPredictor"].bias, averaged)


CONSTANTS = {
    "Preprocessor/map/while/ResizeImage/stack": np.array([96, 128], np.int32),
    "Preprocessor/mul/x": np.float32(0.01),
    "Preprocessor/sub/y": np.float32(0.5),
    "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/MultiClassNonMaxSuppression/"
    "non_max_suppression/iou_threshold": np.float32(0.55),
    "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/MultiClassNonMaxSuppression/"
    "non_max_suppression/score_threshold": np.float32(0.2),
    "Postprocessor/BatchMultiClassNonMaxSuppression/map/while/MultiClassNonMaxSuppression/"
    "Minimum/x": np.int32(50),
}
DIVISORS = [8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]
CONSTANTS |= {
    f"Postprocessor/Decode/truediv{f'_{index}' if index else ''}/y": np.float32(value)
    for index, value in enumerate(DIVISORS)
}


def anchor_parts(ratios, scales):
    """The constants and nodes of the anchor generator for each level."""
    constants = {}
    nodes = []
    for index, (level_ratios, level_scales) in enumerate(zip(ratios, scales, strict=True)):
        sqrt = f"MultipleGridAnchorGenerator/Sqrt_{index}"
        division = f"MultipleGridAnchorGenerator/truediv_{14 + index}"
        constants[f"{sqrt}/x"] = np.array(level_ratios, np.float32)
        constants[f"{division}/x"] = np.array(level_scales, np.float32)
        nodes.append(("Sqrt", sqrt, [f"{sqrt}/x"]))
        nodes.append(("RealDiv", division, [f"{division}/x", sqrt]))
    return constants, nodes


def test_a_graph_states_its_settings(models, tmp_path):
    model = models["ssd_mobilenet_v1"]
    arrays = od_files.arrays_of("ssd_mobilenet_v1", model)
    # 3 boxes on the first map and 6 on the others, as the heads have; ratio 4: height halved.
    ratios = [[1, 4, 0.25], *[[1, 2, 3, 4, 5, 6]] * 3]
    scales = [[0.25, 0.5, 0.5], *[[0.5] * 6] * 3]
    constants, nodes = anchor_parts(ratios, scales)
    nodes.append(("Softmax", "Postprocessor/convert_scores", []))
    graph = od_files.make_graph(arrays, constants=CONSTANTS | constants, nodes=nodes)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    config, network, detector = import_file(tmp_path / "graph.pb")
    assert detector.notes == []
    assert config.model.input_hw == (96, 128)
    # x * .01 - .5 = (x - 50) / 100.
    assert config.model.backbone.mean_rgb == (50, 50, 50)
    assert config.model.backbone.std_rgb == (100, 100, 100)
    assert config.boxes.variances == (0.125, 0.125, 0.25, 0.25)
    assert config.model.score_activation == "softmax"
    assert (config.eval.nms_iou, config.eval.score_floor) == (0.55, 0.2)
    assert config.eval.max_detections == 50
    # Sides of 96 pixels times the scale.
    assert config.boxes.levels[0].shapes == ((24, 24), (24, 96), (96, 24))
    first = network.default_boxes[1]
    # The first cell of 6 x 8 has its centre at (8, 8); the second box is 24 high and 96 wide.
    np.testing.assert_allclose(first * [96, 128, 96, 128], [-4, -40, 20, 56], atol=1e-4)


def test_the_presets_anchors_are_recognized(models, tmp_path):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    # create_ssd_anchors with 4 layers: scales .2, .45, .7, .95, then 1.
    ratios = [[1, 2, 0.5], *[[1, 2, 0.5, 3, 0.3333, 1]] * 3]
    scales = [
        [0.1, 0.2, 0.2],
        [*[0.45] * 5, (0.45 * 0.7) ** 0.5],
        [*[0.7] * 5, (0.7 * 0.95) ** 0.5],
        [*[0.95] * 5, 0.95**0.5],
    ]
    constants, nodes = anchor_parts(ratios, scales)
    constants |= {"Preprocessor/map/while/ResizeImage/stack": np.array([96, 128], np.int32)}
    graph = od_files.make_graph(arrays, constants=constants, nodes=nodes)
    od_files.write_saved_model(tmp_path / "saved", graph)
    config, network, detector = import_file(tmp_path / "saved")
    assert config.boxes.preset == "od_api"
    assert "not in the file, so the API's default: eval.nms_iou = 0.6" in detector.notes
    assert detector.kind == "SavedModel of the TF Object Detection API"
    assert_equal_outputs(network, models["ssd_mobilenet_v1"])


def test_another_epsilon_is_made_up_for(models, tmp_path):
    """(x - mean) / sqrt(variance + .5) * gamma, computed by hand for one layer."""
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    graph = od_files.make_graph(arrays, epsilon=0.5)
    (tmp_path / "graph.pb").write_bytes(graph.SerializeToString())
    _, network, _ = import_file(tmp_path / "graph.pb", ["model.input_hw=[96,128]"])
    layer = network.model.get_layer("conv1_bn")
    x = np.full((1, 1, 1, 16), 2.0, "float32")
    prefix = "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/BatchNorm"
    gamma, beta, mean, variance = (
        arrays[f"{prefix}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = (2.0 - mean) / np.sqrt(variance + 0.5) * gamma + beta
    np.testing.assert_allclose(np.array(layer(x)).ravel(), expected, rtol=1e-5)


def rejection(path):
    with pytest.raises(ConfigError) as caught:
        import_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_networks_are_rejected_by_their_first_unknown_layer(models, tmp_path):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    unknown = {"FeatureExtractor/InceptionV2/Conv2d_1a/weights": np.zeros((1, 1, 3, 4), "float32")}
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays | unknown)
    assert "FeatureExtractor/InceptionV2/Conv2d_1a belongs to no network" in rejection(
        tmp_path / "model.ckpt"
    )


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("WeightSharedConvolutionalBoxPredictor/ClassPredictor", "feature pyramid"),
        ("FeatureExtractor/resnet_v1_50/fpn/top_down/projection_1", "feature pyramid"),
        ("Fpn/smoothing_1", "feature pyramid"),
        ("ssd_mobile_net_v2_keras_feature_extractor/Conv1/Conv2D", "TensorFlow 2"),
        ("StatefulPartitionedCall/model/Conv2D", "TensorFlow 2"),
        ("functional_1/Conv1/Conv2D", "TensorFlow 2"),
        ("FeatureExtractor/InceptionV2/Conv2d_1a", None),
    ],
)
def test_the_network_that_an_unknown_layer_belongs_to(name, network):
    layer = od_api.Layer(np.zeros((1, 1, 3, 4), "float32"))
    with pytest.raises(ConfigError) as caught:
        od_api.convert(od_api.Source("checkpoint", {name: layer}, {}), "model.ckpt")
    message = str(caught.value)
    assert f"model.ckpt: {name} " in message
    found = [each for each in ("feature pyramid", "TensorFlow 2") if each in message]
    assert found == [network] * (network is not None)


def test_a_checkpoint_of_a_faster_rcnn(tmp_path):
    arrays = {"FirstStageBoxPredictor/ClassPredictor/weights": np.zeros((1, 1, 3, 4), "float32")}
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    assert "Faster R-CNN" in rejection(tmp_path / "model.ckpt")


def test_a_classifier_is_no_detector(models, tmp_path):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    arrays = {name: value for name, value in arrays.items() if "BoxPredictor" not in name}
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    assert "no BoxPredictor layers" in rejection(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "BoxPredictor_1/ClassPredictor/weights",
            np.zeros((1, 1, 256, 20), "float32"),
            "layer logits1_conv: expected shapes [(1, 1, 256, 24), (24,)], got [(1, 1, 256, 20)",
        ),
        (
            "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/weights",
            np.zeros((3, 3, 3, 17), "float32"),
            "no width multiplier of mobilenet gives 17 channels",
        ),
        ("BoxPredictor_2/ClassPredictor/weights", None, "logits2_conv"),
        ("FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/weights", None, "conv1 is missing"),
        (
            "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_5_pointwise/BatchNorm/beta",
            None,
            "expected batch norm or a bias in conv_pw_5, found neither",
        ),
        ("BoxPredictor_0/BoxEncodingPredictor/biases", None, "expected a bias in offsets0_conv"),
    ],
)
def test_layers_that_do_not_fit(models, tmp_path, name, value, message):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    assert message in rejection(tmp_path / "model.ckpt")


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x00" * 40, b"PK\x03\x04 broken"])
def test_files_of_another_kind(tmp_path, content):
    path = tmp_path / "file.pb"
    path.write_bytes(content)
    assert str(path) in rejection(path)


def test_a_missing_file(tmp_path):
    assert "no file, checkpoint or SavedModel folder" in rejection(tmp_path / "none.pb")


def test_a_run_folder(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert "is a run folder already" in rejection(tmp_path)


def test_a_damaged_checkpoint(models, tmp_path):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    od_files.write_checkpoint(tmp_path / "model.ckpt", arrays)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    assert "the checkpoint" in rejection(tmp_path / "model.ckpt")


def test_the_pedestrian_graph_gives_tensorflows_outputs(shared_data):
    """The only place that runs the graph; the importer reads it as data."""
    path = shared_data / "weights" / "ssdlite_mobilenet_v2_pedestrian.pb"
    _, network, detector = import_file(path)
    assert detector.notes == []
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
    photos = sorted((shared_data / "voc14").rglob("*.jpg"))[:5]
    assert len(photos) == 5
    session = tf.compat.v1.Session(graph=loaded)
    for photo in photos:
        image = tf.io.decode_jpeg(photo.read_bytes(), channels=3)
        image = tf.cast(tf.image.resize(image, (300, 300)), tf.uint8)[None].numpy()
        expected = session.run(["Squeeze:0", "concat_1:0"], {"image_tensor:0": image})
        found = network.model(image.astype("float32"))
        for name, value in zip(("offsets", "logits"), expected, strict=True):
            assert np.abs(found[name] - value).max() < 1e-4 * np.abs(value).max()
    session.close()


def graph_with_convolution(models, strides=2, padding=b"SAME", dilations=1, **nodes):
    """The graph of ssd_mobilenet_v1 with the node of its first convolution."""
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    layer = "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0"
    extra = [(op, f"{layer}/{name}", []) for name, op in nodes.items()]
    graph = od_files.make_graph(arrays, nodes=extra)
    node = graph.node.add(op="Conv2D", name=f"{layer}/Conv2D")
    node.input.extend(["image", f"{layer}/weights/read"])
    node.attr["strides"].list.i.extend([1, strides, strides, 1])
    node.attr["padding"].s = padding
    node.attr["dilations"].list.i.extend([1, dilations, dilations, 1])
    return graph


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": b"VALID"}, "conv1: expected the padding SAME, got VALID"),
        ({"padding": b"EXPLICIT"}, "conv1: expected the padding SAME, got EXPLICIT"),
        ({"strides": 1}, "layer conv1: expected strides (2, 2), got (1, 1)"),
        ({"dilations": 2}, "conv1: expected no dilation, got [2, 2]"),
        ({"Relu": "Relu"}, "expected the activation ReLU6, found ReLU"),
    ],
)
def test_convolutions_that_ours_are_not(models, tmp_path, changes, message):
    path = tmp_path / "graph.pb"
    path.write_bytes(graph_with_convolution(models).SerializeToString())
    import_file(path)
    path.write_bytes(graph_with_convolution(models, **changes).SerializeToString())
    assert message in rejection(path)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite(models, tmp_path, value):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    name = "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_5_pointwise/BatchNorm/beta"
    arrays[name] = np.append(arrays[name][:-1], np.float32(value))
    (tmp_path / "graph.pb").write_bytes(od_files.make_graph(arrays).SerializeToString())
    assert "conv_pw_5_bn/beta has values that are not finite" in rejection(tmp_path / "graph.pb")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone.padding=torch", "model.backbone.padding is same in .*, here torch"),
        ("model.backbone.mean_rgb=[0,0,0]", None),
        ("model.score_activation=softmax", None),
        ("boxes.rounding=0.01", None),
        ("eval.nms_iou=0.5", None),
    ],
)
def test_what_the_file_states_cannot_be_replaced(models, tmp_path, override, message):
    arrays = od_files.arrays_of("ssd_mobilenet_v1", models["ssd_mobilenet_v1"])
    od_files.write_checkpoint(tmp_path / "ckpt", arrays)
    stated = detectors.read_detector(tmp_path / "ckpt")
    config, network, _ = import_file(tmp_path / "ckpt", [override])
    if message is None:
        imported.check_overrides(stated, config, network, tmp_path / "ckpt")
    else:
        with pytest.raises(ConfigError, match=message):
            imported.check_overrides(stated, config, network, tmp_path / "ckpt")


def test_a_checkpoint_of_tensorflow_2_is_recognized(tmp_path):
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "ckpt-1"))
    assert "--pipeline_config" in rejection(tmp_path / "ckpt-1")


def test_checkpoints_without_their_data(shared_data):
    paths = sorted((shared_data / "weights" / "tf2" / "zoo_index").rglob("*.index"))
    assert len(paths) > 4
    for path in paths:
        assert f"{path.stem}.data-00000-of-00001" in rejection(path)


def test_a_saved_model_of_tensorflow_2_is_recognized(tmp_path):
    module = tf.Module()
    module.x = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "saved"))
    assert "--pipeline_config" in rejection(tmp_path / "saved")
