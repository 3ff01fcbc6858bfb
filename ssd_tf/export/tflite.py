"""TFLite files with the TFLite_Detection_PostProcess operator.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import dataclasses
import tempfile

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import files
from ssd_tf.boxes import coding
from ssd_tf.config import Config
from ssd_tf.export.metadata import add_metadata
from ssd_tf.inference.detector import make_postprocessor
from ssd_tf.models import postprocess, ssd

# Clients of TFLite detectors expect these outputs in this order.
OUTPUTS = ("boxes", "classes", "scores", "count")
_OPERATOR = "TFLite_Detection_PostProcess"
_OPERATOR_OUTPUTS = (_OPERATOR, f"{_OPERATOR}:1", f"{_OPERATOR}:2", f"{_OPERATOR}:3")
# The operator's limit per class; the attribute that raises it is lost in conversion.
_MOST_PER_CLASS = 100


def export_tflite(config: Config, network: ssd.SSD, names, path):
    """Write a float32 .tflite file atomically, with metadata and the class names inside.

    Input: image [1, H, W, 3] float32 RGB in 0..255. Outputs: boxes [1, K, 4], classes [1, K] from
    0, scores [1, K], count [1]. Raises RuntimeError when the converted file has other outputs.
    """
    postprocessor = operator_postprocessor(config, network.default_boxes)
    module = _Exported(network.model, postprocessor, len(names))
    spec = tf.TensorSpec([1, *config.model.input_hw, 3], tf.float32, "image")
    with tempfile.TemporaryDirectory() as folder:
        signature = tf.function(module.detect).get_concrete_function(spec)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.allow_custom_ops = True
        content = order_outputs(converter.convert())
    _check(content, postprocessor.max_detections)
    files.write_bytes(path, add_metadata(content, names, config.export.score_threshold))


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


def order_outputs(content: bytes) -> bytes:
    """Put the four outputs into the order of OUTPUTS and give them the operator's names.

    The converter orders them by name and calls them StatefulPartitionedCall:k; clients go by
    position or by TFLite_Detection_PostProcess, :1, :2, :3. The named signature keeps referring to
    the same tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    by_name = {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.array([by_name[name] for name in OUTPUTS], np.int32)
    for tensor, name in zip(graph.outputs, _OPERATOR_OUTPUTS, strict=True):
        graph.tensors[tensor].name = name
    builder = schema.flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Exported(tf.Module):
    """The graph to convert. It tracks the variables, or the file would read them at run time."""

    def __init__(self, model, postprocessor, num_classes):
        super().__init__()
        self.model = model
        self.tracked = [variable.value for variable in model.variables]
        self._postprocessor = postprocessor
        self._centred_boxes = coding.to_centre_form(postprocessor.default_boxes).numpy()
        self._operator = _operator(postprocessor, num_classes)

    def detect(self, image):
        predictions = self.model(image, training=False)
        offsets = self._postprocessor.limit_offsets(predictions["offsets"])
        scores = postprocess.class_scores(
            predictions["logits"], self._postprocessor.score_activation
        )
        outputs = self._operator(offsets, scores, tf.constant(self._centred_boxes))
        return dict(zip(OUTPUTS, outputs, strict=True))


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


def _check(content, num_kept):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    outputs = interpreter.get_output_details()
    names = tuple(output["name"] for output in outputs)
    if names != _OPERATOR_OUTPUTS:
        raise RuntimeError(f"converted file: expected outputs {_OPERATOR_OUTPUTS}, got {names}")
    interpreter.invoke()
    shapes = [interpreter.get_tensor(output["index"]).shape for output in outputs]
    expected = [(1, num_kept, 4), (1, num_kept), (1, num_kept), (1,)]
    if shapes != expected:
        raise RuntimeError(f"converted file: expected output shapes {expected}, got {shapes}")
