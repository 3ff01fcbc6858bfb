"""TFLite files as data: dequantisation by hand, settings, damage, and a real quantised detector."""

import types

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.boxes import coding
from ssd_tf.config import check_config
from ssd_tf.data.images import resize_array
from ssd_tf.errors import ConfigError
from ssd_tf.pixels import read_image
from ssd_tf.weights import label_files
from ssd_tf.weights.importers import imported, od_api, od_tflite, st_zoo, tflite_kind

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
}


def test_sizes_of_default_boxes_are_exact_on_large_maps():
    anchors = np.empty((80, 80, 1, 4), np.float32)
    anchors[..., 0] = (np.arange(80)[:, None, None] + 0.5) / 80
    anchors[..., 1] = (np.arange(80)[:, None] + 0.5) / 80
    anchors[..., 2:] = 45.254834 / 640
    found = od_tflite._Reader._level_shapes(
        types.SimpleNamespace(label="x"), anchors.reshape(-1, 4), 0.0, [(1, 80, 80, 4)], (640, 640)
    )
    # What od_api.describe_boxes takes for the sizes of a preset is within .001 of them.
    np.testing.assert_allclose(found, [[[45.254834, 45.254834]]], atol=1e-4)


class File:
    """A TFLite file with one convolution, BoxPredictor_0/BoxEncodingPredictor, on a 2 x 3 map."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors = []
        self.graph.operators = []
        self.model.subgraphs = [self.graph]

    def tensor(self, name, shape, dtype="float32", values=None, scale=None, zero=None, axis=0):
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = list(shape)
        tensor.type = TYPES[dtype]
        tensor.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.asarray(values, dtype).tobytes()
            buffer.data = np.frombuffer(buffer.data, np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array(scale, np.float32)
            tensor.quantization.zeroPoint = np.array(zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, code, inputs, outputs, options=None, custom=None):
        entry = schema.OperatorCodeT()
        entry.builtinCode = code
        entry.deprecatedBuiltinCode = min(code, 127)
        operator = schema.OperatorT()
        if custom is not None:
            name, values = custom
            entry.customCode = name
            operator.customOptions = np.frombuffer(flexbuffers.Dumps(values), np.uint8)
        self.model.operatorCodes.append(entry)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = list(inputs)
        operator.outputs = list(outputs)
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.graph.operators.append(operator)

    def convolution(self, image, kernel, bias, output, activation=0):
        options = schema.Conv2DOptionsT()
        options.fusedActivationFunction = activation
        self.operator(
            schema.BuiltinOperator.CONV_2D,
            [image, kernel, bias],
            [output],
            (schema.BuiltinOptions.Conv2DOptions, options),
        )

    def write(self, path, inputs=(0,), outputs=()):
        self.graph.inputs = list(inputs)
        self.graph.outputs = list(outputs)
        builder = schema.flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


HEAD = "BoxPredictor_0/BoxEncodingPredictor"


def one_convolution(kernel, bias, activation=0, image=None):
    """A file whose only layer is the box head of the first map, with one box per cell."""
    file = File()
    image = image or {"dtype": "float32"}
    file.tensor("image", (1, 64, 96, 3), **image)
    kernel = file.tensor(f"x;{HEAD}/weights;y", (4, 1, 1, 3), **kernel)
    bias = file.tensor("bias", (4,), **bias)
    output = file.tensor(f"{HEAD}/BiasAdd", (1, 2, 3, 4))
    file.convolution(0, kernel, bias, output, activation)
    return file


FLOATS = np.arange(12, dtype="float32").reshape(4, 1, 1, 3) / 4
BIAS = {"values": [1.0, 2.0, 3.0, 4.0]}


def layer_of(file, tmp_path):
    layers = od_tflite.read_tflite(file.write(tmp_path / "file.tflite")).layers
    (name,) = layers
    assert od_api.our_name(name) == "offsets0_conv"
    return layers[name]


def test_float32_is_taken_as_it_is(tmp_path):
    layer = layer_of(one_convolution({"values": FLOATS}, BIAS), tmp_path)
    # OHWI becomes HWIO: the first output has inputs 0, .25, .5.
    assert layer.kernel.shape == (1, 1, 3, 4)
    np.testing.assert_array_equal(layer.kernel[0, 0, :, 0], [0, 0.25, 0.5])
    np.testing.assert_array_equal(layer.kernel[0, 0, 0], [0, 0.75, 1.5, 2.25])
    np.testing.assert_array_equal(layer.bias, [1, 2, 3, 4])
    assert layer.norm is None


def test_float16_comes_through_an_operator(tmp_path):
    file = one_convolution({}, BIAS)
    constant = file.tensor("half", (4, 1, 1, 3), "float16", FLOATS)
    file.operator(schema.BuiltinOperator.DEQUANTIZE, [constant], [1])
    layer = layer_of(file, tmp_path)
    np.testing.assert_array_equal(layer.kernel[0, 0, :, 3], [2.25, 2.5, 2.75])


def test_uint8_has_one_scale(tmp_path):
    kernel = {"dtype": "uint8", "values": range(100, 112), "scale": [0.5], "zero": [102]}
    bias = {"dtype": "int32", "values": [-4, 0, 4, 8], "scale": [0.25], "zero": [0]}
    layer = layer_of(one_convolution(kernel, bias), tmp_path)
    np.testing.assert_array_equal(layer.kernel[0, 0, :, 0], [-1, -0.5, 0])
    np.testing.assert_array_equal(layer.bias, [-1, 0, 1, 2])


def test_int8_has_a_scale_for_each_channel(tmp_path):
    scale = [1.0, 0.5, 0.25, 2.0]
    kernel = {"dtype": "int8", "values": [-4, 0, 4] * 4, "scale": scale, "zero": [0] * 4}
    layer = layer_of(one_convolution(kernel, BIAS), tmp_path)
    np.testing.assert_array_equal(layer.kernel[0, 0, 0], [-4, -2, -1, -8])
    np.testing.assert_array_equal(layer.kernel[0, 0, 2], [4, 2, 1, 8])


@pytest.mark.parametrize(
    ("image", "mean", "std"),
    [
        ({"dtype": "uint8", "scale": [1 / 64], "zero": [120]}, 120, 64),
        # A pixel p arrives as p - 128.
        ({"dtype": "int8", "scale": [1 / 64], "zero": [-8]}, 120, 64),
    ],
)
def test_a_quantised_input_states_the_normalisation(tmp_path, image, mean, std):
    file = one_convolution({"values": FLOATS}, BIAS, image=image)
    settings = od_tflite.read_tflite(file.write(tmp_path / "file.tflite")).settings
    assert settings == {
        "model.input_hw": [64, 96],
        "model.backbone.mean_rgb": [mean] * 3,
        "model.backbone.std_rgb": [std] * 3,
    }


OPTIONS = {
    "y_scale": 8.0,
    "x_scale": 10.0,
    "h_scale": 4.0,
    "w_scale": 5.0,
    "nms_score_threshold": 0.25,
    "nms_iou_threshold": 0.5,
    "max_detections": 10,
    "num_classes": 3,
}


def with_postprocess(anchors, **options):
    file = one_convolution({"values": FLOATS}, BIAS)
    scores = file.tensor("scores", (1, 6, 4))
    file.operator(schema.BuiltinOperator.SOFTMAX, [scores], [scores])
    constant = file.tensor("anchors", (len(anchors), 4), values=anchors)
    custom = (b"TFLite_Detection_PostProcess", {**OPTIONS, **options})
    file.operator(schema.BuiltinOperator.CUSTOM, [3, scores, constant], [], custom=custom)
    return file


# Centres of the cells of a map of 2 x 3, and boxes of .25 x .5.
CENTRES = [(y, x) for y in (0.25, 0.75) for x in (1 / 6, 0.5, 5 / 6)]
ANCHORS = np.array([(y, x, 0.25, 0.5) for y, x in CENTRES], "float32")


def test_the_postprocess_operator_states_the_settings(tmp_path):
    source = od_tflite.read_tflite(with_postprocess(ANCHORS).write(tmp_path / "file.tflite"))
    assert source.settings == {
        "model.input_hw": [64, 96],
        "model.score_activation": "softmax",
        "boxes.variances": [0.125, 0.1, 0.25, 0.2],
        "eval.score_floor": 0.25,
        "eval.nms_iou": 0.5,
        "eval.class_agnostic": True,
        "eval.max_detections": 10,
    }
    # .25 of 64 and .5 of 96 pixels.
    np.testing.assert_allclose(source.level_shapes, [[[16, 48]]])
    assert source.box_rounding is None


def test_regular_nms_is_per_class(tmp_path):
    file = with_postprocess(ANCHORS, use_regular_nms=True)
    settings = od_tflite.read_tflite(file.write(tmp_path / "file.tflite")).settings
    assert settings["eval.class_agnostic"] is False


def rejection(file, tmp_path):
    with pytest.raises(ConfigError) as caught:
        od_tflite.read_tflite(file.write(tmp_path / "file.tflite"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_anchors_that_are_not_those_of_the_maps(tmp_path):
    assert "expected 6 anchors for its maps, found 7" in rejection(
        with_postprocess(np.concatenate([ANCHORS, ANCHORS[:1]])), tmp_path
    )
    moved = np.add(ANCHORS, [0.1, 0, 0, 0])
    assert "the anchors of the map of 2 x 3 are not centred" in rejection(
        with_postprocess(moved), tmp_path
    )


def test_a_detector_of_another_kind_is_rejected_by_its_first_layer(tmp_path):
    file = with_postprocess(ANCHORS)
    for tensor in file.graph.tensors:
        tensor.name = tensor.name.replace("BoxPredictor", "OtherPredictor")
    path = file.write(tmp_path / "file.tflite")
    source = od_tflite.read_tflite(path)
    assert source.level_shapes is None
    with pytest.raises(ConfigError, match=r"file.tflite: x belongs to no network that can be"):
        od_api.convert(source, path)


def test_relu_is_not_relu6(tmp_path):
    file = one_convolution({"values": FLOATS}, BIAS, activation=1)
    assert f"{HEAD}/weights: expected ReLU6, found ReLU" in rejection(file, tmp_path)


def test_weights_that_are_computed(tmp_path):
    assert "expected constant numbers in" in rejection(one_convolution({}, BIAS), tmp_path)


@pytest.mark.parametrize(
    ("operators", "size", "backbone"),
    [
        ("", 3, ""),
        ("CONV_2D", 3, ""),
        ("CONV_2D", 7, " ResNet"),
        ("CONV_2D L2_NORMALIZATION", 3, " VGG"),
        ("CONV_2D DEPTHWISE_CONV_2D CONV_2D DEPTHWISE_CONV_2D", 3, " MobileNetV1"),
        ("CONV_2D DEPTHWISE_CONV_2D CONV_2D CONV_2D", 3, " MobileNetV2"),
        ("CONV_2D HARD_SWISH DEPTHWISE_CONV_2D CONV_2D CONV_2D", 3, " MobileNetV3"),
    ],
)
def test_what_a_file_is_called(operators, size, backbone, tmp_path):
    """By its operators; the first output is the offsets, the second has the background, too."""
    file = File()
    file.tensor("image", (1, 64, 96, 3))
    kernel = file.tensor("kernel", (4, size, size, 3))
    outputs = [file.tensor(f"output {count}", (1, 6, count)) for count in (4, 2)]
    for name in operators.split():
        file.operator(getattr(schema.BuiltinOperator, name), [0, kernel], outputs)
    content = file.write(tmp_path / "file.tflite", outputs=outputs).read_bytes()
    found = tflite_kind.describe(schema.ModelT.InitFromPackedBuf(content, 0))
    assert found == f"SSD{backbone} 64 x 96, 1 class, float32, without post-processing"


def test_a_truncated_file(tmp_path):
    path = one_convolution({"values": FLOATS}, BIAS).write(tmp_path / "file.tflite")
    content = path.read_bytes()
    for size in (10, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(ConfigError, match=r"file.tflite( is corrupt|: )"):
            od_tflite.read_tflite(path)


def st_file(first=((0, 0, 33, 50), (33, 0, 67, 50), (67, 0, 100, 50))):
    """An int8 file as in ST's model zoo: maps of 2 x 3 and 1 x 2, with one box per cell.

    first: of the first row, xmin, ymin, xmax and ymax in hundredths; the second is 50 below it.
    """
    file = File()
    file.tensor("image", (1, 64, 96, 3))
    heads = {"boxes": [], "classes": []}
    for height, width in ((2, 3), (1, 2)):
        for role, size in (("boxes", 4), ("classes", 3)):
            values = np.arange(size * 3, dtype="float32") / 4
            kernel = file.tensor("kernel", (size, 1, 1, 3), values=values)
            bias = file.tensor("bias", (size,), values=np.arange(1.0, size + 1))
            output = file.tensor("head", (1, height, width, size))
            file.convolution(0, kernel, bias, output)
            heads[role].append(output)
    joined = [join(file, heads["boxes"], (1, 8, 4)), join(file, heads["classes"], (1, 8, 3))]
    scores = file.tensor("scores", (1, 8, 3))
    file.operator(schema.BuiltinOperator.SOFTMAX, joined[1:], [scores])
    second = [(xmin, ymin + 50, xmax, ymax + 50) for xmin, ymin, xmax, ymax in first]
    corners = [[*first, *second], [(-10, 20, 60, 80), (40, 20, 110, 80)]]
    steps = {"dtype": "int8", "scale": [0.01], "zero": [-40]}
    tiles = []
    for shape, values in zip(((1, 2, 3, 1, 4), (1, 1, 2, 1, 4)), corners, strict=True):
        constant = file.tensor("corners", shape, values=np.subtract(values, 40), **steps)
        tiles.append(file.tensor("tile", shape, **steps))
        file.operator(schema.BuiltinOperator.TILE, [constant], tiles[-1:])
    anchors = file.tensor("anchors", (1, 8, 4))
    file.operator(
        schema.BuiltinOperator.DEQUANTIZE, [join(file, tiles, (1, 8, 4), **steps)], [anchors]
    )
    file.outputs = {
        "bboxes_concat": joined[0],
        "classes_softmax": scores,
        "anchors_concat": anchors,
    }
    return file


def join(file, tensors, shape, **kind):
    """The tensor that these become, listed box by box."""
    lists = [file.tensor("list", (1, shape[1] // 2, shape[2]), **kind) for _ in tensors]
    for tensor, values in zip(tensors, lists, strict=True):
        file.operator(schema.BuiltinOperator.RESHAPE, [tensor], [values])
    joined = file.tensor("joined", shape, **kind)
    file.operator(schema.BuiltinOperator.CONCATENATION, lists, [joined])
    return joined


def write_signature(file, path):
    """Write a file with its outputs, which a signature names."""
    signature = schema.SignatureDefT()
    signature.inputs = []
    signature.outputs = []
    for name, index in file.outputs.items():
        entry = schema.TensorMapT()
        entry.name = name
        entry.tensorIndex = index
        signature.outputs.append(entry)
    file.model.signatureDefs = [signature]
    return file.write(path, outputs=file.outputs.values())


def test_moved_corners_of_sts_model_zoo(tmp_path):
    graph = od_tflite.read_tflite(write_signature(st_file(), tmp_path / "file.tflite"))
    assert graph.settings == {
        "model.input_hw": [64, 96],
        "model.score_activation": "softmax",
        "boxes.coding": "corners",
        "boxes.variances": [0.1, 0.1, 0.2, 0.2],
        "eval.score_floor": 0.001,
        "eval.nms_iou": 0.5,
        "eval.class_agnostic": False,
        "eval.max_detections": 100,
    }
    # Half of 64 and, in the mean of .33, .34 and .33, a third of 96 pixels; .6 and .7 of them.
    np.testing.assert_allclose(graph.level_shapes[0], [[32, 32]], rtol=1e-5)
    np.testing.assert_allclose(graph.level_shapes[1], [[38.4, 67.2]], rtol=1e-5)
    assert graph.box_rounding is None
    assert (graph.box_heads, graph.class_heads) == ([0, 2], [1, 3])
    # Boxes have y before x, and are divided by .1; classes have their order.
    for index in (0, 2):
        kernel, bias = graph.arrays[index]
        np.testing.assert_allclose(kernel[0, 0, 0], [7.5, 0, 22.5, 15])
        np.testing.assert_allclose(bias, [20, 10, 40, 30])
    for index in (1, 3):
        kernel, bias = graph.arrays[index]
        np.testing.assert_array_equal(kernel[0, 0, 0], [0, 0.75, 1.5])
        np.testing.assert_array_equal(bias, [1, 2, 3])
    (note,) = graph.notes
    assert "boxes.coding = corners" in note


def test_corners_that_are_not_about_the_cells(tmp_path):
    # The first row with y before x.
    swapped = [(0, 0, 50, 33), (0, 33, 50, 67), (0, 67, 50, 100)]
    path = write_signature(st_file(swapped), tmp_path / "file.tflite")
    with pytest.raises(ConfigError, match=r"the anchors of the map of 2 x 3 are not centred"):
        od_tflite.read_tflite(path)


@pytest.mark.parametrize("name", st_zoo.OUTPUTS)
def test_outputs_without_the_names_of_sts_model_zoo(name, tmp_path):
    file = st_file()
    file.outputs["other"] = file.outputs.pop(name)
    path = write_signature(file, tmp_path / "file.tflite")
    # Heads are not known then, as in any other file.
    assert isinstance(od_tflite.read_tflite(path), od_api.Source)


def test_default_boxes_that_are_computed(tmp_path):
    file = st_file()
    for operator in file.graph.operators:
        code = file.model.operatorCodes[operator.opcodeIndex]
        if code.builtinCode == schema.BuiltinOperator.TILE:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    path = write_signature(file, tmp_path / "file.tflite")
    with pytest.raises(ConfigError, match="expected constant numbers in tile"):
        od_tflite.read_tflite(path)


def read_anchors(path):
    """The default boxes [A, 4] of a quantised file, through LiteRT."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (entry,) = [each for each in interpreter.get_tensor_details() if each["name"] == "anchors"]
    scale, zero = entry["quantization"]
    centred = scale * (interpreter.get_tensor(entry["index"]).astype(np.float32) - zero)
    half = centred[:, 2:] / 2
    return np.concatenate([centred[:, :2] - half, centred[:, :2] + half], 1)


