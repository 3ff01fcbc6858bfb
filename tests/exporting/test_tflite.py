import dataclasses
import functools
import itertools
import json
import pathlib
import shutil

import fixed_detector
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from fixed_detector import IMAGES, NAMES, OBJECTS, assert_found, box_of
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.config import PostProcessing, check_config
from ssd_tf.errors import ConfigError
from ssd_tf.exporting import tflite, verify
from ssd_tf.exporting.export import write_raw_settings
from ssd_tf.exporting.folder import PRECISIONS
from ssd_tf.inference import raw_decoder
from ssd_tf.inference.detector import keras_detector, make_postprocessor
from ssd_tf.inference.loading import load_detector
from ssd_tf.inference.thresholds import Thresholds
from ssd_tf.models.postprocess import PostProcessor
from ssd_tf.models.ssd import SSD
from ssd_tf.weights.importers import detectors

OPERATOR = "TFLite_Detection_PostProcess"
POSTPROCESSOR = PostProcessor(
    PostProcessing(score_floor=0.01, nms_iou=0.5, max_detections=20),
    default_boxes=np.zeros((0, 4), np.float32),
    variances=(0.1, 0.1, 0.2, 0.2),
    score_activation="softmax",
)


CALIBRATION = [tf.image.resize(image, [64, 96]).numpy() for image in IMAGES] * 3


def changed(config, **sections):
    """The config with other values: section={key: value}."""
    values = config.model_dump()
    for section, keys in sections.items():
        values[section] |= keys
    return check_config(values, where="test")


def export(config, network, path, precision="float32", raw=False, calibration=()):
    converter = tflite.Converter(config, network, NAMES, calibration)
    converter.export(path, precision, raw)
    return path


def operator_attributes(content):
    graph = schema.ModelT.InitFromPackedBuf(content, 0)
    index = [entry.customCode for entry in graph.operatorCodes].index(OPERATOR.encode())
    (operator,) = [entry for entry in graph.subgraphs[0].operators if entry.opcodeIndex == index]
    return flexbuffers.Loads(bytes(operator.customOptions))


@pytest.fixture(scope="module")
def exported_as(tiny_config, network, tmp_path_factory):
    """A function: precision, raw -> the file with that form, alone in a folder; written once.

    One Converter, as an export of several formats has it.
    """
    converter = tflite.Converter(tiny_config, network, NAMES, CALIBRATION)

    @functools.cache
    def make(precision="float32", raw=False):
        path = tmp_path_factory.mktemp("tflite") / "model.tflite"
        converter.export(path, precision, raw)
        return path

    return make


@pytest.fixture
def exported(exported_as):
    return exported_as()


@pytest.fixture
def interpreter(exported):
    interpreter = Interpreter(str(exported))
    interpreter.allocate_tensors()
    return interpreter


def test_order_and_names_of_the_outputs(interpreter):
    outputs = interpreter.get_output_details()
    assert [output["name"] for output in outputs] == [
        OPERATOR,
        f"{OPERATOR}:1",
        f"{OPERATOR}:2",
        f"{OPERATOR}:3",
    ]
    (entry,) = interpreter.get_input_details()
    assert (entry["shape"].tolist(), entry["dtype"]) == ([1, 64, 96, 3], np.float32)
    interpreter.invoke()
    shapes = [interpreter.get_tensor(output["index"]).shape for output in outputs]
    assert shapes == [(1, 20, 4), (1, 20), (1, 20), (1,)]


@pytest.mark.parametrize("raw", [False, True])
def test_it_is_not_imported(exported_as, raw):
    path = exported_as(raw=raw)
    with pytest.raises(ConfigError, match=rf"{path} was written by ssd export .*init_from"):
        detectors.read_detector(path)


def test_values_by_position_and_by_the_named_signature(interpreter):
    # 128 x 96: green, class 1 when counted from 0.
    image = tf.image.resize(IMAGES[1], [64, 96]).numpy()[None]
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    by_position = [
        interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()
    ]
    boxes, classes, scores, count = by_position
    np.testing.assert_allclose(boxes[0, 0], box_of(0, 2), atol=1e-5)
    assert classes[0, 0] == 1
    assert scores[0, 0] > 0.5
    assert 1 <= count[0] <= 20
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["boxes", "classes", "count", "scores"]}
    }
    by_name = interpreter.get_signature_runner("serving_default")(image=image)
    for name, value in zip(("boxes", "classes", "scores", "count"), by_position, strict=True):
        np.testing.assert_array_equal(by_name[name], value, name)


