"""The two graphs that become a TFLite detector, network and post-processing, and their conversion.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import tempfile
import warnings

import keras
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import commandline
from ssd_tf.boxes import coding
from ssd_tf.inference.tflite_outputs import OPERATOR, ROLES
from ssd_tf.models import postprocess
from ssd_tf.models.folding import freeze

# Stays float32 in int8 files: TFLite gives L2 normalisation a fixed scale of 1/128. Normalised over
# 512 channels a value is about 1/23, so that VGG's conv4_3 would keep five steps.
_FLOAT_OPERATOR = "L2_NORMALIZATION"
# With n > 1 threads, and more than n classes, the operator misses class n (from 0):
# tensorflow/tensorflow#56058, seen with LiteRT 2.3. Clients choose the threads, so classes 2 to 16
# are empty ones, and the names of the others' numbers are set right behind the operator.
_FIRST_EMPTY_CLASS = 2
_NUM_EMPTY_CLASSES = 15


def convert_network(model: keras.Model, precision, calibration=()) -> bytes:
    """A Keras model -> a .tflite file with an input [1, H, W, 3].

    calibration: float32 images [H, W, 3] at the size of the input, for int8. Raises ValueError when
    the converter fails.
    """
    module = _Network(replace_hard_swish(model) if precision == "int8" else model)
    image = tf.TensorSpec([1, *model.input_shape[1:3], 3], tf.float32, "image")
    return _convert(module, [image], precision, calibration)


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
        return _convert_saved_model(folder, precision, calibration)


def _convert_saved_model(folder, precision, calibration):
    def images():
        for image in calibration:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=["serving_default"]
    )
    converter.allow_custom_ops = True
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = images
        converter.inference_input_type = tf.uint8
    with commandline.quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the converter's own use of tf.lite.Interpreter
        try:
            content = converter.convert()
            if precision == "int8" and _has_operator(content, _FLOAT_OPERATOR):
                content = _quantize_partly(converter, images)
        except Exception as error:  # the converter raises whatever its C++ part does
            text = str(error).strip().splitlines()[0]
            raise ValueError(f"the TFLite converter failed: {text}") from error
    return content


def _has_operator(content, name):
    code = getattr(schema.BuiltinOperator, name)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return any(entry.builtinCode == code for entry in model.operatorCodes)


def _quantize_partly(converter, images):
    """int8 but for _FLOAT_OPERATOR: it is a quantisation debugger that can leave operators out."""
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=[_FLOAT_OPERATOR])
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=images, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


class _HardSwish(keras.layers.Layer):
    """x / 6 * relu6(x + 3), in an order in which the converter does not see hard-swish."""

    def call(self, inputs):
        return (inputs * (1 / 6)) * keras.ops.relu6(inputs + 3.0)


def replace_hard_swish(model: keras.Model) -> keras.Model:
    """A copy of the model that computes hard-swish from its parts; the model itself if it has none.

    LiteRT 2.3 has no fast int8 kernel for hard-swish: with its parts, the int8 network of
    SSDLite320-MobileNetV3 takes half of the time.
    """
    if not any(map(_is_hard_swish, model.layers)):
        return model

    def copy(layer):
        if _is_hard_swish(layer):
            return _HardSwish(name=layer.name)
        return type(layer).from_config(layer.get_config())

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def _is_hard_swish(layer):
    is_activation = isinstance(layer, keras.layers.Activation)
    return is_activation and layer.activation is keras.activations.hard_swish


class _Network(tf.Module):
    """The network to convert, with constants: to write variables and read them takes seconds."""

    def __init__(self, model):
        super().__init__()
        self._predict = freeze(model)

    def __call__(self, image):
        return self._predict(image)


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
    num_kept = postprocessor.eval.max_detections
    y_scale, x_scale, h_scale, w_scale = (1 / variance for variance in postprocessor.variances)
    attributes = {
        "max_detections": f"i: {num_kept}",
        "max_classes_per_detection": "i: 1",
        # By default the operator runs one NMS for all classes, which loses overlapping objects.
        "use_regular_nms": f"b: {str(not postprocessor.eval.class_agnostic).lower()}",
        "nms_score_threshold": f"f: {postprocessor.eval.score_floor}",
        "nms_iou_threshold": f"f: {postprocessor.eval.nms_iou}",
        "num_classes": f"i: {num_classes}",
        "y_scale": f"f: {y_scale}",
        "x_scale": f"f: {x_scale}",
        "h_scale": f"f: {h_scale}",
        "w_scale": f"f: {w_scale}",
    }
    pairs = (f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())

    @tf.function(experimental_implements=f'name: "{OPERATOR.decode()}" {" ".join(pairs)}')
    def detection_postprocess(offsets, scores, centred_boxes):
        zero = 0.0 * sum(tf.reduce_sum(x) for x in (offsets, scores, centred_boxes))
        return (
            tf.zeros([1, num_kept, 4]) + zero,
            tf.zeros([1, num_kept]) + zero,
            tf.zeros([1, num_kept]) + zero,
            tf.zeros([1]) + zero,
        )

    return detection_postprocess
