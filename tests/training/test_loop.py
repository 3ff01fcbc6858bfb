"""The training loop: checkpoints, evaluations, reports, resuming, divergence, signals."""

import contextlib
import dataclasses
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.draw import HeldOut
from ssd_tf.errors import Interrupted
from ssd_tf.training.live_page import read_evaluations
from ssd_tf.training.loop import DivergedError, Loop
from ssd_tf.training.monitor import Monitor, read_metrics
from ssd_tf.training.restart import RunState, read_state
from ssd_tf.training.state import attach_training
from ssd_tf.weights import run_files, runs


@pytest.fixture(autouse=True)
def eager_steps(request):
    """Steps run op by op, as it takes a second to compile them, but in tests with `compiled`."""
    tf.config.run_functions_eagerly("compiled" not in request.fixturenames)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled():
    """For tests of what TensorFlow makes of steps, and not only of what happens between them."""


@pytest.fixture
def make_loop(toy_state, toy_batches, tmp_path):
    """A function: the Loop of a run of the toy network in tmp_path / name.

    evaluate: a function of the TrainState that returns AP; evaluate_every: steps.
    """

    def make(config, name="run", evaluate=None, evaluate_every=100, make_dataset=toy_batches):
        workdir = tmp_path / name
        workdir.mkdir(exist_ok=True)
        state = toy_state(config)

        def measure():
            ap = evaluate(state)
            return {"coco": {"AP": ap, "AP50": ap, "AP75": ap}, "voc": {}, "per_class": {}}, []

        has_state = (workdir / "state.json").exists()
        return Loop(
            config=config,
            state=state,
            workdir=workdir,
            run_state=read_state(workdir) if has_state else RunState("records", {}),
            make_dataset=make_dataset,
            num_images=10,
            evaluate=measure if evaluate else None,
            evaluate_every=evaluate_every,
            name_images=lambda step: [f"a{step}", f"b{step}"],
        )

    return make


@pytest.fixture
def train(make_loop):
    return lambda *args, **kwargs: make_loop(*args, **kwargs).run()


def last_prefixes(folder):
    return run_files.list_checkpoints(folder / "checkpoints" / "last")


def last_steps(folder):
    return [run_files.step_of(prefix) for prefix in last_prefixes(folder)]


def last_arrays(folder):
    return runs.read_arrays(last_prefixes(folder)[0])


def metrics_of(folder, column):
    return [row[column] for row in read_metrics(folder / "metrics.csv")]


def assert_same_run(folder, expected):
    """The same bytes in metrics.csv, and the same bits in the last checkpoint."""
    assert (folder / "metrics.csv").read_bytes() == (expected / "metrics.csv").read_bytes()
    arrays = last_arrays(folder)
    expected_arrays = last_arrays(expected)
    assert arrays.keys() == expected_arrays.keys()
    for key, value in expected_arrays.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(arrays[key], value, key)


def constant_ap(_state):
    return 0.5


@pytest.mark.usefixtures("compiled")
def test_a_stopped_run_resumes_as_if_it_had_not_been_stopped(train, toy_config, tmp_path):
    config = toy_config(checkpoint_every=2, ema=0.5, weight_decay=0.01)

    def stop(_state):
        raise KeyboardInterrupt

    train(config, "straight", constant_ap, 3)
    with pytest.raises(KeyboardInterrupt):
        train(config, "stopped", stop, 3)
    # What was computed is saved before it is evaluated.
    assert last_steps(tmp_path / "stopped") == [3, 2]
    train(config, "stopped", constant_ap, 3)
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")
    assert metrics_of(tmp_path / "stopped", "step") == ["1", "2", "3", "4", "5", "6"]
    assert metrics_of(tmp_path / "stopped", "AP") == ["", "", "0.5", "", "", "0.5"]
    assert last_steps(tmp_path / "stopped") == [6, 4]


