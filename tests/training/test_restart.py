import pytest

from ssd_tf.config import check_config, load_config
from ssd_tf.data.dataset_json import read_dataset
from ssd_tf.training import restart


def test_differences_are_named_by_their_path(toy_config):
    old = toy_config(learning_rate=0.5)
    new = check_config({**old.model_dump(), "boxes": {"levels": [{"size": 20}]}}, "new")
    new = new.model_copy(update={"init_from": "other"})
    assert restart.config_differences(old, old) == []
    found = {(path, before) for path, before, _ in restart.config_differences(old, new)}
    assert found == {("init_from", None), ("boxes.preset", "paper"), ("boxes.levels", None)}


def test_settings_are_written_atomically(toy_config, tiny_data, blue_first, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    restart.write_settings(toy_config(steps=3), read_dataset(tiny_data), workdir)
    names = {"dataset.json", "config.yaml"}
    before = {name: (workdir / name).read_bytes() for name in names}
    assert before["dataset.json"] == (tiny_data / "dataset.json").read_bytes()
    assert load_config(workdir / "config.yaml") == toy_config(steps=3)

    def fail(*_paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        restart.write_settings(toy_config(steps=4), read_dataset(blue_first), workdir)
    assert {name: (workdir / name).read_bytes() for name in names} == before
