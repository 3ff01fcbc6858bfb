"""Weights files in the format of keras.applications, with random values, and one real file."""

import backbone_files
import h5py
import keras
import numpy as np
import pytest

from ssd_tf.config import Backbone, check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights.importers import array_files, backbones


def write_h5(path, layers):
    """`layers` (name -> arrays) as Keras 2 wrote weights files."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            keys = [f"{name}/{name}_{index}:0" for index in range(len(arrays))]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, array in zip(keys, arrays, strict=True):
                group[key] = array
    return path


def random_vgg_layers():
    rng = np.random.default_rng(0)
    layers = {"input_1": []}
    previous = 3
    blocks = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for block, (channels, count) in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            kernel = rng.normal(size=(3, 3, previous, channels)).astype("float32")
            bias = rng.normal(size=channels).astype("float32")
            layers[f"block{block}_conv{index}"] = [kernel, bias]
            previous = channels
    return layers


def vgg_config(weights):
    model = {
        "input_hw": [64, 96],
        "num_levels": 2,
        "backbone": {"name": "vgg16"},
    }
    boxes = {"levels": [{"size": 30}, {"size": 60}]}
    return check_config({"init_from": str(weights), "model": model, "boxes": boxes}, "test")


def mobilenet_config(weights, alpha=0.25, name="mobilenet"):
    backbone = {"name": name, "alpha": alpha, "first_stride": 8}
    model = {"input_hw": [64, 96], "num_levels": 3, "backbone": backbone}
    values = {"init_from": str(weights), "model": model, "boxes": {"preset": "paper"}}
    return check_config(values, "test")


def names_of_layers_with_weights(layers):
    return {layer.name for layer in layers if layer.weights}


def test_a_vgg16_file_without_its_top_fills_every_convolution(tmp_path):
    layers = random_vgg_layers()
    config = vgg_config(write_h5(tmp_path / "vgg.h5", layers))
    network = ssd.build_model(config, 2)
    model = network.model
    fc6 = model.get_layer("fc6").get_weights()[0]
    assert backbone_files.load(network, config) == {
        *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
        *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"),
    }
    for block, index in ((1, 2), (3, 3), (5, 2)):
        kernel, bias = model.get_layer(f"conv{block}_{index}").get_weights()
        np.testing.assert_array_equal(kernel, layers[f"block{block}_conv{index}"][0])
        np.testing.assert_array_equal(bias, layers[f"block{block}_conv{index}"][1])
    np.testing.assert_array_equal(model.get_layer("fc6").get_weights()[0], fc6)


@pytest.mark.parametrize(
    ("name", "application", "module", "kwargs", "their_layer", "our_layer"),
    [
        ("vgg16", "VGG16", "vgg16", {}, "block4_conv3", "conv4_3"),
        (
            "mobilenet",
            "MobileNet",
            "mobilenet",
            {"alpha": 0.25},
            "conv_pw_5_relu",
            "conv_pw_5_relu6",
        ),
        (
            "mobilenet_v2",
            "MobileNetV2",
            "mobilenet_v2",
            {"alpha": 0.35},
            "block_6_expand_relu",
            "block_6_expand_relu6",
        ),
    ],
)
def test_an_image_gives_the_same_features_as_keras_own_network(
    tmp_path, name, application, module, kwargs, their_layer, our_layer
):
    """Keras' VGG16 takes BGR minus means, its MobileNets RGB in -1..1; ours take RGB in 0..255."""
    rng = np.random.default_rng(0)
    # Channels that cannot be mistaken for each other.
    image = rng.uniform(0, 255, (1, 64, 96, 3)) * [1.0, 0.5, 0.1]
    theirs = getattr(keras.applications, application)(
        input_shape=(64, 96, 3), include_top=False, weights=None, **kwargs
    )
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            mean = rng.normal(0, 0.1, mean.shape)
            variance = rng.uniform(0.5, 1.5, variance.shape)
            layer.set_weights([gamma, beta, mean, variance])
    path = tmp_path / f"{name}.h5"
    write_h5(path, {layer.name: layer.get_weights() for layer in theirs.layers})
    config = vgg_config(path) if name == "vgg16" else mobilenet_config(path, name=name, **kwargs)
    network = ssd.build_model(config, 2)
    backbone_files.load(network, config)
    model = network.model
    preprocess = getattr(keras.applications, module).preprocess_input
    their_features = keras.Model(theirs.input, theirs.get_layer(their_layer).output)
    expected = np.array(their_features(preprocess(image.copy())))
    found = np.array(keras.Model(model.input, model.get_layer(our_layer).output)(image))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).std() > 1e-3