@pytest.mark.usefixtures("compiled")
def test_several_steps_per_call_are_the_same_steps(train, toy_config, tmp_path):
    train(toy_config(checkpoint_every=5), "one", constant_ap, 3)
    train(toy_config(checkpoint_every=5, steps_per_call=4), "four", constant_ap, 3)
    assert_same_run(tmp_path / "four", tmp_path / "one")


@pytest.mark.usefixtures("compiled")
def test_the_strategy_of_a_single_gpu_trains_the_same(
    make_loop, train, toy_config, toy_network, tmp_path
):
    """Here on a CPU: batches are copied ahead to the device."""
    config = toy_config(ema=0.5, checkpoint_every=4)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    loop = make_loop(config, "device", constant_ap, 3)
    with strategy.scope():
        network = toy_network()
    state = attach_training(config, network, strategy)
    dataclasses.replace(loop, state=state).run()
    train(config, "default", constant_ap, 3)
    assert_same_run(tmp_path / "device", tmp_path / "default")


def test_a_finished_run_does_nothing(train, toy_config, tmp_path):
    config = toy_config(steps=2)
    train(config, evaluate=constant_ap)
    before = last_arrays(tmp_path / "run")

    def fail(*_):
        raise AssertionError("neither a batch nor an evaluation is needed")

    train(config, evaluate=fail, make_dataset=fail)
    assert metrics_of(tmp_path / "run", "step") == ["1", "2"]
    assert last_arrays(tmp_path / "run").keys() == before.keys()


def test_a_last_evaluation_that_failed_is_made_up_for(train, toy_config, tmp_path):
    def fail(_state):
        raise ValueError("an image cannot be decoded")

    config = toy_config(steps=2)
    with pytest.raises(ValueError, match="cannot be decoded"):
        train(config, evaluate=fail)
    assert last_steps(tmp_path / "run") == [2]
    assert metrics_of(tmp_path / "run", "AP") == ["", ""]
    train(config, evaluate=constant_ap)
    assert metrics_of(tmp_path / "run", "AP") == ["", "0.5"]
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-2")


def test_the_weights_of_another_run_are_evaluated_first_and_kept_if_nothing_is_better(
    train, toy_config, tmp_path
):
    aps = iter([0.6, 0.4, 0.5])
    config = toy_config(steps=4).model_copy(update={"init_from": "another run"})
    train(config, evaluate=lambda _: next(aps), evaluate_every=2)
    assert metrics_of(tmp_path / "run", "step") == ["0", "1", "2", "3", "4"]
    assert metrics_of(tmp_path / "run", "AP") == ["0.6", "", "0.4", "", "0.5"]
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-0")
    train(config, evaluate=lambda _: next(aps), evaluate_every=2)  # nothing is left to evaluate


def test_the_weights_of_a_backbone_are_not_evaluated_first(train, toy_config, tmp_path):
    config = toy_config(steps=2).model_copy(update={"init_from": "imagenet"})
    train(config, evaluate=constant_ap)
    assert metrics_of(tmp_path / "run", "step") == ["1", "2"]


def test_weights_of_another_run_whose_evaluation_failed_are_evaluated_at_the_next_start(
    train, toy_config, tmp_path
):
    config = toy_config(steps=2).model_copy(update={"init_from": "another run"})

    def fail(_state):
        raise ValueError("an image cannot be decoded")

    with pytest.raises(ValueError, match="cannot be decoded"):
        train(config, evaluate=fail, evaluate_every=1)
    assert last_steps(tmp_path / "run") == [0]
    train(config, evaluate=constant_ap, evaluate_every=1)
    assert metrics_of(tmp_path / "run", "AP") == ["0.5", "0.5", "0.5"]
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-0")


def test_the_learning_rate_follows_the_schedule(train, toy_config, tmp_path):
    train(toy_config(steps=5, learning_rate=0.4, warmup_steps=2, warmup_from=0.5, decay_steps=(4,)))
    rates = [float(rate) for rate in metrics_of(tmp_path / "run", "learning_rate")]
    np.testing.assert_allclose(rates, [0.2, 0.3, 0.4, 0.4, 0.04], rtol=1e-5)


