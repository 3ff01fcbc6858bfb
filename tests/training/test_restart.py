"""Which command may resume a run."""

import json
import logging
import shutil
import types

import pytest
import tensorflow as tf
import yaml

from ssd_tf.config import check_config, load_config
from ssd_tf.data.dataset_json import read_dataset
from ssd_tf.errors import ConfigError
from ssd_tf.training import restart
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.monitor import Monitor
from ssd_tf.training.progress import Plan


def test_differences_are_named_by_their_path(toy_config):
    old = toy_config(learning_rate=0.5)
    new = check_config({**old.model_dump(), "boxes": {"levels": [{"size": 20}]}}, "new")
    new = new.model_copy(update={"init_from": "other"})
    assert restart.config_differences(old, old) == []
    found = {(path, before) for path, before, _ in restart.config_differences(old, new)}
    assert found == {("init_from", None), ("boxes.preset", "paper"), ("boxes.levels", None)}


def test_settings_are_written_atomically(toy_config, tiny_data, blue_first, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    state = restart.RunState("records", {"split": "val"})
    restart.write_settings(toy_config(steps=3), read_dataset(tiny_data), state, workdir)
    names = {"dataset.json", "config.yaml", "state.json"}
    before = {name: (workdir / name).read_bytes() for name in names}
    assert before["dataset.json"] == (tiny_data / "dataset.json").read_bytes()
    assert load_config(workdir / "config.yaml") == toy_config(steps=3)
    assert restart.read_state(workdir) == state

    def fail(*_paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        restart.write_settings(toy_config(steps=4), read_dataset(blue_first), state, workdir)
    assert {name: (workdir / name).read_bytes() for name in names} == before


@pytest.fixture(scope="module")
def started_once(toy_config, toy_state, tiny_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("started") / "run"
    config = toy_config()
    dataset_info = read_dataset(tiny_data)
    state = restart.check_restart(config, dataset_info, workdir)
    restart.write_settings(config, dataset_info, state, workdir)
    train_state = toy_state(config)
    train_state.step.assign(2)
    Checkpoints(workdir, train_state, keep=2).save_last()
    return workdir


@pytest.fixture
def started(started_once, tmp_path):
    """A run folder with a checkpoint at step 2 of 6, trained on the tiny data."""
    return shutil.copytree(started_once, tmp_path / "run")


@pytest.fixture
def check(started, tiny_data, toy_config):
    """A function: check_restart with changed keys of train, or other data."""

    def run(data=tiny_data, config=None, **train):
        return restart.check_restart(config or toy_config(**train), read_dataset(data), started)

    return run


def test_nothing_has_changed(check, started, caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        assert check() == restart.read_state(started)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("steps", 60, "train.steps was 6, now it is 60: the schedule of the learning rate follows"),
        ("checkpoint_every", 3, "train.checkpoint_every was 100, now it is 3"),
        ("keep_checkpoints", 5, "train.keep_checkpoints was 2, now it is 5"),
        ("steps_per_call", 3, "train.steps_per_call was 1, now it is 3"),
        ("strategy", "mirrored", "train.strategy was auto, now it is mirrored"),
    ],
)
def test_what_may_change(check, caplog, key, value, line):
    with caplog.at_level(logging.INFO, logger="absl"):
        check(**{key: value})
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 1, "was started with train.seed = 0, now it is 1: use another --workdir$"),
        ("batch_size", 4, "was started with train.batch_size = 2, now it is 4: use another"),
        ("accumulate", 2, "was started with train.accumulate = 1, now it is 2: use another"),
        ("learning_rate", 0.01, "0.05, now it is 0.01: use another --workdir; it may change only "),
        ("clip_norm", 1.0, "None, now it is 1.0: use another --workdir; it may change only after"),
        ("steps", 1, r"expected train.steps of at least 2, which .*run has reached, got 1"),
    ],
)
def test_what_may_not_change(check, key, value, message):
    with pytest.raises(ConfigError, match=message):
        check(**{key: value})


def rewrite_config(folder, train):
    """Replace keys of train in the config of a run, as an earlier version may have written it."""
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["train"] |= yaml.safe_load(train)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{bn: synchronized, strategy: mirrored}", {"strategy": "one"}),
        ("{strategy: one}", {"strategy": "mirrored", "bn": "synchronized"}),
    ],
)
def test_batch_norm_of_one_replica_may_change(check, started, old, new):
    rewrite_config(started, old)
    check(**new)


def test_batch_norm_of_several_replicas_may_not_change(check, started):
    rewrite_config(started, "{bn: synchronized}")
    with pytest.raises(ConfigError, match=r"train\.bn = synchronized, now it is train"):
        check()


