"""Whether a command may resume a run, and whether all workers run the same command."""

import dataclasses
import hashlib
import json
import pathlib
import typing

import tensorflow as tf
from absl import logging

from ssd_tf import __version__, files
from ssd_tf.class_names import count_classes
from ssd_tf.config import KEYS, Config, PostProcessing, load_run_config, save_config
from ssd_tf.config.keys import MayChange
from ssd_tf.data import dataset_json, shards
from ssd_tf.errors import ConfigError
from ssd_tf.training import distribution
from ssd_tf.training.monitor import read_metrics
from ssd_tf.weights import run_files, runs

# Sections that may differ between workers, as they change nothing in the steps taken together.
_MAY_DIFFER = ("export", "watch")


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
    last start; None before the first. new_layers: before the heads, that init_from has not filled.
    """

    fingerprint: str
    evaluation: dict
    comparable_from: int = 0
    diverged_step: int | None = None
    num_workers: int | None = None
    num_replicas: int | None = None
    new_layers: list[str] = dataclasses.field(default_factory=list)

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
    """Whether the run folder has a checkpoint, intact or not."""
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
    if config.train.steps < newest_step:
        raise ConfigError(
            f"expected train.steps of at least {newest_step}, which {workdir} has reached, "
            f"got {config.train.steps}"
        )
    _check_classes(dataset_json.read_dataset(workdir).names, dataset_info, workdir)
    if old.fingerprint != new.fingerprint:
        raise ConfigError(
            f"{workdir} was trained on other records than the split {config.data.train_split!r} of "
            f"{dataset_info.folder} has now: use another --workdir (init_from reuses the weights)"
        )
    state = dataclasses.replace(old, evaluation=new.evaluation)
    if old.evaluation != new.evaluation:
        evaluated = any(
            int(row["step"]) == newest_step and row["AP"]
            for row in read_metrics(workdir / "metrics.csv")
        )
        state.comparable_from = newest_step + 1 if evaluated else newest_step
        logging.warning(
            "the evaluation has changed: its AP is not compared with that before step %d, and "
            "checkpoints/best is replaced at the next evaluation",
            state.comparable_from,
        )
    return state


def check_replicas(config: Config, state: RunState, strategy, workdir):
    """Compare the workers and replicas with those of the last start, and note them in the state.

    Logs what another number changes. Raises ConfigError if the run would read other records.
    """
    num_workers = distribution.count_workers(strategy)
    num_replicas = strategy.num_replicas_in_sync
    if config.data.shard == "file" and state.num_workers not in (None, num_workers):
        raise ConfigError(
            f"{workdir} was trained by {state.num_workers} workers with shards of their own "
            f"(data.shard=file), now there are {num_workers}, which would read other records: "
            "start as many, or use another --workdir"
        )
    by_replica = config.train.bn == "train" or config.loss.normalizer == "torchvision"
    if by_replica and state.num_replicas not in (None, num_replicas):
        logging.warning(
            "the run had %d replicas, now it has %d: train.bn=train and loss.normalizer=%s go by "
            "the images of each, so the updates are not those that it would have made",
            state.num_replicas,
            num_replicas,
            config.loss.normalizer,
        )
    state.num_workers = num_workers
    state.num_replicas = num_replicas


def _check_not_imported(workdir):
    """Raise ConfigError if training would overwrite an imported detector."""
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
    if path == "init_from" and None not in (old, new):
        may_change = MayChange(consequence="a run that has begun does not read it again")
    needs_divergence = may_change is not None and may_change.only_after_divergence
    if may_change is None or (needs_divergence and state.diverged_step is None):
        advice = "use another --workdir"
        if needs_divergence:
            advice += "; it may change only after a divergence"
        raise ConfigError(f"{workdir} was started with {path} = {old}, now it is {new}: {advice}")
    consequence = may_change.consequence
    log = logging.warning if consequence else logging.info
    log("%s was %s, now it is %s%s", path, old, new, f": {consequence}" if consequence else "")


def _newest_step(workdir):
    """The step of the newest of `last`, intact or not; None if there is none."""
    prefixes = run_files.list_checkpoints(workdir / "checkpoints" / "last")
    return run_files.step_of(prefixes[0]) if prefixes else None


def _check_classes(old_names, dataset_info, workdir):
    if old_names != dataset_info.names:
        raise ConfigError(
            f"{workdir} was trained on {_summary(old_names)}, "
            f"{dataset_info.folder} has {_summary(dataset_info.names)}: use another --workdir"
        )


def _summary(names):
    shown = [*names[:5], *["..."] * (len(names) > 5)]
    return f"{count_classes(len(names))} ({', '.join(shown)})"


def write_settings(config: Config, dataset_info, state: RunState, workdir):
    """Write dataset.json, config.yaml and state.json into the run folder, each atomically.

    dataset_info: with the classes of the run.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    content = (dataset_info.folder / "dataset.json").read_bytes()
    if config.data.keep_classes:
        classes = {"classes": list(dataset_info.classes)}
        files.write_json(workdir / "dataset.json", json.loads(content) | classes)
    else:
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


