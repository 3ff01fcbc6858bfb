"""`quickstart.json`: the request of a quickstart, and the steps that are done."""

import collections.abc
import datetime
import hashlib
import json
import os
import pathlib
import types
import typing

from ssd_tf import __version__, files
from ssd_tf.errors import ConfigError

NAME = "quickstart.json"
# {field of a request: (its flag, the step until whose end it may change, or None)}.
_FLAGS = {
    "minutes": ("--minutes", "choose"),
    "start": ("--start", "start"),
    "classes": ("--classes", None),
    "label_format": ("--format", None),
    "overrides": ("--set", "choose"),
}


class Request(typing.NamedTuple):
    """What the user asks for; `quickstart` describes the fields."""

    images: pathlib.Path
    minutes: float = 15
    start: str | None = None
    classes: tuple[str, ...] = ()
    label_format: str | None = None
    overrides: tuple[str, ...] = ()

    def to_json(self) -> dict:
        """Plain values, with a fingerprint of the files instead of their path."""
        content = self._asdict()
        del content["images"]
        content["classes"] = list(self.classes)
        content["overrides"] = list(self.overrides)
        return {**content, "fingerprint": fingerprint(self.images)}


class Done(typing.NamedTuple):
    """What a step leaves. output: a file, or None; result: plain values for later steps."""

    output: pathlib.Path | None = None
    result: collections.abc.Mapping = types.MappingProxyType({})


class State:
    """The content of a folder's quickstart.json, written after each step."""

    def __init__(self, folder, request: Request):
        """Reads an existing file. Raises ConfigError if its steps were made for another request.

        Flags of steps that are not done may differ, so that an error in one can be corrected. A
        folder that holds anything else is an error, too.
        """
        self._path = pathlib.Path(folder) / NAME
        wanted = request.to_json()
        if self._path.is_file():
            self._content = _read(self._path)
            _check_same(self._content, wanted, self._path.parent)
            self._content["request"] = wanted
            return
        if self._path.parent.is_dir() and any(self._path.parent.iterdir()):
            raise ConfigError(
                f"--output: {self._path.parent} has files, but no {NAME}: name another folder"
            )
        self._content = {"version": 1, "ssd_tf": __version__, "request": wanted, "steps": {}}
        self._content["stopped_seconds"] = {}

    def start(self):
        """Write the file, unless it is there."""
        if not self._path.is_file():
            files.write_json(self._path, self._content)

    def abandon(self):
        """Remove the file if no step is done: the folder is as free as before."""
        if not self._content["steps"]:
            self._path.unlink(missing_ok=True)

    def is_done(self, step) -> bool:
        """Whether a step is done, and the file that it left still there."""
        entry = self._content["steps"].get(step)
        if entry is None:
            return False
        return entry["output"] is None or (self._path.parent / entry["output"]).exists()

    def finish(self):
        """Note that all steps are done."""
        self._content["finished"] = True
        files.write_json(self._path, self._content)

    def is_finished(self) -> bool:
        """Whether all steps are done, and their files still there."""
        return self._content.get("finished", False) and all(map(self.is_done, self.seconds()))

    def result(self, step) -> dict:
        """What a step that is done has noted."""
        return self._content["steps"][step]["result"]

    def seconds(self) -> dict[str, float]:
        """{step: the seconds it took, in all calls}, of those that are done."""
        return {name: entry["seconds"] for name, entry in self._content["steps"].items()}

    def note_stop(self, step, seconds):
        """Note that a step ended before it was done, after so many seconds."""
        stopped = self._content["stopped_seconds"]
        stopped[step] = round(stopped.get(step, 0) + seconds, 1)
        files.write_json(self._path, self._content)

    def note(self, step, done: Done, commands, seconds):
        """Note that a step is done. commands: as text. seconds: of the call that finished it."""
        seconds += self._content["stopped_seconds"].pop(step, 0)
        output = done.output and done.output.relative_to(self._path.parent).as_posix()
        self._content["steps"][step] = {
            "commands": commands,
            "seconds": round(seconds, 1),
            "finished": datetime.datetime.now().isoformat(timespec="seconds"),
            "output": output,
            "result": dict(done.result),
        }
        files.write_json(self._path, self._content)


def _read(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] == 1 and isinstance(content["steps"], dict) and content["request"]:
            return {"stopped_seconds": {}} | content
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"{path} cannot be read: name another --output, or remove {path.parent}")


def _check_same(content, wanted, folder):
    """Raise ConfigError for the first difference between two requests that a step has used."""
    found = content["request"]
    if found.get("fingerprint") != wanted["fingerprint"]:
        raise ConfigError(
            f"{folder} was made of other files, or they have changed since: name another --output"
        )
    for key, (flag, step) in _FLAGS.items():
        is_used = step is None or step in content["steps"]
        if is_used and found.get(key) != wanted[key]:
            raise ConfigError(
                f"{folder} was made with {_show(flag, found.get(key))}, now it is "
                f"{_show(flag, wanted[key])}: give the same, or another --output"
            )


def _show(flag, value):
    if not value:
        return f"no {flag}"
    text = ",".join(value) if isinstance(value, list) else str(value).removesuffix(".0")
    return f"{flag} {text}"


def fingerprint(folder) -> str:
    """A digest of the names, sizes and times of change of all files below a folder.

    Hidden files and folders do not count.
    """
    digest = hashlib.sha256()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            try:
                status = os.stat(path)
            except OSError:  # a broken link
                continue
            entry = (os.path.relpath(path, folder), status.st_size, status.st_mtime_ns)
            digest.update(repr(entry).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