@pytest.fixture
def poisoned(changed_batches):
    """make_dataset in which the images of step 4 are not numbers."""
    return changed_batches(
        lambda index, images, targets: (images * (np.nan if index == 3 else 1), targets)
    )


@pytest.mark.parametrize(("log_every", "steps_per_call"), [(1, 1), (100, 1), (100, 5)])
def test_a_loss_that_is_not_finite_stops_the_run(
    train, toy_config, poisoned, tmp_path, log_every, steps_per_call
):
    config = toy_config(checkpoint_every=2, log_every=log_every, steps_per_call=steps_per_call)
    message = (
        r"^the loss has diverged at step 4 \(loss nan, classification nan, .*\); "
        r"images of this batch: a4, b4\. Lower train.learning_rate \(now 0.05\), warm up longer or "
        r"set train.clip_norm, and run the command again: it resumes from step 2$"
    )
    with pytest.raises(DivergedError, match=message):
        train(config, make_dataset=poisoned)
    assert last_steps(tmp_path / "run") == [2]
    assert read_state(tmp_path / "run").diverged_step == 4


def test_the_checkpoint_before_a_divergence_is_not_trusted(train, toy_config, poisoned, tmp_path):
    """Its weights are finite, but the next loss is not."""
    config = toy_config(checkpoint_every=1)
    with pytest.raises(DivergedError, match="resumes from step 2"):
        train(config, make_dataset=poisoned)
    assert last_steps(tmp_path / "run") == [2]


def test_a_loss_may_diverge_and_stay_finite(train, toy_config, changed_batches, tmp_path):
    """Offsets of 1e7 in the targets of step 3 are as good as a prediction of them."""

    def spoil(index, images, targets):
        return images, targets | {"offsets": targets["offsets"] * (1e7 if index == 2 else 1)}

    message = r"^the loss has diverged at step 3 \(loss \d\.\d+e\+0[67], .* resumes from step 1$"
    with pytest.raises(DivergedError, match=message):
        train(toy_config(checkpoint_every=1), make_dataset=changed_batches(spoil))
    assert last_steps(tmp_path / "run") == [1]


EXPLODING = {"learning_rate": 1e25, "warmup_steps": 1, "warmup_from": 0.0, "bn": "frozen"}


def test_weights_that_exploded_are_not_saved(train, toy_config, tmp_path):
    """The first update has a rate of 0, the second one of 1e25."""
    config = toy_config(steps=2, checkpoint_every=1, **EXPLODING)
    message = r"have diverged after step 2 \(.* has a value of .*e\+.*it resumes from step 1$"
    with pytest.raises(DivergedError, match=message):
        train(config, evaluate=constant_ap)
    assert last_steps(tmp_path / "run") == [1]
    assert not (tmp_path / "run" / "checkpoints" / "best" / "ckpt-2.index").exists()


def test_without_any_checkpoint_it_says_so(train, toy_config, tmp_path):
    config = toy_config(steps=2, checkpoint_every=2, **EXPLODING)
    with pytest.raises(DivergedError, match="no checkpoint yet, so it starts from scratch"):
        train(config, evaluate=constant_ap)
    assert last_steps(tmp_path / "run") == []


def test_the_last_update_is_checked_by_another_batch(train, toy_config, changed_batches, tmp_path):
    """Here no weight betrays the divergence; the images of the next batch do."""

    def spoil(index, images, targets):
        return images * (np.inf if index == 2 else 1), targets

    message = r"has diverged after step 2 \(loss [\d.]+ before that update, nan after it\)"
    with pytest.raises(DivergedError, match=message):
        train(toy_config(steps=2, checkpoint_every=1), make_dataset=changed_batches(spoil))
    assert last_steps(tmp_path / "run") == [1]


def test_a_run_is_rescued_with_a_lower_rate(train, toy_config, tmp_path):
    config = toy_config(steps=3, checkpoint_every=1, **EXPLODING)
    with pytest.raises(DivergedError):
        train(config)
    lower = toy_config(steps=3, checkpoint_every=1, **{**EXPLODING, "learning_rate": 0.01})
    train(lower)
    assert metrics_of(tmp_path / "run", "step") == ["1", "2", "3"]
    assert last_steps(tmp_path / "run") == [3, 2]
    assert read_state(tmp_path / "run").diverged_step is None


