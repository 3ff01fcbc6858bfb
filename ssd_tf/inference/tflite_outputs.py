"""The roles of a third-party TFLite detector's outputs, which each converter orders otherwise.

Told by their names, or else by the operator that computes them; never by their order alone.
"""

from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.weights.importers import st_zoo

# In the order that clients of TFLite detectors expect.
ROLES = ("boxes", "classes", "scores", "count")
# Of our files without the operator.
RAW_ROLES = ("offsets", "logits")
OPERATOR = b"TFLite_Detection_PostProcess"
# What the names of a role's output contain, in the order in which they are looked for:
# `num_detections` and `detection_boxes` have one word each.
_WORDS = {
    "count": ("num", "count"),
    "boxes": ("box", "location"),
    "scores": ("score",),
    "classes": ("class", "category", "label"),
}
# Outputs of the TF Object Detection API that are no detections.
_OTHERS = ("raw_", "multiclass", "anchor")


def find_outputs(content: bytes, metadata, path) -> dict:
    """The tensor index of each of ROLES, RAW_ROLES or `st_zoo.OUTPUTS`.

    Raises ValueError if they cannot be told.
    """
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        found = _find(model, _names_of(model, metadata))
        outputs = ", ".join(_describe_outputs(model.subgraphs[0]))
    except Exception:  # a corrupt flatbuffer raises almost anything
        raise ValueError(f"{path} is not a TFLite file, or is corrupt") from None
    if not found:
        raise ValueError(
            f"{path}: expected a detector's four outputs (boxes, classes, scores, count), "
            f"told by their names or by the operator {OPERATOR.decode()}, got {outputs}"
        )
    return found


def _find(model, names):
    """What `find_outputs` returns, empty if the roles cannot be told."""
    for roles in (RAW_ROLES, st_zoo.OUTPUTS):
        raw = {known[0]: index for index, known in names.items() if known[0] in roles}
        if len(raw) == len(roles):
            return raw
    found = _by_name(names)
    return found if set(found) == set(ROLES) else _of_operator(model) or {}


def _describe_outputs(graph):
    for index in graph.outputs:
        tensor = graph.tensors[index]
        shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
        yield f"{_name_of(tensor)} {shape}"


def operator_classes(content: bytes) -> int | None:
    """The number of classes of the operator, None in a file without it."""
    try:
        model = schema.Model.GetRootAs(content, 0)
        graph = model.Subgraphs(0)
        operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
        for operator in operators:
            if model.OperatorCodes(operator.OpcodeIndex()).CustomCode() == OPERATOR:
                options = operator.CustomOptionsAsNumpy().tobytes()
                return int(flexbuffers.Loads(options)["num_classes"])
    except Exception:  # as above; without a number, names are not compared with it
        return None
    return None


def _name_of(entry):
    """The name of a tensor or of a signature's output; files need not have any."""
    return (entry.name or b"").decode()


def _of_operator(model):
    """The operator's outputs have a fixed order, in whichever order the file gives them."""
    graph = model.subgraphs[0]
    for operator in graph.operators:
        outputs = [int(index) for index in operator.outputs]
        is_operator = model.operatorCodes[operator.opcodeIndex].customCode == OPERATOR
        if is_operator and set(outputs) <= set(map(int, graph.outputs)):
            return dict(zip(ROLES, outputs, strict=True))
    return None


def _names_of(model, metadata):
    """{tensor index of an output: its names, of the signature, the metadata and the graph}."""
    graph = model.subgraphs[0]
    names = {int(index): [] for index in graph.outputs}
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            names.setdefault(int(entry.tensorIndex), []).append(_name_of(entry))
    for index, name in zip(graph.outputs, metadata.output_names, strict=False):
        names[int(index)].append(name)
    for index, known in names.items():
        known.append(_name_of(graph.tensors[index]))
    return names


def _by_name(names):
    """The outputs whose role the first telling name gives; a role with two outputs has none."""
    found = {}
    for index, known in names.items():
        role = next(filter(None, map(_role, known)), None)
        found.setdefault(role, []).append(index)
    return {role: rows[0] for role, rows in found.items() if role and len(rows) == 1}


def _role(name):
    name = name.lower()
    if any(word in name for word in _OTHERS):
        return None
    for role, words in _WORDS.items():
        if any(word in name for word in words):
            return role
    return None
