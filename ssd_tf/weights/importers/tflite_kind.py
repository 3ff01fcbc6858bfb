"""Say what a TFLite file is, from its operators and tensors."""

import re

from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.class_names import count_classes
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import families

POSTPROCESS = "TFLite_Detection_PostProcess"
# All that occur in SSDs that can be imported, in files of the API and in ours.
_OPERATORS = (
    "ADD",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEQUANTIZE",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MINIMUM",
    "PACK",
    "PAD",
    "QUANTIZE",
    "RELU",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SHAPE",
    "SOFTMAX",
    "STRIDED_SLICE",
    "SUB",
    "TILE",
    POSTPROCESS,
)
_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
_APIS = (
    (r"ssd_mobile_net_v|WeightSharedConvolutional", ", TF2 Object Detection API"),
    (r"FeatureExtractor/Mobilenet", ", TF1 Object Detection API"),
)
_YOLO_STRIDES = (8, 16, 32)
_MAX_BACKBONE = 17  # depthwise convolutions of MobileNet v2; v1 has 13


def operator_name(model: schema.ModelT, operator) -> str:
    """The name of an operator, also of a custom one."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return code.customCode.decode(errors="replace")
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _NAMES.get(number, f"number {number}")


def check(model: schema.ModelT, path):
    """Raise ConfigError for classifiers and for detectors that are no SSD."""
    graph = model.subgraphs[0]
    image_hw = _shape(graph, graph.inputs[0])[1:3]
    label = f"{path} ({_join(image_hw)})"
    families.check(_tensor_names(graph), label)
    if len(graph.outputs) != 1:
        return
    sizes = [size for size in _shape(graph, graph.outputs[0]) if size > 1]
    if len(sizes) == 1:
        raise ConfigError(
            f"{label} has one output of {sizes[0]} numbers, as a classifier has: expected "
            f"{families.KNOWN}"
        )
    # Of YOLO: a list with one or three predictions for each cell of its maps.
    num_cells = sum(image_hw[0] // each * (image_hw[1] // each) for each in _YOLO_STRIDES)
    if len(sizes) == 2 and max(sizes) in (num_cells, 3 * num_cells):
        families.check(["yolo"], label)


def check_operators(model: schema.ModelT, path):
    """Raise ConfigError for operators that no SSD has that can be imported."""
    names = [operator_name(model, each) for each in model.subgraphs[0].operators]
    unknown = [name for name in names if name not in _OPERATORS]
    if unknown:
        raise ConfigError(
            f"{path}: no SSD that can be imported has the operator {unknown[0]}; the file runs as "
            "it is: ssd detect --model"
        )


def is_ssd(model: schema.ModelT) -> bool:
    """Whether the outputs are those of an SSD, with post-processing or without."""
    graph = model.subgraphs[0]
    names = [operator_name(model, each) for each in graph.operators]
    return POSTPROCESS in names or _raw_classes(graph) is not None


def describe(model: schema.ModelT, num_classes=None) -> str:
    """An SSD in words: SSD MobileNetV2 FPN-lite 320, 4 classes, int8, TF2 Object Detection API.

    num_classes: None if only the outputs can say. A backbone of another kind is left out.
    """
    graph = model.subgraphs[0]
    names = [operator_name(model, each) for each in graph.operators]
    words = ["SSD"]
    backbone = _backbone(graph, names)
    if backbone is not None:
        words.append(backbone)
    if _has_upsampling(names):
        is_lite = names.count("DEPTHWISE_CONV_2D") > _MAX_BACKBONE
        words.append("FPN-lite" if is_lite else "FPN")
    words.append(_join(_shape(graph, graph.inputs[0])[1:3]))
    if num_classes is None:
        num_classes = _raw_classes(graph)
    classes = "" if num_classes is None else f", {count_classes(num_classes)}"
    raw = "" if POSTPROCESS in names else ", without post-processing"
    tensors = "\n".join(_tensor_names(graph))
    api = next((api for pattern, api in _APIS if re.search(pattern, tensors)), "")
    return f"{' '.join(words)}{classes}, {_precision(graph, names)}{raw}{api}"


def _backbone(graph, names):
    """The backbone that has these operators, or None."""
    if "L2_NORMALIZATION" in names:
        return "VGG"
    if "HARD_SWISH" in names:
        return "MobileNetV3"
    convolutions = [
        (name, _shape(graph, operator.inputs[1]))
        for name, operator in zip(names, graph.operators, strict=True)
        if name.endswith("CONV_2D")
    ]
    if "DEPTHWISE_CONV_2D" not in names:
        is_resnet = any(shape[1:3] == [7, 7] for _, shape in convolutions[:1])
        return "ResNet" if is_resnet else None
    is_v1 = [name for name, _ in convolutions[3:4]] == ["DEPTHWISE_CONV_2D"]
    return "MobileNetV1" if is_v1 else "MobileNetV2"


def _has_upsampling(names):
    return any(name.startswith("RESIZE") or name in ("PACK", "TILE") for name in names)


def _raw_classes(graph):
    """C, from the outputs [1, A, 4] and [1, A, C + 1], or None."""
    shapes = [_shape(graph, index) for index in graph.outputs]
    sizes = [shape[2] for shape in shapes if len(shape) == 3]
    if 4 in sizes:
        sizes.remove(4)  # the offsets; the API may also return its default boxes
    return max(sizes, key=lambda size: size != 4, default=0) - 1 if sizes else None


def _precision(graph, names):
    kernels = [
        graph.tensors[each.inputs[1]].type
        for each, name in zip(graph.operators, names, strict=True)
        if name == "CONV_2D"
    ]
    if schema.TensorType.INT8 not in kernels and schema.TensorType.UINT8 not in kernels:
        is_half = any(each.type == schema.TensorType.FLOAT16 for each in graph.tensors)
        return "float16" if is_half else "float32"
    first = next(
        each for each, name in zip(graph.operators, names, strict=True) if name == "CONV_2D"
    )
    is_float = graph.tensors[first.outputs[0]].type == schema.TensorType.FLOAT32
    return "dynamic-range int8" if is_float else "full int8"


def _tensor_names(graph):
    return [(tensor.name or b"").decode(errors="replace") for tensor in graph.tensors]


def _shape(graph, index):
    shape = graph.tensors[index].shape
    return [] if shape is None else [int(size) for size in shape]


def _join(sizes):
    return str(sizes[0]) if len(set(sizes)) == 1 else " x ".join(map(str, sizes))
