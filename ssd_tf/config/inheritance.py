"""Read experiment files into plain values: YAML, `base:` for inheritance, `KEY=VALUE` overrides.

`loading.py` checks keys and values.
"""

import pathlib

import yaml

from ssd_tf import user_files
from ssd_tf.errors import ConfigError

_BOXES = ("boxes",)
_AUGMENT = ("data", "augment")
# Keys of boxes that do not say where default boxes are.
APART_FROM_PRESET = ("variances", "coding", "assigner")
# Inside an installed package, and at the top of a clone.
_OWN_FOLDERS = tuple(pathlib.Path(__file__).parents[level] / "configs" for level in (1, 2))


def read_layers(path, overrides=()) -> list[dict]:
    """The values of an experiment file, with those of its bases; overrides go over all.

    The last item has all of them. Those before it are what each base, and then the file, has made
    of the values until then.
    path: of a file, or, if there is none, the name of one that comes with the package, such as
    configs/finetune.yaml or finetune. overrides: strings `key.path=value`, the value in YAML.
    Raises ConfigError.
    """
    layers = _read_file(_find_file(path, pathlib.Path()))
    return [*layers, apply_overrides(layers[-1], overrides)]


def apply_overrides(values: dict, overrides) -> dict:
    """The values with those of `key.path=value`, in any order, instead. Raises ConfigError."""
    changes: dict = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set: expected KEY=VALUE, got {override!r}")
        change = _parse_yaml(text, where=f"--set {override}")
        for name in reversed(key.strip().split(".")):
            change = {name: change}
        changes = merge(changes, change, is_one_layer=True)
    return merge(values, changes)


def _read_file(path, ancestors=()) -> list[dict]:
    """ancestors: resolved paths of the files that lead here by `base`."""
    if path.resolve() in ancestors:
        raise ConfigError(f"{path}: `base` leads back to this file")
    try:
        text = user_files.read_text(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    values = _parse_yaml(text, where=str(path)) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got a {type(values).__name__}")
    base = values.pop("base", None) or []
    bases = [base] if isinstance(base, str) else base
    if not (isinstance(bases, list) and all(isinstance(name, str) for name in bases)):
        raise ConfigError(f"{path}: base: expected a path or a list of paths, got {base!r}")
    layers = [{}]
    for name in bases:
        base_path = _find_file(name, path.parent)
        inherited = _read_file(base_path, (*ancestors, path.resolve()))
        layers += [merge(layers[-1], layer) for layer in inherited]
    return [*layers, merge(layers[-1], values)]


def _find_file(name, folder):
    """The path of a file below a folder, or of our own file of this name. Raises ConfigError."""
    path = folder / name
    if path.is_file():
        return path
    hint = user_files.suggest_path(path)
    is_own_name = pathlib.Path(name).parent.as_posix() in (".", "configs")
    for own_folder in _OWN_FOLDERS if is_own_name else ():
        own = (own_folder / path.name).with_suffix(".yaml")
        if own.is_file():
            return own
        hint = hint or user_files.suggest_path(own)
    raise ConfigError(f"no config file at {path}{hint}")


def _parse_yaml(text, where):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def merge(base, changes, path=(), is_one_layer=False):
    """`changes` merged over `base`; both are values of the section or key at `path`.

    is_one_layer: one author gives both, so that a preset goes with the keys of the base.
    """
    if path == _AUGMENT:
        base = _spell_out(base)
        changes = _spell_out(changes)
    if isinstance(base, str) and isinstance(changes, dict):
        name = ".".join(map(str, path))
        raise ConfigError(f"{name} is {base!r}, so it has no key {next(iter(changes), '')!r}")
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    has_preset = path in (_BOXES, _AUGMENT) and not is_one_layer
    starts_over = has_preset and _chooses_anew(base, changes)
    # The keys that shape the base's default boxes, or augmentation, go with its preset.
    merged = {key: base[key] for key in base if key in APART_FROM_PRESET or not starts_over}
    for key, value in changes.items():
        merged[key] = merge(merged.get(key), value, (*path, key), is_one_layer)
    return merged


def _spell_out(augment):
    """`augment: caffe` is short for `augment: {preset: caffe}`."""
    return {"preset": augment} if isinstance(augment, str) else augment


def _chooses_anew(base, changes):
    """Whether changes of a section give another preset, or boxes another table, than its base."""
    preset = base.get("preset")
    return bool(changes.get("levels")) or changes.get("preset", preset) != preset