def test_evaluation_gets_averaged_weights_and_training_resumes_with_the_raw_ones(
    train, toy_config, tmp_path
):
    seen = []

    def evaluate(state):
        model = state.network.model
        seen.append({variable.path: variable.numpy() for variable in model.variables})
        return 0.5

    config = toy_config(steps=4, ema=0.5)
    train(config, "evaluated", evaluate, 2)
    train(config, "plain")
    assert len(seen) == 2
    prefix = last_prefixes(tmp_path / "evaluated")[0]
    averaged = runs.read_weights(prefix)
    raw = runs.read_weights(prefix, averaged=False)
    assert np.abs(averaged["bn/moving_mean"] - raw["bn/moving_mean"]).max() > 1e-3
    for path, value in seen[1].items():
        np.testing.assert_array_equal(value, averaged[path], path)
    assert metrics_of(tmp_path / "evaluated", "loss") == metrics_of(tmp_path / "plain", "loss")


def test_best_has_the_highest_ap(train, toy_config, tmp_path):
    ap = {2: 0.4, 4: 0.7, 6: 0.6}
    train(toy_config(), evaluate=lambda state: ap[int(state.step)], evaluate_every=2)
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-4")
    assert metrics_of(tmp_path / "run", "AP") == ["", "0.4", "", "0.7", "", "0.6"]


def test_best_of_an_earlier_evaluation_is_not_compared(make_loop, toy_config, tmp_path):
    make_loop(toy_config(steps=2), evaluate=lambda _: 0.9).run()
    loop = make_loop(toy_config(steps=4), evaluate=lambda _: 0.3)
    loop.run_state.comparable_from = 3  # as check_restart finds
    loop.run()
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-4")


def test_the_images_of_an_evaluation_that_was_cut_off_are_drawn_again(
    make_loop, toy_config, tmp_path, monkeypatch
):
    """Between its images and its AP: whichever came first, both are there at the end."""
    drawn = [HeldOut("a.jpg", Image.new("RGB", (30, 20)), Image.new("RGB", (30, 20)))]
    metrics = {"coco": {"AP": 0.5}, "voc": {}, "per_class": {}}

    def run():
        loop = make_loop(toy_config(steps=2), evaluate=constant_ap)
        loop.evaluate = lambda: (metrics, drawn)
        loop.run()

    def kill(*_args):
        raise KeyboardInterrupt

    for name in ("report_images", "report_evaluation"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Monitor, name, kill)
            run()
    run()
    assert metrics_of(tmp_path / "run", "AP") == ["", "0.5"]
    assert [each["step"] for each in read_evaluations(tmp_path / "run")] == [2]


def test_a_copy_to_best_that_was_missed_is_made_up_for(train, toy_config, tmp_path):
    config = toy_config(steps=2)
    train(config, evaluate=constant_ap)
    best = tmp_path / "run" / "checkpoints" / "best"
    for path in best.iterdir():
        path.unlink()
    train(config, evaluate=constant_ap)
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-2")


def test_without_evaluation_there_is_no_best(train, toy_config, tmp_path):
    train(toy_config(steps=1))
    assert runs.find_checkpoint(tmp_path / "run").endswith("last/ckpt-1")


@pytest.fixture
def patient_config(toy_config):
    """Stops after two evaluations without a better AP."""
    config = toy_config(steps=12)
    return config.model_copy(update={"eval": config.eval.model_copy(update={"patience": 2})})


def test_early_stopping(train, patient_config, tmp_path):
    ap = {2: 0.4, 4: 0.7, 6: 0.7, 8: 0.6}
    train(patient_config, evaluate=lambda state: ap[int(state.step)], evaluate_every=2)
    assert last_steps(tmp_path / "run")[0] == 8
    assert runs.find_checkpoint(tmp_path / "run").endswith("best/ckpt-4")
    train(patient_config, evaluate=lambda state: ap[int(state.step)], evaluate_every=2)
    assert last_steps(tmp_path / "run")[0] == 8


