"""The config that is chosen for the tiny data set; its pace and its coverage are given."""

import pathlib
import types

import pytest
import yaml

from ssd_tf.config import load_config
from ssd_tf.data import dataset_json
from ssd_tf.quickstarting import choosing, starts
from ssd_tf.quickstarting.state import Request
from ssd_tf.training.pace import Pace

SCRATCH = starts.Start("random weights", "--start scratch", "shapes_plain.yaml")
LEVELS = "boxes:\n  levels:\n" + 4 * "    - {size: 20, next_size: 30, aspect_ratios: [2, 3]}\n"
SIDES = [0.4564, 0.5, 0.559, 0.4895, 0.4041, 0.464, 0.4123]


@pytest.fixture
def choose(tiny_data, tmp_path, monkeypatch):
    """A function: choose with these coverages and overrides -> the text of the file."""
    measured = []
    monkeypatch.setattr(
        choosing, "measure_pace", lambda config, _: measured.append(config) or Pace(1, 10, 2)
    )

    def call(*covered, data=tiny_data, overrides=(), minutes=2.1):
        fractions = iter(covered)

        def measure(*_):
            return [types.SimpleNamespace(fraction=next(fractions))], None

        monkeypatch.setattr(choosing.coverage, "measure", measure)
        path = tmp_path / "config.yaml"
        request = Request(pathlib.Path("photos"), minutes, overrides=overrides)
        pace = choosing.write_config(
            path, data, SCRATCH, request, "ssd quickstart photos", fit_boxes
        )
        assert pace == (1, 10, 2)
        assert next(fractions, None) is None
        return path

    call.measured = measured
    return call


def fit_boxes(config, output):
    assert load_config(config).boxes.preset == "paper"
    output.write_text(LEVELS)


def test_a_split_without_objects_is_an_error(choose, make_data):
    with pytest.raises(ValueError, match="'train'"):
        choose(data=make_data("empty", train=[4], val=[0]))


def test_statistics(tiny_data):
    info = dataset_json.read_dataset(tiny_data)
    found = choosing.describe(info, choosing.inspection.read_split(info, "train"))
    assert found.images == {"train": 6, "val": 4}
    assert found.objects == {"red": 3, "green": 2, "blue": 2}
    assert found.unlabelled == 1
    assert found.image_hw == (64, 96)
    assert len(found.object_sides) == 7
    # The first is the square root of 32 x 40 pixels of 64 x 96.
    assert found.object_sides == pytest.approx(SIDES, abs=1e-4)


def test_a_config_with_its_reasons(choose):
    config = load_config(choose(0.9))
    # The images are 1.5 times as wide as high; 16 images per step would be more than there are.
    assert config.model.input_hw == (192, 192)
    assert config.model.backbone.name == "plain"
    assert config.train.batch_size == 4
    # Every 20 s; 116 s / (1 + 2 / 20) s.
    assert (config.train.steps, config.eval.every, config.train.checkpoint_every) == (105, 21, 21)
    assert (config.train.warmup_steps, config.train.ema, config.eval.patience) == (5, 0.952, 4)
    assert len(choose.measured) == 1
    assert choose.measured[0].train.batch_size == 4


def test_default_boxes_that_cover_few_objects_are_fitted(choose):
    path = choose(0.5, 0.9)
    assert yaml.safe_load(path.read_text())["base"] == ["shapes_plain.yaml", "boxes.yaml"]
    assert load_config(path).boxes.levels[0].size == 20


def test_fitted_boxes_that_cover_no_more_are_left_out(choose):
    path = choose(0.5, 0.52)
    assert yaml.safe_load(path.read_text())["base"] == "shapes_plain.yaml"
    assert load_config(path).boxes.preset == "paper"


def test_a_detector_keeps_default_boxes_that_cover_half_of_the_objects(choose):
    overrides = ("init_from=runs/other",)
    assert load_config(choose(0.5, overrides=overrides)).boxes.preset == "paper"
    assert load_config(choose(0.2, 0.9, overrides=overrides)).boxes.levels[0].size == 20


def test_an_assigner_is_not_a_choice_of_default_boxes(choose):
    boxes = load_config(choose(0.5, 0.9, overrides=("boxes.assigner=atss",))).boxes
    assert (boxes.assigner, boxes.levels[0].size) == ("atss", 20)


def test_overrides_win(choose):
    overrides = (
        "model.input_hw=[64, 96]",
        "train.steps=50",
        "train.batch_size=2",
        "boxes.s_max=0.6",
    )
    config = load_config(choose(overrides=overrides))
    assert config.model.input_hw == (64, 96)
    assert (config.train.steps, config.train.batch_size, config.boxes.s_max) == (50, 2, 0.6)
    # Every 20 steps: 50 steps have 2 evaluations.
    assert config.eval.every == 25


def test_another_input_is_measured_again(choose, monkeypatch):
    assert load_config(choose(0.9, minutes=15)).model.input_hw == (192, 192)
    monkeypatch.setattr(choosing.choices, "_MAX_WARP", 1.4)
    # 156.8 x 235.2
    path = choose(0.9, minutes=15)
    assert load_config(path).model.input_hw == (160, 224)
    assert [config.model.input_hw for config in choose.measured[1:]] == [(192, 192), (160, 224)]


def test_classes_that_are_kept_keep_input_and_default_boxes(choose, monkeypatch):
    """Which are neither measured nor fitted, as box heads of others could not be trained."""
    monkeypatch.setattr(choosing.choices, "_MAX_WARP", 1.4)
    overrides = ("init_from=runs/other", "data.keep_classes=true")
    path = choose(overrides=overrides)
    assert yaml.safe_load(path.read_text())["base"] == "shapes_plain.yaml"
    assert load_config(path).model.input_hw == (192, 192)
    assert len(choose.measured) == 1
