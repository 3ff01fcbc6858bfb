"""The settings of our config that a pipeline.config of the TF Object Detection API states."""

from ssd_tf.boxes.default_boxes import BoxLevel
from ssd_tf.class_names import count_classes
from ssd_tf.errors import ConfigError
from ssd_tf.models import mobilenet
from ssd_tf.weights.importers import families, od_api
from ssd_tf.weights.importers.pipeline_config import Message

# feature_extractor.type -> model.backbone.name and whether there is a feature pyramid.
_FAMILIES = {
    "ssd_mobilenet_v1_keras": ("mobilenet", False),
    "ssd_mobilenet_v2_keras": ("mobilenet_v2", False),
    "ssd_mobilenet_v1_fpn_keras": ("mobilenet", True),
    "ssd_mobilenet_v2_fpn_keras": ("mobilenet_v2", True),
    "ssd_resnet50_v1_fpn_keras": ("resnet50", True),
    "ssd_resnet101_v1_fpn_keras": ("resnet101", True),
}
# Larger values, as a corrupt file may state them, would fill the memory.
_MAX_CLASSES = 20_000
_MAX_CHANNELS = 1024
_MAX_LAYERS = 32
_MAX_WIDTH = 4
_AXES = ("y", "x", "height", "width")


def describe(pipeline: Message, path) -> tuple[dict, int]:
    """The sections of our config, and C, from a pipeline.config. Raises ConfigError."""
    model = pipeline.message("model")
    if "ssd" not in model.fields:
        kind = next(iter(model.fields), "no model")
        families.check([kind], path)
        raise ConfigError(f"{path}: expected an SSD, got {kind}")
    model = model.message("ssd")
    extractor = model.message("feature_extractor")
    kind = extractor.text("type", "")
    num_classes = model.integer("num_classes", 0, _MAX_CLASSES)
    label = f"{path} ({kind}, {count_classes(num_classes)})"
    families.check([kind], label)
    if kind not in _FAMILIES:
        raise ConfigError(
            f"{label}: expected feature_extractor.type {', '.join(_FAMILIES)}; "
            f"{families.RUNS_AS_IT_IS}"
        )
    name, has_pyramid = _FAMILIES[kind]
    input_hw = _input_hw(model, path)
    predictor = model.message("box_predictor")
    _check_hyperparams(extractor, predictor, path)
    backbone = _backbone(name, extractor, path)
    if has_pyramid:
        network = _pyramid(extractor, predictor, path)
    else:
        network = _heads_per_map(predictor, model)
        backbone["extra_layers"] = "separable" if extractor.flag("use_depthwise") else "conv"
    converter = model.message("post_processing").text("score_converter", "IDENTITY")
    values = {
        "model": {
            "input_hw": input_hw,
            "backbone": backbone,
            "score_activation": "softmax" if converter == "SOFTMAX" else "sigmoid",
            **network,
        },
        "boxes": _boxes(model, network["num_levels"], input_hw, path),
        "loss": _loss(model),
        "eval": _evaluation(model),
    }
    return values, num_classes


def _check_hyperparams(extractor, predictor, path):
    """Raise ConfigError for another activation or batch norm than our layers have."""
    found = [("feature_extractor", extractor)]
    found += [(key, predictor.message(key)) for key in predictor.fields]
    for section, message in found:
        if "conv_hyperparams" not in message.fields:
            continue
        hyperparams = message.message("conv_hyperparams")
        activation = hyperparams.text("activation", "RELU")
        epsilon = hyperparams.message("batch_norm").number("epsilon", mobilenet.EPSILON)
        for key, value, expected in (
            ("activation", activation, "RELU_6"),
            ("batch_norm.epsilon", epsilon, mobilenet.EPSILON),
        ):
            if value != expected:
                raise ConfigError(
                    f"{path}: {section}.conv_hyperparams.{key}: expected {expected}, got {value}; "
                    f"{families.RUNS_AS_IT_IS}"
                )


def _backbone(name, extractor, path):
    """The section model.backbone."""
    values = {"name": name, "alpha": _width(extractor, path)}
    if name.startswith("mobilenet"):
        return values | {"padding": "same", "min_channels": _min_depth(extractor)}
    key = "override_base_feature_extractor_hyperparams"
    if not extractor.flag(key):
        raise ConfigError(
            f"{path}: feature_extractor.{key}: expected true, as in the detection zoo, since "
            f"the ResNet has ReLU otherwise, not ReLU6; {families.RUNS_AS_IT_IS}"
        )
    return values | od_api.RESNET


def _width(extractor, path):
    width = extractor.number("depth_multiplier", 1.0)
    if not 0 < width <= _MAX_WIDTH:
        raise ConfigError(
            f"{path}: depth_multiplier: expected a number up to {_MAX_WIDTH}, got {width:g}"
        )
    return width


def _min_depth(extractor):
    return extractor.integer("min_depth", 16, _MAX_CHANNELS)


