"""ImageNet weights: the file of Keras or torchvision for a backbone, found or downloaded."""

import pathlib
import typing

from ssd_tf.config import Backbone
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import downloads

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_TORCH = "https://download.pytorch.org/models"
# torchvision's names end in the beginning of the SHA-256. Where there are two versions, those of
# ResNets are the second, with which NVIDIA trained its SSD; those of MobileNets the first.
_TORCH_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-11ad3fa6.pth",
    "resnet101": "resnet101-cd907fc2.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
}
_MOBILENET_ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}  # as file names spell them
_MOBILENET_V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


class ImageNetFile(typing.NamedTuple):
    """A file of weights at `url`, and the names to look for: its own comes first."""

    url: str
    names: tuple[str, ...]
    digest: str = ""  # of the first name, hexadecimal, or its beginning; empty: none is published
    algorithm: str = "SHA-256"


def find_file(backbone: Backbone) -> pathlib.Path:
    """The ImageNet weights of a backbone.

    Looks in `downloads.weights_folder`, then downloads. Raises ConfigError if there are none, the
    download fails, or the file has another hash than the one published.
    """
    file = choose_file(backbone)
    first, *others = [downloads.weights_folder() / name for name in file.names]
    for path in others:
        if path.is_file() and not first.is_file():
            return path
    return downloads.fetch(file.url, file.digest, file.algorithm)


def choose_file(backbone: Backbone) -> ImageNetFile:
    """The file of a backbone. Raises ConfigError if it has no ImageNet weights."""
    if backbone.name == "vgg16":
        stem = "vgg16_weights_tf_dim_ordering_tf_kernels"
        names: tuple[str, ...] = (f"{stem}.h5", f"{stem}_notop.h5")
        md5 = "64373286793e3c8b2b4e3219cbf3544b"
        return ImageNetFile(f"{_KERAS}/vgg16/{names[0]}", names, md5, "MD5")
    if backbone.name == "mobilenet":
        _check_alpha(backbone, _MOBILENET_ALPHAS)
        stem = f"mobilenet_{_MOBILENET_ALPHAS[backbone.alpha]}_224_tf"
        other = f"mobilenet_v1_{backbone.alpha}_224.h5"
        names = (f"{stem}_no_top.h5", f"{stem}.h5", other)
        return ImageNetFile(f"{_KERAS}/mobilenet/{names[0]}", names)
    if backbone.name == "mobilenet_v2" and backbone.padding != "torch":
        _check_alpha(backbone, _MOBILENET_V2_ALPHAS)
        stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{backbone.alpha}_224"
        names = (f"{stem}_no_top.h5", f"{stem}.h5")
        return ImageNetFile(f"{_KERAS}/mobilenet_v2/{names[0]}", names)
    return _torch_file(backbone)


def _torch_file(backbone):
    if backbone.name not in _TORCH_FILES:
        raise ConfigError(f"{backbone.name} has no ImageNet weights")
    if backbone.name == "mobilenet_v3_large" and backbone.reduced_tail:
        raise ConfigError(
            "mobilenet_v3_large has ImageNet weights only without its reduced tail: set "
            "model.backbone.reduced_tail=false"
        )
    if backbone.name.startswith("mobilenet"):
        _check_alpha(backbone, (1.0,))
    name = _TORCH_FILES[backbone.name]
    digest = name.removesuffix(".pth").rpartition("-")[2]
    return ImageNetFile(f"{_TORCH}/{name}", (name,), digest)


def _check_alpha(backbone, known):
    if backbone.alpha not in known:
        raise ConfigError(
            f"ImageNet weights of {backbone.name} exist for alpha "
            f"{', '.join(map(str, known))}, got {backbone.alpha}"
        )
