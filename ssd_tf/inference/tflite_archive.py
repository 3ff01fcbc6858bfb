"""The zip archive at the end of a .tflite file, which holds its label file."""

import zipfile

from ssd_tf.errors import shorten
from ssd_tf.user_files import MAX_LABEL_BYTES


def read_member(path, choose):
    """(name, content) of the member that choose(names) names, or None.

    Raises ValueError if the archive is corrupt.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            name = choose(archive.namelist())
            if name is None:
                return None
            with archive.open(name) as file:
                return name, file.read(MAX_LABEL_BYTES)
    except Exception as error:  # reading a corrupt archive raises almost anything
        raise ValueError(f"{path}: the archive at its end is corrupt ({shorten(error)})") from None
