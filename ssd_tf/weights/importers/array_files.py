"""Arrays of files that hold nothing else: Keras' HDF5, .safetensors and .npz.

pytorch_file.py reads PyTorch's .pth.
"""

import os
import zipfile

import h5py
import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16
import numpy as np
from safetensors import numpy as safetensors_numpy

from ssd_tf.errors import ConfigError, shorten

# Half precision becomes float32, and quantised weights four times as large.
_MAX_EXPANSION = 4
_HARMLESS = 1 << 24  # bytes


def check_size(declared, path):
    """Raise ConfigError if a file declares many more bytes of numbers than it has itself.

    Formats may repeat a number, compress, or name the same bytes twice, so that a few bytes stand
    for gigabytes. Weights hardly shrink: their bytes are those of the file.
    """
    size = os.path.getsize(path)
    if declared > _MAX_EXPANSION * size + _HARMLESS:
        raise ConfigError(
            f"{path} declares {declared} bytes of numbers and has {size} bytes itself: it is "
            "corrupt, or made to fill the memory"
        )


def read_h5(path) -> dict[str, list[np.ndarray]]:
    """The arrays of a Keras weights file by layer, in its order.

    Reads HDF5 as written by Keras 2 and by Keras 3's legacy format. Raises ConfigError for any
    other file, and for arrays that are much larger than the file.
    """
    try:
        with h5py.File(path) as file:
            return _read_layers(file.get("model_weights", file), path)
    except ConfigError:
        raise
    # What h5py raises on files that are corrupt or hold something else.
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"{path} is not a Keras weights file in HDF5 format ({shorten(error)}); for "
            "torchvision's weights see docs/models.md"
        ) from None


def _read_layers(group, path):
    layers = {}
    declared = 0
    for name in group.attrs["layer_names"]:
        name = name.decode() if isinstance(name, bytes) else name
        datasets = [group[name][key] for key in group[name].attrs["weight_names"]]
        declared += sum(dataset.nbytes for dataset in datasets)
        check_size(declared, path)
        if datasets:
            layers[name] = [np.asarray(dataset) for dataset in datasets]
    return layers


def read_safetensors(path) -> dict[str, np.ndarray]:
    """The arrays by name; half precision becomes float32. Raises ConfigError for another file."""
    try:
        arrays = safetensors_numpy.load_file(path)
    except Exception as error:  # a corrupt header raises almost anything
        raise ConfigError(
            f"{path} is not a complete .safetensors file ({shorten(error)})"
        ) from None
    return {
        name: array.astype(np.float32) if array.dtype.itemsize == 2 else array
        for name, array in arrays.items()
    }


def read_npz(path) -> dict[str, np.ndarray]:
    """The arrays by name. Raises ConfigError for another file, and for one smaller than they."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(sum(entry.file_size for entry in archive.infolist()), path)
        with open(path, "rb") as content, np.load(content) as file:
            return {name: array for name, array in file.items() if isinstance(array, np.ndarray)}
    except ConfigError:
        raise
    except Exception as error:  # a corrupt archive or header raises almost anything
        raise ConfigError(
            f"{path} is not a complete .npz file of arrays ({shorten(error)})"
        ) from None