def test_fc6_takes_every_third_position_and_every_fourth_channel():
    # A kernel whose numbers give their own position; zeros that are never written take no memory.
    kernel = np.zeros((7 * 7 * 512, 4096), "float32")
    kernel[:, 8] = np.arange(7 * 7 * 512)
    bias = np.arange(4096, dtype="float32")
    second = np.zeros((4096, 4096), "float32")
    second[4, 12] = 5.0
    second[5, 12] = 6.0
    ours = backbones.convert_keras(
        {
            "fc1": [kernel, bias],
            "fc2": [second, bias],
            "predictions": [np.zeros((4096, 9)), np.zeros(9)],
        },
        Backbone(name="vgg16"),
        "vgg.h5",
    )
    assert sorted(ours) == ["fc6", "fc7"]
    wide, wide_bias = ours["fc6"]
    narrow, narrow_bias = ours["fc7"]
    assert wide.shape == (3, 3, 512, 1024)
    assert narrow.shape == (1, 1, 1024, 1024)
    # Row (y * 7 + x) * 512 + channel of the flattened 7 x 7 x 512 input; tap (1, 2) is the
    # position (3, 6).
    assert wide[0, 0, 0, 2] == 0
    assert wide[1, 2, 5, 2] == (3 * 7 + 6) * 512 + 5
    assert wide[2, 2, 511, 2] == 7 * 7 * 512 - 1
    assert not wide[1, 1, :, [0, 1, 3]].any()
    assert narrow[0, 0, 1, 3] == 5.0
    assert narrow.sum() == 5.0
    assert wide_bias[:3].tolist() == [0, 4, 8]
    assert narrow_bias[:3].tolist() == [0, 4, 8]


def test_the_real_mobilenet_file_fills_every_layer(shared_data, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))
    config = mobilenet_config("imagenet")
    network = ssd.build_model(config, 2)
    filled = backbone_files.load(network, config)
    model = network.model
    assert filled == names_of_layers_with_weights(ssd.backbone_layers(model, config))
    # The file has 137 arrays, two of them in the classifier's top.
    assert sum(len(model.get_layer(name).weights) for name in filled) == 135
    path = shared_data / "weights" / "mobilenet_v1_0.25_224.h5"
    arrays = array_files.read_h5(path)
    np.testing.assert_array_equal(
        model.get_layer("conv_pw_13").get_weights()[0], arrays["conv_pw_13"][0]
    )
    np.testing.assert_array_equal(
        model.get_layer("conv1_bn").get_weights()[2], arrays["conv1_bn"][2]
    )


def test_a_mobilenet_v2_file_is_found_by_its_name_and_fills_every_layer(tmp_path, monkeypatch):
    theirs = keras.applications.MobileNetV2(
        input_shape=(64, 96, 3), alpha=0.35, include_top=False, weights=None
    )
    rng = np.random.default_rng(0)
    layers = {
        layer.name: [rng.normal(size=weight.shape).astype("float32") for weight in layer.weights]
        for layer in theirs.layers
    }
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    write_h5(tmp_path / name, layers)
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    config = mobilenet_config("imagenet", alpha=0.35, name="mobilenet_v2")
    network = ssd.build_model(config, 2)
    model = network.model
    assert backbone_files.load(network, config) == names_of_layers_with_weights(theirs.layers)
    np.testing.assert_array_equal(
        model.get_layer("block_13_expand").get_weights()[0], layers["block_13_expand"][0]
    )
    np.testing.assert_array_equal(
        model.get_layer("Conv_1_bn").get_weights()[3], layers["Conv_1_bn"][3]
    )