def _input_hw(model, path):
    resizer = model.message("image_resizer")
    if "fixed_shape_resizer" not in resizer.fields:
        raise ConfigError(
            f"{path}: image_resizer: expected fixed_shape_resizer, got {', '.join(resizer.fields)}"
        )
    size = resizer.message("fixed_shape_resizer")
    return [size.integer(side, 300, od_api.MAX_INPUT) for side in ("height", "width")]


def _pyramid(extractor, predictor, path):
    fpn = extractor.message("fpn")
    levels = [fpn.integer(key, default, 8) for key, default in (("min_level", 3), ("max_level", 7))]
    if levels[0] != 3:
        raise ConfigError(f"{path}: fpn.min_level: expected 3, got {levels[0]}")
    shared = predictor.message("weight_shared_convolutional_box_predictor")
    separable = extractor.flag("use_depthwise")
    depth = fpn.integer("additional_layer_depth", 256, _MAX_CHANNELS)
    return {
        "num_levels": levels[1] - levels[0] + 1,
        "neck": "fpn_lite" if separable else "fpn",
        "neck_channels": max(int(depth * _width(extractor, path)), _min_depth(extractor)),
        "head": "separable" if shared.flag("use_depthwise") else "conv",
        "tower": {
            "num_layers": shared.integer("num_layers_before_predictor", 0, _MAX_LAYERS, 0),
            "channels": shared.integer("depth", 256, _MAX_CHANNELS),
            "shared": shared.flag("share_prediction_tower"),
        },
    }


def _heads_per_map(predictor, model):
    convolutional = predictor.message("convolutional_box_predictor")
    anchors = model.message("anchor_generator").message("ssd_anchor_generator")
    head = "pointwise" if convolutional.number("kernel_size", 1) == 1 else "conv"
    if convolutional.flag("use_depthwise"):
        head = "separable"
    return {"num_levels": anchors.integer("num_layers", 6, _MAX_LAYERS), "head": head}


def _boxes(model, num_levels, input_hw, path):
    coder = model.message("box_coder").message("faster_rcnn_box_coder")
    scales = [coder.number(f"{axis}_scale", 10.0 if axis in "yx" else 5.0) for axis in _AXES]
    if min(scales) <= 0:
        raise ConfigError(f"{path}: faster_rcnn_box_coder: expected scales above 0, got {scales}")
    boxes = {"variances": [1 / scale for scale in scales]}
    generator = model.message("anchor_generator")
    if "multiscale_anchor_generator" in generator.fields:
        anchors = generator.message("multiscale_anchor_generator")
        return boxes | _multiscale_boxes(anchors, num_levels, input_hw, path)
    anchors = generator.message("ssd_anchor_generator")
    stated = [anchors.number("min_scale", 0.2), anchors.number("max_scale", 0.95)]
    ratios = anchors.numbers("aspect_ratios")
    expected = [1.0, 2.0, 0.5, 3.0, 0.3333]
    if ratios != expected or [round(each, 4) for each in stated] != [0.2, 0.95]:
        raise ConfigError(f"{path}: ssd_anchor_generator: expected scales .2 to .95 and {expected}")
    return boxes | {"preset": "od_api"}


def _multiscale_boxes(anchors, num_levels, input_hw, path):
    scale = anchors.number("anchor_scale", 4.0)
    ratios = anchors.numbers("aspect_ratios") or [1.0, 2.0, 0.5]
    per_octave = anchors.integer("scales_per_octave", 2, _MAX_LAYERS)
    if (scale, ratios, per_octave) == (4.0, [1.0, 2.0, 0.5], 2):
        return {"preset": "od_api_fpn"}
    if any(side % (8 * 2 ** (num_levels - 1)) for side in input_hw):
        raise ConfigError(
            f"{path}: multiscale_anchor_generator: other values than the API's need an input that "
            f"the coarsest stride divides, got {input_hw}"
        )
    levels = []
    for stride in (8 * 2**index for index in range(num_levels)):
        sizes = [scale * stride * 2 ** (index / per_octave) for index in range(per_octave)]
        shapes = BoxLevel.from_ratios([(s, ratio) for ratio in ratios for s in sizes]).shapes_hw
        levels.append({"shapes": [list(shape) for shape in shapes], "step": stride})
    return {"levels": levels}


def _loss(model):
    loss = model.message("loss").message("classification_loss")
    if "weighted_sigmoid_focal" not in loss.fields:
        return {}
    focal = loss.message("weighted_sigmoid_focal")
    return {
        "focal_gamma": focal.number("gamma", 2.0),
        "focal_alpha": focal.number("alpha", 0.25),
    }


def _evaluation(model):
    nms = model.message("post_processing").message("batch_non_max_suppression")
    return {
        "score_floor": nms.number("score_threshold", od_api.DEFAULTS["eval.score_floor"]),
        "nms_iou": nms.number("iou_threshold", od_api.DEFAULTS["eval.nms_iou"]),
        "max_detections": nms.integer("max_total_detections", 100, _MAX_CLASSES),
    }
