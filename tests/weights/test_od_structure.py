"""SSDs in TFLite files without names we know, with a feature pyramid or not; our exporter's."""

import pathlib

import keras
import numpy as np
import od_files
import pytest
import small_networks
import tensorflow as tf
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.boxes import coding
from ssd_tf.config import check_config, load_config
from ssd_tf.errors import ConfigError
from ssd_tf.exporting import tflite, tflite_file, tflite_graphs
from ssd_tf.models import folding, ssd
from ssd_tf.models.folding import graph_nodes
from ssd_tf.training.monitor import read_metrics
from ssd_tf.training.train import train
from ssd_tf.weights.importers import (
    detectors,
    graph_match,
    imported,
    od_structure,
    od_tflite,
    tflite_kind,
)

ROOT = pathlib.Path(__file__).parents[2]
CLASSES = [{"id": index, "name": name} for index, name in enumerate(("a", "b", "c"), start=1)]


def make_network(**model):
    """A small network in which every batch norm differs from the identity."""
    values = {
        "model": {
            "input_hw": [96, 128],
            "num_levels": 4,
            "backbone": {
                "name": "mobilenet_v2",
                "alpha": 0.35,
                "padding": "same",
                "min_channels": 16,
            },
            "neck": "fpn_lite",
            "neck_channels": 24,
            "head": "separable",
            "tower": {"num_layers": 2, "channels": 24, "shared": True},
            "score_activation": "sigmoid",
        }
        | model,
        "boxes": {"preset": "od_api_fpn"},
    }
    values["model"]["backbone"] |= {"mean_rgb": [0, 0, 0], "std_rgb": [1, 1, 1]}
    config = check_config(values, "test")
    network = ssd.build_model(config, len(CLASSES))
    small_networks.randomize(network.model)
    return config, network


@pytest.fixture(scope="module")
def pyramid():
    """A config, its network, and the exporter that keeps its conversion."""
    config, network = make_network()
    return config, network, make_converter(config, network)


def make_converter(config, network):
    return tflite.Converter(config, network, [entry["name"] for entry in CLASSES], ())


def write_tflite(converter, path, raw=False):
    """A file without our metadata, as if third-party."""
    converter.export(path, "float32", raw)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.metadata = []
    path.write_bytes(tflite_file.pack(model))
    return path


def predict(network, images):
    return network.model(images.astype(np.float32), training=False)


V1 = {"name": "mobilenet", "alpha": 0.25, "padding": "same", "min_channels": 16}
TWO_TOWERS = {"head": "conv", "neck": "fpn", "tower": {"num_layers": 1, "channels": 24}}


def test_the_imported_network_has_the_same_outputs(pyramid, tmp_path):
    config, network, converter = pyramid
    path = write_tflite(converter, tmp_path / "model.tflite")
    assert_imported_alike(path, config, network)


@pytest.mark.integration
@pytest.mark.parametrize(
    "model",
    [{"backbone": V1, **TWO_TOWERS}, {"backbone": V1}, TWO_TOWERS],
    ids=["v1 with two towers", "v1", "two towers"],
)
def test_other_imported_networks_have_the_same_outputs(model, tmp_path):
    config, network = make_network(**model)
    path = write_tflite(make_converter(config, network), tmp_path / "model.tflite")
    assert_imported_alike(path, config, network)


def assert_imported_alike(path, config, network, normalize=lambda images: images / 127.5 - 1):
    detector = od_tflite.import_tflite(path)
    found_config = check_config(detector.values, "test")
    for key in ("input_hw", "num_levels", "neck", "neck_channels", "head", "tower"):
        assert getattr(found_config.model, key) == getattr(config.model, key), key
    assert (found_config.boxes.preset, found_config.train.bn) == ("od_api_fpn", "frozen")
    found = imported.build_network(detector, found_config, CLASSES, path)
    np.testing.assert_allclose(found.default_boxes, network.default_boxes, atol=1e-6)
    # The importer adds the normalisation of the API, which is not in its files.
    images = np.random.default_rng(1).uniform(0, 255, (2, 96, 128, 3))
    expected = predict(network, normalize(images))
    for name, value in predict(found, images).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], atol=1e-4 * scale)


