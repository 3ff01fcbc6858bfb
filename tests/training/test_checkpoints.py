import numpy as np
import pytest

from ssd_tf.training import checkpoints, trainer


@pytest.fixture
def saved(toy_model, toy_config, tmp_path):
    """A run folder with a last checkpoint, and the model that it was made of."""
    model = toy_model()
    checkpoints.Checkpoints(tmp_path, model, trainer.make_optimizer(toy_config(), model)).save(
        "last"
    )
    return tmp_path, model


def test_weights_come_back_by_path(saved, toy_model):
    folder, model = saved
    weights = checkpoints.read_weights(checkpoints.find_checkpoint(folder))
    assert sorted(weights) == sorted(variable.path for variable in model.variables)
    other = toy_model(seed=1)
    assert not np.array_equal(
        other.get_layer("conv").kernel.numpy(), model.get_layer("conv").kernel.numpy()
    )
    assert checkpoints.assign_weights(other, weights) == []
    for theirs, ours in zip(other.variables, model.variables, strict=True):
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())


def test_state_comes_back(toy_model, toy_config, tmp_path):
    model = toy_model()
    optimizer = trainer.make_optimizer(toy_config(), model)
    state = checkpoints.Checkpoints(tmp_path, model, optimizer)
    assert not state.restore_last()
    state.step.assign(7)
    state.best_ap.assign(0.25)
    state.save("last")
    again = checkpoints.Checkpoints(tmp_path, model, optimizer)
    assert again.restore_last()
    assert (int(again.step), float(again.best_ap)) == (7, 0.25)


def test_best_comes_before_last(saved, toy_config):
    folder, model = saved
    assert checkpoints.find_checkpoint(folder).endswith("last/ckpt-0")
    checkpoints.Checkpoints(folder, model, trainer.make_optimizer(toy_config(), model)).save("best")
    assert checkpoints.find_checkpoint(folder).endswith("best/ckpt-0")


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint under .*checkpoints: train with --workdir"
    ):
        checkpoints.find_checkpoint(tmp_path)


def test_weights_that_do_not_fit_are_named(saved, toy_model):
    folder, model = saved
    weights = checkpoints.read_weights(checkpoints.find_checkpoint(folder))
    weights["logits/kernel"] = np.zeros((1, 1, 5, 21), np.float32)
    del weights["bn/gamma"]
    other = toy_model(seed=1)
    with pytest.raises(
        ValueError,
        match=r"does not fit the model: bn/gamma wants shape \(5,\), the checkpoint has nothing \(2 of",
    ):
        checkpoints.assign_weights(other, weights)
    before = toy_model(seed=1)
    np.testing.assert_array_equal(
        other.get_layer("conv").kernel.numpy(), before.get_layer("conv").kernel.numpy()
    )

    left_out = checkpoints.assign_weights(other, weights, allow_partial=True)
    assert [line.partition(" ")[0] for line in left_out] == ["bn/gamma", "logits/kernel"]
    assert (
        left_out[1]
        == "logits/kernel wants shape (1, 1, 5, 3), the checkpoint has shape (1, 1, 5, 21)"
    )
    np.testing.assert_array_equal(
        other.get_layer("conv").kernel.numpy(), model.get_layer("conv").kernel.numpy()
    )
    np.testing.assert_array_equal(
        other.get_layer("logits").kernel.numpy(), before.get_layer("logits").kernel.numpy()
    )


def test_nothing_fits(toy_model):
    with pytest.raises(ValueError, match="does not fit the model"):
        checkpoints.assign_weights(toy_model(), {"else": np.zeros(3)}, allow_partial=True)
