"""Our models against torchvision's, with weights that NumPy draws by name, and its state dicts.

The golden numbers in tests/golden/torchvision were written by benchmarks/parity_torchvision.py with
torch 2.13 and torchvision 0.28; that script compares every number, these tests 300 of each array.
"""

import functools
import importlib.util
import pathlib
import zipfile

import backbone_files
import numpy as np
import pytest

from ssd_tf.config import check_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights.importers import torchvision

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


INTEGRATION = pytest.mark.integration


@pytest.mark.parametrize(
    "name",
    [pytest.param("ssd300_vgg16", marks=INTEGRATION), "ssdlite320_mobilenet_v3_large"],
)
def test_detectors_equal_torchvisions(parity, name):
    results = parity.compare_detector(name, np.load(GOLDEN / f"{name}.npz"))
    found = {result.quantity: result for result in results}
    assert set(found) == {
        "offsets",
        "logits",
        "default boxes",
        "losses",
        "detections 0",
        "detections 1",
        "parameters",
    }
    assert all(result.difference <= result.limit for result in found.values()), found


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("resnet34", marks=INTEGRATION),
        pytest.param("resnet50", marks=INTEGRATION),
    ],
)
def test_trunks_equal_torchvisions(parity, name):
    results = parity.compare_trunk(name, np.load(GOLDEN / f"{name}.npz"))
    found = {result.quantity: result.difference for result in results}
    assert set(found) == {"conv4_ssd", "conv3", "conv4", "conv5"}
    assert max(found.values()) <= 1e-4, found


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_large"])
def test_classifiers_equal_torchvisions(parity, name):
    results = parity.compare_mobilenet(name, np.load(GOLDEN / f"{name}.npz"))
    found = {result.quantity: result.difference for result in results}
    assert set(found) == {"conv4", "conv5"}
    assert max(found.values()) <= 1e-4, found


def test_mobilenet_v2_needs_pytorchs_padding(shared_data):
    path = shared_data / "weights" / "mobilenet_v2-b0353104.pth"
    config = small_config("mobilenet_v2", path)
    with pytest.raises(ConfigError, match=r"padding is torch .*, here keras.*padding=torch"):
        backbone_files.load(ssd.build_model(config, 2), config)


def test_the_real_classifier_fills_mobilenet_v2(shared_data):
    path = shared_data / "weights" / "mobilenet_v2-b0353104.pth"
    config = small_config("mobilenet_v2", path, padding="torch")
    network = ssd.build_model(config, 2)
    filled = backbone_files.load(network, config)
    # 52 convolutions, each with batch norm.
    assert len(filled) == 104
    kernel = network.model.get_layer("Conv1").get_weights()[0]
    assert kernel.shape == (3, 3, 3, 32)
    assert kernel.std() > 0.1


def test_golden_detections_are_worth_comparing():
    for name in ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large"):
        golden = np.load(GOLDEN / f"{name}.npz")
        assert len(golden["scores0"]) > 50
        assert len(golden["scores1"]) > 50
        assert golden["scores0"].max() > 1.5 * golden["scores0"].min()


def small_config(name="resnet18", weights=None, num_levels=2, neck="none", **backbone):
    model = {
        "input_hw": [64, 96],
        "num_levels": num_levels,
        "neck": neck,
        "backbone": {"name": name, **backbone},
    }
    boxes = {"levels": [{"size": 30}] * num_levels}
    init_from = None if weights is None else str(weights)
    return check_config({"init_from": init_from, "model": model, "boxes": boxes}, "test")


# For tests that load nothing.
build_once = functools.cache(ssd.build_model)


def load_state(network, config, state, path):
    """Start a network from a state dict, through the file of `path`."""
    np.savez(path, **state)
    return backbone_files.load(network, config.model_copy(update={"init_from": str(path)}))


def test_the_arrays_of_a_file_reach_the_model(parity, tmp_path):
    config = small_config()
    network = ssd.build_model(config, 2)
    model = network.model
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 3, 7, 7)).astype("float32")
    gamma = rng.normal(size=64).astype("float32")
    arrays = parity.seeded_state(model, config) | {
        "conv1.weight": kernel,
        "bn1.weight": gamma,
        "bn1.bias": np.full(64, 2, "float32"),
        "bn1.running_mean": np.full(64, 3, "float32"),
        "bn1.running_var": np.full(64, 4, "float32"),
        "fc.weight": np.zeros((1000, 512), "float32"),
    }
    # conv1 and bn1; three stages of two blocks of two convolutions with their norms; two
    # downsamplings with theirs.
    filled = load_state(network, config, arrays, tmp_path / "resnet18.npz")
    assert len(filled) == 2 + 3 * 2 * 2 * 2 + 2 * 2
    found = model.get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(found[1, 5, 2, 7], kernel[7, 2, 1, 5])
    norm = model.get_layer("bn1").get_weights()
    np.testing.assert_array_equal(norm[0], gamma)
    assert [array[0] for array in norm[1:]] == [2, 3, 4]


def zero_vgg_features():
    """The state of the convolutions of torchvision's classifier vgg16, all zeros."""
    state = {}
    previous = 3
    modules = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
    modules |= dict.fromkeys((17, 19, 21, 24, 26, 28), 512)
    for module, channels in modules.items():
        state[f"features.{module}.weight"] = np.zeros((channels, previous, 3, 3))
        state[f"features.{module}.bias"] = np.zeros(channels)
        previous = channels
    return state


