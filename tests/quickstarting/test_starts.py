"""Where training may start from; nothing is downloaded."""

import pathlib

import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.quickstarting import starts
from ssd_tf.weights.importers import downloads

COCO = "person\nbicycle\ncar\ndog\ncat\nchair\nbottle\n"
ARCHIVE = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.tar.gz"
MODEL = b"\x1c\x00\x00\x00TFL3"


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    """An empty folder that SSD_TF_WEIGHTS names; the network cannot be reached."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(downloads, "is_reachable", lambda _: False)
    return folder


def write(folder, *names, labels=COCO):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MODEL)
        path.with_suffix(".txt").write_text(labels)


def found(requested=None):
    return [
        (start.base, start.source and pathlib.Path(start.source).name)
        for start in starts.find_starts(requested)
    ]


def test_without_anything_it_is_random_weights():
    assert found() == [("shapes_plain.yaml", None)]


def test_without_a_folder_of_weights(monkeypatch):
    monkeypatch.delenv("SSD_TF_WEIGHTS")
    assert found() == [("shapes_plain.yaml", None)]


def test_a_download_comes_first(weights, monkeypatch):
    monkeypatch.setattr(downloads, "is_reachable", lambda _: True)
    write(weights, "other.tflite")
    assert found() == [
        ("finetune.yaml", starts.BEST_NAME),
        ("finetune.yaml", "other.tflite"),
        ("shapes_plain.yaml", None),
    ]


def test_what_was_downloaded_needs_no_network(weights):
    (weights / ARCHIVE).touch()
    assert found()[0] == ("finetune.yaml", starts.BEST_NAME)


def test_a_file_of_the_best_detector_replaces_the_download(weights, monkeypatch):
    monkeypatch.setattr(downloads, "is_reachable", lambda _: pytest.fail("not needed"))
    write(weights, "a.tflite", "b_fpn.pb", "tf2/ssd_mobilenet_v2_fpn_lite_320.tflite")
    assert [source for _, source in found()] == [
        "ssd_mobilenet_v2_fpn_lite_320.tflite",
        "b_fpn.pb",
        "a.tflite",
        None,
    ]


def test_other_files_are_no_starts(weights):
    write(weights, "signs.tflite", labels="stop\ngo\n")
    write(weights, "a.h5", "deep/er/b.tflite")
    (weights / "unnamed.tflite").write_bytes(MODEL)
    (weights / "latin.tflite").write_bytes(MODEL)
    (weights / "latin.txt").write_bytes(b"\xff\xfe\xff")
    assert found() == [("shapes_plain.yaml", None)]


def test_labels_beside_a_file(tmp_path):
    model = tmp_path / "a.tflite"
    assert starts.find_labels(model) is None
    for name in ("label_map.pbtxt", "labels.txt", "a.json", "a.pbtxt", "a.txt"):
        (tmp_path / name).touch()
        assert starts.find_labels(model) == tmp_path / name


def test_imagenet_files_come_before_random_weights(weights):
    names = (
        weights / "mobilenet_v1_0.25_224.h5",
        weights / "mobilenet_v2-b0353104.pth",
        weights / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    )
    for path in names:
        path.touch()
    *imagenet, scratch = starts.find_starts(None)
    assert [start.values for start in imagenet] == [
        {
            "init_from": str(names[2]),
            "model.backbone.name": "mobilenet_v2",
            "model.backbone.padding": "same",
        },
        {
            "init_from": str(names[1]),
            "model.backbone.name": "mobilenet_v2",
            "model.backbone.padding": "torch",
        },
        {
            "init_from": str(names[0]),
            "model.backbone.name": "mobilenet",
            "model.backbone.padding": "keras",
            "model.backbone.alpha": 0.25,
        },
    ]
    assert {start.base for start in imagenet} == {"finetune_imagenet.yaml"}
    assert scratch.values == {}
    (requested,) = starts.find_starts("imagenet")
    assert requested.values == imagenet[0].values


def test_what_is_requested_is_the_only_start(weights):
    write(weights, "a.tflite")
    assert found("scratch") == [("shapes_plain.yaml", None)]
    assert found("imagenet") == [("finetune_imagenet.yaml", None)]
    assert found("torchvision:ssd300_vgg16") == [("finetune.yaml", "torchvision:ssd300_vgg16")]
    (start,) = starts.find_starts(str(weights / "a.tflite"))
    assert start.source == str(weights / "a.tflite")
    assert start.labels == str(weights / "a.txt")


def test_a_run_folder_needs_no_import(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    (start,) = starts.find_starts(str(run))
    assert (start.source, start.values) == (None, {"init_from": str(run)})


def test_the_results_of_a_quickstart_are_no_run_folder(tmp_path):
    run = tmp_path / "photos-ssd" / "run"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (run.parent / "config.yaml").touch()
    with pytest.raises(ConfigError, match=rf"got {run.parent}; .* {run}\?"):
        found(str(run.parent))
    assert found(str(run)) == [("finetune.yaml", None)]


@pytest.mark.parametrize("requested", ["tf2:unknown", "a.tflit", "text.pb"])
def test_an_unknown_request_is_an_error(requested, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.tflite")
    (tmp_path / "text.pb").touch()
    with pytest.raises(ConfigError, match=requested):
        found(requested)


def test_errors_about_a_requested_file_name_the_flag_that_gave_it(tmp_path):
    path = tmp_path / "model.zip"
    path.write_bytes(b"\x1f\x8b")
    for requested in (path, tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigError, match=f"^--start: .*{requested.name}") as error:
            next(starts.find_starts(str(requested)))
        assert "--source" not in str(error.value)
