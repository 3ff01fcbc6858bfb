"""Run TFLite detectors, ours or foreign.

Shapes: `K` detections kept.
"""

import pathlib
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ssd_tf.data.images import resize_array
from ssd_tf.inference import raw_decoder, tflite_outputs
from ssd_tf.inference.stages import Stages
from ssd_tf.inference.tflite_metadata import read_metadata


def make_stages(path, input_range=None, num_threads=1) -> Stages:
    """A .tflite file with a detector's four outputs -> its Stages; or a `_raw` file of ours.

    input_range: (low, high), what the darkest and the brightest pixel become for a float input;
    needed if the file has no metadata that says so, ignored if it has.
    num_threads: with several, the operator's NMS skips the class whose index equals their number
    (tensorflow/tensorflow#56058, seen with LiteRT 2.3) in files that do not provide against it, as
    ours do: one is right for all.
    Raises ValueError when the file has other outputs, or the range is needed and not given;
    FileNotFoundError for a raw file without the default_boxes.json beside it.
    """
    path = pathlib.Path(path)
    content = path.read_bytes()
    metadata = read_metadata(content)
    outputs = tflite_outputs.find_outputs(content, metadata, path)
    to_detections = _to_detections if "boxes" in outputs else _raw_decoder(path)
    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    shape = entry["shape"]
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"{path}: expected an image [1, H, W, 3] as input, got {shape.tolist()}")
    scale, shift = _scaling(entry["dtype"], metadata.normalisation, input_range, path)

    def prepare(image):
        batch = resize_array(image, shape[1:3]).numpy()[None] * scale + shift
        if np.issubdtype(entry["dtype"], np.integer):
            limits = np.iinfo(entry["dtype"])
            batch = np.clip(np.round(batch), limits.min, limits.max)
        return batch.astype(entry["dtype"])

    def run(batch):
        interpreter.set_tensor(entry["index"], batch)
        interpreter.invoke()
        return {role: interpreter.get_tensor(index)[0] for role, index in outputs.items()}

    return Stages(
        preprocess=lambda images: [prepare(image) for image in images],
        network=lambda batches: [run(batch) for batch in batches],
        postprocess=lambda outputs: [to_detections(output) for output in outputs],
    )


def read_label_file(path):
    """The lines of the label file inside a .tflite file, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        names.sort(key=lambda name: "label" not in name)
        return archive.read(names[0]).decode().splitlines() if names else None


def _scaling(dtype, normalisation, input_range, path):
    """(scale, shift) of a pixel in 0..255 for this input; quantised inputs take pixels."""
    if dtype == np.int8:
        return 1.0, -128.0
    if np.issubdtype(dtype, np.integer):
        return 1.0, 0.0
    if normalisation is not None:
        mean, std = normalisation
        return (1 / std).astype(np.float32), (-mean / std).astype(np.float32)
    if input_range is None:
        raise ValueError(
            f"{path} takes floats and does not say in which range; give --input_range=-1,1 or "
            "--input_range=0,1 or --input_range=0,255, as it was trained"
        )
    low, high = input_range
    return (high - low) / 255, low


def _raw_decoder(path):
    """A function of the outputs of a raw file; its default boxes lie beside it."""
    settings_path = path.with_name("default_boxes.json")
    if not settings_path.is_file():
        raise FileNotFoundError(
            f"{path} is a raw file; expected its {settings_path.name} beside it"
        )
    settings = raw_decoder.load_settings(settings_path)

    def decode(output):
        boxes, scores, classes = raw_decoder.decode(output["offsets"], output["logits"], settings)
        return boxes, scores, classes.astype(np.int32) + 1

    return decode


def _to_detections(output):
    count = int(np.squeeze(output["count"]))
    order = np.argsort(-output["scores"][:count], kind="stable")
    boxes = np.clip(output["boxes"][order], 0, 1)
    labels = np.round(output["classes"][order]).astype(np.int32) + 1
    return boxes, output["scores"][order], labels
