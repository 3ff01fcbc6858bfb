"""The files of MediaPipe Tasks for Web that a page needs: from a folder, an archive, or a CDN."""

import contextlib
import pathlib
import shutil
import tarfile
import typing
import zipfile

from ssd_tf.errors import ConfigError, shorten

PACKAGE = "@mediapipe/tasks-vision"
BUNDLE = "vision_bundle.mjs"
WASM = "wasm"  # a folder
CDN = "cdn"
FOLDER = "mediapipe"  # beside the page
# The version that was tested; the tag `latest` is a build of 2023.
_CDN_ADDRESS = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@0.10.35"


class _Archive(typing.NamedTuple):
    """names: of the regular files. open: a name -> an open file."""

    names: list[str]
    open: typing.Callable


def address_of(source) -> str:
    """Where the page finds the files: on the CDN, or in its own folder."""
    return _CDN_ADDRESS if source == CDN else f"./{FOLDER}"


def check(source):
    """Raise FileNotFoundError or ConfigError unless `copy_files` can take this source."""
    if source == CDN:
        return
    path = pathlib.Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"--web_files: expected a folder or an archive of the npm package {PACKAGE}, or "
            f"{CDN}; there is nothing at {source}"
        )
    if path.is_dir():
        missing = [name for name in (BUNDLE, WASM) if not (path / name).exists()]
    else:
        with _open_archive(path) as archive:
            found = _members(archive.names)
        missing = [BUNDLE] * (BUNDLE not in found) or [WASM] * (len(found) < 2)
    if missing:
        raise FileNotFoundError(
            f"--web_files: expected the npm package {PACKAGE}, found no {missing[0]} in {source}"
        )


def copy_files(source, target):
    """Copy the bundle and the folder wasm of a source that was checked into a new folder."""
    if source == CDN:
        return
    target.mkdir()
    path = pathlib.Path(source)
    if path.is_dir():
        shutil.copyfile(path / BUNDLE, target / BUNDLE)
        shutil.copytree(path / WASM, target / WASM)
        return
    (target / WASM).mkdir()
    with _open_archive(path) as archive:
        for name, member in _members(archive.names).items():
            with archive.open(member) as file, open(target / name, "wb") as copy:
                shutil.copyfileobj(file, copy)


def _members(names):
    """{path below the target: name in the archive}: of the bundle, and of the files of wasm/."""
    bundles = [name for name in names if pathlib.PurePosixPath(name).name == BUNDLE]
    if not bundles:
        return {}
    root = pathlib.PurePosixPath(min(bundles, key=len)).parent
    inside = {str(root / BUNDLE): BUNDLE}
    # Only files directly in wasm/, by their last names: no name leads out of the target.
    for name in names:
        path = pathlib.PurePosixPath(name)
        if path.parent == root / WASM:
            inside[name] = f"{WASM}/{path.name}"
    return {below: name for name, below in inside.items()}


@contextlib.contextmanager
def _open_archive(path):
    """A context with the _Archive at a path: .tgz, .tar, .zip or .whl. Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        try:
            if zipfile.is_zipfile(path):
                zipped = stack.enter_context(zipfile.ZipFile(path))
                names = [name for name in zipped.namelist() if not name.endswith("/")]
                archive = _Archive(names, zipped.open)
            else:
                packed = stack.enter_context(tarfile.open(path))
                names = [member.name for member in packed.getmembers() if member.isfile()]
                archive = _Archive(names, packed.extractfile)
        except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise ConfigError(
                "--web_files: expected a folder, or an archive as npm pack writes it (.tgz), got "
                f"{path} ({shorten(error)})"
            ) from None
        yield archive
