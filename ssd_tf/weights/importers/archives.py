"""Archives of detectors (.tar.gz), as the detection zoo publishes them."""

import contextlib
import pathlib
import tarfile
import tempfile
import zlib

from ssd_tf.errors import ConfigError, shorten

_MAX_BYTES = 4 << 30
_MAX_MEMBERS = 1000


@contextlib.contextmanager
def unpacked(path):
    """The folder of an archive's content, deleted afterwards.

    Raises ConfigError for a truncated archive, and for one with links, devices, or names that lead
    out of the folder.
    """
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory(prefix="ssd-tf-") as folder:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, _check_members(archive, path), filter="data")
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise ConfigError(f"{path}: cannot be unpacked ({shorten(error)})") from None
        inside = list(pathlib.Path(folder).iterdir())
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else pathlib.Path(folder)


def _check_members(archive, path):
    members = []
    num_bytes = 0
    for member in archive:
        if not (member.isfile() or member.isdir()):
            raise ConfigError(f"{path}: {member.name} is neither a file nor a folder")
        members.append(member)
        num_bytes += member.size
        if len(members) > _MAX_MEMBERS or num_bytes > _MAX_BYTES:
            raise ConfigError(f"{path}: expected at most {_MAX_MEMBERS} files and 4 GB")
    return members
