"""Two TFLite files joined into one: what the first gives is what the second takes."""

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

IDENTIFIER = b"TFL3"


def join(first: bytes, second: bytes) -> bytes:
    """Join files of one subgraph and one signature each; outputs and inputs are matched by name.

    The joined file has the input of the first and the outputs of the second.
    """
    model = schema.ModelT.InitFromPackedBuf(first, 0)
    added = schema.ModelT.InitFromPackedBuf(second, 0)
    graph = model.subgraphs[0]
    new_graph = added.subgraphs[0]
    place = _places(model, added, len(graph.tensors))
    for tensor in new_graph.tensors:
        tensor.buffer += len(model.buffers)
    for operator in new_graph.operators:
        operator.opcodeIndex += len(model.operatorCodes)
        operator.inputs = _move(operator.inputs, place)
        operator.outputs = _move(operator.outputs, place)
    model.buffers += added.buffers
    model.operatorCodes += added.operatorCodes
    graph.tensors += new_graph.tensors
    graph.operators += new_graph.operators
    graph.outputs = _move(new_graph.outputs, place)
    outputs = added.signatureDefs[0].outputs
    for entry in outputs:
        entry.tensorIndex = place[entry.tensorIndex]
    model.signatureDefs[0].outputs = outputs
    return pack(model)


def pack(model) -> bytes:
    """A ModelT -> the content of a .tflite file."""
    builder = schema.flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _places(model, added, num_tensors):
    """Where each tensor of the second file is in the joined one: {its index: the new index}."""
    given = {entry.name: entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    taken = {entry.tensorIndex: given[entry.name] for entry in added.signatureDefs[0].inputs}
    places = {index: num_tensors + index for index in range(len(added.subgraphs[0].tensors))}
    return places | taken


def _move(indices, place):
    return np.array([place.get(int(index), int(index)) for index in indices], np.int32)