@pytest.fixture(scope="module")
def st_file(tmp_path_factory):
    """A file as in ST's model zoo, with boxes as x before y, and the network that it is made of."""
    config, network = make_network(neck_upsampling="bilinear", score_activation="softmax")
    folded = folding.fold_batch_norm(network.model)
    default_boxes = tf.constant(network.default_boxes[None][..., [1, 0, 3, 2]])
    outputs = {
        "bboxes_concat": folded.output["offsets"],
        "classes_softmax": layers.Softmax()(folded.output["logits"]),
        "anchors_concat": layers.Lambda(lambda _: default_boxes)(folded.input),
    }
    model = keras.Model(folded.input, outputs)
    path = tmp_path_factory.mktemp("st") / "model.tflite"
    path.write_bytes(tflite_graphs.convert_network(model, "float32"))
    return config, network, path


def test_a_pyramid_of_sts_model_zoo(st_file):
    _, network, path = st_file
    detector = od_tflite.import_tflite(path)
    found_config = check_config(detector.values, "test")
    assert (found_config.model.neck_upsampling, found_config.boxes.coding) == (
        "bilinear",
        "corners",
    )
    assert found_config.model.score_activation == "softmax"
    assert found_config.loss.focal_gamma is None
    assert (found_config.boxes.preset, found_config.boxes.rounding) == ("od_api_fpn", None)
    found = imported.build_network(detector, found_config, CLASSES, path)
    images = np.random.default_rng(1).uniform(0, 255, (2, 96, 128, 3))
    expected = predict(network, images / 127.5 - 1)
    predictions = predict(found, images)
    scale = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(predictions["logits"], expected["logits"], atol=1e-4 * scale)
    # Each corner, x before y in the file, moves by its output times the side of the default box.
    sides = network.default_boxes[:, 2:] - network.default_boxes[:, :2]
    moves = np.array(expected["offsets"])[..., [1, 0, 3, 2]] * np.tile(sides, 2)
    boxes = network.default_boxes + moves
    decoded = coding.decode(
        predictions["offsets"], found.default_boxes, found_config.boxes.variances
    )
    is_box = (boxes[..., 2:] - boxes[..., :2] > 0.01 * sides).all(-1)
    assert is_box.mean() > 0.2
    np.testing.assert_allclose(decoded.numpy()[is_box], boxes[is_box], atol=1e-4)


def test_other_ways_to_enlarge(st_file, tmp_path):
    path = tmp_path / "a.tflite"
    path.write_bytes(st_file[-1].read_bytes())

    def align(_code, operator):
        operator.builtinOptions.halfPixelCenters = False

    edit_operators(path, "RESIZE_BILINEAR", align)
    with pytest.raises(ConfigError, match="half_pixel_centers"):
        od_tflite.read_tflite(path)


def test_kernels_that_differ_by_more_than_a_factor_are_rejected():
    kernels = np.random.default_rng(0).normal(0, 1, (3, 1, 1, 8, 4)).astype(np.float32)
    *_, residual = od_structure.split_scales(kernels)
    assert residual > 0.1
    common = kernels[0]
    scales = np.array([[1, 2, 3, 4], [2, 2, 2, 2], [0.5, 1, 0, -1]], np.float32)
    kernel, found, residual = od_structure.split_scales(common * scales[:, None, None, None])
    assert residual < 1e-6
    np.testing.assert_allclose(
        kernel * found[:, None, None, None], common * scales[:, None, None, None], atol=1e-5
    )


@pytest.mark.integration
def test_a_file_with_kernels_of_each_map(tmp_path):
    config, network = make_network(tower={"num_layers": 1, "channels": 24, "per_map": True})
    path = write_tflite(make_converter(config, network), tmp_path / "model.tflite")
    assert_imported_alike(path, config, network)


def make_graph(network, weights, has_pyramid=True):
    """The convolutions of a network with other weights: a kernel and bias for each."""
    convolutions = graph_match.keras_convolutions(network.model)
    outputs = [node.outputs[0] for node in graph_nodes(network.model)]
    heights = {id(output): output.shape[1] for output in outputs}
    heads = {"boxes": [], "classes": []}
    for index, each in enumerate(convolutions):
        if each.role and len(each.shape) == 4:
            heads[each.role].append(index)
    for indices in heads.values():
        indices.sort(key=lambda index: -heights[convolutions[index].source.output])
    settings = {"model.input_hw": [96, 128]}
    parts = (convolutions, weights, *heads.values(), settings, None, None, has_pyramid)
    return od_structure.Graph("test", *parts)


