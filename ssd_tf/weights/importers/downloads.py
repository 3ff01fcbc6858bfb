"""Published detectors by name, and downloads of weights, which resume.

Files are kept in the folder that the environment variable SSD_TF_WEIGHTS names, else in
~/.cache/ssd-tf.
"""

import hashlib
import http.client
import os
import pathlib
import typing
import urllib.error
import urllib.request

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from ssd_tf import files
from ssd_tf.errors import ConfigError, shorten

_ZOO = "http://download.tensorflow.org/models/object_detection/tf2/20200711"
_TORCH = "https://download.pytorch.org/models"
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_PROBE_TIMEOUT = 5
_ATTEMPTS = 3


class Published(typing.NamedTuple):
    """A published detector. ap: COCO val2017 by its publisher; megabytes: of the download, about.

    digest: the beginning of the SHA-256, if the publisher gives one.
    """

    url: str
    ap: float
    megabytes: int
    licence: str
    digest: str = ""


def _zoo(stem, ap, megabytes):
    return Published(f"{_ZOO}/{stem}_coco17_tpu-8.tar.gz", ap, megabytes, "Apache-2.0")


# AP and licence: tf2_detection_zoo.md in research/object_detection/g3doc of tensorflow/models;
# pytorch.org/vision, models, object detection, which also has the sizes. The zoo publishes none:
# they are 7.5 bytes per weight, as a checkpoint and a SavedModel of float32 are packed to.
DETECTORS = {
    "tf2:ssd_mobilenet_v2_fpnlite_320x320": _zoo("ssd_mobilenet_v2_fpnlite_320x320", 22.2, 20),
    "tf2:ssd_mobilenet_v2_fpnlite_640x640": _zoo("ssd_mobilenet_v2_fpnlite_640x640", 28.2, 20),
    "tf2:ssd_mobilenet_v2_320x320": _zoo("ssd_mobilenet_v2_320x320", 20.2, 46),
    "tf2:ssd_mobilenet_v1_fpn_640x640": _zoo("ssd_mobilenet_v1_fpn_640x640", 29.1, 91),
    "tf2:ssd_resnet50_v1_fpn_640x640": _zoo("ssd_resnet50_v1_fpn_640x640", 34.3, 247),
    "torchvision:ssdlite320_mobilenet_v3_large": Published(
        f"{_TORCH}/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        21.3,
        13,
        "BSD-3-Clause",
        "a79551df",
    ),
    "torchvision:ssd300_vgg16": Published(
        f"{_TORCH}/ssd300_vgg16_coco-b556d3b4.pth", 25.1, 136, "BSD-3-Clause", "b556d3b4"
    ),
}


def is_published(path) -> bool:
    """Whether a path has the name of a download in DETECTORS, or of the folder in it."""
    names = [entry.url.rpartition("/")[2] for entry in DETECTORS.values()]
    return path.name in [*names, *(name.removesuffix(".tar.gz") for name in names)]


def is_name(source) -> bool:
    """Whether a source is a name such as tf2:ssd_mobilenet_v2_320x320, not a path."""
    return str(source).startswith(("tf2:", "torchvision:"))


def find(name) -> pathlib.Path:
    """The file of a name in DETECTORS, downloaded unless it is there.

    Raises ConfigError for an unknown name, without a connection, and for another hash.
    """
    if name not in DETECTORS:
        raise ConfigError(f"--source: unknown name {name}; known: {', '.join(DETECTORS)}")
    return fetch(DETECTORS[name].url, DETECTORS[name].digest)


def find_local(name) -> pathlib.Path | None:
    """The file of a name in DETECTORS if it has been downloaded."""
    path = _place(DETECTORS[name].url)
    return path if path.is_file() else None


def is_reachable(name) -> bool:
    """Whether the server of a name in DETECTORS answers within seconds."""
    request = urllib.request.Request(DETECTORS[name].url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_PROBE_TIMEOUT):
            return True
    except (OSError, http.client.HTTPException):  # urllib.error.URLError is an OSError
        return False


def weights_folder() -> pathlib.Path:
    """Where downloads are kept, and files from elsewhere are looked for."""
    return pathlib.Path(os.environ.get("SSD_TF_WEIGHTS") or "~/.cache/ssd-tf").expanduser()


def _place(url):
    return weights_folder() / url.rpartition("/")[2]


def fetch(url, digest="", algorithm="SHA-256") -> pathlib.Path:
    """The file of an address in `weights_folder`, downloaded unless it is there.

    digest: the beginning of its hash, or empty. Raises ConfigError as `download` does, and if the
    file that is there has another hash.
    """
    path = _place(url)
    if not path.is_file():
        try:
            with files.lock_folder(path.parent):  # the workers of a run ask at the same time
                if not path.is_file():
                    download(url, path, digest, algorithm)
        except OSError as error:
            raise ConfigError(f"no folder for downloads, set SSD_TF_WEIGHTS: {error}") from None
        return path
    found = _hash(path, algorithm)
    if not found.startswith(digest):
        raise ConfigError(
            f"{path} has the {algorithm} {found[: len(digest)]}, expected {digest}: it is "
            f"incomplete or another file; delete it and get it from {url}"
        )
    return path


def download(url, path, digest="", algorithm="SHA-256"):
    """Download to a path, resuming what an earlier call left in path.part.

    digest: the beginning of the hash, or empty.
    Raises ConfigError, with address and hash, if that fails.
    """
    part = path.with_name(f"{path.name}.part")
    problem = None
    for _ in range(_ATTEMPTS):
        try:
            _continue(url, part)
            break
        except (OSError, urllib.error.URLError) as error:
            problem = error
    else:
        hash_text = f"{algorithm} {digest}" if digest else "no hash is published"
        raise ConfigError(
            f"cannot download {url} ({hash_text}): {shorten(problem)}; download it elsewhere and "
            f"put it into {path.parent}"
        )
    found = _hash(part, algorithm)
    if not found.startswith(digest):
        part.unlink()
        raise ConfigError(
            f"{url}: expected the {algorithm} {digest}, got {found[:12]}: the download is deleted; "
            "try again"
        )
    part.replace(path)


def _hash(path, algorithm):
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm.replace("-", "")).hexdigest()


def _continue(url, part):
    """Append to part what is missing of it. Raises OSError for a connection that ends early."""
    begin = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        if begin and response.status != 206:  # the server sends all of it again
            begin = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else begin + int(length)
        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with part.open("ab" if begin else "wb") as file, Progress(*columns, transient=True) as bar:
            task = bar.add_task(part.stem, total=total, completed=begin)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
            size = file.tell()
    if total is not None and size < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")
