"""Arrays of a PyTorch state dict (.pth, .pt), read without PyTorch and without running anything.

Such a file is a pickle, which could call any function. The unpickler here knows the few names that
a state dict consists of and rejects all others, and sizes are compared with that of the file before
anything is read or copied. Both formats of torch.save are read: the zip archive
that PyTorch writes since 1.6, and the sequence of pickles before it.
"""

import collections
import functools
import io
import math
import pathlib
import pickle
import typing
import zipfile

import ml_dtypes
import numpy as np

from ssd_tf.errors import ConfigError, shorten
from ssd_tf.weights.importers.array_files import check_size

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Of the pickle, which has names and shapes: some 100 bytes per array.
_MAX_PICKLE = 1 << 20
# Keys under which training scripts put the state dict, beside the optimizer's.
_WRAPPERS = ("model", "state_dict")


class _Storage(typing.NamedTuple):
    """A flat array of the file; the data of the older format comes after its description."""

    dtype: np.dtype
    key: str
    size: int


class _Tensor(typing.NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements

    @property
    def num_bytes(self):
        return abs(math.prod(self.shape)) * self.storage.dtype.itemsize


def read_state_dict(path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name; half precision becomes float32.

    Raises ConfigError, in one line, for a file that is corrupt or not a state dict, or that asks
    for anything else.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        read = _read_zip if zipfile.is_zipfile(io.BytesIO(data)) else _read_legacy
        content, data_of = read(data)
        tensors = _find_tensors(content)
        check_size(sum(tensor.num_bytes for _, tensor in tensors), path)
        return {name: _to_array(tensor, data_of(tensor.storage)) for name, tensor in tensors}
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except Exception as error:  # a corrupt pickle or archive raises almost anything
        raise ConfigError(
            f"{path} is not a complete PyTorch state dict "
            f"({shorten(error) or type(error).__name__})"
        ) from None


# That in Python: the one in C reserves whatever room the index of a memo asks for.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return name
        raise ConfigError(
            f"it asks for {module}.{name}, which no state dict needs; only plain state dicts are "
            "read, for safety"
        )

    def persistent_load(self, identifier):
        if not isinstance(identifier, tuple) or identifier[:1] != ("storage",):
            raise ValueError(f"expected a storage, got {str(identifier)[:60]!r}")
        _, dtype, key, _device, size, *_ = identifier
        if dtype not in _DTYPES:
            raise ValueError(f"expected a storage of numbers, got {str(dtype)[:60]!r}")
        return _Storage(_DTYPES[dtype], str(key), int(size))

    def load_build(self):
        """Set the state of an object: torch.save does so for the dict alone."""
        if not isinstance(self.stack[-2], collections.OrderedDict):
            raise ConfigError("it sets attributes of something else than a state dict")
        super().load_build()

    dispatch: typing.ClassVar[dict[int, typing.Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }


def _rebuild_tensor(storage, offset, shape, strides, *_others):
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor, *_others):
    return tensor


def _read_zip(data):
    """The unpickled content, and a function of a storage -> its bytes."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = {entry.filename: entry for entry in archive.infolist()}
    names = [name for name in entries if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ConfigError("expected one data.pkl in the archive, as torch.save writes it")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ConfigError("expected an archive without compression, as torch.save writes it")
    if sum(entry.file_size for entry in entries.values()) > len(data):
        raise ConfigError("its parts are larger than the archive")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in entries:
        order = archive.read(f"{folder}byteorder").decode()
        if order != "little":
            raise ConfigError(f"expected little-endian numbers, got {order[:20]!r}")
    if entries[names[0]].file_size > _MAX_PICKLE:
        raise ConfigError(f"expected a data.pkl of at most {_MAX_PICKLE} bytes")
    content = _Unpickler(io.BytesIO(archive.read(names[0]))).load()
    read = functools.cache(archive.read)
    return content, lambda storage: read(f"{folder}data/{storage.key}")


def _read_legacy(data):
    """As _read_zip. Magic number, version, platform, content, keys, then each storage's data."""
    file = io.BytesIO(data[:_MAX_PICKLE])
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ConfigError("it does not begin as torch.save begins a file")
    _Unpickler(file).load()
    platform = _Unpickler(file).load()
    if not platform["little_endian"]:
        raise ConfigError("expected little-endian numbers")
    content = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    tensors = _find_tensors(content)
    sizes = {tensor.storage.key: tensor.storage.dtype.itemsize for _, tensor in tensors}
    storages = {}
    begin = file.tell()
    for key in map(str, keys):
        count = int.from_bytes(data[begin : begin + 8], "little")
        end = begin + 8 + count * sizes.get(key, 1)
        storages[key] = data[begin + 8 : end]
        begin = end
    return content, lambda storage: storages[storage.key]


def _find_tensors(content):
    """(name, _Tensor) of a state dict, or of the one that a training script wrapped."""
    if not isinstance(content, dict):
        raise ConfigError(f"expected a state dict, got a {type(content).__name__}")
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = [(name, value) for name, value in content.items() if isinstance(value, _Tensor)]
    if not tensors:
        raise ConfigError("expected a state dict, found no tensors")
    return tensors


def _to_array(tensor, data):
    """The tensor as an array of its own. Raises ValueError if its storage does not hold it."""
    flat = np.frombuffer(data, tensor.storage.dtype)
    if len(flat) < tensor.storage.size:
        raise ValueError(f"cut off: {len(flat)} of {tensor.storage.size} numbers")
    if len(tensor.shape) != len(tensor.strides) or min(tensor.strides, default=0) < 0:
        raise ValueError("shape and strides of a tensor do not fit together")
    if min(tensor.shape, default=1) < 0 or math.prod(tensor.shape) > len(flat):
        raise ValueError("a tensor is larger than its storage")
    last = tensor.offset
    if math.prod(tensor.shape):
        last += sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if not 0 <= tensor.offset <= last < len(flat):
            raise ValueError("a tensor reaches outside of its storage")
    strides = [step * flat.itemsize for step in tensor.strides]
    array = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
    is_half = array.dtype in (np.float16, ml_dtypes.bfloat16)
    return array.astype(np.float32) if is_half else array
