"""Which file of ImageNet weights a backbone takes, where it is looked for, and its hash."""

import hashlib
import socket

import pytest

from ssd_tf.config import Backbone
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import downloads, imagenet


def test_the_files_of_the_backbones():
    expected = {
        "vgg16": "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "mobilenet": "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        "mobilenet_v2": (
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
        ),
    }
    for name, path in expected.items():
        url = f"https://storage.googleapis.com/tensorflow/keras-applications/{path}"
        assert imagenet.choose_file(Backbone(name=name)).url == url
    resnet = imagenet.choose_file(Backbone(name="resnet50"))
    assert resnet.url == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert (resnet.algorithm, resnet.digest) == ("SHA-256", "11ad3fa6")
    torch = imagenet.choose_file(Backbone(name="mobilenet_v2", padding="torch"))
    assert torch.names == ("mobilenet_v2-b0353104.pth",)
    v3 = imagenet.choose_file(Backbone(name="mobilenet_v3_large", reduced_tail=False))
    assert v3.names == ("mobilenet_v3_large-8738ca79.pth",)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "plain"}, "plain has no ImageNet weights"),
        ({"name": "mobilenet", "alpha": 0.3}, "of mobilenet exist for alpha 0.25, 0.5, 0.75, 1.0"),
        (
            {"name": "mobilenet_v2", "alpha": 0.3},
            "of mobilenet_v2 exist for alpha 0.35, 0.5, 0.75, 1.0, 1.3, 1.4, got 0.3",
        ),
        (
            {"name": "mobilenet_v2", "alpha": 0.5, "padding": "torch"},
            "of mobilenet_v2 exist for alpha 1.0, got 0.5",
        ),
        ({"name": "mobilenet_v3_large"}, "set model.backbone.reduced_tail=false"),
    ],
)
def test_backbones_without_weights_are_rejected(backbone, message):
    with pytest.raises(ConfigError, match=message):
        imagenet.choose_file(Backbone(**backbone))


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to use the network fails the test."""

    def refuse(*_args, **_kwargs):
        pytest.fail("tried to use the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_a_file_in_the_folder_is_taken_without_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    path = tmp_path / "mobilenet_v1_0.25_224.h5"
    path.write_bytes(b"no hash is published")
    assert imagenet.find_file(Backbone(name="mobilenet", alpha=0.25)) == path


@pytest.mark.usefixtures("no_network")
def test_the_hash_of_a_file_is_checked(tmp_path, monkeypatch):
    # printf abc | sha256sum: ba7816bf...; printf abc | md5sum: 900150983cd24fb0d6963f7d28e17f72
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(imagenet._TORCH_FILES, "resnet18", "resnet18-ba7816bf.pth")
    path = tmp_path / "resnet18-ba7816bf.pth"
    path.write_bytes(b"abc")
    assert imagenet.find_file(Backbone(name="resnet18")) == path
    path.write_bytes(b"ab")
    found = hashlib.sha256(b"ab").hexdigest()[:8]
    message = (
        rf"{path.name} has the SHA-256 {found}, expected ba7816bf: it is incomplete or another "
        r"file; delete it and get it from https://download.pytorch.org/models/resnet18-ba7816bf.pth"
    )
    with pytest.raises(ConfigError, match=message):
        imagenet.find_file(Backbone(name="resnet18"))
    vgg = tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    vgg.write_bytes(b"abc")
    message = "has the MD5 900150983cd24fb0d6963f7d28e17f72, expected 64373286793e3c8b2b4e3219cbf35"
    with pytest.raises(ConfigError, match=message):
        imagenet.find_file(Backbone(name="vgg16"))


def test_a_file_is_downloaded_with_its_hash(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(downloads, "download", lambda *call: calls.append(call))
    for name in ("resnet34", "vgg16"):
        imagenet.find_file(Backbone(name=name))
    vgg = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    keras_url = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{vgg}"
    torch_url = "https://download.pytorch.org/models/resnet34-b627a593.pth"
    assert calls == [
        (torch_url, tmp_path / "resnet34-b627a593.pth", "b627a593", "SHA-256"),
        (keras_url, tmp_path / vgg, "64373286793e3c8b2b4e3219cbf3544b", "MD5"),
    ]


@pytest.mark.parametrize(
    ("backbone", "address", "hash_text"),
    [
        ({"name": "mobilenet", "alpha": 0.25}, "mobilenet_2_5_224_tf_no_top.h5", "no hash"),
        ({"name": "resnet18"}, "models/resnet18-f37072fd.pth", "SHA-256 f37072fd"),
    ],
)
def test_a_failed_download_says_what_to_put_where(
    tmp_path, monkeypatch, backbone, address, hash_text
):
    def fail(*_args, **_kwargs):
        raise OSError("no network\nhere")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSD_TF_WEIGHTS", raising=False)
    folder = tmp_path / ".cache" / "ssd-tf"
    message = rf"https://.*{address} \({hash_text}.*\): no network here; .* {folder}$"
    with pytest.raises(ConfigError, match=message) as error:
        imagenet.find_file(Backbone(**backbone))
    assert "\n" not in str(error.value)


def test_the_real_file_of_torchvision_has_its_hash(shared_data, monkeypatch):
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(shared_data / "weights"))
    path = imagenet.find_file(Backbone(name="mobilenet_v2", padding="torch"))
    assert path.name == "mobilenet_v2-b0353104.pth"
