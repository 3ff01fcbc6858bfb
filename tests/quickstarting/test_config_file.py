import yaml

from ssd_tf.config import load_config
from ssd_tf.quickstarting import config_file
from ssd_tf.quickstarting.choices import Choice

CHOICES = (
    Choice("recipe", "shapes_plain.yaml", "no weights", {"base": "shapes_plain.yaml"}),
    Choice("input", "128 x 192", "long: " + 30 * "why ", {"model.input_hw": [128, 192]}),
    Choice("steps", "30", "time", {"train.steps": 30, "train.warmup_steps": 2, "eval.every": 10}),
    Choice("nothing", "as it is", "no values"),
)


def test_no_choices():
    text = config_file.render("ssd quickstart a", [])
    assert text.count("\n") == 1 and text.startswith("# ")
    assert "ssd quickstart a" in text


def test_choices_become_keys_below_their_reasons():
    text = config_file.render("ssd quickstart a", CHOICES)
    assert yaml.safe_load(text) == {
        "base": "shapes_plain.yaml",
        "model": {"input_hw": [128, 192]},
        "train": {"steps": 30, "warmup_steps": 2},
        "eval": {"every": 10},
    }
    assert text.index("no weights") < text.index("base:") < text.index("long: why")
    assert "nothing" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_overrides_win():
    overrides = ["train.steps=7", "model.backbone.alpha=0.5", "eval={every: 3}", "init_from=x"]
    text = config_file.render("ssd quickstart a", CHOICES, overrides)
    assert yaml.safe_load(text) == {
        "base": "shapes_plain.yaml",
        "init_from": "x",
        "model": {"input_hw": [128, 192], "backbone": {"alpha": 0.5}},
        "train": {"warmup_steps": 2, "steps": 7},
        "eval": {"every": 3},
    }
    assert text.count("\n  steps: ") == text.count("\n  every: ") == 1


def test_nested_keys_are_written_in_one_section():
    choice = Choice("start", "a", "b", {"init_from": "f", "model.backbone.name": "mobilenet"})
    text = config_file.render("c", [choice])
    assert yaml.safe_load(text) == {
        "init_from": "f",
        "model": {"backbone": {"name": "mobilenet"}},
    }


def test_the_file_can_be_loaded_from_any_folder(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(config_file.render("c", CHOICES, ["train.batch_size=4"]))
    config = load_config(path)
    assert config.model.input_hw == (128, 192)
    assert config.model.backbone.name == "plain"
    assert (config.train.steps, config.train.batch_size, config.eval.every) == (30, 4, 10)


def test_values_given_by_overrides():
    overrides = ["train={steps: 5, ema: 0.9}", "train.batch_size=2"]
    assert config_file.given_values(["train.steps", "eval.every"], overrides) == [5]
    assert config_file.given_values({"train.batch_size": 1, "train.ema": 1}, overrides) == [2, 0.9]
