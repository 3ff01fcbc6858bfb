"""TFLite files in several precisions, with the TFLite_Detection_PostProcess operator or raw.

Shapes: `A` default boxes, `C` foreground classes, `K` detections kept.
"""

import dataclasses
import functools

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ssd_tf import files
from ssd_tf.config import Config, PostProcessing
from ssd_tf.exporting import tflite_file
from ssd_tf.exporting.tflite_graphs import convert_network, convert_postprocessing
from ssd_tf.inference import raw_decoder
from ssd_tf.inference.detector import make_postprocessor
from ssd_tf.inference.tflite_outputs import OPERATOR, RAW_ROLES, ROLES
from ssd_tf.inference.thresholds import Thresholds
from ssd_tf.models import ssd
from ssd_tf.models.folding import fold_batch_norm, scale_per_call
from ssd_tf.models.postprocess import PostProcessor

_OPERATOR_OUTPUTS = tuple(f"{OPERATOR.decode()}{end}" for end in ("", ":1", ":2", ":3"))
# The operator's limit per class; the attribute that raises it is lost in conversion.
_MAX_PER_CLASS = 100


class Converter:
    """Converts one network.

    The files of a precision share the conversion of the network, all files that of what follows.
    """

    def __init__(
        self,
        config: Config,
        network: ssd.SSD,
        names,
        calibration=(),
        thresholds: Thresholds | None = None,
    ):
        """names: of the classes, in label order. calibration: as `convert_network` takes it."""
        self.names = list(names)
        self._score = client_score(config, thresholds, default=0.3)
        self._config = config
        self._network = network
        self._calibration = calibration
        self._postprocessor = operator_postprocessor(config, network.default_boxes)
        self._networks = {}

    def export(self, path, precision, raw=False):
        """Write a .tflite file atomically, with metadata.

        precision: one of folder.PRECISIONS. raw: without the operator.
        Input: image [1, H, W, 3] RGB in 0..255, uint8 for int8, else float32. Outputs: boxes
        [1, K, 4], classes [1, K] from 0, scores [1, K], count [1]; raw: offsets [1, A, 4], logits
        [1, A, C + 1]. Raises ValueError when TFLite lacks an operator of the model, RuntimeError
        when the converted file has other outputs.
        """
        if precision not in self._networks:
            model = self._network.model
            if precision == "float32":
                # Of shared heads, which would double their bytes; int8 would round once more.
                model = scale_per_call(model)
            model = fold_batch_norm(model)
            self._networks[precision] = convert_network(model, precision, self._calibration)
        content = self._networks[precision]
        files.write_bytes(path, self._finish_raw(content) if raw else self._finish(content))

    @functools.cached_property
    def _postprocessing(self):
        return convert_postprocessing(self._postprocessor, self.names)

    def _finish_raw(self, content):
        num_boxes = len(self._network.default_boxes)
        content = tflite_file.name_outputs(content, RAW_ROLES, RAW_ROLES)
        _check(content, RAW_ROLES, [(1, num_boxes, 4), (1, num_boxes, len(self.names) + 1)])
        settings = raw_settings(self._config, self._network.default_boxes)
        version = raw_decoder.fingerprint(settings)
        return tflite_file.add_raw_metadata(content, self.names, version)

    def _finish(self, content):
        """Add the post-processing, which is float32 in every precision."""
        content = tflite_file.join(content, self._postprocessing)
        content = tflite_file.name_outputs(content, ROLES, _OPERATOR_OUTPUTS)
        num_kept = self._postprocessor.eval.max_detections
        _check(content, _OPERATOR_OUTPUTS, [(1, num_kept, 4), (1, num_kept), (1, num_kept), (1,)])
        return tflite_file.add_metadata(content, self.names, self._score)


def client_score(config: Config, thresholds: Thresholds | None, default) -> float:
    """The score threshold for clients that take one number; default: if none was chosen."""
    if config.export.score_threshold is not None:
        return config.export.score_threshold
    return thresholds.all if thresholds else default


def raw_settings(config: Config, default_boxes, scores=None) -> dict:
    """The content of default_boxes.json, which `raw_decoder.load_settings` reads.

    scores: the threshold of each class, in label order, or None.
    """
    return {
        "variances": list(config.boxes.variances),
        "score_activation": config.model.score_activation,
        **config.eval.model_dump(include=set(PostProcessing.model_fields)),
        "thresholds": scores,
        "boxes": np.round(default_boxes.astype(float), 7).tolist(),
    }


def operator_postprocessor(config: Config, default_boxes) -> PostProcessor:
    """The operator's parameters: those of the Keras model, with the limits of config.export.

    The operator has no pre_nms_top_k and no clip_first; see `operator_differences`.
    """
    postprocessor = make_postprocessor(config, default_boxes)
    max_detections = config.export.max_detections
    if max_detections is None:
        max_detections = min(config.eval.max_detections, _MAX_PER_CLASS)
    score_floor = config.export.score_floor
    if score_floor is None:
        score_floor = config.eval.score_floor
    limits = {"max_detections": max_detections, "score_floor": score_floor}
    return dataclasses.replace(postprocessor, eval=config.eval.model_copy(update=limits))


def operator_differences(config: Config, default_boxes, most_objects=np.inf) -> list[str]:
    """What the operator may find otherwise than the Keras model of this config, one phrase each.

    most_objects: the largest number of objects in one image. Limits that are not below it are left
    out, as is eval.pre_nms_top_k, which the operator lacks: without it nothing more is lost.
    """
    keras = config.eval
    operator = operator_postprocessor(config, default_boxes).eval
    differences = []
    if keras.clip_first:
        differences.append(
            "boxes are not clipped before NMS (eval.clip_first), so at the edge of an image it "
            "may keep other ones"
        )
    if operator.max_detections < min(keras.max_detections, most_objects):
        differences.append(
            f"in an image with more than {operator.max_detections} objects it finds only the "
            f"{operator.max_detections} with the highest scores, the run up to "
            f"{keras.max_detections}"
        )
    if min(operator.max_detections, most_objects) > _MAX_PER_CLASS and not keras.class_agnostic:
        differences.append(f"in an image it finds at most {_MAX_PER_CLASS} objects of a class")
    if operator.score_floor > keras.score_floor:
        differences.append(
            f"it leaves out detections that score less than {operator.score_floor:g}, the run "
            f"those below {keras.score_floor:g}"
        )
    return differences


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
