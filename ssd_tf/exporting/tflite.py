"""TFLite files in several precisions, with the TFLite_Detection_PostProcess operator or raw.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import dataclasses
import functools
import tempfile
import typing

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import files
from ssd_tf.boxes import coding
from ssd_tf.config import Config
from ssd_tf.exporting import quantization
from ssd_tf.exporting.hard_swish import replace_hard_swish
from ssd_tf.exporting.joining import join, pack
from ssd_tf.exporting.metadata import add_metadata, add_raw_metadata
from ssd_tf.inference import raw_decoder
from ssd_tf.inference.detector import make_postprocessor
from ssd_tf.inference.tflite_outputs import OPERATOR, RAW_ROLES, ROLES
from ssd_tf.models import postprocess, ssd
from ssd_tf.models.folding import fold_batch_norm

_OPERATOR = OPERATOR.decode()
_OPERATOR_OUTPUTS = (_OPERATOR, f"{_OPERATOR}:1", f"{_OPERATOR}:2", f"{_OPERATOR}:3")
# The operator's limit per class; the attribute that raises it is lost in conversion.
_MOST_PER_CLASS = 100
# With n > 1 threads, and more than n classes, the operator misses class n (from 0):
# tensorflow/tensorflow#56058, seen with LiteRT 2.3. Clients choose the threads, so classes 2 to 16
# are empty ones, and the names of the others' numbers are set right behind the operator.
_FIRST_EMPTY_CLASS = 2
_NUM_EMPTY_CLASSES = 15


class Form(typing.NamedTuple):
    """precision: one of formats.PRECISIONS. raw: without the operator."""

    precision: str
    raw: bool = False


class Converter:
    """Converts one network.

    The forms of a precision share the conversion of the network, all forms that of what follows.
    """

    def __init__(self, config: Config, network: ssd.SSD, names, calibration=()):
        """calibration: float32 images [H, W, 3] at input_hw, for int8."""
        self._config = config
        self._network = network
        self._names = names
        self._calibration = calibration
        self._postprocessor = operator_postprocessor(config, network.default_boxes)
        self._networks = {}

    def export(self, path, form: Form):
        """Write a .tflite file atomically, with metadata.

        Input: image [1, H, W, 3] RGB in 0..255, uint8 for int8, else float32. Outputs: boxes
        [1, K, 4], classes [1, K] from 0, scores [1, K], count [1]; raw: offsets [1, A, 4], logits
        [1, A, C + 1]. Raises ValueError when TFLite lacks an operator of the model, RuntimeError
        when the converted file has other outputs.
        """
        if form.precision not in self._networks:
            self._networks[form.precision] = self._convert_network(form.precision)
        content = self._networks[form.precision]
        files.write_bytes(path, self._finish_raw(content) if form.raw else self._finish(content))

    @property
    def names(self) -> list[str]:
        """The class names, in label order."""
        return list(self._names)

    @functools.cached_property
    def _postprocessing(self):
        return convert_postprocessing(self._postprocessor, self._names)

    def _convert_network(self, precision):
        config = self._config
        model = fold_batch_norm(self._network.model)
        module = _Network(replace_hard_swish(model) if precision == "int8" else model)
        image = tf.TensorSpec([1, *config.model.input_hw, 3], tf.float32, "image")
        return _convert(module, [image], precision, self._calibration)

    def _finish_raw(self, content):
        num_boxes = len(self._network.default_boxes)
        content = name_outputs(content, RAW_ROLES, RAW_ROLES)
        _check(content, RAW_ROLES, [(1, num_boxes, 4), (1, num_boxes, len(self._names) + 1)])
        settings = raw_settings(self._config, self._network.default_boxes)
        return add_raw_metadata(content, self._names, raw_decoder.fingerprint(settings))

    def _finish(self, content):
        """Add the post-processing, which is float32 in every form."""
        content = join(content, self._postprocessing)
        content = name_outputs(content, ROLES, _OPERATOR_OUTPUTS)
        num_kept = self._postprocessor.max_detections
        _check(content, _OPERATOR_OUTPUTS, [(1, num_kept, 4), (1, num_kept), (1, num_kept), (1,)])
        return add_metadata(content, self._names, self._config.export.score_threshold)


def raw_settings(config: Config, default_boxes) -> dict:
    """The content of default_boxes.json, which `raw_decoder.load_settings` reads."""
    content = dataclasses.asdict(make_postprocessor(config, default_boxes))
    boxes = content.pop("default_boxes")
    content["variances"] = list(content["variances"])
    content["boxes"] = np.round(boxes.astype(float), 7).tolist()
    return content


def convert_postprocessing(postprocessor, names) -> bytes:
    """A .tflite file of offsets [1, A, 4] and logits [1, A, C + 1] -> ROLES."""
    num_boxes = len(postprocessor.default_boxes)
    module = _PostProcessing(postprocessor, len(names))
    inputs = [
        tf.TensorSpec([1, num_boxes, 4], tf.float32, "offsets"),
        tf.TensorSpec([1, num_boxes, len(names) + 1], tf.float32, "logits"),
    ]
    return _convert(module, inputs, "float32")


def _convert(module, specs, precision, calibration=()):
    with tempfile.TemporaryDirectory() as folder:
        signature = tf.function(module.__call__).get_concrete_function(*specs)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        return quantization.convert(folder, precision, calibration)


def operator_postprocessor(config: Config, default_boxes) -> postprocess.PostProcessor:
    """The operator's parameters: those of the Keras model, with the limits of config.export.

    The operator has no pre_nms_top_k and no clip_first; see `operator_differences`.
    """
    postprocessor = make_postprocessor(config, default_boxes)
    max_detections = config.export.max_detections
    if max_detections is None:
        max_detections = min(postprocessor.max_detections, _MOST_PER_CLASS)
    score_floor = config.export.score_floor
    if score_floor is None:
        score_floor = postprocessor.score_floor
    return dataclasses.replace(
        postprocessor, max_detections=max_detections, score_floor=score_floor
    )


def operator_differences(config: Config, default_boxes) -> list[str]:
    """What the operator does otherwise than the Keras model of this config, one phrase each."""
    keras = make_postprocessor(config, default_boxes)
    operator = operator_postprocessor(config, default_boxes)
    differences = []
    if keras.pre_nms_top_k < len(default_boxes):
        best = f"{keras.pre_nms_top_k}" + ("" if keras.class_agnostic else " per class")
        differences.append(
            f"all boxes above the score floor enter NMS, not the best {best} (eval.pre_nms_top_k)"
        )
    if keras.clip_first:
        differences.append("boxes are not clipped before NMS (eval.clip_first)")
    if operator.max_detections != keras.max_detections:
        differences.append(
            f"at most {operator.max_detections} detections, not {keras.max_detections}"
        )
    if operator.max_detections > _MOST_PER_CLASS and not keras.class_agnostic:
        differences.append(f"at most {_MOST_PER_CLASS} detections per class")
    if operator.score_floor != keras.score_floor:
        differences.append(f"a score floor of {operator.score_floor:g}, not {keras.score_floor:g}")
    return differences


def name_outputs(content: bytes, signature_names, tensor_names) -> bytes:
    """Put the outputs into the order of these names of the signature, and name their tensors.

    The converter orders them by name and calls them StatefulPartitionedCall:k; clients go by
    position or by TFLite_Detection_PostProcess, :1, :2, :3. The named signature keeps referring to
    the same tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    by_name = {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.array([by_name[name] for name in signature_names], np.int32)
    for tensor, name in zip(graph.outputs, tensor_names, strict=True):
        graph.tensors[tensor].name = name
    return pack(model)


class _Network(tf.Module):
    """The network to convert. It tracks the variables, or the file would read them at run time."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tracked = [variable.value for variable in model.variables]

    def __call__(self, image):
        return self.model(image, training=False)


class _PostProcessing(tf.Module):
    """What follows the network: scores and the operator."""

    def __init__(self, postprocessor, num_classes):
        super().__init__()
        self._postprocessor = postprocessor
        self._num_empty = _NUM_EMPTY_CLASSES if num_classes > _FIRST_EMPTY_CLASS else 0
        self._centred_boxes = coding.to_centre_form(postprocessor.default_boxes).numpy()
        self._operator = _operator(postprocessor, num_classes + self._num_empty)

    def __call__(self, offsets, logits):
        offsets = self._postprocessor.limit_offsets(offsets)
        scores = postprocess.class_scores(logits, self._postprocessor.score_activation)
        scores = self._add_empty_classes(scores)
        boxes, classes, scores, count = self._operator(
            offsets, scores, tf.constant(self._centred_boxes)
        )
        # Clients show boxes as they come.
        boxes = tf.clip_by_value(boxes, 0.0, 1.0)
        outputs = (boxes, self._number_classes(classes), scores, count)
        return dict(zip(ROLES, outputs, strict=True))

    def _add_empty_classes(self, scores):
        """scores [1, A, C] -> the same with classes that score 0 after the first two."""
        if not self._num_empty:
            return scores
        padding = [[0, 0], [0, 0], [self._num_empty, 0]]
        later = tf.pad(scores[..., _FIRST_EMPTY_CLASS:], padding)
        return tf.concat([scores[..., :_FIRST_EMPTY_CLASS], later], -1)

    def _number_classes(self, classes):
        """The operator's classes [1, K] -> those without the empty ones."""
        if not self._num_empty:
            return classes
        last_before = float(_FIRST_EMPTY_CLASS - 1)
        beyond = tf.maximum(classes - last_before - self._num_empty, 0.0)
        return tf.minimum(classes, last_before) + beyond


def _operator(postprocessor, num_classes):
    """A function that the converter replaces by the operator; its body only sets the shapes."""
    num_kept = postprocessor.max_detections
    y_scale, x_scale, h_scale, w_scale = (1 / variance for variance in postprocessor.variances)
    attributes = {
        "max_detections": f"i: {num_kept}",
        "max_classes_per_detection": "i: 1",
        # By default the operator runs one NMS for all classes, which loses overlapping objects.
        "use_regular_nms": f"b: {str(not postprocessor.class_agnostic).lower()}",
        "nms_score_threshold": f"f: {postprocessor.score_floor}",
        "nms_iou_threshold": f"f: {postprocessor.nms_iou}",
        "num_classes": f"i: {num_classes}",
        "y_scale": f"f: {y_scale}",
        "x_scale": f"f: {x_scale}",
        "h_scale": f"f: {h_scale}",
        "w_scale": f"f: {w_scale}",
    }
    pairs = (f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())

    @tf.function(experimental_implements=f'name: "{_OPERATOR}" {" ".join(pairs)}')
    def detection_postprocess(offsets, scores, centred_boxes):
        zero = 0.0 * sum(tf.reduce_sum(x) for x in (offsets, scores, centred_boxes))
        return (
            tf.zeros([1, num_kept, 4]) + zero,
            tf.zeros([1, num_kept]) + zero,
            tf.zeros([1, num_kept]) + zero,
            tf.zeros([1]) + zero,
        )

    return detection_postprocess


def _check(content, expected_names, expected_shapes):
    try:
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        text = str(error).splitlines()[0][:300]
        raise ValueError(
            f"LiteRT cannot run the converted file: {text}; for int8 this happens when values grow "
            "out of proportion from layer to layer, as in an untrained network"
        ) from error
    outputs = interpreter.get_output_details()
    names = tuple(output["name"] for output in outputs)
    if names != expected_names:
        raise RuntimeError(f"converted file: expected outputs {expected_names}, got {names}")
    interpreter.invoke()
    shapes = [interpreter.get_tensor(output["index"]).shape for output in outputs]
    if shapes != expected_shapes:
        raise RuntimeError(
            f"converted file: expected output shapes {expected_shapes}, got {shapes}"
        )
