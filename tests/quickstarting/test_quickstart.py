"""The order of the steps, and what a second call does. The commands are replaced by touches."""

import itertools
import json
import pathlib
import shutil
import signal
import types

import pytest

from ssd_tf.errors import ConfigError, Interrupted
from ssd_tf.quickstarting import choices, job, learning_curve, starts, steps, summary
from ssd_tf.quickstarting import quickstart as module
from ssd_tf.quickstarting.learning_curve import Point
from ssd_tf.quickstarting.quickstart import quickstart
from ssd_tf.quickstarting.state import State
from ssd_tf.weights.run_files import Peak

OUTPUTS = {
    "inspect": "images.png",
    "import": "start/config.yaml",
    "train": "run/checkpoints/best",
    "export": "exports/export.json",
    "detect": "detections/detections.json",
}
VERIFIED = {
    "keras": {"AP": 0.5, "AP50": 0.75, "latency_ms": {"all": 20.0}, "megabytes": 8.0},
    "tflite_int8": {"AP": 0.4, "AP50": 0.7, "latency_ms": {"1": 9.0, "2": 6.5}, "megabytes": 2.5},
}
METRICS = {
    "coco": {"AP": 0.5, "AP50": 0.75},
    "verdict": {"sentence": "Finds 3 of 4.", "suggestion": "Label more."},
}


class Killed(BaseException):
    """As SIGKILL: nothing handles it."""


class Program:
    """Commands in place of `ssd`: each leaves its file. fails: {command: what it raises, once}."""

    def __init__(self, folder, splits):
        self.folder = folder
        self.splits = splits
        self.calls = []
        self.fails = {}
        self.codes = {}

    def main(self, argv):
        assert argv[0] == "ssd" and argv[-1] == "--traceback"
        name = argv[1]
        self.calls.append(" ".join(argv[1:3]) if name == "convert" else name)
        if name in self.fails:
            raise self.fails.pop(name)
        self.run(name, argv)
        return self.codes.get(name, 0)

    def run(self, name, argv):
        given = dict(itertools.pairwise(argv))
        if name == "convert":
            self.write("data/dataset.json", self.dataset())
            for split in self.splits:
                self.write(f"data/{split}-images.tsv", None)
        elif name == "evaluate":
            folder = f"evaluation_{given['--split']}"
            self.write(f"{folder}/metrics.json", METRICS)
            self.write(f"{folder}/report.html", None)
        elif name == "export":
            self.write(OUTPUTS[name], {"verify": VERIFIED, "formats": given["--formats"]})
        else:
            if name == "import" and (self.folder / "start").exists():
                raise ConfigError("--output exists already")
            self.write(OUTPUTS[name], None)
        if name == "train":
            path = self.folder / "run" / "config.yaml"
            path.write_text("boxes: {preset: paper}\ntrain: {steps: 1000}\n")

    def dataset(self):
        splits = {name: {"images": count, "shards": []} for name, count in self.splits.items()}
        return {"classes": [{"name": "cat", "id": 1}], "splits": splits}

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if content is None else json.dumps(content))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").touch()
    return folder


@pytest.fixture
def program(tmp_path, monkeypatch):
    program = Program(tmp_path / "photos-ssd", {"train": 30, "val": 6})
    monkeypatch.setattr(job.cli, "main", program.main)
    recognised = types.SimpleNamespace(
        label_format="yolo", reason="data.yaml", conversions=[("yolo", "--yolo", "x")]
    )
    monkeypatch.setattr(module, "recognise", lambda *_: recognised)
    start = starts.Start("it", "why", "finetune.yaml", "a.tflite", "a.txt")
    monkeypatch.setattr(steps.starts, "find_starts", lambda _: iter([start]))

    def write_config(path, _data, start, *_):
        program.calls.append("choose")
        if "choose" in program.fails:
            raise program.fails.pop("choose")
        path.write_text(f"init_from: {start.values['init_from']}\n")
        return choices.Pace(1.5, 20, 2)

    monkeypatch.setattr(steps.choosing, "write_config", write_config)
    return program