def test_the_classifiers_fully_connected_layers_become_fc6_and_fc7():
    wide = np.zeros((4096, 512 * 49), "float32")
    wide[8] = np.arange(512 * 49)  # channels first: (channel * 7 + y) * 7 + x
    narrow = np.zeros((4096, 4096), "float32")
    narrow[12, 4] = 5.0
    state = zero_vgg_features() | {
        "classifier.0.weight": wide,
        "classifier.0.bias": np.arange(4096.0),
        "classifier.3.weight": narrow,
        "classifier.3.bias": np.arange(4096.0),
    }
    arrays = torchvision.convert(state, small_config("vgg16").model, "the state dict")
    assert len(arrays) == 2 + 13
    kernel, bias = arrays["fc6"]
    assert kernel.shape == (3, 3, 512, 1024)
    assert kernel[1, 2, 5, 2] == (5 * 7 + 3) * 7 + 6
    assert bias[:3].tolist() == [0, 4, 8]
    assert arrays["fc7"][0].shape == (1, 1, 1024, 1024)
    assert arrays["fc7"][0][0, 0, 1, 3] == 5.0


def test_class_heads_for_another_number_of_classes_are_not_filled(parity, tmp_path):
    config = small_config("vgg16")
    theirs = ssd.build_model(config, 5)
    state = parity.seeded_state(theirs.model, config)
    ours = ssd.build_model(config, 2)
    before = ours.model.get_layer("logits0_conv").get_weights()[0]
    filled = load_state(ours, config, state, tmp_path / "ssd300.npz")
    class_heads = {"logits0_conv", "logits1_conv"}
    assert load_state(theirs, config, state, tmp_path / "ssd300.npz") - filled == class_heads
    np.testing.assert_array_equal(ours.model.get_layer("logits0_conv").get_weights()[0], before)
    # Theirs: dx first; ours: ty first.
    module = state["head.regression_head.module_list.0.weight"]
    found = ours.model.get_layer("offsets0_conv").get_weights()[0]
    np.testing.assert_array_equal(found[1, 2, 7, 0], module[1, 7, 1, 2])


def test_weights_of_another_network_of_the_family_are_rejected(parity, tmp_path):
    smaller = small_config("resnet18", alpha=0.25)
    config = small_config("resnet34", alpha=0.25)
    path = tmp_path / "resnet.npz"
    state = parity.seeded_state(ssd.build_model(smaller, 2).model, smaller)
    network = ssd.build_model(config, 2)
    with pytest.raises(ConfigError, match=r"resnet.npz: layer layer1_2_conv1: "):
        load_state(network, config, state, path)
    # Extra layers, neck and heads need none, nor does conv5 where it is cut off.
    state_34 = parity.seeded_state(network.model, config)
    assert len(load_state(network, config, state_34, path)) > 50
    fpn = small_config("resnet18", num_levels=3, neck="fpn", alpha=0.25)
    with pytest.raises(ConfigError, match=r"resnet.npz: layer layer4_0_conv1: "):
        load_state(ssd.build_model(fpn, 2), fpn, state, path)


def test_the_weights_of_a_deeper_resnet_are_rejected(parity):
    """All layers of a resnet18 are among those of a resnet34."""
    deeper = small_config("resnet34", alpha=0.25)
    state = parity.seeded_state(ssd.build_model(deeper, 2).model, deeper)
    config = small_config("resnet18", alpha=0.25)
    with pytest.raises(ConfigError, match=r"has layer1.2.conv1, which resnet18 lacks"):
        torchvision.convert(state, config.model, "the state dict")


def test_files_that_are_truncated_or_something_else_are_rejected_in_one_line(parity, tmp_path):
    network = build_once(small_config(alpha=0.25), 2)
    state = parity.seeded_state(network.model, small_config(alpha=0.25))
    np.savez_compressed(tmp_path / "complete.npz", **state)
    content = (tmp_path / "complete.npz").read_bytes()
    (tmp_path / "truncated.npz").write_bytes(content[:20000])
    (tmp_path / "damaged.npz").write_bytes(content[:300] + bytes(4000) + content[4300:])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("not NumPy's")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    for name in ("truncated", "damaged", "empty", "text", "array"):
        message = rf"{name}.npz is not a complete .npz file of arrays \(.+\)"
        with pytest.raises(ConfigError, match=message) as error:
            config = small_config(weights=tmp_path / f"{name}.npz", alpha=0.25)
            backbone_files.load(network, config)
        assert "\n" not in str(error.value)


def test_a_pth_file_renamed_to_npz_is_rejected(tmp_path):
    config = small_config(weights=tmp_path / "pth.npz", alpha=0.25)
    with zipfile.ZipFile(tmp_path / "pth.npz", "w") as file:
        file.writestr("archive/data.pkl", b"something")
    with pytest.raises(ConfigError, match=r"pth.npz has no array of torchvision's resnet18"):
        backbone_files.load(build_once(small_config(alpha=0.25), 2), config)


def test_states_that_do_not_fit_are_rejected(parity, tmp_path):
    config = small_config()
    network = build_once(config, 2)
    path = tmp_path / "state.npz"
    with pytest.raises(ConfigError, match=r"state.npz has no array of torchvision's resnet18"):
        load_state(network, config, {"something.weight": np.zeros(3)}, path)
    message = r"state.npz: layer conv1: .* \[\(7, 7, 3, 64\)\], .* \[\(7, 7, 3, 32\)\]"
    with pytest.raises(ConfigError, match=message):
        load_state(network, config, {"conv1.weight": np.zeros((32, 3, 7, 7))}, path)
    state = parity.seeded_state(network.model, config)
    del state["bn1.running_mean"]
    del state["bn1.running_var"]
    with pytest.raises(ConfigError, match=r"state.npz: layer bn1: "):
        load_state(network, config, state, path)


def test_backbones_without_a_counterpart_are_rejected():
    with pytest.raises(ConfigError, match=r"torchvision has no counterpart of mobilenet"):
        torchvision.convert({}, small_config("mobilenet").model, "the state dict")
