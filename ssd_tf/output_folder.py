"""A folder for the files of a command, which never overwrites files of the user.

A command replaces files that this program wrote there and that have not been changed since. It is
an error if another file has the name of one to be written. `written.sha256` in the folder lists the
files written, in the format of sha256sum.
"""

import contextlib
import hashlib
import os
import pathlib
import re

from ssd_tf.user_files import check_output_folder

MANIFEST = "written.sha256"
_UNESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
_ESCAPED = re.compile(r"\\[\\nr]")


class OutputFolder:
    """A folder for the files of one command.

    inputs: files that the command reads, which it never replaces. flag: what errors call the
    folder. Raises FileExistsError if the path is a file.
    """

    def __init__(self, path, inputs=(), flag="--output"):
        self.path = pathlib.Path(path)
        self._flag = flag
        self._inputs = {os.path.realpath(source) for source in inputs}
        check_output_folder(path, flag)
        self._digests = _read_manifest(self.path / MANIFEST)

    def check(self, names):
        """Raise FileExistsError if one of the files must not be written; names: relative paths."""
        for name in names:
            fault = self._find_fault(name)
            if fault:
                raise FileExistsError(
                    f"{self._flag} {self.path}: {name} {fault}; move it away, or name another "
                    "folder"
                )

    def check_absent(self, name, holds):
        """Raise FileExistsError if a file exists that would be stale beside new ones.

        holds: the content of its folder, for the message.
        """
        if os.path.lexists(self.path / name):
            raise FileExistsError(f"{self._flag} {self.path} holds {holds}; name another folder")

    def write(self, name, write):
        """Write one file atomically: write(path) fills a temporary file of the same suffix.

        Returns its path. Raises FileExistsError as `check` does.
        """
        self.check([name])
        temporary = self._make_temporary(name)
        try:
            write(temporary)
            self.adopt(name, temporary)
        finally:
            temporary.unlink(missing_ok=True)
        return self.path / name

    def write_text(self, name, text):
        """Write a text file in UTF-8, as `write` does.

        Half a surrogate pair, which UTF-8 cannot encode, is written as its escape.
        """
        data = text.encode("utf-8", "backslashreplace")
        return self.write(name, lambda path: path.write_bytes(data))

    @contextlib.contextmanager
    def grow(self, name):
        """A context with the temporary path of a file that is written in parts.

        What was written is kept, however the context ends; without any, the old file stays.
        Raises FileExistsError as `check` does.
        """
        self.check([name])
        temporary = self._make_temporary(name)
        try:
            yield temporary
        finally:
            if temporary.exists():
                self.adopt(name, temporary)

    def adopt(self, name, finished):
        """Move a finished file of the same file system into the folder, and list it as written.

        Raises FileExistsError as `check` does.
        """
        self.check([name])
        digest = _digest(finished)
        _append_line(self.path / MANIFEST, _manifest_line(digest, name))
        os.replace(finished, self.path / name)
        self._digests[name] = self._digests.get(name, frozenset()) | {digest}

    def remove(self, names):
        """Remove those of these files that earlier calls wrote and that have not been changed."""
        for name in names:
            path = self.path / name
            if path.is_file() and not self._find_fault(name):
                path.unlink()

    def _make_temporary(self, name):
        """The path of a temporary file beside the target; creates its folder."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem[:50]}.partial{target.suffix}")
        temporary.unlink(missing_ok=True)  # of a process that was killed
        return temporary

    def _find_fault(self, name):
        """The reason not to write a file; empty if it may be written."""
        path = self.path / name
        if os.path.realpath(path) in self._inputs:
            return "is an input of this command"
        if not os.path.lexists(path):
            return ""
        if name not in self._digests:
            return "exists and was not written by this program"
        if not path.is_file() or _digest(path) not in self._digests[name]:
            return "was changed after this program wrote it"
        return ""


def _read_manifest(path):
    """{name: digests of what was written under it}; a line that was cut short is left out.

    A command that was killed between the two may have listed a file without replacing the old one,
    so every digest of a name counts.
    """
    digests = {}
    if path.is_file():
        for line in os.fsdecode(path.read_bytes()).split("\n"):
            digest, separator, name = line.removeprefix("\\").partition("  ")
            if line.startswith("\\"):
                name = _ESCAPED.sub(lambda found: _UNESCAPED[found.group()], name)
            if separator and len(digest) == 64:
                digests[name] = digests.get(name, frozenset()) | {digest}
    return digests


def _append_line(path, line):
    """Append a line, after the end of one that was cut short."""
    with open(path, "a+b") as file:
        is_cut = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            is_cut = file.read() != b"\n"
        file.write(b"\n" * is_cut + os.fsencode(line))


def _manifest_line(digest, name):
    """As sha256sum writes it: a name with a line break or a backslash has escapes."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return f"{mark}{digest}  {escaped}\n"


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