ALL = [
    "convert yolo",
    "inspect",
    "import",
    "choose",
    "train",
    "evaluate",
    "export",
    "detect",
]


def test_all_steps_are_made_once(images, program, capsys):
    result = quickstart(images)
    assert program.calls == ALL
    assert result.folder == program.folder
    assert result.rows == (
        ("keras", "0.500", "0.750", "20.0", "8.0"),
        ("tflite_int8", "0.400", "0.700", "6.5 (2 threads)", "2.5"),
    )
    assert (result["AP"], result["split"]) == (0.5, "val")
    out = capsys.readouterr().out
    commands = [line for line in out.splitlines() if line.startswith("$ ssd ")]
    assert len(commands) == 7
    folder = program.folder
    assert (
        f"$ ssd train --config {folder}/config.yaml --data {folder}/data --workdir {folder}/run"
        in commands
    )
    assert any("--web_files cdn" in command for command in commands)
    for text in ("Finds 3 of 4.", "Label more.", "--format yolo", str(folder / "exports" / "web")):
        assert text in out
    assert (folder / "config.yaml").read_text() == f"init_from: {folder}/start\n"


def test_a_finished_one_does_nothing(images, program, monkeypatch):
    first = quickstart(images)
    monkeypatch.setattr(module, "_run", lambda _: pytest.fail("it is finished"))
    content = (program.folder / "quickstart.json").read_bytes()
    program.calls.clear()
    again = quickstart(images)
    assert program.calls == []
    assert again.metrics == first.metrics
    assert (program.folder / "quickstart.json").read_bytes() == content


@pytest.mark.parametrize("name", ["convert", *ALL[1:]])
def test_after_a_kill_the_same_call_continues(images, program, name):
    program.fails[name] = Killed()
    with pytest.raises(Killed):
        quickstart(images)
    result = quickstart(images)
    index = next(index for index, call in enumerate(ALL) if call.startswith(name))
    # Only the step that was killed is made again.
    assert program.calls == [*ALL[: index + 1], *ALL[index:]]
    assert result["AP50"] == 0.75


@pytest.mark.parametrize("name", ["convert", *ALL[1:]])
def test_a_kill_before_the_note_costs_that_step(images, program, name, monkeypatch):
    note = State.note

    def killed(state, step, done, commands, seconds):
        if program.calls[-1].startswith(name) and "killed" not in program.fails:
            program.fails["killed"] = None
            raise Killed
        note(state, step, done, commands, seconds)

    monkeypatch.setattr(State, "note", killed)
    with pytest.raises(Killed):
        quickstart(images)
    quickstart(images)
    index = next(index for index, call in enumerate(ALL) if call.startswith(name))
    assert program.calls == [*ALL[: index + 1], *ALL[index:]]


def test_an_error_in_the_first_step_leaves_nothing(images, program):
    program.fails["convert"] = ValueError("no boxes")
    with pytest.raises(ValueError, match="no boxes"):
        quickstart(images)
    assert not program.folder.exists()


def test_an_error_later_keeps_what_is_done(images, program):
    program.fails["train"] = ValueError("diverged")
    with pytest.raises(ValueError, match="diverged"):
        quickstart(images)
    quickstart(images)
    assert program.calls == [*ALL[:5], *ALL[4:]]


def test_the_time_before_a_signal_counts(images, program, monkeypatch):
    seconds = itertools.count(0, 7)  # each call of the clock comes 7 seconds after the last
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    program.fails["train"] = KeyboardInterrupt()
    with pytest.raises(Interrupted):
        quickstart(images)
    result = quickstart(images)
    assert result["seconds"]["train"] == 14
    assert result["seconds"]["export"] == 7


@pytest.mark.parametrize(("name", "num_lines"), [("tflite_int8", 0), ("tflite_int8_raw", 1)])
def test_the_summary_says_what_raw_files_are(images, program, capsys, monkeypatch, name, num_lines):
    monkeypatch.setitem(VERIFIED, name, VERIFIED["tflite_int8"])
    quickstart(images)
    assert program.calls == ALL
    lines = capsys.readouterr().out.splitlines()
    assert sum("raw_decoder.py" in line and "_raw" in line for line in lines) == num_lines


