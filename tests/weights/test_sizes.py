"""Small files that declare gigabytes or reach outside themselves.

One line each, and no more memory than a few times the file.
"""

import io
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import od_files
import pytest
import test_od_tflite as tflite_files
from tensorflow.core.framework import tensor_pb2

from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import (
    array_files,
    detectors,
    od_graph,
    od_tflite,
    pytorch_file,
)

KERNEL = f"{od_files.V1}/MobilenetV1/Conv2d_0/weights"
MB = 1 << 20


def rejection(read, path):
    """The message of the ConfigError that read(path) raises, without taking memory."""
    tracemalloc.start()
    with pytest.raises(ConfigError) as caught:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MB
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("declared", "size", "rejected"),
    [
        (0, 0, False),
        (16 * MB, 0, False),
        (16 * MB + 1, 0, True),
        (20 * MB, MB, False),
        (20 * MB + 1, MB, True),
    ],
)
def test_the_limit(tmp_path, declared, size, rejected):
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    if rejected:
        with pytest.raises(ConfigError, match=rf"file declares {declared} bytes .* has {size} "):
            array_files.check_size(declared, path)
    else:
        array_files.check_size(declared, path)


def graph_with(sizes, count=1, **fields):
    """A graph of constants of this shape, each filled from one number."""
    graph = od_files.make_graph({})
    for index in range(count):
        node = graph.node.add(op="Const", name=f"{KERNEL[:-8]}_{index}/weights")
        tensor = tensor_pb2.TensorProto(dtype=1, float_val=[1.0])
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
        for name, value in fields.items():
            setattr(tensor, name, value)
        node.attr["value"].tensor.CopyFrom(tensor)
    return graph.SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        graph_with([12000, 10000]),
        graph_with([30000, 25000]),
        graph_with([2**40]),
        graph_with([2**31, 2**31, 2**31]),
        graph_with([1000, 1000], count=100),
        graph_with([12000, 10000], dtype=6),
    ],
)
def test_a_graph_filled_from_one_number(tmp_path, content):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    assert "bytes of numbers" in rejection(od_graph.read_frozen_graph, path)


def test_a_saved_model_filled_from_one_number(tmp_path):
    graph = od_files.make_graph({}).FromString(graph_with([30000, 25000]))
    od_files.write_saved_model(tmp_path / "saved", graph)
    meta_graph = od_graph.read_meta_graph(tmp_path / "saved")
    with pytest.raises(ConfigError, match="bytes of numbers"):
        od_graph.read_saved_model(tmp_path / "saved", meta_graph)


def test_a_checkpoint_without_its_data(tmp_path):
    od_files.write_checkpoint(tmp_path / "ckpt", {KERNEL: np.zeros((3, 3, 700, 1000), "float32")})
    data = tmp_path / "ckpt.data-00000-of-00001"
    data.write_bytes(b"")
    assert "bytes of numbers" in rejection(od_graph.read_checkpoint, tmp_path / "ckpt")
    data.unlink()
    assert "has no data" in rejection(od_graph.read_checkpoint, tmp_path / "ckpt")


def storage(dtype="FloatStorage", key="0", size=4):
    parts = b"".join(text(part) for part in ("storage", None, key, "cpu"))
    return b"(" + parts.replace(text(None), b"ctorch\n" + dtype.encode() + b"\n") + number(size)


def text(value):
    if value is None:
        return b"NONE"
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"I%d\n" % value


def pickled(*tensors, names="abcdefghij"):
    """A state dict of (offset, shape, strides) in the opcodes of a pickle."""
    data = b"\x80\x02}"
    for name, (offset, shape, strides) in zip(names, tensors, strict=False):
        data += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + b"tQ"
        data += number(offset)
        for sizes in (shape, strides):
            data += b"(" + b"".join(map(number, sizes)) + b"t"
        data += b"tRs"
    return data + b"."


