"""Workers that were started differently are told so, before they train."""

import types

import pytest
import tensorflow as tf

from ssd_tf.config import check_config
from ssd_tf.data.dataset_json import read_dataset
from ssd_tf.errors import ConfigError
from ssd_tf.training import distribution, restart

ADDRESSES = ("a:1", "b:2", "c:3")


def strategy_of(worker, count):
    cluster = tf.train.ClusterSpec({"worker": list(ADDRESSES[:count])})
    resolver = types.SimpleNamespace(
        task_type="worker", task_id=worker, cluster_spec=lambda: cluster
    )
    return types.SimpleNamespace(cluster_resolver=resolver)


@pytest.fixture
def compare(toy_config, tiny_data, monkeypatch):
    """A function: what the last worker is told when each was started with these arguments.

    workers: dicts with values of sections, and records, profile_steps, version.
    """

    def send(
        strategy,
        texts,
        records=tiny_data,
        profile_steps=None,
        version="1.0",
        resumes=False,
        init_from=None,
        **sections,
    ):
        config = toy_config().model_dump(mode="json")
        for name, values in sections.items():
            config[name] = {**config[name], **values}
        config = check_config(config, "worker").model_copy(update={"init_from": init_from})
        dataset_info = read_dataset(records)
        state = restart.make_state(config, dataset_info)

        def gather_texts(_strategy, text):
            texts.append(text)
            return texts

        monkeypatch.setattr(distribution, "gather_texts", gather_texts)
        monkeypatch.setattr(restart, "__version__", version)
        restart.check_agreement(strategy, config, dataset_info, state, resumes, profile_steps)

    def run(*workers):
        texts = []
        for index, arguments in enumerate(workers):
            send(strategy_of(index, len(workers)), texts, **arguments)

    return run


def test_one_worker_asks_nobody(toy_config):
    strategy = types.SimpleNamespace(cluster_resolver=None)
    restart.check_agreement(strategy, toy_config(), None, None)


@pytest.mark.parametrize("count", [2, 3])
def test_equal_workers(compare, count):
    compare(*[{"profile_steps": "1:2"}] * count)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"watch": {"images": 2, "log_every": 7}}),
        ({}, {"export": {"score_threshold": 0.5}}),
        ({"train": {"steps_per_call": 5}}, {"train": {"steps_per_call": 5}}),
    ],
)
def test_what_may_differ(compare, first, second):
    compare(first, second)


CALLS = {"train": {"steps_per_call": 5}}
DIFFERENT = [
    ({}, {"train": {"learning_rate": 0.01}}, "train.learning_rate is 0.05 on a:1 and 0.01 on b:2"),
    ({}, {"train": {"seed": 3}}, "train.seed is 0 on a:1 and 3 on b:2"),
    ({"train": {"clip_norm": 1}}, {}, "train.clip_norm is 1.0 on a:1 and none on b:2"),
    ({}, {"loss": {"box_loss": "giou"}}, "loss.box_loss is smooth_l1 on a:1 and giou on b:2"),
    ({}, {"eval": {"every": 3}}, "eval.every is none on a:1 and 3 on b:2"),
    ({}, {"data": {"augment": "light"}}, "data.augment.preset is none on a:1 and light on b:2"),
    (CALLS, {**CALLS, "watch": {"log_every": 9}}, "watch.log_every is 1 on a:1 and 9 on b:2"),
    ({"profile_steps": "2:3"}, {}, "--profile_steps is 2:3 on a:1 and none on b:2"),
]


@pytest.mark.parametrize(("first", "second", "message"), DIFFERENT)
def test_other_settings(compare, first, second, message):
    with pytest.raises(ConfigError) as caught:
        compare(first, second)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_worker_that_differs_is_named(compare):
    with pytest.raises(ConfigError, match=r"train\.seed is 0 on a:1 and 3 on c:3; start"):
        compare({}, {}, {"train": {"seed": 3}})


def test_other_records(compare, make_data):
    other = make_data("other", train=[1, 0, 2, 3, 4, 5], val=[0, 1, 3, 4])
    with pytest.raises(ConfigError) as caught:
        compare({}, {"records": other})
    assert "the split 'train' is 6 images with the checksum " in str(caught.value)
    assert "the split 'val'" not in str(caught.value)


def test_other_validation_records(compare, make_data):
    other = make_data("other", train=range(6), val=[0, 1, 3])
    with pytest.raises(ConfigError, match=r"the split 'val' is 4 images .* and 3 images"):
        compare({}, {"records": other})


def test_the_same_records_elsewhere(compare, make_data):
    compare({}, {"records": make_data("copy", train=range(6), val=[0, 1, 3, 4])})


def test_another_version(compare):
    with pytest.raises(ConfigError, match=r"the version of ssd_tf is 1\.0 on a:1 and 1\.1 on b:2"):
        compare({}, {"version": "1.1"})


def test_texts_of_any_length_come_back(monkeypatch):
    """Of two replicas; the text has characters of several bytes."""

    def gathering(_strategy):
        return lambda numbers: tf.concat([numbers, numbers], 0)

    monkeypatch.setattr(distribution, "_gathering", gathering)
    for text in ("", "{}", "Größe 人"):
        assert distribution.gather_texts(None, text) == [text, text]


def test_the_weights_that_training_starts_from(compare, tmp_path):
    """Their contents count, not their paths; after a restart neither."""
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    first, same, other, missing = (
        {"init_from": str(tmp_path / name)} for name in ("a", "b", "c", "d")
    )
    compare(first, same)
    with pytest.raises(ConfigError, match=r"init_from is the checksum \w+ on a:1 and the checksum"):
        compare(first, other)
    with pytest.raises(ConfigError, match=r"init_from is the checksum \w+ on a:1 and unreadable"):
        compare(first, missing)
    compare(*({**worker, "resumes": True} for worker in (first, other)))
