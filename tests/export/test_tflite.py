import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.export import tflite, verify
from ssd_tf.inference.detector import load_detector

NAME = "TFLite_Detection_PostProcess"


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    config, names, model = trained
    tflite.export_tflite(config, model, len(names), path)
    path.with_name("labels.txt").write_text("red\ngreen\nblue\n")
    return path


@pytest.fixture
def interpreter(exported):
    interpreter = Interpreter(str(exported))
    interpreter.allocate_tensors()
    return interpreter


@pytest.fixture(scope="module")
def graph(exported):
    return schema.ModelT.InitFromPackedBuf(exported.read_bytes(), 0)


def test_outputs_in_the_order_and_with_the_names_that_clients_expect(interpreter):
    outputs = interpreter.get_output_details()
    assert [output["name"] for output in outputs] == [NAME, f"{NAME}:1", f"{NAME}:2", f"{NAME}:3"]
    (entry,) = interpreter.get_input_details()
    assert (entry["shape"].tolist(), entry["dtype"]) == ([1, 64, 96, 3], np.float32)
    interpreter.invoke()
    shapes = [interpreter.get_tensor(output["index"]).shape for output in outputs]
    assert shapes == [(1, 20, 4), (1, 20), (1, 20), (1,)]


def test_values_by_position_and_by_the_named_signature(interpreter, pictures):
    # 96 x 64: green, class 1 when counted from 0, on rows 30 to 78 and columns 10 to 42.
    image = tf.image.resize(pictures[1], [64, 96]).numpy()[None]
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    by_position = [
        interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()
    ]
    boxes, classes, scores, count = by_position
    np.testing.assert_allclose(boxes[0, 0], [30 / 96, 10 / 64, 78 / 96, 42 / 64], atol=0.05)
    assert classes[0, 0] == 1
    assert scores[0, 0] > 0.5
    assert 1 <= count[0] <= 20
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["boxes", "classes", "count", "scores"]}
    }
    by_name = interpreter.get_signature_runner("serving_default")(image=image)
    for name, value in zip(("boxes", "classes", "scores", "count"), by_position, strict=True):
        np.testing.assert_array_equal(by_name[name], value, name)


def test_the_file_holds_constants_and_one_fused_operator(graph):
    codes = [(entry.builtinCode, entry.customCode) for entry in graph.operatorCodes]
    builtin = {
        value: name
        for name, value in vars(schema.BuiltinOperator).items()
        if isinstance(value, int)
    }
    names = [builtin[code] for code, _ in codes]
    assert not {
        "READ_VARIABLE",
        "VAR_HANDLE",
        "ASSIGN_VARIABLE",
        "WHILE",
        "TOPK_V2",
        "NON_MAX_SUPPRESSION_V4",
    } & set(names)
    assert [custom for _, custom in codes if custom] == [NAME.encode()]


def test_options_of_the_operator(graph):
    index = [entry.customCode for entry in graph.operatorCodes].index(NAME.encode())
    (operator,) = [entry for entry in graph.subgraphs[0].operators if entry.opcodeIndex == index]
    options = flexbuffers.Loads(bytes(operator.customOptions))
    wanted = {"max_detections": 20, "num_classes": 3, "use_regular_nms": True}
    assert {key: options[key] for key in wanted} == wanted
    # Variances of 0.1, 0.1, 0.2, 0.2, the other way up.
    assert [options[f"{side}_scale"] for side in "yxhw"] == pytest.approx([10, 10, 5, 5])
    assert options["nms_iou_threshold"] == pytest.approx(0.45)
    assert options["nms_score_threshold"] == pytest.approx(0.01)


def test_finds_what_the_keras_model_finds(exported, tiny_detector, pictures):
    detector = load_detector(exported)
    assert (detector.kind, detector.classes) == ("tflite", ["red", "green", "blue"])
    report = verify.compare(tiny_detector, detector, pictures)
    assert report["detections"] == 14  # seven objects, from both sides
    assert report["unpaired"] == 0
    assert report["largest_corner_difference"] < 1e-3


def test_a_file_that_is_no_detector(tmp_path):
    double = tf.function(lambda image: 2 * image).get_concrete_function(tf.TensorSpec([1, 4, 6, 3]))
    path = tmp_path / "double.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([double]).convert())
    with pytest.raises(
        ValueError,
        match=r"double.tflite has 1 outputs; wanted a detector's four: boxes, classes, scores, count",
    ):
        load_detector(path)
