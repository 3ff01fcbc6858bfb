"""init_from: what is taken over from another run, and why the rest is not."""

import functools
import json

import numpy as np
import pytest

from ssd_tf.config import check_config, load_config, save_config
from ssd_tf.errors import ConfigError
from ssd_tf.models import ssd
from ssd_tf.weights import meaning, runs, transfer

VALUES = {
    "model": {
        "input_hw": [64, 96],
        "num_levels": 2,
        "head": "separable",
        "backbone": {"name": "plain", "alpha": 0.25},
    },
    "boxes": {"levels": [{"size": 10, "next_size": 20}, {"size": 30, "next_size": 50}]},
}
NAMES = ["person", "dog", "car"]


def config_with(**sections):
    """VALUES with some sections' keys replaced."""
    merged = {name: dict(section) for name, section in VALUES.items()}
    for name, keys in sections.items():
        merged[name] = merged.get(name, {}) | keys
    return check_config(merged, "test")


# A network takes half a second, and each run gives it all of its weights anew.
build_once = functools.cache(ssd.build_model)


@functools.cache
def fresh_network(config, num_classes):
    """A network and its initial weights, which the next test gives it back."""
    network = ssd.build_model(config, num_classes)
    return network, network.model.get_weights()


def write_run(folder, config, names=NAMES):
    """A run whose weights are random, its batch norm's statistics included."""
    model = build_once(config, len(names)).model
    rng = np.random.default_rng(1)
    for variable in model.variables:
        variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    best = folder / "checkpoints" / "best"
    best.mkdir(parents=True, exist_ok=True)
    runs.write_weights(model, best / "ckpt-0")
    classes = [{"name": name, "id": number} for number, name in enumerate(names, start=1)]
    content = {"version": 1, "classes": classes, "splits": {}}
    (folder / "dataset.json").write_text(json.dumps(content))
    save_config(config, folder / "config.yaml")
    return {variable.path: variable.numpy() for variable in model.variables}


@pytest.fixture
def start(tmp_path):
    """A function: a run of one config, and a network of another that starts from it."""

    def make(config=None, old_config=None, names=NAMES, old_names=NAMES):
        old = write_run(tmp_path / "run", old_config or config_with(), old_names)
        config = config or config_with()
        network, weights = fresh_network(config, len(names))
        network.model.set_weights(weights)
        fresh = {variable.path: variable.numpy() for variable in network.model.variables}
        config = config.model_copy(update={"init_from": str(tmp_path / "run")})
        source = transfer.read_source(config, network.model)
        outcomes = transfer.transfer(source, network, config, names)
        new = {variable.path: variable.numpy() for variable in network.model.variables}
        return old, fresh, new, outcomes

    return make


def start_from(run, config):
    network = ssd.build_model(config, len(NAMES))
    config = config.model_copy(update={"init_from": str(run)})
    source = transfer.read_source(config, network.model)
    transfer.transfer(source, network, config, NAMES)


def results(outcomes, prefix=""):
    return {outcome.layer: outcome.result for outcome in outcomes if prefix in outcome.layer}


def test_the_same_network_is_loaded_whole(start):
    old, _, new, outcomes = start()
    assert set(results(outcomes).values()) == {"loaded"}
    for path, value in old.items():
        np.testing.assert_array_equal(new[path], value, path)
    # Stages 1 to 5, with one convolution in the first and two in the others, each with batch norm;
    # a separable head has three layers.
    assert transfer.summarize(outcomes) == [
        "backbone       18 layers  loaded",
        "class heads     6 layers  loaded",
        "box heads       6 layers  loaded",
    ]


def test_rows_of_classes_with_the_same_name_are_kept(start):
    old, fresh, new, outcomes = start(names=["car", "bike", "person"])
    found = results(outcomes, "logits0")
    assert found["logits0_depthwise"] == found["logits0_depthwise_bn"] == "loaded"
    assert found["logits0_conv"] == "rows kept: background, car, person; 1 new"
    # 2 boxes per cell with the rows background, person, dog, car before.
    bias = old["logits0_conv/bias"].reshape(2, 4)
    new_bias = new["logits0_conv/bias"].reshape(2, 4)
    for box in range(2):
        background, person, dog, car = bias[box]
        expected = [background, car, (person + dog + car) / 3, person]
        np.testing.assert_allclose(new_bias[box], expected, rtol=1e-6)
    channels = old["logits0_conv/kernel"].shape[2]
    kernel = old["logits0_conv/kernel"].reshape(channels, 2, 4)
    new_kernel = new["logits0_conv/kernel"].reshape(channels, 2, 4)
    np.testing.assert_array_equal(new_kernel[:, :, [0, 1, 3]], kernel[:, :, [0, 3, 1]])
    fresh_kernel = fresh["logits0_conv/kernel"].reshape(channels, 2, 4)
    np.testing.assert_array_equal(new_kernel[:, :, 2], fresh_kernel[:, :, 2])


