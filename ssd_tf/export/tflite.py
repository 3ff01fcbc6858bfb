"""TFLite files with the TFLite_Detection_PostProcess operator, and running TFLite detectors, ours or foreign.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import os
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf.boxes import coding
from ssd_tf.data import augment
from ssd_tf.models import postprocess, ssd

# What clients of TFLite detectors expect: these tensors, in this order.
OUTPUTS = ("boxes", "classes", "scores", "count")
_OPERATOR = "TFLite_Detection_PostProcess"


class _Exported(tf.Module):
    """Tracks the model's variables: without that the converter leaves reads of variables in the file."""

    def __init__(self, config, model, num_classes):
        super().__init__()
        self.model, self.tracked = model, [variable.value for variable in model.variables]
        self._scores = config.loss.scores
        self._anchors = coding.to_centre_form(ssd.make_default_boxes(config)).numpy()
        self._postprocess = _fused_postprocess(config, num_classes)

    def detect(self, image):
        predictions = self.model(image, training=False)
        scores = postprocess.class_scores(predictions["logits"], self._scores)
        outputs = self._postprocess(predictions["offsets"], scores, tf.constant(self._anchors))
        return dict(zip(OUTPUTS, outputs, strict=True))


def export_tflite(config, model, num_classes, path):
    """Writes a float32 .tflite: image [1, H, W, 3] float32 RGB in 0..255 -> boxes [1, K, 4], classes from 0, scores, count.

    Raises RuntimeError where the converted file does not have these four outputs in this order.
    """
    path = pathlib.Path(path)
    module = _Exported(config, model, num_classes)
    spec = tf.TensorSpec([1, *config.model.input_hw, 3], tf.float32, "image")
    with tempfile.TemporaryDirectory() as folder:
        signature = tf.function(module.detect).get_concrete_function(spec)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.allow_custom_ops = True
        content = order_outputs(converter.convert())
    _check(content, config)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def order_outputs(content: bytes) -> bytes:
    """Puts the four outputs into the order of OUTPUTS and gives them the operator's names.

    The converter orders them by name and calls them StatefulPartitionedCall:k; clients go by position or by
    TFLite_Detection_PostProcess, :1, :2, :3. The named signature keeps pointing to the same tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    by_name = {entry.name.decode(): entry.tensorIndex for entry in model.signatureDefs[0].outputs}
    graph.outputs = np.array([by_name[name] for name in OUTPUTS], np.int32)
    for position, tensor in enumerate(graph.outputs):
        graph.tensors[tensor].name = f"{_OPERATOR}:{position}" if position else _OPERATOR
    builder = schema.flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def make_runner(path):
    """A function: list of uint8 pictures -> list of {"boxes", "scores", "labels"}, of a .tflite with the usual four outputs."""
    # The operator's per-class suppression never looks at class number num_threads (from 0) when it runs in several threads:
    # tensorflow/tensorflow#56058, seen with LiteRT 2.3. One thread is right for any number of classes.
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    if len(outputs) != 4 or len(entry["shape"]) != 4:
        raise ValueError(
            f"{path} has {len(outputs)} outputs; wanted a detector's four: boxes, classes, scores, count"
        )

    def run_one(image):
        batch = augment.resize(image, entry["shape"][1:3]).numpy()[None]
        if np.issubdtype(entry["dtype"], np.integer):
            batch = np.clip(np.round(batch), 0, 255)
        interpreter.set_tensor(entry["index"], batch.astype(entry["dtype"]))
        interpreter.invoke()
        boxes, classes, scores, count = (
            interpreter.get_tensor(output["index"])[0] for output in outputs
        )
        live = np.arange(len(scores)) < int(count)
        return {
            "boxes": np.clip(boxes[live], 0, 1),
            "scores": scores[live],
            "labels": classes[live].astype(np.int32) + 1,
        }

    return lambda images: [run_one(image) for image in images]


def _fused_postprocess(config, num_classes):
    """A function that the converter replaces by the operator; its body only tells the shapes."""
    options, kept = config.eval, config.export.max_detections
    scales = [1 / variance for variance in config.boxes.variances]
    attributes = {
        "max_detections": f"i: {kept}",
        "max_classes_per_detection": "i: 1",
        # The operator's own default is one NMS for all classes together, which loses overlapping objects of different classes.
        "use_regular_nms": "b: true",
        "nms_score_threshold": f"f: {config.export.score_floor}",
        "nms_iou_threshold": f"f: {options.nms_iou}",
        "num_classes": f"i: {num_classes}",
        **{f"{side}_scale": f"f: {scale}" for side, scale in zip("yxhw", scales, strict=True)},
    }
    text = f'name: "{_OPERATOR}" ' + " ".join(
        f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items()
    )

    @tf.function(experimental_implements=text)
    def postprocess(offsets, scores, anchors):
        touch = 0.0 * (tf.reduce_sum(offsets) + tf.reduce_sum(scores) + tf.reduce_sum(anchors))
        return (
            tf.zeros([1, kept, 4]) + touch,
            tf.zeros([1, kept]) + touch,
            tf.zeros([1, kept]) + touch,
            tf.zeros([1]) + touch,
        )

    return postprocess


def _check(content, config):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    names = [output["name"] for output in interpreter.get_output_details()]
    wanted = [_OPERATOR, *(f"{_OPERATOR}:{position}" for position in (1, 2, 3))]
    if names != wanted:
        raise RuntimeError(f"the converted file has the outputs {names}, wanted {wanted}")
    interpreter.invoke()
    shapes = [
        interpreter.get_tensor(output["index"]).shape for output in interpreter.get_output_details()
    ]
    kept = config.export.max_detections
    if shapes != [(1, kept, 4), (1, kept), (1, kept), (1,)]:
        raise RuntimeError(
            f"the converted file gives outputs of shapes {shapes}, wanted boxes, classes, scores and count"
        )
