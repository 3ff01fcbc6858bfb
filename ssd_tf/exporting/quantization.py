"""The converter's settings for each precision of a TFLite file."""

import warnings

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from ssd_tf import commandline

# Stays float32 in int8 files: TFLite gives L2 normalisation a fixed scale of 1/128. Normalised over
# 512 channels a value is about 1/23, so that VGG's conv4_3 would keep five steps.
_FLOAT_OPERATOR = "L2_NORMALIZATION"


def convert(folder, precision, calibration=()) -> bytes:
    """A SavedModel -> a .tflite file. calibration: float32 images [H, W, 3], for int8.

    Raises ValueError when the converter fails.
    """

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