@pytest.mark.parametrize(
    ("peak", "commands"),
    [
        (None, ["ssd detect", "ssd quickstart", "ssd serve"]),
        (Peak(8, 10, 3), ["ssd detect", "ssd quickstart", "ssd serve"]),
        (Peak(4, 10, 3), ["ssd detect", "ssd serve"]),
    ],
)
def test_longer_training_is_recommended_unless_it_did_not_help(
    images, program, capsys, monkeypatch, peak, commands
):
    monkeypatch.setattr(summary.run_files, "find_peak", {program.folder / "run": peak}.__getitem__)
    quickstart(images)
    lines = capsys.readouterr().out.split("Next:")[1].splitlines()
    found = [" ".join(line.split()[:2]) for line in lines if line.startswith("    ssd ")]
    assert found == commands


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (Interrupted(15, "step 7 is saved", "ssd train"), 143)],
)
def test_a_signal_ends_it_and_names_the_command(images, program, raised, code):
    program.fails["train"] = raised
    with pytest.raises(Interrupted, match=f"ssd quickstart {images}$") as error:
        quickstart(images, minutes=15)
    assert error.value.exit_code == code
    assert ("step 7 is saved" in str(error.value)) == (code == 143)
    assert "ssd train" not in str(error.value)
    assert program.calls[-1] == "train"


def test_sigterm_in_a_step_without_a_handler_of_its_own(images, program, monkeypatch):
    monkeypatch.setattr(job.cli, "main", lambda _: signal.raise_signal(signal.SIGTERM))
    # In place of the end of this process:
    previous = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("no handler"))
    try:
        with pytest.raises(Interrupted, match=rf"SIGTERM.*ssd quickstart {images}$") as error:
            quickstart(images)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert error.value.exit_code == 143
    content = json.loads((program.folder / "quickstart.json").read_text())
    assert list(content["stopped_seconds"]) == ["convert"]


def test_an_error_of_the_import_is_one_of_the_start(images, program, monkeypatch, capsys):
    start = starts.Start("one", "--start", "finetune.yaml", "one.tflite")
    monkeypatch.setattr(steps.starts, "find_starts", lambda _: iter([start]))
    program.fails["import"] = ConfigError("--source: one.tflite is empty")
    with pytest.raises(ConfigError, match=r"^--start: one\.tflite is empty$"):
        quickstart(images, start="one.tflite")
    assert "$ ssd import --source one.tflite" in capsys.readouterr().out


def test_an_exit_code_above_128_is_a_signal(images, program):
    program.codes["train"] = 141  # nobody reads stdout any more
    with pytest.raises(Interrupted) as error:
        quickstart(images)
    assert error.value.exit_code == 141


def test_an_exit_code_is_an_error(images, program):
    program.codes["inspect"] = 1
    with pytest.raises(ValueError, match="exit code 1"):
        quickstart(images)


def test_labels_that_are_not_recognised_leave_nothing(images, program, monkeypatch):
    def fail(*_):
        raise ConfigError("two formats: give --format")

    monkeypatch.setattr(module, "recognise", fail)
    with pytest.raises(ConfigError, match="--format"):
        quickstart(images)
    assert not program.folder.exists()


def test_a_start_that_cannot_be_imported_is_passed_over(images, program, monkeypatch):
    both = [
        starts.Start("one", "why", "finetune.yaml", "one.tflite"),
        starts.Start("two", "why", "finetune.yaml", "two.tflite"),
    ]
    monkeypatch.setattr(steps.starts, "find_starts", lambda _: iter(both))
    program.fails["import"] = ConfigError("corrupt")
    quickstart(images)
    content = json.loads((program.folder / "quickstart.json").read_text())
    assert content["steps"]["start"]["result"]["source"] == "two.tflite"
    assert content["steps"]["start"]["commands"] == [
        f"ssd import --source two.tflite --output {program.folder}/start"
    ]
    program.fails["import"] = ConfigError("corrupt")
    with pytest.raises(ConfigError, match="corrupt"):
        quickstart(images, images.parent / "other", start="one.tflite")


