"""The flags of `ssd quickstart`, and a small one for real."""

import json
import subprocess
import sys

import pytest
import yaml

from data_tools import shapes
from ssd_tf.commands import quickstart as command
from ssd_tf.quickstarting import choosing, starts
from ssd_tf.training.pace import Pace


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(command, "quickstart", lambda *arguments: made.append(arguments))
    return made


def test_the_defaults(calls, tmp_path):
    assert command.main(["quickstart", str(tmp_path)]) == 0
    assert calls == [(str(tmp_path), None, 15, None, [], None, [])]


def test_all_flags(calls, tmp_path):
    flags = ["--output", "o", "--minutes", "2.5", "--start", "scratch", "--classes", 'a,"b, c"']
    flags += ["--format", "voc", "--set", "train.seed=1", "train.ema=0.9"]
    assert command.main(["quickstart", str(tmp_path), *flags]) == 0
    overrides = ["train.seed=1", "train.ema=0.9"]
    assert calls == [(str(tmp_path), "o", 2.5, "scratch", ["a", "b, c"], "voc", overrides)]


def test_wrong_flags(calls, fails, tmp_path):
    fails(command.main, code=2)
    assert "--minutes" in fails(command.main, tmp_path, "--minutes", "abc", code=2)
    assert "--format" in fails(command.main, tmp_path, "--format", "xml", code=2)
    assert "other" in fails(command.main, tmp_path, "other", code=2)
    line = fails(command.main, tmp_path / "absent", code=1)
    assert str(tmp_path / "absent") in line
    assert calls == []


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], 1),
        (["a.jpg", "b.jpg"], 1),  # images without labels
        (["a.xml"], 1),  # labels without images
    ],
)
def test_bad_folders_leave_nothing(fails, tmp_path, names, code):
    images = tmp_path / "photos"
    images.mkdir()
    for name in names:
        (images / name).write_text("<annotation><object><name>a</name></object></annotation>")
    fails(command.main, images, code=code)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def run_until(folder, last_line, *flags):
    """The commands that a quickstart prints; it is killed at a line that begins with last_line."""
    program = [sys.executable, "-m", "ssd_tf", "quickstart", "photos", *flags]
    commands = []
    with subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("$ ssd "):
                commands.append(line.split()[2])
            if line.startswith(last_line):
                process.kill()
        process.stdout.close()
    return process.returncode, commands


@pytest.mark.integration
def test_a_real_one_that_is_killed_as_it_trains(tmp_path):
    shapes.write_dataset(tmp_path / "photos", 15, seed=0)
    flags = ["--minutes=0.1", "--start=scratch", "--set=model.input_hw=[96,128]"]
    flags += ["--set=train.steps=4", "--set=train.batch_size=4"]
    code, commands = run_until(tmp_path, "$ ssd train", *flags)
    assert code == -9
    assert commands[:2] == ["convert", "inspect"] and commands[-1] == "train"
    code, commands = run_until(tmp_path, "nothing", *flags)
    assert (code, commands) == (0, ["train", "evaluate", "export", "detect"])
    output = tmp_path / "photos-ssd"
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["model"]["input_hw"] == [96, 128]
    assert (config["train"]["steps"], config["train"]["batch_size"]) == (4, 4)
    verified = json.loads((output / "exports" / "export.json").read_text())["verify"]
    assert {"saved_model", "tflite_float32", "tflite_int8", "tflite_int8_raw"} <= set(verified)
    split = json.loads((output / "data" / "dataset.json").read_text())["splits"]["val"]
    listed = (output / "held_out.txt").read_text().splitlines()
    assert len(listed) == split["images"] == 3
    for name in ("images.png", "evaluation_val/report.html", "run/live.html"):
        assert (output / name).stat().st_size > 0
    assert run_until(tmp_path, "nothing", *flags) == (0, [])


@pytest.mark.integration
def test_a_real_one_without_any_flag(tmp_path, monkeypatch):
    """On a machine that takes a minute per step, or so it measures: 15 minutes are a few steps."""
    shapes.write_dataset(tmp_path / "photos", 15, seed=0)
    pace = Pace(seconds_per_step=60, startup_seconds=10, seconds_per_evaluation=1)
    monkeypatch.setattr(choosing, "measure_pace", lambda *_: pace)
    monkeypatch.setattr(starts.downloads, "is_reachable", lambda _: False)
    monkeypatch.setenv("SSD_TF_WEIGHTS", str(tmp_path / "no_weights"))
    assert command.main(["quickstart", str(tmp_path / "photos")]) == 0
    output = tmp_path / "photos-ssd"
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["base"] == "shapes_plain.yaml"
    # Of 890 seconds, 60 for a step and 1 for an evaluation every 90 seconds: 14.67 steps.
    assert (config["train"]["steps"], config["train"]["batch_size"]) == (14, 8)
    assert config["eval"] == {"every": 2, "patience": 4}
    content = json.loads((output / "quickstart.json").read_text())
    assert list(content["steps"])[-1] == "draw"
    assert len(content["steps"]) == 10
    metrics = json.loads((output / "evaluation_val" / "metrics.json").read_text())
    assert 0 <= metrics["coco"]["AP"] <= 1
