"""Run TFLite detectors, ours or third-party.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import pathlib

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ssd_tf.config import PostProcessing, check_eval
from ssd_tf.data.images import resize_array
from ssd_tf.errors import shorten
from ssd_tf.inference import raw_decoder, tflite_outputs
from ssd_tf.inference.detector import Stages
from ssd_tf.inference.exported import (
    Exported,
    read_member,
    reject_input_range,
    scale_to_range,
)
from ssd_tf.tflite_metadata import read_metadata
from ssd_tf.user_files import decode_text
from ssd_tf.weights.importers import st_zoo

_INPUT_DTYPES = (np.float32, np.uint8, np.int8)
# What people may change in a default_boxes.json.
_EDITABLE = list(PostProcessing.model_fields)


def load(path, input_range=None, num_threads=1) -> Exported:
    """Load a .tflite file: a detector's four outputs, a `_raw` file of ours, or of ST's model zoo.

    input_range: (low, high), what the darkest and the brightest pixel become for a float input;
    needed if the file has no metadata that state it, rejected if it has.
    num_threads: with several, the operator's NMS skips the class whose index equals their number
    (tensorflow/tensorflow#56058, seen with LiteRT 2.3) in files that do not provide against it, as
    ours do: one is right for all.
    Raises ValueError when the file has other inputs or outputs, or the range is needed and not
    given; FileNotFoundError for a raw file without the default_boxes.json beside it.
    """
    path = pathlib.Path(path)
    content = path.read_bytes()
    metadata = read_metadata(content)
    indices = tflite_outputs.find_outputs(content, metadata, path)
    interpreter = _make_interpreter(content, num_threads, path)
    readers = _make_readers(interpreter, indices, path)
    shapes = {entry["index"]: entry["shape"] for entry in interpreter.get_output_details()}
    num_classes = metadata.num_classes
    if "boxes" in indices:
        to_detections = _to_detections
        num_classes = num_classes or tflite_outputs.operator_classes(content)
    elif st_zoo.OUTPUTS[0] in indices:
        to_detections = _st_decoder()
        num_classes = int(shapes[indices[st_zoo.OUTPUTS[1]]][-1]) - 1
    else:
        raw_shapes = [shapes[indices[role]] for role in ("offsets", "logits")]
        to_detections = _raw_decoder(path, metadata, *raw_shapes)
        num_classes = raw_shapes[1][-1] - 1
    prepare, feed = _make_input(interpreter, metadata, input_range, path)

    def run(batch):
        feed(batch)
        interpreter.invoke()
        return {role: read() for role, read in readers.items()}

    stages = Stages(
        preprocess=lambda images: [prepare(image) for image in images],
        network=lambda batches: [run(batch) for batch in batches],
        postprocess=lambda outputs: [to_detections(output) for output in outputs],
    )
    return Exported(stages, num_classes, metadata.is_ours)


def read_label_file(path):
    """(name, text) of the label file inside a .tflite file, or None.

    Raises ValueError if it cannot be read.
    """
    member = read_member(path, _choose_label_file)
    if member is None:
        return None
    name, data = member
    return name, decode_text(data, f"{path}/{name}")


def _choose_label_file(names):
    names = [name for name in names if name.endswith(".txt")]
    return min(names, key=lambda name: "label" not in name, default=None)


def _make_interpreter(content, num_threads, path):
    try:
        interpreter = Interpreter(model_content=content, num_threads=num_threads)
        interpreter.allocate_tensors()
        interpreter.get_input_details()  # raises for a name that is not UTF-8
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: LiteRT cannot run this file ({shorten(error)})") from None
    return interpreter


def _make_input(interpreter, metadata, input_range, path):
    """(a function of an image that gives a batch of one, a function that feeds the batch)."""
    entries = interpreter.get_input_details()
    if len(entries) != 1:
        names = ", ".join(entry["name"] for entry in entries)
        raise ValueError(f"{path}: expected one input, the image, got {len(entries)}: {names}")
    (entry,) = entries
    input_hw = _input_hw(entry, path)
    dtype = entry["dtype"]
    scale, shift = _scaling(dtype, metadata.normalisation, input_range, path)

    def prepare(image):
        batch = resize_array(image, input_hw)[None] * scale + shift
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            batch = np.clip(np.round(batch), limits.min, limits.max)
        return batch.astype(dtype)

    return prepare, lambda batch: interpreter.set_tensor(entry["index"], batch)


def _input_hw(entry, path):
    """The input's height and width. Where a size is dynamic, LiteRT itself reports 1."""
    shape = entry["shape"].tolist()
    signature = entry["shape_signature"].tolist() or shape
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or -1 in signature[1:]:
        sizes = ["any" if size == -1 else size for size in signature]
        raise ValueError(
            f"{path}: expected an image [1, H, W, 3] of fixed size as input, got "
            f"[{', '.join(map(str, sizes))}]; convert the model again with a fixed input size"
        )
    return shape[1:3]


def _scaling(dtype, normalisation, input_range, path):
    """(scale, shift) of a pixel in 0..255 for this input; quantised inputs take pixels."""
    if dtype not in _INPUT_DTYPES:
        names = ", ".join(known.__name__ for known in _INPUT_DTYPES)
        raise ValueError(f"{path}: expected an input of {names}, got {np.dtype(dtype).name}")
    if dtype != np.float32:
        reject_input_range(input_range, path, f"takes pixels as {np.dtype(dtype).name}")
        return 1.0, -128.0 if dtype == np.int8 else 0.0
    if normalisation is not None:
        reject_input_range(input_range, path, "states its own in its metadata")
        mean, std = normalisation
        return (1 / std).astype(np.float32), (-mean / std).astype(np.float32)
    return scale_to_range(input_range, path)


def _make_readers(interpreter, indices, path):
    """A function for each role that reads the output of one image as numbers."""
    entries = {entry["index"]: entry for entry in interpreter.get_output_details()}
    if not set(indices.values()) <= set(entries):
        raise ValueError(f"{path}: its signature names outputs that the graph does not have")
    return {
        role: _make_reader(interpreter, entries[index], role, path)
        for role, index in indices.items()
    }


def _make_reader(interpreter, entry, role, path):
    index = entry["index"]
    dtype = entry["dtype"]
    is_integer = np.issubdtype(dtype, np.integer)
    parameters = entry["quantization_parameters"]
    scales = parameters["scales"]
    if is_integer and len(scales) == 1:
        zero = parameters["zero_points"][0]
        return lambda: (interpreter.get_tensor(index)[0].astype(np.float32) - zero) * scales[0]
    if dtype == np.float32 or (is_integer and role in ("classes", "count")):
        return lambda: interpreter.get_tensor(index)[0]
    raise ValueError(
        f"{path}: expected {role} as float32 or as integers with a scale, got "
        f"{np.dtype(dtype).name} in {entry['name']}"
    )


def _raw_decoder(path, metadata, offsets_shape, logits_shape):
    """A function of the outputs of a raw file; its default boxes lie beside it."""
    settings_path = path.with_name("default_boxes.json")
    if not settings_path.is_file():
        raise FileNotFoundError(
            f"{path} is a raw file; expected its {settings_path.name} beside it"
        )
    try:
        settings = raw_decoder.load_settings(settings_path)
        fingerprint = raw_decoder.fingerprint(settings)
        editable = {name: settings[name] for name in _EDITABLE}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{settings_path} is not a default_boxes.json of an export ({shorten(repr(error))})"
        ) from None
    num_boxes = len(settings["boxes"])
    is_of_another = metadata.version and metadata.version != fingerprint
    if is_of_another or num_boxes != offsets_shape[1] or num_boxes != logits_shape[1]:
        raise ValueError(
            f"{settings_path} belongs to another model than {path.name}: expected its "
            f"{offsets_shape[1]} default boxes, with the variances and the score activation that "
            "it was trained with; export the model again"
        )
    check_eval(editable, settings_path)

    def decode(output):
        outputs = (output["offsets"], output["logits"])
        boxes, scores, classes = raw_decoder.decode(*outputs, settings, score=0)
        return boxes, scores, classes.astype(np.int32) + 1

    return decode


