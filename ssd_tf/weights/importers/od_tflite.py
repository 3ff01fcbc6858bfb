"""Detectors of the TF Object Detection API as TFLite files, read as data: nothing is run.

Also those of ST's model zoo, which have no post-processing: `st_zoo`.
"""

import collections
import math
import pathlib

import numpy as np
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import tflite_metadata
from ssd_tf.errors import ConfigError, shorten
from ssd_tf.weights.importers import families, od_api, od_structure, st_zoo, tflite_kind
from ssd_tf.weights.importers.array_files import check_size
from ssd_tf.weights.importers.graph_match import Convolution
from ssd_tf.weights.importers.imported import Imported
from ssd_tf.weights.importers.od_api import Layer, Source, our_name, round_number
from ssd_tf.weights.importers.torchvision import swap_coordinates

IDENTIFIER = b"TFL3"
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.INT8: np.int8,
}
_CONVOLUTIONS = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
_RESIZE = schema.BuiltinOperator.RESIZE_BILINEAR
_JOIN = schema.BuiltinOperator.CONCATENATION
# What default boxes pass on their way to the output unchanged; TILE is for larger batches.
_UNCHANGING = (
    schema.BuiltinOperator.DEQUANTIZE,
    schema.BuiltinOperator.RESHAPE,
    schema.BuiltinOperator.TILE,
)
_ST_VARIANCES = od_api.DEFAULTS["boxes.variances"]  # any would do
_MAX_TABLES = 20_000  # detectors have about 1,000
_NAME = 10  # of a tensor, in its table of fields


def import_tflite(path) -> Imported:
    """Import a TFLite file. Raises ConfigError if it is corrupt or holds another network."""
    found = read_tflite(path)
    if isinstance(found, od_structure.Graph):
        return od_structure.convert(found, "TFLite file")
    return od_api.convert(found, found.label or path)


def read_tflite(path) -> Source | od_structure.Graph:
    """Read a file with float32, float16 or quantised weights, which are dequantised.

    Raises ConfigError if the file is corrupt, no SSD, or one of our exports.
    """
    content = pathlib.Path(path).read_bytes()
    if content[4:8] != IDENTIFIER:
        raise ConfigError(f"{path} is not a TFLite file")
    try:
        _check_counts(content, path)
        if tflite_metadata.read_metadata(content).is_ours:
            raise ConfigError(f"{path} {families.OWN_EXPORT}")
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        tflite_kind.check(model, path)
        reader = _Reader(model, path)
        reader.trace()
        if reader.has_pyramid or (reader.has_heads and not reader.has_names):
            tflite_kind.check_operators(model, reader.label)
            return reader.read_graph()
        source = reader.read()
        tflite_kind.check_operators(model, reader.label)
        return source
    except ConfigError:
        raise
    except Exception as error:  # reading beyond a corrupt flatbuffer's end raises almost anything
        raise ConfigError(f"{path} is corrupt ({shorten(error)})") from error


def _check_counts(content, path):
    """Raise ConfigError if the flatbuffer has too many tables, or longer names than the file.

    A few bytes may be used as any number of tables, each of which becomes an object here.
    """
    model = schema.Model.GetRootAs(content, 0)
    graphs = [model.SubgraphsLength(), model.OperatorCodesLength(), model.BuffersLength()]
    graphs += [model.MetadataLength(), model.SignatureDefsLength(), model.MetadataBufferLength()]
    total = _add_tables(0, graphs, path)
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        total = _add_tables(total, [graph.TensorsLength(), graph.OperatorsLength()], path)
        _check_names(graph, content, path)
    for index in range(model.SignatureDefsLength()):
        entry = model.SignatureDefs(index)
        total = _add_tables(total, [entry.InputsLength(), entry.OutputsLength()], path)


def _add_tables(total, counts, path):
    total += sum(counts)
    if total > _MAX_TABLES:
        raise ConfigError(f"{path} is corrupt: expected at most {_MAX_TABLES} tables")
    return total


def _check_names(graph, content, path):
    length = 0
    for index in range(graph.TensorsLength()):
        table = graph.Tensors(index)._tab
        offset = table.Offset(_NAME)
        length += table.VectorLen(offset) if offset else 0
    if length > len(content):
        raise ConfigError(f"{path} is corrupt: its names are longer than the file")


