"""Fingerprints of image files, by which identical and near-identical images are found.

Near-identical are: one photo saved again at another size, quality or brightness, two photos of one
scene, neighbouring frames of a video.
"""

import hashlib
import pickle
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssd_tf import pixels, user_files

_THUMBNAIL_WH = (9, 8)
# JPEGs are decoded to at least this size: at an eighth of a photo's it costs half of a full
# decoding, and reads the same bits with the same verdict.
_DECODED_WH = (54, 48)
_MIN_CONTRAST = 4.0  # standard deviation of a thumbnail, in gray levels; images below are alike
_MAX_DIFFERENCE = 0.15  # of two thumbnails, in standard deviations
_MAX_COMPARED = 256  # images with the same part of the hash that an image is compared with


class Fingerprint(NamedTuple):
    """digest: SHA-256 of the file; thumbnail: uint8 [8, 9] gray, empty if it cannot be decoded."""

    digest: bytes
    thumbnail: bytes


def take_fingerprints(images, tick) -> list[Fingerprint]:
    """The fingerprints of the files of pickled LabeledImages; calls tick() after each.

    The digest of an unreadable file is that of its id and name.
    """
    found = []
    for packed in images:
        found.append(_take(pickle.loads(packed)))
        tick()
    return found


def _take(image):
    try:
        data = user_files.read_bytes(image.path, pixels.MAX_BYTES)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        identity = repr((image.source_id, image.filename)).encode()
        return Fingerprint(hashlib.sha256(identity).digest(), b"")
    return Fingerprint(hashlib.sha256(data).digest(), _draw_thumbnail(data))


def _draw_thumbnail(data):
    try:
        image = pixels.open_image(data)
        image.draft("L", _DECODED_WH)
        pixels.decode(image)
        gray = pixels.to_rgb(image).convert("L")
    except pixels.BadImage:
        return b""
    return np.asarray(gray.resize(_THUMBNAIL_WH, Image.Resampling.BILINEAR)).tobytes()


def find_similar(thumbnails) -> Iterator[tuple[int, int]]:
    """Yield pairs of indices of near-identical images; thumbnails: of their Fingerprints.

    Two images are compared if a quarter of their difference hashes (dHash; N. Krawetz, "Kind of
    Like That", 2013) is equal, which is certain if at most 3 of its 64 bits differ. They are
    near-identical if their thumbnails, of mean 0 and standard deviation 1, differ by at most 0.15
    per pixel on average. Different photos differ by more than 0.24 in COCO, 0.33 in BCCD; saved
    again at half the size, a third of the quality or 1.2 times the brightness, by 0.16 at most.
    Images without contrast are like no other.
    """
    indices = np.array([i for i, thumbnail in enumerate(thumbnails) if thumbnail], np.int64)
    if not indices.size:
        return
    width, height = _THUMBNAIL_WH
    gray = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, height, width)
    is_brighter = gray[:, :, 1:] > gray[:, :, :-1]
    bits = np.packbits(is_brighter.reshape(len(gray), -1), axis=1)  # [n, 8]
    normal, contrast = _normalize(gray.reshape(len(gray), -1))
    is_usable = contrast >= _MIN_CONTRAST
    indices, bits, normal = (values[is_usable] for values in (indices, bits, normal))
    for part in bits.view(np.uint16).T:  # [4, n]
        for bucket in _list_equal(part):
            for position, index in enumerate(bucket[:-1]):
                others = bucket[position + 1 : position + 1 + _MAX_COMPARED]
                difference = np.abs(normal[others] - normal[index]).mean(axis=1)
                for other in others[difference <= _MAX_DIFFERENCE]:
                    yield int(indices[index]), int(indices[other])


def _normalize(gray):
    """[n, pixels] of mean 0 and standard deviation 1, and the standard deviations before."""
    values = gray.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    contrast = values.std(axis=1)
    return values / np.maximum(contrast, 1)[:, None], contrast


def _list_equal(values):
    """The indices of equal values, an array for each value that occurs twice or more."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order])) + 1
    return (indices for indices in np.split(order, starts) if len(indices) > 1)
