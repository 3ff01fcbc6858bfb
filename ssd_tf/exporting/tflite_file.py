"""Edits of .tflite files: joining two of them, the order of the outputs, metadata and label file.

MediaPipe Tasks and the Task Library need the metadata to open a detector.
"""

import io

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import tflite_metadata
from ssd_tf.inference.exported import append_member
from ssd_tf.inference.tflite_outputs import RAW_ROLES
from ssd_tf.weights.label_files import format_names

LABEL_FILE = "labels.txt"
_IDENTIFIER = b"TFL3"
# Members of the metadata schema's enums.
_RGB = 1
_BOUNDARIES = 1
_RATIO = 0
_VALUE_LABELS = 3
_BOX_ORDER = (1, 0, 3, 2)  # left, top, right, bottom in ymin, xmin, ymax, xmax
_MIN_PARSER_VERSION = "1.0.0"
_IMAGE = {
    "name": "image",
    "description": "RGB image, values from 0 to 255",
    "content": {"image": {"color_space": _RGB}},
    # The graph itself normalises the image.
    "process_units": [{"normalization": {"mean": [0.0], "std": [1.0]}}],
}


def join(first: bytes, second: bytes) -> bytes:
    """Join files of one subgraph and one signature each; outputs and inputs are matched by name.

    The joined file has the input of the first and the outputs of the second.
    """
    model = schema.ModelT.InitFromPackedBuf(first, 0)
    added = schema.ModelT.InitFromPackedBuf(second, 0)
    graph = model.subgraphs[0]
    new_graph = added.subgraphs[0]
    new_index = _new_indices(model, added, len(graph.tensors))
    for tensor in new_graph.tensors:
        tensor.buffer += len(model.buffers)
    for operator in new_graph.operators:
        operator.opcodeIndex += len(model.operatorCodes)
        operator.inputs = _renumber(operator.inputs, new_index)
        operator.outputs = _renumber(operator.outputs, new_index)
    model.buffers += added.buffers
    model.operatorCodes += added.operatorCodes
    graph.tensors += new_graph.tensors
    graph.operators += new_graph.operators
    graph.outputs = _renumber(new_graph.outputs, new_index)
    outputs = added.signatureDefs[0].outputs
    for entry in outputs:
        entry.tensorIndex = new_index[entry.tensorIndex]
    model.signatureDefs[0].outputs = outputs
    return pack(model)


def name_outputs(content: bytes, signature_names, tensor_names) -> bytes:
    """Put the outputs into the order of these names of the signature, and name their tensors.

    The converter orders them by name and calls them PartitionedCall:k; clients go by position or by
    TFLite_Detection_PostProcess, :1, :2, :3. The named signature keeps referring to the same
    tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    by_name = {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.array([by_name[name] for name in signature_names], np.int32)
    for tensor, name in zip(graph.outputs, tensor_names, strict=True):
        graph.tensors[tensor].name = name
    return pack(model)


def pack(model) -> bytes:
    """A ModelT -> the content of a .tflite file."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def add_metadata(content: bytes, names, score_threshold) -> bytes:
    """Add metadata, and the class names as a file at the end, to a file with the operator.

    content: a file with the operator's four outputs in their order. The metadata say that the input
    is RGB in 0..255, normalised by the graph (mean 0, std 1), and that detections below
    score_threshold need not be shown.
    """
    box = {"index": _BOX_ORDER, "type": _BOUNDARIES, "coordinate_type": _RATIO}
    label_file = {"name": LABEL_FILE, "type": _VALUE_LABELS}
    threshold = {"score_thresholding": {"global_score_threshold": score_threshold}}
    outputs = [
        {"name": "location", "content": {"bounding_box": box}},
        _numbers("category", associated_files=[label_file]),
        _numbers("score", process_units=[threshold]),
        _numbers("number of detections"),
    ]
    # MediaPipe's own writer declares the outputs as one group, too.
    output_names = [output["name"] for output in outputs]
    group = {"name": "detection_result", "tensor_names": output_names}
    subgraph = {"inputs": [_IMAGE], "outputs": outputs, "output_groups": [group]}
    description = tflite_metadata.describe_detector(len(names))
    return _finish(content, names, {"description": description, "subgraphs": [subgraph]})


def add_raw_metadata(content: bytes, names, version) -> bytes:
    """Add the same to a raw file, of which the input alone is described.

    version: the fingerprint of the default_boxes.json that belongs to the file.
    """
    subgraph = {"inputs": [_IMAGE], "outputs": [_numbers(name) for name in RAW_ROLES]}
    model = {
        "version": version,
        "description": tflite_metadata.RAW_DESCRIPTION,
        "subgraphs": [subgraph],
    }
    return _finish(content, names, model)


def build_metadata(model) -> bytes:
    """The fields of the metadata's root table -> the content of their buffer."""
    builder = flatbuffers.Builder(1024)
    model = {**model, "name": "ObjectDetector", "min_parser_version": _MIN_PARSER_VERSION}
    root = _write_table(builder, "Model", model)
    builder.Finish(root, tflite_metadata.IDENTIFIER)
    return bytes(builder.Output())


def _numbers(name, **fields):
    """TensorMetadata of an output that is no image and no boxes."""
    return {"name": name, "content": {"feature": {}}, **fields}


def _finish(content, names, metadata):
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    buffer = schema.BufferT()
    buffer.data = list(build_metadata(metadata))
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = tflite_metadata.BUFFER_NAME
    entry.buffer = len(model.buffers) - 1
    named = tflite_metadata.BUFFER_NAME.encode()
    model.metadata = [*(item for item in model.metadata or [] if item.name != named), entry]
    # A flatbuffer ends where its tables say, so a zip archive can follow.
    stream = io.BytesIO(pack(model))
    append_member(stream, LABEL_FILE, format_names(names))
    return stream.getvalue()


def _new_indices(model, added, num_tensors):
    """{index of a tensor of the second file: its index in the joined one}."""
    given = {entry.name: entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    taken = {entry.tensorIndex: given[entry.name] for entry in added.signatureDefs[0].inputs}
    indices = {index: num_tensors + index for index in range(len(added.subgraphs[0].tensors))}
    return indices | taken


def _renumber(indices, new_index):
    return np.array([new_index.get(int(index), int(index)) for index in indices], np.int32)


def _write_table(builder, name, values) -> int:
    """Write a dict, {field: value}, as a table of the schema; returns its offset in the builder."""
    slots = {}
    for field_name, value in values.items():
        field = tflite_metadata.SCHEMA[name][field_name]
        slots[field.slot] = (field.kind, _write_value(builder, field.kind, value))
        if field.member is not None:
            slots[field.slot - 1] = ("byte", field.member)
    builder.StartObject(max(slots, default=-1) + 1)
    for slot, (kind, value) in slots.items():
        if kind == "byte":
            builder.PrependUint8Slot(slot, value, 0)
        elif kind == "float":
            builder.PrependFloat32Slot(slot, value, 0.0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()


def _write_value(builder, kind, value):
    """Write what is stored outside of the table; returns its offset, or the number itself."""
    if kind in ("byte", "float", "int"):
        return value
    if kind == "text":
        return builder.CreateString(value)
    if not kind.startswith("["):
        return _write_table(builder, kind, value)
    kind = kind[1:-1]
    numbers = {"float": builder.PrependFloat32, "int": builder.PrependUint32}
    prepend = numbers.get(kind, builder.PrependUOffsetTRelative)
    stored = [_write_value(builder, kind, element) for element in value]
    builder.StartVector(4, len(stored), 4)
    for element in reversed(stored):
        prepend(element)
    return builder.EndVector()