def check_agreement(
    strategy, config: Config, dataset_info, state, resumes=False, profile_steps=None
):
    """Compare the workers; all must call it, before they build anything together.

    resumes: whether a checkpoint replaces the initial weights.
    Raises ConfigError that names each difference, on every worker.
    """
    if not distribution.has_several_workers(strategy):
        return
    own = {
        "worker": distribution.own_address(strategy.cluster_resolver),
        "settings": _settings(config, dataset_info, state, resumes, profile_steps),
    }
    found = [json.loads(text) for text in distribution.gather_texts(strategy, json.dumps(own))]
    first = found[0]
    messages = [
        f"{difference.path} is {_show(difference.old)} on {first['worker']} and "
        f"{_show(difference.new)} on {worker}"
        for worker, settings in {each["worker"]: each["settings"] for each in found}.items()
        for difference in differences(first["settings"], settings)
    ]
    if messages:
        more = f"; and {len(messages) - 5} more" if len(messages) > 5 else ""
        raise ConfigError(
            f"the workers differ: {'; '.join(messages[:5])}{more}; start the same command with "
            "the same files on all of them"
        )


def _settings(config, dataset_info, state, resumes, profile_steps):
    """All that the workers must share, as plain values by the names that messages show."""
    settings = config.model_dump(mode="json")
    for section in _MAY_DIFFER:
        del settings[section]
    if config.train.steps_per_call > 1:
        # A report ends a call of the training function, which all workers make alike.
        settings["watch.log_every"] = config.watch.log_every
    # The paths of the same weights may differ.
    settings["init_from"] = None if resumes else _digest_source(config.init_from)
    fingerprints = {
        config.data.val_split: state.evaluation["fingerprint"],
        config.data.train_split: state.fingerprint,
    }
    for split, fingerprint in fingerprints.items():
        num_images = dataset_info.splits.get(split, {}).get("images", 0)
        shown = f"{num_images} images with the checksum {fingerprint[:12]}" if fingerprint else None
        settings[f"the split {split!r}"] = shown
    settings["--profile_steps"] = profile_steps
    settings["the version of ssd_tf"] = __version__
    settings["the version of TensorFlow"] = tf.__version__
    return settings


def _digest_source(source):
    """A digest of a file of weights, or of the checkpoint that a run folder is used with.

    Anything else comes back unchanged; what cannot be read gives a text that says so.
    """
    if source in (None, "imagenet"):
        return source
    path = pathlib.Path(source)
    try:
        paths = [path]
        if path.is_dir():
            prefix = pathlib.Path(runs.find_checkpoint(path))
            paths = [*prefix.parent.glob(f"{prefix.name}.*"), *path.glob("*.yaml")]
        digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in sorted(paths)]
    except (OSError, ValueError) as error:
        return f"unreadable ({error})"
    return f"the checksum {hashlib.sha256(''.join(digests).encode()).hexdigest()[:12]}"


def _show(value):
    return "none" if value is None else str(value)