def test_a_wrong_start_is_an_error_before_the_first_step(images, program, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"--start.*nonsense"):
        quickstart(images, start="nonsense")
    assert not program.folder.exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"minutes": 0}, "--minutes"),
        ({"minutes": float("nan")}, "--minutes"),
        ({"minutes": float("inf")}, "--minutes"),
        ({"overrides": ["train.stps=3"]}, "train.stps"),
        ({"overrides": ["train.steps=many"]}, "train.steps"),
    ],
)
def test_wrong_values_are_errors_before_the_first_step(images, program, change, text):
    with pytest.raises(ConfigError, match=text):
        quickstart(images, **change)
    assert not program.folder.exists()
    assert program.calls == []


def test_a_training_that_is_repeated_repeats_what_follows(images, program):
    quickstart(images)
    shutil.rmtree(program.folder / "run")
    program.calls.clear()
    quickstart(images)
    assert program.calls == ALL[4:]


def test_the_test_split_is_evaluated_last_and_quoted(images, program):
    program.splits["test"] = 5
    result = quickstart(images)
    assert program.calls == [*ALL[:6], "evaluate", *ALL[6:]]
    assert result["split"] == "test"
    assert result.paths["report"] == program.folder / "evaluation_test" / "report.html"


@pytest.mark.parametrize(("num_images", "has_int8"), [(9, False), (10, True)])
def test_int8_needs_ten_images(images, program, num_images, has_int8):
    program.splits["train"] = num_images
    quickstart(images)
    formats = json.loads((program.folder / "exports" / "export.json").read_text())["formats"]
    assert ("tflite_int8" in formats.split(",")) is has_int8
    assert {"saved_model", "tflite_float32", "web"} <= set(formats.split(","))


def test_time_that_an_early_stop_leaves_is_for_a_learning_curve(images, program, monkeypatch):
    made = []

    def run(_config, _data, _folder, runs):
        made.extend(runs)
        points = {(0.5, 50): 0.3, (1.0, 50): 0.4, (0.25, 50): 0.2}
        return [Point(each.fraction, each.steps, points[each]) for each in runs]

    # 900 of 1,000 steps are left, 22.5 minutes; a run of 50 takes 135 s.
    monkeypatch.setattr(learning_curve, "read_points", lambda _: [Point(1.0, 100, 0.5)])
    monkeypatch.setattr(learning_curve, "run", run)
    quickstart(images)
    assert made == [(0.5, 50), (1.0, 50), (0.25, 50)]
    content = json.loads((program.folder / "quickstart.json").read_text())
    assert "+0.100" in content["steps"]["curve"]["result"]["text"]


def test_the_output_folder_stands_beside_the_images(tmp_path, monkeypatch):
    images = tmp_path / "photos"
    (images / "inner").mkdir(parents=True)
    monkeypatch.chdir(images)
    relative = pathlib.Path("..") / "photos"
    assert module.choose_folder(images, None) == tmp_path / "photos-ssd"
    assert module.choose_folder(relative, None) == pathlib.Path("..") / "photos-ssd"
    assert module.choose_folder(pathlib.Path("."), None) == tmp_path / "photos-ssd"
    for inside in (images, images / "inner" / "out", pathlib.Path("out")):
        with pytest.raises(ConfigError, match="--output"):
            module.choose_folder(images, inside)


def test_a_missing_folder_and_a_file_are_errors(tmp_path, images):
    with pytest.raises(FileNotFoundError, match="photos"):
        quickstart(tmp_path / "photo")
    with pytest.raises(ConfigError, match=r"a\.jpg"):
        quickstart(images / "a.jpg")
    (tmp_path / "file.txt").touch()
    with pytest.raises(FileExistsError, match="--output"):
        quickstart(images, tmp_path / "file.txt")
