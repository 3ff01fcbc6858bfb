"""`ssd import`: run folders of third-party detectors."""

import json
import socket
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssd_tf.commands import import_weights
from ssd_tf.config import check_config, load_config
from ssd_tf.inference.loading import load_detector
from ssd_tf.models import ssd
from ssd_tf.weights import runs
from ssd_tf.weights.importers import array_files, detectors, torchvision

CLASSES = 3


def state_dict(values, num_classes):
    """A random state dict with the names of torchvision's detector, from our network's shapes."""
    config = check_config(values, "test")
    model = ssd.build_model(config, num_classes).model
    state = {"backbone.scale_weight": np.ones(512, "float32")} if "vgg" in str(values) else {}
    rng = np.random.default_rng(0)
    for layer, module in torchvision.module_names(config.model, state).items():
        weights = model.get_layer(layer).weights
        shapes = [tuple(weight.shape) for weight in weights]
        if layer == "conv4_3_norm":
            state[module] = rng.uniform(0.5, 1, shapes[0]).astype("float32")
        elif layer.endswith("_bn"):
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"{module}.{part}"] = rng.uniform(0.5, 1, shapes[0]).astype("float32")
        else:
            height, width, channels, filters = shapes[0]
            is_depthwise = type(model.get_layer(layer)).__name__ == "DepthwiseConv2D"
            shape = (channels, 1) if is_depthwise else (filters, channels)
            kernel = rng.uniform(-0.1, 0.1, (*shape, height, width))
            state[f"{module}.weight"] = kernel.astype("float32")
            if len(shapes) == 2:
                state[f"{module}.bias"] = rng.uniform(-1, 1, shapes[1]).astype("float32")
    return state


@pytest.fixture(scope="module")
def ssdlite_file(tmp_path_factory):
    values = {
        "model": {
            "input_hw": [320, 320],
            "backbone": {"name": "mobilenet_v3_large"},
            "head": "separable",
        },
        "boxes": {"preset": "torchvision_ssdlite"},
    }
    path = tmp_path_factory.mktemp("files") / "ssdlite.safetensors"
    save_file(state_dict(values, CLASSES), path)
    return path


def run(source, output, *flags):
    argv = ["import_weights", "--source", str(source), "--output", str(output), *flags]
    return import_weights.main(argv)


