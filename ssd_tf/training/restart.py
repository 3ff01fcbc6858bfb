"""The settings of a run in its folder, and whether a command may resume it."""

import typing

from absl import logging

from ssd_tf import files
from ssd_tf.config import Config, ConfigError, load_config, save_config
from ssd_tf.data import dataset_json


class Difference(typing.NamedTuple):
    """A key of two configs with different values."""

    path: str
    old: object
    new: object


def check_restart(config: Config, dataset_info, workdir):
    """Raise ConfigError if the run in `workdir` has a checkpoint of other settings or classes.

    Only eval.*, export.*, watch.* and data.on_bad_record may differ. A run that failed before its
    first checkpoint may be changed and started again.
    """
    if not any((workdir / "checkpoints" / "last").glob("*.index")):
        return
    for path, old, new in config_differences(load_config(workdir / "config.yaml"), config):
        if path == "data.on_bad_record":
            logging.warning(
                "%s was %s, now it is %s: skipped records change the order of images",
                path,
                old,
                new,
            )
        elif not path.startswith(("eval.", "export.", "watch.")):
            raise ConfigError(
                f"{workdir} was started with {path} = {old}, now it is {new}: use another --workdir"
            )
    _check_classes(dataset_json.read_dataset(workdir).names, dataset_info, workdir)


def _check_classes(old_names, dataset_info, workdir):
    if old_names != dataset_info.names:
        raise ConfigError(
            f"{workdir} was trained on {_summary(old_names)}, "
            f"{dataset_info.folder} has {_summary(dataset_info.names)}: use another --workdir"
        )


def _summary(names):
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def write_settings(config: Config, dataset_info, workdir):
    """Write dataset.json and config.yaml into the run folder, each atomically."""
    workdir.mkdir(parents=True, exist_ok=True)
    content = (dataset_info.folder / "dataset.json").read_bytes()
    files.write_bytes(workdir / "dataset.json", content)
    save_config(config, workdir / "config.yaml")


def config_differences(old: Config, new: Config) -> list[Difference]:
    """The keys in which two configs differ, by their path."""
    return list(_differences(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def _differences(old, new, path):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield Difference(path, old, new)