def test_a_trained_model_becomes_constants_and_one_fused_operator(
    tiny_run, tiny_detector, images, tmp_path
):
    from ssd_tf.inference.loading import load_run

    run = load_run(tiny_run)
    path = export(run.config, run.network, tmp_path / "model.tflite")
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [(entry.builtinCode, entry.customCode) for entry in graph.operatorCodes]
    builtin = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }
    names = {builtin[code] for code, _ in codes}
    unwanted = {"READ_VARIABLE", "VAR_HANDLE", "ASSIGN_VARIABLE", "WHILE", "TOPK_V2"}
    assert not names & (unwanted | {"NON_MAX_SUPPRESSION_V4"})
    assert [custom for _, custom in codes if custom] == [OPERATOR.encode()]
    report = verify.compare(tiny_detector, load_detector(path), images)
    assert report["detections"] > 0
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-3


def test_attributes_of_the_operator(exported):
    attributes = operator_attributes(exported.read_bytes())
    # Three classes and the fifteen that no box has.
    expected = {"max_detections": 20, "num_classes": 18, "use_regular_nms": True}
    assert {key: attributes[key] for key in expected} == expected
    # The reciprocals of the variances 0.1, 0.1, 0.2, 0.2.
    assert [attributes[f"{side}_scale"] for side in "yxhw"] == pytest.approx([10, 10, 5, 5])
    assert attributes["nms_iou_threshold"] == pytest.approx(0.45)
    assert attributes["nms_score_threshold"] == pytest.approx(0.01)


def test_class_agnostic_nms_is_the_fast_nms_of_the_operator(tiny_config, network, tmp_path):
    config = changed(
        tiny_config, eval={"class_agnostic": True, "pre_nms_top_k": 5, "max_detections": 5}
    )
    attributes = attributes_by(config, network)
    assert attributes["use_regular_nms"] == 0
    assert attributes["max_classes_per_detection"] == 1
    config = changed(config, eval={"pre_nms_top_k": 6, "max_detections": 6})
    path = export(config, network, tmp_path / "model.tflite")
    report = verify.compare(
        keras_detector(config, network, NAMES), load_detector(path), list(IMAGES), 0.02, 0.01
    )
    assert report["detections"] > 0 and report["unpaired"] == 0


def attributes_by(config, network):
    """The operator's attributes in a file by this config."""
    postprocessor = tflite.operator_postprocessor(config, network.default_boxes)
    return operator_attributes(tflite.convert_postprocessing(postprocessor, NAMES))


def test_attributes_follow_eval_unless_export_replaces_them(tiny_config, network):
    config = changed(
        tiny_config,
        eval={"nms_iou": 0.6, "score_floor": 0.2, "max_detections": 30},
        export={"max_detections": None, "score_floor": None},
    )
    attributes = attributes_by(config, network)
    assert attributes["max_detections"] == 30
    assert attributes["nms_iou_threshold"] == pytest.approx(0.6)
    assert attributes["nms_score_threshold"] == pytest.approx(0.2)
    config = changed(config, export={"max_detections": 7, "score_floor": 0.05})
    attributes = attributes_by(config, network)
    assert attributes["max_detections"] == 7
    assert attributes["nms_iou_threshold"] == pytest.approx(0.6)
    assert attributes["nms_score_threshold"] == pytest.approx(0.05)


def test_the_operator_shares_the_parameters_of_the_keras_model(tiny_config, network):
    config = changed(
        tiny_config,
        eval={"max_detections": 200, "size_limit": 62.5},
        export={"max_detections": None},
    )
    keras = make_postprocessor(config, network.default_boxes)
    operator = tflite.operator_postprocessor(config, network.default_boxes)
    # 200 detections are more than the operator can keep of one class.
    assert operator.eval == config.eval.model_copy(update={"max_detections": 100})
    assert dataclasses.replace(operator, eval=keras.eval).__dict__ == keras.__dict__


