"""Exports in the clients' own environments, which have none of our packages; `make test-clients`.

MEDIAPIPE_PYTHON, LITERT_PYTHON and TENSORFLOW_PYTHON name interpreters with `mediapipe`, with
`ai-edge-litert` and NumPy, and with `tensorflow`.
"""

import json
import os
import subprocess

import fixed_detector
import numpy as np
import pytest
from fixed_detector import IMAGES, NAMES, OBJECTS
from PIL import Image

pytestmark = pytest.mark.clients

MEDIAPIPE = """
import json, sys
import mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision
options = vision.ObjectDetectorOptions(
    base_options=python.BaseOptions(model_asset_path=sys.argv[1]), score_threshold=0.35
)
with vision.ObjectDetector.create_from_options(options) as detector:
    for path in sys.argv[2:]:
        found = detector.detect(mp.Image.create_from_file(path)).detections
        rows = [
            [f.categories[0].category_name, f.bounding_box.origin_x, f.bounding_box.origin_y,
             f.bounding_box.width, f.bounding_box.height]
            for f in found
        ]
        print(json.dumps(rows))
"""
LITERT = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=int(sys.argv[2]))
interpreter.allocate_tensors()
(entry,) = interpreter.get_input_details()
interpreter.set_tensor(entry["index"], np.load(sys.argv[3]).astype(entry["dtype"]))
interpreter.invoke()
outputs = [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]
if len(outputs) == 2:
    import raw_decoder
    boxes, scores, classes = raw_decoder.decode(
        *outputs, raw_decoder.load_settings("default_boxes.json")
    )
else:
    boxes, classes, scores, count = (output[0] for output in outputs)
names = open("labels.txt").read().split()
rows = [[names[int(c)], *map(float, b)] for b, c, s in zip(boxes, classes, scores) if s >= 0.5]
print(json.dumps(rows))
"""
TENSORFLOW = """
import json, sys
import tensorflow as tf
import numpy as np
detect = tf.saved_model.load(sys.argv[1])
detections = detect(tf.convert_to_tensor(np.load(sys.argv[2]))[tf.newaxis, ...])
num_detections = int(detections.pop("num_detections")[0])
detections = {key: value[0, :num_detections].numpy() for key, value in detections.items()}
classes = detections["detection_classes"].astype(np.int64)
rows = zip(classes.tolist(), detections["detection_boxes"].tolist(), detections["detection_scores"])
print(json.dumps([[label, *box] for label, box, score in rows if score >= 0.5]))
print(json.dumps(sorted({"ssd_tf"} & set(sys.modules))))
"""


def run(variable, script, *arguments, folder):
    """The lines that a script prints as JSON, in the interpreter that a variable names."""
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"needs an interpreter in {variable}")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", script, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.fixture(scope="module")
def folder(tiny_config, tmp_path_factory):
    """Exports of the network with fixed weights, and its images as files."""
    import shutil

    from ssd_tf.exporting import export, saved_model, tflite
    from ssd_tf.inference import raw_decoder

    path = tmp_path_factory.mktemp("exports")
    network = fixed_detector.make_network()
    calibration = [
        np.array(Image.fromarray(image).resize((96, 64)), np.float32) for image in IMAGES
    ]
    converter = tflite.Converter(tiny_config, network, NAMES, calibration * 3)
    for precision in ("float32", "int8"):
        converter.export(path / f"{precision}.tflite", precision)
        converter.export(path / f"{precision}_raw.tflite", precision, raw=True)
    saved_model.export_saved_model(tiny_config, network, NAMES, path / "saved_model")
    export.write_raw_settings(tiny_config, network.default_boxes, path)
    (path / "labels.txt").write_text("red\ngreen\nblue\n")
    shutil.copyfile(raw_decoder.__file__, path / "raw_decoder.py")
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(path / f"{index}.png")
        np.save(path / f"{index}.npy", image)
    return path


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_mediapipe_tasks(folder, precision):
    images = [folder / f"{index}.png" for index in range(len(IMAGES))]
    model = folder / f"{precision}.tflite"
    answers = run("MEDIAPIPE_PYTHON", MEDIAPIPE, model, *images, folder=folder)
    for image, objects, rows in zip(IMAGES, OBJECTS, answers, strict=True):
        assert sorted(row[0] for row in rows) == sorted(name for name, *_ in objects)
        places = {row[0]: row[1:] for row in rows}
        height, width = image.shape[:2]
        for name, row, column in objects:
            ymin, xmin, ymax, xmax = fixed_detector.box_of(row, column)
            box = [xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height]
            assert places[name] == pytest.approx(box, abs=2)


@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("name", ["float32", "float32_raw", "int8", "int8_raw"])
def test_litert_and_numpy(folder, name, num_threads):
    image = np.array(Image.fromarray(IMAGES[2]).resize((96, 64), Image.BILINEAR), np.float32)[None]
    np.save(folder / "input.npy", image)
    arguments = (folder / f"{name}.tflite", num_threads, folder / "input.npy")
    (rows,) = run("LITERT_PYTHON", LITERT, *arguments, folder=folder)
    found = {row[0]: row[1:] for row in rows}
    assert len(rows) == 2 and sorted(found) == ["blue", "red"]
    for label, row, column in OBJECTS[2]:
        assert found[label] == pytest.approx(fixed_detector.box_of(row, column), abs=0.02)


def test_the_saved_model_with_tensorflow_alone(folder):
    arguments = (folder / "saved_model", folder / "2.npy")
    rows, ours = run("TENSORFLOW_PYTHON", TENSORFLOW, *arguments, folder=folder)
    assert sorted(row[0] for row in rows) == [1, 3]
    assert ours == []
