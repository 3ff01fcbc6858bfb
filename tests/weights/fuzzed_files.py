"""Corrupt files of weights, made from intact ones by a seed."""

import io
import json
import struct
import zipfile

import numpy as np

_LENGTHS = (0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def corrupt(data, rng) -> bytes:
    """Bytes flipped, cut, lengths changed, parts removed, repeated or moved."""
    data = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:
        for _ in range(rng.integers(1, 9)):
            data[_place(data, rng)] ^= 1 << rng.integers(8)
    elif kind == 1:
        del data[rng.integers(len(data)) :]
    elif kind == 2:
        for _ in range(rng.integers(1, 4)):
            place = _place(data, rng) // 4 * 4
            data[place : place + 4] = struct.pack("<I", _LENGTHS[rng.integers(len(_LENGTHS))])
    elif kind == 3:
        place = _place(data, rng)
        del data[place : place + rng.integers(1, 200)]
    elif kind == 4:
        place = _place(data, rng)
        data[place:place] = data[place : place + rng.integers(1, 200)]
    else:
        source = _place(data, rng)
        target = _place(data, rng)
        data[target : target + 16] = data[source : source + 16]
    return bytes(data)


def _place(data, rng):
    """An index; mostly near one of the ends, where formats have their structure."""
    near = min(len(data), 4000)
    place = int(rng.integers(near))
    return (place, len(data) - near + place, int(rng.integers(len(data))))[rng.integers(3)]


def corrupt_pth(data, rng) -> bytes:
    """As `corrupt`; half of the archives are intact around a corrupt pickle."""
    if rng.integers(2) or not data.startswith(b"PK"):
        return corrupt(data, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, corrupt(content, rng) if name.endswith("data.pkl") else content)
    return buffer.getvalue()


def corrupt_safetensors(data, rng) -> bytes:
    """As `corrupt`; half of them have an intact header with other values."""
    if rng.integers(2):
        return corrupt(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = list(header)
    entry = header[names[rng.integers(len(names))]]
    key = list(entry)[rng.integers(len(entry))]
    choices = (None, -1, 2**40, [], [2**20, 2**20], "F64", {}, [0, 2**62], "")
    entry[key] = choices[rng.integers(len(choices))]
    if rng.integers(3) == 0:
        del entry[key]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def corrupt_graph(data, rng) -> bytes:
    """As `corrupt`; half of them parse, with values and fields that do not fit."""
    if rng.integers(2):
        return corrupt(data, rng)
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(data)
    nodes = [node for node in graph.node if node.op == "Const"]
    for _ in range(rng.integers(1, 4)):
        tensor = nodes[rng.integers(len(nodes))].attr["value"].tensor
        _change_tensor(tensor, rng)
    if rng.integers(2):
        del graph.node[rng.integers(len(graph.node))]
    return graph.SerializeToString()


def _change_tensor(tensor, rng):
    kind = rng.integers(6)
    if kind == 0:
        tensor.dtype = int(rng.integers(30))
    elif kind == 1:
        tensor.tensor_shape.dim.add(size=int(rng.choice([-1, 0, 2, 10**5, 2**40])))
    elif kind == 2 and tensor.tensor_shape.dim:
        tensor.tensor_shape.dim[0].size = int(rng.choice([-5, 0, 10**4, 2**33]))
    elif kind == 3:
        tensor.ClearField("tensor_content")
        tensor.float_val.append(float(rng.choice([0.0, np.nan, 1e30])))
    elif kind == 4:
        tensor.tensor_content = tensor.tensor_content[: rng.integers(9)]
    else:
        tensor.ClearField("tensor_shape")


def corrupt_tflite(data, rng) -> bytes:
    """As `corrupt`; half of them are intact flatbuffers with values that do not fit."""
    if rng.integers(2):
        return corrupt(data, rng)
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    for _ in range(rng.integers(1, 4)):
        _change_tensor_or_operator(graph, len(model.buffers), rng)
    builder = schema.flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _change_tensor_or_operator(graph, num_buffers, rng):
    tensor = graph.tensors[rng.integers(len(graph.tensors))]
    operator = graph.operators[rng.integers(len(graph.operators))]
    kind = rng.integers(8)
    if kind == 0:
        tensor.shape = [int(size) for size in rng.choice([-1, 0, 1, 3, 2**30], rng.integers(6))]
    elif kind == 1:
        tensor.type = int(rng.integers(18))
    elif kind == 2:
        tensor.buffer = int(rng.choice([0, num_buffers - 1, num_buffers, 2**31]))
    elif kind == 3:
        tensor.quantization = None
    elif kind == 4:
        operator.inputs = [int(index) for index in rng.choice([-1, 0, 5, 2**20], 3)]
    elif kind == 5:
        operator.opcodeIndex = int(rng.choice([0, 1, 200]))
    elif kind == 6:
        operator.customOptions = list(rng.integers(0, 256, 20))
    else:
        graph.inputs = [int(index) for index in rng.choice([0, 1, -1, 2**20], rng.integers(3))]