def test_size_limit(tiny_config, network, tmp_path):
    # Heights and widths of at most half a cell's, 16 of 64 and 16 of 96 pixels, about the same
    # centres: y 20 of 64 and x 80 of 96.
    config = changed(tiny_config, eval={"size_limit": 0.5})
    detector = load_detector(export(config, network, tmp_path / "model.tflite"))
    best = detector(IMAGES[1]).boxes[0]
    np.testing.assert_allclose(best, [12 / 64, 72 / 96, 28 / 64, 88 / 96], atol=1e-5)


def test_no_differences(tiny_config, network):
    # More candidates for NMS than the Keras model has lose nothing.
    config = changed(tiny_config, eval={"pre_nms_top_k": 5})
    assert tflite.operator_differences(config, network.default_boxes) == []


@pytest.mark.parametrize(
    ("most_objects", "expected"),
    [
        (np.inf, [["eval.clip_first"], ["150", "200"], ["100"], ["0.3", "0.01"]]),
        (151, [["eval.clip_first"], ["150", "200"], ["100"], ["0.3", "0.01"]]),
        (150, [["eval.clip_first"], ["100"], ["0.3", "0.01"]]),
        (101, [["eval.clip_first"], ["100"], ["0.3", "0.01"]]),
        (100, [["eval.clip_first"], ["0.3", "0.01"]]),
    ],
)
def test_differences_that_images_with_so_many_objects_can_show(
    tiny_config, network, most_objects, expected
):
    config = changed(
        tiny_config,
        eval={"clip_first": True, "max_detections": 200, "score_floor": 0.01},
        export={"max_detections": 150, "score_floor": 0.3},
    )
    differences = tflite.operator_differences(config, network.default_boxes, most_objects)
    assert len(differences) == len(expected)
    for difference, words in zip(differences, expected, strict=True):
        assert all(word in difference for word in words)


def test_limits_above_those_of_the_keras_model_lose_nothing(tiny_config, network):
    config = changed(
        tiny_config,
        eval={"max_detections": 20, "score_floor": 0.1},
        export={"max_detections": 30, "score_floor": 0.05},
    )
    assert tflite.operator_differences(config, network.default_boxes) == []


def test_the_score_of_clients_that_take_one(tiny_config):
    thresholds = Thresholds(0.68, {"red": 0.9})
    assert tflite.client_score(tiny_config, None, 0.3) == 0.3
    assert tflite.client_score(tiny_config, thresholds, 0.3) == 0.68
    config = changed(tiny_config, export={"score_threshold": 0.0})
    assert tflite.client_score(config, thresholds, 0.3) == 0


def test_finds_what_the_keras_model_finds(exported, detector):
    loaded = load_detector(exported)
    assert (loaded.kind, loaded.classes) == ("tflite", NAMES)
    report = verify.compare(detector, loaded, IMAGES)
    assert report["detections"] == 8  # four objects, found on both sides
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-5


@pytest.mark.parametrize("index", range(len(IMAGES)))
def test_objects(exported, index):
    assert_found(load_detector(exported)(IMAGES[index]), OBJECTS[index])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("raw", [False, True])
def test_every_form_finds_the_objects(tiny_config, network, exported_as, tmp_path, precision, raw):
    path = pathlib.Path(shutil.copy(exported_as(precision, raw), tmp_path))
    (entry,) = Interpreter(str(path)).get_input_details()
    assert entry["dtype"] == (np.uint8 if precision == "int8" else np.float32)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    write_raw_settings(tiny_config, network.default_boxes, tmp_path)
    detector = load_detector(path)
    assert detector.classes == NAMES
    # One step of int8 is 1/255 of the range of the offsets, which here is half a box.
    tolerance = {"float32": 1e-5, "float16": 1e-3, "dynamic": 0.02, "int8": 0.02}[precision]
    for image, objects in zip(IMAGES, OBJECTS, strict=True):
        assert_found(detector(image), objects, atol=tolerance)


def test_a_raw_file_has_no_custom_operator_and_needs_its_default_boxes(
    exported_as,
):
    path = exported_as(raw=True)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    assert [entry.customCode for entry in model.operatorCodes if entry.customCode] == []
    outputs = Interpreter(str(path)).get_output_details()
    assert [(entry["name"], entry["shape"].tolist()) for entry in outputs] == [
        ("offsets", [1, 6, 4]),
        ("logits", [1, 6, 4]),
    ]
    with pytest.raises(FileNotFoundError, match=r"expected its default_boxes.json beside it"):
        load_detector(path)