def archive(pickle, storages=None, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("a/data.pkl", pickle)
        for key, content in (storages or {"0": np.arange(4, dtype="<f4").tobytes()}).items():
            file.writestr(f"a/data/{key}", content)
    return buffer.getvalue()


def test_strides_of_a_storage(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(archive(pickled((0, (2, 2), (1, 2)), (1, (3,), (1,)), (4, (0,), (1,)))))
    arrays = pytorch_file.read_state_dict(path)
    assert arrays["a"].tolist() == [[0, 2], [1, 3]]
    assert arrays["b"].tolist() == [1, 2, 3]
    assert arrays["c"].shape == (0,)


@pytest.mark.parametrize(
    "tensor",
    [
        (1, (4,), (1,)),
        (4, (1,), (1,)),
        (-1, (1,), (1,)),
        (2**62, (1,), (1,)),
        (0, (2,), (4,)),
        (0, (2, 2), (1, 3)),
        (3, (2,), (-1,)),
        # 0, -1, 2, 1: the first and the last are inside.
        (0, (2, 2), (2, -1)),
        (0, (2,), (2**61,)),
        (0, (5,), (0,)),
        (0, (-1,), (1,)),
        (0, (2, 2), (1,)),
        (0, (-2, -2), (1, 1)),
    ],
)
def test_a_tensor_outside_its_storage(tmp_path, tensor):
    """Without the guard, memory that is not the file's would be read."""
    path = tmp_path / "a.pth"
    path.write_bytes(archive(pickled((0, (1,), (1,)), tensor)))
    assert "is not a complete PyTorch state dict" in rejection(pytorch_file.read_state_dict, path)


def test_many_tensors_of_one_storage(tmp_path):
    path = tmp_path / "a.pth"
    content = np.zeros(10**6, "<f4").tobytes()
    tensors = pickled(*[(0, (10**6,), (1,))] * 10).replace(number(4), number(10**6))
    path.write_bytes(archive(tensors, {"0": content}))
    assert "declares 40000000 bytes" in rejection(pytorch_file.read_state_dict, path)


def test_a_compressed_archive(tmp_path):
    path = tmp_path / "a.pth"
    pickle = pickled((0, (4,), (1,)))[:-1] + b"N0" * 10**7 + b"."
    path.write_bytes(archive(pickle, compression=zipfile.ZIP_DEFLATED))
    assert "without compression" in rejection(pytorch_file.read_state_dict, path)


@pytest.mark.parametrize("opcode", [b"r\x00\x00\x00\x02", b"\x8b\xff\xff\xff\x7f", b"N" * 2 * MB])
def test_a_pickle_that_takes_memory(tmp_path, opcode):
    """An index of the memo for which the unpickler in C makes room; a stack of 2**21 entries."""
    path = tmp_path / "a.pth"
    path.write_bytes(archive(pickled((0, (4,), (1,)))[:2] + b"N" + opcode + b"."))
    rejection(pytorch_file.read_state_dict, path)


def test_a_pickle_that_changes_our_functions(tmp_path):
    path = tmp_path / "a.pth"
    state = b"N}" + text("__defaults__") + b"(I1\nts\x86"
    path.write_bytes(archive(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b."))
    assert "sets attributes" in rejection(pytorch_file.read_state_dict, path)
    assert pytorch_file._rebuild_tensor.__defaults__ is None


def test_an_hdf5_file_of_one_number(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = ["kernel"]
        group.create_dataset("kernel", (30000, 25000), "f4", fillvalue=1.0, chunks=(1000, 1000))
    assert "bytes of numbers" in rejection(array_files.read_h5, path)


def test_arrays_of_numpy(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(8 * MB, "float32"))
    assert "bytes of numbers" in rejection(array_files.read_npz, path)


def test_many_layers_of_one_buffer(tmp_path):
    file = tflite_files.File()
    file.tensor("image", (1, 64, 96, 3))
    kernel = file.tensor("kernel", (100, 1, 1, 3000), "uint8", np.zeros(300_000), [1.0], [0])
    bias = file.tensor("bias", (100,), values=np.zeros(100))
    for _ in range(30):
        file.convolution(0, kernel, bias, bias)
    path = file.write(tmp_path / "a.tflite")
    assert "bytes of numbers" in rejection(od_tflite.read_tflite, path)


def test_names_longer_than_the_file(tmp_path):
    file = tflite_files.one_convolution({"values": tflite_files.FLOATS}, tflite_files.BIAS)
    path = file.write(tmp_path / "a.tflite")
    content = path.read_bytes()
    # The length of the string is in front of it; a name of 1,000 bytes runs on into the next.
    place = content.index(b"bias") - 4
    assert content[place : place + 4] == struct.pack("<I", 4)
    path.write_bytes(content[:place] + struct.pack("<I", 10**6) + content[place + 4 :])
    assert "names are longer" in rejection(od_tflite.read_tflite, path)


def test_a_million_tables(tmp_path):
    file = tflite_files.File()
    file.graph.operators = [tflite_files.schema.OperatorT() for _ in range(21_000)]
    path = file.write(tmp_path / "a.tflite", inputs=())
    with pytest.raises(ConfigError, match="expected at most 20000 tables"):
        od_tflite.read_tflite(path)


def test_an_input_of_a_million_pixels_a_side(tmp_path):
    file = tflite_files.one_convolution({"values": tflite_files.FLOATS}, tflite_files.BIAS)
    file.graph.tensors[0].shape = [1, 2**20, 96, 3]
    path = file.write(tmp_path / "a.tflite")
    assert "at most 4096 pixels" in rejection(detectors.read_detector, path)
