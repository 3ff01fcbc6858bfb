import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import small_networks
import yaml

from ssd_tf.commands import train
from ssd_tf.config import load_config
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.training.live_page import read_evaluations
from ssd_tf.training.monitor import read_metrics

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def refused(fails, tiny_config_file, tiny_data, tmp_path):
    """A function: a call of train that must fail and write no run folder; returns the error."""

    def call(*argv, code, config=tiny_config_file, data=tiny_data):
        workdir = tmp_path / "run"
        flags = [f"--config={config}", f"--data={data}", f"--workdir={workdir}"]
        line = fails(train.main, *flags, *argv, code=code)
        assert not workdir.exists()
        return line

    return call


@pytest.fixture
def altered(tiny_data, tmp_path):
    """A function: a copy of the tiny data, with `change` applied to its dataset.json."""

    def make(change):
        folder = tmp_path / "data"
        shutil.copytree(tiny_data, folder)
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def loops(monkeypatch):
    """The Loop of each run, which then does nothing."""
    calls = []
    monkeypatch.setattr("ssd_tf.training.loop.Loop.run", lambda loop: calls.append(loop))
    return calls


def test_what_a_run_leaves(tiny_run, tiny_data, tiny_config):
    assert load_config(tiny_run / "config.yaml") == tiny_config
    content = json.loads((tiny_run / "dataset.json").read_text())
    assert content == json.loads((tiny_data / "dataset.json").read_text())
    assert {path.name for path in (tiny_run / "checkpoints").iterdir()} == {"best", "last"}
    assert json.loads((tiny_run / "state.json").read_text())["num_workers"] == 1
    assert list((tiny_run / "tensorboard").glob("events.*"))
    assert 'http-equiv="refresh"' not in (tiny_run / "live.html").read_text()
    rows = read_metrics(tiny_run / "metrics.csv")
    best_row = max(rows, key=lambda row: float(row["AP"] or 0))
    kept = {each["step"] for each in read_evaluations(tiny_run)}
    assert kept >= {30, int(best_row["step"]), 80}
    assert all(len(each["images"]) == 4 for each in read_evaluations(tiny_run))
    # Reports every 20 steps, evaluations every 30.
    steps = " ".join(row["step"] for row in rows)
    assert steps == "20 30 40 60 80"
    assert [row["step"] for row in rows if not row["AP"]] == ["20", "40"]
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])
    assert float(rows[-1]["AP"]) > 0.8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "--set: expected KEY=VALUE, got 'steps'"),
        ("train.learning_rat=1", "did you mean 'learning_rate'?"),
        ("train.steps=0", "train.steps: input should be greater than 0, got 0"),
        ("model.backbone.name=vgg17", "model.backbone.name"),
        ("boxes.preset=caffe_voc", "caffe_voc has a table for 6 and 7 maps, model.num_levels is 3"),
        ("init_from=gone.h5", "no file at gone.h5"),
    ],
)
def test_overrides_that_cannot_be_used(refused, override, message):
    assert message in refused("--set", override, code=2)


def test_a_missing_config(refused, tmp_path):
    missing = tmp_path / "none.yaml"
    assert f"no config file at {missing}" in refused(code=2, config=missing)


def test_missing_flags(fails):
    assert "missing --config, --data, --workdir" in fails(train.main, code=2)


def test_missing_data(refused, tmp_path):
    assert f"no data folder at {tmp_path / 'none'}" in refused(code=1, data=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no dataset.json" in refused(code=1, data=tmp_path / "empty")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"images": []}',
        '{"classes": ["cat"], "splits": {}}',
        '{"classes": [{"name": "cat", "id": "one"}], "splits": {}}',
        '{"classes": [{"name": "cat", "id": 1}], "splits": ["train"]}',
        '{"classes": [{"name": "cat", "id": 1}], "splits": {"train": 5}}',
        '{"classes": [{"name": "cat", "id": 1}], "splits": {"train": {"shards": []}}}',
        '{"classes": [{"name": "cat", "id": 1}], "splits": {"train": {"images": 5}}}',
        '{"classes": [{"name": "cat", "id": 1}], '
        '"splits": {"train": {"images": 5, "shards": [5]}}}',
    ],
)
def test_a_dataset_json_of_another_kind(refused, tmp_path, content):
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "dataset.json").write_text(content)
    assert "is not a dataset.json of this package" in refused(code=1, data=folder)


INCOMPLETE = {
    "no train split": (
        lambda content: content["splits"].pop("train"),
        "has no split 'train'; it has val",
    ),
    "no splits": (
        lambda content: content["splits"].clear(),
        "has no split 'train'; it has none",
    ),
    "empty split": (
        lambda content: content["splits"]["train"].update(images=0, shards=[]),
        "the split 'train' of",
    ),
    "no classes": (
        lambda content: content["classes"].clear(),
        "has no classes",
    ),
    "missing shard": (
        lambda content: content["splits"]["train"]["shards"].append("train-00001.tfrecord"),
        "lacks train-00001.tfrecord",
    ),
    "missing shard of val": (
        lambda content: content["splits"]["val"]["shards"].append("val-00001.tfrecord"),
        "lacks val-00001.tfrecord",
    ),
}


