"""Our models against torchvision's, from weights that NumPy draws by name, and the import of torchvision's arrays.

The golden numbers under tests/golden/torchvision were written by benchmarks/parity_torchvision.py with torch 2.13 and torchvision
0.28; that script compares every number, these tests 300 of each array.
"""

import importlib.util
import pathlib
import zipfile

import numpy as np
import pytest

from ssd_tf.config import ConfigError, check_config
from ssd_tf.models import ssd
from ssd_tf.weights import imagenet, torchvision

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "torchvision"


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location(
        "parity_torchvision", ROOT / "benchmarks" / "parity_torchvision.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_detectors_equal_torchvisions(parity, name):
    found = {
        quantity: (value, limit)
        for quantity, value, limit in parity.compare_detector(name, np.load(GOLDEN / f"{name}.npz"))
    }
    assert {
        "offsets",
        "logits",
        "default boxes",
        "losses",
        "detections 0",
        "detections 1",
        "parameters",
    } == set(found)
    assert all(value <= limit for value, limit in found.values()), found


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_trunks_equal_torchvisions(parity, name):
    found = {
        quantity: value
        for quantity, value, _ in parity.compare_trunk(name, np.load(GOLDEN / f"{name}.npz"))
    }
    assert {"conv4_ssd", "conv3", "conv4", "conv5"} == set(found)
    assert max(found.values()) <= 1e-4, found


def test_golden_detections_are_worth_comparing():
    for name in ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large"):
        golden = np.load(GOLDEN / f"{name}.npz")
        assert [len(golden[f"scores{index}"]) for index in (0, 1)] > [50, 50]
        assert golden["scores0"].max() > 1.5 * golden["scores0"].min()


def small_config(name="resnet18", levels=2, neck="none", **backbone):
    model = {
        "input_hw": [64, 96],
        "levels": levels,
        "neck": neck,
        "backbone": {"name": name, **backbone},
    }
    return check_config({"model": model, "boxes": {"levels": [{"size": 30}] * levels}}, "test")


def test_arrays_of_a_file_reach_the_model(parity, tmp_path):
    config = small_config(weights=str(tmp_path / "resnet18.npz"))
    model = ssd.build_model(config, 2).model
    random = np.random.default_rng(0)
    kernel, gamma = (
        random.normal(size=(64, 3, 7, 7)).astype("float32"),
        random.normal(size=64).astype("float32"),
    )
    arrays = {
        "conv1.weight": kernel,
        "bn1.weight": gamma,
        "fc.weight": np.zeros((1000, 512), "float32"),
    }
    arrays |= {
        f"bn1.{part}": np.full(64, value, "float32")
        for part, value in (("bias", 2), ("running_mean", 3), ("running_var", 4))
    }
    rest = parity.seeded_state(model, config)
    np.savez(config.model.backbone.weights, **{**rest, **arrays})
    # conv1 and bn1; three stages of two blocks of two convolutions with their norms; two downsamplings with theirs.
    assert imagenet.load_backbone(model, config) == 2 + 3 * 2 * 2 * 2 + 2 * 2
    np.testing.assert_array_equal(
        model.get_layer("conv1").get_weights()[0][1, 5, 2, 7], kernel[7, 2, 1, 5]
    )
    np.testing.assert_array_equal(model.get_layer("bn1").get_weights()[0], gamma)
    assert [array[0] for array in model.get_layer("bn1").get_weights()[1:]] == [2, 3, 4]


def test_the_classifiers_fully_connected_layers_become_fc6_and_fc7():
    wide = np.zeros((4096, 512 * 49), "float32")
    wide[8] = np.arange(512 * 49)  # channels first: (channel * 7 + y) * 7 + x
    narrow = np.zeros((4096, 4096), "float32")
    narrow[12, 4] = 5.0
    state = {
        "classifier.0.weight": wide,
        "classifier.0.bias": np.arange(4096.0),
        "classifier.3.weight": narrow,
    }
    state |= {"classifier.3.bias": np.arange(4096.0)}
    config = small_config("vgg16")
    model = ssd.build_model(config, 2).model
    for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        channels = {
            0: (64, 3),
            2: (64, 64),
            5: (128, 64),
            7: (128, 128),
            10: (256, 128),
            12: (256, 256),
            14: (256, 256),
        }
        out, into = channels.get(number, (512, 256 if number == 17 else 512))
        state |= {
            f"features.{number}.weight": np.zeros((out, into, 3, 3)),
            f"features.{number}.bias": np.zeros(out),
        }
    assert torchvision.load(model, config, state) == 2 + 13
    kernel, bias = model.get_layer("fc6").get_weights()
    assert kernel[1, 2, 5, 2] == (5 * 7 + 3) * 7 + 6
    assert bias[:3].tolist() == [0, 4, 8]
    assert model.get_layer("fc7").get_weights()[0][0, 0, 1, 3] == 5.0


def test_heads_of_another_number_of_classes_are_left_alone(parity):
    config = small_config("vgg16")
    theirs = ssd.build_model(config, 5).model
    state = parity.seeded_state(theirs, config)
    ours = ssd.build_model(config, 2).model
    before = ours.get_layer("logits0_conv").get_weights()[0]
    filled = torchvision.load(ours, config, state)
    assert filled == torchvision.load(theirs, config, state) - 2
    np.testing.assert_array_equal(ours.get_layer("logits0_conv").get_weights()[0], before)
    # Theirs: dx first; ours: ty first.
    module = state["head.regression_head.module_list.0.weight"]
    np.testing.assert_array_equal(
        ours.get_layer("offsets0_conv").get_weights()[0][1, 2, 7, 0], module[1, 7, 1, 2]
    )


def test_a_file_of_another_network_of_the_family_is_refused(parity):
    smaller, config = small_config("resnet18"), small_config("resnet34")
    state = parity.seeded_state(ssd.build_model(smaller, 2).model, smaller)
    model = ssd.build_model(config, 2).model
    with pytest.raises(
        ConfigError,
        match=r"the state dict has nothing for layer layer1_2_conv1 of resnet34: give the weights",
    ):
        torchvision.load(model, config, state)
    # Extra layers, neck and heads need nothing; nor is conv5 wanted where it is cut off.
    assert torchvision.load(model, config, parity.seeded_state(model, config)) > 50
    fpn = small_config("resnet18", levels=3, neck="fpn")
    with pytest.raises(ConfigError, match=r"nothing for layer layer4_0_conv1 of resnet18"):
        torchvision.load(ssd.build_model(fpn, 2).model, fpn, state)


def test_files_that_are_cut_off_or_something_else_give_one_line(parity, tmp_path):
    config = small_config()
    model = ssd.build_model(config, 2).model
    state = parity.seeded_state(model, config)
    np.savez_compressed(tmp_path / "whole.npz", **state)
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:20000])
    (tmp_path / "damaged.npz").write_bytes(content[:300] + bytes(4000) + content[4300:])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("cut", "damaged", "empty", "array"):
        with pytest.raises(
            ConfigError, match=rf"{name}.npz is not a whole .npz file of arrays \(.+\)"
        ) as error:
            imagenet.load_backbone(model, small_config(weights=str(tmp_path / f"{name}.npz")))
        assert "\n" not in str(error.value)
    with zipfile.ZipFile(tmp_path / "pth.npz", "w") as file:
        file.writestr("archive/data.pkl", b"something")
    with pytest.raises(
        ConfigError, match=r"no array of .*pth.npz has a name that resnet18 has in torchvision"
    ):
        imagenet.load_backbone(model, small_config(weights=str(tmp_path / "pth.npz")))
    del state["bn1.running_mean"], state["bn1.running_var"]
    with pytest.raises(
        ConfigError, match=r"the state dict lacks bn1.running_mean, bn1.running_var"
    ):
        torchvision.load(model, config, state)


def test_what_does_not_fit_gives_one_line(tmp_path):
    config = small_config()
    model = ssd.build_model(config, 2).model
    with pytest.raises(
        ConfigError, match=r"no array of the state dict has a name that resnet18 has in torchvision"
    ):
        torchvision.load(model, config, {"something.weight": np.zeros(3)})
    with pytest.raises(
        ConfigError,
        match=r"conv1 of .* gives conv1 shapes \[\(7, 7, 3, 32\)\], the model wants \[\(7, 7, 3, 64\)\]",
    ):
        torchvision.load(model, config, {"conv1.weight": np.zeros((32, 3, 7, 7))})
    (tmp_path / "text.npz").write_text("not NumPy's")
    with pytest.raises(ConfigError, match=r"text.npz is not a whole .npz file of arrays"):
        torchvision.read_arrays(tmp_path / "text.npz")
    other = small_config("mobilenet")
    with pytest.raises(ConfigError, match=r"mobilenet has no partner in torchvision"):
        torchvision.load(ssd.build_model(other, 2).model, other, {})
    with pytest.raises(
        ConfigError, match=r"Keras has no resnet18 in this layout; give the path of an .npz"
    ):
        imagenet.load_backbone(model, small_config(weights="imagenet"))
