"""SSDs on ResNet v1 of the TF Object Detection API, against the network in plain TensorFlow.

Names and shapes are spelled out here after the API's code, as no checkpoint was at hand.
"""

import numpy as np
import pytest
import test_od_structure
import zoo_reference
from test_od_tf2 import build, random_value, save, write_saved_model

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import detectors

# A quarter of the width, with 2 classes.
PIPELINE = """
model { ssd {
  num_classes: 2
  image_resizer { fixed_shape_resizer { height: 160 width: 192 } }
  feature_extractor {
    type: "ssd_resnet50_v1_fpn_keras"
    depth_multiplier: 0.25
    min_depth: 16
    conv_hyperparams { activation: RELU_6 batch_norm { scale: true epsilon: 0.001 } }
    override_base_feature_extractor_hyperparams: true
    fpn { min_level: 3 max_level: 7 }
  }
  box_predictor { weight_shared_convolutional_box_predictor {
    depth: 32
    num_layers_before_predictor: 4
    kernel_size: 3
    conv_hyperparams { activation: RELU_6 batch_norm { scale: true epsilon: 0.001 } }
  } }
  anchor_generator { multiscale_anchor_generator {
    min_level: 3 max_level: 7 anchor_scale: 4.0 scales_per_octave: 2
    aspect_ratios: 1.0 aspect_ratios: 2.0 aspect_ratios: 0.5
  } }
  post_processing {
    batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6 }
    score_converter: SIGMOID
  }
} }
"""


def norm_shapes(place, channels):
    return {
        f"{place}/{name}": (channels,)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }


def backbone_shapes():
    """In the order of Keras, which takes the shortcut's layers just before the third ones."""
    found = [(7, 7, 3, 16), 16]  # kernels, and the channels of batch norms
    inputs = 16
    for width, count in ((16, 3), (32, 4), (64, 6), (128, 3)):
        for block in range(count):
            found += [(1, 1, inputs, width), width, (3, 3, width, width), width]
            third = (1, 1, width, 4 * width)
            if block == 0:
                found += [(1, 1, inputs, 4 * width), third, 4 * width, 4 * width]
            else:
                found += [third, 4 * width]
            inputs = 4 * width
    shapes = {}
    for index, each in enumerate(found):
        place = f"_feature_extractor/classification_backbone/layer_with_weights-{index}"
        shapes |= norm_shapes(place, each) if isinstance(each, int) else {f"{place}/kernel": each}
    return shapes


def neck_shapes():
    root = "_feature_extractor/_fpn_features_generator"
    shapes = {}
    laterals = {"top_layers/0": 512, "residual_blocks/0/0": 256, "residual_blocks/1/0": 128}
    for place, channels in laterals.items():
        shapes |= {f"{root}/{place}/kernel": (1, 1, channels, 64), f"{root}/{place}/bias": (64,)}
    coarse = "_feature_extractor/_coarse_feature_layers"
    for place in (f"{root}/conv_layers/{{}}", f"{coarse}/{{}}"):
        for index in range(2):
            shapes[f"{place.format(index)}/0/kernel"] = (3, 3, 64, 64)
            shapes |= norm_shapes(f"{place.format(index)}/1", 64)
    return shapes