def test_a_raw_file_beside_the_boxes_of_another_model(tiny_config, network, exported_as, tmp_path):
    model = pathlib.Path(shutil.copy(exported_as(raw=True), tmp_path))
    write_raw_settings(tiny_config, network.default_boxes, tmp_path)
    path = tmp_path / "default_boxes.json"
    settings = json.loads(path.read_text())
    changes = [
        {"boxes": settings["boxes"][1:]},
        {"boxes": [[0.0, 0.0, 0.5, 0.5], *settings["boxes"][1:]]},
        {"variances": [0.1, 0.1, 0.2, 0.3]},
        {"score_activation": "sigmoid"},
        {"size_limit": 7.0},
    ]
    for change in changes:
        path.write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=r"default_boxes.json belongs to another model"):
            load_detector(model)
    for text in ("", "[]", "{}", '{"boxes": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"default_boxes.json is not"):
            load_detector(model)
    for key, value in (
        ("nms_iou", "x"),
        ("nms_iou", 1.5),
        ("max_detections", -1),
        ("pre_nms_top_k", 2.5),
        ("score_floor", None),
        ("clip_first", "maybe"),
    ):
        path.write_text(json.dumps(settings | {key: value}))
        with pytest.raises(ConfigError, match=rf"default_boxes.json: {key}: "):
            load_detector(model)
    for key in settings:
        path.write_text(json.dumps({name: settings[name] for name in settings if name != key}))
        with pytest.raises(ValueError, match=rf"default_boxes.json is not.*{key}"):
            load_detector(model)
    # What the network does not depend on may be changed.
    path.write_text(json.dumps(settings | {"nms_iou": 0.3, "max_detections": 3}))
    detector = load_detector(model)
    assert detector.classes == ["red", "green", "blue"]


def types_of(path, names):
    """The types of what the operators of these names give, in one file."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    operators = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    types = {value: name for name, value in vars(schema.TensorType).items()}
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        name = operators[model.operatorCodes[operator.opcodeIndex].builtinCode]
        if name in names:
            found += [(name, types[graph.tensors[index].type]) for index in operator.outputs]
    return found


def test_int8_ends_before_the_scores(exported_as):
    path = exported_as("int8")
    assert ("FULLY_CONNECTED", "INT8") in types_of(path, ["FULLY_CONNECTED"])
    tail = types_of(path, ["SOFTMAX", "STRIDED_SLICE", "PAD", "MINIMUM", "SUB", "ADD"])
    assert len(tail) >= 6
    assert {kind for _, kind in tail} == {"FLOAT32"}


def test_l2_normalisation_stays_float(tiny_config, tmp_path):
    from ssd_tf.models import ssd, vgg

    image = keras.Input((64, 96, 3))
    x = keras.layers.AveragePooling2D(32)(keras.layers.Conv2D(512, 1)(image))
    x = keras.layers.Reshape((6, 512))(vgg.L2Normalization()(x))
    outputs = {name: keras.layers.Dense(4, name=name)(x) for name in ("offsets", "logits")}
    boxes = fixed_detector.make_network().default_boxes
    network = ssd.SSD(keras.Model(image, outputs), boxes, (), ((2, 3),))
    path = tmp_path / "model.tflite"
    export(tiny_config, network, path, "int8", calibration=CALIBRATION)
    assert types_of(path, ["L2_NORMALIZATION"]) == [("L2_NORMALIZATION", "FLOAT32")]
    assert ("CONV_2D", "INT8") in types_of(path, ["CONV_2D"])


@functools.cache
def grid_of_classes(num_classes):
    """A grid of boxes, each of a class of its own, and the file that decodes them."""
    side = int(np.ceil(np.sqrt(num_classes)))
    corners = [divmod(index, side) for index in range(num_classes)]
    boxes = np.array([[y, x, y + 0.9, x + 0.9] for y, x in corners], np.float32) / side
    postprocessor = dataclasses.replace(POSTPROCESSOR, default_boxes=boxes)
    names = [f"class {index}" for index in range(num_classes)]
    return boxes, tflite.convert_postprocessing(postprocessor, names)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("num_threads", [1, 2, 4, 8])
def test_every_class_is_found_whatever_the_threads(num_classes, num_threads):
    # tensorflow/tensorflow#56058
    boxes, content = grid_of_classes(num_classes)
    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    runner = interpreter.get_signature_runner("serving_default")
    logits = np.full((1, num_classes, num_classes + 1), -9, np.float32)
    rows = np.arange(num_classes)
    logits[0, rows, rows + 1] = 3 + rows / 10
    outputs = runner(offsets=np.zeros((1, num_classes, 4), np.float32), logits=logits)
    assert int(outputs["count"][0]) == num_classes
    found = dict(zip(outputs["classes"][0].astype(int), outputs["boxes"][0], strict=True))
    assert sorted(set(found)) == list(range(num_classes))
    order = outputs["classes"][0][:num_classes].astype(int)
    assert order.tolist() == list(range(num_classes))[::-1]  # the last scores most
    for label, box in zip(order, outputs["boxes"][0], strict=False):
        np.testing.assert_allclose(box, boxes[label], atol=1e-5)


def test_boxes_are_clipped_in_the_file():
    boxes = np.array([[-0.5, 0.2, 0.5, 1.7]], np.float32)
    postprocessor = dataclasses.replace(POSTPROCESSOR, default_boxes=boxes)
    content = tflite.convert_postprocessing(postprocessor, ["cat"])
    runner = Interpreter(model_content=content).get_signature_runner("serving_default")
    outputs = runner(
        offsets=np.zeros((1, 1, 4), np.float32), logits=np.array([[[0, 3]]], np.float32)
    )
    np.testing.assert_allclose(outputs["boxes"][0, 0], [0, 0.2, 0.5, 1], atol=1e-6)


def test_an_operator_that_tflite_lacks(tiny_config, tmp_path):
    image = keras.Input((64, 96, 3))
    x = keras.layers.Reshape((6, -1))(keras.layers.AveragePooling2D(32)(image))
    x = keras.layers.Lambda(lambda value: tf.raw_ops.Igamma(a=value, x=value))(x)
    outputs = {name: keras.layers.Dense(4, name=name)(x) for name in ("offsets", "logits")}
    network = SSD(keras.Model(image, outputs), np.zeros((6, 4), np.float32), (), ((2, 3),))
    with pytest.raises(ValueError, match=r"LiteRT cannot run the converted file: .*Igamma"):
        export(tiny_config, network, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_other_boxes_are_found_whatever_an_offset_or_a_logit_is(class_agnostic):
    # The boxes 1 and 3 are found; box 2, which lies apart, has the odd number.
    boxes = [[0.1, 0.1, 0.5, 0.6], [0.1, 0.2, 0.5, 0.7], [0.6, 0.1, 0.9, 0.3], [0.6, 0.7, 0.8, 0.9]]
    logits = [[1, 2, 0], [0, 3, 0], [0, 2, 1], [0, 1, 2]]
    postprocessor = dataclasses.replace(
        POSTPROCESSOR,
        default_boxes=np.array(boxes, np.float32),
        eval=POSTPROCESSOR.eval.model_copy(update={"class_agnostic": class_agnostic}),
    )
    content = tflite.convert_postprocessing(postprocessor, ["a", "b"])
    run = Interpreter(model_content=content).get_signature_runner("serving_default")
    settings = {
        "boxes": postprocessor.default_boxes,
        "variances": postprocessor.variances,
        "score_activation": postprocessor.score_activation,
        **postprocessor.eval.model_dump(),
    }
    for value, column in itertools.product((np.nan, np.inf, -np.inf, 1e30), range(7)):
        inputs = np.concatenate([np.zeros((4, 4)), logits], 1).astype(np.float32)
        inputs[2, column] = value
        offset, logit = np.split(inputs[None], [4], 2)
        of_keras = postprocessor({"offsets": offset, "logits": logit})
        of_file = run(offsets=offset, logits=logit)
        with np.errstate(all="ignore"):
            decoded = raw_decoder.decode(offset, logit, settings)
        for corners, classes in (
            (of_keras["boxes"][0], of_keras["labels"][0] - 1),
            (of_file["boxes"][0], of_file["classes"][0]),
            (decoded[0], decoded[2]),
        ):
            rows = zip(np.round(corners, 4).tolist(), np.array(classes).tolist(), strict=True)
            found = [(*box, label) for box, label in rows]
            for expected in ((*boxes[1], 0), (*boxes[3], 1)):
                assert any(np.allclose(row, expected) for row in found), (value, column)