def test_shared_heads_keep_their_rows_and_the_tower(start):
    model = {
        "num_levels": 3,
        "neck": "fpn_lite",
        "neck_channels": 8,
        "tower": {"num_layers": 1, "channels": 8, "shared": True},
    }
    boxes = {"levels": None, "preset": "od_api_fpn"}
    config = config_with(model=VALUES["model"] | model, boxes=boxes)
    old, fresh, new, outcomes = start(config, config, names=["car", "bike", "person"])
    found = results(outcomes)
    assert found["tower0"] == found["tower0_map2_bn"] == found["offsets_conv"] == "loaded"
    assert found["logits_conv"] == "rows kept: background, car, person; 1 new"
    path = "logits_conv/depthwise_kernel"
    np.testing.assert_array_equal(new[path], old[path])
    kernels = [
        values["logits_conv/pointwise_kernel"].reshape(8, 6, 4) for values in (old, new, fresh)
    ]
    np.testing.assert_array_equal(kernels[1][:, :, [0, 1, 3]], kernels[0][:, :, [0, 3, 1]])
    np.testing.assert_array_equal(kernels[1][:, :, 2], kernels[2][:, :, 2])


def test_the_same_classes_in_another_order_are_sorted_by_name(start):
    old, _, new, _ = start(names=["car", "person", "dog"])
    bias = old["logits1_conv/bias"].reshape(2, 4)
    np.testing.assert_array_equal(new["logits1_conv/bias"].reshape(2, 4), bias[:, [0, 3, 1, 2]])


def test_other_classes_keep_the_background_only(start):
    *_, outcomes = start(names=["cell"])
    assert results(outcomes)["logits1_conv"] == "rows kept: background; 1 new"


def test_other_default_boxes_replace_the_box_heads_of_their_level(start):
    boxes = {"levels": [{"size": 10, "next_size": 20}, {"size": 40, "next_size": 50}]}
    old, fresh, new, outcomes = start(config_with(boxes=boxes))
    found = results(outcomes, "offsets")
    assert found["offsets1_conv"] == "from scratch: other default boxes"
    del found["offsets1_conv"]
    assert set(found.values()) == {"loaded"}
    assert results(outcomes)["logits1_conv"] == "loaded"
    np.testing.assert_array_equal(new["offsets1_conv/kernel"], fresh["offsets1_conv/kernel"])
    np.testing.assert_array_equal(new["offsets0_conv/kernel"], old["offsets0_conv/kernel"])


def test_other_numbers_of_boxes_replace_both_heads(start):
    boxes = {"levels": [{"size": 10}, {"size": 30, "next_size": 50}]}
    *_, outcomes = start(config_with(boxes=boxes))
    assert results(outcomes)["offsets0_conv"] == "from scratch: other default boxes"
    # 8 channels times alpha, a 1x1 kernel: [1, 1, 24, boxes] for each class.
    found = results(outcomes)["logits0_conv"]
    assert found.startswith("from scratch: expected ")
    assert "(1, 1, 24, 4)" in found and "(1, 1, 24, 8)" in found


def test_other_variances_replace_every_box_head(start):
    *_, outcomes = start(config_with(boxes={"variances": [0.1, 0.1, 0.3, 0.3]}))
    heads = [f"offsets{level}_conv" for level in range(2)]
    reason = "the run has boxes.variances = [0.1,0.1,0.2,0.2], not [0.1,0.1,0.3,0.3]"
    assert {results(outcomes)[name] for name in heads} == {f"from scratch: {reason}"}
    assert results(outcomes)["offsets0_depthwise"] == "loaded"


@pytest.mark.parametrize("sizes", [(10, 20, 30, 50), (20, 40, 60, 100)])
def test_a_larger_input_keeps_boxes_of_the_same_pixels_or_share(start, sizes):
    first, first_next, second, second_next = sizes
    levels = [
        {"size": first, "next_size": first_next},
        {"size": second, "next_size": second_next},
    ]
    config = config_with(model={"input_hw": [128, 192]}, boxes={"levels": levels})
    *_, outcomes = start(config)
    assert set(results(outcomes, "offsets").values()) == {"loaded"}


def test_another_score_activation_replaces_the_class_heads(start):
    *_, outcomes = start(config_with(model={"score_activation": "sigmoid"}))
    reason = "the run has model.score_activation = softmax, not sigmoid"
    assert results(outcomes)["logits0_conv"] == f"from scratch: {reason}"


