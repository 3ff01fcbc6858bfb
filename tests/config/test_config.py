"""Experiment files: inheritance, overrides, defaults, and the errors that people see."""

import pathlib

import pytest

from ssd_tf.config import KEYS, Augment, Config, Data, load_config, save_config
from ssd_tf.config.page import make_page
from ssd_tf.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "configs"


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path):
    return write(
        tmp_path / "small.yaml", "boxes: {preset: paper}\ntrain: {steps: 50, warmup_steps: 5}\n"
    )


def rejection(path, *overrides):
    """The message of the ConfigError, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_configs_load(path):
    if path.stem == "finetune":
        assert "--set init_from=RUN" in rejection(path)
        return
    assert load_config(path).train.steps > 0


def test_values_overrides_and_defaults(small):
    config = load_config(
        small,
        ["train.steps=7", "model.input_hw=[64, 96]", "train.ema=0.99", "train.learning_rate=1e-2"],
    )
    assert config.train.steps == 7
    assert config.train.warmup_steps == 5
    assert config.model.input_hw == (64, 96)
    assert config.train.ema == 0.99
    assert config.train.learning_rate == 0.01  # YAML 1.1 reads 1e-2 as a string
    assert config.boxes.variances == (0.1, 0.1, 0.2, 0.2)


def test_an_override_adds_a_section_that_the_file_lacks(small):
    assert load_config(small, ["eval.nms_iou=0.6"]).eval.nms_iou == 0.6


def test_the_file_overrides_its_base(tmp_path):
    write(
        tmp_path / "base.yaml",
        "boxes: {preset: paper, s_min: 0.3}\ntrain: {steps: 50, batch_size: 4}\n",
    )
    top = write(tmp_path / "top.yaml", "base: base.yaml\ntrain: {steps: 60}\n")
    config = load_config(top)
    assert (config.train.steps, config.train.batch_size, config.boxes.s_min) == (60, 4, 0.3)


def test_later_bases_win_and_bases_may_have_bases(tmp_path):
    (tmp_path / "parts").mkdir()
    write(
        tmp_path / "parts" / "first.yaml",
        "boxes: {preset: paper}\ntrain: {steps: 1, batch_size: 2}\n",
    )
    write(tmp_path / "parts" / "second.yaml", "base: third.yaml\ntrain: {steps: 3}\n")
    write(tmp_path / "parts" / "third.yaml", "train: {seed: 9, steps: 4}\n")
    top = write(tmp_path / "top.yaml", "base: [parts/first.yaml, parts/second.yaml]\n")
    train = load_config(top).train
    assert (train.steps, train.batch_size, train.seed) == (3, 2, 9)


def test_a_cycle_of_bases(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    path = write(tmp_path / "b.yaml", "base: a.yaml\n")
    assert "`base` leads back to this file" in rejection(path)


def test_levels_replace_the_preset_of_the_base_and_vice_versa(tmp_path):
    write(tmp_path / "preset.yaml", "boxes: {preset: paper}\n")
    levels = write(
        tmp_path / "levels.yaml",
        "base: preset.yaml\nboxes: {levels: [{size: 10}, {size: 20, next_size: 30}]}\n",
    )
    config = load_config(levels)
    assert config.boxes.preset is None
    assert [level.size for level in config.boxes.levels] == [10, 20]
    assert load_config(levels, ["boxes.preset=caffe_voc"]).boxes.levels is None


def test_other_default_boxes_replace_the_preset_with_all_its_keys(tmp_path):
    write(
        tmp_path / "paper.yaml",
        "boxes: {preset: paper, s_min: 0.07, variances: [0.2, 0.2, 0.2, 0.2]}\n",
    )
    config = load_config(
        write(
            tmp_path / "levels.yaml",
            "base: paper.yaml\nboxes: {levels: [{size: 10}, {size: 20}]}\n",
        )
    )
    assert (config.boxes.s_min, config.boxes.variances[0]) == (0.2, 0.2)
    assert load_config(tmp_path / "paper.yaml", ["boxes.preset=nvidia"]).boxes.s_min == 0.2
    # The same preset again keeps them.
    assert (
        load_config(tmp_path / "paper.yaml", ["boxes={preset: paper, s_max: 0.5}"]).boxes.s_min
        == 0.07
    )


@pytest.mark.parametrize(
    ("changes", "assigner"),
    [
        ((), "multibox"),
        (("model.neck=fpn_lite",), "atss"),
        (("model.neck=fpn_lite", "data.keep_classes=true"), "multibox"),
        (("model.neck=fpn_lite", "boxes.assigner=multibox"), "multibox"),
        (("boxes.assigner=atss",), "atss"),
    ],
)
def test_assigner_of_a_recipe_for_any_start(tmp_path, changes, assigner):
    write(tmp_path / "recipe.yaml", "boxes: {preset: paper, assigner: auto, coding: corners}\n")
    text = "base: recipe.yaml\nmodel: {backbone: {name: mobilenet}}\ninit_from: runs/start\n"
    levels = "boxes: {levels: [{size: 10}, {size: 20}]}\n"
    config = load_config(write(tmp_path / "fitted.yaml", text + levels), changes)
    assert (config.assigner, len(config.boxes.levels)) == (assigner, 2)
    assert config.boxes.coding == "corners"


def test_a_name_is_short_for_a_preset_only_in_augment(tmp_path):
    path = write(tmp_path / "names.yaml", "model: {backbone: resnet18}\nboxes: {preset: paper}\n")
    assert "model.backbone" in rejection(path)
    assert (
        rejection(path, "model.backbone.alpha=0.5")
        == "model.backbone is 'resnet18', so it has no key 'alpha'"
    )
    assert "boxes is 'paper'" in rejection(
        write(tmp_path / "boxes.yaml", "boxes: paper\n"), "boxes.s_min=0.1"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["model.backbone.alpha=0.5"],
            "model.backbone.alpha has no effect on vgg16: leave it out (default: 1.0)",
        ),
        (
            ["model.backbone={name: resnet50, first_stride: 8}"],
            "model.backbone.first_stride has no effect",
        ),
        (
            ["model.backbone={name: mobilenet, first_stride: 8}", "model.neck=fpn"],
            "model.backbone.first_stride has no effect",
        ),
        (
            ["boxes.integer_sizes=true"],
            "boxes.integer_sizes has no effect",
        ),
        (
            ["boxes={preset: nvidia, integer_sizes: true}"],
            "boxes.integer_sizes has no effect",
        ),
        (
            ["boxes={preset: nvidia, s_min: 0.1}"],
            "boxes.s_min has no effect",
        ),
        (
            ["boxes={levels: [{size: 3}], s_max: 0.8}"],
            "boxes.s_max has no effect",
        ),
        (
            ["boxes={preset: caffe_voc, aspect_ratios: [2]}"],
            "boxes.aspect_ratios has no effect",
        ),
        (
            ["loss={focal_gamma: 2, min_negatives: 0}"],
            "loss.min_negatives has no effect with loss.focal_gamma",
        ),
        (
            ["loss={focal_gamma: 2, negatives_per_positive: 2}"],
            "loss.negatives_per_positive has no effect",
        ),
    ],
)
def test_keys_without_effect_are_rejected(small, values, message):
    assert message in rejection(small, *values)


def test_defaults_without_effect_are_accepted(small, tmp_path):
    levels = [
        "boxes.levels=[{size: 9}, {size: 18}]",
        "model.backbone.name=resnet18",
        "loss.focal_gamma=2",
    ]
    config = load_config(small, levels)
    save_config(config, tmp_path / "saved.yaml")  # spells every default out
    assert load_config(tmp_path / "saved.yaml") == config


def test_a_saved_config_loads_as_the_same_config(small, tmp_path):
    config = load_config(
        small, ["data.augment=caffe", "boxes.aspect_ratios=[2.0]", "train.clip_norm=5"]
    )
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_a_failed_save_keeps_the_old_config(small, tmp_path, monkeypatch):
    path = tmp_path / "saved.yaml"
    save_config(load_config(small), path)
    before = path.read_text()
    write_bytes = pathlib.Path.write_bytes

    def fill_disk(self, content):
        write_bytes(self, content[:20])
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_bytes", fill_disk)
    with pytest.raises(OSError, match="disk full"):
        save_config(load_config(small, ["train.steps=9"]), path)
    assert path.read_text() == before


def test_augment_by_name_by_values_or_by_both(small):
    assert load_config(small).data.augment == Augment()
    caffe = load_config(small, ["data.augment=caffe"]).data.augment
    assert (caffe.zoom_out_probability, caffe.color.hue_degrees) == (0.5, 36.0)
    override = "data.augment={preset: caffe, flip_probability: 0, color: {contrast: [1, 2]}}"
    mixed = load_config(small, [override]).data.augment
    assert (mixed.zoom_out_probability, mixed.flip_probability) == (0.5, 0.0)
    assert (mixed.color.contrast, mixed.color.hue_degrees) == ((1.0, 2.0), 36.0)
    assert Data(augment=caffe).augment == caffe  # a Section object, from Python


def test_an_override_within_an_augmentation_given_by_name(small):
    text = small.read_text() + "data: {augment: caffe}\n"
    augment = load_config(write(small, text), ["data.augment.crop.tries=2"]).data.augment
    assert (augment.zoom_out_probability, augment.crop.tries) == (0.5, 2)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "train.lerning_rate=1",
            ["unknown key train.lerning_rate", "did you mean 'learning_rate'?"],
        ),
        ("trian.steps=1", ["unknown key trian", "did you mean 'train'?"]),
        ("model.backbone.nmae=vgg16", ["unknown key model.backbone.nmae", "did you mean 'name'?"]),
        (
            "data.augment.color.brightnes=1",
            ["unknown key data.augment.color.brightnes", "did you mean 'brightness'?"],
        ),
        (
            "boxes.levels=[{sise: 3}]",
            ["boxes.levels.0.sise", "did you mean 'size'?"],
        ),
        ("watch.zzz=1", ["unknown key watch.zzz", "known: images, live_page, log_every"]),
    ],
)
def test_an_unknown_key_gives_its_path_and_the_nearest_key(small, override, parts):
    message = rejection(small, override)
    assert message.startswith(str(small))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.steps=0", ["train.steps", "greater than 0", "got 0"]),
        ("train.steps=many", ["train.steps", "integer", "got 'many'"]),
        ("train.bn_momentum=1.5", ["train.bn_momentum", "less than 1", "got 1.5"]),
        (
            "model.backbone.name=vgg",
            ["model.backbone.name", "unknown value 'vgg'", "did you mean 'vgg16'?"],
        ),
        ("model.input_hw=[300]", ["model.input_hw"]),
        ("boxes.preset=null", ["boxes: give either preset or levels"]),
        ("boxes.presett=paper", ["unknown key boxes.presett", "'preset'?"]),
        ("data.augment=cafe", ["data.augment.preset: unknown value 'cafe'", "'caffe'?"]),
        ("data.augment=[caffe]", ["data.augment", "got ['caffe']"]),
        ("data.augment.preset=[caffe]", ["data.augment.preset", "got ['caffe']"]),
        ("data.augment.color.contrast=[1.5, 0.5]", ["color.contrast", "smaller number first"]),
        ("train=null", ["train", "got None"]),
        ("model=vgg16", ["model: ", "got 'vgg16'"]),
        ("model.backbone=[vgg16]", ["model.backbone: ", "got ['vgg16']"]),
        ("boxes.s_min=0", ["boxes.s_min", "greater than 0", "got 0"]),
        ("boxes.s_max=1.6", ["boxes.s_max", "less than or equal to 1.5", "got 1.6"]),
        ("boxes.s_max=0.1", ["boxes: expected s_min <= s_max, got 0.2 and 0.1"]),
    ],
)
def test_a_bad_value_gives_its_path_and_what_was_given(small, override, parts):
    message = rejection(small, override)
    assert all(part in message for part in parts), message


def test_malformed_overrides(small):
    assert rejection(small, "train.steps") == "--set: expected KEY=VALUE, got 'train.steps'"
    assert "train.steps: input should be a valid integer" in rejection(small, "train.steps.more=1")
    assert "not YAML" in rejection(small, "train.decay_steps=[1")


def test_malformed_files(tmp_path):
    assert rejection(tmp_path / "none.yaml") == f"no config file at {tmp_path / 'none.yaml'}"
    assert "not YAML" in rejection(write(tmp_path / "broken.yaml", "train: [1\n"))
    assert "expected keys and values, got a list" in rejection(
        write(tmp_path / "list.yaml", "- 1\n")
    )
    message = rejection(write(tmp_path / "empty.yaml", ""))
    assert message.startswith(f"{tmp_path / 'empty.yaml'}: boxes")
    assert "--set init_from=" in message
    assert "no config file at" in rejection(write(tmp_path / "lost.yaml", "base: gone.yaml\n"))
    for base in ("5", "[5]", "{boxes: 1}"):
        assert "base: " in rejection(write(tmp_path / "number.yaml", f"base: {base}\n"))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("configs/finetun.yaml", "configs/finetune.yaml"),
        ("config/finetune.yaml", "configs/finetune.yaml"),
        ("configs/FineTune.yaml", "configs/finetune.yaml"),
        ("configs/elephant.yaml", None),
        ("elsewhere/elephant.yaml", None),
    ],
)
def test_a_typo_in_the_path_of_a_config(tmp_path, wrong, right):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "finetune.yaml").write_text("")
    (tmp_path / "configs" / "shapes.yaml").write_text("")
    hint = f"; did you mean {tmp_path / right}?" if right else ""
    assert rejection(tmp_path / wrong) == f"no config file at {tmp_path / wrong}{hint}"


@pytest.mark.parametrize(
    "name",
    ["shapes_plain", "shapes_plain.yaml", "configs/shapes_plain", "configs/shapes_plain.yaml"],
)
def test_our_own_configs_have_names_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load_config(name).model.input_hw == (192, 192)
    derived = write(tmp_path / "mine.yaml", f"base: {name}\ntrain: {{steps: 99}}\n")
    assert load_config(derived).train.steps == 99
    assert "did you mean" in rejection(name.replace("plain", "plan"))


def test_a_file_of_the_user_comes_before_our_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shapes_plain.yaml", "boxes: {preset: paper}\ntrain: {steps: 7}\n")
    assert load_config("shapes_plain.yaml").train.steps == 7
    assert load_config("configs/shapes_plain.yaml").train.steps == 2000
    assert "other/shapes_plain.yaml" in rejection("other/shapes_plain.yaml")


def test_a_config_is_frozen(small):
    config = load_config(small)
    with pytest.raises(ValueError, match="frozen"):
        config.train.steps = 3
    assert isinstance(config, Config)


def test_every_key_has_a_description():
    assert [path for path, key in KEYS.items() if not key.field.description] == []
    assert len(KEYS) > 100


def test_the_page_of_keys_is_current():
    committed = (ROOT / "docs" / "configuration.md").read_text()
    assert committed == make_page(), "run `make docs`"
    assert "| `train.steps` | 120000 | yes | Number of training steps. |" in committed
    assert "| `boxes.levels.step` | none |" in committed
