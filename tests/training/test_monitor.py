"""metrics.csv, TensorBoard and the progress line."""

import contextlib
import io
import logging

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing import plugin_event_accumulator

from ssd_tf.draw import HeldOut
from ssd_tf.errors import ConfigError, Interrupted
from ssd_tf.training.events import Profiler
from ssd_tf.training.monitor import Monitor, read_metrics
from ssd_tf.training.progress import Plan

VALUES = {
    "loss": 12.3456784,
    "classification": 8.125,
    "localization": 4.25,
    "l2": 0.5,
    "positives_per_image": 3.5,
    "gradient_norm": 2.0,
    "learning_rate": 0.001,
    "positives_per_level": [3.0, 0.5],
}
HEADER = (
    "step,loss,classification,localization,l2,positives_per_image,gradient_norm,learning_rate,"
    "AP,AP50,AP75\n"
)
ROW = "12.345678,8.125,4.25,0.5,3.5,2.0,0.001"
METRICS = {
    "coco": {"AP": 0.5, "AP50": 0.625, "AP75": -1.0, "APs": float("nan"), "AR100": 0.25},
    "voc": {"AP50_11point": 0.75, "AP50_all": 0.5},
    "per_class": {"red": {"AP": 0.125}, "blue": {"AP": -1.0}, "green": {"AP50_voc": 0.5}},
}


@pytest.fixture
def make_monitor(tmp_path):
    """A function: a Monitor of a run of 20 steps that does not write to a terminal."""

    def make(start_step=0, console=None):
        console = console or Console(file=io.StringIO())
        return Monitor(tmp_path, Plan(20, 8, 32, 10), start_step, ["4x6", "2x3"], console)

    return make


@pytest.fixture
def content(tmp_path):
    return lambda: (tmp_path / "metrics.csv").read_text()


def held_out(width, height):
    image = Image.new("RGB", (width, height))
    return HeldOut("image.jpg", image, image)


def events_of(tmp_path):
    """{tag: steps} as TensorBoard shows them."""
    accumulator = plugin_event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    return {tag: [event.step for event in accumulator.Tensors(tag)] for tag in tags}


def test_nothing_reported(make_monitor, content, tmp_path):
    monitor = make_monitor()
    assert monitor.measured_ap() == {}
    monitor.close()
    assert content() == HEADER
    assert read_metrics(tmp_path / "metrics.csv") == []
    assert read_metrics(tmp_path / "none.csv") == []


def test_one_row_per_step(make_monitor, content):
    monitor = make_monitor()
    monitor.report_step(5, VALUES)
    monitor.report_step(10, VALUES)
    assert content() == f"{HEADER}5,{ROW},,,\n10,{ROW},,,\n"
    monitor.report_evaluation(10, METRICS)
    assert content() == f"{HEADER}5,{ROW},,,\n10,{ROW},0.5,0.625,\n"
    assert monitor.measured_ap() == {10: 0.5}
    monitor.report_step(15, VALUES)
    assert content().endswith(f"0.5,0.625,\n15,{ROW},,,\n")
    monitor.close()


def test_an_evaluation_without_a_row_gets_one(make_monitor, content):
    monitor = make_monitor()
    monitor.report_evaluation(3, METRICS)
    monitor.close()
    assert content() == HEADER + "3,,,,,,,,0.5,0.625,\n"


def test_a_restart_drops_later_rows_and_a_torn_line(make_monitor, content, tmp_path):
    monitor = make_monitor()
    for step in (1, 2, 3):
        monitor.report_step(step, VALUES)
    monitor.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,12.3")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3"]
    make_monitor(start_step=2).close()
    assert content() == f"{HEADER}1,{ROW},,,\n2,{ROW},,,\n"


@pytest.mark.parametrize("end", ["4,1", "4,1\n", "4," + "1," * 20 + "\n", "4,1,1,1,1,1,1,1,,,"])
def test_a_torn_line_is_no_row(tmp_path, end):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + f"3,{ROW},,,\n" + end)
    assert [row["step"] for row in read_metrics(path)] == ["3"]


