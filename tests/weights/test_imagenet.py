"""Weights files of keras.applications' format, with random values, and the one real file at hand."""

import h5py
import keras
import numpy as np
import pytest

from ssd_tf.config import ConfigError, check_config
from ssd_tf.models import ssd
from ssd_tf.weights import imagenet


def write_h5(path, layers):
    """`layers` (name -> arrays) as Keras 2 wrote weights files."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            names = [f"{name}/{name}_{number}:0" for number in range(len(arrays))]
            group.attrs["weight_names"] = [n.encode() for n in names]
            for key, array in zip(names, arrays, strict=True):
                group[key] = array
    return path


def vgg_layers():
    rng = np.random.default_rng(0)
    layers = {"input_1": []}
    previous = 3
    for block, (channels, count) in enumerate(
        ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1
    ):
        for index in range(1, count + 1):
            kernel = rng.normal(size=(3, 3, previous, channels)).astype("float32")
            layers[f"block{block}_conv{index}"] = [
                kernel,
                rng.normal(size=channels).astype("float32"),
            ]
            previous = channels
    return layers


def vgg_config(path, input_hw=(64, 96)):
    levels = [{"size": 30}, {"size": 60}]
    model = {
        "input_hw": list(input_hw),
        "num_levels": 2,
        "backbone": {"name": "vgg16", "weights": str(path)},
    }
    return check_config({"model": model, "boxes": {"levels": levels}}, "test")


def mobilenet_config(weights, alpha=0.25, name="mobilenet"):
    backbone = {"name": name, "alpha": alpha, "weights": weights, "first_stride": 8}
    return check_config(
        {
            "model": {"input_hw": [64, 96], "num_levels": 3, "backbone": backbone},
            "boxes": {"preset": "paper"},
        },
        "test",
    )


def test_a_vgg16_file_without_its_top_fills_every_convolution(tmp_path):
    layers = vgg_layers()
    config = vgg_config(write_h5(tmp_path / "vgg.h5", layers))
    model = ssd.build_model(config, 2).model
    fc6 = model.get_layer("fc6").get_weights()[0]
    assert imagenet.load_backbone(model, config) == 26
    for block, index in ((1, 2), (3, 3), (5, 2)):
        kernel, bias = model.get_layer(f"conv{block}_{index}").get_weights()
        np.testing.assert_array_equal(kernel, layers[f"block{block}_conv{index}"][0])
        np.testing.assert_array_equal(bias, layers[f"block{block}_conv{index}"][1])
    np.testing.assert_array_equal(model.get_layer("fc6").get_weights()[0], fc6)


def test_the_same_picture_gives_the_same_features_as_keras_own_networks(tmp_path):
    """Keras' VGG16 takes BGR less means, its MobileNets RGB in -1..1: ours take RGB in 0..255 whatever the backbone."""
    applications, random = keras.applications, np.random.default_rng(0)
    picture = random.uniform(0, 255, (1, 64, 96, 3)) * [
        1.0,
        0.5,
        0.1,
    ]  # channels that cannot be taken for each other
    cases = (
        ("vgg16", applications.VGG16, applications.vgg16, {}, "block4_conv3", "conv4_3"),
        (
            "mobilenet",
            applications.MobileNet,
            applications.mobilenet,
            {"alpha": 0.25},
            "conv_pw_5_relu",
            "conv_pw_5_relu",
        ),
        (
            "mobilenet_v2",
            applications.MobileNetV2,
            applications.mobilenet_v2,
            {"alpha": 0.35},
            *["block_6_expand_relu"] * 2,
        ),
    )
    for name, application, module, options, last, ours in cases:
        theirs = application(input_shape=(64, 96, 3), include_top=False, weights=None, **options)
        layers = {layer.name: layer.get_weights() for layer in theirs.layers}
        for arrays in layers.values():
            if len(arrays) == 4:  # batch norm
                arrays[2:] = [
                    random.normal(0, 0.1, arrays[2].shape),
                    random.uniform(0.5, 1.5, arrays[3].shape),
                ]
        path = write_h5(tmp_path / f"{name}.h5", layers)
        for layer in theirs.layers:
            layer.set_weights(layers[layer.name])
        config = (
            vgg_config(path)
            if name == "vgg16"
            else mobilenet_config(str(path), name=name, **options)
        )
        model = ssd.build_model(config, 2).model
        imagenet.load_backbone(model, config)
        expected = np.array(
            keras.Model(theirs.input, theirs.get_layer(last).output)(
                module.preprocess_input(picture.copy())
            )
        )
        found = np.array(keras.Model(model.input, model.get_layer(ours).output)(picture))
        np.testing.assert_allclose(
            found, expected, atol=1e-4 * np.abs(expected).max(), err_msg=name
        )
        assert np.abs(expected).std() > 1e-3, name