def test_the_real_coco_detector(shared_data):
    """Its settings, and that every layer of our network is filled from it."""
    path = shared_data / "weights" / "ssd_mobilenet_v1_coco_quant.tflite"
    detector = od_api.convert(od_tflite.read_tflite(path), path)
    assert detector.notes == [
        "centres and sizes of default boxes are rounded to multiples of 0.00645306 of the image, "
        "as in the file; --set boxes.rounding=null gives the exact ones",
        "batch norm is folded into the convolutions: train.bn = frozen",
    ]
    labels = path.with_suffix(".txt")
    classes = label_files.read_classes(labels, imported.num_classes(detector, path), path)
    assert len(classes) == 80
    assert classes[0] == {"name": "person", "id": 1}
    assert classes[-1] == {"name": "toothbrush", "id": 90}
    config = check_config(detector.values, str(path))
    network = imported.build_network(detector, config, classes, path)
    assert config.boxes.preset == "od_api"
    assert config.model.backbone.alpha == 0.75
    assert config.eval.class_agnostic and config.eval.max_detections == 10
    assert network.map_shapes == ((19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
    np.testing.assert_allclose(network.default_boxes, read_anchors(path), atol=1e-6)
    # The class heads of the first map have 3 boxes of 81 rows; the file has 91.
    assert network.model.get_layer("logits0_conv").weights[1].shape == (243,)
    whole = detector.arrays["logits0_conv"][1].reshape(3, 91)
    kept = network.model.get_layer("logits0_conv").get_weights()[1].reshape(3, 81)
    np.testing.assert_array_equal(kept[:, [0, 1, 80]], whole[:, [0, 1, 90]])


@pytest.mark.integration
def test_the_real_detector_of_sts_model_zoo(shared_data):
    """On an image, each default box that has an object moves and scores as in the file."""
    path = shared_data / "weights" / "tf2" / "ssd_mobilenet_v2_fpnlite_10_256_int8.tflite"
    detector = od_tflite.import_tflite(path)
    config = check_config(detector.values, str(path))
    assert detector.kind == "SSD with a feature pyramid, TFLite file of ST's model zoo"
    assert (config.model.neck_upsampling, config.boxes.coding) == ("bilinear", "corners")
    assert (config.model.tower.num_layers, config.model.tower.per_map) == (4, True)
    # Evenly from .1042 to .9 of the input (get_sizes_ratios_ssd_v2).
    sides = [np.sqrt(np.prod(level.shapes[0])) for level in config.boxes.levels]
    np.testing.assert_allclose(sides, [26.7, 77.6, 128.5, 179.5, 230.4], atol=1.2)
    classes = label_files.read_classes(path.with_suffix(".txt"), 80, path)
    network = imported.build_network(detector, config, classes, path)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    image = resize_array(read_image(shared_data / "coco128/images/000000000009.jpg"), (256, 256))
    found = interpreter.get_signature_runner()(input_1=np.round(image).astype(np.uint8)[None])
    default_boxes = found["anchors_concat"][0][:, [1, 0, 3, 2]]
    # The file rounds each corner to steps of .00807.
    np.testing.assert_allclose(network.default_boxes, default_boxes, atol=0.009)
    moves = found["bboxes_concat"][0][:, [1, 0, 3, 2]]
    boxes = default_boxes + moves * np.tile(default_boxes[:, 2:] - default_boxes[:, :2], 2)
    offsets, logits = (np.array(network.model(image[None])[key]) for key in ("offsets", "logits"))
    ours = coding.decode(offsets[0], network.default_boxes, config.boxes.variances).numpy()
    scores = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    objects = found["classes_softmax"][0][:, 1:].max(1) > 0.5
    assert objects.sum() > 5
    np.testing.assert_allclose(ours[objects], boxes[objects], atol=0.05)
    same = scores[objects].argmax(1) == found["classes_softmax"][0][objects].argmax(1)
    assert same.mean() > 0.9