def test_after_a_divergence_the_rate_may_change(check, started, caplog):
    state = restart.read_state(started)
    state.diverged_step = 4
    state.write(started)
    with caplog.at_level(logging.INFO, logger="absl"):
        found = check(learning_rate=0.01, clip_norm=5.0, warmup_steps=3)
    assert found.diverged_step == 4
    assert caplog.messages == [
        "train.learning_rate was 0.05, now it is 0.01",
        "train.warmup_steps was 0, now it is 3",
        "train.clip_norm was None, now it is 5.0",
    ]
    with pytest.raises(ConfigError, match=r"train\.bias_rate = 1\.0, now it is 2\.0"):
        check(bias_rate=2.0)


def test_the_same_names_and_other_images_are_rejected(check, make_data):
    """Only the order of two images differs."""
    folder = make_data("other", train=[1, 0, 2, 3, 4, 5], val=[0, 1, 3, 4])
    with pytest.raises(ConfigError, match="was trained on other records than the split 'train' of"):
        check(folder)


def test_the_same_data_elsewhere_is_accepted(check, make_data):
    check(make_data("copy", train=range(6), val=[0, 1, 3, 4]))


def test_other_classes_are_rejected(check, blue_first):
    with pytest.raises(ConfigError, match=r"was trained on 3 classes \(red, green, blue\), .* has"):
        check(blue_first)


@pytest.fixture
def evaluated_at(started):
    """A function: writes a metrics.csv with an AP at these of the steps 1 and 2."""

    def write(*steps):
        monitor = Monitor(started, Plan(6, 2, 10), start_step=0, level_names=[])
        for step in steps:
            ap = {"AP": 0.5, "AP50": 0.5, "AP75": 0.5}
            monitor.report_evaluation(step, {"coco": ap, "voc": {}, "per_class": {}})
        monitor.close()

    return write


@pytest.mark.parametrize(("steps", "first"), [((2,), 3), ((1,), 2)])
def test_a_changed_evaluation_is_not_compared(
    check, toy_config, evaluated_at, caplog, steps, first
):
    """The evaluation of the last checkpoint may still have to be made up for."""
    evaluated_at(*steps)
    config = toy_config()
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"nms_iou": 0.6})})
    caplog.clear()  # of what the evaluations logged
    with caplog.at_level(logging.INFO, logger="absl"):
        state = check(config=config)
    assert state.comparable_from == first
    assert "eval.nms_iou was 0.45, now it is 0.6" in caplog.messages[0]
    assert f"step {first}" in caplog.messages[1]


def test_other_validation_images_are_a_changed_evaluation(check, evaluated_at, make_data):
    evaluated_at(2)
    assert check(make_data("other", train=range(6), val=[0, 1])).comparable_from == 3


def test_how_often_it_evaluates_is_no_changed_evaluation(check, toy_config, evaluated_at):
    evaluated_at(2)
    assert check(config=toy_config(eval_every=5)).comparable_from == 0


def test_a_run_before_its_first_checkpoint_may_change_in_any_way(check, started):
    for path in (started / "checkpoints" / "last").iterdir():
        path.unlink()
    assert check(seed=5).comparable_from == 0


def test_an_imported_detector_is_not_overwritten(check, started):
    for path in (started / "checkpoints" / "last").iterdir():
        path.unlink()
    path = started / "config.yaml"
    path.write_text(path.read_text().replace("imported_from: null", "imported_from: a.tflite"))
    with pytest.raises(ConfigError, match=rf"imported from a\.tflite: .*init_from={started}"):
        check()