@pytest.fixture
def signal_at(monkeypatch):
    """A function: inside `with`, the report of this step sends a signal to this process."""

    @contextlib.contextmanager
    def install(step, number):
        report_step = Monitor.report_step

        def report(self, reported, values):
            report_step(self, reported, values)
            if reported == step:
                os.kill(os.getpid(), number)

        with monkeypatch.context() as patch:
            patch.setattr(Monitor, "report_step", report)
            yield

    return install


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends(train, toy_config, signal_at, tmp_path, number, code):
    config = toy_config()
    before = signal.getsignal(number)
    message = "stopped at step 3, which is saved"
    with signal_at(3, number), pytest.raises(Interrupted, match=message) as caught:
        train(config, "stopped")
    assert caught.value.exit_code == code
    assert last_steps(tmp_path / "stopped") == [3]
    assert signal.getsignal(number) is before
    train(config, "stopped")
    train(config, "straight")
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


def test_a_corrupt_checkpoint_is_gone_after_the_restart(train, toy_config, signal_at, tmp_path):
    """Otherwise it would count as one of the two to keep."""
    config = toy_config(checkpoint_every=2)
    train(config)
    newest = tmp_path / "run" / "checkpoints" / "last" / "ckpt-6.index"
    newest.write_bytes(newest.read_bytes()[:50])
    with signal_at(5, signal.SIGTERM), pytest.raises(Interrupted, match="stopped at step 5"):
        train(config)
    assert last_steps(tmp_path / "run") == [5, 4]


def test_a_signal_during_an_evaluation_ends_it_at_once(train, toy_config, tmp_path):
    def interrupt(_state):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the evaluation should not go on")

    with pytest.raises(Interrupted, match="everything is saved"):
        train(toy_config(steps=3), evaluate=interrupt)
    assert last_steps(tmp_path / "run") == [3]


def test_a_signal_before_an_evaluation_leaves_it_to_the_next_start(
    train, toy_config, signal_at, tmp_path
):
    with signal_at(3, signal.SIGTERM), pytest.raises(Interrupted):
        train(toy_config(steps=3), evaluate=constant_ap)
    assert metrics_of(tmp_path / "run", "AP") == ["", "", ""]
    train(toy_config(steps=3), evaluate=constant_ap)
    assert metrics_of(tmp_path / "run", "AP") == ["", "", "0.5"]


@pytest.mark.usefixtures("compiled")
def test_the_l2_penalty_is_that_of_the_layers_that_are_trained(make_loop, toy_config, tmp_path):
    """Half the decay times the squares of all kernels, of which one is frozen."""
    loop = make_loop(toy_config(steps=2, weight_decay=0.1, learning_rate=1e-6))
    model = loop.state.network.model
    model.get_layer("conv").trainable = False
    kernels = [model.get_layer(name).kernel.numpy() for name in ("offsets", "logits")]
    penalty = 0.05 * sum(float(np.square(kernel).sum()) for kernel in kernels)
    loop.run()
    found = [float(value) for value in metrics_of(tmp_path / "run", "l2")]
    np.testing.assert_allclose(found, [penalty, penalty], rtol=1e-3)


@pytest.mark.usefixtures("compiled")
def test_the_speed_leaves_out_the_compilation(make_loop, toy_config, monkeypatch):
    calls = []
    for name in ("count_steps", "restart_clock"):
        monkeypatch.setattr(Monitor, name, noting(getattr(Monitor, name), name, calls))
    make_loop(toy_config(steps=2, log_every=100)).run()
    assert calls == [
        "restart_clock",  # step 1 compiles
        "count_steps",
        "restart_clock",  # the last report
        "restart_clock",  # the last checkpoint
    ]


def noting(method, name, calls):
    def call(self, *arguments):
        calls.append(name)
        return method(self, *arguments)

    return call
