import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from fixed_detector import IMAGES, NAMES, OBJECTS, assert_found, box_of
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.config import check_config
from ssd_tf.export import tflite, verify
from ssd_tf.inference.detector import keras_detector, load_detector, make_postprocessor

OPERATOR = "TFLite_Detection_PostProcess"


def changed(config, **sections):
    """The config with other values: section={key: value}."""
    values = config.model_dump()
    for section, keys in sections.items():
        values[section] |= keys
    return check_config(values, where="test")


def export(config, network, path):
    tflite.export_tflite(config, network, NAMES, path)
    path.with_name("labels.txt").write_text("red\ngreen\nblue\n")
    return path


def operator_attributes(path):
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    index = [entry.customCode for entry in graph.operatorCodes].index(OPERATOR.encode())
    (operator,) = [entry for entry in graph.subgraphs[0].operators if entry.opcodeIndex == index]
    return flexbuffers.Loads(bytes(operator.customOptions))


@pytest.fixture(scope="module")
def exported(tiny_config, network, tmp_path_factory):
    return export(tiny_config, network, tmp_path_factory.mktemp("tflite") / "model.tflite")


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
    from ssd_tf.inference.run import load_run

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
    attributes = operator_attributes(exported)
    expected = {"max_detections": 20, "num_classes": 3, "use_regular_nms": True}
    assert {key: attributes[key] for key in expected} == expected
    # The reciprocals of the variances 0.1, 0.1, 0.2, 0.2.
    assert [attributes[f"{side}_scale"] for side in "yxhw"] == pytest.approx([10, 10, 5, 5])
    assert attributes["nms_iou_threshold"] == pytest.approx(0.45)
    assert attributes["nms_score_threshold"] == pytest.approx(0.01)


def test_class_agnostic_nms_is_the_fast_nms_of_the_operator(tiny_config, network, tmp_path):
    config = changed(
        tiny_config, eval={"class_agnostic": True, "pre_nms_top_k": 5, "max_detections": 5}
    )
    path = export(config, network, tmp_path / "model.tflite")
    assert operator_attributes(path)["use_regular_nms"] == 0
    assert operator_attributes(path)["max_classes_per_detection"] == 1
    assert tflite.operator_differences(config, network.default_boxes)[0] == (
        "all boxes above the score floor enter NMS, not the best 5 (eval.pre_nms_top_k)"
    )
    config = changed(config, eval={"pre_nms_top_k": 6, "max_detections": 6})
    path = export(config, network, tmp_path / "model.tflite")
    report = verify.compare(
        keras_detector(config, network, NAMES), load_detector(path), list(IMAGES), 0.02, 0.01
    )
    assert report["detections"] > 0 and report["unpaired"] == 0


def test_attributes_follow_eval_unless_export_replaces_them(tiny_config, network, tmp_path):
    config = changed(
        tiny_config,
        eval={"nms_iou": 0.6, "score_floor": 0.2, "max_detections": 30},
        export={"max_detections": None, "score_floor": None},
    )
    attributes = operator_attributes(export(config, network, tmp_path / "a.tflite"))
    assert attributes["max_detections"] == 30
    assert attributes["nms_iou_threshold"] == pytest.approx(0.6)
    assert attributes["nms_score_threshold"] == pytest.approx(0.2)
    config = changed(config, export={"max_detections": 7, "score_floor": 0.05})
    attributes = operator_attributes(export(config, network, tmp_path / "b.tflite"))
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
    assert operator.max_detections == 100
    for field in dataclasses.fields(keras):
        if field.name != "max_detections":
            assert getattr(operator, field.name) is getattr(keras, field.name), field.name


def test_size_limit(tiny_config, network, tmp_path):
    # Heights and widths of at most half a cell's, 16 of 64 and 16 of 96 pixels, about the same
    # centres: y 20 of 64 and x 80 of 96.
    config = changed(tiny_config, eval={"size_limit": 0.5})
    detector = load_detector(export(config, network, tmp_path / "model.tflite"))
    best = detector(IMAGES[1]).boxes[0]
    np.testing.assert_allclose(best, [12 / 64, 72 / 96, 28 / 64, 88 / 96], atol=1e-5)


def test_no_differences(tiny_config, network):
    # 400 candidates per class are all of the 6 default boxes.
    assert tflite.operator_differences(tiny_config, network.default_boxes) == []


def test_differences(tiny_config, network):
    config = changed(
        tiny_config,
        eval={"pre_nms_top_k": 5, "clip_first": True, "max_detections": 200, "score_floor": 0.01},
        export={"max_detections": 150, "score_floor": 0.3},
    )
    assert tflite.operator_differences(config, network.default_boxes) == [
        "all boxes above the score floor enter NMS, not the best 5 per class (eval.pre_nms_top_k)",
        "boxes are not clipped before NMS (eval.clip_first)",
        "at most 150 detections, not 200",
        "at most 100 detections per class",
        "a score floor of 0.3, not 0.01",
    ]


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