def test_more_levels_start_from_scratch(start):
    levels = [*VALUES["boxes"]["levels"], {"size": 60}]
    config = config_with(model={"num_levels": 3}, boxes={"levels": levels})
    old, _, new, outcomes = start(config)
    assert results(outcomes)["offsets2_conv"] == "from scratch: found no weights"
    names = ["stage6_conv1", "stage6_conv1_bn", "stage6_conv2", "stage6_conv2_bn"]
    assert transfer.list_new_layers(outcomes) == names
    np.testing.assert_array_equal(new["logits1_conv/kernel"], old["logits1_conv/kernel"])


def test_nothing_in_common_is_an_error(start):
    config = config_with(model={"backbone": {"name": "plain", "alpha": 0.5}})
    message = (
        r"^init_from .*run: none of its layers fits this network \(stage1_conv1: from scratch: "
        r"expected shapes .*\); leave out model.backbone and boxes to take over its network$"
    )
    with pytest.raises(ConfigError, match=message):
        start(config)


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ({}, {"mean_rgb": [0, 0, 0]}, "model.backbone.mean_rgb=[127.5,127.5,127.5]"),
        ({"std_rgb": [64, 64, 64]}, {}, "model.backbone.std_rgb=[64.0,64.0,64.0]"),
        ({}, {"name": "mobilenet"}, "model.backbone.name=plain"),
        (
            {"name": "mobilenet", "padding": "same"},
            {"name": "mobilenet"},
            "model.backbone.padding=same",
        ),
        (
            {"name": "resnet34", "alpha": 0.25},
            {"name": "resnet18", "alpha": 0.25},
            "model.backbone.name=resnet34",
        ),
    ],
)
def test_weights_that_would_be_misused_are_an_error(start, old, new, advice):
    base = {"name": "plain", "alpha": 0.25}
    old = config_with(model={"backbone": base | old})
    new = config_with(model={"backbone": base | new})
    with pytest.raises(ConfigError) as caught:
        start(new, old)
    message = str(caught.value)
    assert message.startswith("init_from ") and "\n" not in message
    key, value = advice.split("=")
    assert f"{key} is {value} in its network, here " in message
    assert f"set {advice}" in message


def test_another_rounding_is_an_error_where_boxes_are_kept(start):
    levels = VALUES["boxes"]["levels"]
    rounded = config_with(boxes={"levels": levels, "rounding": 0.01})
    first_kept = config_with(boxes={"levels": [levels[0], {"size": 31}]})
    for config in (config_with(), first_kept):
        with pytest.raises(ConfigError, match=r"boxes.rounding is 0.01 in its network, here null"):
            start(config, rounded)


def test_another_rounding_of_other_boxes_does_not_matter(start):
    rounded = config_with(boxes={"levels": [{"size": 11}, {"size": 31}], "rounding": 0.01})
    *_, outcomes = start(config_with(), rounded)
    heads = {results(outcomes)[f"offsets{level}_conv"] for level in range(2)}
    assert heads == {"from scratch: other default boxes"}


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (
            {"backbone": {"name": "plain", "alpha": 0.25, "first_stride": 8}},
            "the run has model.backbone.first_stride = 16, not 8",
        ),
        ({"head": "pointwise"}, "the run has model.head = separable, not pointwise"),
    ],
)
def test_heads_of_other_maps_start_from_scratch(start, new, reason):
    _, fresh, found, outcomes = start(config_with(model=new))
    heads = {
        outcome.result
        for outcome in outcomes
        if "heads" in outcome.part and "found no weights" not in outcome.result
    }
    assert heads == {f"from scratch: {reason}"}
    assert results(outcomes)["stage2_conv1"] == "loaded"
    for path, value in fresh.items():
        if path.startswith(("offsets", "logits")):
            np.testing.assert_array_equal(found[path], value, path)


def test_ssd512_has_other_strides_than_ssd300():
    backbone = {"name": "vgg16"}
    shapes = {"levels": [{"size": 20}] * 6}
    old = config_with(model={"backbone": backbone, "input_hw": [300, 300], "num_levels": 6})
    old = old.model_copy(update={"boxes": config_with(boxes=shapes).boxes})
    new = old.model_copy(update={"model": old.model.model_copy(update={"num_levels": 7})})
    (found,) = meaning.differences(old, new)
    assert transfer._find_change([found], "conv8_2", "extra layers").endswith(" = 6, not 7")
    assert transfer._find_change([found], "offsets3_conv", "box heads").endswith(" = 6, not 7")
    assert transfer._find_change([found], "conv4_3", "backbone") is None


@pytest.mark.parametrize("change", [{"step": 15}, {"step": 17}])
def test_other_centres_are_other_default_boxes(start, change):
    levels = [VALUES["boxes"]["levels"][0] | change, VALUES["boxes"]["levels"][1]]
    *_, outcomes = start(config_with(boxes={"levels": levels}))
    assert results(outcomes)["offsets0_conv"] == "from scratch: other default boxes"
    assert results(outcomes)["offsets1_conv"] == "loaded"


