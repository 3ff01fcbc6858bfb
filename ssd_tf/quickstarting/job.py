"""A quickstart: what was asked for, the files of its output folder, and its commands."""

import dataclasses
import pathlib
import shlex
import typing

from ssd_tf import cli, commandline, errors
from ssd_tf.data import dataset_json
from ssd_tf.errors import ConfigError
from ssd_tf.quickstarting import messages
from ssd_tf.quickstarting.state import Request, State

_TEST = "test"


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
            text = messages.in_own_terms(str(error), name)
            if text == str(error):
                raise
            kind = ConfigError if isinstance(error, ConfigError) else ValueError
            raise kind(text) from error
        if code > 128:
            raise errors.Interrupted(code - 128, "interrupted")
        if code:
            raise ValueError(f"{command} ended with exit code {code}: see above")