@pytest.mark.parametrize(
    "content", [b"step,loss\n1,2.5\n", b"step;loss\n", b"\xff\n", b"\n1,2.5\n"]
)
def test_another_file_in_its_place(make_monitor, tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        make_monitor()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_the_best_evaluation_after_restarts(tmp_path, tiny_config):
    """Of those from `comparable_from` on, up to the step of the restart."""

    def open_monitor(start_step, comparable_from=0):
        plan = Plan(20, 8, 32, 5, comparable_from)
        console = Console(file=io.StringIO())
        return Monitor(tmp_path, plan, start_step, ["4x6", "2x3"], console, tiny_config)

    def evaluate(monitor, step, ap):
        monitor.report_images(step, [held_out(30, 20)])
        monitor.report_evaluation(step, METRICS | {"coco": {"AP": ap}})

    def shown():
        page = (tmp_path / "live.html").read_text()
        return [step for step in (5, 10, 15, 20) if f'alt="image.jpg at step {step}"' in page]

    with open_monitor(0) as monitor:
        assert monitor.best_step() is None
        for step, ap in ((5, 0.25), (10, 0.75), (15, 0.875)):
            evaluate(monitor, step, ap)
        assert monitor.best_step() == 15
    with open_monitor(14) as monitor:
        assert monitor.best_step() == 10
        evaluate(monitor, 15, 0.5)
        evaluate(monitor, 20, 0.75)  # as high, but later
    assert monitor.best_step() == 10
    assert shown() == [5, 10]
    with open_monitor(15, comparable_from=11) as monitor:
        evaluate(monitor, 20, 0.375)
    assert monitor.comparable_ap() == {15: 0.5, 20: 0.375}
    assert monitor.best_step() == 15


def test_tags_are_grouped(make_monitor, tmp_path):
    monitor = make_monitor()
    monitor.count_steps(5, 0.0)
    monitor.report_step(5, VALUES)
    monitor.report_evaluation(5, METRICS)
    monitor.report_images(5, [held_out(30, 20), held_out(7, 9)])
    monitor.report_text("config", "text")
    monitor.close()
    expected = {f"loss/{name}" for name in ("total", "classification", "localization", "l2")}
    expected |= {
        f"train/{name}"
        for name in (
            "positives_per_image",
            "gradient_norm",
            "learning_rate",
            "images_per_second",
            "input_share",
        )
    }
    expected |= {"positives_per_level/4x6", "positives_per_level/2x3"}
    # What is undefined has no curve.
    expected |= {
        "AP/AP",
        "AP/AP50",
        "per_class_AP/red",
        "images/1 image.jpg",
        "images/2 image.jpg",
        "config",
    }
    events = events_of(tmp_path)
    assert set(events) == expected
    assert all(steps == [5] for steps in events.values())
    # TensorBoard shows groups by name.
    groups = sorted({tag.partition("/")[0] for tag in events if "/" in tag} - {"images"})
    assert groups == ["AP", "loss", "per_class_AP", "positives_per_level", "train"]


def test_tensorboard_shows_each_step_once_after_a_restart(make_monitor, tmp_path):
    monitor = make_monitor()
    for step in (1, 2, 3):
        monitor.report_step(step, VALUES)
    monitor.close()
    (first,) = (tmp_path / "tensorboard").iterdir()
    # TensorBoard reads files by their names, which begin with the second.
    first.rename(first.with_name("events.out.tfevents.1000000000.host.1.v2"))
    monitor = make_monitor(start_step=1)
    monitor.report_step(2, VALUES)
    monitor.close()
    assert events_of(tmp_path)["loss/total"] == [1, 2]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the monitor reads, in a list of one."""
    seconds = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: seconds[0])
    return seconds


def test_lines_without_a_terminal(make_monitor, clock, caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        monitor = make_monitor()
        monitor.show_phase("compiling")
        clock[0] = 130.0  # the first call compiles: its step is not counted
        monitor.restart_clock()
        monitor.report_step(1, VALUES)
        clock[0] = 132.0
        monitor.count_steps(4, 0.5)
        monitor.report_step(5, VALUES)
        monitor.report_evaluation(5, METRICS, "(a note)")
        monitor.count_steps(4, 0.5)  # the time left is told once
        monitor.close()
    losses = "loss 12.346 (class 8.125, box 4.250)  lr 0.001"
    assert caplog.messages == [
        "compiling",
        f"step 1/20  8 images  pass 0.2 of 5  {losses}",
        # 4 steps in 2 s: 15 steps of .5 s are left; two evaluations have not been timed.
        "time left: about 8 s (0.5 s per step), plus 2 evaluations",
        # 5 steps of 8 images are 1.25 passes over 32 images; it waited for .5 of 2 s.
        f"step 5/20  40 images  pass 1.2 of 5  8 s left  {losses}  16.0 images/s  input 25%",
        "step 5  AP 0.500  AP50 0.625  (a note)",
    ]


def test_the_bar_of_a_terminal(make_monitor, clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monitor = make_monitor(console=console)
    monitor.show_phase("compiling")
    monitor.restart_clock()
    clock[0] = 104.0
    monitor.count_steps(10, 1.0)
    monitor.report_step(10, VALUES)
    clock[0] = 107.0  # an evaluation takes 3 s, another follows
    monitor.report_evaluation(10, METRICS)
    monitor.restart_clock()
    clock[0] = 108.0
    monitor.count_steps(1, 0.0)
    monitor.report_step(11, VALUES)
    monitor.close()
    text = console.file.getvalue()
    assert "compiling" in text
    assert "80 images  pass 2.5 of 5  4 s left  loss 12.35  input 25%" in text
    assert "step 10  AP 0.500  AP50 0.625\n" in text
    # 11 steps in 5 s: 9 steps take 4.1 s, and the evaluation 3 s.
    assert "88 images  pass 2.8 of 5  7 s left  AP 0.500  loss 12.35" in text
    lines = text.replace("\r", "\n").split("\n")
    assert max(len(line.replace("\x1b[2K", "")) for line in lines) <= 80


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "finished"),
        (Interrupted(15, "end <of> it"), "stopped after step 5: end &lt;of&gt; it"),
        (KeyboardInterrupt(), "stopped after step 5: KeyboardInterrupt"),
        (ValueError("the loss"), "failed after step 5: the loss"),
    ],
)
def test_the_page_says_how_a_run_ended(tmp_path, tiny_config, error, state):
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    plan = Plan(20, 8, 32, 10)
    console = Console(file=io.StringIO())
    with expected, Monitor(tmp_path, plan, 0, ["4x6", "2x3"], console, tiny_config) as monitor:
        monitor.show_phase("compiling")
        assert ": compiling</title>" in (tmp_path / "live.html").read_text()
        monitor.restart_clock(5)
        if error:
            raise error
    assert f": {state}</title>" in (tmp_path / "live.html").read_text()


@pytest.mark.parametrize("text", ["", "5", "5:", "0:3", "4:3", "3:21", "a:b", "3:4:5"])
def test_profile_steps_that_cannot_be_used(text):
    with pytest.raises(ConfigError, match=r"--profile_steps: expected A:B with 1 <= A <= B <= 20"):
        Profiler.parse(text, 20, None)


def test_the_profiled_steps(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("tensorflow.profiler.experimental.start", lambda path: calls.append(path))
    monkeypatch.setattr("tensorflow.profiler.experimental.stop", lambda: calls.append("stop"))
    profiler = Profiler.parse("3:5", 20, tmp_path)
    for step, end in ((0, 2), (2, 4), (4, 5), (5, 8)):
        with profiler.watch(step, end):
            calls.append((step, end))
    folder = str(tmp_path)
    assert calls == [(0, 2), folder, (2, 4), (4, 5), "stop", (5, 8)]


def test_a_run_that_resumes_among_the_profiled_steps_has_no_profile(tmp_path):
    profiler = Profiler.parse("3:5", 20, tmp_path)
    with profiler.watch(3, 5):  # the profiler would raise if it was stopped
        pass
    assert list(tmp_path.iterdir()) == []


def test_floats_are_exact(make_monitor, tmp_path):
    monitor = make_monitor()
    loss = float(np.float32(1 / 3))
    monitor.report_step(1, VALUES | {"loss": loss})
    monitor.close()
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert row["loss"] == "0.33333334"
    assert np.float32(row["loss"]) == np.float32(loss)


def test_input_that_was_not_measured_has_no_share(make_monitor, tmp_path):
    monitor = make_monitor()
    monitor.count_steps(5, float("nan"))
    monitor.report_step(5, VALUES)
    monitor.close()
    events = events_of(tmp_path)
    assert "train/images_per_second" in events
    assert "train/input_share" not in events