@pytest.fixture(scope="module")
def imported(ssdlite_file, tmp_path_factory):
    """The run folder of the file, without labels."""
    folder = tmp_path_factory.mktemp("imported") / "run"
    assert run(ssdlite_file, folder) == 0
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Whatever tries the network fails."""

    def refuse(*_arguments, **_options):
        raise AssertionError("something tried the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
def test_a_run_folder_that_detects(ssdlite_file, tmp_path, caplog):
    labels = tmp_path / "labels.txt"
    labels.write_text("background\ncat\n???\ndog\n")
    # An empty folder is the output, and the one beside it belongs to the user.
    (tmp_path / "run").mkdir()
    (tmp_path / "run.tmp").mkdir()
    (tmp_path / "run.tmp" / "mine.txt").write_text("mine")
    assert run(ssdlite_file, tmp_path / "run", "--labels", str(labels)) == 0
    assert (tmp_path / "run.tmp" / "mine.txt").read_text() == "mine"
    kind = "ssdlite320_mobilenet_v3_large of torchvision"
    assert f"{kind}; number of classes: 2 (1 without a name left out)" in caplog.text
    config = load_config(tmp_path / "run" / "config.yaml")
    assert config.imported_from.startswith(
        "ssdlite.safetensors (ssdlite320_mobilenet_v3_large of torchvision, SHA-256 "
    )
    assert (config.eval.nms_iou, config.eval.clip_first) == (0.55, True)
    content = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert content["classes"] == [{"name": "cat", "id": 1}, {"name": "dog", "id": 3}]
    detector = load_detector(tmp_path / "run")
    assert detector.classes == ["cat", "dog"]
    found = detector(np.zeros((40, 60, 3), np.uint8))
    assert found.boxes.shape == (len(found), 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt", "run", "run.tmp"]


@pytest.mark.integration
def test_rows_of_unused_classes_are_left_out(ssdlite_file, imported, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\n???\ndog\n")
    flags = ("--labels", str(labels), "--input_range=0,1")
    assert run(ssdlite_file, tmp_path / "run", *flags) == 0
    backbone = load_config(tmp_path / "run" / "config.yaml").model.backbone
    assert (backbone.mean_rgb, backbone.std_rgb) == ((0.0,) * 3, (255.0,) * 3)
    some = read_class_head(tmp_path / "run")
    theirs = array_files.read_safetensors(ssdlite_file)
    bias = theirs["head.classification_head.module_list.3.1.bias"]
    np.testing.assert_array_equal(some[1], bias.reshape(6, 4)[:, [0, 1, 3]].ravel())
    whole = read_class_head(imported)
    # 6 boxes per cell with the rows background, cat, ???, dog.
    np.testing.assert_array_equal(some[1].reshape(6, 3), whole[1].reshape(6, 4)[:, [0, 1, 3]])
    channels = whole[0].shape[2]
    np.testing.assert_array_equal(
        some[0].reshape(channels, 6, 3), whole[0].reshape(channels, 6, 4)[..., [0, 1, 3]]
    )


def read_class_head(run):
    """Kernel and bias of the class head of the fourth map."""
    arrays = runs.read_weights(runs.find_checkpoint(run))
    return [arrays[f"logits3_conv/{name}"] for name in ("kernel", "bias")]


@pytest.mark.integration
def test_without_labels_the_ids_are_the_names(imported):
    assert load_detector(imported).classes == ["1", "2", "3"]


@pytest.fixture
def written(monkeypatch):
    """(config, classes) of each import, which builds no network and writes no files."""
    made = []
    network = types.SimpleNamespace(model=None)
    monkeypatch.setattr(detectors.imported, "build_network", lambda *_: network)
    monkeypatch.setattr(detectors.imported, "check_overrides", lambda *_: None)
    monkeypatch.setattr(
        detectors.runs,
        "write_run",
        lambda config, _model, classes, _output: made.append((config, classes)),
    )
    return made


@pytest.mark.parametrize(
    ("flags", "mean", "std", "text"),
    [
        (["--input_range=0,1"], 0, 255, "pixels become 0 to 1: --input_range"),
        (["--input_range=-1,1"], 127.5, 127.5, "pixels become -1 to 1: --input_range"),
        ([], 127.5, 127.5, "ids, 1 to 3"),
    ],
)
def test_another_input_range(ssdlite_file, written, tmp_path, caplog, flags, mean, std, text):
    assert run(ssdlite_file, tmp_path / "run", *flags) == 0
    ((config, classes),) = written
    assert ssd.normalization(config.model.backbone) == ((mean,) * 3, (std,) * 3)
    assert [entry["name"] for entry in classes] == ["1", "2", "3"]
    assert text in caplog.text


def test_the_list_of_names(capsys):
    assert import_weights.main(["import_weights", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("torchvision:ssd300_vgg16 ")]
    assert row.split()[1:] == ["0.251", "136", "BSD-3-Clause"]
    assert len(lines) == 8


@pytest.mark.integration
def test_post_processing_is_ours_unless_it_is_kept(tmp_path, written, shared_data):
    source = shared_data / "weights" / "tf2" / "ssd_mobilenet_v2_fpnlite_320_coco_dynamic.tflite"
    run(source, tmp_path / "ours")
    run(source, tmp_path / "theirs", "--keep_settings")
    assert [config.eval.max_detections for config, _ in written] == [100, 10]
    assert [config.eval.class_agnostic for config, _ in written] == [False, True]


def error_of(capsys, code, *arguments):
    assert run(*arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "--labels: no file at"),
        ("cat\ndog\n", "has 2 names, "),
        ("cat\ndog\ncat\n", "the class name 'cat' is there more than once"),
    ],
)
def test_labels_that_do_not_fit(ssdlite_file, tmp_path, capsys, labels, message):
    path = tmp_path / "labels.txt"
    if labels is not None:
        path.write_text(labels)
    error = error_of(capsys, 2, ssdlite_file, tmp_path / "run", "--labels", str(path))
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_file_without_a_layer_leaves_no_run(ssdlite_file, tmp_path, capsys):
    arrays = array_files.read_safetensors(ssdlite_file)
    name = next(name for name in arrays if "extra.2" in name)
    module = name.rpartition(".")[0]
    save_file(
        {key: value for key, value in arrays.items() if not key.startswith(module)},
        tmp_path / "part.safetensors",
    )
    error = error_of(capsys, 2, tmp_path / "part.safetensors", tmp_path / "run")
    assert "part.safetensors" in error and "extra3_" in error
    assert [path.name for path in tmp_path.iterdir()] == ["part.safetensors"]


def test_a_folder_that_is_in_use_is_kept(ssdlite_file, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert "exists already" in error_of(capsys, 2, ssdlite_file, tmp_path / "run")
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


@pytest.mark.integration
def test_what_the_file_states_cannot_be_replaced(ssdlite_file, tmp_path, capsys):
    flags = ("--set", "model.backbone.mean_rgb=[0,0,0]")
    error = error_of(capsys, 2, ssdlite_file, tmp_path / "run", *flags)
    assert "mean_rgb is [127.5,127.5,127.5] in" in error and "here [0.0,0.0,0.0]" in error
    shapes = [[10, 10]] * 6
    flags = ("--set", f"boxes.levels={json.dumps([{'shapes': shapes}] * 6)}")
    error = error_of(capsys, 2, ssdlite_file, tmp_path / "run", *flags)
    assert "states other default boxes for level 0" in error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def without_tensorflow(monkeypatch):
    """A command that imports TensorFlow fails."""

    def fail():
        raise AssertionError("TensorFlow is imported before the flags are checked")

    monkeypatch.setattr("ssd_tf.commandline.import_tensorflow", fail)


@pytest.mark.usefixtures("without_tensorflow")
@pytest.mark.parametrize(
    ("flag", "wrong", "code", "words"),
    [
        ("source", "file.pc", 2, "did you mean"),
        ("source", "folder", 2, "SavedModel"),
        ("labels", "label.txt", 2, "did you mean"),
        ("output", "file.pb", 1, "is a file"),
        ("output", "file.pb/run", 1, "is a file"),
        ("output", "folder", 2, "exists already"),
    ],
)
def test_wrong_paths_are_found_at_once(tmp_path, capsys, flag, wrong, code, words):
    (tmp_path / "file.pb").write_bytes(b"\x0a\x05graph")
    (tmp_path / "labels.txt").write_text("cat")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    flags = {"source": "file.pb", "labels": "labels.txt", "output": "run"} | {flag: wrong}
    paths = {name: str(tmp_path / value) for name, value in flags.items()}
    error = error_of(capsys, code, paths["source"], paths["output"], "--labels", paths["labels"])
    assert words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pb", "folder", "labels.txt"]


@pytest.mark.usefixtures("without_tensorflow")
def test_other_commands_find_wrong_paths_at_once(tmp_path, tiny_config_file, capsys):
    from ssd_tf.commands import detect, evaluate, export, train

    (tmp_path / "mine").mkdir()
    image = tmp_path / "a.png"
    image.write_bytes(b"")
    wrong = str(tmp_path / "min")
    for command, flags in (
        (train, ["--config", str(tiny_config_file), "--data", wrong, "--workdir", "w"]),
        (detect, ["--model", wrong, "--output", str(tmp_path / "out"), str(image)]),
        (evaluate, ["--model", wrong, "--data", str(tmp_path), "--output", str(tmp_path / "o")]),
        (export, ["--workdir", wrong, "--output", str(tmp_path / "out")]),
    ):
        assert command.main([command.__name__, *flags]) == 1
        error = capsys.readouterr().err
        assert f"{wrong}" in error and f"did you mean {tmp_path / 'mine'}?" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "mine"]


def test_a_write_that_fails_leaves_no_run(ssdlite_file, tmp_path, capsys, monkeypatch):
    def fail(_model, _prefix):
        raise OSError("disk full")

    monkeypatch.setattr(runs, "write_weights", fail)
    assert "disk full" in error_of(capsys, 1, ssdlite_file, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features.0.weight": np.zeros(3, "float32")}, "begins with features.0.weight; "),
        (
            {
                "head.classification_head.module_list.0.1.weight": np.zeros((7, 8, 1, 1)),
                "head.classification_head.module_list.0.1.bias": np.zeros(7),
                "head.regression_head.module_list.0.1.weight": np.zeros((24, 8, 1, 1)),
                "head.regression_head.module_list.0.1.bias": np.zeros(24),
            },
            "24 offsets and 7 logits",
        ),
    ],
)
def test_state_dicts_of_other_networks(tmp_path, capsys, content, message):
    save_file(content, tmp_path / "file.safetensors")
    assert message in error_of(capsys, 2, tmp_path / "file.safetensors", tmp_path / "run")


@pytest.mark.integration
def test_training_into_an_imported_run_is_rejected(imported, tiny_data, capsys):
    from ssd_tf.commands import train

    argv = ["train", "--config", str(imported / "config.yaml"), "--data", str(tiny_data)]
    assert train.main([*argv, "--workdir", str(imported)]) == 2
    error = capsys.readouterr().err
    assert "holds a detector imported from ssdlite.safetensors" in error
    assert "init_from=" in error