class _Reader:
    def __init__(self, model, path):
        self._model = model
        self._path = path
        self.label = str(path)  # the file and, once it is known, what it holds, for messages
        self._convolutions = []
        self._heads = [[], []]
        self._num_bytes = 0  # of all constants that were read, as float32
        self._buffers = model.buffers
        self._graph = model.subgraphs[0]
        self._codes = model.operatorCodes
        # float16 constants come through an operator.
        self._origins = {
            operator.outputs[0]: operator.inputs[0]
            for operator in self._graph.operators
            if self._code(operator) == schema.BuiltinOperator.DEQUANTIZE
        }

    def read(self):
        layers = {}
        heads = {}
        for operator in self._graph.operators:
            if self._code(operator) in _CONVOLUTIONS:
                name, layer = self._read_convolution(operator)
                layers[name] = layer
                ours = our_name(name) or ""
                if ours.startswith("offsets") and ours.endswith("_conv"):
                    heads[int(ours.removeprefix("offsets").removesuffix("_conv"))] = operator
        settings = self._input_settings()
        settings |= self._score_settings()
        postprocess = self._find_postprocess()
        if postprocess is None or not heads:  # the first unknown layer is an error then
            return Source("TFLite file", layers, settings, label=self.label)
        settings |= self._postprocess_settings(postprocess)
        anchors = self._constant(postprocess.inputs[2])
        step = self._quantization_step(postprocess.inputs[2])
        map_shapes = [self._shape(heads[index].outputs[0]) for index in sorted(heads)]
        input_hw = settings["model.input_hw"]
        level_shapes = self._level_shapes(anchors, step, map_shapes, input_hw)
        rounding = round_number(step) or None
        return Source("TFLite file", layers, settings, level_shapes, rounding, self.label)

    def trace(self):
        """Find the convolutions, as graph_match takes them, and the heads among them.

        The heads are those before the post-processing, or before the outputs of ST's model zoo, for
        boxes and for classes, finest map first; else there are none.
        """
        feeding = collections.defaultdict(frozenset)
        for operator in self._graph.operators:
            inputs = frozenset().union(*(feeding[index] for index in operator.inputs))
            if self._code(operator) in _CONVOLUTIONS:
                options = operator.builtinOptions
                strides = (options.strideH, options.strideW)
                shape = self._kernel_shape(operator)
                self._convolutions.append(Convolution(shape, strides, inputs, operator))
                inputs = frozenset([len(self._convolutions) - 1])
            for index in operator.outputs:
                feeding[index] = inputs
        postprocess = self._find_postprocess()
        outputs = self._find_st_outputs() if postprocess is None else postprocess.inputs
        if len(outputs):
            self._heads = [
                sorted(feeding[index], key=lambda each: -self._num_pixels(self._convolutions[each]))
                for index in outputs[:2]
            ]
        if tflite_kind.is_ssd(self._model):
            words = tflite_kind.describe(self._model, self._count_classes())
            self.label = f"{self.label} ({words})"

    @property
    def has_pyramid(self):
        """Whether maps of different sizes are added up."""
        return any(
            len({self._num_pixels(self._convolutions[index]) for index in each.inputs}) > 1
            for each in self._convolutions
        )

    @property
    def has_heads(self):
        """Whether several maps have heads for boxes and for classes."""
        boxes, classes = self._heads
        return len(boxes) == len(classes) > 1

    @property
    def has_names(self):
        """Whether layers are named as by the API of TensorFlow 1."""
        return any(
            our_name(name)
            for each in self._convolutions
            for index in (*each.source.inputs, *each.source.outputs)
            for name in self._name(index).split(";")
        )

    def _count_classes(self):
        """C, or None without heads."""
        if not self.has_heads:
            return None
        sizes = [self._convolutions[indices[0]].shape[-1] for indices in self._heads]
        return sizes[1] * 4 // sizes[0] - 1

    def read_graph(self) -> od_structure.Graph:
        """The weights and settings of what `trace` found.

        Raises ConfigError if nothing in the file says how its boxes are coded.
        """
        box_heads, class_heads = self._heads
        settings = self._input_settings() | self._score_settings() | self._neck_settings()
        coding, anchors, step = self._read_coding()
        settings |= coding
        level_shapes = self._level_shapes(
            anchors,
            step,
            [self._shape(self._convolutions[index].source.outputs[0]) for index in box_heads],
            settings["model.input_hw"],
        )
        graph = od_structure.Graph(
            self.label,
            self._convolutions,
            [self._kernel_and_bias(each.source) for each in self._convolutions],
            box_heads,
            class_heads,
            settings,
            level_shapes,
            round_number(step) or None,
            self.has_pyramid,
        )
        return graph if self._find_postprocess() is not None else _complete_st_graph(graph)

    def _read_coding(self):
        """Settings, anchors [A, 4] as centre y, x, height, width, and their quantization step."""
        postprocess = self._find_postprocess()
        if postprocess is not None:
            index = postprocess.inputs[2]
            settings = self._postprocess_settings(postprocess)
            return settings, self._constant(index), self._quantization_step(index)
        outputs = self._find_st_outputs()
        if not outputs:
            raise ConfigError(
                f"{self.label} cannot be imported, as nothing in it says how its boxes are coded: "
                "give a file with post-processing, or its checkpoint"
            )
        return _st_settings(), *self._read_corners(outputs[2])

    def _kernel_shape(self, operator):
        count, height, width, channels = self._shape(operator.inputs[1])
        is_depthwise = self._code(operator) == schema.BuiltinOperator.DEPTHWISE_CONV_2D
        return (height, width, channels) if is_depthwise else (height, width, channels, count)

    def _check_activation(self, operator, name):
        options = operator.builtinOptions
        if options.fusedActivationFunction == schema.ActivationFunctionType.RELU:
            raise ConfigError(f"{self.label}: {name}: expected ReLU6, found ReLU")

    def _kernel_and_bias(self, operator):
        self._check_activation(operator, self._name(operator.outputs[0]))
        kernel = self._constant(operator.inputs[1]).transpose(1, 2, 3, 0)
        return kernel.reshape(self._kernel_shape(operator)), self._constant(operator.inputs[2])

    def _num_pixels(self, convolution):
        return math.prod(self._shape(convolution.source.outputs[0])[1:3])

    def _read_convolution(self, operator):
        """(name, Layer); the name is the first of its tensors' names that we know."""
        _, kernel_index, bias_index = operator.inputs
        tensors = (kernel_index, bias_index, operator.outputs[0])
        names = [name for index in tensors for name in self._name(index).split(";")]
        name = next((name for name in names if our_name(name)), names[0])
        options = operator.builtinOptions
        self._check_activation(operator, name)
        # OHWI, or 1HWC of a depthwise convolution.
        kernel = self._constant(kernel_index).transpose(1, 2, 3, 0)
        return name, Layer(
            kernel,
            self._constant(bias_index),
            strides=(options.strideH, options.strideW),
            padding="SAME" if options.padding == schema.Padding.SAME else "VALID",
            dilations=(options.dilationHFactor, options.dilationWFactor),
        )

    def _input_settings(self):
        index = self._graph.inputs[0]
        shape = self._shape(index)
        if len(shape) != 4 or shape[3] != 3 or -1 in self._signature(index):
            raise ConfigError(f"{self.label}: expected an image [1, H, W, 3] as input, got {shape}")
        settings = {"model.input_hw": shape[1:3]}
        tensor = self._graph.tensors[index]
        if tensor.type != schema.TensorType.FLOAT32:
            # The network sees scale * (q - zero_point); an int8 is the pixel minus 128.
            shift = 128 if tensor.type == schema.TensorType.INT8 else 0
            mean = float(tensor.quantization.zeroPoint[0]) + shift
            settings["model.backbone.mean_rgb"] = [mean] * 3
            std = round_number(1 / tensor.quantization.scale[0])
            settings["model.backbone.std_rgb"] = [std] * 3
        return settings

    def _score_settings(self):
        activations = {
            schema.BuiltinOperator.LOGISTIC: "sigmoid",
            schema.BuiltinOperator.SOFTMAX: "softmax",
        }
        for operator in self._graph.operators:
            if self._code(operator) in activations:
                return {"model.score_activation": activations[self._code(operator)]}
        return {}

    def _neck_settings(self):
        resizes = [each for each in self._graph.operators if self._code(each) == _RESIZE]
        if not resizes or not self.has_pyramid:
            return {}
        if not all(each.builtinOptions.halfPixelCenters for each in resizes):
            raise ConfigError(
                f"{self.label}: expected maps enlarged about the centres of pixels, found "
                "RESIZE_BILINEAR without half_pixel_centers"
            )
        return {"model.neck_upsampling": "bilinear"}

    def _find_st_outputs(self):
        """The indices of the tensors of st_zoo.OUTPUTS, or nothing."""
        for signature in self._model.signatureDefs or []:
            found = {entry.name: entry.tensorIndex for entry in signature.outputs}
            names = [name.encode() for name in st_zoo.OUTPUTS]
            if found.keys() >= set(names):
                return [found[name] for name in names]
        return []

    def _read_corners(self, index):
        """Default boxes as xmin, ymin, xmax, ymax -> as `_read_coding` has them, and the step."""
        parts = self._list_parts(index)
        corners = np.concatenate([self._constant(part).reshape(-1, 4) for part in parts])
        low, high = swap_coordinates(corners).reshape(-1, 2, 2).transpose(1, 0, 2)
        step = max(self._quantization_step(part) for part in parts)
        return np.concatenate([(low + high) / 2, high - low], 1), step

    def _list_parts(self, index):
        """The indices of the tensors that a concatenated one consists of."""
        index = self._find_origin(index)
        for operator in self._graph.operators:
            if index in operator.outputs and self._code(operator) == _JOIN:
                return [self._find_origin(part) for part in operator.inputs]
        return [index]

    def _find_origin(self, index):
        """The index of the tensor that one is a copy of; operators come after their inputs."""
        for operator in reversed(self._graph.operators):
            if index in operator.outputs and self._code(operator) in _UNCHANGING:
                index = operator.inputs[0]
        return index

    def _find_postprocess(self):
        for operator in self._graph.operators:
            if tflite_kind.operator_name(self._model, operator) == tflite_kind.POSTPROCESS:
                return operator
        return None

    def _postprocess_settings(self, operator):
        options = flexbuffers.Loads(bytes(operator.customOptions))
        scales = [options[f"{axis}_scale"] for axis in "yxhw"]
        return {
            "boxes.variances": [round_number(1 / scale) for scale in scales],
            "eval.score_floor": round_number(options["nms_score_threshold"]),
            "eval.nms_iou": round_number(options["nms_iou_threshold"]),
            "eval.class_agnostic": not options.get("use_regular_nms", False),
            "eval.max_detections": int(options["max_detections"]),
        }

    def _level_shapes(self, anchors, step, map_shapes, input_hw):
        """Anchors [A, 4] as centre y, x, height, width -> shapes of each level, in pixels.

        They are means over the cells, whose corners may have been rounded one by one. Raises
        ConfigError if the centres are not those of the cells.
        """
        levels = []
        begin = 0
        for _, height, width, channels in map_shapes:
            per_cell = channels // 4
            end = begin + height * width * per_cell
            grid = anchors[begin:end].reshape(height, width, per_cell, 4)
            if not _are_centred(grid, input_hw, max(step, 1e-4)):
                raise ConfigError(
                    f"{self.label}: the anchors of the map of {height} x {width} are not centred "
                    "on its cells"
                )
            levels.append(grid[..., 2:].mean((0, 1), dtype=np.float64) * input_hw)
            begin = end
        if begin != len(anchors):
            raise ConfigError(
                f"{self.label}: expected {begin} anchors for its maps, found {len(anchors)}"
            )
        return levels

    def _code(self, operator):
        code = self._codes[operator.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def _name(self, index):
        return self._graph.tensors[index].name.decode()

    def _shape(self, index):
        return [int(size) for size in self._graph.tensors[index].shape]

    def _signature(self, index):
        """The shape with -1 for sizes that are not fixed; empty if all are."""
        signature = self._graph.tensors[index].shapeSignature
        return [] if signature is None else list(signature)[1:]

    def _quantization_step(self, index):
        quantization = self._graph.tensors[index].quantization
        if quantization is None or quantization.scale is None:
            return 0.0
        return float(quantization.scale[0])

    def _constant(self, index):
        """A constant tensor as float32."""
        index = self._origins.get(index, index)
        tensor = self._graph.tensors[index]
        data = self._buffers[tensor.buffer].data
        if data is None or tensor.type not in _DTYPES:
            raise ConfigError(f"{self.label}: expected constant numbers in {self._name(index)}")
        values = np.asarray(data, np.uint8).view(_DTYPES[tensor.type])
        self._num_bytes += 4 * values.size
        check_size(self._num_bytes, self._path)
        values = values.astype(np.float32)
        values = values.reshape(self._shape(index))
        quantization = tensor.quantization
        if tensor.type in (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16):
            return values
        # One scale, or one for each slice along a dimension.
        shape = [1] * values.ndim
        shape[quantization.quantizedDimension] = -1
        zero = np.asarray(quantization.zeroPoint, np.float32).reshape(shape)
        return (values - zero) * np.asarray(quantization.scale, np.float32).reshape(shape)


def _st_settings():
    evaluation = {f"eval.{key}": value for key, value in st_zoo.EVAL.items()}
    return {"boxes.coding": "corners", "boxes.variances": _ST_VARIANCES} | evaluation


def _complete_st_graph(graph):
    """The graph of a file of ST's model zoo with what `od_structure` cannot know."""
    arrays = list(graph.arrays)
    for index in graph.box_heads:
        # Its moves are not divided by variances.
        arrays[index] = tuple(swap_coordinates(value) / _ST_VARIANCES[0] for value in arrays[index])
    stated = ", ".join(f"{key} = {value}" for key, value in _st_settings().items())
    return graph._replace(
        arrays=arrays,
        box_rounding=None,  # it is for centres and sizes, and corners were rounded
        origin="ST's model zoo",
        notes=(f"not in the file, so as in ST's model zoo: {stated}",),
    )


def _are_centred(grid, input_hw, tolerance):
    """Whether anchors [H, W, k, 4] have their centres in cells, or at multiples of the stride."""
    for axis, (size, side) in enumerate(zip(grid.shape[:2], input_hw, strict=True)):
        index = np.arange(size).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        stride = 2 ** math.ceil(math.log2(side / size)) / side
        centres = ((index + 0.5) / size, (index + 0.5) * stride, index * stride)
        if min(np.abs(grid[..., axis] - each).max() for each in centres) > tolerance:
            return False
    return True