def test_kernels_that_differ_between_maps_stay_those_of_their_maps(pyramid):
    _, network, _ = pyramid
    rng = np.random.default_rng(0)
    convolutions = graph_match.keras_convolutions(network.model)
    graph = make_graph(network, [random_weights(rng, each.shape) for each in convolutions])
    detector = od_structure.convert(graph, "file")
    assert detector.values["model"]["tower"]["per_map"]
    assert any("per_map" in note for note in detector.notes)
    for level in range(4):
        kernel, _ = graph.arrays[graph.box_heads[level]]
        np.testing.assert_array_equal(detector.arrays[f"offsets{level}_conv"][1], kernel)


def test_equal_kernels_of_two_towers_become_those_of_all_maps():
    config, network = make_network(backbone=V1, **TWO_TOWERS)
    rng = np.random.default_rng(0)
    kernels = {}
    weights = [
        kernels.setdefault((each.shape, each.role), random_weights(rng, each.shape))
        for each in graph_match.keras_convolutions(network.model)
    ]
    graph = make_graph(network, weights)
    detector = od_structure.convert(graph, "file")
    found = check_config(detector.values, "test").model
    for key in ("input_hw", "num_levels", "neck", "neck_channels", "head", "tower"):
        assert getattr(found, key) == getattr(config.model, key), key
    assert (found.backbone.name, found.backbone.alpha) == ("mobilenet", 0.25)
    assert not any("per_map" in note for note in detector.notes)
    for name, heads in (("offsets_conv", graph.box_heads), ("logits_conv", graph.class_heads)):
        for index in heads:
            np.testing.assert_array_equal(detector.arrays[name][0], weights[index][0])


def random_weights(rng, shape):
    return rng.normal(0, 1, shape).astype(np.float32), np.zeros(shape[-1])


def make_ssd(name):
    """A network with heads per map, which normalises nothing."""
    model = od_files.VALUES[name] | {"score_activation": "sigmoid"}
    model["backbone"] = model["backbone"] | {"mean_rgb": [0, 0, 0], "std_rgb": [1, 1, 1]}
    config = check_config({"model": model, "boxes": {"preset": "od_api"}}, "test")
    network = ssd.build_model(config, len(CLASSES))
    small_networks.randomize(network.model)
    return config, network


@pytest.mark.parametrize("name", od_files.VALUES)
def test_heads_per_map(name):
    _, network = make_ssd(name)
    convolutions = graph_match.keras_convolutions(network.model)
    rng = np.random.default_rng(0)
    weights = [(rng.normal(0, 1, each.shape), np.zeros(each.shape[-1])) for each in convolutions]
    detector = od_structure.convert(make_graph(network, weights, has_pyramid=False), "file")
    found = detector.values["model"]
    expected = od_files.VALUES[name]
    assert (found["head"], found["num_levels"]) == (expected["head"], expected["num_levels"])
    assert expected["backbone"].items() <= found["backbone"].items()
    assert detector.values["boxes"]["preset"] == "od_api"
    for each, (kernel, _) in zip(convolutions, weights, strict=True):
        value = detector.arrays[each.source.layer.name][0]
        np.testing.assert_allclose(value.reshape(kernel.shape), kernel, rtol=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize("name", od_files.VALUES)
def test_a_file_with_heads_per_map(name, tmp_path):
    config, network = make_ssd(name)
    path = write_tflite(make_converter(config, network), tmp_path / "model.tflite")
    detector = od_tflite.import_tflite(path)
    found = imported.build_network(detector, check_config(detector.values, "test"), CLASSES, path)
    np.testing.assert_allclose(found.default_boxes, network.default_boxes, atol=1e-6)
    images = np.random.default_rng(1).uniform(0, 255, (2, 96, 128, 3))
    expected = predict(network, images / 127.5 - 1)
    for key, value in predict(found, images).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4 * np.abs(expected[key]).max())


