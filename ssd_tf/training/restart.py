"""The settings of a run in its folder, and whether a command may resume it."""

import dataclasses
import json
import typing

from absl import logging

from ssd_tf import files
from ssd_tf.config import KEYS, Config, PostProcessing, load_run_config, save_config
from ssd_tf.data import dataset_json, shards
from ssd_tf.errors import ConfigError
from ssd_tf.training.monitor import read_metrics
from ssd_tf.weights import runs


class Difference(typing.NamedTuple):
    """A key of two configs with different values."""

    path: str
    old: object
    new: object


@dataclasses.dataclass
class RunState:
    """`state.json` of a run folder: what a restart compares.

    fingerprint: of the training split. evaluation: what AP depends on besides the weights.
    comparable_from: the first step whose AP was measured so. diverged_step: None, or the step at
    which training diverged, until a later checkpoint is saved. num_workers, num_replicas: of the
    last start; None in runs of an earlier version.
    """

    fingerprint: str
    evaluation: dict
    comparable_from: int = 0
    diverged_step: int | None = None
    num_workers: int | None = None
    num_replicas: int | None = None

    def write(self, workdir):
        files.write_json(workdir / "state.json", dataclasses.asdict(self))


def read_state(workdir) -> RunState:
    """Raises ConfigError if the run folder has no readable state.json."""
    path = workdir / "state.json"
    try:
        return RunState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}), so this run cannot be resumed: use another --workdir"
        ) from None


def make_state(config: Config, dataset_info) -> RunState:
    """The state of a run that begins."""
    split = config.data.val_split
    has_val = bool(dataset_info.splits.get(split, {}).get("images"))
    evaluation = {
        "split": split,
        "fingerprint": shards.fingerprint(dataset_info, split) if has_val else None,
        "on_bad_record": config.data.on_bad_record,
        **config.eval.model_dump(mode="json", include=set(PostProcessing.model_fields)),
    }
    return RunState(shards.fingerprint(dataset_info, config.data.train_split), evaluation)


def can_resume(workdir) -> bool:
    """Whether the run folder has a checkpoint, sound or not."""
    return _newest_step(workdir) is not None


def check_restart(config: Config, dataset_info, workdir) -> RunState:
    """The state of the run, new or resumed; logs what has changed.

    Raises ConfigError if the run in `workdir` has a checkpoint of another network, other settings
    or other data. A run that failed before its first checkpoint may be changed in any way.
    """
    new = make_state(config, dataset_info)
    _check_not_imported(workdir)
    if not can_resume(workdir):
        return new
    old = read_state(workdir)
    old_config = load_run_config(workdir)
    for difference in config_differences(old_config, config):
        if not _is_same_batch_norm(difference, old_config, config):
            _check_difference(difference, old, workdir)
    newest_step = _newest_step(workdir)
    _check_steps(config, newest_step, workdir)
    _check_classes(dataset_json.read_dataset(workdir).names, dataset_info, workdir)
    if old.fingerprint != new.fingerprint:
        raise ConfigError(
            f"{workdir} was trained on other records than the split {config.data.train_split!r} of "
            f"{dataset_info.folder} has now: use another --workdir (init_from reuses the weights)"
        )
    new.diverged_step = old.diverged_step
    new.comparable_from = old.comparable_from
    new.num_workers = old.num_workers
    new.num_replicas = old.num_replicas
    if old.evaluation != new.evaluation:
        evaluated = any(
            int(row["step"]) == newest_step and row["AP"]
            for row in read_metrics(workdir / "metrics.csv")
        )
        new.comparable_from = newest_step + 1 if evaluated else newest_step
        logging.warning(
            "the evaluation has changed: its AP is not compared with that before step %d, and "
            "checkpoints/best is replaced at the next evaluation",
            new.comparable_from,
        )
    return new


def check_replicas(config: Config, state: RunState, num_workers, num_replicas, workdir):
    """Compare the workers and replicas with those of the last start, and note them in the state.

    Logs what another number changes. Raises ConfigError if the run would read other records.
    """
    if config.data.shard == "file" and state.num_workers not in (None, num_workers):
        raise ConfigError(
            f"{workdir} was trained by {state.num_workers} workers with shards of their own "
            f"(data.shard=file), now there are {num_workers}, which would read other records: "
            "start as many, or use another --workdir"
        )
    if state.num_replicas not in (None, num_replicas) and _depends_on_replicas(config):
        logging.warning(
            "the run had %d replicas, now it has %d: train.bn=train and loss.normalizer=%s go by "
            "the images of each, so the updates are not those that it would have made",
            state.num_replicas,
            num_replicas,
            config.loss.normalizer,
        )
    state.num_workers = num_workers
    state.num_replicas = num_replicas


def _depends_on_replicas(config):
    by_replica = config.loss.normalizer in ("caffe", "torchvision")
    return config.train.bn == "train" or by_replica


def _check_not_imported(workdir):
    """Raise ConfigError if the run folder holds an imported detector, which training would lose."""
    path = workdir / "config.yaml"
    if path.is_file() and (source := load_run_config(workdir).imported_from) is not None:
        raise ConfigError(
            f"{workdir} holds a detector imported from {source}: use another --workdir, and "
            f"init_from={workdir} to start from it"
        )


def _is_same_batch_norm(difference, old_config, config):
    """Whether train.bn is synchronized in one config only and either has a single replica."""
    strategies = (old_config.train.strategy, config.train.strategy)
    one_replica = "one" in strategies and difference.path == "train.bn"
    return one_replica and {difference.old, difference.new} == {"train", "synchronized"}


def _check_difference(difference, state, workdir):
    """Raise ConfigError if the key may not change, else log what it was and is."""
    path, old, new = difference
    may_change = KEYS[path].may_change
    needs_divergence = may_change is not None and may_change.only_after_divergence
    if may_change is None or (needs_divergence and state.diverged_step is None):
        advice = "use another --workdir"
        if needs_divergence:
            advice += "; it may change only after a divergence"
        raise ConfigError(f"{workdir} was started with {path} = {old}, now it is {new}: {advice}")
    consequence = may_change.consequence
    log = logging.warning if consequence else logging.info
    log("%s was %s, now it is %s%s", path, old, new, f": {consequence}" if consequence else "")


def _check_steps(config, step, workdir):
    if config.train.steps < step:
        raise ConfigError(
            f"expected train.steps of at least {step}, which {workdir} has reached, "
            f"got {config.train.steps}"
        )


def _newest_step(workdir):
    """The step of the newest of `last`, sound or not; None if there is none."""
    prefixes = runs.list_checkpoints(workdir / "checkpoints" / "last")
    return runs.step_of(prefixes[0]) if prefixes else None


def _check_classes(old_names, dataset_info, workdir):
    if old_names != dataset_info.names:
        raise ConfigError(
            f"{workdir} was trained on {_summary(old_names)}, "
            f"{dataset_info.folder} has {_summary(dataset_info.names)}: use another --workdir"
        )


def _summary(names):
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def write_settings(config: Config, dataset_info, state: RunState, workdir):
    """Write dataset.json, config.yaml and state.json into the run folder, each atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    content = (dataset_info.folder / "dataset.json").read_bytes()
    files.write_bytes(workdir / "dataset.json", content)
    save_config(config, workdir / "config.yaml")
    state.write(workdir)


def config_differences(old: Config, new: Config) -> list[Difference]:
    """The keys in which two configs differ, by their path."""
    return list(differences(old.model_dump(mode="json"), new.model_dump(mode="json")))


def differences(old, new, path=""):
    """The values in which two nested dicts differ, as Differences; `path` leads to them."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield Difference(path, old, new)
