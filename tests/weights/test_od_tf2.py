"""Checkpoints in the layouts of the TF2 detection zoo, against the network in plain TensorFlow."""

import json
import pathlib
import re
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import zoo_reference
from keras import applications, layers
from tensorflow.core.protobuf import saved_model_pb2

from ssd_tf.commands import import_weights
from ssd_tf.config import check_config, load_config
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers import detectors, imported, pipeline_config

ZOO = pathlib.Path(__file__).parents[3] / "shared" / "data" / "weights" / "tf2" / "zoo_index"
# The smallest of each family in the fast suite.
FAST = ("ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", "ssd_mobilenet_v2_320x320_coco17_tpu-8")
KINDS = {
    "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8": "v2_fpnlite",
    "ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8": "v2_fpnlite",
    "ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8": "v1_fpn",
    "ssd_mobilenet_v2_320x320_coco17_tpu-8": "v2",
}
INTEGRATION = [pytest.param(name, marks=pytest.mark.integration) for name in KINDS]
NAMES = [*FAST, *(each for each in INTEGRATION if each.values[0] not in FAST)]
# Without the one of 640 x 640 pixels whose variables are those of 320 x 320.
SAVED = [each for each in INTEGRATION if "v2_fpnlite_640x640" not in each.values[0]]
# Maps of 36 x 44, 18 x 22, 9 x 11 and so on: even and odd ones are halved.
SMALL_HW = (288, 352)
needs_zoo = pytest.mark.skipif(not ZOO.is_dir(), reason=f"no layouts of checkpoints at {ZOO}")


def random_value(name, shape, random):
    if re.search("gamma|moving_variance", name):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    # He et al. 2015, so that activations neither vanish nor saturate.
    num_inputs = np.prod(shape[:2]) if "depthwise" in name else np.prod(shape[:-1])
    return random.normal(0, np.sqrt(2 / max(num_inputs, 1)), shape).astype(np.float32)


def save(prefix, values):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )


def write_checkpoint(index, prefix, change=lambda values: values):
    """A checkpoint with the names and shapes of an .index; returns its network's variables."""
    reader = tf.train.load_checkpoint(str(index).removesuffix(".index"))
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    random = np.random.default_rng(0)
    values = {
        name: random_value(name, shapes[name], random)
        if dtypes[name] == tf.float32
        else np.zeros(shapes[name], dtypes[name].as_numpy_dtype)
        for name in sorted(shapes)
        if dtypes[name] != tf.string
    }
    values = change(values) | {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"")}
    prefix.parent.mkdir(parents=True, exist_ok=True)
    save(prefix, values)
    return {
        name.removeprefix("model/").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): value
        for name, value in values.items()
        if name.startswith("model/_") and "OPTIMIZER_SLOT" not in name
    }


def make_download(name, folder, **kwargs):
    """An unpacked download of the zoo; returns the variables."""
    prefix = folder / "checkpoint" / "ckpt-0"
    variables = write_checkpoint(ZOO / name / "checkpoint" / "ckpt-0.index", prefix, **kwargs)
    shutil.copy(ZOO / name / "pipeline.config", folder)
    return variables


# The objects of a SavedModel in the order in which Keras 2 finds them, and within a part those of
# the trainable variables before the others; the backbone keeps the variables of a layer together.
PARTS = {
    "_feature_extractor": (
        r"_coarse_feature_layers/.*(kernel|gamma|beta)",
        r"_coarse_feature_layers/.*moving",
        r"classification_backbone/",
        r"_fpn_features_generator/top_layers/",
        r"_fpn_features_generator/residual_blocks/",
        r"_fpn_features_generator/conv_layers/.*(kernel|gamma|beta)",
        r"_fpn_features_generator/conv_layers/.*moving",
        r"feature_map_generator/.*(kernel|gamma|beta)",
        r"feature_map_generator/.*moving",
    ),
    "_box_predictor": (
        r"_box_prediction_head/",
        r"_prediction_heads/",
        r"TOWERS box_encodings/.*(kernel|gamma|beta)",
        r"TOWERS class_predictions_with_background/.*(kernel|gamma|beta)",
        r"TOWERS box_encodings/.*moving",
        r"TOWERS class_predictions_with_background/.*moving",
    ),
}
TOWERS = {"Prediction": "box_encodings", "BoxPrediction": "box_encodings"}
LAST = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias", "gamma", "beta")
LAST += ("moving_mean", "moving_variance")