def test_fc6_takes_every_third_position_and_every_fourth_channel():
    # A kernel whose every number tells its own place; zeros that are never written cost no memory.
    kernel = np.zeros((7 * 7 * 512, 4096), "float32")
    kernel[:, 8] = np.arange(7 * 7 * 512)
    bias = np.arange(4096, dtype="float32")
    second = np.zeros((4096, 4096), "float32")
    second[4, 12] = 5.0
    second[5, 12] = 6.0
    ours = imagenet.vgg_for_ssd(
        {
            "fc1": [kernel, bias],
            "fc2": [second, bias],
            "predictions": [np.zeros((4096, 9)), np.zeros(9)],
        }
    )
    assert sorted(ours) == ["fc6", "fc7"]
    (wide, wide_bias), (narrow, narrow_bias) = ours["fc6"], ours["fc7"]
    assert wide.shape == (3, 3, 512, 1024)
    assert narrow.shape == (1, 1, 1024, 1024)
    # Row (y * 7 + x) * 512 + channel of the flattened 7 x 7 x 512 input; tap (1, 2) is the position (3, 6).
    assert wide[0, 0, 0, 2] == 0
    assert wide[1, 2, 5, 2] == (3 * 7 + 6) * 512 + 5
    assert wide[2, 2, 511, 2] == 7 * 7 * 512 - 1
    assert wide[1, 1, :, [0, 1, 3]].any() == False  # noqa: E712
    assert narrow[0, 0, 1, 3] == 5.0 and narrow.sum() == 5.0
    assert wide_bias[:3].tolist() == narrow_bias[:3].tolist() == [0, 4, 8]


def test_the_real_mobilenet_file_fits_every_layer(shared_data, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))
    config = mobilenet_config("imagenet")
    model = ssd.build_model(config, 2).model
    assert (
        imagenet.load_backbone(model, config) == 135
    )  # of the file's 137 arrays; the top's two are left
    arrays = imagenet.read_layers(shared_data / "weights" / "mobilenet_v1_0.25_224.h5")
    np.testing.assert_array_equal(
        model.get_layer("conv_pw_13").get_weights()[0], arrays["conv_pw_13"][0]
    )
    np.testing.assert_array_equal(
        model.get_layer("conv1_bn").get_weights()[2], arrays["conv1_bn"][2]
    )


def test_a_mobilenet_v2_file_is_found_by_its_name_and_fills_every_layer(tmp_path, monkeypatch):
    network = keras.applications.MobileNetV2(
        input_shape=(64, 96, 3), alpha=0.35, include_top=False, weights=None
    )
    random = np.random.default_rng(0)
    layers = {
        n.name: [random.normal(size=w.shape).astype("float32") for w in n.weights]
        for n in network.layers
    }
    write_h5(
        tmp_path / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5", layers
    )
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    config = mobilenet_config("imagenet", alpha=0.35, name="mobilenet_v2")
    model = ssd.build_model(config, 2).model
    assert imagenet.load_backbone(model, config) == len(network.weights)
    np.testing.assert_array_equal(
        model.get_layer("block_13_expand").get_weights()[0], layers["block_13_expand"][0]
    )
    np.testing.assert_array_equal(
        model.get_layer("Conv_1_bn").get_weights()[3], layers["Conv_1_bn"][3]
    )


def test_none_loads_nothing():
    config = mobilenet_config("none")
    model = ssd.build_model(config, 2).model
    before = model.get_weights()
    assert imagenet.load_backbone(model, config) == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.fixture(scope="module")
def small_model():
    return ssd.build_model(mobilenet_config("none"), 2).model


def test_bad_files_give_one_line(tmp_path, small_model):
    with pytest.raises(ConfigError, match=r"model.backbone.weights: no file at .*nowhere.h5"):
        imagenet.load_backbone(small_model, mobilenet_config(str(tmp_path / "nowhere.h5")))
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(ConfigError, match=r"text.h5 is not a Keras weights file in HDF5 format"):
        imagenet.load_backbone(small_model, mobilenet_config(str(text)))
    strange = write_h5(tmp_path / "strange.h5", {"another": [np.zeros(3)]})
    with pytest.raises(
        ConfigError, match=r"no layer of .*strange.h5 has a name that the model knows"
    ):
        imagenet.load_backbone(small_model, mobilenet_config(str(strange)))
    wider = write_h5(tmp_path / "wider.h5", {"conv1": [np.zeros((3, 3, 3, 16))]})
    with pytest.raises(
        ConfigError,
        match=r"layer conv1 of .*wider.h5 has shapes \[\(3, 3, 3, 16\)\], the model wants",
    ):
        imagenet.load_backbone(small_model, mobilenet_config(str(wider)))
    part = write_h5(tmp_path / "part.h5", {"conv1": [np.zeros((3, 3, 3, 8))]})
    with pytest.raises(
        ConfigError,
        match=r"part.h5 has nothing for layer conv1_bn of mobilenet: give the weights of this very",
    ):
        imagenet.load_backbone(small_model, mobilenet_config(str(part)))


def test_files_that_are_cut_off_or_something_else_give_one_line(tmp_path, small_model):
    whole = write_h5(
        tmp_path / "whole.h5",
        {"conv1": [np.zeros((3, 3, 3, 8))], "conv_pw_1": [np.ones((1, 1, 8, 16))]},
    )
    (tmp_path / "cut.h5").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04" + b"0" * 100)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["model_weights"] = np.zeros(3)
    for name in ("cut.h5", "weights.pth", "model.h5"):
        with pytest.raises(
            ConfigError, match=rf"{name} is not a Keras .* \(.*\); of torchvision's make an .npz"
        ) as error:
            imagenet.load_backbone(small_model, mobilenet_config(str(tmp_path / name)))
        assert "\n" not in str(error.value)


def test_imagenet_weights_of_an_alpha_that_nobody_trained(small_model):
    with pytest.raises(ConfigError, match=r"alpha 0.25, 0.5, 0.75 and 1.0, not for 0.3"):
        imagenet.load_backbone(small_model, mobilenet_config("imagenet", alpha=0.3))
    with pytest.raises(
        ConfigError,
        match=r"mobilenet_v2 exist for alpha 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, not for 0.3",
    ):
        imagenet.load_backbone(
            small_model, mobilenet_config("imagenet", alpha=0.3, name="mobilenet_v2")
        )
