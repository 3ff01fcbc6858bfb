import json
import logging
import shutil

import numpy as np
import pytest
import yaml

from ssd_tf.commands import train
from ssd_tf.config import load_config
from ssd_tf.data import dataset_json
from ssd_tf.inference.run import load_run
from ssd_tf.training import checkpoints, monitor


@pytest.fixture
def refused(fails, tiny_config_file, tiny_data, tmp_path):
    """A function: train with some arguments, which must fail before anything is written to the run folder; gives the line."""

    def call(*argv, code, config=tiny_config_file, data=tiny_data):
        workdir = tmp_path / "run"
        line = fails(
            train.main,
            f"--config={config}",
            f"--data={data}",
            f"--workdir={workdir}",
            *argv,
            code=code,
        )
        assert not workdir.exists()
        return line

    return call


@pytest.fixture
def spoilt(tiny_data, tmp_path):
    """A function: a copy of the tiny data whose dataset.json `change` has been at."""

    def make(change):
        folder = tmp_path / "data"
        shutil.copytree(tiny_data, folder)
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


def test_what_a_run_leaves(tiny_run, tiny_data, tiny_config):
    assert load_config(tiny_run / "config.yaml") == tiny_config
    assert json.loads((tiny_run / "dataset.json").read_text()) == json.loads(
        (tiny_data / "dataset.json").read_text()
    )
    assert {path.name for path in (tiny_run / "checkpoints").iterdir()} == {"best", "last"}
    assert list((tiny_run / "tensorboard").glob("events.*"))
    rows = monitor.read_metrics(tiny_run / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [20, 40, 60, 80, 80]
    losses = [float(row["loss"]) for row in rows[:-1]]
    assert losses[-1] < 0.3 * losses[0]
    assert float(rows[-1]["AP"]) > 0.8


def test_flags_and_config(refused, tmp_path):
    assert "--set wants KEY=VALUE, found 'steps'" in refused("--set", "steps", code=2)
    assert "did you mean 'learning_rate'?" in refused("--set", "train.learning_rat=1", code=2)
    assert "train.steps: input should be greater than 0, found 0" in refused(
        "--set", "train.steps=0", code=2
    )
    assert "model.backbone.name" in refused("--set", "model.backbone.name=vgg17", code=2)
    assert f"no config file at {tmp_path / 'none.yaml'}" in refused(
        code=2, config=tmp_path / "none.yaml"
    )


def test_missing_flags(fails):
    assert "missing --config, --data, --workdir" in fails(train.main, code=2)


def test_data_that_is_not_there(refused, tmp_path):
    assert f"no data folder at {tmp_path / 'none'}" in refused(code=1, data=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no dataset.json" in refused(code=1, data=tmp_path / "empty")


def test_a_data_set_that_is_none(refused, tmp_path):
    folder = tmp_path / "coco"
    folder.mkdir()
    for content in ("{", "[]", '{"images": []}', '{"classes": ["cat"], "splits": {}}'):
        (folder / "dataset.json").write_text(content)
        assert "is not a dataset.json of this package" in refused(code=1, data=folder)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda content: content["splits"].pop("train"), "has no split 'train'; it has val"),
        (lambda content: content["splits"].clear(), "has no split 'train'; it has none"),
        (
            lambda content: content["splits"]["train"].update(images=0, shards=[]),
            "the split 'train' of",
        ),
        (lambda content: content["classes"].clear(), "has no classes"),
        (
            lambda content: content["splits"]["train"]["shards"].append("train-00001.tfrecord"),
            "lacks train-00001.tfrecord",
        ),
        (
            lambda content: content["splits"]["val"]["shards"].append("val-00001.tfrecord"),
            "lacks val-00001.tfrecord",
        ),
    ],
    ids=[
        "no train split",
        "no splits",
        "empty split",
        "no classes",
        "missing shard",
        "missing shard of val",
    ],
)
def test_incomplete_data(refused, spoilt, change, wanted):
    assert wanted in refused(code=1, data=spoilt(change))