def head_shapes():
    shapes = {}
    for tower, norms in (
        ("BoxPredictionTower", "box_encodings"),
        ("ClassPredictionTower", "class_predictions_with_background"),
    ):
        for layer in range(4):
            name = f"_box_predictor/_head_scope_conv_layers/{tower}/{layer}/kernel"
            shapes[name] = (3, 3, 64 if layer == 0 else 32, 32)
            for level in range(5):
                place = f"_box_predictor/_base_tower_layers_for_heads/{norms}/{level}"
                shapes |= norm_shapes(f"{place}/{1 + 3 * layer}", 32)
    # Six boxes per cell; two classes and the background.
    for place, channels in (
        ("_box_prediction_head/_box_encoder_layers/0", 24),
        ("_prediction_heads/class_predictions_with_background/_class_predictor_layers/0", 18),
    ):
        shapes[f"_box_predictor/{place}/kernel"] = (3, 3, 32, channels)
        shapes[f"_box_predictor/{place}/bias"] = (channels,)
    return shapes


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A folder with checkpoint and pipeline.config, and the variables."""
    folder = tmp_path_factory.mktemp("resnet")
    random = np.random.default_rng(0)
    shapes = backbone_shapes() | neck_shapes() | head_shapes()
    variables = {name: random_value(name, shape, random) for name, shape in shapes.items()}
    values = {
        f"model/{name}/.ATTRIBUTES/VARIABLE_VALUE": value for name, value in variables.items()
    }
    save(folder / "ckpt-0", values | {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"")})
    (folder / "pipeline.config").write_text(PIPELINE)
    return folder, variables


def test_outputs_are_those_of_the_api(download):
    folder, values = download
    variables = zoo_reference.Variables(values)
    detector = detectors.read_detector(folder)
    network = build(detector)
    images = np.random.default_rng(1).uniform(0, 255, (2, 160, 192, 3)).astype(np.float32)
    expected = zoo_reference.predict(variables, images, "resnet50_fpn")
    found = network.model(images, training=False)
    # Cells of strides 8 to 128, with six boxes each.
    assert found["offsets"].shape == (2, 6 * (20 * 24 + 10 * 12 + 5 * 6 + 3 * 3 + 2 * 2), 4)
    for name, value in zip(("offsets", "logits"), expected, strict=True):
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[name], value, atol=1e-4 * scale)
    assert variables.left_over == set()
    backbone = check_config(detector.values, "test").model.backbone
    assert (backbone.mean_rgb, backbone.std_rgb) == ((123.68, 116.779, 103.939), (1, 1, 1))


def test_a_saved_model_has_numbered_variables(download, tmp_path):
    folder, variables = download
    write_saved_model(tmp_path / "saved_model", variables)
    (tmp_path / "pipeline.config").write_text(PIPELINE)
    found = detectors.read_detector(tmp_path).arrays
    for layer, arrays in detectors.read_detector(folder).arrays.items():
        for value, array in zip(found[layer], arrays, strict=True):
            np.testing.assert_array_equal(value, array, err_msg=layer)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("activation: RELU_6", "", "feature_extractor.conv_hyperparams.activation"),
        ("epsilon: 0.001", "epsilon: 0.1", "batch_norm.epsilon"),
        ("override_base_feature_extractor_hyperparams: true", "", "override_base_feature"),
        ("num_classes: 2", "num_classes: 5", "num_classes: 5, .* 2;"),
        ("num_classes: 2", "", "num_classes: .* from 1 to"),
        ("num_classes: 2", "num_classes: two", "num_classes: .* two"),
        ("height: 160", "height: 100000", "height: .* 100000"),
        ("depth: 32", "depth: 1.5", r"depth: .* 1\.5"),
        ("depth: 32", "depth: 16", "box_predictor; .*PredictionTower/0"),
        ("depth_multiplier: 0.25", "depth_multiplier: 1e9", "depth_multiplier"),
        ("min_level: 3", "min_level: 2", r"fpn\.min_level: .* 2"),
        ("ssd_resnet50", "ssd_resnet152", "ssd_resnet152_v1_fpn_keras, 2 classes"),
        ("ssd_resnet50", "ssd_resnet101", "feature_extractor; .*layer_with_weights-86"),
    ],
)
def test_other_networks(old, new, key, download, tmp_path):
    path = tmp_path / "pipeline.config"
    path.write_text(PIPELINE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=key) as caught:
        detectors.read_detector(download[0] / "ckpt-0", path)
    assert str(path) in str(caught.value)


@pytest.mark.integration
def test_a_tflite_file(tmp_path):
    backbone = {"name": "resnet50", "alpha": 0.25, "variant": "od_api"}
    config, network = test_od_structure.make_network(
        backbone=backbone, **test_od_structure.TWO_TOWERS
    )
    path = test_od_structure.write_tflite(
        test_od_structure.make_converter(config, network), tmp_path / "a.tflite"
    )
    mean = np.array([123.68, 116.779, 103.939])
    test_od_structure.assert_imported_alike(path, config, network, lambda images: images - mean)
