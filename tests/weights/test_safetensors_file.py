"""The .safetensors reader: precisions, and files that are refused in one line."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ssd_tf.errors import ConfigError
from ssd_tf.weights.safetensors_file import read_arrays


def write(path, content, **entries):
    """The format by hand: length of the header, header, bytes; entries: name=(dtype, shape)."""
    header = {}
    begin = 0
    for name, (dtype, shape) in entries.items():
        end = begin + int(np.prod(shape)) * {"F32": 4, "F16": 2, "BF16": 2}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def test_no_arrays(tmp_path):
    assert read_arrays(write(tmp_path / "a.safetensors", b"")) == {}


def test_every_precision_becomes_float32(tmp_path):
    # 1.5 and -2 in IEEE 754: sign, exponent and mantissa by hand.
    content = bytes.fromhex("0000c03f000000c0" + "003e00c0" + "c03f00c0")
    entries = {"a": ("F32", [2]), "b": ("F16", [1, 2]), "c": ("BF16", [2, 1])}
    arrays = read_arrays(write(tmp_path / "a.safetensors", content, **entries))
    assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys("abc", "float32")
    assert arrays["a"].tolist() == [1.5, -2]
    assert arrays["b"].tolist() == [[1.5, -2]]
    assert arrays["c"].tolist() == [[1.5], [-2]]


def test_counters_stay_integers(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"num_batches_tracked": np.array(7, np.int64)}, path)
    assert read_arrays(path)["num_batches_tracked"] == 7


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, dtype, value):
    path = tmp_path / "a.safetensors"
    save_file({"conv.weight": np.array([1, value], dtype)}, path)
    with pytest.raises(ConfigError, match=rf"{path}: conv.weight has values that are not finite"):
        read_arrays(path)


def test_damaged_files(tmp_path):
    path = write(tmp_path / "a.safetensors", bytes(16), a=("F32", [2, 2]))
    complete = path.read_bytes()
    for content in (complete[:-1], complete[:20], complete[:4], b"", b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_arrays(path)
        message = str(caught.value)
        assert message.startswith(f"{path} is not a complete .safetensors file (")
        assert "\n" not in message