def test_a_published_file_under_another_normalization_is_rejected(shared_data, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))
    config = mobilenet_config("imagenet")
    values = config.model_dump(mode="json")
    values["model"]["backbone"]["mean_rgb"] = [0, 0, 0]
    config = check_config(values, "test")
    message = r"^init_from .*model.backbone.mean_rgb is \[127.5.*, here \[0.0,0.0,0.0\]"
    with pytest.raises(ConfigError, match=message):
        backbone_files.load(ssd.build_model(config, 2), config)


def test_keras_weights_under_pytorchs_padding_are_rejected(shared_data):
    config = mobilenet_config(shared_data / "weights" / "mobilenet_v1_0.25_224.h5")
    values = config.model_dump(mode="json")
    values["model"]["backbone"]["padding"] = "torch"
    config = check_config(values, "test")
    with pytest.raises(ConfigError, match=r"padding is keras in .*, here torch"):
        backbone_files.load(ssd.build_model(config, 2), config)


def test_the_deeper_vgg19_is_rejected(tmp_path):
    layers = random_vgg_layers()
    layers["block3_conv4"] = layers["block3_conv3"]
    config = vgg_config(write_h5(tmp_path / "vgg.h5", layers))
    with pytest.raises(ConfigError, match=r"vgg.h5: expected VGG16, got VGG19"):
        backbone_files.load(ssd.build_model(config, 2), config)


@pytest.fixture(scope="module")
def small_network():
    return ssd.build_model(mobilenet_config("weights.h5"), 2)


def test_a_missing_file_is_rejected(tmp_path, small_network):
    with pytest.raises(ConfigError, match=r"init_from: no file at .*nowhere.h5"):
        backbone_files.load(small_network, mobilenet_config(tmp_path / "nowhere.h5"))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"another": [np.zeros(3)]}, r"weights.h5: layer conv1: "),
        (
            {"conv1": [np.zeros((3, 3, 3, 16))]},
            r"weights.h5: layer conv1: .* \[\(3, 3, 3, 8\)\], .* \[\(3, 3, 3, 16\)\]",
        ),
        ({"conv1": [np.zeros((3, 3, 3, 8))]}, r"weights.h5: layer conv1_bn: "),
        (
            {"conv1": [np.full((3, 3, 3, 8), np.nan)], "conv1_bn": [np.ones(8)] * 4},
            r"weights.h5: conv1/kernel has values that are not finite",
        ),
    ],
)
def test_files_that_do_not_fit_are_rejected(tmp_path, small_network, layers, message):
    path = write_h5(tmp_path / "weights.h5", layers)
    with pytest.raises(ConfigError, match=message) as error:
        backbone_files.load(small_network, mobilenet_config(path))
    assert "\n" not in str(error.value)


def test_files_that_are_truncated_or_something_else_are_rejected_in_one_line(
    tmp_path, small_network
):
    layers = {"conv1": [np.zeros((3, 3, 3, 8))], "conv_pw_1": [np.ones((1, 1, 8, 16))]}
    complete = write_h5(tmp_path / "complete.h5", layers).read_bytes()
    (tmp_path / "truncated.h5").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "zip.h5").write_bytes(b"PK\x03\x04" + b"0" * 100)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["model_weights"] = np.zeros(3)
    for name in ("truncated.h5", "text.h5", "zip.h5", "model.h5"):
        message = (
            rf"{name} is not a Keras weights file in HDF5 format \(.*\); for torchvision's weights"
        )
        with pytest.raises(ConfigError, match=message) as error:
            backbone_files.load(small_network, mobilenet_config(tmp_path / name))
        assert "\n" not in str(error.value)


def test_a_pth_is_read_as_a_state_dict(tmp_path, small_network):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04" + b"0" * 100)
    with pytest.raises(ConfigError, match=r"weights\.pth is not a complete PyTorch state dict"):
        backbone_files.load(small_network, mobilenet_config(path))
