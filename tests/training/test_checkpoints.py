"""Checkpoints: what they hold, which are kept, and what a corrupt one costs."""

import logging
import os
import pathlib
import resource
import shutil
import signal

import numpy as np
import pytest

from ssd_tf.errors import ConfigError
from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.weights import run_files, runs


@pytest.fixture
def checkpoints(tmp_path):
    """A function: the Checkpoints of a state in tmp_path; two of `last` are kept."""
    return lambda state: Checkpoints(tmp_path, state, keep=2)


@pytest.fixture
def saved(toy_state, toy_config, checkpoints):
    """A function: saves these steps, with the step as every bias of the convolution."""

    def save(*steps):
        state = toy_state(toy_config())
        for step in steps:
            state.step.assign(step)
            state.network.model.get_layer("conv").bias.assign(np.full(5, step))
            checkpoints(state).save_last()
        return checkpoints(state)

    return save


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_no_checkpoint(toy_state, toy_config, checkpoints, tmp_path):
    state = toy_state(toy_config())
    assert not checkpoints(state).restore_last()
    assert checkpoints(state).newest_step(100) is None
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path / 'checkpoints'}"):
        runs.find_checkpoint(tmp_path)


def test_the_whole_state_is_restored(toy_state, toy_config, checkpoints):
    config = toy_config(ema=0.5)
    state = toy_state(config)
    state.step.assign(7)
    state.averages.by_path["bn/moving_mean"].assign(np.arange(5.0))
    state.optimizer.variables[2].assign(np.full(state.optimizer.variables[2].shape, 3.0))
    checkpoints(state).save_last()
    other = toy_state(config, seed=1)
    assert checkpoints(other).restore_last()
    assert int(other.step) == 7
    assert other.averages.by_path["bn/moving_mean"].numpy().tolist() == [0, 1, 2, 3, 4]
    for part in ("optimizer", "network"):
        variables = [
            getattr(each, part).variables if part == "optimizer" else each.network.model.variables
            for each in (other, state)
        ]
        for variable, expected in zip(*variables, strict=True):
            np.testing.assert_array_equal(variable.numpy(), expected.numpy(), variable.path)


def test_the_newest_two_are_kept(saved, tmp_path):
    checkpoints = saved(5, 10, 15)
    last = tmp_path / "checkpoints" / "last"
    assert [name for name in names(last) if name.endswith("index")] == [
        "ckpt-10.index",
        "ckpt-15.index",
    ]
    assert [checkpoints.newest_step(step) for step in (9, 10, 14, 15, 99)] == [
        None,
        10,
        10,
        15,
        15,
    ]


def test_best_is_a_copy_of_the_newest(saved, tmp_path):
    saved(5).copy_to_best()
    checkpoints = saved(5, 10)
    checkpoints.copy_to_best()
    best = tmp_path / "checkpoints" / "best"
    assert names(best) == ["ckpt-10.data-00000-of-00001", "ckpt-10.index"]
    weights = runs.read_weights(runs.find_checkpoint(tmp_path))
    assert weights["conv/bias"].tolist() == [10] * 5
    before = (best / "ckpt-10.index").stat().st_mtime_ns
    checkpoints.copy_to_best()
    assert (best / "ckpt-10.index").stat().st_mtime_ns == before


def test_a_run_reads_what_was_saved(toy_state, toy_config, checkpoints, tmp_path):
    state = toy_state(toy_config(ema=0.5))
    kernel = state.network.model.get_layer("conv").kernel
    state.averages.by_path["conv/kernel"].assign(np.full(kernel.shape, 2.0))
    checkpoints(state).save_last()
    prefix = runs.find_checkpoint(tmp_path)
    weights = runs.read_weights(prefix)
    paths = [variable.path for variable in state.network.model.variables]
    assert sorted(weights) == sorted(paths)
    assert (weights["conv/kernel"] == 2).all()
    raw = runs.read_weights(prefix, averaged=False)
    np.testing.assert_array_equal(raw["conv/kernel"], kernel.numpy())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated data": (".data-00000-of-00001", truncate),
    "zeroed data": (".data-00000-of-00001", fill_with_zeros),
    "flipped bit": (".data-00000-of-00001", flip_a_bit),
    "no data": (".data-00000-of-00001", lambda path: path.unlink()),
    "empty data": (".data-00000-of-00001", lambda path: path.write_bytes(b"")),
    "truncated index": (".index", truncate),
    "zeroed index": (".index", fill_with_zeros),
    "empty index": (".index", lambda path: path.write_bytes(b"")),
}