def number(variables):
    """{part: its variables in the order of Keras 2}."""
    numbered = {part: [] for part in PARTS}
    for part, patterns in PARTS.items():
        keys = {}
        for name in variables:
            place = name.replace("_base_tower_layers_for_heads", "TOWERS")
            tower = re.search(r"_head_scope_conv_layers/(\w*)Tower/(\d+)", name)
            if tower:  # listed where it is used first
                head = TOWERS.get(tower[1], "class_predictions_with_background")
                place = f"{part}/TOWERS/{head}/0/{3 * int(tower[2])}/{name.rpartition('/')[2]}"
            found = [
                index
                for index, pattern in enumerate(patterns)
                if re.match(f"{part}/{pattern.replace(' ', '/')}", place)
            ]
            if name.startswith(part):
                numbers = [int(each) for each in re.findall(r"(?<=[/-])\d+", place)]
                keys[name] = (
                    found,
                    "class_pred" in place,
                    numbers,
                    LAST.index(place.split("/")[-1]),
                )
        numbered[part] = [variables[name] for name in sorted(keys, key=keys.get)]
        assert all(found for found, *_ in keys.values())
    return numbered


def write_saved_model(folder, variables, with_trainable=False):
    """A SavedModel with numbered variables. with_trainable: trainable ones have their own numbers.

    Returns {name: shape}.
    """
    values = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(b"")}
    for part, arrays in number(variables).items():
        trainable = 0
        for index, value in enumerate(arrays):
            name = f"variables/{index}"
            if with_trainable and not any(
                value is variables[each] for each in variables if "moving" in each
            ):
                name = f"trainable_variables/{trainable}"
                trainable += 1
            values[f"_model/{part}/{name}/.ATTRIBUTES/VARIABLE_VALUE"] = value
    (folder / "variables").mkdir(parents=True)
    save(folder / "variables" / "variables", values)
    model = saved_model_pb2.SavedModel()
    model.meta_graphs.add().object_graph_def.nodes.add()
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return {name: list(value.shape) for name, value in values.items()}


def build(detector):
    config = check_config(detector.values, "test")
    count = imported.num_classes(detector, "test")
    classes = [{"id": index + 1, "name": str(index)} for index in range(count)]
    return imported.build_network(detector, config, classes, "test")


def build_small(detector):
    """The network for images of another size, of which nothing in the weights depends."""
    detector.values["model"]["input_hw"] = SMALL_HW
    return build(detector)


def make_images():
    return np.random.default_rng(1).uniform(0, 255, (1, *SMALL_HW, 3)).astype(np.float32)


@needs_zoo
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_api(name, tmp_path):
    variables = zoo_reference.Variables(make_download(name, tmp_path))
    detector = detectors.read_detector(tmp_path)
    side = {"v2": 300}.get(KINDS[name]) or int(name.split("_")[-3].partition("x")[0])
    assert list(detector.values["model"]["input_hw"]) == [side, side]
    network = build_small(detector)
    images = make_images()
    offsets, logits = zoo_reference.predict(variables, images, KINDS[name])
    found = network.model(images, training=False)
    for value, expected in ((found["offsets"], offsets), (found["logits"], logits)):
        assert value.shape == expected.shape
        scale = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, atol=1e-4 * scale)
    assert variables.left_over == set()


