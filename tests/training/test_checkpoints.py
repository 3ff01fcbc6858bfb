import numpy as np
import pytest

from ssd_tf.training.checkpoints import Checkpoints
from ssd_tf.weights import runs


def checkpoints_of(folder, learner):
    return Checkpoints(folder, learner.network.model, learner.optimizer)


def test_state_is_restored(toy_learner, toy_config, tmp_path):
    learner = toy_learner(toy_config())
    checkpoints = checkpoints_of(tmp_path, learner)
    assert not checkpoints.restore_last()
    checkpoints.step.assign(7)
    checkpoints.best_ap.assign(0.25)
    checkpoints.save("last")
    again = checkpoints_of(tmp_path, learner)
    assert again.restore_last()
    assert int(again.step) == 7
    assert float(again.best_ap) == 0.25


def test_weights_are_restored(toy_learner, toy_config, tmp_path):
    saved = toy_learner(toy_config())
    checkpoints_of(tmp_path, saved).save("last")
    other = toy_learner(toy_config(), seed=1)
    assert checkpoints_of(tmp_path, other).restore_last()
    pairs = zip(other.network.model.variables, saved.network.model.variables, strict=True)
    for variable, expected in pairs:
        np.testing.assert_array_equal(variable.numpy(), expected.numpy(), variable.path)


def test_only_the_newest_of_each_name_is_kept(toy_learner, toy_config, tmp_path):
    checkpoints = checkpoints_of(tmp_path, toy_learner(toy_config()))
    for step in (1, 2):
        checkpoints.step.assign(step)
        checkpoints.save("last")
    checkpoints.save("best")
    found = {
        str(path.relative_to(tmp_path / "checkpoints"))
        for path in (tmp_path / "checkpoints").rglob("*.index")
    }
    assert found == {"last/ckpt-2.index", "best/ckpt-2.index"}


def test_a_run_reads_what_was_saved(toy_learner, toy_config, tmp_path):
    model = toy_learner(toy_config()).network.model
    checkpoints_of(tmp_path, toy_learner(toy_config())).save("last")
    weights = runs.read_weights(runs.find_checkpoint(tmp_path))
    assert sorted(weights) == sorted(variable.path for variable in model.variables)
    for variable in model.variables:
        np.testing.assert_array_equal(weights[variable.path], variable.numpy(), variable.path)


def test_averaged_weights_are_in_place_inside_only(toy_learner, toy_config, tmp_path):
    learner = toy_learner(toy_config(ema=0.5))
    kernel = learner.network.model.get_layer("conv").kernel
    raw = kernel.numpy()
    with checkpoints_of(tmp_path, learner).averaged_weights():
        assert not kernel.numpy().any()  # averages are 0 before the first update
    np.testing.assert_array_equal(kernel.numpy(), raw)


def test_raw_weights_return_after_an_error(toy_learner, toy_config, tmp_path):
    learner = toy_learner(toy_config(ema=0.5))
    kernel = learner.network.model.get_layer("conv").kernel
    raw = kernel.numpy()
    averaged_weights = checkpoints_of(tmp_path, learner).averaged_weights()
    with pytest.raises(ValueError, match="no images"), averaged_weights:
        raise ValueError("no images")
    assert raw.any()
    np.testing.assert_array_equal(kernel.numpy(), raw)


def test_without_ema_the_weights_stay(toy_learner, toy_config, tmp_path):
    learner = toy_learner(toy_config())
    kernel = learner.network.model.get_layer("conv").kernel
    raw = kernel.numpy()
    with checkpoints_of(tmp_path, learner).averaged_weights():
        np.testing.assert_array_equal(kernel.numpy(), raw)