def _st_decoder():
    """A function of the outputs of a file of ST's model zoo."""
    settings = PostProcessing(**st_zoo.EVAL).model_dump()

    def decode(output):
        moves, scores, default_boxes = (output[role] for role in st_zoo.OUTPUTS)
        sides = default_boxes[:, 2:] - default_boxes[:, :2]
        low, high = np.split(default_boxes + moves * np.tile(sides, 2), 2, axis=1)
        corners = np.concatenate([low, np.maximum(low, high)], 1)[:, [1, 0, 3, 2]]
        boxes, scores, classes = raw_decoder.select(corners, scores[:, 1:], settings, score=0)
        return boxes, scores, classes.astype(np.int32) + 1

    return decode


def _to_detections(output):
    shapes = {role: np.shape(values) for role, values in output.items()}
    num_kept = np.size(output["scores"])
    expected = {"boxes": (num_kept, 4), "classes": (num_kept,), "scores": (num_kept,)}
    if shapes != expected | {"count": shapes["count"]} or np.size(output["count"]) != 1:
        raise ValueError(
            f"the model gives {shapes} for an image, expected boxes [K, 4], classes [K], "
            "scores [K] and one count"
        )
    count = max(round(float(np.squeeze(output["count"]))), 0)
    order = np.argsort(-output["scores"][:count], kind="stable")
    boxes = np.clip(output["boxes"][order], 0, 1)
    labels = np.round(output["classes"][order]).astype(np.int32) + 1
    return boxes, output["scores"][order], labels