# Our layers outside of the backbone, and the objects of a checkpoint.
FPN_OBJECTS = {
    "fpn_lateral5": "_fpn_features_generator/top_layers/0",
    "fpn_lateral4": "_fpn_features_generator/residual_blocks/0/0",
    "fpn_lateral3": "_fpn_features_generator/residual_blocks/1/0",
    "fpn_smooth4": "_fpn_features_generator/conv_layers/0/0",
    "fpn_smooth4_bn": "_fpn_features_generator/conv_layers/0/1",
    "fpn_smooth3": "_fpn_features_generator/conv_layers/1/0",
    "fpn_smooth3_bn": "_fpn_features_generator/conv_layers/1/1",
    "fpn_coarse6": "_coarse_feature_layers/0/0",
    "fpn_coarse6_bn": "_coarse_feature_layers/0/1",
    "fpn_coarse7": "_coarse_feature_layers/1/0",
    "fpn_coarse7_bn": "_coarse_feature_layers/1/1",
}
HEAD_OBJECTS = {
    "offsets_conv": "_box_prediction_head/_box_encoder_layers/0",
    "logits_conv": (
        "_prediction_heads/class_predictions_with_background/_class_predictor_layers/0"
    ),
    **{f"tower{layer}": f"_head_scope_conv_layers/PredictionTower/{layer}" for layer in range(4)},
    **{
        f"tower{layer}_map{level}_bn": (
            f"_base_tower_layers_for_heads/box_encodings/{level}/{1 + 3 * layer}"
        )
        for layer in range(4)
        for level in range(5)
    },
}
VARIABLES = {
    layers.DepthwiseConv2D: ("depthwise_kernel",),
    layers.SeparableConv2D: ("depthwise_kernel", "pointwise_kernel", "bias"),
    layers.Conv2D: ("kernel", "bias"),
    layers.BatchNormalization: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def in_layout_of_the_zoo(arrays, model):
    """The arrays of our FPN-lite by the names of a checkpoint's variables."""
    keras_model = applications.MobileNetV2(weights=None, include_top=False)
    backbone = [layer.name for layer in keras_model.layers if layer.weights]
    values = {}
    for name, weights in arrays.items():
        if name in backbone:
            place = f"classification_backbone/layer_with_weights-{backbone.index(name)}"
            place = f"_feature_extractor/{place}"
        elif name in FPN_OBJECTS:
            place = f"_feature_extractor/{FPN_OBJECTS[name]}"
        else:
            place = f"_box_predictor/{HEAD_OBJECTS[name]}"
        kind = next(kind for kind in VARIABLES if isinstance(model.get_layer(name), kind))
        names = VARIABLES[kind]
        for variable, value in zip(names, weights, strict=False):
            values[f"model/{place}/{variable}/.ATTRIBUTES/VARIABLE_VALUE"] = value
    return values


@needs_zoo
@pytest.mark.integration
def test_real_values_in_the_layout_of_the_zoo(tmp_path):
    """Those of a TFLite file of the detector whose checkpoint has this layout."""
    file = ZOO.parent / "ssd_mobilenet_v2_fpnlite_320_coco_dynamic.tflite"
    expected = detectors.read_detector(file)
    network = build_small(expected)
    real = in_layout_of_the_zoo(expected.arrays, network.model)

    def replace(values):
        weights = {name: value.shape for name, value in values.items() if "model/_" in name}
        assert {name: np.shape(value) for name, value in real.items()} == weights
        return values | real

    make_download("ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", tmp_path, change=replace)
    found = build_small(detectors.read_detector(tmp_path))
    outputs = [each.model(make_images(), training=False) for each in (network, found)]
    for name in ("offsets", "logits"):
        scale = np.abs(outputs[0][name]).max()
        np.testing.assert_allclose(outputs[1][name], outputs[0][name], atol=1e-4 * scale)


@needs_zoo
def test_a_detector_by_name_has_named_classes(tmp_path, monkeypatch, caplog):
    name = "ssd_mobilenet_v2_fpnlite_320x320"
    download = tmp_path / f"{name}_coco17_tpu-8"
    make_download(download.name, download)
    with tarfile.open(f"{download}.tar.gz", "w:gz") as archive:
        archive.add(download, download.name)
    shutil.rmtree(download)
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path))
    output = tmp_path / "run"
    assert import_weights.main(["", f"--source=tf2:{name}", f"--output={output}"]) == 0
    classes = json.loads((output / "dataset.json").read_text())["classes"]
    assert len(classes) == 80
    # COCO has no id 12.
    assert classes[10:12] == [{"name": "fire hydrant", "id": 11}, {"name": "stop sign", "id": 13}]
    assert classes[-1] == {"name": "toothbrush", "id": 90}
    assert "pixels become -1 to 1, as in the checkpoint of the TF" in caplog.text
    assert load_config(output / "config.yaml").eval.max_detections == 100