def test_weights_that_are_not_finite(tmp_path):
    config = config_with()
    write_run(tmp_path / "run", config)
    model = ssd.build_model(config, 3).model
    model.get_layer("stage2_conv1").kernel.assign(
        np.full(model.get_layer("stage2_conv1").kernel.shape, np.nan)
    )
    runs.write_weights(model, tmp_path / "run" / "checkpoints" / "best" / "ckpt-0")
    with pytest.raises(ConfigError, match=r"stage2_conv1/kernel has values that are not finite"):
        start_from(tmp_path / "run", config)


def test_folded_batch_norm_is_not_trained(tmp_path):
    old_config = config_with().model_copy(update={"imported_from": "file.tflite"})
    write_run(tmp_path / "run", old_config)
    network = ssd.build_model(config_with(), 3)
    source = transfer.read_source(
        config_with().model_copy(update={"init_from": str(tmp_path / "run")}), network.model
    )
    _, _, mean, variance = source.arrays["stage2_conv1_bn"]
    mean[:] = 0
    variance[:] = 1
    message = "batch norm stage2_conv1_bn was folded .*: set train.bn=frozen"
    with pytest.raises(ConfigError, match=message):
        transfer.transfer(source, network, config_with(), NAMES)
    transfer.transfer(source, network, config_with(train={"bn": "frozen"}), NAMES)
    keeps = config_with().data.model_copy(update={"keep_classes": True})  # that freezes it, too
    transfer.transfer(source, network, config_with().model_copy(update={"data": keeps}), NAMES)


@pytest.mark.parametrize(
    ("init_from", "is_run"),
    [
        (None, False),
        ("imagenet", False),
        ("weights/vgg16.h5", False),
        ("resnet18-f37072fd.pth", False),
        ("arrays.npz", False),
        ("runs/imagenet", True),
        ("./imagenet", True),
    ],
)
def test_runs_are_told_from_weights_of_a_backbone(init_from, is_run):
    assert config_with().model_copy(update={"init_from": init_from}).starts_from_run == is_run


def test_a_file_does_not_take_over_a_network(tmp_path):
    path = write_config(tmp_path / "new.yaml", "init_from: imagenet\n")
    with pytest.raises(ConfigError, match="init_from=RUN"):
        load_config(path)


def write_config(path, text):
    path.write_text(text)
    return path


def test_a_config_without_a_backbone_takes_over_the_network(tmp_path):
    old = config_with(
        model={
            "backbone": {"name": "plain", "frozen_stages": 1},
            "score_activation": "sigmoid",
        },
        boxes={"rounding": 0.01},
    )
    write_run(tmp_path / "run", old)
    path = write_config(
        tmp_path / "new.yaml",
        f"init_from: {tmp_path / 'run'}\nmodel: {{backbone: {{frozen_stages: 2}}}}\n",
    )
    config = load_config(path)
    assert config.model.input_hw == (64, 96)
    assert config.model.head == "separable"
    assert config.model.backbone.frozen_stages == 2
    unfrozen = write_config(tmp_path / "unfrozen.yaml", f"init_from: {tmp_path / 'run'}\n")
    assert load_config(unfrozen).model.backbone.frozen_stages == 0
    assert config.boxes == old.boxes
    assert config.model.score_activation == "sigmoid"
    other_boxes = load_config(path, ["boxes.levels=[{size: 5}, {size: 7}]"])
    assert [level.size for level in other_boxes.boxes.levels] == [5, 7]
    assert other_boxes.boxes.rounding is None


def test_a_config_with_a_backbone_keeps_its_own_network(tmp_path):
    write_run(tmp_path / "run", config_with())
    path = write_config(
        tmp_path / "new.yaml",
        f"init_from: {tmp_path / 'run'}\nmodel: {{backbone: {{name: resnet18}}}}\n"
        "boxes: {preset: nvidia}\n",
    )
    config = load_config(path)
    assert config.model.input_hw == (300, 300)
    assert config.boxes.preset == "nvidia"


def test_a_source_without_a_config(tmp_path):
    with pytest.raises(ConfigError, match=r"init_from: no run folder at .*run "):
        start_from(tmp_path / "run", config_with())


def test_a_source_that_is_a_file(tmp_path):
    path = tmp_path / "model.tflite"
    path.touch()
    with pytest.raises(ConfigError, match=rf"init_from: .* {path}; .*ssd import"):
        start_from(path, config_with())


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("dataset.json", "init_from: .*run has no dataset.json"),
        ("checkpoints/best/ckpt-0.index", "init_from: no checkpoint in "),
    ],
)
def test_a_source_that_is_no_complete_run(tmp_path, missing, message):
    write_run(tmp_path / "run", config_with())
    (tmp_path / "run" / missing).unlink()
    with pytest.raises(ConfigError, match=message):
        start_from(tmp_path / "run", config_with())
