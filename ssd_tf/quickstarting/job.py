"""A quickstart: what was asked for, the files of its output folder, and its commands."""

import dataclasses
import pathlib
import re
import shlex
import typing

from ssd_tf import cli, commandline, errors
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.quickstarting.state import Request, State

_TEST = "test"
_OWN_FLAGS = frozenset(["--output", "--minutes", "--start", "--classes", "--format", "--set"])
_IMPORT = "import"
# {beginning of an error of `ssd import`: what it is about for the user}.
_SUBJECTS = {
    "--source: ": "--start: ",
    "--labels: ": "--start: the class names beside it, which you can correct or move away: ",
}


@dataclasses.dataclass
class Job:
    """What the steps share.

    recognised: a recognise.Recognised, for the conversion. command: what the user ran.
    """

    request: Request
    folder: pathlib.Path
    state: State
    command: str
    recognised: typing.Any = None
    commands: list[str] = dataclasses.field(default_factory=list)  # of the current step

    @property
    def data(self):
        """TFRecords."""
        return self.folder / "data"

    @property
    def start(self):
        """The run folder of the imported detector that training starts from."""
        return self.folder / "start"

    @property
    def config(self):
        """The experiment file."""
        return self.folder / "config.yaml"

    @property
    def run(self):
        """The run folder."""
        return self.folder / "run"

    @property
    def exports(self):
        """SavedModel, TFLite files and the web page."""
        return self.folder / "exports"

    @property
    def drawn(self):
        """Held-out images with what was detected."""
        return self.folder / "detections"

    @property
    def sheet(self):
        """Training images with their boxes."""
        return self.folder / "images.png"

    @property
    def splits(self):
        """{split: its entry of dataset.json}."""
        return dataset_json.read_dataset(self.data).splits

    @property
    def quoted_split(self):
        """The split whose metrics are quoted: nothing was chosen on the test split."""
        return _TEST if _TEST in self.splits else "val"

    def evaluation(self, split):
        """The report and the metrics of a split."""
        return self.folder / f"evaluation_{split}"

    def call(self, *arguments):
        """Print a command as a user would type it, and run it in this process.

        Raises what the command raises, in terms of the quickstart, and Interrupted if a signal
        ended it.
        """
        arguments = [str(argument) for argument in arguments]
        command = shlex.join(["ssd", *arguments])
        print(f"\n$ {command}", flush=True)
        self.commands.append(command)
        name, _ = cli.split_name(arguments)
        try:
            with commandline.as_part():
                code = cli.main(["ssd", *arguments, "--traceback"])
        except (ValueError, OSError) as error:
            text = in_own_terms(str(error), name)
            if text == str(error):
                raise
            kind = ConfigError if isinstance(error, ConfigError) else ValueError
            raise kind(text) from error
        if code > 128:
            raise errors.Interrupted(code - 128, "interrupted")
        if code:
            raise ValueError(f"{command} ended with exit code {code}: see above")


def in_own_terms(text, command) -> str:
    """An error of a command in the terms of `ssd quickstart`, which lacks most of its flags.

    command: its name, such as `import` or `convert voc`. Flags of that command alone are said to be
    so, with the way to use them.
    """
    if command == _IMPORT:
        for beginning, subject in _SUBJECTS.items():
            if text.startswith(beginning):
                text = subject + text.removeprefix(beginning)
    named = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z_]+", text))
    others = [flag for flag in named if flag not in _OWN_FLAGS]
    if not others:
        return text
    then = "go on by hand (docs/step_by_step.md)"
    if command == _IMPORT:
        then = "give the folder that it writes as --start"
    return (
        f"{text} ({', '.join(others)}: of `ssd {command}`; run the command above with that "
        f"yourself, then {then})"
    )