@needs_zoo
@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_has_numbered_variables(name, tmp_path):
    variables = make_download(name, tmp_path)
    expected = detectors.read_detector(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint")
    write_saved_model(tmp_path / "saved_model", variables, with_trainable="640" in name)
    found = detectors.read_detector(tmp_path)
    assert found.values == expected.values
    assert list(found.arrays) == list(expected.arrays)
    for layer, arrays in expected.arrays.items():
        for value, array in zip(found.arrays[layer], arrays, strict=True):
            np.testing.assert_array_equal(value, array, err_msg=layer)


@needs_zoo
@pytest.mark.parametrize("index", ["saved_model_variables", "zoo_saved_model_variables"])
def test_real_saved_models_have_this_layout(index, tmp_path):
    folder = ZOO / "finetuned_fpnlite320"
    reader = tf.train.load_checkpoint(str(folder / index))
    num_logits = {"saved_model_variables": 18, "zoo_saved_model_variables": 546}[index]
    variables = write_checkpoint(folder / "ckpt-4.index", tmp_path / "ckpt-4")
    head = "_class_predictor_layers/0/"
    variables |= {
        name: np.zeros((*value.shape[:-1], num_logits), np.float32)
        for name, value in variables.items()
        if name.endswith((f"{head}bias", f"{head}pointwise_kernel"))
    }
    found = write_saved_model(tmp_path / "saved_model", variables, index.startswith("zoo"))
    assert found == reader.get_variable_to_shape_map()


@needs_zoo
def test_a_saved_model_with_other_variables_than_pipeline_config_says(tmp_path):
    name = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8"
    variables = make_download(name, tmp_path)
    shutil.rmtree(tmp_path / "checkpoint")
    tower = "_box_predictor/_head_scope_conv_layers/PredictionTower/3"
    fewer = {name: value for name, value in variables.items() if tower not in name}
    write_saved_model(tmp_path / "saved_model", fewer)
    with pytest.raises(ConfigError, match=r"expected 94 variables in _box_predictor.*found 92"):
        detectors.read_detector(tmp_path / "saved_model")
    (tmp_path / "pipeline.config").rename(tmp_path / "mine.config")
    with pytest.raises(ConfigError, match="--pipeline_config"):
        detectors.read_detector(tmp_path / "saved_model")
    with pytest.raises(ConfigError, match="found 92"):
        detectors.read_detector(tmp_path / "saved_model", tmp_path / "mine.config")


@needs_zoo
def test_a_users_checkpoint_with_optimizer_slots(tmp_path):
    write_checkpoint(ZOO / "finetuned_fpnlite320" / "ckpt-4.index", tmp_path / "ckpt-4")
    classes = "num_classes: 90"
    text = (ZOO / "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8/pipeline.config").read_text()
    shape = tf.train.load_checkpoint(str(tmp_path / "ckpt-4")).get_variable_to_shape_map()
    suffix = "_class_predictor_layers/0/bias/.ATTRIBUTES/VARIABLE_VALUE"
    (logits,) = (shape[name] for name in shape if name.endswith(suffix))
    count = logits[0] // 6 - 1
    (tmp_path / "pipeline.config").write_text(text)
    with pytest.raises(ConfigError, match="num_classes"):
        detectors.read_detector(tmp_path)
    (tmp_path / "pipeline.config").write_text(text.replace(classes, f"num_classes: {count}"))
    assert build(detectors.read_detector(tmp_path)).model.output["logits"].shape[-1] == count + 1


@needs_zoo
@pytest.mark.parametrize("change", ["missing", "left over"])
def test_another_network_than_pipeline_config_says(change, tmp_path):
    name = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8"
    tower = "model/_box_predictor/_head_scope_conv_layers/PredictionTower"

    def edit(values):
        if change == "missing":
            return {key: value for key, value in values.items() if f"{tower}/3" not in key}
        moved = {
            key.replace(f"{tower}/3", f"{tower}/4"): value
            for key, value in values.items()
            if f"{tower}/3" in key
        }
        return values | moved

    make_download(name, tmp_path, change=edit)
    with pytest.raises(ConfigError, match=r"PredictionTower/[34]"):
        detectors.read_detector(tmp_path)


def test_checkpoints_without_their_parts(tmp_path):
    prefix = tmp_path / "ckpt-1"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=["_CHECKPOINTABLE_OBJECT_GRAPH", "model/a/.ATTRIBUTES/VARIABLE_VALUE"],
        shape_and_slices=["", ""],
        tensors=[tf.constant(b""), tf.zeros([2])],
    )
    with pytest.raises(ConfigError, match="--pipeline_config"):
        detectors.read_detector(prefix)
    (tmp_path / "pipeline.config").write_text("model { }")
    with pytest.raises(ConfigError, match="no model"):
        detectors.read_detector(prefix)
    (tmp_path / "ckpt-1.data-00000-of-00001").unlink()
    with pytest.raises(ConfigError, match=r"ckpt-1\.data-00000-of-00001"):
        detectors.read_detector(tmp_path)


@pytest.mark.parametrize(
    "text, where",
    [("model {", "model"), ("model { a: }", "a"), ("= 3", "line 1"), ("a: 1 }", "}")],
)
def test_text_that_is_no_pipeline_config(text, where, tmp_path):
    path = tmp_path / "pipeline.config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=where):
        pipeline_config.read_pipeline(path)


def test_text_format(tmp_path):
    path = tmp_path / "pipeline.config"
    path.write_text('# c\na { b: 1.5 b: -2e3  c: "x y" d: [1, 2] }; a < b: 3 e: true >\n')
    pipeline = pipeline_config.read_pipeline(path)
    first, last = pipeline.fields["a"]
    assert (first.numbers("b"), first.text("c", ""), first.numbers("d")) == (
        [1.5, -2000.0],
        "x y",
        [1.0, 2.0],
    )
    assert pipeline.message("a") == last
    assert (last.number("b", 0), last.flag("e"), last.flag("f")) == (3.0, True, False)
