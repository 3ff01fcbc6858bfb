"""The kind of a file to import, from its first bytes, without TensorFlow."""

import pathlib
import re
import zipfile

from ssd_tf.errors import ConfigError
from ssd_tf.user_files import open_regular, suggest_path

_UNPACK = (
    "an archive: unpack it and give the frozen graph (.pb), the saved_model folder or the "
    ".tflite file inside"
)
_CLASSIFIER = "weights of a classifier can be given as init_from"
_KERAS = f"which holds no detector that can be imported; {_CLASSIFIER}"
_MAGIC = (
    (b"\x1f\x8b", _UNPACK),
    (b"BZh", _UNPACK),
    (b"\xfd7zXZ", _UNPACK),
    (b"7z\xbc\xaf", _UNPACK),
    (b"Rar!", _UNPACK),
    (b"\x28\xb5\x2f\xfd", _UNPACK),
    (b"\x89HDF", f"a Keras file (HDF5), {_KERAS}"),
    (b"\x93NUMPY", f"an array of NumPy; {_CLASSIFIER} as .npz"),
    (b"version https://git-lfs", "a pointer of Git LFS: get the file itself with `git lfs pull`"),
    (b"model_checkpoint_path", "a list of checkpoints: give the path of one, such as ckpt-0"),
    (b"node {", "a graph written as text: give the frozen graph (.pb)"),
)
# What a line of a text file begins with.
_TEXTS = (
    (rb"model\s*\{", "a pipeline.config, which has no weights: give the checkpoint of it, ckpt-0"),
    (rb"item\s*\{", "a label map, which has no weights: give it as --labels"),
    (rb"", "a text file, which has no weights"),
)
_TAR = (257, b"ustar")
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_OTHER_FORMATS = "a model of another framework, which cannot be imported"
_OTHER_SUFFIXES = (".onnx", ".mlmodel", ".caffemodel", ".weights", ".engine", ".xml", ".pdparams")
# Files in a folder that is imported for their sake, the best first.
MODELS = ("saved_model.pb", "frozen_inference_graph.pb", "saved_model/saved_model.pb")
# Files inside a folder that can be imported, the best first.
_INSIDE = (
    "*.tflite",
    "*.pb",
    "*.index",
    "checkpoint/*.index",
    "*.pth",
    "*.safetensors",
)


# Archives that are unpacked here.
ARCHIVES = (".tar.gz", ".tgz", ".tar")


def check_source(path, flag="--source", archive=None):
    """Raise ConfigError, in one line, for a path without a file and for files of other kinds.

    flag: that gave the path. archive: of which the path is the unpacked content. Readers find out
    whether what passes is a detector.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        _check_folder(path, flag, archive)
    elif not pathlib.Path(f"{checkpoint_prefix(path)}.index").is_file():
        if not path.exists():
            raise ConfigError(
                f"{flag}: no file, checkpoint or SavedModel folder at {path}{suggest_path(path)}"
            )
        kind = _describe(path)
        if kind == _UNPACK and path.name.endswith(ARCHIVES):
            return
        if kind is not None:
            raise ConfigError(f"{flag}: {path} is {kind}")


def checkpoint_prefix(path) -> str:
    """The path of a checkpoint without the suffix of its files."""
    return re.sub(r"\.(index|data-\d+-of-\d+)$", "", str(path))


def _check_folder(path, flag, archive):
    if any((path / name).is_file() for name in MODELS):
        return
    if any(path.glob("ckpt-*.index")) or any(path.glob("checkpoint/ckpt-*.index")):
        return
    if (path / "config.yaml").is_file():
        raise ConfigError(
            f"{flag}: {archive or path} is a run folder already, so it needs no import"
        )
    inside = [found for pattern in _INSIDE for found in sorted(path.glob(pattern))]
    hint = ""
    if inside:  # what is inside an archive has no path yet
        advice = f"unpack it and give {inside[0].relative_to(path)}"
        hint = f": {advice}" if archive else f"; did you mean {inside[0]}?"
    raise ConfigError(
        f"{flag}: {archive or path} has neither a SavedModel (saved_model.pb) nor a checkpoint "
        f"(ckpt-0.index){hint}"
    )


def _describe(path):
    """A description of a file that cannot be imported; None if it may be. Raises OSError."""
    with open_regular(path) as file:
        start = file.read(512)
    if not start:
        return "empty"
    if start[_TAR[0] :].startswith(_TAR[1]):
        return _UNPACK
    if _WEB_PAGE.match(start):
        return "a web page: download the file itself"
    if path.suffix.lower() in _OTHER_SUFFIXES:
        return _OTHER_FORMATS
    kind = next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)
    if kind is None and start.startswith(b"PK\x03\x04"):
        return _describe_zip(path)
    return _describe_text(start) if kind is None and _is_text(start) else kind


def _describe_text(start):
    return next(kind for line, kind in _TEXTS if re.search(rb"^\s*" + line, start, re.MULTILINE))


def _is_text(start):
    """Whether bytes are text in UTF-8; a character at the end may be cut."""
    text = start.decode("utf-8", errors="ignore")
    is_whole = len(text.encode()) > len(start) - 4
    return is_whole and all(each.isprintable() or each in "\t\r\n" for each in text)


def _describe_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # its reader describes a corrupt archive
        return None
    if "model.weights.h5" in names:
        return f"a Keras model (.keras), {_KERAS}"
    if any("/code/" in name for name in names):
        return "a program of TorchScript: save the state dict, torch.save(model.state_dict(), FILE)"
    if names and all(name.endswith(".npy") for name in names):
        return f"arrays of NumPy; {_CLASSIFIER}"
    is_torch = any(name.endswith("data.pkl") for name in names)
    return None if is_torch or not names else _UNPACK
