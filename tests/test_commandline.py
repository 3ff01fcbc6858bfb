import gc
import importlib
import shlex
import signal
import sys

import pytest
from absl import flags

from ssd_tf import commandline, errors, long_tasks, model_flags
from ssd_tf.errors import ConfigError

USAGE = "Do it.\n\n  do --name NAME"


@pytest.fixture
def do():
    values = commandline.new_flags()
    flags.DEFINE_string("name", None, "A name.", flag_values=values)
    flags.DEFINE_integer("count", 3, "A number.", flag_values=values)
    flags.DEFINE_multi_string("set", [], "Many.", flag_values=values)
    flags.DEFINE_list("formats", ["a", "b"], "A list.", flag_values=values)
    flags.DEFINE_string("runner", "", "None.", flag_values=values)

    def call(main, *argv, required=()):
        return commandline.run(main, values, USAGE, required, ["do", *argv])

    return call


def refuse(error):
    def main(_values, _positional):
        raise error

    return main


def test_help_prints_usage_and_flags_and_runs_nothing(do, capsys):
    assert do(refuse(RuntimeError("called")), "--help", required=("name",)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Do it.")
    assert "--name: A name.\n" in out
    assert "--count: A number. (default: 3)" in out
    assert "--formats: A list. (default: a,b)" in out
    assert "--runner: None.\n" in out
    assert err == ""


def test_flags_and_positional_arguments_arrive(do):
    seen = []

    def main(values, positional):
        seen.append((values.name, values.count, positional))

    assert do(main, "--name", "x", "a", "--count=4", "b") == 0
    assert seen == [("x", 4, ["a", "b"])]


def test_a_second_call_forgets_the_flags_of_the_first(do):
    seen = []

    def main(values, _positional):
        seen.append((values.name, values.count, values.set))

    do(main, "--name=x", "--count=4", "--set=a=1")
    do(main)
    assert seen == [("x", 4, ["a=1"]), (None, 3, [])]


def test_the_exit_code_of_the_command_is_returned(do):
    assert do(lambda _values, _positional: 5) == 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nmae=x"], "Unknown command line flag 'nmae'"),
        (["--name=x", "--count=many"], "count"),
        (["--count=1"], "missing --name"),
        (["--name="], "missing --name"),
    ],
)
def test_wrong_flags_end_with_2(do, capsys, argv, message):
    assert do(refuse(RuntimeError("called")), *argv, required=("name",)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert "--help" in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("train.steps: bad"), 2, "error: train.steps: bad\n"),
        (flags.Error("no image"), 2, "error: no image\n"),
        (ValueError("two\n  lines"), 1, "error: two lines\n"),
        (FileNotFoundError("no file at x"), 1, "error: no file at x\n"),
        (KeyError("boxes"), 1, "error: KeyError: 'boxes' (--traceback shows where)\n"),
        (ValueError(), 1, "error: ValueError\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_are_one_line(do, capsys, error, code, line):
    assert do(refuse(error)) == code
    assert capsys.readouterr() == ("", line)


def test_an_error_after_ctrl_c_is_an_interruption(do, capsys):
    def main(_values, _positional):
        try:
            raise KeyboardInterrupt
        finally:
            _ = None.tracker  # as TensorFlow's clean-up may fail

    assert do(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_traceback_raises_the_error(do):
    with pytest.raises(ValueError, match="here"):
        do(refuse(ValueError("here")), "--traceback")


def test_values_after_set_are_overrides_too():
    values = commandline.new_flags()
    flags.DEFINE_multi_string("set", [], "Replace a value.", flag_values=values)
    seen = []

    def main(values, positional):
        seen.extend(model_flags.read_overrides(values, positional))

    argv = ["command", "--set", "a=1", "b=2", "--set", "c=3"]
    assert commandline.run(main, values, "usage", argv=argv) == 0
    assert sorted(seen) == ["a=1", "b=2", "c=3"]
    assert commandline.run(main, values, "usage", argv=["command", "--set", "a=1", "b"]) == 2


def test_help_leaves_out_the_advice_of_absl(capsys):
    values = commandline.new_flags()
    flags.DEFINE_multi_string("set", [], "Replace a value.", flag_values=values)
    assert commandline.run(lambda *_: 0, values, "usage", argv=["command", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  --set: Replace a value." in lines


def test_a_signal_that_is_ignored_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with long_tasks.end_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(errors.Interrupted, match="SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_is_one_line_and_its_exit_code(capsys, number, code):
    def main(_values, _positional):
        raise errors.Interrupted(number, "stopped at step 5", "run it again")

    assert commandline.run(main, commandline.new_flags(), "usage", argv=["command"]) == code
    assert capsys.readouterr().err == "stopped at step 5; run it again\n"


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), errors.Interrupted(signal.SIGINT, "stopped at step 5")]
)
def test_a_larger_command_reports_the_signal_itself(do, capsys, raised):
    with commandline.as_part(), pytest.raises(errors.Interrupted) as caught:
        do(refuse(raised))
    assert caught.value.exit_code == 130
    assert capsys.readouterr() == ("", "")


def test_next_commands_are_left_out_inside_a_larger_command(capsys):
    with commandline.as_part():
        commandline.print_next(["ssd", "train"])
    assert capsys.readouterr().out == ""
    commandline.print_next(["ssd", "train"])
    assert "ssd train" in capsys.readouterr().out


def test_next_commands_can_be_pasted(capsys):
    commandline.print_next()
    assert capsys.readouterr().out == ""
    commandline.print_next(["ssd", "inspect", "my data"], ["ssd", "train", "--data", "it's"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split(": ", 1)[1] == "ssd inspect 'my data'"
    assert shlex.split(second.split(": ", 1)[1]) == ["ssd", "train", "--data", "it's"]


@pytest.fixture
def load(monkeypatch, tmp_path):
    """A function: run the code in place of TensorFlow; the list grows with each gc.freeze."""
    frozen = []
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(commandline.processor, "avoid_slow_fusions", lambda _: None)
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))

    def import_code(code):
        monkeypatch.setitem(sys.modules, "tensorflow", None)  # to be restored
        monkeypatch.delitem(sys.modules, "tensorflow")
        (tmp_path / "tensorflow.py").write_text(code)
        importlib.invalidate_caches()
        commandline.import_tensorflow()
        return frozen

    yield import_code
    gc.enable()


LOADED = """
import gc, types
was_collected = gc.isenabled()
config = types.SimpleNamespace(list_physical_devices=lambda: [])
"""


@pytest.mark.parametrize("is_on", [True, False])
def test_a_user_keeps_the_garbage_collector(load, is_on):
    if not is_on:
        gc.disable()
    assert load(LOADED) == []
    assert not sys.modules["tensorflow"].was_collected
    assert gc.isenabled() is is_on


def test_the_garbage_collector_is_on_after_a_failed_import(load):
    with pytest.raises(ImportError, match="broken"):
        load("raise ImportError('broken')")
    assert gc.isenabled()


def test_a_command_collects_no_garbage_of_tensorflow(do, load):
    frozen = []

    def main(_values, _positional):
        frozen.extend(load(LOADED))

    assert do(main) == 0
    assert (frozen, gc.isenabled()) == ([False], True)
    with commandline.as_part():  # of a program that calls ssd_tf.quickstart
        assert do(lambda *_: load(LOADED) and None) == 0
    assert len(load(LOADED)) == 1
