"""State dicts of PyTorch against numbers that PyTorch gave, and files that must be rejected."""

import hashlib
import io
import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers.pytorch_file import read_state_dict

# Made by torch.save: contiguous, transposed, sliced, empty and half-precision tensors.
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "pytorch"
EXPECTED = json.loads((GOLDEN / "arrays.json").read_text())


def describe(array):
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


@pytest.mark.parametrize("name", ["zip", "legacy", "wrapped"])
def test_both_forms_of_files(name):
    arrays = read_state_dict(GOLDEN / f"{name}.pth")
    assert {name: describe(array) for name, array in arrays.items()} == EXPECTED["small"]


def test_a_real_file(shared_data):
    arrays = read_state_dict(shared_data / "weights" / "mobilenet_v2-b0353104.pth")
    assert len(arrays) == EXPECTED["count"]
    found = {name: describe(arrays[name]) for name in EXPECTED["mobilenet_v2"]}
    assert found == EXPECTED["mobilenet_v2"]


class Call:
    """Pickled, it asks for a call of a function with these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def rejected(tmp_path):
    """A function: the message about a file with this content; it names the file."""

    def read(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_state_dict(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(str(path))
        return message

    return read


def as_zip(content, name="archive/data.pkl"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, pickle.dumps(content, protocol=2))
    return buffer.getvalue()


def as_legacy(content):
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


@pytest.mark.parametrize("wrap", [as_zip, as_legacy, pickle.dumps])
def test_a_pickle_that_calls_something_is_rejected(rejected, wrap, tmp_path):
    target = tmp_path / "called"
    message = rejected(wrap({"weight": Call(os.system, f"touch {target}")}))
    assert f"it asks for {os.system.__module__}.system, which no state dict needs" in message
    assert not target.exists()


@pytest.mark.parametrize(
    ("function", "name"), [(eval, "__builtin__.eval"), (np.dtype, "numpy.dtype"), (open, "io.open")]
)
def test_other_names_are_rejected(rejected, function, name):
    assert f"it asks for {name}, which" in rejected(as_zip({"weight": Call(function, "1")}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete PyTorch state dict"),
        (b"\x89PNG\r\n", "is not a complete PyTorch state dict"),
        (as_zip({}, name="else"), "expected one data.pkl in the archive"),
        (as_zip([1, 2]), "expected a state dict, got a list"),
        (as_zip({"epoch": 3}), "expected a state dict, found no tensors"),
        (pickle.dumps(5), "it does not begin as torch.save begins a file"),
    ],
)
def test_files_of_another_kind(rejected, content, message):
    assert message in rejected(content)


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_truncated_file(rejected, name):
    content = (GOLDEN / f"{name}.pth").read_bytes()
    for length in (len(content) * part // 10 for part in range(1, 10)):
        rejected(content[:length])
    rejected(content[:-1])


def test_a_flipped_bit_in_an_archive(rejected):
    content = bytearray((GOLDEN / "zip.pth").read_bytes())
    archive = zipfile.ZipFile(GOLDEN / "zip.pth")
    offset = archive.getinfo("zip/data/0").header_offset
    content[offset + 120] ^= 1
    assert "CRC" in rejected(bytes(content))


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.pth is not a complete PyTorch state dict \(.*No"):
        read_state_dict(tmp_path / "none.pth")