@pytest.mark.parametrize(("change", "message"), INCOMPLETE.values(), ids=INCOMPLETE.keys())
def test_incomplete_data(refused, altered, change, message):
    assert message in refused(code=1, data=altered(change))


def test_a_run_with_other_settings_is_rejected(
    fails, tiny_run, tiny_data, tiny_config_file, blue_first
):
    before = (tiny_run / "config.yaml").read_text()
    argv = [f"--config={tiny_config_file}", f"--workdir={tiny_run}"]
    change = ["--set", "train.learning_rate=0.3"]
    line = fails(train.main, *argv, f"--data={tiny_data}", *change, code=2)
    message = "was started with train.learning_rate = 0.05, now it is 0.3: use another --workdir"
    assert message in line
    line = fails(train.main, *argv, f"--data={blue_first}", code=2)
    assert "was trained on 3 classes (red, green, blue)" in line
    assert "has 3 classes (blue, green, red): use another --workdir" in line
    assert (tiny_run / "config.yaml").read_text() == before


def test_eval_export_and_watch_may_change(tiny_run, tiny_data, tiny_config_file, tmp_path, loops):
    """And a run that failed before its first checkpoint may start with other settings."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    argv = ["train", f"--config={tiny_config_file}", f"--data={tiny_data}", f"--workdir={run}"]
    assert (
        train.main(
            [*argv, "--set", "eval.nms_iou=0.6", "watch.log_every=3", "export.max_detections=7"]
        )
        == 0
    )
    shutil.rmtree(run / "checkpoints")
    assert train.main([*argv, "--set", "train.seed=5", "model.num_levels=2"]) == 0
    first, second = (loop.config for loop in loops)
    assert (first.eval.nms_iou, first.watch.log_every) == (0.6, 3)
    assert first.export.max_detections == 7
    assert (second.train.seed, second.model.num_levels) == (5, 2)
    assert load_config(run / "config.yaml") == second


def test_layers_that_init_from_does_not_fill_are_known_after_a_restart(
    tiny_run, tiny_data, tiny_config_file, tmp_path, loops
):
    """Without the run that was started from, which may be gone by then."""
    source = shutil.copytree(tiny_run, tmp_path / "source")
    argv = ["train", f"--config={tiny_config_file}", f"--data={tiny_data}"]
    argv += [f"--workdir={tmp_path / 'run'}", "--set", f"init_from={source}"]
    argv += ["model.num_levels=4", "train.pretrained_rate=0.5"]
    assert train.main(argv) == 0
    Checkpoints(tmp_path / "run", loops[0].state, keep=2).save_last()
    shutil.rmtree(source)
    assert train.main(argv) == 0
    for loop in loops:
        assert set(loop.state.new_layers) == {
            *("stage6_conv1", "stage6_conv1_bn", "stage6_conv2", "stage6_conv2_bn")
        }
        variables = [each.path for each in loop.state.network.model.trainable_variables]
        factors = dict(zip(variables, loop.state.optimizer._rate_factors, strict=True))
        assert factors["stage1_conv1/kernel"] == 0.5
        assert factors["stage6_conv2/kernel"] == 1.0


def test_on_bad_record_may_change(tiny_run, tiny_data, tiny_config_file, tmp_path, loops, caplog):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    argv = ["train", f"--config={tiny_config_file}", f"--data={tiny_data}", f"--workdir={run}"]
    with caplog.at_level(logging.WARNING):
        assert train.main([*argv, "--set", "data.on_bad_record=skip"]) == 0
    assert len(loops) == 1
    line = "data.on_bad_record was stop, now it is skip: skipped records change the order of images"
    assert line in [record.getMessage() for record in caplog.records]
    assert load_config(run / "config.yaml").data.on_bad_record == "skip"


@pytest.mark.integration
def test_bad_records_of_the_val_split(fails, with_bad_record, tiny_config_file, tmp_path):
    data = with_bad_record("val")
    run = tmp_path / "run"
    argv = [f"--config={tiny_config_file}", f"--data={data}", f"--workdir={run}"]
    argv += ["--set", "train.steps=1"]
    line = fails(train.main, *argv, code=1)
    assert "val-00000-of-00001.tfrecord: record 1 (from 0)" in line
    assert "data.on_bad_record=skip" in line
    shutil.rmtree(run)
    assert train.main(["train", *argv, "--set", "data.on_bad_record=skip"]) == 0
    rows = read_metrics(run / "metrics.csv")
    assert [row["step"] for row in rows if row["AP"]] == ["1"]


def test_the_val_split_is_scanned_before_the_first_step(refused, with_bad_record, altered):
    """If bad records are skipped, what skipping does not repair fails before the run is created."""
    data = with_bad_record("val")
    content = json.loads((data / "dataset.json").read_text())
    del content["classes"][1:]  # the labels of green are beyond the list now
    (data / "dataset.json").write_text(json.dumps(content))
    line = refused("--set", "data.on_bad_record=skip", code=1, data=data)
    assert "expected labels in [1, 1], got 2" in line
    short = altered(lambda content: content["splits"]["val"].update(images=3))
    assert "split 'val' has 3 images, its shards hold 4 records" in refused(code=1, data=short)


@pytest.fixture
def short_argv(tiny_config_file, tiny_data, tmp_path):
    """Arguments of a run of four steps, without --workdir."""
    values = {
        "base": str(tiny_config_file),
        "train": {
            "steps": 4,
            "checkpoint_every": 2,
            "batch_size": 4,
            "weight_decay": 0.0005,
            "ema": 0.5,
            "warmup_steps": 2,
        },
        "data": {"augment": "none", "val_split": "none"},
        "watch": {"log_every": 1},
    }
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(values))
    return ["train", f"--config={tmp_path / 'short.yaml'}", f"--data={tiny_data}"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["splits"]["val"].update(images=0, shards=[]),
        lambda content: content["splits"].pop("val"),
    ],
    ids=["empty", "missing"],
)
def test_without_a_val_split_there_is_no_evaluation(
    altered, change, tiny_config_file, tmp_path, loops, caplog
):
    data = altered(change)
    argv = ["train", f"--config={tiny_config_file}", f"--data={data}"]
    with caplog.at_level(logging.WARNING):
        assert train.main([*argv, f"--workdir={tmp_path / 'run'}"]) == 0
    (loop,) = loops
    assert loop.evaluate is None
    line = f"{data} has no images in a split 'val': training keeps checkpoints/last only"
    assert line in [record.getMessage() for record in caplog.records]


@pytest.fixture
def train_in_bfloat16(tiny_config_file, tiny_data, tmp_path):
    """A function: one step of `ssd train` in mixed_bfloat16, as a process with these variables."""

    def run(**environment):
        command = [sys.executable, "train.py", f"--config={tiny_config_file}"]
        command += [f"--data={tiny_data}", f"--workdir={tmp_path / 'run'}"]
        for override in (
            "train.precision=mixed_bfloat16",
            "train.steps=1",
            "data.val_split=none",
            "watch.live_page=false",
        ):
            command += ["--set", override]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)

    return run


@pytest.mark.integration
def test_mixed_bfloat16_on_an_old_processor_trains_or_is_one_line(train_in_bfloat16, tmp_path):
    # The limit exists in oneDNN for x86 only; elsewhere the processor may do it.
    done = train_in_bfloat16(ONEDNN_MAX_CPU_ISA="SSE41", TF_ENABLE_ONEDNN_OPTS="1")
    if done.returncode == 0:
        assert (tmp_path / "run" / "checkpoints" / "last").is_dir()
        return
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: train.precision: mixed_bfloat16 needs bfloat16 convolution")
    assert "train.precision=float32" in errors[0]
    assert "worker" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.integration
def test_mixed_bfloat16_trains_without_onednn(train_in_bfloat16, tmp_path):
    done = train_in_bfloat16(ONEDNN_MAX_CPU_ISA="SSE41", TF_ENABLE_ONEDNN_OPTS="0")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "last").is_dir()


@pytest.fixture
def small_network(monkeypatch):
    """Instead of the config's network, for tests of what surrounds the training of one."""
    monkeypatch.setattr("ssd_tf.models.ssd.build_model", small_networks.build_on_one_map)


