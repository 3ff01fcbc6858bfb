"""The .safetensors reader: precisions, and files that are rejected in one line."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers.array_files import read_safetensors


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
    assert read_safetensors(write(tmp_path / "a.safetensors", b"")) == {}


def test_every_precision_becomes_float32(tmp_path):
    # 1.5 and -2 in IEEE 754: sign, exponent and mantissa by hand.
    content = bytes.fromhex("0000c03f000000c0" + "003e00c0" + "c03f00c0")
    entries = {"a": ("F32", [2]), "b": ("F16", [1, 2]), "c": ("BF16", [2, 1])}
    arrays = read_safetensors(write(tmp_path / "a.safetensors", content, **entries))
    assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys("abc", "float32")
    assert arrays["a"].tolist() == [1.5, -2]
    assert arrays["b"].tolist() == [[1.5, -2]]
    assert arrays["c"].tolist() == [[1.5], [-2]]


def test_counters_stay_integers(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"num_batches_tracked": np.array(7, np.int64)}, path)
    assert read_safetensors(path)["num_batches_tracked"] == 7


def test_damaged_files(tmp_path):
    path = write(tmp_path / "a.safetensors", bytes(16), a=("F32", [2, 2]))
    complete = path.read_bytes()
    for content in (complete[:-1], complete[:20], complete[:4], b"", b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_safetensors(path)
        message = str(caught.value)
        assert message.startswith(f"{path} is not a complete .safetensors file (")
        assert "\n" not in message