@pytest.mark.parametrize("part", ["kernel", "bias"])
def test_heads_that_differ_between_maps(pyramid, part):
    """By a factor, too: no batch norm follows them."""
    _, network, _ = pyramid
    ours = graph_match.keras_convolutions(network.model)
    # Without biases of depthwise convolutions, which would become part of those that follow.
    found = [
        (np.ones(each.shape, np.float32), np.full(each.shape[-1], float(len(each.shape) == 4)))
        for each in ours
    ]
    _, residual = od_structure._gather(network.model, ours, found)
    assert residual == 0
    index = max(index for index, each in enumerate(ours) if each.role == "boxes")
    kernel, bias = found[index]
    found[index] = (2 * kernel, bias) if part == "kernel" else (kernel, 2 * bias)
    _, residual = od_structure._gather(network.model, ours, found)
    assert residual == 0.5


def test_equal_kernels_keep_their_bits():
    kernel = np.random.default_rng(0).normal(0, 1, (1, 1, 8, 4)).astype(np.float32)
    found, scales, residual = od_structure.split_scales(np.stack([kernel] * 3))
    np.testing.assert_array_equal(found, kernel)
    assert (scales == 1).all() and residual == 0


def chain(*shapes):
    """Convolutions that feed each other in turn."""
    return [
        graph_match.Convolution(shape, (1, 1), frozenset([index - 1] if index else []), None)
        for index, shape in enumerate(shapes)
    ]


def test_graphs_correspond_only_if_all_around_does():
    first = chain((3, 3, 3, 8), (1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 8, 4))
    assert graph_match.match(first, first) == [0, 1, 2, 3]
    assert graph_match.match([], []) == []
    assert graph_match.match(first, first[:3]) is None
    # Two heads on the second: their order in the graph does not matter, their shapes do.
    heads = [
        graph_match.Convolution((1, 1, 8, size), (1, 1), frozenset([1]), None) for size in (4, 6)
    ]
    assert graph_match.match(first[:2] + heads, first[:2] + heads[::-1]) == [0, 1, 3, 2]


def test_a_pyramid_without_post_processing(pyramid, tmp_path):
    write_tflite(pyramid[-1], tmp_path / "raw.tflite", raw=True)
    with pytest.raises(ConfigError, match=r"raw\.tflite \(SSD MobileNetV2 FPN-lite 96 x 128, 3 "):
        od_tflite.read_tflite(tmp_path / "raw.tflite")


def edit_operators(path, name, change):
    """Change the code of the operators of that name, and their options."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for operator in model.subgraphs[0].operators:
        if tflite_kind.operator_name(model, operator) == name:
            change(model.operatorCodes[operator.opcodeIndex], operator)
    path.write_bytes(tflite_file.pack(model))


def test_other_activations(pyramid, tmp_path):
    path = write_tflite(pyramid[-1], tmp_path / "a.tflite")
    content = path.read_bytes()

    def to_hard_swish(code, _operator):
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.HARD_SWISH

    def to_relu(_code, operator):
        operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU

    edit_operators(path, "LOGISTIC", to_hard_swish)
    with pytest.raises(ConfigError, match=r"3 classes, float32\): .*HARD_SWISH"):
        od_tflite.read_tflite(path)
    path.write_bytes(content)
    edit_operators(path, "DEPTHWISE_CONV_2D", to_relu)
    with pytest.raises(ConfigError, match="ReLU6"):
        od_tflite.read_tflite(path)


@pytest.mark.integration
def test_an_imported_pyramid_is_fine_tuned(pyramid, tiny_data, tmp_path):
    """By configs/finetune.yaml, as the README has it, for fewer steps and images."""
    path = write_tflite(pyramid[-1], tmp_path / "model.tflite")
    detectors.import_detector(path, tmp_path / "start")
    overrides = ["train.steps=2", "train.warmup_steps=0", "train.batch_size=2"]
    overrides.append(f"init_from={tmp_path / 'start'}")
    train(load_config(ROOT / "configs" / "finetune.yaml", overrides), tiny_data, tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert float(rows[-1]["step"]) == 2
    assert np.isfinite(float(rows[-1]["loss"]))