@pytest.mark.usefixtures("small_network")
def test_a_profile(tiny_config_file, tiny_data, tmp_path, fails):
    run = tmp_path / "run"
    argv = [f"--config={tiny_config_file}", f"--data={tiny_data}", f"--workdir={run}"]
    argv += ["--set", "train.steps=3", "data.val_split=none", "data.augment=none"]
    line = fails(train.main, *argv, "--profile_steps=3:4", code=2)
    assert "--profile_steps: expected A:B with 1 <= A <= B <= 3 (train.steps), got '3:4'" in line
    assert not run.exists()
    assert train.main(["train", *argv, "--profile_steps=2:3"]) == 0
    assert list((run / "tensorboard" / "plugins" / "profile").rglob("*.xplane.pb"))


def test_hosts_that_cannot_be_used(refused):
    assert "expected --hosts and --task together" in refused("--hosts=a:1,b:2", code=2)
    assert "--hosts: expected HOST:PORT, got 'a'" in refused("--hosts=a,b:2", "--task=0", code=2)


@pytest.mark.usefixtures("small_network")
def test_a_run_goes_on_with_more_steps(short_argv, tmp_path, caplog, monkeypatch):
    workdir = tmp_path / "run"
    assert train.main([*short_argv, f"--workdir={workdir}"]) == 0

    def refuse(*_arguments):
        raise AssertionError("the checkpoint replaces them")

    monkeypatch.setattr("ssd_tf.training.state.load_initial_weights", refuse)
    with caplog.at_level(logging.WARNING):
        assert train.main([*short_argv, f"--workdir={workdir}", "--set", "train.steps=6"]) == 0
    line = "train.steps was 4, now it is 6: the schedule of the learning rate follows"
    assert line in caplog.messages
    steps = [row["step"] for row in read_metrics(workdir / "metrics.csv")]
    assert steps == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(AssertionError):
        train.main([*short_argv, f"--workdir={tmp_path / 'other'}", "--traceback"])