def test_default_boxes_that_do_not_fit_the_model(refused):
    assert "caffe_voc has a table for 6 and 7 maps, model.num_levels is 3" in refused(
        "--set", "boxes.preset=caffe_voc", code=2
    )


def test_weights_that_are_not_there(refused):
    assert "no file at gone.h5" in refused("--set", "model.backbone.weights=gone.h5", code=2)


def test_a_folder_of_other_settings_is_refused(
    fails, tiny_run, tiny_data, tiny_config_file, blue_first
):
    before = (tiny_run / "config.yaml").read_text()
    argv = [f"--config={tiny_config_file}", f"--workdir={tiny_run}"]
    line = fails(
        train.main, *argv, f"--data={tiny_data}", "--set", "train.learning_rate=0.3", code=2
    )
    assert (
        "was started with train.learning_rate = 0.05, now it is 0.3: use another --workdir" in line
    )
    line = fails(train.main, *argv, f"--data={blue_first}", code=2)
    assert "was trained on 3 classes (red, green, blue, ...)" in line
    assert "has 3 (blue, green, red, ...)" in line
    assert (tiny_run / "config.yaml").read_text() == before


def test_other_ways_to_evaluate_and_to_watch_are_not(
    tiny_run, tiny_data, tiny_config_file, tmp_path, monkeypatch
):
    """And a run that failed before its first checkpoint may be started anew with other settings."""
    started = []
    monkeypatch.setattr(
        "ssd_tf.training.trainer.train", lambda config, *_rest: started.append(config)
    )
    shutil.copytree(tiny_run, tmp_path / "run")
    argv = [
        "train",
        f"--config={tiny_config_file}",
        f"--data={tiny_data}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert train.main([*argv, "--set", "eval.nms_iou=0.6", "--set", "watch.log_every=3"]) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train.main([*argv, "--set", "train.seed=5", "model.num_levels=2"]) == 0
    assert [
        (config.eval.nms_iou, config.train.seed, config.model.num_levels) for config in started
    ] == [(0.6, 0, 3), (0.45, 5, 2)]
    assert load_config(tmp_path / "run" / "config.yaml") == started[1]


def test_what_is_done_about_bad_records_may_change(
    tiny_run, tiny_data, tiny_config_file, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("ssd_tf.training.trainer.train", lambda *_: None)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    argv = ["train", f"--config={tiny_config_file}", f"--data={tiny_data}", f"--workdir={run}"]
    with caplog.at_level(logging.WARNING):
        assert train.main([*argv, "--set", "data.on_bad_record=skip"]) == 0
    line = "data.on_bad_record was stop, now it is skip: where a record is skipped, the order of pictures changes"
    assert line in [record.getMessage() for record in caplog.records]
    assert load_config(run / "config.yaml").data.on_bad_record == "skip"


def test_bad_records_of_the_val_split(fails, with_bad_record, tiny_config_file, tmp_path):
    data, run = with_bad_record("val"), tmp_path / "run"
    argv = [
        f"--config={tiny_config_file}",
        f"--data={data}",
        f"--workdir={run}",
        "--set",
        "train.steps=1",
    ]
    line = fails(train.main, *argv, code=1)
    assert (
        "val-00000-of-00001.tfrecord: record 1 (from 0)" in line
        and "data.on_bad_record=skip" in line
    )
    shutil.rmtree(run)
    assert train.main(["train", *argv, "--set", "data.on_bad_record=skip"]) == 0
    assert [row["step"] for row in monitor.read_metrics(run / "metrics.csv") if row["AP"]] == ["1"]


def test_the_val_split_is_looked_through_before_the_first_step(refused, with_bad_record, spoilt):
    """Where bad records are skipped, what skipping does not mend is told before the run folder is made."""
    data = with_bad_record("val")
    content = json.loads((data / "dataset.json").read_text())
    del content["classes"][1:]  # the labels of green are beyond the list now
    (data / "dataset.json").write_text(json.dumps(content))
    assert "labels must lie in [1, 1], found 2" in refused(
        "--set", "data.on_bad_record=skip", code=1, data=data
    )
    short = spoilt(lambda content: content["splits"]["val"].update(images=3))
    assert "split 'val' has 3 images, its shards hold 4 records" in refused(code=1, data=short)


def test_the_same_command_goes_on_from_the_last_checkpoint(
    tiny_config_file, tiny_data, tmp_path, monkeypatch
):
    short = {
        "steps": 4,
        "checkpoint_every": 2,
        "batch_size": 4,
        "weight_decay": 0.0005,
        "ema": 0.5,
        "warmup_steps": 2,
    }
    settings = {
        "base": str(tiny_config_file),
        "train": short,
        "data": {"augment": "light", "val_split": "none"},
    }
    (tmp_path / "short.yaml").write_text(yaml.safe_dump({**settings, "watch": {"log_every": 1}}))
    argv = ["train", f"--config={tmp_path / 'short.yaml'}", f"--data={tiny_data}"]
    assert train.main([*argv, f"--workdir={tmp_path / 'straight'}"]) == 0

    progress = monitor.Monitor.progress

    def stop_at_three(self, step, *values):
        if step == 3:
            raise KeyboardInterrupt
        progress(self, step, *values)

    with monkeypatch.context() as patch:
        patch.setattr(monitor.Monitor, "progress", stop_at_three)
        assert train.main([*argv, f"--workdir={tmp_path / 'stopped'}"]) == 130
    assert train.main([*argv, f"--workdir={tmp_path / 'stopped'}"]) == 0
    prefixes = [checkpoints.find_checkpoint(tmp_path / name) for name in ("straight", "stopped")]
    assert [prefix.endswith("last/ckpt-4") for prefix in prefixes] == [True, True]
    straight, stopped = map(checkpoints.read_weights, prefixes)
    for path, value in straight.items():
        np.testing.assert_allclose(stopped[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    for name in ("straight", "stopped"):
        assert [row["step"] for row in monitor.read_metrics(tmp_path / name / "metrics.csv")] == [
            "1",
            "2",
            "3",
            "4",
        ]


def test_without_a_val_split_there_is_no_evaluation(spoilt, tiny_config):
    data = spoilt(lambda content: content["splits"]["val"].update(images=0, shards=[]))
    info = dataset_json.read_dataset(data)
    assert train._make_evaluate(tiny_config, data, info, None) is None
    info.splits.pop("val")
    assert train._make_evaluate(tiny_config, data, info, None) is None


def test_init_from_takes_all_but_the_classes(tiny_run, tiny_data, tiny_config, spoilt):
    from ssd_tf.config import check_config
    from ssd_tf.models import ssd

    config = check_config({**tiny_config.model_dump(), "init_from": str(tiny_run)}, "test")
    data = spoilt(lambda content: content["classes"].append({"name": "white", "id": 99}))
    model, fresh = ssd.build_model(config, 4).model, ssd.build_model(config, 4).model
    train._initialize(config, model, dataset_json.read_dataset(data))
    learnt = {variable.path: variable.numpy() for variable in load_run(tiny_run)[2].variables}
    for variable, before in zip(model.variables, fresh.variables, strict=True):
        wanted = (
            before.numpy()
            if variable.path.startswith("logits") and "conv" in variable.path
            else learnt[variable.path]
        )
        np.testing.assert_array_equal(variable.numpy(), wanted, variable.path)
    other = check_config(
        {**config.model_dump(), "model": {**config.model_dump()["model"], "head": "conv"}}, "test"
    )
    with pytest.raises(ValueError, match=r"init_from .*run: offsets0_conv/kernel wants shape"):
        train._initialize(
            other, ssd.build_model(other, 3).model, dataset_json.read_dataset(tiny_data)
        )