@pytest.mark.parametrize("content", ["", "[]", '{"fingerprint": 1}', json.dumps({"other": 1})])
def test_a_state_that_cannot_be_read(check, started, content):
    (started / "state.json").write_text(content)
    with pytest.raises(ConfigError, match=r"state.json cannot be read .* use another --workdir"):
        check()


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("loss", {"box_loss": "giou"}, "loss.box_loss"),
        ("loss", {"negatives_per_positive": 4}, "loss.negatives_per_positive"),
        ("model", {"score_activation": "sigmoid"}, "model.score_activation"),
        ("loss", {"normalizer": "nvidia"}, "loss.normalizer"),
        ("boxes", {"preset": "paper", "s_min": 0.3}, "boxes.s_min"),
        ("boxes", {"preset": "paper", "variances": [0.1, 0.1, 0.2, 0.3]}, "boxes.variances"),
        ("model", {"num_levels": 5}, "model.num_levels"),
        ("model", {"input_hw": [300, 512]}, "model.input_hw"),
        (
            "model",
            {"backbone": {"name": "vgg16", "mean_rgb": [1, 2, 3]}},
            "model.backbone.mean_rgb",
        ),
        ("data", {"augment": "light"}, "data.augment.preset"),
        ("data", {"augment": {"flip_probability": 0.5}}, "data.augment.flip_probability"),
        ("data", {"train_difficult": True}, "data.train_difficult"),
        ("data", {"train_split": "val"}, "data.train_split"),
        ("data", {"shuffle_buffer": 9}, "data.shuffle_buffer"),
        ("data", {"shard": "file"}, "data.shard"),
        ("init_from", "runs/other", "init_from"),
    ],
)
def test_what_network_data_and_update_depend_on_may_not_change(
    check, toy_config, section, values, key
):
    changed = check_config({**toy_config().model_dump(mode="json"), section: values}, "changed")
    with pytest.raises(ConfigError, match=rf"was started with {key} = .*: use another --workdir$"):
        check(config=changed)


@pytest.mark.parametrize(
    ("section", "values", "line"),
    [
        ("eval", {"nms_iou": 0.6}, "eval.nms_iou was 0.45, now it is 0.6"),
        ("export", {"score_threshold": 0.5}, "export.score_threshold was None, now it is 0.5"),
        ("watch", {"images": 2}, "watch.images was 4, now it is 2"),
        ("data", {"val_split": "train"}, "data.val_split was val, now it is train"),
    ],
)
def test_what_may_change_besides_training(check, toy_config, caplog, section, values, line):
    changed = check_config({**toy_config().model_dump(mode="json"), section: values}, "changed")
    with caplog.at_level(logging.INFO, logger="absl"):
        check(config=changed)
    assert line in caplog.messages


def with_shard(config, shard):
    return config.model_copy(update={"data": config.data.model_copy(update={"shard": shard})})


def strategy_of(num_workers, num_replicas):
    cluster = tf.train.ClusterSpec({"worker": [f"w{index}:1" for index in range(num_workers)]})
    resolver = types.SimpleNamespace(cluster_spec=lambda: cluster)
    return types.SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=num_replicas)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_shards_of_their_own_want_as_many_workers(toy_config, tmp_path, num_workers):
    config = with_shard(toy_config(), "file")
    state = restart.RunState("records", {}, num_workers=2, num_replicas=2)
    restart.check_replicas(config, state, strategy_of(2, 2), tmp_path)
    with pytest.raises(ConfigError, match=rf"by 2 workers .* now there are {num_workers}"):
        restart.check_replicas(config, state, strategy_of(num_workers, num_workers), tmp_path)


def test_workers_that_share_all_records_may_be_more(toy_config, tmp_path):
    state = restart.RunState("records", {}, num_workers=2, num_replicas=2)
    restart.check_replicas(toy_config(bn="synchronized"), state, strategy_of(3, 6), tmp_path)
    assert (state.num_workers, state.num_replicas) == (3, 6)


@pytest.mark.parametrize(
    ("train", "normalizer", "warns"),
    [
        ({}, "global", True),
        ({"bn": "synchronized"}, "global", False),
        ({"bn": "frozen"}, "nvidia", False),
        ({"bn": "synchronized"}, "torchvision", True),
        ({"bn": "frozen"}, "torchvision", True),
    ],
)
def test_another_number_of_replicas_is_said_where_it_matters(
    toy_config, tmp_path, caplog, train, normalizer, warns
):
    config = toy_config(**train)
    loss = config.loss.model_copy(update={"normalizer": normalizer})
    config = config.model_copy(update={"loss": loss})
    state = restart.RunState("records", {}, num_workers=1, num_replicas=2)
    with caplog.at_level(logging.WARNING):
        restart.check_replicas(config, state, strategy_of(1, 2), tmp_path)
        assert caplog.messages == []
        restart.check_replicas(config, state, strategy_of(1, 1), tmp_path)
    assert [f"{2} replicas, now it has 1" in line for line in caplog.messages] == [True] * warns


def test_the_weights_that_a_run_started_from_may_have_moved(check, started, toy_config, caplog):
    path = started / "config.yaml"
    path.write_text(path.read_text().replace("init_from: null", "init_from: runs/old"))
    config = toy_config().model_copy(update={"init_from": "runs/new"})
    check(config=config)
    (line,) = caplog.messages
    assert "init_from was runs/old, now it is runs/new" in line
    with pytest.raises(ConfigError, match="init_from = runs/old, now it is None"):
        check()