@pytest.mark.parametrize(("suffix", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_corrupt_checkpoint_is_named_and_the_one_before_is_used(
    saved, toy_state, toy_config, checkpoints, tmp_path, caplog, suffix, damage
):
    saved(5, 10)
    last = tmp_path / "checkpoints" / "last"
    damage(last / f"ckpt-10{suffix}")
    state = toy_state(toy_config(), seed=1)
    with caplog.at_level(logging.WARNING):
        assert checkpoints(state).restore_last()
    assert int(state.step) == 5
    assert state.network.model.get_layer("conv").bias.numpy().tolist() == [5] * 5
    (line,) = [message for message in caplog.messages if "corrupt" in message]
    assert line.startswith(f"the checkpoint {last / 'ckpt-10'} is corrupt (")
    assert line.endswith(f"; using {last / 'ckpt-5'} instead")
    assert "\n" not in line
    assert runs.find_checkpoint(tmp_path) == str(last / "ckpt-5")
    checkpoints(state).delete_after(5)
    assert [name for name in names(last) if "10" in name] == []


def test_when_all_are_corrupt_nothing_starts_from_scratch(
    saved, toy_state, toy_config, checkpoints, tmp_path
):
    saved(5, 10)
    for path in (tmp_path / "checkpoints" / "last").glob("*.index"):
        truncate(path)
    message = r"ckpt-10 is corrupt \(.*and none of the 2 can be read; train again, in another"
    with pytest.raises(runs.CorruptCheckpointError, match=message):
        checkpoints(toy_state(toy_config())).restore_last()


def test_a_corrupt_best_is_replaced_by_the_last(saved, tmp_path, caplog):
    saved(5).copy_to_best()
    saved(10)
    truncate(tmp_path / "checkpoints" / "best" / "ckpt-5.index")
    with caplog.at_level(logging.WARNING):
        assert runs.find_checkpoint(tmp_path).endswith("last/ckpt-10")
    assert "best/ckpt-5 is corrupt" in caplog.text


def test_a_checkpoint_of_another_structure_is_rejected(saved, toy_state, toy_config, checkpoints):
    saved(5)
    state = toy_state(toy_config(optimizer="AdamW"))
    with pytest.raises(ConfigError, match=r"ckpt-5 was saved by another version of this package"):
        checkpoints(state).restore_last()


def test_a_full_disk_keeps_the_last_checkpoint(saved, tmp_path):
    checkpoints = saved(5)
    checkpoints._state.step.assign(10)
    before = names(tmp_path / "checkpoints" / "last")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write the checkpoint of step 10") as caught:
            checkpoints.save_last()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value).endswith(
        "free some space there and run the same command again; the checkpoint of step 5 stays"
    )
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "checkpoints" / "last") == before
    checkpoints.save_last()
    assert runs.find_checkpoint(tmp_path).endswith("ckpt-10")


@pytest.mark.parametrize(
    ("layer", "value", "message"),
    [
        ("conv", 5e25, "conv/bias has a value of 5e+25"),
        ("conv", -np.inf, "conv/bias has a value of inf"),
        ("conv", np.nan, "conv/bias has a value of nan"),
        ("conv", 9e9, None),
    ],
)
def test_weights_that_are_not_finite_or_huge(
    toy_state, toy_config, checkpoints, layer, value, message
):
    state = toy_state(toy_config())
    state.network.model.get_layer(layer).bias.assign([0, 0, value, 0, 0])
    assert checkpoints(state).find_bad_variable() == message


def test_statistics_and_momentum_must_be_finite_only(toy_state, toy_config, checkpoints):
    state = toy_state(toy_config())
    variance = state.network.model.get_layer("bn").moving_variance
    variance.assign([0, 0, 1e20, 0, 0])
    assert checkpoints(state).find_bad_variable() is None
    variance.assign([0, 0, np.nan, 0, 0])
    assert checkpoints(state).find_bad_variable() == "bn/moving_variance has a value of nan"


def test_other_files_are_no_checkpoints(saved, tmp_path):
    saved(5)
    last = tmp_path / "checkpoints" / "last"
    shutil.copyfile(last / "ckpt-5.index", last / "ckpt-new.index")
    (last / "ckpt-7_temp").mkdir()
    assert run_files.list_checkpoints(last) == [str(last / "ckpt-5")]


def test_what_is_being_deleted_never_looks_like_a_checkpoint(saved, tmp_path, monkeypatch):
    """A process that ends between the two files leaves data without an index."""
    saved(5, 10)

    def end(path, **_options):
        os.unlink(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "unlink", end)
    with pytest.raises(KeyboardInterrupt):
        saved(15)
    last = tmp_path / "checkpoints" / "last"
    assert "ckpt-5.index" not in names(last)
    assert "ckpt-5.data-00000-of-00001" in names(last)
    steps = [run_files.step_of(prefix) for prefix in run_files.list_checkpoints(last)]
    assert steps == [15, 10]
